//! The format: what the builder writes, parsing reads; every refusal has its reason.

use equant_runtime::kernels::{
    Rows, band_height, conv2d_filter_len, filter_len, int4_len, leads, pack_fully_connected, pack_int4, patches_len,
};
use equant_runtime::op::{
    AddParams, Conv2dParams, FourBit, FullyConnectedParams, LutParams, MatMulMaskSoftmaxParams, MatMulSoftmaxParams,
    OpKind, Params, RequantizeParams, Words,
};
use equant_runtime::operator::{AllOperators, OperatorSet};
use equant_runtime::plan::{
    AlignedBytes, BuildError, Builder, CONST_TENSOR, DType, HEADER_LEN, LOGICAL_NCHW, OpRecord, Plan, RANGE_I4,
    RANGE_U4, Target, TensorRecord, arena_len, checksum, image_checksum,
};
use equant_runtime::{Error, Reason, Session};

/// A row of three i8.
fn tensor(offset: u32) -> TensorRecord {
    TensorRecord { dtype: DType::I8, rank: 4, flags: 0, dims: [1, 1, 1, 3], scale: 0.5, zero_point: 0, offset }
}

/// Doubles every element: 2^30 / 2^31 · 2^2.
const DOUBLE: RequantizeParams = RequantizeParams { mantissa: 1 << 30, shift: -2, clamp: [-128, 127] };

/// A plan with this input, output and parameters.
fn plan_of(x: TensorRecord, y: TensorRecord, params: RequantizeParams) -> AlignedBytes {
    let mut builder = Builder::new(Target::Portable);
    builder.constant(&[1, 2, 3, 4]).unwrap();
    let (x, y) = (builder.tensor(x).unwrap(), builder.tensor(y).unwrap());
    builder.op(&params, &[x], &[y], 3, Some("double")).unwrap();
    builder.input(0);
    builder.output(y);
    builder.memory(8, 16);
    AlignedBytes::from(&builder.finish().unwrap()[..])
}

fn doubling() -> AlignedBytes {
    plan_of(tensor(0), tensor(4), DOUBLE)
}

fn refusal(image: &[u8]) -> Error {
    Plan::<'_, AllOperators>::parse(image).unwrap_err()
}

/// The refusal of [`doubling`] with bytes put at `at`, its checksum made right.
fn refusal_with(at: usize, bytes: &[u8]) -> Error {
    let mut image = doubling();
    image[at..at + bytes.len()].copy_from_slice(bytes);
    let checksum = image_checksum(&image);
    image[12..16].copy_from_slice(&checksum.to_le_bytes());
    refusal(&image)
}

/// Offset of the operator records of [`doubling`].
fn ops_offset() -> usize {
    Plan::<'_, AllOperators>::parse(&doubling()).unwrap().header().ops_offset as usize
}

#[test]
fn a_built_plan_parses_and_runs() -> Result<(), Error> {
    let image = doubling();
    let plan: Plan<'_> = Plan::parse(&image)?;
    let op = plan.ops().next().unwrap();
    assert_eq!(plan.op_name(&op), Some("double"));
    assert_eq!((op.macs, op.input(0), op.output(0), op.input(1)), (3, Some(0), Some(1), None));
    assert_eq!((plan.arena_len(), arena_len(&image)), (32, 32));
    assert_eq!(plan.consts(), [1, 2, 3, 4]);
    let mut arena = AlignedBytes::zeroed(plan.arena_len());
    let mut session = Session::new(plan, &mut arena)?;
    session.input_mut(0)?.copy_from_slice(&[1, 100, 0xFF]);
    session.run()?;
    assert_eq!(session.output(0)?, [2, 127, 0xFE]);
    Ok(())
}

#[test]
fn checksum_is_crc32() {
    assert_eq!(checksum(b"123456789"), 0xCBF4_3926);
    assert_eq!(image_checksum(b"12345678"), checksum(b"12345678"));
    assert_eq!(image_checksum(b"123456789012????3456"), checksum(b"1234567890123456"));
}

#[test]
fn headers_are_checked() {
    let image = doubling();
    assert_eq!(refusal(&image[..HEADER_LEN - 1]).reason, Reason::Truncated);
    assert_eq!(refusal(&image[..image.len() - 1]).reason, Reason::Truncated);
    assert_eq!(refusal_with(0, b"ONNX").reason, Reason::NotAPlan);
    assert_eq!(refusal_with(4, &[1, 0]).reason, Reason::Version);
    assert_eq!(refusal_with(6, &[9, 9]).reason, Reason::Target);
    assert_eq!(refusal_with(8, &[63, 0, 0, 0]).reason, Reason::Truncated);
    assert_eq!(refusal_with(52, &[0xFF; 4]).reason, Reason::ArenaTooLarge);
    assert_eq!(refusal_with(52, &[0; 4]), Error::at(Reason::TensorBounds, 0));
    for at in [20, 62, image.len() - 1] {
        let mut image = doubling();
        image[at] ^= 1;
        assert_eq!(refusal(&image).reason, Reason::Checksum, "byte {at}");
    }
    let mut shifted = AlignedBytes::zeroed(image.len() + 4);
    shifted[4..].copy_from_slice(&image);
    assert_eq!(refusal(&shifted[4..]).reason, Reason::Alignment);
    assert_eq!(arena_len(&image[..60]), 0);
}

#[test]
fn sections_are_checked() {
    assert_eq!(refusal_with(36, &[8, 1, 0, 0]).reason, Reason::Alignment, "constants");
    assert_eq!(refusal_with(24, &[64, 0, 0, 0]).reason, Reason::Sections, "over the lists of inputs and outputs");
    assert_eq!(refusal_with(28, &[80, 0, 0, 0]).reason, Reason::Sections, "over the tensors and shapes");
    assert_eq!(refusal_with(40, &[0xFF, 0xFF, 0, 0]).reason, Reason::Truncated);
    assert_eq!(refusal_with(60, &[0, 0]), Error::at(Reason::Tensor, 0), "no shape at all");
    assert_eq!(refusal_with(60, &[0xFF, 0xFF]).reason, Reason::Truncated);
}

#[test]
fn tensors_are_checked() {
    let bad = |change: fn(&mut TensorRecord)| {
        let mut record = tensor(4);
        change(&mut record);
        refusal(&plan_of(tensor(0), record, DOUBLE))
    };
    let malformed = Error::at(Reason::Tensor, 1);
    assert_eq!(bad(|t| t.scale = 0.0), malformed);
    assert_eq!(bad(|t| t.scale = f32::NAN), malformed);
    assert_eq!(bad(|t| t.zero_point = 128), malformed);
    assert_eq!(bad(|t| t.dims[1] = 0), malformed);
    assert_eq!(bad(|t| t.dims = [u32::MAX; 4]), malformed);
    assert_eq!(bad(|t| t.rank = 3), malformed, "an axis beyond the rank");
    assert_eq!(bad(|t| t.rank = 5), malformed);
    assert_eq!(bad(|t| t.flags = 128), malformed);
    assert_eq!(bad(|t| (t.flags, t.rank, t.dims) = (LOGICAL_NCHW, 1, [3, 1, 1, 1])), malformed);
    assert_eq!(bad(|t| t.flags = RANGE_I4 | RANGE_U4), malformed);
    assert_eq!(bad(|t| (t.flags, t.zero_point) = (RANGE_U4, -1)), malformed);
    assert_eq!(bad(|t| (t.flags, t.zero_point) = (RANGE_I4, 8)), malformed);
    assert_eq!(bad(|t| (t.flags, t.dtype) = (RANGE_I4, DType::I16)), malformed);
    assert_eq!(bad(|t| t.offset = 8), Error::at(Reason::TensorBounds, 1));
    assert_eq!(bad(|t| t.offset = u32::MAX), Error::at(Reason::TensorBounds, 1));
    assert_eq!(bad(|t| t.offset = 1), Error::at(Reason::Alignment, 1));
    assert_eq!(refusal_with(64, &[9, 0]), Error::at(Reason::Tensor, 9), "an input that does not exist");
    // The records follow 64 bytes of header and the indices of one input and one output.
    assert_eq!(refusal_with(68, &[7]), Error::at(Reason::Tensor, 0), "a dtype that does not exist");
    assert_eq!(refusal_with(74, &[1, 0]), Error::at(Reason::Tensor, 0), "a shape that does not exist");
    let constant = TensorRecord { flags: CONST_TENSOR, ..tensor(0) };
    assert_eq!(refusal(&plan_of(constant, tensor(4), DOUBLE)).reason, Reason::Tensor, "a constant as model input");
}

#[test]
fn operators_are_checked() {
    let ops = ops_offset();
    let malformed = Error::at(Reason::Operator, 0);
    let words = ops + OpRecord::LEN + 4;
    assert_eq!(refusal_with(ops, &[99]), malformed, "kind");
    assert_eq!(refusal_with(ops + 1, &[2]), malformed, "a list of tensors that is too long");
    assert_eq!(refusal_with(ops + 3, &[1]), malformed, "too few words");
    assert_eq!(refusal_with(ops + 3, &[200]), malformed, "too many words");
    assert_eq!(refusal_with(words, &[100]), malformed, "name");
    assert_eq!(refusal_with(words + 2, &[0xFF; 5]), malformed, "a word of more than 32 bits");
    assert_eq!(refusal_with(words + 2, &[0]), malformed, "fewer bytes in the words than in the record");
    assert_eq!(refusal_with(ops + OpRecord::LEN, &[5, 0]), malformed, "tensor");
    assert_eq!(refusal_with(22, &[0, 0]), malformed, "records beyond the count");
    let with = |params| refusal(&plan_of(tensor(0), tensor(4), params));
    let range = Error::at(Reason::OperatorRange, 0);
    assert_eq!(with(RequantizeParams { shift: 32, ..DOUBLE }), range);
    assert_eq!(with(RequantizeParams { shift: 256, ..DOUBLE }), range);
    assert_eq!(with(RequantizeParams { mantissa: 1, ..DOUBLE }), range);
    assert_eq!(with(RequantizeParams { clamp: [1, 0], ..DOUBLE }), range);
    assert_eq!(with(RequantizeParams { clamp: [0, 128], ..DOUBLE }), range);
    let other = TensorRecord { dims: [1, 1, 1, 2], ..tensor(4) };
    assert_eq!(refusal(&plan_of(tensor(0), other, DOUBLE)), Error::at(Reason::OperatorShape, 0));
    let wide = TensorRecord { dtype: DType::I16, ..tensor(0) };
    assert_eq!(refusal(&plan_of(tensor(0), wide, DOUBLE)), Error::at(Reason::Overlap, 0));
}

#[test]
fn tensors_of_one_shape_share_it() {
    let image = doubling();
    let header = *Plan::<'_, AllOperators>::parse(&image).unwrap().header();
    assert_eq!((header.tensors, header.shapes), (2, 1));
    assert_eq!(header.ops_offset, header.tensors_offset + 2 * 16 + 16);
}

#[test]
fn words_are_as_long_as_they_need() {
    for (value, len) in [(0, 1), (-64, 1), (63, 1), (64, 2), (-8192, 2), (8192, 3), (1 << 30, 5), (i32::MIN, 5)] {
        let params = RequantizeParams { mantissa: value, shift: i32::MAX, clamp: [-1, 1] };
        let mut builder = Builder::new(Target::Portable);
        builder.op(&params, &[], &[], u64::MAX, None).unwrap();
        let image = AlignedBytes::from(&builder.finish().unwrap()[..]);
        let record = &image[HEADER_LEN..];
        // No name, the most multiply-accumulates, then the parameters.
        assert_eq!(record[..4], [OpKind::Requantize as u8, 0, 0, 1 + 5 + len + 5 + 2], "{value}");
        let words = Words::new(&record[4 + 6..][..usize::from(len) + 7]);
        assert_eq!(RequantizeParams::read(words), Some(params));
        assert_eq!(RequantizeParams::read(Words::new(&record[4 + 6..][..usize::from(len) + 6])), None);
        assert_eq!(RequantizeParams::read(Words::new(&record[4 + 6..][..usize::from(len) + 8])), None);
    }
    let mut words = Words::new(&[0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 0xFF, 0xFF, 0xFF, 0xFF, 0x10]);
    assert_eq!((words.next_word(), words.next_word()), (Some(u32::MAX), None));
}

#[test]
fn constants_are_checked() {
    let mut builder = Builder::new(Target::Portable);
    let table = builder.constant(&[0; 255]).unwrap();
    let (x, y) = (builder.tensor(tensor(0)).unwrap(), builder.tensor(tensor(4)).unwrap());
    builder.op(&LutParams { table }, &[x], &[y], 0, None).unwrap();
    builder.memory(8, 0);
    let image = AlignedBytes::from(&builder.finish().unwrap()[..]);
    assert_eq!(refusal(&image), Error::at(Reason::OperatorConstant, 0));
}

/// A product of a row of three with weights of 4 bits, as many bytes as given.
fn product(weights: &[u8]) -> AlignedBytes {
    product_with_work(weights, patches_len(filter_len(1, 3), 1) as u32)
}

/// As [`product`], with so many words to work in.
fn product_with_work(weights: &[u8], words: u32) -> AlignedBytes {
    let mut builder = Builder::new(Target::Portable);
    let x = TensorRecord { flags: RANGE_U4, ..tensor(0) };
    let work = TensorRecord { dtype: DType::I32, rank: 1, dims: [words, 1, 1, 1], ..tensor(16) };
    let (x, y) = (builder.tensor(x).unwrap(), builder.tensor(tensor(4)).unwrap());
    let work = builder.tensor(work).unwrap();
    let weights = builder.constant(weights).unwrap();
    let bias = builder.constant(&[0; 12]).unwrap();
    let one: Vec<u8> = [1i32 << 30; 3].iter().flat_map(|m| m.to_le_bytes()).collect();
    let (mantissas, shifts) = (builder.constant(&one).unwrap(), builder.constant(&[-1i8 as u8; 3]).unwrap());
    let params = FullyConnectedParams { weights, bias, mantissas, shifts, clamp: [-128, 127] };
    builder.op(&FourBit(params), &[x], &[y, work], 9, None).unwrap();
    builder.input(x);
    builder.output(y);
    builder.memory(16 + 4 * words, 0);
    AlignedBytes::from(&builder.finish().unwrap()[..])
}

#[test]
fn weights_of_four_bits_fill_whole_words() -> Result<(), Error> {
    let rows = [1, 2, 3, -8, 0, 7, -1, -1, -1];
    let mut filters = [0; 24];
    pack_fully_connected(&rows, [3, 3], &mut filters).unwrap();
    let mut packed = [0; 12];
    assert_eq!(int4_len(24, 8), packed.len());
    pack_int4(&filters, 8, &mut packed).unwrap();
    let image = product(&packed);
    let mut arena = AlignedBytes::zeroed(arena_len(&image));
    let mut session: Session<'_, '_> = Session::new(Plan::parse(&image)?, &mut arena)?;
    // Real values beyond the range of 4 bits saturate.
    session.quantize_input(0, &[1.0, -5.0, 100.0])?;
    assert_eq!(session.input_mut(0)?, [2, 0, 15]);
    session.run()?;
    assert_eq!(session.output(0)?.iter().map(|&byte| byte as i8).collect::<Vec<_>>(), [47, 89, -17]);
    // Two to a byte without filling words up, and too much.
    for len in [5, 6, 8, 16] {
        assert_eq!(refusal(&product(&vec![0; len])), Error::at(Reason::OperatorConstant, 0), "{len}");
    }
    // Too few words to work in, and too many.
    for words in [1, 7, 9] {
        assert_eq!(refusal(&product_with_work(&packed, words)), Error::at(Reason::OperatorShape, 0), "{words}");
    }
    let error = Plan::<'_, Eight>::parse(&image).unwrap_err();
    assert_eq!(error, Error::at(Reason::OperatorNotRegistered, 0));
    Ok(())
}

equant_runtime::operator_set! {
    /// Has weights of 8 bits only.
    struct Eight { FullyConnected }
}

equant_runtime::operator_set! {
    /// Lacks what [`doubling`] needs.
    struct Few { Add, Mul }
}

/// A masked product of one element with one, whose mask of this type has a factor so many bits longer.
fn masked(dtype: DType, mask_shift: u32) -> AlignedBytes {
    let mut builder = Builder::new(Target::Portable);
    let element = |dtype, offset| TensorRecord { dtype, rank: 1, dims: [1; 4], ..tensor(offset) };
    let records = [(DType::I8, 0), (DType::I8, 4), (dtype, 8), (DType::I8, 12), (DType::I32, 16)];
    let [a, b, mask, y, sums] = records.map(|(dtype, offset)| builder.tensor(element(dtype, offset)).unwrap());
    let product = MatMulSoftmaxParams {
        batch: [1; 2],
        m: 1,
        k: 1,
        n: 1,
        a_strides: [0; 4],
        b_strides: [0; 4],
        y_strides: [0; 3],
        mantissa: 1 << 30,
        shift: 0,
        output_mantissa: 1 << 30,
        output_shift: 0,
    };
    let params = MatMulMaskSoftmaxParams {
        product,
        visible: u32::MAX,
        mask_strides: [0; 4],
        sum_factor: 1 << 30,
        mask_factor: 1 << 30,
        mask_shift,
        factor_shift: 30,
    };
    builder.op(&params, &[a, b, mask], &[y, sums], 1, None).unwrap();
    builder.input(a);
    builder.output(y);
    builder.memory(20, 0);
    AlignedBytes::from(&builder.finish().unwrap()[..])
}

#[test]
fn factors_of_masks_are_as_long_as_sums_bear() {
    for (dtype, most) in [(DType::I8, 23), (DType::I16, 15), (DType::I32, 0)] {
        assert!(Plan::<'_, AllOperators>::parse(&masked(dtype, most)).is_ok(), "{dtype:?}");
        for shift in [most + 1, 64, u32::MAX] {
            assert_eq!(refusal(&masked(dtype, shift)), Error::at(Reason::OperatorRange, 0), "{dtype:?}, {shift}");
        }
    }
}

#[test]
fn unregistered_operators_are_refused() {
    let image = doubling();
    let error = Plan::<'_, Few>::parse(&image).unwrap_err();
    assert_eq!(error, Error::at(Reason::OperatorNotRegistered, 0));
    let plan: Plan<'_> = Plan::parse(&image).unwrap();
    let op = plan.ops().next().unwrap();
    assert_eq!(Few::run(&op, &plan, &mut []), Err(Reason::OperatorNotRegistered));
}

#[test]
fn sessions_check_their_memory() -> Result<(), Error> {
    let image = doubling();
    let plan: Plan<'_> = Plan::parse(&image)?;
    let mut arena = AlignedBytes::zeroed(plan.arena_len() + 16);
    let refused = |result: Result<Session<'_, '_>, Error>| result.unwrap_err().reason;
    let short = plan.arena_len() - 1;
    assert_eq!(refused(Session::new(plan, &mut arena[..short])), Reason::ArenaTooSmall);
    assert_eq!(refused(Session::new(plan, &mut arena[1..])), Reason::ArenaAlignment);
    let mut session = Session::new(plan, &mut arena)?;
    assert_eq!(session.input_mut(1).unwrap_err().reason, Reason::NoSuchTensor);
    assert_eq!(session.output(1).unwrap_err().reason, Reason::NoSuchTensor);
    assert_eq!(session.quantize_input(1, &[]).unwrap_err().reason, Reason::NoSuchTensor);
    assert_eq!(session.quantize_input(0, &[0.0; 2]).unwrap_err().reason, Reason::BufferMismatch);
    assert_eq!(session.dequantize_output(0, &mut [0.0; 4]).unwrap_err().reason, Reason::BufferMismatch);
    assert_eq!(session.dequantize_output(1, &mut []).unwrap_err().reason, Reason::NoSuchTensor);
    Ok(())
}

#[test]
fn sessions_quantize_and_dequantize() -> Result<(), Error> {
    // Integers are doubled, so real values are doubled too: both scales are 0.5.
    let image = doubling();
    let mut arena = AlignedBytes::zeroed(arena_len(&image));
    let mut session: Session<'_, '_> = Session::new(Plan::parse(&image)?, &mut arena)?;
    session.quantize_input(0, &[0.25, -1.5, 1e9])?;
    session.run()?;
    let mut y = [0.0; 3];
    session.dequantize_output(0, &mut y)?;
    assert_eq!(y, [0.0, -3.0, 63.5], "0.25 is half a step: rounded to even");

    let wide = |offset| TensorRecord { dtype: DType::I16, zero_point: 1000, ..tensor(offset) };
    let mut builder = Builder::new(Target::Portable);
    let (a, y_index) = (builder.tensor(wide(0)).unwrap(), builder.tensor(wide(8)).unwrap());
    let params = AddParams { a_factor: 1 << 30, b_factor: 1 << 30, shift: 30, clamp: [-32768, 32767] };
    builder.op(&params, &[a, a], &[y_index], 0, None).unwrap();
    builder.input(a);
    builder.output(y_index);
    builder.memory(16, 0);
    let image = AlignedBytes::from(&builder.finish().unwrap()[..]);
    let mut arena = AlignedBytes::zeroed(arena_len(&image));
    let mut session: Session<'_, '_> = Session::new(Plan::parse(&image)?, &mut arena)?;
    session.quantize_input(0, &[0.5, -700.0, 100.25])?;
    session.run()?;
    session.dequantize_output(0, &mut y)?;
    assert_eq!(y, [1.0, -1400.0, 200.0]);
    Ok(())
}

#[test]
fn builders_refuse_what_the_format_cannot_hold() {
    let mut builder = Builder::new(Target::Portable);
    assert_eq!(builder.op(&DOUBLE, &[0; 256], &[0], 0, None), Err(BuildError::TooManyOperands));
    let long = "x".repeat(65536);
    assert_eq!(builder.op(&DOUBLE, &[0], &[0], 0, Some(&long)), Err(BuildError::NameTooLong));
    for _ in 0..65535 {
        builder.tensor(tensor(0)).unwrap();
    }
    assert_eq!(builder.tensor(tensor(0)), Err(BuildError::TooManyRecords));
    (0..65536).for_each(|_| builder.input(0));
    assert_eq!(builder.finish(), Err(BuildError::TooManyRecords));
}

/// A convolution of three by three from the input at `x` to the output at `y`, both of 5 × 8 pixels of 4 channels.
fn convolution(x: u32, y: u32) -> AlignedBytes {
    let mut builder = Builder::new(Target::Portable);
    let filter = conv2d_filter_len([3, 3], 4, 1, 1);
    let [weights, bias] = [vec![3; 4 * filter], vec![0; 16]].map(|bytes: Vec<u8>| builder.constant(&bytes).unwrap());
    let mantissas = builder.constant(&[0, 0, 0, 0x40].repeat(4)).unwrap();
    let shifts = builder.constant(&[6; 4]).unwrap();
    let image = |offset| TensorRecord { dims: [1, 5, 8, 4], ..tensor(offset) };
    let words = patches_len(filter, 40) as u32;
    let work = TensorRecord { dtype: DType::I32, rank: 1, dims: [words, 1, 1, 1], ..tensor(480) };
    let [x, y, work] = [image(x), image(y), work].map(|record| builder.tensor(record).unwrap());
    let (two, clamp) = ([1, 1], [-128, 127]);
    let params = Conv2dParams {
        kernel: [3, 3],
        strides: two,
        dilations: two,
        pads: [1; 4],
        groups: 1,
        weights,
        bias,
        mantissas,
        shifts,
        clamp,
    };
    builder.op(&params, &[x], &[y, work], 1, None).unwrap();
    builder.input(x);
    builder.output(y);
    builder.memory(480 + 4 * words, 0);
    AlignedBytes::from(&builder.finish().unwrap()[..])
}

/// Runs a convolution of [`convolution`].
fn convolved(image: &AlignedBytes) -> Result<Vec<u8>, Error> {
    let mut arena = AlignedBytes::zeroed(arena_len(image));
    let mut session: Session<'_, '_> = Session::new(Plan::parse(image)?, &mut arena)?;
    for (i, x) in session.input_mut(0)?.iter_mut().enumerate() {
        *x = (i * 37 % 256) as u8;
    }
    session.run()?;
    Ok(session.output(0)?.to_vec())
}

#[test]
fn outputs_lie_over_inputs_at_the_distances_that_bands_bear() -> Result<(), Error> {
    let expected = convolved(&convolution(0, 160))?;
    assert!(expected.iter().any(|&byte| byte != expected[0]));
    // Bands of two rows read a row more on either side: three rows lie between them.
    let rows = Rows { input: 5, output: 5, kernel: 3, stride: 1, dilation: 1, before: 1 };
    assert_eq!(leads(rows, [32, 32], band_height([5, 8])), Some([96, 96]));
    for y in (0..=320).step_by(4) {
        let image = convolution(160, y);
        if y.abs_diff(160) >= 96 {
            assert_eq!(convolved(&image)?, expected, "{y}");
        } else {
            assert_eq!(refusal(&image), Error::at(Reason::Overlap, 0), "{y}");
        }
    }
    Ok(())
}
