//! Element-wise addition.

#[cfg(x86)]
use super::x86;
use super::{binary, memory};
use crate::error::Reason;
use crate::op::{AddParams, OpKind};
use crate::operator::Operator;
#[cfg(any(dsp, mve, neon, x86))]
use crate::plan::{DType, TensorRecord};
use crate::plan::{OpView, Plan};

/// `y = clamp(zero_point_y + round_half_up(((a − zero_point_a)·a_factor + (b − zero_point_b)·b_factor) / 2^shift))`.
///
/// `a` and `y` have the same elements, `b` as many or a divisor of it (repeated along the leading axes); each
/// has any dtype. The output may take the place of an input of its dtype and length. With factors rounded to
/// nearest, the error against the f64 definition is at most
/// `1/2 + (|a − zero_point_a| + |b − zero_point_b|) / 2^(shift + 1)` steps.
#[derive(Debug, Clone, Copy)]
pub struct Add;

/// Largest factor.
const MAX_FACTOR: i32 = 1 << 30;

impl Operator for Add {
    const KIND: OpKind = OpKind::Add;

    fn check(op: &OpView<'_>, plan: &Plan<'_>) -> Result<(), Reason> {
        binary::check(op, plan)?;
        let p: AddParams = memory::params(op)?;
        let factors = 0..=MAX_FACTOR;
        if !factors.contains(&p.a_factor) || !factors.contains(&p.b_factor) || !(1..=62).contains(&p.shift) {
            return Err(Reason::OperatorRange);
        }
        memory::check_clamp(p.clamp, &plan.output(op, 0)?)
    }

    fn run(op: &OpView<'_>, plan: &Plan<'_>, arena: &mut [u8]) -> Result<(), Reason> {
        let p: AddParams = memory::params(op)?;
        let (a, b, y) = (plan.input(op, 0)?, plan.input(op, 1)?, plan.output(op, 0)?);
        let [a_zero, b_zero, y_zero] = [a, b, y].map(|tensor| i32::from(tensor.zero_point));
        let (a_factor, b_factor) = (i64::from(p.a_factor), i64::from(p.b_factor));
        #[cfg(any(dsp, mve, neon, x86))]
        if let Some(done) = run_bytes(&p, [&a, &b, &y], arena) {
            return done;
        }
        #[cfg(scalar)]
        if let Some(halves) = halves::Halves::new(&p, [&a, &b, &y]) {
            return halves.run(plan, arena, [&a, &b, &y]);
        }
        #[cfg(x86)]
        if let Some(avx2) = x86::Avx2::detect() {
            let sums = x86::WideSums { zeros: [a_zero, b_zero, y_zero], params: p };
            return binary::run_blocks(op, plan, arena, |values, others| {
                avx2.add_wide(values.as_chunks_mut().0, others.as_chunks().0, &sums);
            });
        }
        let (low, high) = (i64::from(p.clamp[0]), i64::from(p.clamp[1]));
        let shift = p.shift & 63;
        let half = 1i64 << (shift.wrapping_sub(1) & 63);
        binary::run(op, plan, arena, |a, b| {
            // At most 2 · 2^31 · 2^30 + 2^61: no overflow.
            let sum = i64::from(a.wrapping_sub(a_zero))
                .wrapping_mul(a_factor)
                .wrapping_add(i64::from(b.wrapping_sub(b_zero)).wrapping_mul(b_factor));
            let y = (sum.wrapping_add(half) >> shift).wrapping_add(i64::from(y_zero));
            y.max(low).min(high) as i32
        })
    }
}

/// `y = clamp(⌊(start + a · factors[0] + b · factors[1]) / 2^shift⌋)`, element by element; sums are below 2^39.
#[cfg(any(dsp, mve, neon, x86))]
pub(super) struct Sums {
    /// What every sum begins with.
    pub(super) start: i64,
    /// Not negative.
    pub(super) factors: [i32; 2],
    pub(super) shift: u32,
    pub(super) clamp: [i32; 2],
}

/// Sums of 8-bit tensors of one length in the core's own instructions. `None` where these cannot do it.
#[cfg(any(dsp, mve, neon, x86))]
fn run_bytes(p: &AddParams, [a, b, y]: [&TensorRecord; 3], arena: &mut [u8]) -> Option<Result<(), Reason>> {
    /// Shifts that the core's kernel does.
    const SHIFTS: core::ops::Range<u32> = if cfg!(any(mve, neon)) { 16..40 } else { 8..40 };
    let (tensors, len) = ([a, b, y], memory::elements(y));
    let alike = tensors.iter().all(|tensor| tensor.dtype == DType::I8 && memory::elements(tensor) == len);
    if !alike || a.is_const() || b.is_const() || !SHIFTS.contains(&p.shift) {
        return None;
    }
    let zeros = i64::from(a.zero_point) * i64::from(p.a_factor) + i64::from(b.zero_point) * i64::from(p.b_factor);
    let start = (1i64 << (p.shift - 1)) + (i64::from(y.zero_point) << p.shift) - zeros;
    // The largest magnitude of a sum: 128 of each factor.
    let most = start.unsigned_abs() + 128 * (u64::from(p.a_factor as u32) + u64::from(p.b_factor as u32));
    if most >= 1 << 39 {
        return None;
    }
    let sums = Sums { start, factors: [p.a_factor, p.b_factor], shift: p.shift, clamp: p.clamp };
    let offsets = tensors.map(|tensor| tensor.offset as usize);
    #[cfg(dsp)]
    let done = super::dsp::add(arena, offsets, len, &sums);
    #[cfg(mve)]
    let done = super::mve::add(arena, offsets, len, &sums);
    #[cfg(neon)]
    let done = super::neon::add(arena, offsets, len, &sums);
    #[cfg(x86)]
    let done = super::x86::Avx2::detect()?.add(arena, offsets, len, &sums);
    Some(done.ok_or(Reason::TensorBounds))
}

/// Sums of 8-bit tensors of one length in 32 bits: factors are taken in halves.
#[cfg(scalar)]
mod halves {
    use crate::error::Reason;
    use crate::kernels::memory::{self, BLOCK};
    use crate::op::AddParams;
    use crate::plan::{DType, Plan, TensorRecord};

    /// `y = (high + low / 2^16) / 2^shift`, rounded down twice, which is once.
    pub(super) struct Halves {
        a: [i32; 2],
        b: [i32; 2],
        /// What the sums begin with.
        start: [i32; 2],
        shift: u32,
        clamp: [i32; 2],
    }

    /// The high word, and the low half of the other.
    fn halves(value: i64) -> Option<[i32; 2]> {
        Some([i32::try_from(value >> 16).ok()?, (value & 0xFFFF) as i32])
    }

    impl Halves {
        /// The sums of an operator, if they fit.
        pub(super) fn new(p: &AddParams, [a, b, y]: [&TensorRecord; 3]) -> Option<Self> {
            let len = memory::elements(y);
            let alike = [a, b, y].iter().all(|tensor| tensor.dtype == DType::I8 && memory::elements(tensor) == len);
            if !alike || !(16..=38).contains(&p.shift) {
                return None;
            }
            let (a_factor, b_factor) = (i64::from(p.a_factor), i64::from(p.b_factor));
            let zeros = i64::from(a.zero_point) * a_factor + i64::from(b.zero_point) * b_factor;
            let start = (1i64 << (p.shift - 1)) + (i64::from(y.zero_point) << p.shift) - zeros;
            // High sums stay below 2^30 + 3 · 2^21, low ones below 2^25.
            let (a, b, start) = (halves(a_factor)?, halves(b_factor)?, halves(start)?);
            Some(Self { a, b, start, shift: p.shift - 16, clamp: p.clamp })
        }

        /// Runs the operator, block by block, which are read before they are written.
        pub(super) fn run(
            &self,
            plan: &Plan<'_>,
            arena: &mut [u8],
            [a, b, y]: [&TensorRecord; 3],
        ) -> Result<(), Reason> {
            let (mut a_block, mut b_block) = ([0u8; BLOCK], [0u8; BLOCK]);
            let len = memory::elements(y);
            for start in (0..len).step_by(BLOCK) {
                let range = start..len.min(start.wrapping_add(BLOCK));
                let sources = [(a, &mut a_block), (b, &mut b_block)];
                for (tensor, block) in sources {
                    let source = memory::bytes(plan, arena, tensor)?.get(range.clone()).ok_or(Reason::TensorBounds)?;
                    memory::copy(block, 0, source).ok_or(Reason::TensorBounds)?;
                }
                let y = memory::bytes_mut(arena, y)?.get_mut(range).ok_or(Reason::TensorBounds)?;
                for ((y, &a), &b) in y.iter_mut().zip(&a_block).zip(&b_block) {
                    *y = self.sum(i32::from(a as i8), i32::from(b as i8));
                }
            }
            Ok(())
        }

        #[inline(always)]
        fn sum(&self, a: i32, b: i32) -> u8 {
            let half = |i: usize| {
                let products = a.wrapping_mul(self.a[i]).wrapping_add(b.wrapping_mul(self.b[i]));
                products.wrapping_add(self.start[i])
            };
            let value = half(0).wrapping_add(half(1) >> 16) >> self.shift;
            value.max(self.clamp[0]).min(self.clamp[1]) as u8
        }
    }
}
