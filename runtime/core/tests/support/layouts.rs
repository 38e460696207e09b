//! Cases of the operators that only move elements.

use equant_runtime::op::{
    ArgMaxParams, ConcatParams, ConstRef, GatherParams, OpKind, PadParams, StateParams, TakeParams, TransposeParams,
};
use equant_runtime::plan::DType;

use super::{Case, Draws, Spec};

fn shape(draws: &mut Draws) -> Vec<u32> {
    let rank = draws.range(1, 4);
    (0..rank).map(|_| draws.range(1, 6)).collect()
}

/// A shape behind leading ones.
fn leading_ones(shape: &[u32]) -> [u32; 4] {
    let mut dims = [1; 4];
    dims[4 - shape.len()..].copy_from_slice(shape);
    dims
}

pub(crate) fn transpose(draws: &mut Draws) -> Case {
    let mut case = Case::new(OpKind::Transpose);
    let shape = shape(draws);
    let first = 4 - shape.len();
    let mut perm = [0, 1, 2, 3];
    for i in (first + 1..4).rev() {
        perm.swap(i, draws.range(first as u32, i as u32) as usize);
    }
    let dtype = draws.dtype();
    let zero_point = draws.zero_point(dtype);
    case.random_input(&Spec::new(dtype, &shape, zero_point), draws);
    let dims = leading_ones(&shape);
    let permuted: Vec<u32> = perm[first..].iter().map(|&axis| dims[axis as usize]).collect();
    case.finish(&TransposeParams { perm }, &Spec::new(dtype, &permuted, zero_point))
}

pub(crate) fn concat(draws: &mut Draws) -> Case {
    let mut case = Case::new(OpKind::Concat);
    let mut shape = shape(draws);
    let axis = draws.range(0, shape.len() as u32 - 1);
    let dtype = draws.dtype();
    let zero_point = draws.zero_point(dtype);
    let mut total = 0;
    for _ in 0..draws.range(1, 4) {
        shape[axis as usize] = draws.range(1, 6);
        total += shape[axis as usize];
        case.random_input(&Spec::new(dtype, &shape, zero_point), draws);
    }
    shape[axis as usize] = total;
    case.finish(&ConcatParams { axis }, &Spec::new(dtype, &shape, zero_point))
}

pub(crate) fn pad(draws: &mut Draws) -> Case {
    let mut case = Case::new(OpKind::Pad);
    let mut shape = shape(draws);
    let dtype = draws.dtype();
    let zero_point = draws.zero_point(dtype);
    case.random_input(&Spec::new(dtype, &shape, zero_point), draws);
    let first = 4 - shape.len();
    let (mut before, mut after) = ([0; 4], [0; 4]);
    for (axis, dim) in (first..4).zip(&mut shape) {
        (before[axis], after[axis]) = (draws.range(0, 3), draws.range(0, 3));
        *dim += before[axis] + after[axis];
    }
    let value = i32::from(draws.zero_point(dtype));
    case.finish(&PadParams { before, after, value }, &Spec::new(dtype, &shape, zero_point))
}

pub(crate) fn take(draws: &mut Draws) -> Case {
    let mut case = Case::new(OpKind::Take);
    let mut shape = shape(draws);
    let dtype = draws.dtype();
    let zero_point = draws.zero_point(dtype);
    case.random_input(&Spec::new(dtype, &shape, zero_point), draws);
    let first = 4 - shape.len();
    let mut indices = [ConstRef::default(); 4];
    for (list, size) in indices.iter_mut().skip(first).zip(&mut shape) {
        if draws.flag() {
            let input = *size;
            *size = draws.range(1, 9);
            let picked: Vec<u16> = (0..*size).map(|_| (draws.noise() % u64::from(input)) as u16).collect();
            *list = case.halves(&picked);
        }
    }
    case.finish(&TakeParams { indices }, &Spec::new(dtype, &shape, zero_point))
}

pub(crate) fn arg_max(draws: &mut Draws) -> Case {
    let mut case = Case::new(OpKind::ArgMax);
    let shape = [draws.range(1, 4), draws.range(1, 20), draws.pick(&[1, 3, 64, 65, 130])];
    let dtype = draws.dtype();
    let x = Spec::new(dtype, &shape, draws.zero_point(dtype));
    if draws.flag() {
        // Elements that are equal often.
        let bytes = (0..x.elements()).flat_map(|_| (draws.noise() % 3).to_le_bytes()[..dtype.size()].to_vec());
        let bytes = bytes.collect();
        case.input(&x, bytes);
    } else {
        case.random_input(&x, draws);
    }
    let params = ArgMaxParams { least: draws.range(0, 1), select_last: draws.range(0, 1) };
    case.finish(&params, &Spec::new(DType::I32, &[shape[0], shape[2]], 0))
}

pub(crate) fn gather(draws: &mut Draws) -> Case {
    let mut case = Case::new(OpKind::Gather);
    let mut shape = shape(draws);
    shape.truncate(3);
    let axis = draws.range(0, shape.len() as u32 - 1) as usize;
    let dtype = draws.dtype();
    let zero_point = draws.zero_point(dtype);
    case.random_input(&Spec::new(dtype, &shape, zero_point), draws);
    // A single index without an axis, one axis, or two where the output's rank allows.
    let mut counts = vec![draws.range(1, 7), draws.range(1, 3)];
    counts.truncate(draws.range(0, 5 - shape.len() as u32) as usize);
    let size = i64::from(shape[axis]);
    let index = |draws: &mut Draws| (draws.noise() % (2 * size as u64)) as i64 - size;
    let indices = (0..counts.iter().product::<u32>()).flat_map(|_| (index(draws) as i32).to_le_bytes()).collect();
    case.input(&Spec { scale: 1.0, ..Spec::new(DType::I32, &counts, 0) }, indices);
    let gathered = [&shape[..axis], &counts, &shape[axis + 1..]].concat();
    case.finish(&GatherParams { axis: axis as u32 }, &Spec::new(dtype, &gathered, zero_point))
}

pub(crate) fn state(draws: &mut Draws) -> Case {
    let mut case = Case::new(OpKind::State);
    let shape = shape(draws);
    let dtype = draws.dtype();
    let zero_point = draws.zero_point(dtype);
    case.random_input(&Spec::new(dtype, &shape, zero_point), draws);
    case.finish(&StateParams { initial: zero_point.into() }, &Spec::new(dtype, &shape, zero_point))
}
