//! Variations of samples. They need no labels: the float model says what the outputs should be.

use crate::random::Random;

/// What is done to each sample, at random.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Augment {
    /// Images are moved by up to this many pixels along both axes; the border is repeated.
    pub shift: usize,
    /// Images are mirrored left to right, one in two.
    pub flip: bool,
    /// Share of samples that are mixed with another one.
    pub mix: f32,
}

impl Default for Augment {
    fn default() -> Self {
        Self { shift: 2, flip: false, mix: 0.5 }
    }
}

impl Augment {
    /// Nothing.
    pub const NONE: Self = Self { shift: 0, flip: false, mix: 0.0 };

    /// Varies one sample of shape `[_, C, H, W]`; other shapes are only mixed. `other` is the sample to mix with.
    pub(super) fn apply(&self, sample: &[f32], other: &[f32], shape: &[usize], random: &mut Random) -> Vec<f32> {
        let first = self.place(sample, shape, random);
        if random.uniform() as f32 >= self.mix {
            return first;
        }
        let second = self.place(other, shape, random);
        let share = random.uniform() as f32;
        first.iter().zip(&second).map(|(a, b)| share * a + (1.0 - share) * b).collect()
    }

    fn place(&self, sample: &[f32], shape: &[usize], random: &mut Random) -> Vec<f32> {
        let [_, _, height, width] = *shape else { return sample.to_vec() };
        let mut by = || random.below(2 * self.shift + 1) as isize - self.shift as isize;
        let (down, right) = (by(), by());
        let flip = self.flip && random.below(2) == 1;
        if (down, right, flip) == (0, 0, false) {
            return sample.to_vec();
        }
        let at = |i: usize, by: isize, size: usize| (i as isize - by).clamp(0, size as isize - 1) as usize;
        let mut out = Vec::with_capacity(sample.len());
        for plane in sample.chunks(height * width) {
            for y in 0..height {
                let line = &plane[at(y, down, height) * width..][..width];
                out.extend((0..width).map(|x| {
                    let x = at(x, right, width);
                    line[if flip { width - 1 - x } else { x }]
                }));
            }
        }
        out
    }
}
