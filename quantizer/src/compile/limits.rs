//! Sizes beyond which a graph is refused before anything is laid out.

use super::error::{Error, Issue, Reason};
use crate::graph::Graph;
use crate::graph::shape::{ShapeError, Shapes, infer_partial};

/// Elements of one activation: far more than a microcontroller holds, and little enough that positions of elements can
/// be listed on the host.
const MAX_ELEMENTS: usize = 1 << 24;

/// Refuses graphs with an activation that is too large.
///
/// # Errors
///
/// The inputs and nodes concerned.
pub(super) fn check(graph: &Graph) -> Result<(), Error> {
    let shapes = infer_partial(graph, 1);
    let inputs = graph.inputs.iter().map(|input| (&input.name, "input", input.name.as_str()));
    let values = graph
        .nodes
        .iter()
        .flat_map(|node| node.outputs.iter().map(move |output| (output, node.op_type.as_str(), node.name.as_str())));
    let hopeless = shapes.errors.iter().filter_map(|error| match error {
        ShapeError::TooLarge { node, op_type, .. } => {
            Some(Issue { node: node.clone(), operator: op_type.clone(), reason: Reason::Shape(error.to_string()) })
        }
        _ => None,
    });
    let issues: Vec<Issue> = inputs
        .chain(values)
        .filter_map(|(value, operator, node)| {
            let reason = too_large(&shapes, value)?;
            Some(Issue { node: node.to_owned(), operator: operator.to_owned(), reason })
        })
        .chain(hopeless)
        .collect();
    if issues.is_empty() { Ok(()) } else { Err(Error::Nodes(issues)) }
}

fn too_large(shapes: &Shapes, value: &str) -> Option<Reason> {
    let shape = &shapes.types.get(value)?.shape;
    let elements = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
    let fits = elements.is_some_and(|elements| elements <= MAX_ELEMENTS);
    (!fits).then(|| Reason::Shape(format!("`{value}` of shape {shape:?} has more than {MAX_ELEMENTS} elements")))
}
