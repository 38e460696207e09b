//! QDQ graphs as float operators.

use super::linear::Linear;
use super::names::Names;
use crate::graph::shape::{Shapes, infer_partial};
use crate::graph::{Graph, Node, Tensor};

/// The same function in float operators only, which any float executor runs.
///
/// QuantizeLinear becomes `clip(round(x / scale) + zero_point)`, DequantizeLinear `(q − zero_point) · scale`; of
/// constants both are folded. Value names are kept: quantized values hold integers as floats. A QuantizeLinear or
/// DequantizeLinear whose parameters are not constant, or do not fit the value, is left as it is.
pub fn simulate(graph: &Graph) -> Graph {
    let shapes = infer_partial(graph, 1);
    let mut out = Graph { nodes: Vec::new(), ..graph.clone() };
    let mut names = Names::of(graph);
    for node in &graph.nodes {
        match Linear::of(&out, node) {
            Some(linear) => replace(&mut out, &shapes, &mut names, node, &linear),
            None => out.nodes.push(node.clone()),
        }
    }
    out.remove_unused();
    out
}

fn replace(out: &mut Graph, shapes: &Shapes, names: &mut Names, node: &Node, linear: &Linear) {
    let quantize = node.op_type == "QuantizeLinear";
    if let Some(tensor) = node.input(0).and_then(|name| out.initializers.get(name)) {
        let folded = if quantize { linear.quantize(tensor) } else { linear.dequantize(tensor) };
        match folded {
            Some(folded) => {
                out.initializers.insert(node.output().to_owned(), folded);
            }
            None => out.nodes.push(node.clone()),
        }
        return;
    }
    let Some(steps) = steps(out, shapes, names, node, linear, quantize) else {
        return out.nodes.push(node.clone());
    };
    let mut source = node.inputs[0].clone();
    let last = steps.len().saturating_sub(1);
    for (i, (op, constants)) in steps.into_iter().enumerate() {
        let output = match i == last {
            true => node.output().to_owned(),
            false => names.fresh(format!("{}_{op}", node.output())),
        };
        let name = names.fresh(format!("{}_{op}_node", node.name));
        let inputs = std::iter::once(source).chain(constants);
        out.nodes.push(Node::new(op, name, inputs, [output.clone()]));
        source = output;
    }
}

type Step = (&'static str, Vec<String>);

/// The operators one node becomes, each with its further inputs; `None` if the parameters do not fit.
fn steps(
    out: &mut Graph,
    shapes: &Shapes,
    names: &mut Names,
    node: &Node,
    linear: &Linear,
    quantize: bool,
) -> Option<Vec<Step>> {
    let rank = shapes.types.get(node.input(0)?).map(|kind| kind.shape.len());
    let shape = broadcast_shape(linear, rank)?;
    let mut constant = |what: &str, shape: &[usize], values: &[f32]| {
        let name = names.fresh(format!("{}_{what}", node.output()));
        out.initializers.insert(name.clone(), Tensor::from_f32(shape, values));
        name
    };
    let scale = constant("scale_float", &shape, &linear.scale.to_f32());
    let zero_points: Vec<f32> = linear.zero_point.iter().map(|&z| z as f32).collect();
    let zero_point = match zero_points.iter().all(|&z| z == 0.0) {
        true => None,
        false => Some(constant("zero_point_float", &shape, &zero_points)),
    };
    let mut steps: Vec<Step> = Vec::new();
    if quantize {
        steps.push(("Div", vec![scale]));
        steps.push(("Round", Vec::new()));
        steps.extend(zero_point.map(|name| ("Add", vec![name])));
        let (low, high) = linear.limits();
        let low = constant("low", &[], &[low as f32]);
        let high = constant("high", &[], &[high as f32]);
        steps.push(("Clip", vec![low, high]));
    } else {
        steps.extend(zero_point.map(|name| ("Sub", vec![name])));
        steps.push(("Mul", vec![scale]));
    }
    Some(steps)
}

/// The shape in which scales broadcast against a value of this rank.
fn broadcast_shape(linear: &Linear, rank: Option<usize>) -> Option<Vec<usize>> {
    if linear.per_tensor() {
        return Some(Vec::new());
    }
    let rank = rank?;
    let axis = linear.axis(rank)?;
    let mut shape = vec![1; rank];
    shape[axis] = linear.scale.len();
    (!linear.blocked()).then_some(shape)
}
