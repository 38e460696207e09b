//! Averages and maxima over windows.

use equant_runtime::kernels::band_height;
use equant_runtime::op::{AvgPool2dParams, MaxPool2dParams};

use super::linear::Geometry;
use super::pending::Source;
use super::{Lowered, Lowering, Operand, Reason, Value, input, multiplier, unsupported};
use crate::compile::view::View;
use crate::graph::Node;
use crate::graph::shape::{Window, windows};

/// Averages over windows of an input seen as `[N, H, W, C]`.
#[derive(Debug, Clone)]
pub(super) struct Mean {
    x: Operand,
    dims: Vec<usize>,
    rows: Window,
    cols: Window,
    include_pad: bool,
}

impl Mean {
    /// The mean of the `dims[1]` elements that lie between the `dims[0]` outer and the `dims[3]` inner ones; `dims[2]` is 1.
    pub(super) fn whole(x: Operand, dims: Vec<usize>) -> Self {
        let window = |kernel| Window { kernel, stride: 1, dilation: 1, pad_begin: 0, pad_end: 0, output: 1 };
        Self { x, rows: window(dims[1]), cols: window(1), dims, include_pad: false }
    }

    /// The real values the outputs can take.
    pub(super) fn real_range(&self) -> (f64, f64) {
        let (low, high) = self.x.real_range();
        if self.include_pad { (low.min(0.0), high.max(0.0)) } else { (low, high) }
    }
}

impl<'g> Lowering<'g> {
    pub(super) fn average_pool(&mut self, node: &'g Node) -> Lowered<()> {
        let x = self.operand(input(node, 0)?)?;
        let (x, rows, cols) = self.pooled(node, x)?;
        if rows.dilation != 1 || cols.dilation != 1 {
            return unsupported("dilations of an average are not supported");
        }
        let shape = x.view.shape();
        let view = View::channels_last(&[shape[0], shape[1], rows.output, cols.output]);
        let dims = vec![shape[0], shape[2], shape[3], shape[1]];
        let include_pad = node.int("count_include_pad", 0) != 0;
        self.set_pending(node, Source::Mean(Mean { x, dims, rows, cols, include_pad }), view)
    }

    pub(super) fn max_pool(&mut self, node: &'g Node) -> Lowered<()> {
        let x = self.operand(input(node, 0)?)?;
        let (x, rows, cols) = self.pooled(node, x)?;
        let shape = x.view.shape();
        let y = self.fresh_like(&x, View::channels_last(&[shape[0], shape[1], rows.output, cols.output]));
        let Geometry { kernel, strides, dilations, pads } = Geometry::new(rows, cols);
        let (low, high) = self.params_of(&x).levels;
        let params = MaxPool2dParams { kernel, strides, dilations, pads, clamp: [low, high] };
        let [input, output] = [self.image_record(&x), self.image_record(&y)];
        let work = (y.view.len() * rows.kernel * cols.kernel) as u64;
        self.program.op(&params, vec![input], output, &node.name, work);
        self.over(rows, band_height([rows.output, cols.output]));
        self.set(node.output(), Value::Operand(y))
    }

    /// An image stored with its channels last, and the windows of a pool over it.
    fn pooled(&mut self, node: &Node, x: Operand) -> Lowered<(Operand, Window, Window)> {
        let shape = x.view.shape();
        if shape.len() != 4 {
            return unsupported(format!("input of rank {}: only images [N, C, H, W] are supported", shape.len()));
        }
        let kernel: Option<Vec<usize>> =
            node.ints("kernel_shape").unwrap_or_default().iter().map(|&k| usize::try_from(k).ok()).collect();
        let kernel = kernel.ok_or_else(|| Reason::Shape("kernel_shape is negative".into()))?;
        let spatial = windows(node, &shape[2..], &kernel).map_err(Reason::Shape)?;
        let x = self.arranged(&x, View::channels_last(&shape), &node.name)?;
        Ok((x, spatial[0], spatial[1]))
    }

    pub(super) fn emit_mean(
        &mut self,
        mean: &Mean,
        factor: f64,
        y: &Operand,
        clamp: [i32; 2],
        name: &str,
    ) -> Lowered<()> {
        let Mean { x, dims, rows, cols, include_pad } = mean;
        let m = multiplier(x.scale * factor / f64::from(self.program.storages[y.storage].scale))?;
        let Geometry { kernel, strides, pads, .. } = Geometry::new(*rows, *cols);
        let params = AvgPool2dParams {
            kernel,
            strides,
            pads,
            count_include_pad: u32::from(*include_pad),
            mantissa: m.mantissa,
            shift: i32::from(m.shift),
            clamp,
        };
        let work = (y.view.len() * rows.kernel * cols.kernel) as u64;
        let [input, output] = [self.shaped_record(x, dims.clone()), self.window_record(y, *rows, *cols, dims[3])];
        self.program.op(&params, vec![input], output, name, work);
        self.over(*rows, band_height([rows.output, cols.output]));
        Ok(())
    }
}
