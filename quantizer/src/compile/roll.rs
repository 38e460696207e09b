//! Steps that are the same operators, one after the other, are in the plan once.
//!
//! A sequence that was unrolled is, after lowering, a run of operators that repeats itself: same kinds, parameters and
//! shapes, on other tensors. Where every tensor is one that all steps read, one that the step itself makes, one that the step
//! before makes, or a constant index that goes up or down from step to step, the first step can stand for all of them: what
//! comes from the step before is copied to where the first one found it, indices are counted, and a Repeat runs it again.

use std::collections::{BTreeMap, HashMap};

use equant_runtime::op::{AddParams, RepeatParams, RequantizeParams};
use equant_runtime::plan::DType;

use super::program::{Op, Place, Program, Record, Section, Storage};

/// Operators of one step at most.
const LONGEST: usize = 128;
/// Steps at least: what carries values from one to the next takes operators, too.
const LEAST: usize = 3;
/// Operators that may come before one that repeats, and its repetitions: limits of the runtime.
const LIMITS: (usize, usize) = (4000, 65_535);

/// Replaces runs of equal steps, the longest first.
pub(super) fn roll(program: &mut Program) {
    // Every round rolls something, and what is rolled is left alone from then on.
    while let Some(steps) = find(program) {
        apply(program, &steps);
    }
}

/// Equal steps.
struct Steps {
    /// First operator, operators in a step, steps.
    start: usize,
    len: usize,
    count: usize,
    /// What each input of each operator of the first step becomes, where it does not stay what it is.
    slots: BTreeMap<(usize, usize), Slot>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Slot {
    /// What an operator of the step before made (its position in the step), and what the first step reads instead.
    Carried(usize, usize),
    /// A constant index: its value in the first step, and by how much it changes.
    Counted(i32, i32),
}

/// What must be equal of two operators in different steps.
#[derive(PartialEq, Eq, Hash)]
struct Signature {
    kind: u16,
    params: Vec<u32>,
    tensors: Vec<Shape>,
}

/// What must be equal of two tensors: everything but where they lie, unless that is among the constants.
#[derive(PartialEq, Eq, Hash)]
struct Shape {
    dims: Vec<usize>,
    nchw: bool,
    dtype: u8,
    scale: u32,
    zero_point: i32,
    levels: (i32, i32),
    constant: Option<u32>,
}

fn signature(program: &Program, op: &Op) -> Signature {
    let tensor = |record: usize| {
        let Record { storage, dims, nchw } = &program.records[record];
        let s = &program.storages[*storage];
        let constant = match s.place {
            Place::Const(offset) if index(program, *storage).is_none() => Some(offset),
            _ => None,
        };
        Shape {
            dims: dims.clone(),
            nchw: *nchw,
            dtype: s.dtype as u8,
            scale: s.scale.to_bits(),
            zero_point: s.zero_point,
            levels: s.levels,
            constant,
        }
    };
    let tensors = op.inputs.iter().copied().chain(op.outputs()).map(tensor).collect();
    Signature { kind: op.kind as u16, params: op.params.clone(), tensors }
}

/// The value of a storage that is a constant index.
fn index(program: &Program, storage: usize) -> Option<i32> {
    let s = &program.storages[storage];
    match s.place {
        Place::Const(offset) if s.dtype == DType::I32 && s.len == 1 => {
            let bytes = program.consts.bytes().get(offset as usize..)?.first_chunk::<4>()?;
            Some(i32::from_le_bytes(*bytes))
        }
        _ => None,
    }
}

/// The steps that save most operators.
fn find(program: &Program) -> Option<Steps> {
    let mut known = HashMap::new();
    let ids: Vec<usize> = program
        .ops
        .iter()
        .map(|op| {
            let next = known.len();
            *known.entry(signature(program, op)).or_insert(next)
        })
        .collect();
    let rolled = |at: usize| program.loops.iter().any(|&(start, end)| (start..=end).contains(&at));
    let mut best: Option<Steps> = None;
    for len in 1..=LONGEST.min(ids.len() / LEAST) {
        let mut run = 0;
        for at in 0..=ids.len() - len {
            let same = at + len < ids.len() && ids[at] == ids[at + len] && !rolled(at) && !rolled(at + len);
            if same {
                run += 1;
                continue;
            }
            let (first, count) = (at - run, (run / len + 1).min(LIMITS.1));
            let saved = best.as_ref().map_or(0, |best| (best.count - 1) * best.len);
            if count >= LEAST && (count - 1) * len > saved && first + 3 * len < LIMITS.0 {
                // Where a step begins is free as far as the run allows.
                let starts = first..=first + run - (count - 1) * len;
                let steps = starts.filter_map(|start| steps(program, start, len, count));
                best = steps.min_by_key(|steps| steps.slots.len()).or(best);
            }
            run = 0;
        }
    }
    best
}

/// The steps of `len` operators from `start` on, if their tensors allow that they are rolled.
fn steps(program: &Program, start: usize, len: usize, count: usize) -> Option<Steps> {
    let storage = |record: usize| program.records[record].storage;
    let op = |step: usize, at: usize| &program.ops[start + step * len + at];
    let mut made: HashMap<usize, (usize, usize)> = HashMap::new();
    for step in 0..count {
        for at in 0..len {
            for record in op(step, at).outputs() {
                // Something that is written twice is no value of a step.
                if made.insert(storage(record), (step, at)).is_some() {
                    return None;
                }
            }
        }
    }
    // Nothing but the last step is read afterwards.
    let after = program.ops[start + count * len..].iter().flat_map(|op| op.inputs.iter().copied());
    let kept = after.chain(program.outputs.iter().copied());
    if kept.map(storage).any(|s| made.get(&s).is_some_and(|&(step, _)| step + 1 < count)) {
        return None;
    }
    let mut slots = BTreeMap::new();
    for at in 0..len {
        for i in 0..op(0, at).inputs.len() {
            let read: Vec<usize> = (0..count).map(|step| storage(op(step, at).inputs[i])).collect();
            let makers: Vec<Option<(usize, usize)>> = read.iter().map(|s| made.get(s).copied()).collect();
            let first = makers[0];
            let is_own = first.is_some()
                && makers.iter().enumerate().all(|(step, maker)| {
                    *maker == first.map(|(_, by)| (step, by)) && maker.is_some_and(|(_, by)| by < at)
                });
            if is_own || first.is_none() && read.iter().all(|s| *s == read[0]) {
                continue;
            }
            slots.insert((at, i), slot(program, &read, &makers)?);
        }
    }
    Some(Steps { start, len, count, slots })
}

/// What an input that differs from step to step becomes.
fn slot(program: &Program, read: &[usize], makers: &[Option<(usize, usize)>]) -> Option<Slot> {
    if let [None, Some((0, by)), ..] = makers
        && makers.iter().enumerate().skip(1).all(|(step, maker)| *maker == Some((step - 1, *by)))
    {
        return Some(Slot::Carried(*by, read[0]));
    }
    let values: Vec<i32> = read.iter().map(|&s| index(program, s)).collect::<Option<_>>()?;
    let by = values.get(1)?.checked_sub(values[0])?;
    values.windows(2).all(|pair| pair[1].checked_sub(pair[0]) == Some(by)).then_some(Slot::Counted(values[0], by))
}

fn apply(program: &mut Program, steps: &Steps) {
    let Steps { start, len, count, .. } = *steps;
    let storage = |program: &Program, record: usize| program.records[record].storage;
    let mut ops: Vec<Op> = std::mem::take(&mut program.ops);
    let mut after = ops.split_off(start + len * count);
    let all = ops.split_off(start);
    let name = all.first().map(|op| op.name.clone()).unwrap_or_default();
    // What the last step made is, from now on, what the first one makes.
    let mut moved: HashMap<usize, Option<usize>> = HashMap::new();
    for (at, op) in all.iter().enumerate().skip(len) {
        let first = &all[at % len];
        for (from, to) in op.outputs().zip(first.outputs()) {
            let to = (at >= len * (count - 1)).then(|| storage(program, to));
            moved.insert(storage(program, from), to);
        }
    }
    let mut body: Vec<Op> = all.into_iter().take(len).collect();
    let mut homes: BTreeMap<Slot, usize> = BTreeMap::new();
    for slot in steps.slots.values() {
        let like = match *slot {
            Slot::Carried(by, _) => program.storages[storage(program, body[by].output)].clone(),
            Slot::Counted(..) => index_at(Place::Arena),
        };
        homes.entry(*slot).or_insert_with(|| program.storage(like));
    }
    program.ops = ops;
    for (slot, &home) in &homes {
        let from = match *slot {
            Slot::Carried(_, first) => first,
            Slot::Counted(value, _) => constant(program, value),
        };
        copy(program, from, home, &name);
    }
    let first = program.ops.len();
    for (&(at, i), slot) in &steps.slots {
        let record = program.records[body[at].inputs[i]].clone();
        body[at].inputs[i] = program.record(Record { storage: homes[slot], ..record });
        // Its old value is read in the next step.
        body[at].in_place.retain(|&input| input != i);
        body[at].leads = None;
    }
    program.ops.append(&mut body);
    for (slot, &home) in &homes {
        match *slot {
            Slot::Carried(by, _) => {
                let from = storage(program, program.ops[first + by].output);
                copy(program, from, home, &name);
            }
            Slot::Counted(_, by) => {
                let by = constant(program, by);
                let params = AddParams { a_factor: 1 << 30, b_factor: 1 << 30, shift: 30, clamp: [i32::MIN, i32::MAX] };
                let [home, by] = [home, by].map(|s| flat(program, s));
                program.op(&params, vec![home, by], home, &name, 1);
            }
        }
        program.ops.last_mut().into_iter().for_each(|op| op.in_place.clear());
    }
    let last = program.ops.len();
    let macs: u64 = program.ops[first..].iter().filter(|op| op.kind.multiplies()).map(|op| op.macs).sum();
    let times = count - 1;
    let output = program.ops[last - 1].output;
    let params = RepeatParams { len: (last - first) as u32, times: times as u32 };
    program.op(&params, Vec::new(), output, &name, macs * times as u64);
    program.loops.iter_mut().filter(|(begin, _)| *begin >= start).for_each(|(begin, end)| {
        let by = |at: usize| at + last + 1 - start - len * count;
        (*begin, *end) = (by(*begin), by(*end));
    });
    program.loops.push((first, last));
    for record in after.iter_mut().flat_map(|op| &mut op.inputs) {
        rename(program, &moved, record);
    }
    program.ops.append(&mut after);
    let mut outputs = std::mem::take(&mut program.outputs);
    outputs.iter_mut().for_each(|record| rename(program, &moved, record));
    program.outputs = outputs;
    // Values of other steps than the last are not kept.
    program.named.retain_mut(|named| match moved.get(&named.storage) {
        Some(Some(to)) => {
            named.storage = *to;
            true
        }
        Some(None) => false,
        None => true,
    });
}

/// Makes a record one of where its storage has moved.
fn rename(program: &mut Program, moved: &HashMap<usize, Option<usize>>, record: &mut usize) {
    let known = program.records[*record].clone();
    if let Some(Some(storage)) = moved.get(&known.storage) {
        *record = program.record(Record { storage: *storage, ..known });
    }
}

/// A storage as a list of its elements.
fn flat(program: &mut Program, storage: usize) -> usize {
    let dims = vec![program.storages[storage].len];
    program.record(Record { storage, dims, nchw: false })
}

/// An index in the constants.
fn constant(program: &mut Program, value: i32) -> usize {
    let place = Place::Const(program.consts.add_i32(Section::Tables, &[value]).offset);
    program.storage(index_at(place))
}

/// A single index.
fn index_at(place: Place) -> Storage {
    Storage { dtype: DType::I32, scale: 1.0, zero_point: 0, levels: DType::I32.range(), len: 1, place }
}

/// Adds an operator that copies a storage to another one of the same kind.
fn copy(program: &mut Program, from: usize, to: usize, name: &str) {
    let (low, high) = program.storages[to].levels;
    // A factor of one: 2^30 / 2^31 · 2.
    let params = RequantizeParams { mantissa: 1 << 30, shift: -1, clamp: [low, high] };
    let len = program.storages[to].len as u64;
    let [input, output] = [from, to].map(|s| flat(program, s));
    program.op(&params, vec![input], output, name, len);
    program.ops.last_mut().into_iter().for_each(|op| op.in_place.clear());
}

#[cfg(test)]
mod tests {
    use equant_runtime::op::OpKind;

    use super::*;
    use crate::compile::view::View;

    /// A program of `steps` steps `h = 2·h + x`, with `x` one for all steps, of four elements.
    fn program(steps: usize) -> (Program, Vec<usize>) {
        let mut program = Program::default();
        let value = |program: &mut Program| {
            let levels = (-128, 127);
            let storage = Storage { dtype: DType::I8, scale: 0.5, zero_point: 3, levels, len: 4, place: Place::Arena };
            let storage = program.storage(storage);
            program.record(Record { storage, dims: vec![4], nchw: false })
        };
        let (x, first) = (value(&mut program), value(&mut program));
        program.inputs = vec![x, first];
        let mut h = first;
        let mut made = Vec::new();
        for step in 0..steps {
            let y = value(&mut program);
            let params = AddParams { a_factor: 1 << 30, b_factor: 1 << 29, shift: 29, clamp: [-128, 127] };
            program.op(&params, vec![h, x], y, &format!("step_{step}"), 4);
            h = y;
            made.push(y);
        }
        program.outputs = vec![h];
        let storage = program.records[h].storage;
        let (view, name) = (View::row_major(&[4]), "last".to_owned());
        program.named.push(super::super::program::Named { name, storage, view, scale: 0.5, zero_point: 3 });
        (program, made)
    }

    fn kinds(program: &Program) -> Vec<OpKind> {
        program.ops.iter().map(|op| op.kind).collect()
    }

    #[test]
    fn steps_become_one() {
        let (mut program, made) = program(9);
        roll(&mut program);
        // The first state is copied to where the step finds it, and its result after it.
        assert_eq!(kinds(&program), [OpKind::Requantize, OpKind::Add, OpKind::Requantize, OpKind::Repeat]);
        assert_eq!((program.ops[3].params.clone(), program.loops.clone()), (vec![2, 8], vec![(1, 3)]));
        assert_eq!(program.outputs, [made[0]], "what the step makes, it makes last");
        assert_eq!(program.named[0].storage, program.records[made[0]].storage);
        let (home, x) = (program.ops[1].inputs[0], program.ops[1].inputs[1]);
        assert_eq!((program.ops[0].output, program.ops[2].output), (home, home));
        assert_eq!(x, program.inputs[0]);
        assert!(!program.ops[1].in_place.contains(&0), "nothing is written over what the next step reads");
    }

    #[test]
    fn steps_that_are_read_later_stay() {
        let (mut program, made) = program(9);
        program.outputs.push(made[4]);
        roll(&mut program);
        // Of the runs before and after it the one that is read begins or ends.
        assert!(kinds(&program).iter().filter(|&&kind| kind == OpKind::Repeat).count() <= 2);
        let storage = |record: usize| program.records[record].storage;
        for &output in &program.outputs {
            assert!(program.ops.iter().any(|op| storage(op.output) == storage(output)), "outputs are made");
        }
        let (mut few, _) = super::tests::program(2);
        roll(&mut few);
        assert_eq!(kinds(&few), [OpKind::Add, OpKind::Add], "two steps are not worth it");
    }
}
