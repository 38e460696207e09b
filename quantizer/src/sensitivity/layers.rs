//! The layers in question, and how many bits they may have.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::graph::shape::infer_partial;
use crate::graph::{Graph, Node};
use crate::pipeline::macs;

/// A node of a prepared float graph that multiplies an activation by constant weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Layer {
    /// Its place among the graph's nodes.
    pub index: usize,
    /// The node's name.
    pub node: String,
    /// Its operator type.
    pub op_type: String,
    /// The initializer that holds the weights.
    pub weights: String,
    /// Elements of the weights.
    pub parameters: u64,
    /// Multiply-accumulates of one sample.
    pub macs: u64,
}

/// The layers of a prepared float graph, in graph order.
pub fn layers(graph: &Graph) -> Vec<Layer> {
    let types = infer_partial(graph, 1).types;
    let layer = |(index, node): (usize, &Node)| {
        let weights = node.input(1).filter(|_| node.is_linear())?;
        let tensor = graph.initializers.get(weights)?;
        let data = node.input(0).filter(|input| !graph.initializers.contains_key(*input));
        data.map(|_| Layer {
            index,
            node: node.name.clone(),
            op_type: node.op_type.clone(),
            weights: weights.to_owned(),
            parameters: tensor.len() as u64,
            macs: macs(node, &types),
        })
    };
    graph.nodes.iter().enumerate().filter_map(layer).collect()
}

/// Widths of a layer's weights and of its input, also those that no target has; written `w4a8`. [`Widths::FLOAT`] bits are no quantization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Widths {
    /// Of the weights: 2 to 8, or [`Widths::FLOAT`].
    pub weights: u32,
    /// Of the input: 2 to 8, or [`Widths::FLOAT`].
    pub activations: u32,
}

impl Widths {
    /// Stands for float.
    pub const FLOAT: u32 = 32;

    /// Weights and input of 8 bits.
    pub const W8A8: Self = Self { weights: 8, activations: 8 };
    /// Weights of 4 bits, input of 8.
    pub const W4A8: Self = Self { weights: 4, activations: 8 };

    /// Of these widths.
    ///
    /// # Errors
    ///
    /// A width is neither 2 to 8 nor 32.
    pub fn new(weights: u32, activations: u32) -> Result<Self, WidthsError> {
        let known = |bits: u32| (2..=8).contains(&bits) || bits == Self::FLOAT;
        if known(weights) && known(activations) { Ok(Self { weights, activations }) } else { Err(WidthsError) }
    }
}

impl fmt::Display for Widths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "w{}a{}", self.weights, self.activations)
    }
}

impl Serialize for Widths {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A text that names no widths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write w4a8 for weights of 4 bits and activations of 8; 2 to 8, or 32 for float")]
pub struct WidthsError;

impl FromStr for Widths {
    type Err = WidthsError;

    fn from_str(text: &str) -> Result<Self, WidthsError> {
        let (weights, activations) = text.strip_prefix('w').and_then(|rest| rest.split_once('a')).ok_or(WidthsError)?;
        let number = |text: &str| text.parse().map_err(|_| WidthsError);
        Self::new(number(weights)?, number(activations)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_written_and_read() {
        for text in ["w8a8", "w4a8", "w2a32", "w32a3"] {
            assert_eq!(text.parse::<Widths>().expect("widths").to_string(), text);
        }
        for wrong in ["", "w8", "8a8", "w1a8", "w9a8", "w8a16", "wa", "w8a8a8", "w-4a8"] {
            assert_eq!(wrong.parse::<Widths>(), Err(WidthsError), "{wrong}");
        }
    }
}
