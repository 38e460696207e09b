//! Weights as a matrix with one row for each output channel.

use crate::graph::{Node, Tensor};

/// How the weights of a Conv, ConvTranspose, Gemm or MatMul are laid out as rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    /// Output channels.
    pub rows: usize,
    /// Inputs of one row.
    pub depth: usize,
    /// Groups of rows that read the same inputs.
    pub groups: usize,
    order: Order,
}

/// Where the rows are in the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// `[rows, depth]`.
    ByRow,
    /// `[groups, depth / taps, rows / groups, taps]`.
    Across { taps: usize },
}

impl Rows {
    /// The layout of the weights (input 1) of a node; `None` for nodes that have no such rows (weights of more than two
    /// axes, transposed inputs). A row of a ConvTranspose is what may reach an output element: of any one element, taps
    /// that the strides keep away read zeros.
    pub fn of(node: &Node, weights: &[usize]) -> Option<Self> {
        let (rows, depth, groups, order) = match node.op_type.as_str() {
            "Conv" => {
                let groups = usize::try_from(node.int("group", 1)).ok().filter(|&groups| groups > 0)?;
                (*weights.first()?, weights.get(1..)?.iter().product(), groups, Order::ByRow)
            }
            "ConvTranspose" => {
                let groups = usize::try_from(node.int("group", 1)).ok().filter(|&groups| groups > 0)?;
                let [inputs, per_group, window @ ..] = weights else { return None };
                let taps = window.iter().product();
                let rows = per_group.checked_mul(groups).filter(|_| inputs % groups == 0)?;
                (rows, inputs / groups * taps, groups, Order::Across { taps })
            }
            "Gemm" if node.int("transA", 0) == 0 && weights.len() == 2 && node.float("alpha", 1.0) == 1.0 => {
                match node.int("transB", 0) != 0 {
                    true => (weights[0], weights[1], 1, Order::ByRow),
                    false => (weights[1], weights[0], 1, Order::Across { taps: 1 }),
                }
            }
            "MatMul" if weights.len() == 2 => (weights[1], weights[0], 1, Order::Across { taps: 1 }),
            _ => return None,
        };
        (rows > 0 && depth > 0 && rows % groups == 0).then_some(Self { rows, depth, groups, order })
    }

    /// The weights row after row.
    pub fn values(&self, weights: &Tensor) -> Vec<f32> {
        let values = weights.to_f32();
        match self.order {
            Order::ByRow => values,
            Order::Across { taps } => (0..self.rows * self.depth).map(|i| values[self.across(i, taps)]).collect(),
        }
    }

    /// Integers row after row, back in the order of the weights.
    pub fn restore(&self, rows: &[i32]) -> Vec<i32> {
        match self.order {
            Order::ByRow => rows.to_vec(),
            Order::Across { taps } => {
                let mut weights = vec![0; rows.len()];
                rows.iter().enumerate().for_each(|(i, &q)| weights[self.across(i, taps)] = q);
                weights
            }
        }
    }

    /// The place among weights in the order [`Order::Across`] of element `i`, counted row after row.
    fn across(&self, i: usize, taps: usize) -> usize {
        let ((row, column), per_group) = ((i / self.depth, i % self.depth), self.rows / self.groups);
        let (group, row, input, tap) = (row / per_group, row % per_group, column / taps, column % taps);
        ((group * (self.depth / taps) + input) * per_group + row) * taps + tap
    }
}
