//! The patches that a layer reads of each sample.

use std::collections::BTreeMap;

use crate::data::Batch;
use crate::graph::shape::TensorType;
use crate::graph::{Graph, Node};
use crate::round::{Patches, Rows};

/// A Conv, ConvTranspose, Gemm or MatMul with constant weights.
pub(super) struct Target<'g> {
    pub(super) node: &'g Node,
    pub(super) rows: Rows,
    patches: Patches,
    /// Row after row.
    pub(super) weights: Vec<f32>,
}

/// The node as a layer; `None` if it is none, or has no rows ([`Rows::of`]).
pub(super) fn target<'g>(
    graph: &'g Graph,
    node: &'g Node,
    shapes: &BTreeMap<String, TensorType>,
) -> Option<Target<'g>> {
    let weights = graph.initializers.get(node.input(1)?)?;
    let rows = Rows::of(node, &weights.shape)?;
    let patches = Patches::of(node, rows, &weights.shape, &shapes.get(node.input(0)?)?.shape)?;
    Some(Target { node, rows, patches, weights: rows.values(weights) })
}

impl Target<'_> {
    /// Elements that [`Self::cut`] appends for each sample.
    pub(super) fn elements(&self, wanted: usize) -> usize {
        self.patches.positions().min(wanted) * self.rows.depth
    }

    /// Appends at most `wanted` patches of group `group` from each sample of a batch, `[patches, depth]`.
    pub(super) fn cut(&self, batch: &Batch, values: &[f32], group: usize, wanted: usize, out: &mut Vec<f32>) {
        let elements = values.len() / batch.count.max(1);
        for (index, sample) in values.chunks(elements.max(1)).enumerate() {
            let positions = positions(self.patches.positions(), wanted, batch.first + index);
            self.patches.cut(sample, &positions, group, out);
        }
    }
}

/// `wanted` of `all` positions, one in each of as many equal parts, at a place that differs from sample to sample.
pub(super) fn positions(all: usize, wanted: usize, sample: usize) -> Vec<usize> {
    if wanted >= all {
        return (0..all).collect();
    }
    let mut state = sample as u64;
    (0..wanted)
        .map(|i| {
            // splitmix64 (Steele et al. 2014)
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let (start, end) = (i * all / wanted, (i + 1) * all / wanted);
            start + ((z ^ (z >> 31)) % (end - start).max(1) as u64) as usize
        })
        .collect()
}
