//! GPTQ as Babai's nearest plane: with `G = RᵀR`, `‖R(ŵ − w*)‖²` is a sum over rows of `R` from the last to the first,
//! and each integer is the nearest to the centre that the integers chosen before it leave (Frantar et al. 2023 write
//! the same as updates with the Cholesky factor of `G⁻¹`).

use super::Row;
use super::linalg::{Factor, dot_f32};
use crate::observe::Levels;

pub(super) fn round(factor: &Factor, target: &[f32], scale: f32, levels: Levels) -> Row {
    let depth = target.len();
    let (low, high) = (levels.low as f32, levels.high as f32);
    let mut integers = vec![0; depth];
    // w* − ŵ, in steps, of the inputs done.
    let mut rest = vec![0.0f32; depth];
    let mut error = 0.0;
    for j in (0..depth).rev() {
        let wanted = target[j] / scale;
        let centre = wanted + dot_f32(factor.unit_row(j), &rest[j + 1..]);
        let q = centre.round_ties_even().clamp(low, high);
        integers[j] = q as i32;
        rest[j] = wanted - q;
        let off = f64::from(centre - q) * f64::from(scale) * factor.diagonal(j);
        error += off * off;
    }
    Row { integers, scale, error }
}
