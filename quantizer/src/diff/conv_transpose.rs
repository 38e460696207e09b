//! Transposed convolution: what a convolution does to gradients, done to images, and the other way round.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

use super::conv::Conv;
use super::flat;

/// A transposed convolution `[N, inputs, h, w] → [N, outputs, H, W]` with weights `[inputs, outputs / groups, kh, kw]`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ConvTranspose {
    /// The convolution from outputs to inputs, with the same weights.
    pub(super) reverse: Conv,
}

impl ConvTranspose {
    /// Output channels: inputs of the convolution that runs the other way.
    #[allow(clippy::misnamed_getters)]
    pub(super) fn outputs(&self) -> usize {
        self.reverse.inputs
    }

    /// Elements of one input image.
    fn image(&self) -> usize {
        self.reverse.outputs * self.reverse.pixels()
    }

    /// The output for images `x`, weights and bias.
    pub(super) fn forward(&self, x: &[f32], weights: &[f32], bias: &[f32]) -> Vec<f32> {
        let images = x.len() / self.image().max(1);
        // The gradient to the reverse convolution's images does not depend on what they are.
        let blank = vec![0.0; images * self.reverse.image()];
        let [mut out, ..] = self.reverse.backward(&blank, weights, x);
        let pixels = self.reverse.size.iter().product::<usize>().max(1);
        for (i, plane) in out.chunks_mut(pixels).enumerate() {
            plane.iter_mut().for_each(|out| *out += bias[i % self.outputs()]);
        }
        out
    }

    /// Gradients of input, weights and bias for the gradient `g` of the output.
    fn backward(&self, x: &[f32], weights: &[f32], g: &[f32]) -> [Vec<f32>; 3] {
        let dx = self.reverse.forward(g, weights, &vec![0.0; self.reverse.outputs]);
        let [_, dw, _] = self.reverse.backward(g, weights, x);
        let mut db = vec![0.0f32; self.outputs()];
        let pixels = self.reverse.size.iter().product::<usize>().max(1);
        for (i, plane) in g.chunks(pixels).enumerate() {
            db[i % self.outputs()] += plane.iter().sum::<f32>();
        }
        [dx, dw, db]
    }
}

impl CustomOp3 for ConvTranspose {
    fn name(&self) -> &'static str {
        "conv_transpose"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x = flat::operand(x, x_layout)?;
        let out = self.forward(x, flat::operand(w, w_layout)?, flat::operand(b, b_layout)?);
        let [height, width] = self.reverse.size;
        flat::result(out, (x.len() / self.image().max(1), self.outputs(), height, width))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [dx, dw, db] = flat::with([x, w, g], |[x, w, g]| Ok(self.backward(x, w, g)))?;
        Ok((Some(flat::tensor(dx, x.shape())?), Some(flat::tensor(dw, w.shape())?), Some(flat::tensor(db, b.shape())?)))
    }
}
