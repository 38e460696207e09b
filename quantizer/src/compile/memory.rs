//! Lifetimes of storages, tensors that take over each other's memory, and their places in the arena.

use super::planner::{Buffer, Over, Placement, live_bytes, place};
use super::program::{Place, Program};

/// Where every storage lies.
#[derive(Debug)]
pub(super) struct Memory {
    /// Byte offset of each storage in the arena; meaningless for constants.
    pub(super) offsets: Vec<usize>,
    pub(super) placement: Placement,
    /// Bytes alive at each operator.
    pub(super) live: Vec<usize>,
}

/// Plans the memory of a program.
pub(super) fn plan(program: &Program, small: bool) -> Memory {
    let (count, last_op) = (program.storages.len(), program.ops.len().saturating_sub(1));
    let storage = |record: usize| program.records[record].storage;
    let mut first = vec![usize::MAX; count];
    let mut last = vec![0; count];
    for (i, op) in program.ops.iter().enumerate() {
        for record in op.inputs.iter().copied().chain(op.outputs()) {
            let s = storage(record);
            first[s] = first[s].min(i);
            last[s] = last[s].max(i);
        }
    }
    for &record in &program.inputs {
        first[storage(record)] = 0;
    }
    for &record in &program.outputs {
        let s = storage(record);
        first[s] = first[s].min(last_op);
        last[s] = last_op;
    }
    for &record in &program.states {
        let s = storage(record);
        (first[s], last[s]) = (0, last_op);
    }
    // What repeated operators read from outside stays for the last repetition.
    for &(start, end) in &program.loops {
        let is_input = |s: usize| program.inputs.iter().any(|&record| storage(record) == s);
        for s in 0..count {
            let before = first[s] < start || first[s] == start && is_input(s);
            if before && last[s] >= start {
                last[s] = last[s].max(end);
            }
        }
    }
    // An output takes over the memory of an input that dies there.
    let mut home: Vec<usize> = (0..count).collect();
    let is_output = |s: usize| program.outputs.iter().any(|&record| storage(record) == s);
    for (i, op) in program.ops.iter().enumerate() {
        let taken = op.in_place.iter().map(|&at| storage(op.inputs[at])).find(|&s| last[s] == i && !is_output(s));
        if let Some(taken) = taken {
            home[storage(op.output)] = home[taken];
        }
    }
    let mut buffers: Vec<Buffer> = Vec::new();
    let mut index = vec![usize::MAX; count];
    for s in 0..count {
        if program.storages[s].place != Place::Arena || first[s] == usize::MAX {
            continue;
        }
        let root = home[s];
        let buffer = Buffer { size: program.storages[s].bytes(), first: first[s], last: last[s] };
        match buffers.get_mut(index[root]) {
            Some(shared) => {
                shared.first = shared.first.min(buffer.first);
                shared.last = shared.last.max(buffer.last);
            }
            None => {
                index[root] = buffers.len();
                buffers.push(buffer);
            }
        }
    }
    // If wanted, an output may lie over an input that dies there, which costs time: where that makes the arena smaller.
    let overs = program.ops.iter().enumerate().filter(|_| small).filter_map(|(i, op)| {
        let [input, output] = [*op.inputs.first()?, op.output].map(|record| index[home[storage(record)]]);
        let dies = buffers.get(input)?.last == i && !is_output(storage(op.inputs[0]));
        (dies && buffers.get(output)?.first == i).then_some(Over { output, input, leads: op.leads? })
    });
    let (placement, overs) = fewest(&buffers, overs.collect(), program.ops.len());
    let offsets = (0..count).map(|s| placement.offsets.get(index[home[s]]).copied().unwrap_or(0)).collect();
    Memory { offsets, live: live_bytes(&buffers, &overs, program.ops.len()), placement }
}

/// The smallest arena, with as few outputs over inputs as it takes.
fn fewest(buffers: &[Buffer], mut overs: Vec<Over>, ops: usize) -> (Placement, Vec<Over>) {
    let mut best = place(buffers, &overs, ops);
    for over in overs.clone() {
        let fewer: Vec<Over> = overs.iter().copied().filter(|&other| other != over).collect();
        let placement = place(buffers, &fewer, ops);
        if placement.arena <= best.arena {
            (best, overs) = (placement, fewer);
        }
    }
    (best, overs)
}
