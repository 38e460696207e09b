//! Statistics of the quantized activations, condensed for the report.

use std::collections::BTreeMap;

use super::describe::dtype_name;
use crate::graph::Graph;
use crate::observe::Statistics;
use crate::quantize::Outcome;
use crate::report::Activation;

/// The quantized activations in graph order: inputs, then what each node makes.
pub(super) fn activations(
    graph: &Graph,
    outcome: &Outcome,
    statistics: &BTreeMap<String, Statistics>,
) -> Vec<Activation> {
    let values = graph.inputs.iter().map(|input| input.name.as_str());
    let made = graph.nodes.iter().flat_map(|node| node.outputs.iter().map(String::as_str));
    values
        .chain(made)
        .filter_map(|value| {
            let q = outcome.activations.get(value)?;
            let (lowest, highest) = q.dtype.quantized_range()?;
            let real = |q_value: i32| f64::from(q_value - q.zero_point) * f64::from(q.scale);
            let (low, high) = (real(lowest), real(highest));
            let _ = statistics;
            Some(Activation {
                value: value.to_owned(),
                dtype: dtype_name(q.dtype).to_owned(),
                scale: q.scale,
                zero_point: q.zero_point,
                low,
                high,
                observed: None,
            })
        })
        .collect()
}
