//! Cases of matrix products, element-wise operators and normalizations.

use equant_runtime::kernels::{Rows, band_height, leads};
use equant_runtime::op::{
    AddParams, DivParams, FullyConnectedParams, LayerNormParams, LogSoftmaxParams, LutParams, MatMulMaskSoftmaxParams,
    MatMulParams, MatMulSoftmaxParams, MulParams, OpKind, Params, RepeatParams, RequantizeParams, RmsNormParams,
    SoftmaxParams,
};
use equant_runtime::plan::{DType, RANGE_I4, RANGE_U4};

use super::windows::Channels;
use super::{Case, Draws, Spec};

pub(crate) fn fully_connected(draws: &mut Draws, kind: OpKind) -> Case {
    let sizes = [draws.range(1, 40), draws.range(1, 70), draws.range(1, 11)];
    fully_connected_of(draws, kind, sizes)
}

/// A product of these sizes: rows, their length, and outputs of each.
pub(crate) fn fully_connected_of(draws: &mut Draws, kind: OpKind, [rows, depth, outputs]: [u32; 3]) -> Case {
    let mut case = Case::new(kind);
    let x = Spec::new(DType::I8, &[1, rows, depth], draws.zero_point(DType::I8));
    let dtype = draws.dtype();
    let y = Spec::new(dtype, &[rows, outputs], draws.zero_point(dtype));
    let count = rows as usize;
    let pixels = Rows { input: count, output: count, kernel: 1, stride: 1, dilation: 1, before: 0 };
    let row_len = [depth as usize, outputs as usize * dtype.size()];
    case.input_under(draws, &x, &y, leads(pixels, row_len, band_height([count, 1])));
    let weights = case.filters(draws, outputs, [1, depth]);
    let channels = Channels::draw(draws, outputs, depth);
    let params = FullyConnectedParams {
        weights,
        bias: case.words(&channels.bias),
        mantissas: case.words(&channels.mantissas),
        shifts: case.constant(&channels.shifts),
        clamp: draws.clamp(dtype),
    };
    case.patches([1, depth], rows);
    case.finish_weighted(&params, &y)
}

/// Strides that address every element of a shape once, its axes in some order in memory.
fn strides(draws: &mut Draws, sizes: [u32; 4]) -> [u32; 4] {
    let order = draws.pick(&[[0, 1, 2, 3], [0, 1, 3, 2], [1, 0, 2, 3], [0, 2, 1, 3], [3, 2, 1, 0]]);
    let mut strides = [0; 4];
    let mut stride = 1;
    for &axis in order.iter().rev() {
        strides[axis] = stride;
        stride *= sizes[axis];
    }
    strides
}

pub(crate) fn mat_mul(draws: &mut Draws) -> Case {
    let batch = [draws.range(1, 3), draws.range(1, 3)];
    let sizes = [draws.range(1, 9), draws.range(1, 20), draws.range(1, 37)];
    mat_mul_of(draws, batch, sizes)
}

/// A product of these sizes.
pub(crate) fn mat_mul_of(draws: &mut Draws, [outer, inner]: [u32; 2], [m, k, n]: [u32; 3]) -> Case {
    let mut case = Case::new(OpKind::MatMul);
    let mut a_strides = strides(draws, [outer, inner, m, k]);
    let mut b_strides = strides(draws, [outer, inner, k, n]);
    let y_strides = strides(draws, [outer, inner, m, n]);
    // Broadcast operands.
    match draws.range(0, 5) {
        3 => b_strides[0] = 0,
        4 => (b_strides[0], b_strides[1]) = (0, 0),
        5 => a_strides[1] = 0,
        _ => {}
    }
    let dtype = draws.dtype();
    let mut spec = |dtype: DType, sizes: [u32; 4]| Spec::new(dtype, &[sizes.iter().product()], draws.zero_point(dtype));
    let (a, b) = (spec(DType::I8, [outer, inner, m, k]), spec(DType::I8, [outer, inner, k, n]));
    let y = spec(dtype, [outer, inner, m, n]);
    case.random_input(&a, draws);
    case.random_input(&b, draws);
    let (mantissa, shift) = draws.multiplier(8 + k.ilog2() as i32 / 2);
    let clamp = draws.clamp(dtype);
    let params =
        MatMulParams { batch: [outer, inner], m, k, n, a_strides, b_strides, y_strides, mantissa, shift, clamp };
    case.finish(&params, &y)
}

/// The operands of an attention of these sizes, its output and its parameters.
fn attention(
    draws: &mut Draws,
    case: &mut Case,
    [outer, inner]: [u32; 2],
    [m, k, n]: [u32; 3],
) -> (MatMulSoftmaxParams, Spec) {
    let mut a_strides = strides(draws, [outer, inner, m, k]);
    let mut b_strides = strides(draws, [outer, inner, k, n]);
    match draws.range(0, 4) {
        3 => b_strides[0] = 0,
        4 => a_strides[1] = 0,
        _ => {}
    }
    // Rows are dense, and may lie apart.
    let step = n + draws.range(0, 3);
    let y_strides = draws.pick(&[[inner * m * step, m * step, step], [inner * step, step, outer * inner * step]]);
    let mut spec = |len: u32| Spec::new(DType::I8, &[len], draws.zero_point(DType::I8));
    let (a, b, y) = (spec(outer * inner * m * k), spec(outer * inner * k * n), spec(outer * inner * m * step));
    case.random_input(&a, draws);
    case.random_input(&b, draws);
    case.work(&Spec::new(DType::I32, &[n], 0));
    let center = draws.pick(&[10, 14]);
    let (mantissa, shift) = draws.multiplier(center);
    let (output_mantissa, output_shift) = draws.multiplier(-8);
    let params = MatMulSoftmaxParams {
        batch: [outer, inner],
        m,
        k,
        n,
        a_strides,
        b_strides,
        y_strides,
        mantissa,
        shift,
        output_mantissa,
        output_shift,
    };
    (params, y)
}

pub(crate) fn mat_mul_softmax(draws: &mut Draws) -> Case {
    let batch = [draws.range(1, 3), draws.range(1, 3)];
    let sizes = [draws.range(1, 5), draws.range(1, 20), draws.range(1, 70)];
    mat_mul_softmax_of(draws, batch, sizes)
}

/// A product of these sizes, and the softmax of its rows.
pub(crate) fn mat_mul_softmax_of(draws: &mut Draws, batch: [u32; 2], sizes: [u32; 3]) -> Case {
    let mut case = Case::new(OpKind::MatMulSoftmax);
    let (params, y) = attention(draws, &mut case, batch, sizes);
    case.finish(&params, &y)
}

pub(crate) fn mat_mul_mask_softmax(draws: &mut Draws) -> Case {
    let mut case = Case::new(OpKind::MatMulMaskSoftmax);
    let batch = [draws.range(1, 3), draws.range(1, 3)];
    let sizes = [draws.range(1, 5), draws.range(1, 20), draws.range(1, 70)];
    let (product, y) = attention(draws, &mut case, batch, sizes);
    let MatMulSoftmaxParams { batch: [outer, inner], m, n, .. } = product;
    let (mut mask_strides, mut most) = ([0; 4], 0);
    if draws.flag() {
        let dtype = draws.dtype();
        // A mask of all rows, of one row for all, of one column, or of all batches too.
        let (strides, len) = draws.pick(&[
            ([0, 0, n, 1], m * n),
            ([0, 0, 0, 1], n),
            ([0, 0, 1, 0], m),
            ([inner * m * n, m * n, n, 1], outer * inner * m * n),
            ([inner * m * n, m * n, 1, m], outer * inner * m * n),
        ]);
        mask_strides = strides;
        most = match dtype {
            DType::I8 => 23,
            DType::I16 => 15,
            DType::I32 => 0,
        };
        let mask = Spec::new(dtype, &[len], draws.zero_point(dtype));
        // The lowest number is among the bytes: it means something in constants alone.
        let bytes = draws.bytes(dtype, len as usize);
        if draws.flag() { case.constant_input(&mask, &bytes) } else { case.input(&mask, bytes) }
    }
    let mut factor = || match draws.range(0, 3) {
        0 => 1 << 30,
        1 => 0,
        _ => (draws.noise() % ((1 << 30) + 1)) as i32,
    };
    let (sum_factor, mask_factor) = (factor(), factor());
    let params = MatMulMaskSoftmaxParams {
        product,
        visible: draws.pick(&[u32::MAX, 1, 2, 7, n, u32::MAX - 1]),
        mask_strides,
        sum_factor,
        mask_factor,
        mask_shift: draws.range(0, most),
        factor_shift: draws.pick(&[30, 20, 36, 1, 62]),
    };
    case.finish(&params, &y)
}

/// A case of two inputs, the second possibly shorter, and the output anywhere it may lie.
fn binary<P: Params>(
    draws: &mut Draws,
    kind: OpKind,
    [a_dtype, b_dtype]: [DType; 2],
    params: impl FnOnce(&mut Draws, DType) -> P,
) -> Case {
    let mut case = Case::new(kind);
    let (repeats, last) = (draws.range(1, 5), draws.range(1, 90));
    let dtype = draws.dtype();
    let a = Spec::new(a_dtype, &[repeats, last], draws.zero_point(a_dtype));
    let full = draws.flag();
    let b = Spec::new(b_dtype, if full { &a.dims[..2] } else { &a.dims[1..2] }, draws.zero_point(b_dtype));
    let y = Spec::new(dtype, &[repeats, last], draws.zero_point(dtype));
    case.random_input(&a, draws);
    case.random_input(&b, draws);
    let params = params(draws, dtype);
    match draws.range(0, 2) {
        1 if a_dtype == dtype => case.finish_in_place(&params, &y, 0),
        2 if b_dtype == dtype && (full || repeats == 1) => case.finish_in_place(&params, &y, 1),
        _ => case.finish(&params, &y),
    }
}

pub(crate) fn add(draws: &mut Draws) -> Case {
    let dtypes = [draws.dtype(), draws.dtype()];
    binary(draws, OpKind::Add, dtypes, |draws, dtype| {
        let mut factor = || match draws.range(0, 3) {
            0 => 1 << 30,
            1 => 0,
            _ => (draws.noise() % ((1 << 30) + 1)) as i32,
        };
        let (a_factor, b_factor) = (factor(), factor());
        let shift = draws.pick(&[30, 29, 31, 24, 36, 1, 62]);
        AddParams { a_factor, b_factor, shift, clamp: draws.clamp(dtype) }
    })
}

pub(crate) fn mul(draws: &mut Draws) -> Case {
    let dtypes = [draws.narrow_dtype(), draws.narrow_dtype()];
    binary(draws, OpKind::Mul, dtypes, |draws, dtype| {
        let center = draws.pick(&[7, 0, 15, 23]);
        let (mantissa, shift) = draws.multiplier(center);
        MulParams { mantissa, shift, clamp: draws.clamp(dtype) }
    })
}

pub(crate) fn div(draws: &mut Draws) -> Case {
    let dtypes = [draws.narrow_dtype(), draws.narrow_dtype()];
    binary(draws, OpKind::Div, dtypes, |draws, dtype| {
        // Quotients within 8 bits, within 16, and all too large.
        let center = draws.pick(&[-3, 0, -10, -26, 15]);
        let (mantissa, shift) = draws.multiplier(center);
        DivParams { mantissa, shift, clamp: draws.clamp(dtype) }
    })
}

/// Finishes a case of one input, in place if the dtypes allow and the draws say so.
fn unary<P: Params>(draws: &mut Draws, case: Case, params: &P, [x, y]: [&Spec; 2]) -> Case {
    let in_place = draws.flag() && x.dtype == y.dtype;
    if in_place { case.finish_in_place(params, y, 0) } else { case.finish(params, y) }
}

pub(crate) fn requantize(draws: &mut Draws) -> Case {
    let mut case = Case::new(OpKind::Requantize);
    let shape = [draws.range(1, 3), draws.range(1, 130)];
    let (x_dtype, dtype) = (draws.dtype(), draws.dtype());
    let x = Spec::new(x_dtype, &shape, draws.zero_point(x_dtype));
    let y = Spec::new(dtype, &shape, draws.zero_point(dtype));
    case.random_input(&x, draws);
    let (mantissa, shift) = draws.multiplier(0);
    let params = RequantizeParams { mantissa, shift, clamp: draws.clamp(dtype) };
    unary(draws, case, &params, [&x, &y])
}

pub(crate) fn lut(draws: &mut Draws) -> Case {
    let mut case = Case::new(OpKind::Lut);
    let shape = [draws.range(1, 3), draws.range(1, 130)];
    let dtype = draws.dtype();
    let x = Spec::new(DType::I8, &shape, draws.zero_point(DType::I8));
    let y = Spec::new(dtype, &shape, draws.zero_point(dtype));
    case.random_input(&x, draws);
    let table = draws.bytes(dtype, 256);
    let params = LutParams { table: case.constant(&table) };
    unary(draws, case, &params, [&x, &y])
}

pub(crate) fn softmax(draws: &mut Draws) -> Case {
    let mut case = Case::new(OpKind::Softmax);
    let shape = [draws.range(1, 3), draws.range(1, 150)];
    let x_dtype = draws.dtype();
    let x = Spec::new(x_dtype, &shape, draws.zero_point(x_dtype));
    // The only kernel that clamps to the range of its output's record instead of one of its own.
    let y = match draws.range(0, 3) {
        0 => Spec { flags: RANGE_I4, ..Spec::new(DType::I8, &shape, -8) },
        1 => Spec { flags: RANGE_U4, ..Spec::new(DType::I8, &shape, 0) },
        _ => Spec::new(DType::I8, &shape, draws.zero_point(DType::I8)),
    };
    case.random_input(&x, draws);
    let center = draws.pick(&[3, 12, 26]);
    let (mantissa, shift) = draws.multiplier(center);
    let (output_mantissa, output_shift) = draws.multiplier(-8);
    let params = SoftmaxParams { mantissa, shift, output_mantissa, output_shift };
    unary(draws, case, &params, [&x, &y])
}

pub(crate) fn log_softmax(draws: &mut Draws) -> Case {
    let mut case = Case::new(OpKind::LogSoftmax);
    let shape = [draws.range(1, 3), draws.range(1, 150)];
    let (x_dtype, dtype) = (draws.dtype(), draws.dtype());
    let x = Spec::new(x_dtype, &shape, draws.zero_point(x_dtype));
    let y = Spec::new(dtype, &shape, draws.zero_point(dtype));
    case.random_input(&x, draws);
    let center = draws.pick(&[3, 12, 26]);
    let (mantissa, shift) = draws.multiplier(center);
    let center = draws.pick(&[0, -8, 12]);
    let (step_mantissa, step_shift) = draws.multiplier(center);
    let center = draws.pick(&[-4, -10]);
    let (log_mantissa, log_shift) = draws.multiplier(center);
    let clamp = draws.clamp(dtype);
    let params = LogSoftmaxParams { mantissa, shift, step_mantissa, step_shift, log_mantissa, log_shift, clamp };
    unary(draws, case, &params, [&x, &y])
}

pub(crate) fn layer_norm(draws: &mut Draws) -> Case {
    normalization(draws, OpKind::LayerNorm, |params| params)
}

pub(crate) fn rms_norm(draws: &mut Draws) -> Case {
    normalization(draws, OpKind::RmsNorm, RmsNormParams)
}

fn normalization<P: Params>(draws: &mut Draws, kind: OpKind, of: impl FnOnce(LayerNormParams) -> P) -> Case {
    let mut case = Case::new(kind);
    let shape = [draws.range(1, 3), draws.range(1, 150)];
    let (x_dtype, dtype) = (draws.dtype(), draws.dtype());
    let x = Spec::new(x_dtype, &shape, draws.zero_point(x_dtype));
    let y = Spec::new(dtype, &shape, draws.zero_point(dtype));
    case.random_input(&x, draws);
    let spread = draws.range(0, 31);
    let gamma: Vec<i32> = (0..shape[1]).map(|_| draws.noise() as i32 >> spread).collect();
    let beta: Vec<i32> = (0..shape[1]).map(|_| draws.noise() as i32 >> 8).collect();
    let beta_shift = draws.range(1, 16);
    let params = LayerNormParams {
        epsilon: draws.pick(&[1, 17, 1 << 40, u64::MAX]),
        gamma: case.words(&gamma),
        gamma_shift: draws.range(0, beta_shift + 40),
        beta: case.words(&beta),
        beta_shift,
        clamp: draws.clamp(dtype),
    };
    unary(draws, case, &of(params), [&x, &y])
}

/// Sums that grow, or wander, with every repetition.
pub(crate) fn repeat(draws: &mut Draws) -> Case {
    let mut case = Case::new(OpKind::Repeat);
    let dtype = draws.dtype();
    let spec = Spec::new(dtype, &[draws.range(1, 20)], draws.zero_point(dtype));
    for _ in 0..2 {
        let bytes = draws.bytes(dtype, spec.elements());
        case.input(&spec, bytes);
    }
    let b_factor = (draws.noise() % (1 << 28)) as i32;
    let params = AddParams { a_factor: 1 << 30, b_factor, shift: 30, clamp: draws.clamp(dtype) };
    let offset = case.before(&params, &spec, 0);
    case.finish_at(&RepeatParams { len: 1, times: draws.range(1, 9) }, &spec, offset)
}
