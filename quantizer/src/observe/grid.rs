//! From a range of real values to scale and zero point.

/// The integers a value is quantized to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Levels {
    /// Lowest integer.
    pub low: i32,
    /// Highest integer.
    pub high: i32,
    /// Whether the zero point is fixed at the integer 0.
    pub symmetric: bool,
}

impl Levels {
    /// Unsigned 8-bit with a free zero point.
    pub const U8: Self = Self { low: 0, high: 255, symmetric: false };
    /// Signed 8-bit with a free zero point.
    pub const I8: Self = Self { low: -128, high: 127, symmetric: false };
    /// Unsigned 4-bit with a free zero point.
    pub const U4: Self = Self { low: 0, high: 15, symmetric: false };
    /// Signed 4-bit with a free zero point.
    pub const I4: Self = Self { low: -8, high: 7, symmetric: false };

    /// Scale and zero point with which the levels cover `range`. The scale is rounded to f32, positive and normal;
    /// zero is represented exactly. An empty range has scale 1.
    pub fn affine(self, range: Range) -> (f32, i32) {
        let (low, high) = (f64::from(self.low), f64::from(self.high));
        if self.symmetric {
            let up = if self.high > 0 { range.high / high } else { 0.0 };
            let down = if self.low < 0 { range.low / low } else { 0.0 };
            return (usable(up.max(down)), 0);
        }
        let scale = usable((range.high - range.low) / (high - low));
        if range.high <= range.low {
            return (scale, self.low);
        }
        let zero_point = (low - range.low / f64::from(scale)).round_ties_even().clamp(low, high);
        (scale, zero_point as i32)
    }
}

/// Real values from `low` to `high`; holds zero.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct Range {
    /// Lowest value, at most 0.
    pub low: f64,
    /// Highest value, at least 0.
    pub high: f64,
}

impl Range {
    /// The least range that holds both values and zero.
    pub fn around_zero(low: f64, high: f64) -> Self {
        Self { low: low.min(0.0), high: high.max(0.0) }
    }

    /// Both ends multiplied.
    #[must_use]
    pub(super) fn scaled(self, low: f64, high: f64) -> Self {
        Self { low: self.low * low, high: self.high * high }
    }
}

/// A scale as f32: 1 for an empty range, and never so small that its products with a weight scale vanish.
fn usable(scale: f64) -> f32 {
    /// The square root of the least normal f32.
    const LEAST: f64 = 1.084_202_2e-19;
    match scale > 0.0 {
        true => scale.clamp(LEAST, f64::from(f32::MAX)) as f32,
        false => 1.0,
    }
}
