//! Weights as a matrix with one row for each output channel.

use crate::graph::{Node, Tensor};

/// How the weights of a Conv, Gemm or MatMul are laid out as rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    /// Output channels.
    pub rows: usize,
    /// Inputs of one row.
    pub depth: usize,
    /// Groups of rows that read the same inputs.
    pub groups: usize,
    transposed: bool,
}

impl Rows {
    /// The layout of the weights (input 1) of a node; `None` for nodes that have no such rows (ConvTranspose, weights of
    /// more than two axes, transposed inputs).
    pub fn of(node: &Node, weights: &[usize]) -> Option<Self> {
        let (rows, depth, groups, transposed) = match node.op_type.as_str() {
            "Conv" => {
                let groups = usize::try_from(node.int("group", 1)).ok().filter(|&groups| groups > 0)?;
                (*weights.first()?, weights.get(1..)?.iter().product(), groups, false)
            }
            "Gemm" if node.int("transA", 0) == 0 && weights.len() == 2 && node.float("alpha", 1.0) == 1.0 => {
                match node.int("transB", 0) != 0 {
                    true => (weights[0], weights[1], 1, false),
                    false => (weights[1], weights[0], 1, true),
                }
            }
            "MatMul" if weights.len() == 2 => (weights[1], weights[0], 1, true),
            _ => return None,
        };
        (rows > 0 && depth > 0 && rows % groups == 0).then_some(Self { rows, depth, groups, transposed })
    }

    /// The weights row after row.
    pub fn values(&self, weights: &Tensor) -> Vec<f32> {
        let values = weights.to_f32();
        match self.transposed {
            false => values,
            true => (0..self.rows * self.depth).map(|i| values[i % self.depth * self.rows + i / self.depth]).collect(),
        }
    }

    /// Integers row after row, back in the order of the weights.
    pub fn restore(&self, rows: &[i32]) -> Vec<i32> {
        match self.transposed {
            false => rows.to_vec(),
            true => (0..rows.len()).map(|i| rows[i % self.rows * self.depth + i / self.rows]).collect(),
        }
    }
}
