//! Integer kernels against their definitions in f64, within the error bounds that their documentation states.

mod support;

use equant_runtime::op::{
    AddParams, AvgPool2dParams, DivParams, LayerNormParams, LogSoftmaxParams, MatMulMaskSoftmaxParams, MatMulParams,
    MatMulSoftmaxParams, MulParams, OpKind, Params, RequantizeParams, Resize2dParams, RmsNormParams, SoftmaxParams,
};
use equant_runtime::operator::AllOperators;
use equant_runtime::plan::DType;
use equant_runtime::quant::Multiplier;
use support::{Case, Draws, Spec};

/// Slack for the arithmetic of the definitions themselves.
const F64: f64 = 1e-9;

/// An input: its quantized values without their zero point.
struct Input {
    spec: Spec,
    bytes: Vec<u8>,
    differences: Vec<f64>,
}

impl Input {
    fn random(draws: &mut Draws, dtype: DType, shape: &[u32]) -> Self {
        let (low, high) = dtype.range();
        let zero_point = match dtype {
            DType::I32 => 0,
            _ => (low + (draws.noise() % (high - low + 1) as u64) as i32) as i16,
        };
        let spec = Spec::new(dtype, shape, zero_point);
        // Narrow and wide distributions alike.
        let spread = [1, 7, 60, i64::from(high)][(draws.noise() % 4) as usize];
        let mut bytes = Vec::new();
        let mut differences = Vec::new();
        for _ in 0..spec.elements() {
            let noise = (draws.noise() % (2 * spread as u64 + 1)) as i64 - spread;
            let q = (i64::from(zero_point) / 2 + noise).clamp(i64::from(low), i64::from(high));
            bytes.extend_from_slice(&q.to_le_bytes()[..dtype.size()]);
            differences.push((q - i64::from(zero_point)) as f64);
        }
        Self { spec, bytes, differences }
    }
}

fn draws(seed: u64) -> Draws {
    Draws::new(seed, Vec::new())
}

/// A number between two, evenly on a logarithmic axis.
fn log_uniform(draws: &mut Draws, low: f64, high: f64) -> f64 {
    let share = (draws.noise() >> 11) as f64 / (1u64 << 53) as f64;
    low * (high / low).powf(share)
}

fn dtype(draws: &mut Draws) -> DType {
    [DType::I8, DType::I16][(draws.noise() & 1) as usize]
}

fn any_dtype(draws: &mut Draws) -> DType {
    [DType::I8, DType::I16, DType::I32][(draws.noise() % 3) as usize]
}

fn output(draws: &mut Draws, dtype: DType, shape: &[u32]) -> Spec {
    Spec::new(dtype, shape, if dtype == DType::I32 { 0 } else { draws.noise() as i8 as i16 })
}

/// Runs a case and compares each element with its real number of steps above the zero point.
fn check<P: Params>(
    mut case: Case,
    inputs: Vec<Input>,
    params: impl FnOnce(&mut Case) -> P,
    y: &Spec,
    steps: &[f64],
    bound: impl Fn(usize, f64) -> f64,
) -> f64 {
    for input in inputs {
        case.input(&input.spec, input.bytes);
    }
    let params = params(&mut case);
    let case = case.finish(&params, y);
    let values = case.output(&case.run::<AllOperators>().expect("a valid plan"));
    assert_eq!(values.len(), steps.len());
    let (low, high) = y.dtype.range();
    let mut worst = 0.0f64;
    for (i, (&value, &steps)) in values.iter().zip(steps).enumerate() {
        let real = (steps + f64::from(y.zero_point)).clamp(low.into(), high.into());
        let error = (f64::from(value) - real).abs();
        // Saturated outputs are as far from the zero point as the dtype lets them be.
        let limit = bound(i, real - f64::from(y.zero_point));
        assert!(
            error <= limit + F64 * real.abs().max(1.0),
            "element {i}: {value} for {real}, off by {error} > {limit}"
        );
        worst = worst.max(error);
    }
    worst
}

const STEP31: f64 = 1.0 / (1u64 << 31) as f64;

#[test]
fn requantize() {
    for seed in 0..400 {
        let d = &mut draws(seed);
        let (x_dtype, y_dtype) = (any_dtype(d), any_dtype(d));
        let x = Input::random(d, x_dtype, &[97]);
        let y = output(d, y_dtype, &[97]);
        let ratio = log_uniform(d, 1e-4, 300.0);
        let m = Multiplier::from_f64(ratio).unwrap();
        let (low, high) = y_dtype.range();
        let steps: Vec<f64> = x.differences.iter().map(|x| x * ratio).collect();
        let params =
            |_: &mut Case| RequantizeParams { mantissa: m.mantissa, shift: m.shift.into(), clamp: [low, high] };
        check(Case::new(OpKind::Requantize), vec![x], params, &y, &steps, |_, steps| 0.5 + steps.abs() * STEP31);
    }
}

#[test]
fn add() {
    for seed in 0..400 {
        let d = &mut draws(seed);
        let [a_dtype, b_dtype, y_dtype] = [any_dtype(d), any_dtype(d), any_dtype(d)];
        let a = Input::random(d, a_dtype, &[3, 40]);
        let b = Input::random(d, b_dtype, &[40]);
        let y = output(d, y_dtype, &[3, 40]);
        let (ra, rb) = (log_uniform(d, 1e-3, 60.0), log_uniform(d, 1e-3, 60.0));
        // The larger factor just below 2^30.
        let shift = (30 - ra.max(rb).log2().ceil() as i32) as u32;
        let factor = |ratio: f64| (ratio * f64::from(shift).exp2()).round() as i32;
        let (low, high) = y_dtype.range();
        let pairs: Vec<(f64, f64)> = (0..120).map(|i| (a.differences[i], b.differences[i % 40])).collect();
        let steps: Vec<f64> = pairs.iter().map(|(a, b)| a * ra + b * rb).collect();
        let p = AddParams { a_factor: factor(ra), b_factor: factor(rb), shift, clamp: [low, high] };
        let unit = 0.5f64.powi(shift as i32 + 1);
        let bound = |i: usize, _| 0.5 + (pairs[i].0.abs() + pairs[i].1.abs()) * unit;
        check(Case::new(OpKind::Add), vec![a, b], |_| p, &y, &steps, bound);
    }
}

#[test]
fn mul() {
    for seed in 0..400 {
        let d = &mut draws(seed);
        let [a_dtype, b_dtype, y_dtype] = [dtype(d), dtype(d), dtype(d)];
        let a = Input::random(d, a_dtype, &[3, 40]);
        let b = Input::random(d, b_dtype, &[40]);
        let y = output(d, y_dtype, &[3, 40]);
        let ratio = log_uniform(d, 1e-7, 2.0);
        let m = Multiplier::from_f64(ratio).unwrap();
        let (low, high) = y_dtype.range();
        let steps: Vec<f64> = (0..120).map(|i| a.differences[i] * b.differences[i % 40] * ratio).collect();
        let p = MulParams { mantissa: m.mantissa, shift: m.shift.into(), clamp: [low, high] };
        check(Case::new(OpKind::Mul), vec![a, b], |_| p, &y, &steps, |_, steps| 0.5 + steps.abs() * STEP31);
    }
}

#[test]
fn div() {
    for seed in 0..400 {
        let d = &mut draws(seed);
        let [a_dtype, b_dtype, y_dtype] = [dtype(d), dtype(d), dtype(d)];
        let a = Input::random(d, a_dtype, &[3, 40]);
        let b = Input::random(d, b_dtype, &[40]);
        let y = output(d, y_dtype, &[3, 40]);
        let ratio = log_uniform(d, 1e-3, 1e5);
        let m = Multiplier::from_f64(ratio).unwrap();
        let (low, high) = y_dtype.range();
        let quotient = |i: usize| match (a.differences[i], b.differences[i % 40]) {
            (0.0, 0.0) => 0.0,
            (a, b) => a / b * ratio,
        };
        let steps: Vec<f64> = (0..120).map(quotient).collect();
        let p = DivParams { mantissa: m.mantissa, shift: m.shift.into(), clamp: [low, high] };
        check(Case::new(OpKind::Div), vec![a, b], |_| p, &y, &steps, |_, steps| 0.5 + steps.abs() * STEP31);
    }
}

#[test]
fn resize2d() {
    for seed in 0..200 {
        let d = &mut draws(seed);
        let dtype = dtype(d);
        let (inputs, outputs) = ([5u32, 4], [7u32, 9]);
        let x = Input::random(d, dtype, &[1, inputs[0], inputs[1], 3]);
        let y = Spec { zero_point: x.spec.zero_point, ..Spec::new(dtype, &[1, outputs[0], outputs[1], 3], 0) };
        // Two neighbours each, with real weights that sum to one.
        let mut share = || (d.noise() >> 11) as f64 / (1u64 << 53) as f64;
        let mut places = |axis: usize| -> Vec<(usize, f64)> {
            (0..outputs[axis]).map(|_| ((share() * f64::from(inputs[axis] - 1)) as usize, share())).collect()
        };
        let (rows, cols) = (places(0), places(1));
        let at = |h: usize, w: usize, c: usize| x.differences[(h * inputs[1] as usize + w) * 3 + c];
        let mut steps = Vec::new();
        for &(h, low) in &rows {
            for &(w, left) in &cols {
                for c in 0..3 {
                    let row = |h: usize| at(h, w, c) * (1.0 - left) + at(h, w + 1, c) * left;
                    steps.push(row(h) * (1.0 - low) + row(h + 1) * low);
                }
            }
        }
        let largest = x.differences.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        // Rounded weights of an axis are off by at most 2^-15 each; two axes of two taps.
        let bound = 0.5 + 4.0 * largest * 0.5f64.powi(15) * 1.01;
        let params = |case: &mut Case| {
            let one = f64::from(1u32 << Resize2dParams::WEIGHT_BITS);
            let mut lists = |places: &[(usize, f64)]| {
                let indices: Vec<u16> = places.iter().flat_map(|&(i, _)| [i as u16, i as u16 + 1]).collect();
                let weights: Vec<u16> = places
                    .iter()
                    .flat_map(|&(_, share)| {
                        let second = (share * one).round();
                        [(one - second) as u16, second as u16]
                    })
                    .collect();
                (case.halves(&indices), case.halves(&weights))
            };
            let ((rows, row_weights), (cols, col_weights)) = (lists(&rows), lists(&cols));
            let (low, high) = dtype.range();
            Resize2dParams { taps: [2, 2], rows, row_weights, cols, col_weights, clamp: [low, high] }
        };
        check(
            Case::new(OpKind::Resize2d),
            vec![Input { spec: x.spec, bytes: x.bytes.clone(), differences: vec![] }],
            params,
            &y,
            &steps,
            |_, _| bound,
        );
    }
}

#[test]
fn mat_mul() {
    for seed in 0..100 {
        let d = &mut draws(seed);
        let (m, k, n) = (5u32, 64u32, 19u32);
        let a = Input::random(d, DType::I8, &[m, k]);
        let b = Input::random(d, DType::I8, &[k, n]);
        let (dtype, most) = [(DType::I8, 1e-1), (DType::I16, 1e-1), (DType::I32, 1e3)][seed as usize % 3];
        let y = output(d, dtype, &[m, n]);
        let ratio = log_uniform(d, 1e-6, most);
        let scale = Multiplier::from_f64(ratio).unwrap();
        let product = |i: u32, j: u32| -> f64 {
            (0..k).map(|l| a.differences[(i * k + l) as usize] * b.differences[(l * n + j) as usize]).sum()
        };
        let steps: Vec<f64> = (0..m * n).map(|at| product(at / n, at % n) * ratio).collect();
        let p = MatMulParams {
            batch: [1, 1],
            m,
            k,
            n,
            a_strides: [0, 0, k, 1],
            b_strides: [0, 0, n, 1],
            y_strides: [0, 0, n, 1],
            mantissa: scale.mantissa,
            shift: scale.shift.into(),
            clamp: [dtype.range().0, dtype.range().1],
        };
        check(Case::new(OpKind::MatMul), vec![a, b], |_| p, &y, &steps, |_, steps| 0.5 + steps.abs() * STEP31);
    }
}

#[test]
fn avg_pool2d() {
    for seed in 0..200 {
        let d = &mut draws(seed);
        let (x_dtype, y_dtype) = (dtype(d), dtype(d));
        let (side, channels, kernel) = (7, 3, 1 + (d.noise() % 7) as u32);
        let out = side - kernel + 1;
        let x = Input::random(d, x_dtype, &[1, side, side, channels]);
        let y = output(d, y_dtype, &[1, out, out, channels]);
        let ratio = log_uniform(d, 1e-3, 100.0);
        let m = Multiplier::from_f64(ratio).unwrap();
        let mut steps = Vec::new();
        for at in 0..out * out * channels {
            let (oy, ox, c) = (at / (out * channels), at / channels % out, at % channels);
            let taps = (0..kernel * kernel).map(|tap| (oy + tap / kernel, ox + tap % kernel));
            let sum: f64 = taps.map(|(iy, ix)| x.differences[((iy * side + ix) * channels + c) as usize]).sum();
            steps.push(sum * ratio / f64::from(kernel * kernel));
        }
        let (low, high) = y_dtype.range();
        let p = AvgPool2dParams {
            kernel: [kernel; 2],
            strides: [1, 1],
            pads: [0; 4],
            count_include_pad: 0,
            mantissa: m.mantissa,
            shift: m.shift.into(),
            clamp: [low, high],
        };
        check(Case::new(OpKind::AvgPool2d), vec![x], |_| p, &y, &steps, |_, steps| 0.5 + steps.abs() * STEP31);
    }
}

/// Softmax of rows of `len` with this input scale; returns the worst error.
fn softmax_error(seed: u64, x_dtype: DType, len: u32, scale_x: f64, scale_y: f64) -> f64 {
    let d = &mut draws(seed);
    let x = Input::random(d, x_dtype, &[2, len]);
    let y = Spec::new(DType::I8, &[2, len], -128);
    let exponent = Multiplier::from_f64(scale_x * core::f64::consts::LOG2_E).unwrap();
    let inverse = Multiplier::from_f64(1.0 / scale_y).unwrap();
    let mut steps = Vec::new();
    for row in x.differences.chunks(len as usize) {
        let max = row.iter().copied().fold(f64::MIN, f64::max);
        let sum: f64 = row.iter().map(|x| ((x - max) * scale_x).exp()).sum();
        steps.extend(row.iter().map(|x| ((x - max) * scale_x).exp() / sum / scale_y));
    }
    let p = SoftmaxParams {
        mantissa: exponent.mantissa,
        shift: exponent.shift.into(),
        output_mantissa: inverse.mantissa,
        output_shift: inverse.shift.into(),
    };
    let bound = |_, steps: f64| 0.5 + steps.abs() / f64::from(1 << 22);
    check(Case::new(OpKind::Softmax), vec![x], |_| p, &y, &steps, bound)
}

#[test]
fn softmax() {
    for seed in 0..400 {
        let d = &mut draws(seed ^ 0xABCD);
        let x_dtype = any_dtype(d);
        let scale_x = match x_dtype {
            DType::I8 => log_uniform(d, 1e-3, 1.0),
            DType::I16 => log_uniform(d, 1e-5, 1e-2),
            DType::I32 => log_uniform(d, 1e-9, 1e-6),
        };
        let len = 1 + (d.noise() % 300) as u32;
        softmax_error(seed, x_dtype, len, scale_x, 1.0 / 256.0);
        softmax_error(seed, x_dtype, len, scale_x, log_uniform(d, 1e-4, 1e-1));
    }
    // Long rows neither overflow nor lose their small terms.
    softmax_error(1, DType::I8, 40_000, 0.01, 1e-6);
    softmax_error(2, DType::I16, 70_000, 1e-4, 1e-6);
}

#[test]
fn log_softmax() {
    for seed in 0..400 {
        let d = &mut draws(seed ^ 0x106);
        let (x_dtype, y_dtype) = (dtype(d), any_dtype(d));
        let scale_x = if x_dtype == DType::I8 { log_uniform(d, 1e-3, 1.0) } else { log_uniform(d, 1e-5, 1e-2) };
        let scale_y = match y_dtype {
            DType::I8 => log_uniform(d, 1e-2, 1.0),
            DType::I16 => log_uniform(d, 1e-3, 1e-2),
            DType::I32 => log_uniform(d, 1e-6, 1e-5),
        };
        let len = 1 + (d.noise() % 300) as u32;
        let (x, y) = (Input::random(d, x_dtype, &[2, len]), output(d, y_dtype, &[2, len]));
        let [exponent, step, log] =
            [scale_x * core::f64::consts::LOG2_E, scale_x / scale_y, core::f64::consts::LN_2 / scale_y]
                .map(|real| Multiplier::from_f64(real).unwrap());
        let (mut steps, mut below) = (Vec::new(), Vec::new());
        for row in x.differences.chunks(len as usize) {
            let max = row.iter().copied().fold(f64::MIN, f64::max);
            let sum: f64 = row.iter().map(|x| ((x - max) * scale_x).exp()).sum();
            below.extend(row.iter().map(|x| (max - x) * scale_x));
            steps.extend(row.iter().map(|x| ((x - max) * scale_x - sum.ln()) / scale_y));
        }
        let (low, high) = y_dtype.range();
        let p = LogSoftmaxParams {
            mantissa: exponent.mantissa,
            shift: exponent.shift.into(),
            step_mantissa: step.mantissa,
            step_shift: step.shift.into(),
            log_mantissa: log.mantissa,
            log_shift: log.shift.into(),
            clamp: [low, high],
        };
        let error = |i: usize| below[i] * 0.5f64.powi(30) + 0.5f64.powi(23) + f64::from(len) * 0.5f64.powi(40);
        let bound = |i: usize, _| 0.5 + 0.5f64.powi(16) + error(i) / scale_y;
        check(Case::new(OpKind::LogSoftmax), vec![x], |_| p, &y, &steps, bound);
    }
}

#[test]
fn mat_mul_softmax() {
    for seed in 0..400 {
        // Every other case has a mask, and a step of the scores as the compiler chooses it.
        let masked = seed % 2 == 1;
        let d = &mut draws(seed ^ 0x5EED);
        let (m, k, n) = (3u32, 1 + (d.noise() % 64) as u32, 1 + (d.noise() % 150) as u32);
        let (a, b) = (Input::random(d, DType::I8, &[m, k]), Input::random(d, DType::I8, &[n, k]));
        let y = Spec::new(DType::I8, &[m, n], -128);
        let (scale, scale_y) = (log_uniform(d, 1e-5, 1e-1), log_uniform(d, 1e-4, 1e-1));
        let mask_dtype = dtype(d);
        let mask = Input::random(d, mask_dtype, &[m, n]);
        let mask_scale = if mask_dtype == DType::I8 { log_uniform(d, 1e-2, 10.0) } else { log_uniform(d, 1e-5, 1e-2) };
        let largest = mask.differences.iter().fold(0.0f64, |largest, x| largest.max(x.abs())) * mask_scale;
        let bound = f64::from(k) * 255.0 * 255.0 * scale + largest;
        let step = if masked { bound.max(64.0) / f64::from(1 << 29) } else { scale };
        let exponent = Multiplier::from_f64(step * core::f64::consts::LOG2_E).unwrap();
        let inverse = Multiplier::from_f64(1.0 / scale_y).unwrap();
        let mut steps = Vec::new();
        for (i, row) in a.differences.chunks(k as usize).enumerate() {
            let product = |column: &[f64]| -> f64 { row.iter().zip(column).map(|(a, b)| a * b).sum() };
            let added = |j: usize| if masked { mask.differences[i * n as usize + j] * mask_scale } else { 0.0 };
            let columns = b.differences.chunks(k as usize).enumerate();
            let scores: Vec<f64> = columns.map(|(j, column)| product(column) * scale + added(j)).collect();
            let max = scores.iter().copied().fold(f64::MIN, f64::max);
            let sum: f64 = scores.iter().map(|score| (score - max).exp()).sum();
            steps.extend(scores.iter().map(|score| (score - max).exp() / sum / scale_y));
        }
        let p = MatMulSoftmaxParams {
            batch: [1, 1],
            m,
            k,
            n,
            a_strides: [0, 0, k, 1],
            b_strides: [0, 0, 1, k],
            y_strides: [0, 0, n],
            mantissa: exponent.mantissa,
            shift: exponent.shift.into(),
            output_mantissa: inverse.mantissa,
            output_shift: inverse.shift.into(),
        };
        let kind = if masked { OpKind::MatMulMaskSoftmax } else { OpKind::MatMulSoftmax };
        let mut case = Case::new(kind);
        case.work(&Spec::new(DType::I32, &[n], 0));
        if !masked {
            check(case, vec![a, b], |_| p, &y, &steps, |_, steps| 0.5 + steps.abs() / f64::from(1 << 22));
            continue;
        }
        // Factors of 30 bits, of which the mask's may be longer.
        let shift = 29 - (scale / step).log2().floor() as i32;
        let factor = |ratio: f64, shift: i32| (ratio * f64::from(shift).exp2()).round_ties_even() as i32;
        let mask_shift = ((mask_scale / step * f64::from(shift).exp2()).log2() - 30.0).ceil().max(0.0) as i32;
        let p = MatMulMaskSoftmaxParams {
            product: p,
            visible: u32::MAX,
            mask_strides: [0, 0, n, 1],
            sum_factor: factor(scale / step, shift),
            mask_factor: factor(mask_scale / step, shift - mask_shift),
            mask_shift: mask_shift as u32,
            factor_shift: shift as u32,
        };
        // Factors are off by a half each, scores by half a step besides.
        let off =
            (f64::from(k) * 255.0 * 255.0 + 65536.0 * f64::from(mask_shift).exp2()) * f64::from(-shift).exp2() * 0.5;
        let share = 2.0 * (off + 0.5) * step;
        let bound = |_: usize, steps: f64| 0.5 + steps.abs() * (0.5f64.powi(22) + share);
        check(case, vec![a, b, mask], |_| p, &y, &steps, bound);
    }
}

/// The bound in the documentation of `LayerNorm`, for `g = |gamma| / scale_y`.
fn layer_norm_bound(g: f64, count: f64, [gamma_shift, beta_shift]: [u32; 2], x_dtype: DType) -> f64 {
    let root = count.sqrt();
    let narrowed = match x_dtype {
        DType::I32 => {
            let bits = 31.0 - (count.log2().ceil() / 2.0).ceil();
            g * (count + 2.0 * root) * (-bits).exp2()
        }
        _ => 0.0,
    };
    narrowed
        + 0.5
        + g * (0.5f64.powi(23) + root * 0.5f64.powi(29))
        + root * 0.5f64.powi(gamma_shift as i32 + 1)
        + 0.5f64.powi(beta_shift as i32 + 1)
}

#[test]
fn layer_norm_and_rms_norm() {
    for seed in 0..800 {
        let about_mean = seed % 2 == 0;
        let d = &mut draws(seed / 2);
        let (x_dtype, y_dtype) = (any_dtype(d), any_dtype(d));
        let len = [1, 2, 3, 64, 127, 200, 1024][(d.noise() % 7) as usize];
        let x = Input::random(d, x_dtype, &[2, len]);
        let y = output(d, y_dtype, &[2, len]);
        let count = f64::from(len);
        let (largest, beta_shift) = match y_dtype {
            DType::I8 => (60.0, 16),
            DType::I16 => (15000.0, 16),
            DType::I32 => (1e7, 6),
        };
        let gamma: Vec<f64> = (0..len).map(|_| log_uniform(d, largest / 50.0, largest)).collect();
        let beta: Vec<f64> = (0..len).map(|_| log_uniform(d, 0.1, largest) - largest / 2.0).collect();
        let epsilon = [1, 40, 100_000][(d.noise() % 3) as usize];
        let gamma_shift = 30 - largest.log2().ceil() as u32;
        let mut steps = Vec::new();
        for row in x.differences.chunks(len as usize) {
            let mean = if about_mean { row.iter().sum::<f64>() / count } else { 0.0 };
            let squares: f64 = row.iter().map(|x| (x - mean).powi(2)).sum();
            let root = (count * squares + epsilon as f64).sqrt();
            steps.extend((0..len as usize).map(|c| count * (row[c] - mean) / root * gamma[c] + beta[c]));
        }
        let fixed = |values: &[f64], bits: u32| -> Vec<i32> {
            values.iter().map(|value| (value * f64::from(bits).exp2()).round_ties_even() as i32).collect()
        };
        let (low, high) = y_dtype.range();
        let params = |case: &mut Case| LayerNormParams {
            epsilon,
            gamma: case.words(&fixed(&gamma, gamma_shift)),
            gamma_shift,
            beta: case.words(&fixed(&beta, beta_shift)),
            beta_shift,
            clamp: [low, high],
        };
        let bound = |i: usize, _| layer_norm_bound(gamma[i % len as usize], count, [gamma_shift, beta_shift], x_dtype);
        let worst = match about_mean {
            true => check(Case::new(OpKind::LayerNorm), vec![x], params, &y, &steps, bound),
            false => {
                let params = |case: &mut Case| RmsNormParams(params(case));
                check(Case::new(OpKind::RmsNorm), vec![x], params, &y, &steps, bound)
            }
        };
        assert!(
            y_dtype == DType::I32 || worst < 0.51,
            "{worst} steps with {len} elements of {x_dtype:?} to {y_dtype:?}"
        );
    }
}
