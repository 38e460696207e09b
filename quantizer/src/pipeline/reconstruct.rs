//! Rounding layer after layer: each layer's weights and bias are chosen for the inputs that the quantized layers before
//! it give, so that they make up for part of what those lost.

use std::ops::Range;

use super::patches;
use super::prefix::{self, Prefix};
use super::{Error, Request, prepared};
use crate::data::{Batch, Samples};
use crate::exec::BATCH;
use crate::graph::shape::infer_partial;
use crate::graph::{Graph, Node, Tensor};
use crate::parallel::in_parallel;
use crate::qdq;
use crate::quantize::{self, Bias, Config, Layer, Outcome};
use crate::round::{self, Constraints, Crossed, Moments, Partial, Problem, Rows};

/// Patches at most for each layer, besides [`PATCHES_PER_INPUT`] for each of its inputs.
const PATCHES: usize = 1 << 14;
/// More patches for layers with many inputs.
const PATCHES_PER_INPUT: usize = 32;

/// Batches whose patches are multiplied at once.
const BATCHES: usize = 2;

/// A layer to round.
struct Target<'g> {
    layer: patches::Target<'g>,
    bias: BiasPlace<'g>,
}

/// Where the bias of a layer is kept.
enum BiasPlace<'g> {
    /// With the layer, in 32 bits.
    Layer(Vec<f64>),
    /// In the constant of an Add that follows: the node, and its values.
    Add(&'g Node, Vec<f64>),
    /// Nowhere.
    None,
}

/// Elements at most that are held of the values alive between two layers, over all samples.
const HELD: usize = 1 << 27;

/// What rounding came to.
pub(super) struct Rounded {
    pub(super) outcome: Outcome,
    /// The quantized model up to its last layer, where rounding ran all of it.
    pub(super) prefix: Option<Prefix>,
}

/// Rounds all layers of `outcome` anew, in graph order, on `samples`: as many as memory allows. The result
/// does not depend on the number of threads.
pub(super) fn reconstruct(
    graph: &Graph,
    outcome: &Outcome,
    config: &Config,
    samples: &Samples,
    request: &Request,
    file: &str,
    advance: &dyn Fn(usize),
) -> Result<Rounded, Error> {
    let run_error = |source| Error::run(file, source);
    let rounding = config.rounding;
    let stages = stages(graph, outcome);
    // What several nodes multiply with stays rounded to nearest, once for all of them.
    let shared = outcome.layers.iter().filter(|(name, _)| is_shared(graph, name));
    let layers = shared.map(|(name, layer)| (name.clone(), layer.clone())).collect();
    let mut done = Outcome { layers, ..outcome.clone() };
    let cuts: Vec<usize> = stages.iter().filter_map(|stage| position(graph, &stage.reader)).collect();
    let held = samples.head((HELD / prefix::widest(graph, &cuts).max(1)).max(BATCH).min(rounding.samples.max(1)));
    if held.len() < samples.len().min(rounding.samples) {
        done.notes.push(format!(
            "rounding used the first {} of {} samples, for want of memory",
            held.len(),
            samples.len()
        ));
    }
    let batches = held.batches(BATCH).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let batches: Vec<Batch> = batches.map_err(|source| run_error(source.into()))?;
    let mut float = Prefix::new(graph, batches.clone());
    let mut quantized = Prefix::new(graph, batches);
    for stage in stages {
        let simulated = simulate(graph, &done, file)?;
        let lost = || Error::Internal(format!("the readers of `{}` are lost in the export", stage.input));
        let (at, at_q) = position(graph, &stage.reader).zip(position(&simulated, &stage.reader)).ok_or_else(lost)?;
        float.advance(graph, at, request.backend, request.threads).map_err(run_error)?;
        let read = match rounding.sequential {
            true => simulated.nodes[at_q].input(0).ok_or_else(lost)?,
            false => &stage.input,
        };
        if rounding.sequential {
            quantized.advance(&simulated, at_q, request.backend, request.threads).map_err(run_error)?;
        }
        let prefix = if rounding.sequential { &quantized } else { &float };
        let (x, x_q) = float.value(&stage.input).zip(prefix.value(read)).ok_or_else(lost)?;
        let batches: Vec<_> = x.zip(x_q).map(|((batch, x), (_, x_q))| (batch, x, x_q)).collect();
        for target in &stage.targets {
            let moments = target.moments(&batches, held.len(), request.threads);
            round(target, &moments, outcome, &mut done, config, request.threads);
        }
        advance(stage.targets.len());
    }
    let ran_all = rounding.sequential && outcome.layers.keys().all(|name| done.layers.contains_key(name));
    // Layers that have no rows keep what they had.
    for (name, layer) in &outcome.layers {
        done.layers.entry(name.clone()).or_insert_with(|| layer.clone());
    }
    Ok(Rounded { outcome: done, prefix: ran_all.then_some(quantized) })
}

/// What the layers done so far make of the graph, in float operators.
pub(super) fn simulate(graph: &Graph, done: &Outcome, file: &str) -> Result<Graph, Error> {
    Ok(qdq::simulate(&prepared(qdq::export(graph, done), file)?))
}

fn position(graph: &Graph, node: &str) -> Option<usize> {
    graph.nodes.iter().position(|candidate| candidate.name == node)
}

/// Whether other nodes read the weights of node `name` too: the steps of a sequence.
fn is_shared(graph: &Graph, name: &str) -> bool {
    let weights = graph.nodes.iter().find(|node| node.name == name).and_then(|node| node.input(1));
    weights.is_some_and(|weights| graph.nodes.iter().filter(|node| node.input(1) == Some(weights)).count() > 1)
}

/// Layers that read the same value.
struct Stage<'g> {
    input: String,
    /// The first of them.
    reader: String,
    targets: Vec<Target<'g>>,
}

/// The layers in graph order, those that read the same value together.
fn stages<'g>(graph: &'g Graph, outcome: &Outcome) -> Vec<Stage<'g>> {
    let shapes = infer_partial(graph, 1).types;
    let mut stages: Vec<Stage<'g>> = Vec::new();
    for node in &graph.nodes {
        let target = || {
            outcome.layers.get(&node.name).filter(|_| !is_shared(graph, &node.name))?;
            let layer = patches::target(graph, node, &shapes)?;
            Some(Target { bias: bias(graph, node, layer.rows.rows), layer })
        };
        let (Some(input), Some(target)) = (node.input(0), target()) else { continue };
        match stages.iter_mut().find(|stage| stage.input == input) {
            Some(stage) => stage.targets.push(target),
            None => stages.push(Stage { input: input.to_owned(), reader: node.name.clone(), targets: vec![target] }),
        }
    }
    stages
}

fn bias<'g>(graph: &'g Graph, node: &Node, rows: usize) -> BiasPlace<'g> {
    let values = |tensor: &Tensor| tensor.to_f32().into_iter().map(f64::from).collect::<Vec<f64>>();
    if let Some(bias) = node.input(2).and_then(|name| graph.initializers.get(name)) {
        return BiasPlace::Layer(values(bias));
    }
    match add_of_bias(graph, node, rows) {
        Some((add, constant)) => BiasPlace::Add(add, values(constant)),
        None => BiasPlace::None,
    }
}

/// The Add that gives a node of `rows` outputs its bias, and the constant in it.
pub(super) fn add_of_bias<'g>(graph: &'g Graph, node: &Node, rows: usize) -> Option<(&'g Node, &'g Tensor)> {
    let mut readers = graph.nodes.iter().filter(|reader| reader.inputs.iter().any(|name| name == node.output()));
    let (Some(add), None) = (readers.next(), readers.next()) else { return None };
    let constant = add.inputs.iter().find_map(|name| graph.initializers.get(name))?;
    let fits = add.op_type == "Add" && constant.shape.last() == Some(&rows) && constant.len() == rows;
    (fits && !graph.is_output(node.output())).then_some((add, constant))
}

impl Target<'_> {
    /// The moments of what it reads, for each of its groups.
    fn moments(&self, batches: &[(&Batch, &[f32], &[f32])], samples: usize, threads: usize) -> Vec<Moments> {
        let Rows { depth, groups, .. } = self.layer.rows;
        let mut totals: Vec<Moments> = (0..groups).map(|group| Moments::new(depth, self.crossed(group))).collect();
        // A few batches at a time: partial sums of wide layers are large.
        for some in batches.chunks(2 * BATCHES * threads.max(1)) {
            let parts: Vec<_> = some.chunks(BATCHES).collect();
            let parts = in_parallel(parts.len(), threads, |i| self.partials(parts[i], samples));
            for part in &parts {
                totals.iter_mut().zip(part).for_each(|(total, part)| total.add(part));
            }
        }
        totals
    }

    /// The moments of some of the batches' patches, for each group.
    fn partials(&self, batches: &[(&Batch, &[f32], &[f32])], samples: usize) -> Vec<Partial> {
        let Rows { depth, groups, .. } = self.layer.rows;
        let wanted = (PATCHES + PATCHES_PER_INPUT * depth).div_ceil(samples.max(1));
        let part = |group: usize| {
            let elements = batches.iter().map(|(batch, ..)| batch.count).sum::<usize>() * self.layer.elements(wanted);
            let (mut float, mut quantized) = (Vec::with_capacity(elements), Vec::with_capacity(elements));
            for &(batch, x, x_q) in batches {
                self.layer.cut(batch, x, group, wanted, &mut float);
                self.layer.cut(batch, x_q, group, wanted, &mut quantized);
            }
            Partial::of(&float, &quantized, depth, self.crossed(group))
        };
        (0..groups).map(part).collect()
    }

    fn crossed(&self, group: usize) -> Crossed<'_> {
        let Rows { rows, depth, groups, .. } = self.layer.rows;
        let per_group = rows / groups.max(1) * depth;
        Crossed::cheaper(&self.layer.weights[group * per_group..][..per_group], depth)
    }
}

fn round(
    target: &Target<'_>,
    groups: &[Moments],
    outcome: &Outcome,
    done: &mut Outcome,
    config: &Config,
    threads: usize,
) {
    let rounding = config.rounding;
    let Some(old) = outcome.layers.get(&target.layer.node.name) else { return };
    let Some(input) = target.layer.node.input(0).and_then(|name| outcome.activations.get(name)) else { return };
    let Rows { rows, depth, .. } = target.layer.rows;
    let (dtype, levels) = quantize::levels(config, &target.layer.node.name);
    let centred = rounding.bias_correction && !matches!(target.bias, BiasPlace::None);
    let least: Vec<f32> = match &target.bias {
        BiasPlace::Layer(bias) => bias.iter().map(|&b| quantize::least_scale(b, input.scale)).collect(),
        _ => vec![0.0; rows],
    };
    let per_group = rows / groups.len().max(1);
    let per_row = old.scales.len() == rows;
    if !per_row && groups.len() > 1 {
        // Scales that groups share: only layers of one group are searched.
        if old.scales.len() > 1 {
            let name = &target.layer.node.name;
            done.notes.push(format!("node `{name}`: weights rounded to nearest, since its groups share their scales"));
        }
        done.layers.insert(target.layer.node.name.clone(), old.clone());
        return;
    }
    let of_group = |group: usize| group * per_group..(group + 1) * per_group;
    let mut solved = Vec::with_capacity(groups.len());
    for (group, moments) in groups.iter().enumerate() {
        let Range { start, end } = of_group(group);
        let problem = Problem::new(&target.layer.weights[start * depth..end * depth], moments, centred);
        let limits = Constraints { levels, least_scale: &least[start..end], per_row };
        let solution = problem.solve(rounding.method, &limits, threads);
        solved.push(round::Group { problem, limits, solution });
    }
    round::refine(&mut solved, &rounding.terms(), threads);
    let (mut integers, mut scales) = (Vec::new(), Vec::new());
    for group in solved {
        integers.extend(group.solution.integers);
        scales.extend(group.solution.scales);
    }
    if !per_row {
        scales.truncate(1);
    }
    let shift: Vec<f64> = (0..rows)
        .map(|row| {
            if !centred {
                return 0.0;
            }
            let (mean, mean_q) = groups[row / per_group].means();
            let w = &target.layer.weights[row * depth..][..depth];
            let q = &integers[row * depth..][..depth];
            let scale = f64::from(scales[row % scales.len()]);
            let float: f64 = w.iter().zip(&mean).map(|(&w, m)| f64::from(w) * m).sum();
            let quantized: f64 = q.iter().zip(&mean_q).map(|(&q, m)| f64::from(q) * scale * m).sum();
            float - quantized
        })
        .collect();
    let bias = match &target.bias {
        BiasPlace::Layer(bias) => {
            Some(Bias::new(bias.iter().zip(&shift).map(|(b, shift)| b + shift), input.scale, &scales))
        }
        BiasPlace::Add(add, bias) => {
            let shifted = bias.iter().zip(&shift).map(|(b, shift)| b + shift);
            let values = quantize::on_sum_grid(shifted, input.scale, &scales);
            done.constants.insert(add.name.clone(), Tensor::from_f32(&[rows], &values));
            None
        }
        BiasPlace::None => None,
    };
    let weights = Tensor::from_ints(dtype, &old.weights.shape, &target.layer.rows.restore(&integers));
    done.layers.insert(target.layer.node.name.clone(), Layer { weights, scales, bias, ..old.clone() });
}
