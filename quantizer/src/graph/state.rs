//! State of streaming models: outputs that are inputs of the next run.
//!
//! Which output feeds which input is in the metadata of a file, so that whoever compiles or runs it knows.

use super::shape::infer_partial;
use super::{DataType, Graph};

/// The metadata key; its text is JSON: `[["output", "input"], ...]`.
pub const STATE: &str = "equant.state";

/// An output and the input that it is in the next run. Before the first run that input is zero.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Pair {
    /// The output's name.
    pub output: String,
    /// The input's name.
    pub input: String,
}

impl std::str::FromStr for Pair {
    type Err = String;

    /// `OUTPUT=INPUT`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((output, input)) if !output.is_empty() && !input.is_empty() => {
                Ok(Self { output: output.to_owned(), input: input.to_owned() })
            }
            _ => Err("use OUTPUT=INPUT, such as h_out=h_in".to_owned()),
        }
    }
}

/// Whether a graph carries state from run to run.
pub fn is_streaming(graph: &Graph) -> bool {
    graph.metadata.contains_key(STATE)
}

/// The pairs that the metadata of a graph tell; none if it is no streaming model.
///
/// # Errors
///
/// The metadata are malformed, in words.
pub fn pairs(graph: &Graph) -> Result<Vec<Pair>, String> {
    let Some(text) = graph.metadata.get(STATE) else { return Ok(Vec::new()) };
    let pairs: Vec<(String, String)> = serde_json::from_str(text)
        .map_err(|error| format!("metadata `{STATE}` is malformed ({error}); quantize the model again"))?;
    Ok(pairs.into_iter().map(|(output, input)| Pair { output, input }).collect())
}

/// The inputs that are given from outside: all but those that are state.
///
/// # Errors
///
/// As [`pairs`].
pub fn given(graph: &Graph) -> Result<Vec<usize>, String> {
    let pairs = pairs(graph)?;
    let is_given =
        |&i: &usize| graph.inputs.get(i).is_some_and(|input| pairs.iter().all(|pair| pair.input != input.name));
    Ok((0..graph.inputs.len()).filter(is_given).collect())
}

/// Makes a graph a streaming model, if there are any pairs.
///
/// # Errors
///
/// A pair that does not fit the graph, and why, in words.
pub fn declare(graph: &mut Graph, pairs: &[Pair]) -> Result<(), String> {
    if pairs.is_empty() {
        return Ok(());
    }
    check(graph, pairs)?;
    let text: Vec<(&str, &str)> = pairs.iter().map(|pair| (pair.output.as_str(), pair.input.as_str())).collect();
    // Strings always serialize.
    graph.metadata.insert(STATE.to_owned(), serde_json::to_string(&text).unwrap_or_default());
    Ok(())
}

/// Checks that pairs name outputs and inputs of one shape, each once, and leave something to be given.
///
/// # Errors
///
/// A pair that does not fit the graph, and why, in words.
pub fn check(graph: &Graph, pairs: &[Pair]) -> Result<(), String> {
    let names = |values: &[super::ValueInfo]| values.iter().map(|v| v.name.as_str()).collect::<Vec<_>>().join(", ");
    let shapes = infer_partial(graph, 1).types;
    for (i, Pair { output, input }) in pairs.iter().enumerate() {
        let state = format!("state {output}={input}");
        if !graph.is_output(output) {
            return Err(format!(
                "{state}: the model has no output `{output}`; its outputs are: {}",
                names(&graph.outputs)
            ));
        }
        let Some(declared) = graph.inputs.iter().find(|value| value.name == *input) else {
            return Err(format!("{state}: the model has no input `{input}`; its inputs are: {}", names(&graph.inputs)));
        };
        if pairs.iter().take(i).any(|other| other.output == *output || other.input == *input) {
            return Err(format!("{state}: one of the two is in another pair already"));
        }
        if declared.dtype != DataType::F32 {
            return Err(format!("{state}: the input has type {:?}, and state is float", declared.dtype));
        }
        if let (Some(from), Some(to)) = (shapes.get(output), shapes.get(input))
            && from.shape != to.shape
        {
            return Err(format!("{state}: the output has shape {:?} and the input {:?}", from.shape, to.shape));
        }
    }
    if !pairs.is_empty() && pairs.len() == graph.inputs.len() {
        return Err("every input is state; at least one must be given from outside".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Dim, Node, ValueInfo};

    fn graph() -> Graph {
        let value = |name: &str, size: usize| ValueInfo {
            name: name.into(),
            dtype: DataType::F32,
            shape: Some(vec![Dim::Known(1), Dim::Known(size)]),
        };
        Graph {
            opset: 21,
            inputs: vec![value("x", 3), value("h_in", 2), value("other", 3)],
            outputs: vec![value("h_out", 2), value("y", 3)],
            nodes: vec![Node::new("Relu", "r", ["h_in"], ["h_out"]), Node::new("Relu", "s", ["x"], ["y"])],
            ..Graph::default()
        }
    }

    #[test]
    fn pairs_are_in_the_metadata() {
        let mut graph = graph();
        assert!(!is_streaming(&graph) && pairs(&graph).unwrap().is_empty());
        let pair: Pair = "h_out=h_in".parse().unwrap();
        declare(&mut graph, std::slice::from_ref(&pair)).unwrap();
        assert_eq!((pairs(&graph).unwrap(), given(&graph).unwrap()), (vec![pair], vec![0, 2]));
        graph.metadata.insert(STATE.into(), "{".into());
        assert!(pairs(&graph).unwrap_err().contains("malformed"));
    }

    #[test]
    fn wrong_pairs_are_named() {
        let refusal = |texts: &[&str]| {
            let pairs: Vec<Pair> = texts.iter().map(|text| text.parse().unwrap()).collect();
            declare(&mut graph(), &pairs).unwrap_err()
        };
        assert!(refusal(&["h=h_in"]).contains("no output `h`; its outputs are: h_out, y"));
        assert!(refusal(&["h_out=h"]).contains("no input `h`; its inputs are: x, h_in, other"));
        assert!(refusal(&["y=h_in"]).contains("the output has shape [1, 3] and the input [1, 2]"));
        assert!(refusal(&["h_out=h_in", "h_out=x"]).contains("in another pair already"));
        assert!("h_out".parse::<Pair>().unwrap_err().contains("OUTPUT=INPUT"));
    }
}
