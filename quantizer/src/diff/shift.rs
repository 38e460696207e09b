//! Adding a constant that repeats over leading axes, such as a bias or an embedding of positions.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

use super::{flat, simd};

/// `x + c`, where the elements of `c` repeat over those of `x`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shift;

impl CustomOp2 for Shift {
    fn name(&self) -> &'static str {
        "shift"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        c: &CpuStorage,
        c_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, c) = (flat::operand(x, x_layout)?, flat::operand(c, c_layout)?);
        let mut out = x.to_vec();
        simd::vectorized(
            #[inline(always)]
            || {
                for row in out.chunks_mut(c.len().max(1)) {
                    row.iter_mut().zip(c).for_each(|(y, &c)| *y += c);
                }
            },
        );
        flat::result(out, x_layout.shape().clone())
    }

    fn bwd(&self, _: &Tensor, c: &Tensor, _: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let dc = flat::with([g], |[g]| {
            let mut sums = vec![0.0; c.elem_count()];
            simd::vectorized(
                #[inline(always)]
                || {
                    for row in g.chunks(sums.len().max(1)) {
                        sums.iter_mut().zip(row).for_each(|(sum, &g)| *sum += g);
                    }
                },
            );
            Ok(sums)
        })?;
        Ok((Some(g.clone()), Some(flat::tensor(dc, c.shape())?)))
    }
}
