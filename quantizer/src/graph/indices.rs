//! Integer inputs of a graph: indices by which Gather takes rows from constant tables.

use super::eval::normalize_axis;
use super::{DataType, Graph, Node, Tensor};

/// Rows of a table at most: beyond 2^24 not every index is an f32, the type in which samples are handed on.
const MAX_ROWS: usize = 1 << 24;

/// The constant that a Gather looks up: floats, or the integers they are dequantized from.
fn table<'g>(graph: &'g Graph, node: &Node) -> Option<&'g Tensor> {
    let name = node.input(0)?;
    if let Some(tensor) = graph.initializers.get(name) {
        return tensor.dtype.is_float().then_some(tensor);
    }
    let maker = graph.nodes.iter().find(|maker| maker.output() == name)?;
    let integers = maker.input(0).filter(|_| maker.op_type == "DequantizeLinear")?;
    graph.initializers.get(integers)
}

/// Whether a node takes slices of a float constant by indices that are computed or given when the model runs.
pub fn is_lookup(graph: &Graph, node: &Node) -> bool {
    node.op_type == "Gather"
        && node.domain.is_empty()
        && table(graph, node).is_some()
        && node.input(1).is_some_and(|name| !graph.initializers.contains_key(name))
}

/// Lowest and highest index that the integer input `name` may hold; `None` if nothing reads it. Indices below 0 count
/// from the end of the table.
///
/// # Errors
///
/// Why it is not an input of indices that can be looked up, in words.
pub fn range(graph: &Graph, name: &str) -> Result<Option<(i64, i64)>, String> {
    let Some(dtype) = graph.inputs.iter().find(|input| input.name == name).map(|input| input.dtype) else {
        return Err(format!("the model has no input `{name}`"));
    };
    if !matches!(dtype, DataType::I32 | DataType::I64) {
        return Err(format!(
            "an input of type {dtype:?}: only floats, and indices of type int32 or int64, are supported"
        ));
    }
    let mut least: Option<usize> = None;
    for node in graph.nodes.iter().filter(|node| node.inputs.iter().any(|input| input == name)) {
        if !is_lookup(graph, node) || node.input(0) == Some(name) {
            return Err(format!(
                "an input of integers is supported as the indices of a Gather from a float constant only, and `{}` ({}) \
                 reads it",
                node.name, node.op_type
            ));
        }
        let shape = table(graph, node).map(|table| table.shape.as_slice());
        let axis = shape.and_then(|shape| normalize_axis(node.int("axis", 0), shape.len()));
        let rows = shape.zip(axis).and_then(|(shape, axis)| shape.get(axis).copied()).unwrap_or(0);
        if rows == 0 || rows > MAX_ROWS {
            return Err(format!("`{}` looks it up in {rows} rows; 1 to {MAX_ROWS} are supported", node.name));
        }
        least = Some(least.map_or(rows, |least| least.min(rows)));
    }
    Ok(least.map(|rows| (-(rows as i64), rows as i64 - 1)))
}
