//! What the tests of kernels share: plans of one operator, made from draws that proptest can shrink.
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod layouts;
pub(crate) mod numeric;
pub(crate) mod windows;

use equant_runtime::kernels::{filter_len, int4_len, pack_int4, patches_len, reference};
use equant_runtime::op::{ConstRef, FourBit, OpKind, Params, Weighted};
use equant_runtime::operator::OperatorSet;
use equant_runtime::plan::{AlignedBytes, Builder, CONST_TENSOR, DType, Plan, Target, TensorRecord};
use equant_runtime::{Error, Session};

/// Decisions of a generator: numbers from proptest, which shrink towards the first choice of each.
pub(crate) struct Draws {
    choices: std::vec::IntoIter<u32>,
    noise: u64,
}

impl Draws {
    pub(crate) fn new(seed: u64, choices: Vec<u32>) -> Self {
        Self { choices: choices.into_iter(), noise: seed }
    }

    /// A number between two, both included.
    pub(crate) fn range(&mut self, low: u32, high: u32) -> u32 {
        let choice = self.choices.next().unwrap_or(0);
        low + choice % (high - low + 1)
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.range(0, 1) == 1
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.range(0, from.len() as u32 - 1) as usize]
    }

    /// Noise that no shrinking touches (SplitMix64).
    pub(crate) fn noise(&mut self) -> u64 {
        self.noise = self.noise.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.noise;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Bytes of a tensor or table: mostly noise, sometimes one extreme throughout.
    pub(crate) fn bytes(&mut self, dtype: DType, elements: usize) -> Vec<u8> {
        let (low, high) = dtype.range();
        let kind = self.range(0, 7);
        let value = |draws: &mut Self| match kind {
            0 => low,
            1 => high,
            2 => [low, high][(draws.noise() & 1) as usize],
            // Neighbours of each other, as the elements of one row are.
            3 => (high / 3).saturating_add((draws.noise() % 64) as i32).min(high),
            _ => (i64::from(low) + (draws.noise() % (i64::from(high) - i64::from(low) + 1) as u64) as i64) as i32,
        };
        (0..elements).flat_map(|_| value(self).to_le_bytes()[..dtype.size()].to_vec()).collect()
    }

    pub(crate) fn dtype(&mut self) -> DType {
        self.pick(&[DType::I8, DType::I16, DType::I32])
    }

    /// A dtype of at most 16 bits.
    pub(crate) fn narrow_dtype(&mut self) -> DType {
        self.pick(&[DType::I8, DType::I16])
    }

    pub(crate) fn zero_point(&mut self, dtype: DType) -> i16 {
        let (low, high) = dtype.range();
        match self.range(0, 3) {
            _ if dtype == DType::I32 => 0,
            0 => 0,
            1 => low as i16,
            2 => high as i16,
            _ => (low + (self.noise() % (high - low + 1) as u64) as i32) as i16,
        }
    }

    /// A multiplier: around `2^-center` mostly, anything valid sometimes.
    pub(crate) fn multiplier(&mut self, center: i32) -> (i32, i32) {
        let mantissa = match self.range(0, 3) {
            0 => 1 << 30,
            1 => i32::MAX,
            _ => (1 << 30) + (self.noise() % (1 << 30)) as i32,
        };
        let shift = match self.range(0, 7) {
            0 => self.pick(&[-30, -29, 30, 31]),
            _ => center + (self.noise() % 7) as i32 - 3,
        };
        (mantissa, shift.clamp(-30, 31))
    }

    /// A clamp within a dtype: all of it, one value, or a part.
    pub(crate) fn clamp(&mut self, dtype: DType) -> [i32; 2] {
        let (low, high) = dtype.range();
        match self.range(0, 3) {
            0 | 1 => [low, high],
            2 => [high / 2, high / 2],
            _ => [low / 3, high / 2],
        }
    }
}

/// Shape, dtype and quantization of a tensor to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec {
    pub(crate) dtype: DType,
    pub(crate) rank: u8,
    pub(crate) dims: [u32; 4],
    pub(crate) scale: f32,
    pub(crate) zero_point: i16,
    /// Flags of the record besides those of its place.
    pub(crate) flags: u8,
}

impl Spec {
    pub(crate) fn new(dtype: DType, shape: &[u32], zero_point: i16) -> Self {
        let mut dims = [1; 4];
        dims[..shape.len()].copy_from_slice(shape);
        Self { dtype, rank: shape.len() as u8, dims, scale: 0.25, zero_point, flags: 0 }
    }

    pub(crate) fn elements(&self) -> usize {
        self.dims.iter().product::<u32>() as usize
    }

    fn record(&self, offset: u32, flags: u8) -> TensorRecord {
        let Self { dtype, rank, dims, scale, zero_point, .. } = *self;
        TensorRecord { dtype, rank, flags: flags | self.flags, dims, scale, zero_point, offset }
    }

    fn byte_len(&self) -> u32 {
        (self.elements() * self.dtype.size()) as u32
    }
}

/// A plan of one operator, and the arena it starts from.
pub(crate) struct Case {
    pub(crate) builder: Builder,
    pub(crate) kind: OpKind,
    pub(crate) contents: Vec<(u32, Vec<u8>)>,
    inputs: Vec<u16>,
    offsets: Vec<u32>,
    /// Output of the operator before the one tested.
    last: Option<u16>,
    /// Index, offset and length of the second output.
    work: Option<(u16, u32, u32)>,
    /// Where the output lies over an input.
    over: Option<u32>,
    end: u32,
}

impl Case {
    pub(crate) fn new(kind: OpKind) -> Self {
        let builder = Builder::new(Target::Portable);
        Self {
            builder,
            kind,
            contents: Vec::new(),
            inputs: Vec::new(),
            offsets: Vec::new(),
            last: None,
            work: None,
            over: None,
            end: 8,
        }
    }

    fn place(&mut self, spec: &Spec) -> u32 {
        let offset = self.end;
        // A gap, in which stray writes are noticed.
        self.end += spec.byte_len().next_multiple_of(4) + 8;
        offset
    }

    /// Adds an input with these bytes, in the arena.
    pub(crate) fn input(&mut self, spec: &Spec, bytes: Vec<u8>) {
        assert_eq!(bytes.len(), spec.byte_len() as usize);
        let offset = self.place(spec);
        self.inputs.push(self.builder.tensor(spec.record(offset, 0)).unwrap());
        self.offsets.push(offset);
        self.contents.push((offset, bytes));
    }

    /// Adds an input of noise, in the arena or among the constants.
    pub(crate) fn random_input(&mut self, spec: &Spec, draws: &mut Draws) {
        let bytes = draws.bytes(spec.dtype, spec.elements());
        if draws.range(0, 7) == 7 { self.constant_input(spec, &bytes) } else { self.input(spec, bytes) }
    }

    /// Adds an input with these bytes, among the constants.
    pub(crate) fn constant_input(&mut self, spec: &Spec, bytes: &[u8]) {
        let offset = self.builder.constant(bytes).unwrap().offset;
        self.inputs.push(self.builder.tensor(spec.record(offset, CONST_TENSOR)).unwrap());
        self.offsets.push(u32::MAX);
    }

    pub(crate) fn constant(&mut self, bytes: &[u8]) -> ConstRef {
        self.builder.constant(bytes).unwrap()
    }

    pub(crate) fn words(&mut self, words: &[i32]) -> ConstRef {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.constant(&bytes)
    }

    pub(crate) fn halves(&mut self, halves: &[u16]) -> ConstRef {
        let bytes: Vec<u8> = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
        self.constant(&bytes)
    }

    /// Adds weights of noise in rows of `len`, of the width that this kind of operator has. Nibbles without an element
    /// are noise too.
    pub(crate) fn weights(&mut self, draws: &mut Draws, rows: u32, len: u32) -> ConstRef {
        let four_bit = matches!(self.kind, OpKind::DepthwiseConv2dI4 | OpKind::ConvTranspose2dI4);
        let row = if four_bit { int4_len(len as usize, len as usize) } else { len as usize };
        let mut bytes = draws.bytes(DType::I8, rows as usize * row);
        if four_bit && draws.range(0, 7) == 7 {
            bytes.fill(0); // weights of -8
        }
        self.constant(&bytes)
    }

    /// Adds filters of noise, of the width that this kind of operator has: segments and elements in each, filled up with
    /// zeros.
    pub(crate) fn filters(&mut self, draws: &mut Draws, rows: u32, [segments, len]: [u32; 2]) -> ConstRef {
        let filter = filter_len(segments as usize, len as usize);
        let four_bit = matches!(self.kind, OpKind::Conv2dI4 | OpKind::FullyConnectedI4);
        // Now and then the extremes, with which sums are largest.
        let extreme = draws.range(0, 7) == 7;
        let mut weights = vec![0i8; rows as usize * filter];
        for row in weights.chunks_mut(filter) {
            for segment in row.chunks_mut(len.next_multiple_of(4) as usize).take(segments as usize) {
                for weight in &mut segment[..len as usize] {
                    let noise = if extreme { -128 } else { draws.noise() as i8 };
                    *weight = if four_bit { noise >> 4 } else { noise };
                }
            }
        }
        if !four_bit {
            return self.constant(&weights.iter().map(|&w| w as u8).collect::<Vec<_>>());
        }
        let mut packed = vec![0; int4_len(weights.len(), filter)];
        pack_int4(&weights, filter, &mut packed).unwrap();
        self.constant(&packed)
    }

    /// Adds the memory that an operator with such filters works in.
    pub(crate) fn patches(&mut self, [segments, len]: [u32; 2], pixels: u32) {
        let words = patches_len(filter_len(segments as usize, len as usize), pixels as usize);
        self.work(&Spec::new(DType::I32, &[words as u32], 0));
    }

    /// Adds an operator with weights of the width that its kind says.
    pub(crate) fn finish_weighted<P: Weighted + Copy>(self, params: &P, output: &Spec) -> Self {
        if self.kind == P::FOUR_BIT { self.finish(&FourBit(*params), output) } else { self.finish(params, output) }
    }

    /// Adds an input of noise that `output` may lie over: by one of the distances of `leads`, or a little more. Everything
    /// that is added later lies behind both.
    pub(crate) fn input_under(&mut self, draws: &mut Draws, x: &Spec, output: &Spec, leads: Option<[usize; 2]>) {
        let way = draws.range(0, 3);
        let Some(leads) = leads.filter(|_| way > 1) else { return self.random_input(x, draws) };
        let [before, behind] = leads.map(|lead| (lead as u32 + 4 * draws.range(0, 3)).next_multiple_of(4));
        let start = self.end;
        let (input, over) = if way == 2 { (start + before, start) } else { (start, start + behind) };
        self.end = input;
        self.input(x, draws.bytes(x.dtype, x.elements()));
        self.over = Some(over);
        self.end = self.end.max(over + output.byte_len().next_multiple_of(4) + 8);
    }

    /// Adds an operator that runs before the one tested, which reads none of its inputs; its output takes the place of
    /// input `i`.
    pub(crate) fn before<P: Params>(&mut self, params: &P, output: &Spec, i: usize) -> u32 {
        let offset = self.offsets[i];
        let y = self.builder.tensor(output.record(offset, 0)).unwrap();
        self.builder.op(params, &self.inputs, &[y], 1, None).unwrap();
        self.inputs.clear();
        self.last = Some(y);
        offset
    }

    /// Adds the operator, its output in a place of its own, or over its input ([`Self::input_under`]).
    pub(crate) fn finish<P: Params>(mut self, params: &P, output: &Spec) -> Self {
        let offset = self.over.unwrap_or_else(|| self.place(output));
        self.finish_at(params, output, offset)
    }

    /// Adds the operator, its output in the place of input `i` (if that lies in the arena).
    pub(crate) fn finish_in_place<P: Params>(self, params: &P, output: &Spec, i: usize) -> Self {
        match self.offsets[i] {
            u32::MAX => self.finish(params, output),
            offset => self.finish_at(params, output, offset),
        }
    }

    /// Adds memory that the operator may leave in any state, as its second output.
    pub(crate) fn work(&mut self, spec: &Spec) {
        let offset = self.place(spec);
        self.work = Some((self.builder.tensor(spec.record(offset, 0)).unwrap(), offset, spec.byte_len()));
    }

    pub(crate) fn finish_at<P: Params>(mut self, params: &P, output: &Spec, offset: u32) -> Self {
        assert_eq!(P::KIND, self.kind);
        let y = self.last.unwrap_or_else(|| self.builder.tensor(output.record(offset, 0)).unwrap());
        let outputs: Vec<u16> = [y].into_iter().chain(self.work.map(|(index, ..)| index)).collect();
        self.builder.op(params, &self.inputs, &outputs, 1, Some("op")).unwrap();
        self.builder.output(y);
        self.builder.memory(self.end, 0);
        self
    }

    pub(crate) fn image(&self) -> AlignedBytes {
        AlignedBytes::from(&self.builder.finish().unwrap()[..])
    }

    /// The arena at the start: a pattern, and the inputs.
    pub(crate) fn arena(&self, len: usize) -> AlignedBytes {
        let mut arena = AlignedBytes::zeroed(len);
        arena.fill(0xA5);
        for (offset, bytes) in &self.contents {
            arena[*offset as usize..][..bytes.len()].copy_from_slice(bytes);
        }
        arena
    }

    /// Runs the plan and returns the arena.
    pub(crate) fn run<O: OperatorSet>(&self) -> Result<AlignedBytes, Error> {
        let image = self.image();
        let plan = Plan::<O>::parse(&image)?;
        let mut arena = self.arena(plan.arena_len());
        Session::new(plan, &mut arena)?.run()?;
        self.forget_work(&mut arena);
        Ok(arena)
    }

    /// Overwrites the memory that the operator may leave in any state.
    fn forget_work(&self, arena: &mut [u8]) {
        if let Some((_, offset, len)) = self.work {
            arena[offset as usize..][..len as usize].fill(0);
        }
    }

    /// The elements of the output in an arena.
    pub(crate) fn output(&self, arena: &[u8]) -> Vec<i32> {
        let image = self.image();
        let y = Plan::<equant_runtime::operator::AllOperators>::parse(&image).unwrap().model_output(0).unwrap();
        let bytes = &arena[y.offset as usize..][..y.byte_len().unwrap() as usize];
        match y.dtype {
            DType::I8 => bytes.iter().map(|&byte| i32::from(byte as i8)).collect(),
            DType::I16 => bytes.chunks(2).map(|pair| i32::from(i16::from_le_bytes([pair[0], pair[1]]))).collect(),
            DType::I32 => {
                bytes.chunks(4).map(|word| i32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect()
            }
        }
    }

    /// The arena as the reference leaves it: everything as before but the output (and its work memory).
    pub(crate) fn expected(&self) -> AlignedBytes {
        let image = self.image();
        let plan: Plan<'_> = Plan::parse(&image).unwrap();
        let mut arena = self.arena(plan.arena_len());
        for op in plan.ops() {
            let y = plan.output(&op, 0).unwrap();
            let values = reference::run(&op, &plan, &arena);
            assert_eq!(values.len(), y.elements().unwrap() as usize);
            let size = y.dtype.size();
            for (slot, value) in arena[y.offset as usize..].chunks_mut(size).zip(values) {
                slot.copy_from_slice(&value.to_le_bytes()[..size]);
            }
        }
        self.forget_work(&mut arena);
        arena
    }
}

/// A valid case of an operator kind.
///
/// # Panics
///
/// For a kind that has no generator: every kind must have one.
pub(crate) fn case(kind: OpKind, draws: &mut Draws) -> Case {
    match kind {
        OpKind::Conv2d | OpKind::Conv2dI4 => windows::conv2d(draws, kind),
        OpKind::DepthwiseConv2d | OpKind::DepthwiseConv2dI4 => windows::depthwise_conv2d(draws, kind),
        OpKind::ConvTranspose2d | OpKind::ConvTranspose2dI4 => windows::conv_transpose2d(draws, kind),
        OpKind::AvgPool2d => windows::avg_pool2d(draws),
        OpKind::MaxPool2d => windows::max_pool2d(draws),
        OpKind::FullyConnected | OpKind::FullyConnectedI4 => numeric::fully_connected(draws, kind),
        OpKind::MatMul => numeric::mat_mul(draws),
        OpKind::Add => numeric::add(draws),
        OpKind::Mul => numeric::mul(draws),
        OpKind::Lut => numeric::lut(draws),
        OpKind::Softmax => numeric::softmax(draws),
        OpKind::LayerNorm => numeric::layer_norm(draws),
        OpKind::Requantize => numeric::requantize(draws),
        OpKind::MatMulSoftmax => numeric::mat_mul_softmax(draws),
        OpKind::LogSoftmax => numeric::log_softmax(draws),
        OpKind::RmsNorm => numeric::rms_norm(draws),
        OpKind::MatMulMaskSoftmax => numeric::mat_mul_mask_softmax(draws),
        OpKind::Transpose => layouts::transpose(draws),
        OpKind::Concat => layouts::concat(draws),
        OpKind::Repeat => numeric::repeat(draws),
        OpKind::State => layouts::state(draws),
        OpKind::Gather => layouts::gather(draws),
        OpKind::Pad => layouts::pad(draws),
        OpKind::Take => layouts::take(draws),
        OpKind::ArgMax => layouts::arg_max(draws),
        OpKind::Div => numeric::div(draws),
        OpKind::Resize2d => windows::resize2d(draws),
        other => panic!("{} has no conformance test", other.name()),
    }
}
