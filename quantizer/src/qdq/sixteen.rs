//! The 16-bit grid of what a QDQ file keeps in float and an integer runtime does not.

/// The symmetric 16-bit scale that holds `±bound` without saturation; 1 for a bound that no scale fits.
pub(crate) fn sixteen_bit_scale(bound: f64) -> f32 {
    let mut scale = (bound / 32767.0) as f32;
    if !(scale.is_normal() && scale > 0.0) {
        scale = 1.0;
    }
    while f64::from(scale) * 32767.0 < bound && scale < 1e30 {
        scale = scale.next_up();
    }
    scale
}
