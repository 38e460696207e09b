//! Geometry of the sliding windows of convolutions and pools.

use core::num::NonZeroUsize;

use super::bands::band_height;
use crate::error::Reason;
use crate::plan::TensorRecord;

/// One spatial axis of a sliding window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Axis {
    pub(crate) input: usize,
    pub(crate) output: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) dilation: NonZeroUsize,
    /// Elements of padding before the input.
    pub(crate) before: usize,
    /// Elements of padding after the input.
    pub(crate) after: usize,
}

/// The taps of one window that lie inside the input: `first..end`, beginning at input element `start`.
#[derive(Clone, Copy)]
pub(crate) struct Taps {
    pub(crate) first: usize,
    pub(crate) end: usize,
    pub(crate) start: usize,
}

impl Taps {
    /// Number of taps inside the input.
    pub(crate) fn len(&self) -> usize {
        self.end.saturating_sub(self.first)
    }
}

impl Axis {
    /// Checks the axis. `floor_only` demands the output size of ONNX's default rounding; otherwise the
    /// last window may hang over the padded input (`ceil_mode`).
    ///
    /// All positions of an accepted axis fit in 31 bits.
    pub(crate) fn new(
        [input, output]: [u32; 2],
        [kernel, stride, dilation]: [u32; 3],
        [before, after]: [u32; 2],
        floor_only: bool,
    ) -> Result<Self, Reason> {
        let padded = u64::from(input) + u64::from(before) + u64::from(after);
        let last = u64::from(dilation) * u64::from(kernel.saturating_sub(1));
        let stride = usize::try_from(stride).ok().and_then(NonZeroUsize::new).ok_or(Reason::OperatorShape)?;
        let dilation = usize::try_from(dilation).ok().and_then(NonZeroUsize::new).ok_or(Reason::OperatorShape)?;
        let fits = padded <= i32::MAX as u64
            && stride.get() <= i32::MAX as usize
            && dilation.get() <= i32::MAX as usize
            && last < padded;
        if kernel == 0 || output == 0 || !fits {
            return Err(Reason::OperatorShape);
        }
        let free = (padded - last - 1) as usize;
        let floor = free / stride + 1;
        let ceil = if floor_only { floor } else { free.div_ceil(stride.get()) + 1 };
        let output = output as usize;
        if output < floor || output > ceil {
            return Err(Reason::OperatorShape);
        }
        Ok(Self {
            input: input as usize,
            output,
            kernel: kernel as usize,
            stride: stride.get(),
            dilation,
            before: before as usize,
            after: after as usize,
        })
    }

    /// Windows of one element each.
    pub(crate) fn of_pixels(count: usize) -> Self {
        let dilation = NonZeroUsize::MIN;
        Self { input: count, output: count, kernel: 1, stride: 1, dilation, before: 0, after: 0 }
    }

    /// The taps of window `o` that lie inside the input.
    #[inline]
    pub(crate) fn taps(&self, o: usize) -> Taps {
        let position = o.wrapping_mul(self.stride);
        let dilation = self.dilation.get();
        // The window begins `missing` elements before the input, or `origin` elements into it.
        let missing = self.before.saturating_sub(position);
        let origin = position.saturating_sub(self.before);
        let first = self.steps(missing);
        let start = origin.wrapping_add(first.wrapping_mul(dilation)).wrapping_sub(missing);
        let end = self.steps(self.input.wrapping_add(self.before).saturating_sub(position)).min(self.kernel);
        // A window that lies in the padding altogether begins nowhere: 0 is inside.
        if first < end { Taps { first, end, start } } else { Taps { first: end, end, start: 0 } }
    }

    /// Elements that a window reaches over.
    pub(crate) fn extent(&self) -> usize {
        self.kernel.wrapping_sub(1).wrapping_mul(self.dilation.get()).wrapping_add(1)
    }

    /// The windows that lie inside the input: the first, and how many.
    pub(crate) fn inside(&self) -> [usize; 2] {
        let Some(last) = self.input.wrapping_add(self.before).checked_sub(self.extent()) else {
            return [0, 0];
        };
        let first = self.before.wrapping_add(self.stride).wrapping_sub(1).checked_div(self.stride).unwrap_or(0);
        let end = last.checked_div(self.stride).unwrap_or(0).wrapping_add(1).min(self.output);
        [first, end.saturating_sub(first)]
    }

    /// `distance / dilation`, rounded up.
    #[inline]
    fn steps(&self, distance: usize) -> usize {
        if self.dilation.get() == 1 {
            distance
        } else {
            distance.wrapping_add(self.dilation.get()).wrapping_sub(1) / self.dilation
        }
    }
}

/// Both axes of a window over `[N, H, W, C]`, and the sizes that stay.
#[derive(Clone, Copy)]
pub(crate) struct Window {
    pub(crate) batch: usize,
    pub(crate) rows: Axis,
    pub(crate) cols: Axis,
    pub(crate) in_channels: usize,
    pub(crate) out_channels: usize,
}

impl Window {
    /// Checks the geometry of a window operator; see [`Axis::new`].
    pub(crate) fn new(
        x: &TensorRecord,
        y: &TensorRecord,
        [kernel, strides, dilations]: [[u32; 2]; 3],
        [top, left, bottom, right]: [u32; 4],
        floor_only: bool,
    ) -> Result<Self, Reason> {
        let ([n, h, w, c], [y_n, y_h, y_w, y_c]) = (x.dims, y.dims);
        if x.rank != 4 || y.rank != 4 || n != y_n {
            return Err(Reason::OperatorShape);
        }
        Ok(Self {
            batch: n as usize,
            rows: Axis::new([h, y_h], [kernel[0], strides[0], dilations[0]], [top, bottom], floor_only)?,
            cols: Axis::new([w, y_w], [kernel[1], strides[1], dilations[1]], [left, right], floor_only)?,
            in_channels: c as usize,
            out_channels: y_c as usize,
        })
    }

    /// Rows that are computed at once where tensors overlap.
    pub(crate) fn band_height(&self) -> usize {
        band_height([self.rows.output, self.cols.output])
    }

    /// Taps of a window, or `None` if they overflow.
    pub(crate) fn taps(&self) -> Option<usize> {
        self.rows.kernel.checked_mul(self.cols.kernel)
    }
}
