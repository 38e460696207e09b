//! Memory, determinism and the map.

use equant_runtime::kernels::{conv2d_filter_len, patches_len};
use equant_runtime::op::OpKind;

use super::super::Options;
use super::{Net, check, compile_prepared, run};
use crate::compile::cost::Core;
use crate::graph::{Attr, DataType, Tensor};
use crate::report::MemoryReport;

fn residual() -> Net {
    let mut net = Net::new(1);
    let x = net.input("x", &[1, 8, 12, 12]);
    let mut stream = x;
    for _ in 0..2 {
        let w = net.weights(&[8, 8, 3, 3], 0);
        let y = net.node("Conv", &[&stream, &w], &[("pads", Attr::Ints(vec![1; 4]))]);
        let y = net.q(&y, 0.09, 1, DataType::I8);
        let y = net.node("Add", &[&y, &stream], &[]);
        let y = net.node("Relu", &[&y], &[]);
        stream = net.q(&y, 0.06, 0, DataType::U8);
    }
    net.output(&stream);
    net
}

#[test]
fn sums_are_written_over_an_operand() {
    let compiled = check(&mut residual(), 3.0);
    // Input and result of a convolution, and what it works in; the sum takes over one of them.
    let tensor = 8 * 12 * 12;
    let widest = 2 * tensor + 4 * patches_len(conv2d_filter_len([3, 3], 8, 1, 1), 12 * 12);
    assert_eq!((compiled.map.arena, compiled.map.arena_lower_bound), (widest, widest));
    assert_eq!(compiled.map.arena_note, None);
}

#[test]
fn outputs_lie_over_inputs_if_wanted() {
    let mut net = Net::new(1);
    let mut x = net.input("x", &[1, 8, 12, 12]);
    for _ in 0..3 {
        let w = net.weights(&[8, 8, 3, 3], 0);
        let y = net.node("Conv", &[&x, &w], &[("pads", Attr::Ints(vec![1; 4]))]);
        x = net.q(&y, 0.09, 1, DataType::I8);
    }
    net.output(&x);
    let apart = check(&mut net, 3.0);
    let over = compile_prepared(&net.graph, &Options { small_arena: true, ..Options::default() }).unwrap();
    // A tensor, and a few rows of twelve for the other.
    let row = 8 * 12;
    assert!(over.map.arena <= apart.map.arena - 8 * row, "{} of {}", over.map.arena, apart.map.arena);
    assert_eq!(over.map.arena, over.map.arena_lower_bound);
    let x: Vec<f32> = (0..12 * row).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
    let x = [x];
    assert_eq!(run(&over.image, &x), run(&apart.image, &x));
}

#[test]
fn a_tensor_still_needed_is_not_written_over() {
    let mut net = Net::new(2);
    let x = net.input("x", &[1, 64]);
    let a = net.node("Sigmoid", &[&x], &[]);
    let a = net.q(&a, 1.0 / 255.0, 0, DataType::U8);
    let b = net.node("Tanh", &[&x], &[]);
    let b = net.q(&b, 1.0 / 127.0, 0, DataType::I8);
    net.output(&a);
    net.output(&b);
    let compiled = check(&mut net, 1e-3);
    // The first table needs its own memory, the second takes over the input's.
    assert_eq!(compiled.map.arena, 2 * 64);
}

#[test]
fn the_same_graph_gives_the_same_bytes() {
    let net = residual();
    let first = net.compile().unwrap();
    for _ in 0..3 {
        assert_eq!(net.compile().unwrap().image, first.image);
    }
}

#[test]
fn equal_constants_are_stored_once() {
    let mut net = Net::new(3);
    let x = net.input("x", &[1, 16]);
    let w = net.weights(&[4, 16], 0);
    for scale in [0.05, 0.05] {
        let y = net.node("Gemm", &[&x, &w], &[("transB", Attr::Int(1))]);
        let y = net.q(&y, scale, 0, DataType::I8);
        net.output(&y);
    }
    let map = net.compile().unwrap().map;
    assert_eq!((map.flash.weights, map.operators.len()), (64, 2));
    assert_eq!(map.flash.multipliers, 4 * 4 + 4);
}

#[test]
fn flash_adds_up_and_names_can_go() {
    let net = residual();
    let named = net.compile().unwrap();
    let options = Options { strip_names: true, ..Options::default() };
    let bare = compile_prepared(&net.graph, &options).unwrap();
    for compiled in [&named, &bare] {
        let f = compiled.map.flash;
        assert_eq!(f.image, compiled.image.len());
        assert_eq!(f.image, f.records + f.weights + f.biases + f.multipliers + f.tables + f.names);
        assert_eq!(compiled.map.overhead, f.image - f.weights);
    }
    assert!(named.map.flash.names > 0 && bare.map.flash.names == 0);
    // Records hold where the names are, too.
    assert!(named.image.len() - bare.image.len() >= named.map.flash.names);
}

#[test]
fn the_map_reads_as_a_table() {
    let compiled = residual().compile().unwrap();
    let text = compiled.map.to_string();
    assert!(text.contains("arena") && text.contains("the least possible") && text.contains("n3_Conv"), "{text}");
    assert_eq!(compiled.map.macs(), 2 * 12 * 12 * 8 * 72);
    assert_eq!(compiled.operators, [OpKind::Conv2d, OpKind::Add]);
    let line = compiled.operator_set("Ops");
    assert_eq!(line, "equant_runtime::operator_set! { pub struct Ops { Conv2d, Add } }");
    let json = serde_json::to_value(&compiled.map).unwrap();
    assert_eq!(json["arena"], compiled.map.arena);
    assert_eq!(json["operators"].as_array().unwrap().len(), 4);
}

#[test]
fn lists_of_what_is_read_are_tables() {
    let mut net = Net::new(3);
    let x = net.input("x", &[1, 2, 4, 4]);
    let scales = net.floats(&[4], &[1.0, 1.0, 2.0, 2.0]);
    let y = net.node("Resize", &[&x, "", &scales], &[("mode", Attr::String("linear".into()))]);
    let y = net.q(&y, 0.05, 0, DataType::I8);
    let mut ints = |name: &str, value: i64| net.initializer(name, Tensor::from_i64(&[1], &[value]));
    let [starts, ends, axes, steps] =
        [("s", -1), ("e", -100), ("a", 3), ("t", -2)].map(|(name, value)| ints(name, value));
    let y = net.node("Slice", &[&y, &starts, &ends, &axes, &steps], &[]);
    let y = net.q(&y, 0.05, 0, DataType::I8);
    net.output(&y);
    let compiled = net.compile().unwrap();
    let kinds: Vec<&str> = compiled.map.operators.iter().map(|row| row.kind).collect();
    assert!(kinds.contains(&"Resize2d") && kinds.contains(&"Take"), "{kinds:?}");
    let report = MemoryReport::of(&compiled.image, Core::M4).unwrap();
    let tables = report.sections.iter().find(|section| section.name == "tables").map(|section| section.bytes);
    assert_eq!(tables, Some(compiled.map.flash.tables));
}
