//! Pooling of images.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::flat;
use crate::graph::shape::Window;

/// What a window comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Max,
    /// The mean over the window's pixels within the image.
    Mean,
    /// The mean over all of the window, padding included.
    PaddedMean,
}

/// Pooling `[N, C, H, W] → [N, C, H', W']`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pool {
    pub(super) kind: Kind,
    /// Height and width of the input.
    pub(super) size: [usize; 2],
    pub(super) windows: [Window; 2],
}

impl Pool {
    fn pixels(&self) -> usize {
        self.windows[0].output * self.windows[1].output
    }

    /// The pixels of the window of output `i`, and how many the mean is taken over.
    fn window(&self, i: usize) -> (impl Iterator<Item = usize> + '_, f32) {
        let [v, h] = self.windows;
        let (y, x) = (i / h.output, i % h.output);
        // Within the image, and how many lie within its padding too.
        let line = |w: &Window, at: usize, size: usize| {
            let (w, first) = (*w, at * w.stride);
            let places = (0..w.kernel).map(move |k| first + k * w.dilation);
            let padded = places.clone().filter(|p| *p < size + w.pad_begin + w.pad_end).count();
            (places.filter_map(move |p| p.checked_sub(w.pad_begin)).filter(move |&p| p < size), padded)
        };
        let (lines, padded_lines) = line(&v, y, self.size[0]);
        let (columns, padded_columns) = line(&h, x, self.size[1]);
        let within = lines.clone().count() * columns.clone().count();
        let count = match self.kind {
            Kind::PaddedMean => padded_lines * padded_columns,
            _ => within,
        };
        let width = self.size[1];
        (lines.flat_map(move |line| columns.clone().map(move |column| line * width + column)), count.max(1) as f32)
    }

    /// The pixel with the largest value, the first of equals.
    fn largest(&self, plane: &[f32], i: usize) -> Option<usize> {
        self.window(i).0.fold(None, |best: Option<usize>, at| match best {
            Some(best) if plane[best] >= plane[at] => Some(best),
            _ => Some(at),
        })
    }

    fn forward(&self, x: &[f32]) -> Vec<f32> {
        let planes = x.chunks((self.size[0] * self.size[1]).max(1));
        let pool = |plane: &[f32], i: usize| match self.kind {
            Kind::Max => self.largest(plane, i).map_or(0.0, |at| plane[at]),
            _ => {
                let (window, count) = self.window(i);
                window.map(|at| plane[at]).sum::<f32>() / count
            }
        };
        planes.flat_map(|plane| (0..self.pixels()).map(move |i| pool(plane, i))).collect()
    }

    fn backward(&self, x: &[f32], g: &[f32]) -> Vec<f32> {
        let mut dx = vec![0.0; x.len()];
        let plane = (self.size[0] * self.size[1]).max(1);
        for ((x, dx), g) in x.chunks(plane).zip(dx.chunks_mut(plane)).zip(g.chunks(self.pixels().max(1))) {
            for (i, &g) in g.iter().enumerate() {
                match self.kind {
                    Kind::Max => {
                        if let Some(at) = self.largest(x, i) {
                            dx[at] += g;
                        }
                    }
                    _ => {
                        let (window, count) = self.window(i);
                        window.for_each(|at| dx[at] += g / count);
                    }
                }
            }
        }
        dx
    }
}

impl CustomOp1 for Pool {
    fn name(&self) -> &'static str {
        "pool"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, channels, _, _) = layout.shape().dims4()?;
        let shape = (n, channels, self.windows[0].output, self.windows[1].output);
        flat::result(self.forward(flat::operand(x, layout)?), shape)
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        let dx = flat::with([x, g], |[x, g]| Ok(self.backward(x, g)))?;
        flat::tensor(dx, x.shape()).map(Some)
    }
}
