//! Names not used before.

use std::collections::BTreeSet;

use crate::graph::Graph;

/// All names of a graph, and those given out since.
pub(super) struct Names(BTreeSet<String>);

impl Names {
    pub(super) fn of(graph: &Graph) -> Self {
        let mut names: BTreeSet<String> = graph.initializers.keys().cloned().collect();
        names.extend(graph.inputs.iter().map(|value| value.name.clone()));
        for node in &graph.nodes {
            names.insert(node.name.clone());
            names.extend(node.outputs.iter().cloned());
        }
        Self(names)
    }

    /// `stem`, or `stem_1`, `stem_2` and so on if it is taken.
    pub(super) fn fresh(&mut self, stem: String) -> String {
        let mut name = stem.clone();
        let mut i = 0;
        while !self.0.insert(name.clone()) {
            i += 1;
            name = format!("{stem}_{i}");
        }
        name
    }
}
