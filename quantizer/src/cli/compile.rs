//! `equant compile`.

use std::fmt::Write as _;

use serde::Serialize;

use super::args::CompileArgs;
use super::error::Failure;
use super::output::{Output, table};
use crate::files;
use crate::graph::support;
use crate::report::MemoryReport;
use crate::report::numbers::{bytes, count, shape};
use crate::{compile, onnx, pipeline};

#[derive(Serialize)]
struct Compilation<'a> {
    plan: String,
    memory: &'a MemoryReport,
    /// What could be better about the model.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    notes: &'a [String],
}

pub(super) fn run(args: CompileArgs, output: &Output) -> Result<(), Failure> {
    let file = args.model.display().to_string();
    let path = args.output.unwrap_or_else(|| args.model.with_extension("plan"));
    let graph = onnx::read(&args.model)?;
    if !support::is_quantized(&graph) {
        return Err(Failure::Input(format!(
            "{file}: is a float model; quantize it with `equant quantize {file} --calib SAMPLES.npz`"
        )));
    }
    let options =
        compile::Options { strip_names: args.strip_names, small_arena: args.small_arena, ..Default::default() };
    let compiled = pipeline::compile_graph(graph, &file, &options)?.1;
    let mut memory =
        MemoryReport::of(&compiled.image, args.cost.core).map_err(|source| pipeline::Error::Plan { file, source })?;
    memory.arena_lower_bound = Some(compiled.map.arena_lower_bound);
    files::write_file(&path, &compiled.image).map_err(pipeline::Error::from)?;
    let plan = path.display().to_string();
    output.result(&Compilation { plan: plan.clone(), memory: &memory, notes: &compiled.notes }, || {
        let notes: String = compiled.notes.iter().map(|note| format!("note: {note}\n")).collect();
        let (operators, map) = (operators(&memory), self::memory(&memory));
        format!("{operators}\n{map}\n{}\n\n{notes}wrote {plan}\n", memory.operator_set)
    })
}

/// Flash by section, arena and scratch.
pub(super) fn memory(memory: &MemoryReport) -> String {
    let mut rows: Vec<Vec<String>> = vec![vec!["flash".into(), bytes(memory.flash as u64), String::new()]];
    for section in &memory.sections {
        rows.push(vec![format!("  {}", section.name), bytes(section.bytes as u64), String::new()]);
    }
    let bound = match memory.arena_lower_bound {
        Some(bound) if bound == memory.arena => "optimal: no placement takes less".to_owned(),
        Some(bound) => format!("lower bound {}", bytes(bound as u64)),
        None => String::new(),
    };
    rows.push(vec!["arena".into(), bytes(memory.arena as u64), bound]);
    if memory.scratch > 0 {
        rows.push(vec!["scratch".into(), bytes(memory.scratch as u64), String::new()]);
    }
    // The last column is a remark, not a number: pad it so that flush right is flush left.
    let widest = rows.iter().map(|row| row[2].chars().count()).max().unwrap_or(0);
    for row in &mut rows {
        row[2] = format!("{:<widest$}", row[2]);
    }
    table(1, &["memory map", "", ""], &rows)
}

/// One line for each operator.
pub(super) fn operators(memory: &MemoryReport) -> String {
    let rows: Vec<Vec<String>> = memory
        .operators
        .iter()
        .enumerate()
        .map(|(i, op)| {
            vec![
                i.to_string(),
                op.kind.to_owned(),
                op.name.clone().unwrap_or_default(),
                op.outputs.iter().map(|t| format!("{} {}", shape(&t.shape), t.dtype)).collect::<Vec<_>>().join(", "),
                if op.macs == 0 { String::new() } else { count(op.macs) },
                count(op.instructions),
                bytes(op.constants as u64),
                bytes(op.live as u64),
            ]
        })
        .collect();
    let mut out = table(3, &["", "operator", "name", "output", "MACs", "instr. (est.)", "constants", "live"], &rows);
    let _ = writeln!(out, "{} operators, {} MACs, {}", memory.operators.len(), count(memory.macs), memory.estimate());
    out
}
