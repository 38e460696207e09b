//! Layers of operators that the baseline does not have, for the table of costs and to compare bits: several sizes of each.

use std::collections::BTreeMap;

use equant_runtime::kernels::{filter_len, pack_conv_transpose2d, pack_fully_connected, patches_len};
use equant_runtime::op::{
    AddParams, ArgMaxParams, ConcatParams, ConstRef, ConvTranspose2dParams, DivParams, FullyConnectedParams,
    GatherParams, LayerNormParams, LogSoftmaxParams, LutParams, MatMulMaskSoftmaxParams, MatMulParams,
    MatMulSoftmaxParams, MaxPool2dParams, MulParams, PadParams, Params, RequantizeParams, Resize2dParams,
    RmsNormParams, StateParams, TakeParams, TransposeParams,
};
use equant_runtime::plan::{AlignedBytes, DType};
use equant_runtime::quant::Multiplier;

use crate::Error;
use crate::assembly::{Assembly, Channels, Tensor};
use crate::baseline::{Bits, Row};
use crate::data;

/// What the table of layers calls the model of these.
const MODEL: &str = "operators";

/// The range of bytes.
const CLAMP: [i32; 2] = [-128, 127];

/// The layers with their plans.
pub(crate) fn all() -> Result<Vec<(Row, AlignedBytes)>, Error> {
    let mut all = Layers(Vec::new());
    all.products()?;
    all.normalizations()?;
    all.elementwise()?;
    all.windows()?;
    all.moves()?;
    for bits in [Bits::Eight, Bits::Four] {
        all.weighted(bits)?;
    }
    Ok(all.0)
}

struct Layers(Vec<(Row, AlignedBytes)>);

/// An input or output: its type, sizes and zero point.
fn of(dtype: DType, dims: &[u32]) -> Tensor<'_> {
    Tensor { dtype, zero_point: if dtype == DType::I8 { -3 } else { 0 }, ..Tensor::bytes(dims, 0) }
}

fn multiplier(real: f64) -> Result<[i32; 2], Error> {
    let Multiplier { mantissa, shift } = Multiplier::from_f64(real).ok_or("a multiplier out of range")?;
    Ok([mantissa, shift.into()])
}

const fn name(dtype: DType) -> &'static str {
    match dtype {
        DType::I8 => "i8",
        DType::I16 => "i16",
        DType::I32 => "i32",
    }
}

/// All values of a type.
fn whole(dtype: DType) -> [i32; 2] {
    let (low, high) = dtype.range();
    [low, high]
}

fn le(numbers: impl IntoIterator<Item = i32>) -> Vec<u8> {
    numbers.into_iter().flat_map(i32::to_le_bytes).collect()
}

fn le16(numbers: impl IntoIterator<Item = u16>) -> Vec<u8> {
    numbers.into_iter().flat_map(u16::to_le_bytes).collect()
}

impl Layers {
    fn push(&mut self, bits: Bits, text: String, macs: u64, plan: Result<AlignedBytes, Error>) -> Result<(), Error> {
        let plan = plan.map_err(|error| format!("{text}: no plan: {error}"))?;
        let row = Row {
            bits,
            model: MODEL.into(),
            text,
            layer: None,
            repeat: 1,
            macs,
            digest: 0,
            instructions: BTreeMap::new(),
        };
        self.0.push((row, plan));
        Ok(())
    }

    /// An operator with inputs and one output.
    fn add<P: Params>(
        &mut self,
        text: String,
        inputs: &[Tensor<'_>],
        params: &P,
        output: Tensor<'_>,
    ) -> Result<(), Error> {
        let work = u64::from(output.dims.iter().product::<u32>());
        let mut plan = Assembly::new();
        inputs.iter().try_for_each(|&input| plan.input(input))?;
        self.push(Bits::Eight, text, work, plan.finish(params, output, 0, work))
    }

    /// Products of activations: keys beside queries, or values as they lie, one head or several.
    fn products(&mut self) -> Result<(), Error> {
        let sizes = [
            [1, 8, 16, 8],
            [4, 49, 16, 49],
            [2, 32, 64, 20],
            [4, 1, 32, 60],
            [1, 20, 100, 70],
            [3, 17, 49, 16],
            [1, 5, 8, 120],
            [2, 12, 33, 31],
            [8, 10, 24, 10],
            [1, 60, 12, 64],
        ];
        for ([heads, m, k, n], along) in sizes.into_iter().flat_map(|size| [(size, true), (size, false)]) {
            let macs = u64::from(heads * m * k * n);
            let name = |kind: &str| format!("{kind}_{heads}x{m}x{k}x{n}{}", if along { "_t" } else { "" });
            // Rows of `a` are of all heads; so are those of `b`, which has a row for each column, or each depth.
            let a_dims = [m, heads, k];
            let b_dims = if along { [n, heads, k] } else { [k, heads, n] };
            let inputs = [of(DType::I8, &a_dims), of(DType::I8, &b_dims)];
            let a_strides = [0, k, heads * k, 1];
            let b_strides = if along { [0, k, 1, heads * k] } else { [0, n, heads * n, 1] };
            let [mantissa, shift] = multiplier(0.25 / f64::from(k * 64))?;
            let y_strides = [0, n, heads * n, 1];
            let batch = [1, heads];
            let params =
                MatMulParams { batch, m, k, n, a_strides, b_strides, y_strides, mantissa, shift, clamp: CLAMP };
            self.add(name("matmul"), &inputs, &params, of(DType::I8, &[m, heads, n]))?;
            if !along {
                continue;
            }
            let [mantissa, shift] = multiplier(1.0 / f64::from(k * 512))?;
            let [output_mantissa, output_shift] = multiplier(256.0)?;
            let y_strides = [0, m * n, n];
            let product = MatMulSoftmaxParams {
                batch,
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
            let y_dims = [heads, m, n];
            let y = Tensor { zero_point: -128, ..of(DType::I8, &y_dims) };
            let sums = n as usize;
            let mut plan = Assembly::new();
            inputs.iter().try_for_each(|&input| plan.input(input))?;
            self.push(Bits::Eight, name("attention"), macs, plan.finish(&product, y, sums, macs))?;
            for (mask, visible) in [(false, 1), (true, u32::MAX)] {
                let params = MatMulMaskSoftmaxParams {
                    product,
                    visible,
                    mask_strides: if mask { [0, 0, n, 1] } else { [0; 4] },
                    sum_factor: 1 << 29,
                    mask_factor: 1 << 29,
                    mask_shift: if mask { 4 } else { 0 },
                    factor_shift: 29,
                };
                let mut plan = Assembly::new();
                inputs.iter().try_for_each(|&input| plan.input(input))?;
                if mask {
                    plan.input(of(DType::I8, &[m, n]))?;
                }
                let text = name(if mask { "attention_masked" } else { "attention_causal" });
                self.push(Bits::Eight, text, macs, plan.finish(&params, y, sums, macs))?;
            }
        }
        Ok(())
    }

    fn normalizations(&mut self) -> Result<(), Error> {
        for [rows, len] in [[1, 32], [49, 64], [8, 200], [20, 16], [2, 512]] {
            for (dtype, mean) in [(DType::I8, true), (DType::I32, true), (DType::I32, false), (DType::I16, true)] {
                let dims = [rows, len];
                let mut plan = Assembly::new();
                plan.input(Tensor { zero_point: 0, ..of(dtype, &dims) })?;
                let gamma = plan.constant(&le((0..len as i32).map(|i| (1 << 20) + (i << 12))))?;
                let beta = plan.constant(&le((0..len as i32).map(|i| (i % 9 - 4) << 10)))?;
                let params =
                    LayerNormParams { epsilon: 1 << 20, gamma, gamma_shift: 16, beta, beta_shift: 10, clamp: CLAMP };
                let (y, work) = (of(DType::I8, &dims), u64::from(rows * len));
                let plan = if mean {
                    plan.finish(&params, y, 0, work)
                } else {
                    plan.finish(&RmsNormParams(params), y, 0, work)
                };
                let text = format!("{}_{rows}x{len}_{}", if mean { "layernorm" } else { "rmsnorm" }, name(dtype));
                self.push(Bits::Eight, text, work, plan)?;
            }
        }
        for [rows, len] in [[1, 10], [1, 300], [20, 16], [7, 64], [3, 33], [50, 5], [2, 130]] {
            let ([mantissa, shift], [step_mantissa, step_shift]) = (multiplier(1.44 / 16.0)?, multiplier(0.5)?);
            let [log_mantissa, log_shift] = multiplier(5.5)?;
            let params =
                LogSoftmaxParams { mantissa, shift, step_mantissa, step_shift, log_mantissa, log_shift, clamp: CLAMP };
            let dims = [rows, len];
            let [x, y] = [of(DType::I8, &dims), Tensor { zero_point: 127, ..of(DType::I8, &dims) }];
            self.add(format!("logsoftmax_{rows}x{len}"), &[x], &params, y)?;
        }
        Ok(())
    }

    fn elementwise(&mut self) -> Result<(), Error> {
        use DType::{I8, I16, I32};
        for len in [40, 700, 3136] {
            let dims = [len];
            let tensor = |dtype| of(dtype, &dims);
            let (a_factor, b_factor, shift) = (1 << 30, 3 << 28, 31);
            for (a, b, y) in [(I32, I32, I32), (I8, I32, I32), (I16, I8, I8), (I32, I8, I8)] {
                let params = AddParams { a_factor, b_factor, shift, clamp: whole(y) };
                let text = format!("add_{len}_{}_{}_{}", name(a), name(b), name(y));
                self.add(text, &[tensor(a), tensor(b)], &params, tensor(y))?;
            }
            for b_len in [len, len / 4] {
                let inputs = [tensor(I8), of(I8, std::slice::from_ref(&b_len))];
                let [mantissa, shift] = multiplier(0.004)?;
                let params = MulParams { mantissa, shift, clamp: CLAMP };
                self.add(format!("mul_{len}_by_{b_len}"), &inputs, &params, tensor(I8))?;
                let [mantissa, shift] = multiplier(40.0)?;
                let params = DivParams { mantissa, shift, clamp: CLAMP };
                self.add(format!("div_{len}_by_{b_len}"), &inputs, &params, tensor(I8))?;
            }
            for (x, y, real) in [(I8, I8, 0.7), (I32, I8, 3e-8), (I8, I32, 70_000.0), (I16, I8, 0.003), (I8, I8, 0.1)] {
                let [mantissa, shift] = multiplier(real)?;
                let params = RequantizeParams { mantissa, shift, clamp: whole(y) };
                let text = format!("requantize_{len}_{}_{}_{real}", name(x), name(y));
                self.add(text, &[tensor(x)], &params, tensor(y))?;
            }
            for y in [I8, I16, I32] {
                let mut plan = Assembly::new();
                plan.input(tensor(I8))?;
                let table: Vec<u8> = (0..256 * y.size()).map(|i| ((i * 37) >> 3) as u8).collect();
                let params = LutParams { table: plan.constant(&table)? };
                let work = u64::from(len);
                let plan = plan.finish(&params, tensor(y), 0, work);
                self.push(Bits::Eight, format!("lut_{len}_{}", name(y)), work, plan)?;
            }
        }
        Ok(())
    }

    fn windows(&mut self) -> Result<(), Error> {
        for ([size, kernel, stride], channels) in [
            ([8, 2, 2], 16),
            ([16, 2, 2], 70),
            ([12, 3, 1], 8),
            ([9, 3, 2], 64),
            ([7, 7, 7], 32),
            ([10, 2, 2], 3),
            ([6, 3, 1], 130),
            ([20, 4, 4], 24),
        ] {
            let output = (size - kernel) / stride + 1;
            let params = MaxPool2dParams {
                kernel: [kernel; 2],
                strides: [stride; 2],
                dilations: [1, 1],
                pads: [0; 4],
                clamp: CLAMP,
            };
            let [x, y] = [[1, size, size, channels], [1, output, output, channels]];
            self.add(
                format!("maxpool{kernel}x{kernel}_{channels}_{size}x{size}_s{stride}"),
                &[of(DType::I8, &x)],
                &params,
                of(DType::I8, &y),
            )?;
        }
        for ([size, output, taps], channels) in [
            ([6, 12, 2], 16),
            ([5, 15, 2], 70),
            ([8, 12, 4], 8),
            ([14, 7, 2], 33),
            ([7, 14, 1], 64),
            ([4, 9, 2], 3),
            ([6, 6, 3], 100),
            ([3, 20, 1], 5),
        ] {
            let mut plan = Assembly::new();
            plan.input(of(DType::I8, &[1, size, size, channels]))?;
            let first = |o: u32| (o * size / output).min(size - taps);
            let indices =
                plan.constant(&le16((0..output).flat_map(|o| (0..taps).map(move |tap| (first(o) + tap) as u16))))?;
            let weight = (1u32 << Resize2dParams::WEIGHT_BITS) / taps;
            let weights = plan.constant(&le16((0..output * taps).map(|_| weight as u16)))?;
            let params = Resize2dParams {
                taps: [taps; 2],
                rows: indices,
                row_weights: weights,
                cols: indices,
                col_weights: weights,
                clamp: CLAMP,
            };
            let work = u64::from(output * output * channels);
            let plan = plan.finish(&params, of(DType::I8, &[1, output, output, channels]), 0, work);
            self.push(Bits::Eight, format!("resize{taps}_{channels}_{size}_{output}"), work, plan)?;
        }
        for [outer, axis, inner] in [
            [1, 10, 1],
            [4, 60, 1],
            [1, 21, 100],
            [3, 9, 64],
            [1, 300, 1],
            [30, 4, 1],
            [2, 30, 7],
            [5, 5, 33],
            [1, 8, 200],
            [40, 12, 2],
        ] {
            let params = ArgMaxParams { least: 0, select_last: 0 };
            self.add(
                format!("argmax_{outer}x{axis}x{inner}"),
                &[of(DType::I8, &[outer, axis, inner])],
                &params,
                of(DType::I32, &[outer, inner]),
            )?;
        }
        Ok(())
    }

    fn moves(&mut self) -> Result<(), Error> {
        for [rows, len] in [[1, 64], [20, 8], [49, 64], [100, 3], [6, 200], [31, 17], [250, 1]] {
            let (one, two) = ([rows, len], [rows, 2 * len]);
            let concat = ConcatParams { axis: 1 };
            self.add(format!("concat_{rows}x{len}"), &[of(DType::I8, &one); 2], &concat, of(DType::I8, &two))?;
            self.add(
                format!("state_{rows}x{len}"),
                &[of(DType::I8, &one)],
                &StateParams { initial: 0 },
                of(DType::I8, &one),
            )?;
            let pad = PadParams { before: [0, 0, 1, 0], after: [0, 0, 1, 2], value: -3 };
            self.add(format!("pad_{rows}x{len}"), &[of(DType::I8, &one)], &pad, of(DType::I8, &[rows + 2, len + 2]))?;
            let mut plan = Assembly::new();
            plan.input(of(DType::I8, &one))?;
            plan.constant_input(DType::I32, &[rows], &le((0..rows as i32).rev()))?;
            let work = u64::from(rows * len);
            let gather = plan.finish(&GatherParams { axis: 0 }, of(DType::I8, &one), 0, work);
            self.push(Bits::Eight, format!("gather_{rows}x{len}"), work, gather)?;
            for single in [false, true] {
                let mut plan = Assembly::new();
                plan.input(of(DType::I8, &one))?;
                let reversed = |size: u32| le16((0..size as u16).rev());
                let list = plan.constant(&reversed(if single { len } else { rows }))?;
                let mut indices = [ConstRef::default(); 4];
                indices[if single { 3 } else { 2 }] = list;
                let take = plan.finish(&TakeParams { indices }, of(DType::I8, &one), 0, work);
                self.push(Bits::Eight, format!("take{}_{rows}x{len}", if single { "1" } else { "" }), work, take)?;
            }
        }
        for (dims, perm) in [
            ([1, 49, 4, 16], [0, 2, 1, 3]),
            ([1, 49, 4, 16], [0, 2, 3, 1]),
            ([1, 1, 40, 9], [0, 1, 3, 2]),
            ([2, 30, 7, 5], [1, 0, 2, 3]),
            ([1, 3, 20, 33], [0, 2, 3, 1]),
            ([1, 12, 12, 64], [0, 2, 1, 3]),
            ([1, 40, 25, 2], [0, 2, 1, 3]),
            ([4, 6, 5, 11], [3, 2, 1, 0]),
            ([1, 1, 8, 100], [0, 1, 3, 2]),
        ] {
            for dtype in [DType::I8, DType::I32] {
                let y = perm.map(|axis: u32| dims[axis as usize]);
                let text = format!(
                    "transpose_{}_{}_{}",
                    dims.map(|d| d.to_string()).join("x"),
                    perm.map(|d| d.to_string()).join(""),
                    name(dtype)
                );
                self.add(text, &[of(dtype, &dims)], &TransposeParams { perm }, of(dtype, &y))?;
            }
        }
        Ok(())
    }

    /// Operators with weights that the baseline has not, or with other outputs than there.
    fn weighted(&mut self, bits: Bits) -> Result<(), Error> {
        for ([rows, inputs, outputs], dtype) in [
            ([49, 64, 64], DType::I32),
            ([1, 64, 10], DType::I16),
            ([8, 256, 64], DType::I32),
            ([1, 200, 100], DType::I32),
            ([16, 30, 8], DType::I16),
            ([3, 128, 33], DType::I16),
            ([1, 20, 300], DType::I16),
            ([21, 90, 12], DType::I32),
            ([6, 16, 70], DType::I16),
            ([4, 500, 5], DType::I32),
        ] {
            let [k, o] = [inputs, outputs].map(|n| n as usize);
            let stored = data::weights(bits, k * o);
            let filter = filter_len(1, k);
            let mut packed = vec![0; o * filter];
            pack_fully_connected(&stored, [o, k], &mut packed).map_err(|reason| format!("weights: {reason}"))?;
            let mut plan = Assembly::new();
            plan.input(of(DType::I8, &[rows, inputs]))?;
            let weights = plan.weights(bits, &packed, filter)?;
            let sums: Vec<i32> = stored.chunks(k).map(|row| row.iter().map(|&w| i32::from(w)).sum()).collect();
            let channels = plan.channels(&data::channels(bits, o, inputs), &sums, -3)?;
            let Channels { bias, mantissas, shifts } = channels;
            let params = FullyConnectedParams { weights, bias, mantissas, shifts, clamp: whole(dtype) };
            let (work, macs) = (patches_len(filter, rows as usize), u64::from(rows * inputs * outputs));
            let y_dims = [rows, outputs];
            let y = of(dtype, &y_dims);
            self.push(
                bits,
                format!("fc_{rows}x{inputs}-{outputs}_{}", name(dtype)),
                macs,
                plan.finish_weighted(bits, &params, y, work, macs),
            )?;
        }
        for ([size, kernel, stride], [inputs, outputs]) in [
            ([8, 2, 2], [16, 16]),
            ([6, 3, 2], [8, 32]),
            ([10, 4, 2], [12, 6]),
            ([5, 3, 1], [32, 16]),
            ([12, 2, 2], [64, 8]),
            ([7, 5, 3], [20, 24]),
            ([16, 2, 2], [8, 8]),
            ([4, 4, 4], [100, 12]),
            ([9, 3, 2], [40, 3]),
        ] {
            let [o, c, side] = [outputs, inputs, kernel].map(|n| n as usize);
            let stored = data::weights(bits, o * c * side * side);
            let mut packed = vec![0; stored.len()];
            pack_conv_transpose2d(&stored, [o, c, side, side], [stride as usize; 2], [1, 1], &mut packed)
                .map_err(|reason| format!("weights: {reason}"))?;
            let mut plan = Assembly::new();
            plan.input(of(DType::I8, &[1, size, size, inputs]))?;
            let weights = plan.weights(bits, &packed, c * side * side)?;
            let channels = plan.channels(&data::channels(bits, o, kernel * kernel * inputs), &vec![0; o], 0)?;
            let Channels { bias, mantissas, shifts } = channels;
            let params = ConvTranspose2dParams {
                kernel: [kernel; 2],
                strides: [stride; 2],
                dilations: [1, 1],
                pads: [0; 2],
                groups: 1,
                weights,
                bias,
                mantissas,
                shifts,
                clamp: CLAMP,
            };
            let output = (size - 1) * stride + kernel;
            let macs = u64::from(size * size * inputs * kernel * kernel * outputs);
            let y_dims = [1, output, output, outputs];
            let y = of(DType::I8, &y_dims);
            let text = format!("convt{kernel}x{kernel}_{inputs}-{outputs}_{size}x{size}_s{stride}");
            self.push(bits, text, macs, plan.finish_weighted(bits, &params, y, 0, macs))?;
        }
        Ok(())
    }
}
