//! Values that stay in float between integer operators: sums of a residual stream, attention scores, logits.

use std::collections::{BTreeMap, BTreeSet};

use super::placement::Group;
use crate::graph::{Graph, eval};
use crate::observe::Statistics;
use crate::qdq::FloatRanges;

/// The results of computing operators that no group quantizes.
pub(super) fn values(graph: &Graph, groups: &[Group]) -> Vec<String> {
    let quantized: BTreeSet<&str> = groups.iter().flat_map(|group| &group.values).map(String::as_str).collect();
    let computed = graph.nodes.iter().filter(|node| {
        matches!(
            node.op_type.as_str(),
            "Gemm"
                | "MatMul"
                | "Add"
                | "Sub"
                | "Mul"
                | "Div"
                | "Min"
                | "Max"
                | "LayerNormalization"
                | "LogSoftmax"
                | "RMSNormalization"
                | "ReduceMean"
                | "ReduceSum"
                | "GlobalAveragePool"
                | "PRelu"
        ) && node.domain.is_empty()
            // Functions of one value: tables of 16 bits, which may be infinite somewhere.
            || graph.is_output(node.output()) && eval::is_unary(node)
    });
    computed.map(|node| node.output()).filter(|value| !quantized.contains(value)).map(str::to_owned).collect()
}

/// What was seen of them.
pub(super) fn ranges(graph: &Graph, groups: &[Group], statistics: &BTreeMap<String, Statistics>) -> FloatRanges {
    let seen = |value: String| {
        let statistics = statistics.get(&value).filter(|seen| seen.count() > 0 && seen.not_finite() == 0)?;
        Some((value, (statistics.min(), statistics.max())))
    };
    let mut ranges: FloatRanges = values(graph, groups).into_iter().filter_map(seen).collect();
    // Steps of a sequence have one range, so that their integers have one scale.
    for tied in &graph.tied {
        let each = tied.values.iter().filter_map(|value| ranges.get(value).copied());
        let Some(all) = each.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))) else { continue };
        for value in &tied.values {
            if let Some(range) = ranges.get_mut(value) {
                *range = all;
            }
        }
    }
    ranges
}
