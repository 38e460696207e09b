//! `equant inspect`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::args::InspectArgs;
use super::compile::{memory, operators};
use super::diagnosis;
use super::error::Failure;
use super::model::{Kind, Model};
use super::output::{Output, most, table};
use super::sensitivity::{self, Ranking};
use crate::diagnose::Activation;
use crate::graph::shape::infer_partial;
use crate::graph::support::{self, Unsupported};
use crate::pipeline::{self, dtype_name, macs, parameters};
use crate::report::numbers::{count, shape};
use crate::report::{MemoryReport, Value, WeightBytes, Weights};

/// What an ONNX file holds.
#[derive(Serialize)]
struct Inspection {
    file: String,
    kind: &'static str,
    opset: i64,
    inputs: Vec<Value>,
    outputs: Vec<Value>,
    parameters: u64,
    macs: u64,
    nodes: Vec<NodeInfo>,
    weights: Vec<Weights>,
    weight_bytes: WeightBytes,
    /// What samples showed, if there are any.
    activations: Option<Vec<Activation>>,
    /// What quantizing each layer alone does, if that was asked for.
    sensitivity: Option<Ranking>,
    unsupported: Vec<Unsupported>,
    metadata: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct NodeInfo {
    name: String,
    op_type: String,
    shape: Option<Vec<usize>>,
    dtype: Option<&'static str>,
    parameters: u64,
    macs: u64,
}

pub(super) fn run(args: InspectArgs, output: &Output) -> Result<(), Failure> {
    let model = Model::open(&args.model, &args.exec.dims())?;
    if let Kind::Plan(image) = &model.kind {
        if let Some(samples) = &args.samples {
            let file = samples.display();
            return Err(Failure::Usage(format!(
                "--samples {file}: only for models; see `equant run --profile` for plans"
            )));
        }
        let map = MemoryReport::of(image, args.cost.core)
            .map_err(|source| pipeline::Error::Plan { file: model.file.clone(), source })?;
        return output.result(&map, || plan_text(&model, &map));
    }
    let mut found = inspect(&model);
    // A model that cannot be quantized is told of even if it cannot be run.
    if found.unsupported.is_empty()
        && let Some(samples) = &args.samples
    {
        let all = pipeline::open_samples(samples, &model.graph, args.reading.preprocess.as_deref())?;
        let samples = all.head(most(args.limit));
        found.activations = Some(diagnosis::look(&model, &samples, &args.exec, output)?);
        if args.sensitivity {
            let samples = all.head(args.limit.map_or(sensitivity::SAMPLES, |limit| most(Some(limit))));
            let ranking = sensitivity::rank(&model, &samples, &args.bits, &args.exec, output)?;
            if let Some(path) = &args.plot {
                ranking.plot(path)?;
            }
            found.sensitivity = Some(ranking);
        }
    }
    output.result(&found, || text(&found))?;
    if found.unsupported.is_empty() { Ok(()) } else { Err(Failure::Inspected(found.file)) }
}

fn inspect(model: &Model) -> Inspection {
    let graph = &model.graph;
    let types = infer_partial(graph, 1).types;
    let value = |info: &crate::graph::ValueInfo| Value {
        name: info.name.clone(),
        shape: types.get(&info.name).map(|kind| kind.shape.clone()).unwrap_or_default(),
    };
    let nodes: Vec<NodeInfo> = graph
        .nodes
        .iter()
        .map(|node| {
            let kind = types.get(node.output());
            let constants = node.inputs.iter().filter_map(|name| graph.initializers.get(name));
            NodeInfo {
                name: node.name.clone(),
                op_type: node.op_type.clone(),
                shape: kind.map(|kind| kind.shape.clone()),
                dtype: kind.map(|kind| dtype_name(kind.dtype)),
                parameters: constants.map(|tensor| tensor.len() as u64).sum(),
                macs: macs(node, &types),
            }
        })
        .collect();
    let weights = pipeline::weights(graph);
    Inspection {
        file: model.file.clone(),
        kind: model.kind_name(),
        opset: graph.opset,
        inputs: graph.inputs.iter().map(value).collect(),
        outputs: graph.outputs.iter().map(value).collect(),
        parameters: parameters(graph),
        macs: nodes.iter().map(|node| node.macs).sum(),
        nodes,
        weight_bytes: WeightBytes::of(&weights),
        weights,
        activations: None,
        sensitivity: None,
        unsupported: if matches!(model.kind, Kind::Float) { support::check(graph) } else { Vec::new() },
        metadata: graph.metadata.clone(),
    }
}

fn values(values: &[Value]) -> String {
    values.iter().map(|value| format!("{} {}", value.name, shape(&value.shape))).collect::<Vec<_>>().join(", ")
}

fn text(found: &Inspection) -> String {
    let mut out = format!(
        "{}: {} model, opset {} after preparation\ninput   {}\noutput  {}\n\n",
        found.file,
        found.kind,
        found.opset,
        values(&found.inputs),
        values(&found.outputs)
    );
    let number = |n: u64| if n == 0 { String::new() } else { count(n) };
    let rows: Vec<Vec<String>> = found
        .nodes
        .iter()
        .enumerate()
        .map(|(i, node)| {
            vec![
                i.to_string(),
                node.op_type.clone(),
                node.name.clone(),
                match (&node.shape, node.dtype) {
                    (Some(dims), Some(dtype)) => format!("{} {dtype}", shape(dims)),
                    _ => "unknown".into(),
                },
                number(node.parameters),
                number(node.macs),
            ]
        })
        .collect();
    out.push_str(&table(3, &["", "operator", "name", "output", "parameters", "MACs"], &rows));
    let _ = writeln!(
        out,
        "{} nodes, {} parameters, {} MACs",
        found.nodes.len(),
        count(found.parameters),
        count(found.macs)
    );
    out.push_str(&diagnosis::weights(&found.weights, found.weight_bytes, found.kind));
    if let Some(activations) = &found.activations {
        out.push_str(&diagnosis::activations(activations));
    }
    if let Some(ranking) = &found.sensitivity {
        out.push_str(&ranking.text());
    }
    for (key, value) in &found.metadata {
        let _ = writeln!(out, "{key}: {value}");
    }
    match (found.kind, found.unsupported.as_slice()) {
        ("float", []) => out.push_str("every node can be quantized\n"),
        (_, []) => {}
        (_, unsupported) => {
            let _ = writeln!(out, "{} node(s) cannot be quantized:", unsupported.len());
            for node in unsupported {
                let _ = writeln!(out, "  {node}");
            }
        }
    }
    out
}

fn plan_text(model: &Model, map: &MemoryReport) -> String {
    let tensors = |tensors: &[crate::report::memory::PlanTensor]| {
        let all = tensors
            .iter()
            .map(|t| format!("{} {} (scale {}, zero point {})", shape(&t.shape), t.dtype, t.scale, t.zero_point));
        all.collect::<Vec<_>>().join(", ")
    };
    format!(
        "{}: plan for target {}\ninput   {}\noutput  {}\n\n{}\n{}\n{}\n",
        model.file,
        map.target,
        tensors(&map.inputs),
        tensors(&map.outputs),
        operators(map),
        memory(map),
        map.operator_set
    )
}
