use super::testing::{Model, ints};
use super::*;
use crate::graph::{Attr, support};

/// Nodes that no exporter writes and a damaged file may hold: every rewrite must leave them for the check to name.
#[test]
fn malformed_nodes_are_named() {
    type Make = fn(&mut Model) -> String;
    let cases: [(&str, Make); 9] = [
        ("a factor without a product", |model| {
            let c = model.floats(&[1], &[2.0]);
            let q = model.node("Mul", &[&c], &[]);
            model.node("MatMul", &["x", &q], &[])
        }),
        ("a product of one operand", |model| {
            let c = model.floats(&[1], &[2.0]);
            let q = model.node("Mul", &["x", &c], &[]);
            model.node("MatMul", &[&q], &[])
        }),
        ("a difference of one operand", |model| {
            let axes = model.integers(&[-1]);
            let (two, epsilon) = (model.floats(&[], &[2.0]), model.floats(&[], &[1e-5]));
            let mean = model.node("ReduceMean", &["x", &axes], &[]);
            let (d, other) = (model.node("Sub", &["x", &mean], &[]), model.node("Sub", &["x"], &[]));
            let square = model.node("Pow", &[&other, &two], &[]);
            let variance = model.node("ReduceMean", &[&square, &axes], &[]);
            let sum = model.node("Add", &[&variance, &epsilon], &[]);
            let root = model.node("Sqrt", &[&sum], &[]);
            model.node("Div", &[&d, &root], &[])
        }),
        ("a scalar matrix", |model| {
            let axes = model.integers(&[0, 1, 2]);
            let x = model.node("ReduceSum", &["x", &axes], &[("keepdims", Attr::Int(0))]);
            let c = model.floats(&[], &[2.0]);
            model.node("MatMul", &[&x, &c], &[])
        }),
        ("a stack of no matrices", |model| {
            let c = model.floats(&[0, 1, 4, 3], &[]);
            model.node("MatMul", &["x", &c], &[])
        }),
        ("an equation of more axes", |model| {
            model.node("Einsum", &["x", "x"], &[("equation", Attr::String("nabc,nbc->nac".into()))])
        }),
        ("a negated float", |model| {
            let c = model.floats(&[1], &[2.0]);
            let c = model.node("Not", &[&c], &[]);
            model.node("Add", &["x", &c], &[])
        }),
        ("windows of no end", |model| {
            let image = model.integers(&[0, 1, 5, 4]);
            let x = model.node("Reshape", &["x", &image], &[]);
            let most = i64::MAX / 4;
            let attrs = [
                ("kernel_shape", ints(&[most, most])),
                ("dilations", ints(&[2, 2])),
                ("pads", ints(&[most * 2, most * 2, 0, 0])),
            ];
            model.node("AveragePool", &[&x], &attrs)
        }),
        ("heads without number", |model| {
            let attrs = [("q_num_heads", Attr::Int(i64::MAX)), ("kv_num_heads", Attr::Int(1))];
            model.node("Attention", &["x", "x", "x"], &attrs)
        }),
    ];
    for (what, make) in cases {
        let mut model = Model::new(&[5, 4]);
        let y = make(&mut model);
        model.outputs(&[&y]);
        prepare(&mut model.graph, &Dims::new()).unwrap();
        assert!(!support::check(&model.graph).is_empty(), "{what}: {:?}", model.graph.nodes);
    }
}

/// Sizes that a file may declare and no memory holds: constants of such sizes are not made.
#[test]
fn huge_sizes_make_no_constants() {
    let most = 1 << 38;
    let causal = [("is_causal", Attr::Int(1)), ("q_num_heads", Attr::Int(1)), ("kv_num_heads", Attr::Int(1))];
    type Case<'c> = (&'c [usize], &'c str, Vec<(&'c str, Attr)>);
    let cases: [Case<'_>; 4] = [
        (&[most], "LpNormalization", vec![]),
        (&[3, most], "MeanVarianceNormalization", vec![("axes", ints(&[2]))]),
        (&[most, 1], "Attention", causal.to_vec()),
        (&[1, most, 1], "AveragePool", vec![("kernel_shape", ints(&[2, 1])), ("dilations", ints(&[2, 1]))]),
    ];
    for (shape, op, attrs) in cases {
        let mut model = Model::new(shape);
        let inputs = if op == "Attention" { vec!["x"; 3] } else { vec!["x"] };
        let y = model.node(op, &inputs, &attrs);
        model.outputs(&[&y]);
        prepare(&mut model.graph, &Dims::new()).unwrap();
        assert_eq!(support::check(&model.graph).len(), 1, "{op}");
    }
}

#[test]
fn samples_of_a_batch_are_not_joined() {
    let cases: [(&str, Vec<(&str, Attr)>); 3] = [
        ("Softmax", vec![("axis", Attr::Int(0))]),
        ("LpNormalization", vec![("axis", Attr::Int(0))]),
        ("MatMul", vec![]),
    ];
    for (op, attrs) in cases {
        let mut model = Model::new(&[4]);
        let inputs = match op {
            "MatMul" => vec![model.node("Transpose", &["x"], &[]), "x".to_owned()],
            _ => vec!["x".to_owned()],
        };
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let y = model.node(op, &inputs, &attrs);
        model.outputs(&[&y]);
        prepare(&mut model.graph, &Dims::new()).unwrap();
        assert_eq!(support::check(&model.graph).len(), 1, "{op}");
    }
}

#[test]
fn a_node_without_output_changes_nothing() {
    let mut model = Model::new(&[4]);
    let high = model.floats(&[], &[1.0]);
    model.graph.nodes.push(Node::new("Identity", "none", ["x"], [""; 0]));
    let y = model.node("Clip", &["x", "", &high], &[]);
    model.outputs(&[&y]);
    prepare(&mut model.graph, &Dims::new()).unwrap();
    let [x, low, ..] = &model.graph.nodes[0].inputs[..] else { panic!("{:?}", model.graph.nodes) };
    assert_eq!(x, "x");
    assert_ne!(low, "x", "the empty name is no value that the node without output has made");
}
