//! Golden files: what quantization and compilation produce for two models, byte for byte (as hashes) and readable
//! (scales, zero points, layout). A change that means to alter them runs with `EQUANT_BLESS=1` and commits the result.
//!
//! The statistics are drawn by an integer generator instead of run through a float executor, whose sums depend on the
//! instructions a CPU has: so the bytes are the same on every machine.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use equant::compile::{self, Options};
use equant::graph::Graph;
use equant::observe::Statistics;
use equant::passes::Dims;
use equant::quantize::{self, Config};
use equant::{onnx, pipeline, qdq};
use equant_runtime::plan::{AlignedBytes, Plan, checksum};
use equant_tests::fuzz::Rng;
use equant_tests::models::{model_path, quantized_graph};

/// The QDQ file: each Q with its scale and zero point; scales per channel as a range and a checksum.
fn quantization(graph: &Graph) -> String {
    let mut out = String::new();
    for node in graph.nodes.iter().filter(|node| node.op_type == "DequantizeLinear") {
        let scale = &graph.initializers[node.input(1).expect("a scale")];
        let scales = scale.to_f32();
        let zero = node.input(2).map(|name| &graph.initializers[name]);
        let kind = zero.map_or_else(String::new, |zero| format!("{:?}", zero.dtype));
        let low = scales.iter().copied().fold(f32::INFINITY, f32::min);
        let high = scales.iter().copied().fold(0.0, f32::max);
        let zeros: Vec<i64> = zero.map(|zero| zero.to_i64()).unwrap_or_default();
        let zero = if zeros.iter().all(|z| Some(z) == zeros.first()) { zeros.first() } else { None };
        let _ = write!(out, "{} {kind} zero {}", node.output(), zero.map_or("various".into(), i64::to_string));
        let _ = match scales.len() {
            1 => writeln!(out, " scale {low:e}"),
            n => writeln!(out, " {n} scales {low:e} to {high:e}, crc {:08x}", checksum(&scale.data)),
        };
    }
    out
}

/// The plan: sections, tensors and operators.
fn layout(image: &[u8]) -> String {
    let image = AlignedBytes::from(image);
    let plan: Plan<'_> = Plan::parse(&image).expect("a valid plan");
    let header = plan.header();
    let mut out = format!(
        "{} bytes, {} of constants, arena {} + scratch {}\n",
        image.len(),
        header.consts_len,
        header.arena_len,
        header.scratch_len
    );
    for index in 0..header.tensors {
        let tensor = plan.tensor(index).expect("a tensor");
        let _ = writeln!(
            out,
            "tensor {index} {:?} {:?} at {} scale {:e} zero {}",
            tensor.dtype,
            tensor.shape(),
            tensor.offset,
            tensor.scale,
            tensor.zero_point
        );
    }
    for op in plan.ops() {
        let inputs: Vec<u16> = (0..op.input_count()).filter_map(|i| op.input(i)).collect();
        let outputs: Vec<u16> = (0..op.output_count()).filter_map(|i| op.output(i)).collect();
        let name = plan.op_name(&op).unwrap_or_default();
        let _ = writeln!(out, "{} {:?} {inputs:?} -> {outputs:?} `{name}` {} MACs", op.index, op.kind, op.macs);
    }
    out
}

/// Statistics of made-up values: sums of four draws, of different widths, some of them never negative.
fn statistics(graph: &Graph) -> BTreeMap<String, Statistics> {
    let mut rng = Rng::new(7);
    let mut draw = |index: usize| {
        let sum: i32 = (0..4).map(|_| rng.below(1 << 16) as i32 - (1 << 15)).sum();
        let value = sum as f32 / (1u32 << (13 + index % 4)) as f32;
        if index.is_multiple_of(3) { value } else { value.max(0.0) }
    };
    quantize::values_to_observe(graph)
        .into_iter()
        .enumerate()
        .map(|(index, name)| {
            let values: Vec<f32> = (0..4096).map(|_| draw(index)).collect();
            let mut statistics = Statistics::default();
            statistics.observe(&values);
            (name, statistics)
        })
        .collect()
}

fn compare(model: &str) {
    let float = pipeline::read_float(&model_path(model), &Dims::new()).expect("a committed model").graph;
    let outcome = quantize::quantize(&float, &statistics(&float), &Config::default()).expect("a quantized model");
    let file = onnx::to_bytes(&qdq::export(&float, &outcome));
    let graph = quantized_graph(&file);
    let plan = compile::compile(&graph, &Options::default()).expect("a plan").image;
    let text = format!(
        "# {model}, default configuration, made-up statistics. Accept changes with EQUANT_BLESS=1.\n\n\
         QDQ file: {} bytes, crc {:08x}\n{}\nPlan: crc {:08x}, {}",
        file.len(),
        checksum(&file),
        quantization(&graph),
        checksum(&plan),
        layout(&plan)
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(format!("{model}.txt"));
    if std::env::var_os("EQUANT_BLESS").is_some_and(|value| value == "1") {
        std::fs::create_dir_all(path.parent().expect("a folder")).unwrap();
        std::fs::write(&path, text).unwrap();
        return;
    }
    let golden = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; make it with EQUANT_BLESS=1", path.display()));
    for (number, (expected, actual)) in golden.lines().zip(text.lines()).enumerate() {
        assert_eq!(actual, expected, "{}, line {}", path.display(), number + 1);
    }
    assert_eq!(text.lines().count(), golden.lines().count(), "{}: number of lines", path.display());
}

#[test]
fn dscnn_is_as_before() {
    compare("dscnn");
}

#[test]
fn ae_is_as_before() {
    compare("ae");
}
