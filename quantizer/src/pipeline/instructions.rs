//! What the layers of a model cost on a core, by the width of their weights.

use std::collections::BTreeMap;

use equant_runtime::operator::AllOperators;
use equant_runtime::plan::{AlignedBytes, Plan};

use super::{Error, compile_graph};
use crate::compile::cost::{self, Core};
use crate::graph::Graph;
use crate::qdq;
use crate::quantize::{Outcome, Width};

/// Instructions of a plan.
pub(super) struct Instructions {
    /// Of the operators of each layer with weights of 8 and of 4 bits.
    layers: BTreeMap<String, [u64; 2]>,
    /// Of all other operators.
    rest: u64,
}

impl Instructions {
    /// Estimates them from the plan of a quantized model. Only weights' widths count: activations take a byte each.
    pub(super) fn of(core: Core, graph: &Graph, outcome: &Outcome, file: &str) -> Result<Self, Error> {
        let compiled = compile_graph(qdq::export(graph, outcome), file, &Default::default())?.1;
        let image = AlignedBytes::from(&compiled.image[..]);
        let plan =
            Plan::<AllOperators>::parse(&image).map_err(|source| Error::Plan { file: file.to_owned(), source })?;
        let mut found = Self { layers: BTreeMap::new(), rest: 0 };
        for op in plan.ops() {
            let costs = [8, 4].map(|bits| cost::instructions_at(core, &op, &plan, bits));
            match plan.op_name(&op).filter(|name| outcome.layers.contains_key(*name)) {
                Some(name) => {
                    let sums = found.layers.entry(name.to_owned()).or_default();
                    sums.iter_mut().zip(costs).for_each(|(sum, cost)| *sum += cost);
                }
                None => found.rest += costs[0],
            }
        }
        Ok(found)
    }

    /// Those of a layer with weights of this width.
    pub(super) fn of_layer(&self, name: &str, weights: Width) -> f64 {
        let [eight, four] = self.layers.get(name).copied().unwrap_or_default();
        let instructions = if weights == Width::Four { four } else { eight };
        instructions as f64
    }

    /// Those of operators that no layer is made of.
    pub(super) fn of_rest(&self) -> f64 {
        self.rest as f64
    }
}
