//! The operators of a plan and the parameters each carries in its record.
//!
//! A record's parameters are 32-bit words of variable length ([`Words`]). Each parameter struct writes itself
//! ([`Field::write`], used offline) and reads itself back ([`Params::read`]), so the two can never drift apart.
//! Tensors are named by the record's input and output lists; their shapes, dtypes, scales and
//! zero points are in the tensor records. Activations are `[N, H, W, C]` for the spatial operators.

mod words;

pub use words::{Field, Words};

/// A range of bytes in the plan's constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConstRef {
    /// First byte, counted from the start of the constants section; a multiple of 4.
    pub offset: u32,
    /// Length in bytes; 0 when the constant is absent.
    pub len: u32,
}

/// What an operator does. The number is part of the plan format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
#[non_exhaustive]
pub enum OpKind {
    /// 2-D convolution, per output channel requantization ([`Conv2dParams`]).
    Conv2d = 1,
    /// Depthwise 2-D convolution ([`DepthwiseConv2dParams`]).
    DepthwiseConv2d = 2,
    /// Matrix product with constant weights ([`FullyConnectedParams`]).
    FullyConnected = 3,
    /// Batched, strided product of two activations ([`MatMulParams`]).
    MatMul = 4,
    /// Element-wise addition ([`AddParams`]).
    Add = 5,
    /// Element-wise multiplication ([`MulParams`]).
    Mul = 6,
    /// Any unary function of an i8 tensor, as a table ([`LutParams`]).
    Lut = 7,
    /// Softmax over the last axis ([`SoftmaxParams`]).
    Softmax = 8,
    /// Layer normalization over the last axis ([`LayerNormParams`]).
    LayerNorm = 9,
    /// Average pooling, also global ([`AvgPool2dParams`]).
    AvgPool2d = 10,
    /// Maximum pooling ([`MaxPool2dParams`]).
    MaxPool2d = 11,
    /// Permutation of axes ([`TransposeParams`]).
    Transpose = 12,
    /// Concatenation along one axis ([`ConcatParams`]).
    Concat = 13,
    /// Constant padding ([`PadParams`]).
    Pad = 14,
    /// Change of scale, zero point or dtype, with an optional clamp ([`RequantizeParams`]).
    Requantize = 15,
    /// 2-D convolution with weights of 4 bits ([`FourBit`] [`Conv2dParams`]).
    Conv2dI4 = 16,
    /// Depthwise 2-D convolution with weights of 4 bits ([`FourBit`] [`DepthwiseConv2dParams`]).
    DepthwiseConv2dI4 = 17,
    /// Matrix product with constant weights of 4 bits ([`FourBit`] [`FullyConnectedParams`]).
    FullyConnectedI4 = 18,
    /// Softmax over the rows of a product of two activations ([`MatMulSoftmaxParams`]).
    MatMulSoftmax = 19,
    /// Transposed 2-D convolution ([`ConvTranspose2dParams`]).
    ConvTranspose2d = 20,
    /// Transposed 2-D convolution with weights of 4 bits ([`FourBit`] [`ConvTranspose2dParams`]).
    ConvTranspose2dI4 = 21,
    /// Elements at constant indices along each axis ([`TakeParams`]).
    Take = 22,
    /// Element-wise division ([`DivParams`]).
    Div = 23,
    /// Interpolation between rows and columns of an image ([`Resize2dParams`]).
    Resize2d = 24,
    /// Index of the largest or smallest element along an axis ([`ArgMaxParams`]).
    ArgMax = 25,
    /// Root mean square normalization over the last axis ([`RmsNormParams`]).
    RmsNorm = 26,
    /// Softmax over the rows of a masked product of two activations ([`MatMulMaskSoftmaxParams`]).
    MatMulMaskSoftmax = 27,
    /// Logarithm of the softmax over the last axis ([`LogSoftmaxParams`]).
    LogSoftmax = 28,
    /// Slices of a tensor, chosen by integers ([`GatherParams`]).
    Gather = 29,
    /// Carries an output over to the next run ([`StateParams`]).
    State = 30,
    /// Runs the operators before it again ([`RepeatParams`]).
    Repeat = 31,
}

impl OpKind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [OpKind; 31] = [
        OpKind::Conv2d,
        OpKind::DepthwiseConv2d,
        OpKind::FullyConnected,
        OpKind::MatMul,
        OpKind::Add,
        OpKind::Mul,
        OpKind::Lut,
        OpKind::Softmax,
        OpKind::LayerNorm,
        OpKind::AvgPool2d,
        OpKind::MaxPool2d,
        OpKind::Transpose,
        OpKind::Concat,
        OpKind::Pad,
        OpKind::Requantize,
        OpKind::Conv2dI4,
        OpKind::DepthwiseConv2dI4,
        OpKind::FullyConnectedI4,
        OpKind::MatMulSoftmax,
        OpKind::ConvTranspose2d,
        OpKind::ConvTranspose2dI4,
        OpKind::Take,
        OpKind::Div,
        OpKind::Resize2d,
        OpKind::ArgMax,
        OpKind::RmsNorm,
        OpKind::MatMulMaskSoftmax,
        OpKind::LogSoftmax,
        OpKind::Gather,
        OpKind::State,
        OpKind::Repeat,
    ];

    /// The kind with this number.
    pub fn from_u16(number: u16) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }

    /// Whether its work is counted in multiply-accumulates; the others record the elements they visit.
    pub const fn multiplies(self) -> bool {
        matches!(
            self,
            OpKind::Conv2d
                | OpKind::DepthwiseConv2d
                | OpKind::FullyConnected
                | OpKind::MatMul
                | OpKind::Conv2dI4
                | OpKind::DepthwiseConv2dI4
                | OpKind::FullyConnectedI4
                | OpKind::MatMulSoftmax
                | OpKind::ConvTranspose2d
                | OpKind::ConvTranspose2dI4
                | OpKind::MatMulMaskSoftmax
                | OpKind::Repeat
        )
    }

    /// The name used in memory maps and profiles; also the name of the type in [`crate::kernels`].
    pub const fn name(self) -> &'static str {
        match self {
            OpKind::Conv2d => "Conv2d",
            OpKind::DepthwiseConv2d => "DepthwiseConv2d",
            OpKind::FullyConnected => "FullyConnected",
            OpKind::MatMul => "MatMul",
            OpKind::Add => "Add",
            OpKind::Mul => "Mul",
            OpKind::Lut => "Lut",
            OpKind::Softmax => "Softmax",
            OpKind::LayerNorm => "LayerNorm",
            OpKind::AvgPool2d => "AvgPool2d",
            OpKind::MaxPool2d => "MaxPool2d",
            OpKind::Transpose => "Transpose",
            OpKind::Concat => "Concat",
            OpKind::Pad => "Pad",
            OpKind::Requantize => "Requantize",
            OpKind::Conv2dI4 => "Conv2dI4",
            OpKind::DepthwiseConv2dI4 => "DepthwiseConv2dI4",
            OpKind::FullyConnectedI4 => "FullyConnectedI4",
            OpKind::MatMulSoftmax => "MatMulSoftmax",
            OpKind::ConvTranspose2d => "ConvTranspose2d",
            OpKind::ConvTranspose2dI4 => "ConvTranspose2dI4",
            OpKind::Take => "Take",
            OpKind::Div => "Div",
            OpKind::Resize2d => "Resize2d",
            OpKind::ArgMax => "ArgMax",
            OpKind::RmsNorm => "RmsNorm",
            OpKind::MatMulMaskSoftmax => "MatMulMaskSoftmax",
            OpKind::LogSoftmax => "LogSoftmax",
            OpKind::Gather => "Gather",
            OpKind::State => "State",
            OpKind::Repeat => "Repeat",
        }
    }
}

/// The parameters of one operator kind: a field made of fields.
pub trait Params: Field {
    /// The kind they belong to.
    const KIND: OpKind;

    /// Reads them back; `None` if there are too few or too many words.
    fn read(mut words: Words<'_>) -> Option<Self> {
        let params = Self::take(&mut words)?;
        words.is_empty().then_some(params)
    }
}

/// Parameters of an operator with weights, which come in two widths.
///
/// With weights of 8 bits an operator has the kind [`Params::KIND`]; its twin with weights of 4 bits has another
/// kind, the same parameters (as [`FourBit`]) and weights packed by [`crate::kernels::pack_int4`].
pub trait Weighted: Params {
    /// The kind of the operator with weights of 4 bits.
    const FOUR_BIT: OpKind;
}

/// The parameters of an operator whose weights have 4 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FourBit<P>(pub P);

impl<P: Weighted> Field for FourBit<P> {
    const WORDS: usize = P::WORDS;
    fn write(&self, sink: &mut dyn FnMut(u32)) {
        self.0.write(sink);
    }
    fn take(words: &mut Words<'_>) -> Option<Self> {
        P::take(words).map(Self)
    }
}

impl<P: Weighted> Params for FourBit<P> {
    const KIND: OpKind = P::FOUR_BIT;
}

impl Weighted for Conv2dParams {
    const FOUR_BIT: OpKind = OpKind::Conv2dI4;
}

impl Weighted for DepthwiseConv2dParams {
    const FOUR_BIT: OpKind = OpKind::DepthwiseConv2dI4;
}

impl Weighted for ConvTranspose2dParams {
    const FOUR_BIT: OpKind = OpKind::ConvTranspose2dI4;
}

impl Weighted for FullyConnectedParams {
    const FOUR_BIT: OpKind = OpKind::FullyConnectedI4;
}

macro_rules! params {
    ($(#[$meta:meta])* $name:ident for $kind:ident { $($(#[$field_meta:meta])* $field:ident: $ty:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name { $($(#[$field_meta])* pub $field: $ty,)* }

        impl Field for $name {
            const WORDS: usize = 0 $(+ <$ty as Field>::WORDS)*;
            fn write(&self, sink: &mut dyn FnMut(u32)) {
                $(self.$field.write(sink);)*
            }
            fn take(words: &mut Words<'_>) -> Option<Self> {
                Some(Self { $($field: Field::take(words)?,)* })
            }
        }

        impl Params for $name {
            const KIND: OpKind = OpKind::$kind;
        }
    };
}

params! {
    /// Convolution of `[N, H, W, C]` with weights `[O, kernel_h, kernel_w, C / groups]`.
    ///
    /// `acc = bias'[o] + Σ w·x` over the taps inside the input, plus `zero_point_x · Σ w` over the taps
    /// in the padding (whose real value is 0), where `bias' = bias − zero_point_x · Σ w` over all taps.
    Conv2dParams for Conv2d {
        /// Kernel height and width.
        kernel: [u32; 2],
        /// Strides, vertical then horizontal; at least 1.
        strides: [u32; 2],
        /// Dilations, vertical then horizontal; at least 1.
        dilations: [u32; 2],
        /// Padding: top, left, bottom, right.
        pads: [u32; 4],
        /// Number of groups; divides input and output channels.
        groups: u32,
        /// Weights `[O, kernel_h, kernel_w, C / groups]`: i8, or of 4 bits in rows of `[kernel_h, kernel_w, C / groups]`.
        weights: ConstRef,
        /// i32 `bias'[O]`.
        bias: ConstRef,
        /// i32 mantissas, one per output channel.
        mantissas: ConstRef,
        /// i8 shifts, one per output channel (padded to a multiple of 4 in the image, not in `len`).
        shifts: ConstRef,
        /// Clamp of the output in its quantized domain: lowest, highest.
        clamp: [i32; 2],
    }
}

params! {
    /// Depthwise convolution of `[N, H, W, C]` with weights `[kernel_h, kernel_w, C · multiplier]`;
    /// output channel `c · multiplier + k` reads input channel `c`. Otherwise as [`Conv2dParams`].
    DepthwiseConv2dParams for DepthwiseConv2d {
        /// Kernel height and width.
        kernel: [u32; 2],
        /// Strides, vertical then horizontal; at least 1.
        strides: [u32; 2],
        /// Dilations, vertical then horizontal; at least 1.
        dilations: [u32; 2],
        /// Padding: top, left, bottom, right.
        pads: [u32; 4],
        /// Output channels per input channel.
        multiplier: u32,
        /// Weights `[kernel_h, kernel_w, O]`: i8, or of 4 bits in rows of `[O]`.
        weights: ConstRef,
        /// i32 `bias'[O]`.
        bias: ConstRef,
        /// i32 mantissas `[O]`.
        mantissas: ConstRef,
        /// i8 shifts `[O]`.
        shifts: ConstRef,
        /// Clamp of the output: lowest, highest.
        clamp: [i32; 2],
    }
}

params! {
    /// Transposed convolution of `[N, H, W, C]` with weights `[O, kernel_h, kernel_w, C / groups]`.
    ///
    /// Input element `i` reaches position `i · stride + k · dilation` with tap `k`; the output begins `pads` positions
    /// into that, and its shape says where it ends. `acc = bias[o] + Σ w·(x − zero_point_x)` over what reaches an element.
    ConvTranspose2dParams for ConvTranspose2d {
        /// Kernel height and width.
        kernel: [u32; 2],
        /// Strides, vertical then horizontal; at least 1.
        strides: [u32; 2],
        /// Dilations, vertical then horizontal; at least 1.
        dilations: [u32; 2],
        /// Positions cut off at the top and at the left.
        pads: [u32; 2],
        /// Number of groups; divides input and output channels.
        groups: u32,
        /// Weights as [`crate::kernels::pack_conv_transpose2d`] orders them: i8, or of 4 bits in rows of
        /// `[kernel_h, kernel_w, C / groups]`.
        weights: ConstRef,
        /// i32 `bias[O]`; the zero point is not folded in.
        bias: ConstRef,
        /// i32 mantissas `[O]`.
        mantissas: ConstRef,
        /// i8 shifts `[O]`.
        shifts: ConstRef,
        /// Clamp of the output: lowest, highest.
        clamp: [i32; 2],
    }
}

params! {
    /// `[rows, K] × [O, K]ᵀ`: every leading axis of the input is a row; `K` is its last axis.
    FullyConnectedParams for FullyConnected {
        /// Weights `[O, K]`: i8, or of 4 bits in rows of `[K]`.
        weights: ConstRef,
        /// i32 `bias'[O]`.
        bias: ConstRef,
        /// i32 mantissas `[O]`.
        mantissas: ConstRef,
        /// i8 shifts `[O]`.
        shifts: ConstRef,
        /// Clamp of the output: lowest, highest.
        clamp: [i32; 2],
    }
}

params! {
    /// `y[b0, b1, i, j] = requantize(Σ_k (a[b0, b1, i, k] − zero_point_a) · (b[b0, b1, k, j] − zero_point_b))`.
    ///
    /// `a` and `b` are i8, `y` has any dtype. They are addressed by element strides, so that transposed and split
    /// views cost nothing. Every address reached lies inside its tensor.
    MatMulParams for MatMul {
        /// Two batch counts, outer then inner; 1 when unused.
        batch: [u32; 2],
        /// Rows of `a` and of the output.
        m: u32,
        /// Depth.
        k: u32,
        /// Columns of `b` and of the output.
        n: u32,
        /// Strides of `a` in elements: outer batch, inner batch, row, depth.
        a_strides: [u32; 4],
        /// Strides of `b` in elements: outer batch, inner batch, depth, column.
        b_strides: [u32; 4],
        /// Strides of the output in elements: outer batch, inner batch, row, column.
        y_strides: [u32; 4],
        /// Multiplier's mantissa.
        mantissa: i32,
        /// Multiplier's shift.
        shift: i32,
        /// Clamp of the output: lowest, highest.
        clamp: [i32; 2],
    }
}

params! {
    /// `y = clamp(zero_point_y + round_half_up(((a − zero_point_a)·ma + (b − zero_point_b)·mb) / 2^shift))`.
    ///
    /// Dtypes may be mixed. `b` may have fewer elements than `a`: it is then repeated
    /// along the leading axes (its length divides that of `a`).
    AddParams for Add {
        /// Factor of `a`, in `[0, 2^30]`; the larger of the two factors is at least 2^29 unless the shift is at its limit.
        a_factor: i32,
        /// Factor of `b`.
        b_factor: i32,
        /// Right shift, in `1..=62`.
        shift: u32,
        /// Clamp of the output: lowest, highest.
        clamp: [i32; 2],
    }
}

params! {
    /// `y = requantize((a − zero_point_a) · (b − zero_point_b))` of i8 and i16 tensors; repetition as [`AddParams`].
    MulParams for Mul {
        /// Multiplier's mantissa.
        mantissa: i32,
        /// Multiplier's shift.
        shift: i32,
        /// Clamp of the output: lowest, highest.
        clamp: [i32; 2],
    }
}

params! {
    /// `y = table[x + 128]` for an i8 input; the table holds 256 elements of the output's dtype, little-endian.
    LutParams for Lut {
        /// The table.
        table: ConstRef,
    }
}

params! {
    /// Softmax over the last axis of a tensor; the output is i8 with its tensor's scale and zero point.
    SoftmaxParams for Softmax {
        /// Mantissa of `scale_x · log2(e)`.
        mantissa: i32,
        /// Shift of `scale_x · log2(e)`.
        shift: i32,
        /// Mantissa of `1 / scale_y`.
        output_mantissa: i32,
        /// Shift of `1 / scale_y`.
        output_shift: i32,
    }
}

params! {
    /// `y[b0, b1, i, :] = softmax(scale · Σ_k (a[b0, b1, i, k] − zero_point_a) · (b[b0, b1, k, :] − zero_point_b))`.
    ///
    /// Attention weights from queries and keys, without the rounding (and the memory) of scores in between. Tensors
    /// and strides as [`MatMulParams`], but `y` is i8 and its rows are dense. The second output holds one row of sums
    /// while the operator runs: `n` elements of i32.
    MatMulSoftmaxParams for MatMulSoftmax {
        /// Two batch counts, outer then inner; 1 when unused.
        batch: [u32; 2],
        /// Rows of `a` and of the output.
        m: u32,
        /// Depth.
        k: u32,
        /// Columns of `b` and of the output.
        n: u32,
        /// Strides of `a` in elements: outer batch, inner batch, row, depth.
        a_strides: [u32; 4],
        /// Strides of `b` in elements: outer batch, inner batch, depth, column.
        b_strides: [u32; 4],
        /// Strides of the output in elements: outer batch, inner batch, row.
        y_strides: [u32; 3],
        /// Mantissa of `scale_a · scale_b · scale · log2(e)`.
        mantissa: i32,
        /// Its shift.
        shift: i32,
        /// Mantissa of `1 / scale_y`.
        output_mantissa: i32,
        /// Shift of `1 / scale_y`.
        output_shift: i32,
    }
}

params! {
    /// [`MatMulSoftmaxParams`] with a mask, in two forms that may be combined.
    ///
    /// Row `i` of the product sees its first `visible + i` columns alone (a causal mask); the others are neither computed
    /// nor counted, and get exactly 0. A third input is added to what is seen: column `j` has the score
    /// `s = ⌊(acc · sum_factor + (mask[b0, b1, i, j] − zero_point_mask) · mask_factor · 2^mask_shift) / 2^factor_shift + 1/2⌋`,
    /// saturated to 32 bits, where `acc` is the sum of products, and [`MatMulSoftmaxParams::mantissa`] is that of one step of `s` times
    /// log2(e). The lowest number of the type of a mask that is a constant means minus infinity: `s` is the lowest number too.
    /// Without a third input, `s = acc`.
    MatMulMaskSoftmaxParams for MatMulMaskSoftmax {
        /// The product, its steps and the output.
        product: MatMulSoftmaxParams,
        /// Columns that the first row sees, at least 1; `u32::MAX` for all.
        visible: u32,
        /// Strides of the mask in elements: outer batch, inner batch, row, column.
        mask_strides: [u32; 4],
        /// Factor of the sums, in `0..=2^30`.
        sum_factor: i32,
        /// Factor of the mask, in `0..=2^30`.
        mask_factor: i32,
        /// Bits that the factor of the mask is longer by: at most 23 for a mask of i8, 15 for one of i16, 0 for one of i32.
        mask_shift: u32,
        /// Fraction bits of both, in `1..=62`.
        factor_shift: u32,
    }
}

params! {
    /// `y = x − max x − ln(Σ e^(x − max x))` over the last axis; any dtypes.
    LogSoftmaxParams for LogSoftmax {
        /// Mantissa of `scale_x · log2(e)`.
        mantissa: i32,
        /// Its shift.
        shift: i32,
        /// Mantissa of `scale_x / scale_y`.
        step_mantissa: i32,
        /// Its shift.
        step_shift: i32,
        /// Mantissa of `ln(2) / scale_y`.
        log_mantissa: i32,
        /// Its shift.
        log_shift: i32,
        /// Clamp of the output: lowest, highest.
        clamp: [i32; 2],
    }
}

/// `y = x / sqrt(mean(x²) + epsilon) · gamma + beta` over the last axis: [`LayerNormParams`] about zero, with `epsilon` in
/// the units of `C·Σ(x − zero_point_x)²`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RmsNormParams(pub LayerNormParams);

impl Field for RmsNormParams {
    const WORDS: usize = LayerNormParams::WORDS;
    fn write(&self, sink: &mut dyn FnMut(u32)) {
        self.0.write(sink);
    }
    fn take(words: &mut Words<'_>) -> Option<Self> {
        LayerNormParams::take(words).map(Self)
    }
}

impl Params for RmsNormParams {
    const KIND: OpKind = OpKind::RmsNorm;
}

impl From<RmsNormParams> for LayerNormParams {
    fn from(params: RmsNormParams) -> Self {
        params.0
    }
}

params! {
    /// `y = (x − mean) / sqrt(variance + epsilon) · gamma + beta` over the last axis of length `C`;
    /// any dtypes.
    LayerNormParams for LayerNorm {
        /// `round(epsilon · C² / scale_x²)`: epsilon in the units of `C·Σx² − (Σx)²`, at least 1, saturated.
        epsilon: u64,
        /// i32 `gamma[C] / scale_y · 2^gamma_shift`, rounded half to even.
        gamma: ConstRef,
        /// Fraction bits of `gamma`, at most 40 more than `beta_shift`.
        gamma_shift: u32,
        /// i32 `beta[C] / scale_y · 2^beta_shift`, rounded half to even.
        beta: ConstRef,
        /// Fraction bits of `beta`, in `1..=16`.
        beta_shift: u32,
        /// Clamp of the output: lowest, highest.
        clamp: [i32; 2],
    }
}

params! {
    /// Mean over windows of `[N, H, W, C]`; `y = zero_point_y + round_half_up(Σ(x − zero_point_x) · M / count)`
    /// with `M = scale_x / scale_y`, one rounding.
    AvgPool2dParams for AvgPool2d {
        /// Window height and width.
        kernel: [u32; 2],
        /// Strides.
        strides: [u32; 2],
        /// Padding: top, left, bottom, right.
        pads: [u32; 4],
        /// 1 if `count` includes the padding, 0 if it is the number of elements inside the input.
        count_include_pad: u32,
        /// Mantissa of `M`.
        mantissa: i32,
        /// Shift of `M`.
        shift: i32,
        /// Clamp of the output: lowest, highest.
        clamp: [i32; 2],
    }
}

params! {
    /// Maximum over windows of `[N, H, W, C]`; input and output share scale and zero point.
    MaxPool2dParams for MaxPool2d {
        /// Window height and width.
        kernel: [u32; 2],
        /// Strides.
        strides: [u32; 2],
        /// Dilations.
        dilations: [u32; 2],
        /// Padding: top, left, bottom, right.
        pads: [u32; 4],
        /// Clamp of the output: lowest, highest.
        clamp: [i32; 2],
    }
}

params! {
    /// Output axis `i` is input axis `perm[i]`. Axes beyond the rank map to themselves.
    TransposeParams for Transpose {
        /// The permutation of four axes (shapes padded with leading ones to rank 4).
        perm: [u32; 4],
    }
}

params! {
    /// Joins the inputs along `axis`; all share scale and zero point with the output.
    ConcatParams for Concat {
        /// Axis, counted in the tensors' own rank.
        axis: u32,
    }
}

params! {
    /// `y[.., i, ..] = x[.., index[i], ..]` along `axis`; the second input holds the indices, of i32: those from minus the
    /// length of the axis to -1 count from its end.
    GatherParams for Gather {
        /// Axis, counted in the rank of `x`.
        axis: u32,
    }
}

params! {
    /// `y = x`, where `y` is what operators of the next run read: a state that a model is given and gives. It keeps its
    /// place in the arena between runs.
    StateParams for State {
        /// What `y` holds before the first run, in its quantized domain ([`crate::Session::reset_state`]).
        initial: i32,
    }
}

params! {
    /// Runs the operators before it again: steps of a sequence, whose records are in the plan once. What differs from step
    /// to step, such as the place in a sequence, is in tensors that the operators themselves change. The output is that of
    /// the last of them.
    RepeatParams for Repeat {
        /// How many operators, none of which repeats others.
        len: u32,
        /// How many times more, besides the one time that they ran before.
        times: u32,
    }
}

params! {
    /// Pads with one quantized value; shapes are padded with leading ones to rank 4.
    PadParams for Pad {
        /// Elements added before each axis.
        before: [u32; 4],
        /// Elements added after each axis.
        after: [u32; 4],
        /// The value, in the output's quantized domain.
        value: i32,
    }
}

params! {
    /// `y = requantize(x − zero_point_x)` between any dtypes.
    RequantizeParams for Requantize {
        /// Mantissa of `scale_x / scale_y`.
        mantissa: i32,
        /// Shift of `scale_x / scale_y`.
        shift: i32,
        /// Clamp of the output: lowest, highest.
        clamp: [i32; 2],
    }
}

params! {
    /// `y[i0, i1, i2, i3] = x[n0[i0], n1[i1], n2[i2], n3[i3]]` for lists `n` of indices, over four axes (shapes are padded
    /// with leading ones); input and output share scale and zero point.
    ///
    /// Slices, repetitions, reflections and nearest neighbours are all of this form.
    TakeParams for Take {
        /// For each axis the u16 indices into the input, one for each index of the output; absent where the axis is
        /// taken as it is.
        indices: [ConstRef; 4],
    }
}

params! {
    /// `y = clamp(zero_point_y + round_half_up((a − zero_point_a) / (b − zero_point_b) · M))` of i8 and i16 tensors with
    /// `M = scale_a / (scale_b · scale_y)`, one rounding; repetition of `b` as [`AddParams`].
    ///
    /// A quotient by zero is the end of the clamp that has the dividend's sign, and 0 / 0 is 0.
    DivParams for Div {
        /// Mantissa of `M`.
        mantissa: i32,
        /// Shift of `M`.
        shift: i32,
        /// Clamp of the output: lowest, highest.
        clamp: [i32; 2],
    }
}

params! {
    /// Weighted sums over some rows and columns for each output row and column of `[N, H, W, C]`; input and output share
    /// scale and zero point, and have at most 16 bits.
    ///
    /// `y[n, h, w, c] = zero_point + round_half_up(Σ_i Σ_j row_weights[h, i] · col_weights[w, j] ·
    /// (x[n, rows[h, i], cols[w, j], c] − zero_point) / 2^28)`.
    Resize2dParams for Resize2d {
        /// Rows, and columns, that an output row, or column, is made of: 1 to [`Resize2dParams::MOST_TAPS`].
        taps: [u32; 2],
        /// u16 indices of input rows, `[output height, taps]`.
        rows: ConstRef,
        /// i16 weights of these rows in units of 2^-14.
        row_weights: ConstRef,
        /// u16 indices of input columns, `[output width, taps]`.
        cols: ConstRef,
        /// i16 weights of these columns in units of 2^-14.
        col_weights: ConstRef,
        /// Clamp of the output: lowest, highest.
        clamp: [i32; 2],
    }
}

impl Resize2dParams {
    /// Most taps: sums of products then stay within 64 bits.
    pub const MOST_TAPS: u32 = 64;
    /// Fraction bits of a weight.
    pub const WEIGHT_BITS: u32 = 14;
}

params! {
    /// `y[o, i] = argmax_k x[o, k, i]`: the index of the largest element along the middle one of three axes. The output is
    /// i32.
    ArgMaxParams for ArgMax {
        /// 1 for the smallest element instead.
        least: u32,
        /// 1 for the last of equal elements, 0 for the first.
        select_last: u32,
    }
}
