//! Where flash and memory go.

use std::fmt::Write as _;

use super::super::svg::{self, Axis, Bar, Mark};
use super::{Report, code, escape, heading, numbers, or_dash, rows};

pub(super) fn memory(out: &mut String, report: &Report) {
    let memory = &report.memory;
    heading(out, "Memory map of the plan");
    let sections = memory.sections.iter().map(|section| {
        vec![
            escape(section.name),
            numbers::bytes(section.bytes as u64),
            numbers::percent(section.bytes as f64 / memory.flash.max(1) as f64),
        ]
    });
    let total = vec!["flash".into(), numbers::bytes(memory.flash as u64), numbers::percent(1.0)];
    rows(out, 1, &["section", "size", "share"], sections.chain([total]));

    let bars: Vec<Bar> = memory
        .operators
        .iter()
        .enumerate()
        .map(|(i, op)| Bar {
            title: format!(
                "{i} {} ({}): {}",
                op.name.as_deref().unwrap_or_default(),
                op.kind,
                numbers::bytes(op.live as u64)
            ),
            value: op.live as f64,
            class: "data",
        })
        .collect();
    let mut marks =
        vec![Mark { value: memory.arena as f64, text: format!("arena {}", numbers::bytes(memory.arena as u64)) }];
    if let Some(bound) = memory.arena_lower_bound.filter(|&bound| bound < memory.arena) {
        marks.push(Mark { value: bound as f64, text: format!("lower bound {}", numbers::bytes(bound as u64)) });
    }
    let axis = Axis { top: memory.arena as f64 * 1.1, text: |bytes| numbers::bytes(bytes as u64) };
    out.push_str("<p></p>");
    out.push_str(&svg::bars("bytes alive at each operator", &bars, &axis, &marks));
    let _ = writeln!(
        out,
        "<p class=\"note\">Bytes of the arena in use at each operator. Arena {}, scratch {}{}.</p>",
        numbers::bytes(memory.arena as u64),
        numbers::bytes(memory.scratch as u64),
        match memory.arena_lower_bound {
            Some(bound) if bound == memory.arena => ": no placement can take less".into(),
            Some(bound) => format!("; no placement can take less than {}", numbers::bytes(bound as u64)),
            None => String::new(),
        },
    );
    let body = memory.operators.iter().enumerate().map(|(i, op)| {
        vec![
            i.to_string(),
            or_dash(op.name.as_deref().map(code)),
            escape(op.kind),
            op.outputs
                .iter()
                .map(|t| format!("{} {}", numbers::shape(&t.shape), t.dtype))
                .collect::<Vec<_>>()
                .join(", "),
            numbers::count(op.macs),
            numbers::count(op.instructions),
            numbers::bytes(op.constants as u64),
            numbers::bytes(op.live as u64),
        ]
    });
    rows(out, 4, &["", "name", "operator", "output", "MACs", "instructions", "constants", "live"], body);
    let _ = writeln!(
        out,
        "<p class=\"note\">{} MACs, {}. \
         Operators to register in firmware:</p><pre>{}</pre>",
        numbers::count(memory.macs),
        escape(&memory.estimate()),
        escape(&memory.operator_set)
    );
}
