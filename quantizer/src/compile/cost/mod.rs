//! What operators cost: instructions of one run on a core, estimated from a plan.
//!
//! Operators of a class ([`Class`]) were measured: costs are linear in what they do ([`Work`]) with factors fitted to the
//! measurements, and how far off they are is known ([`Fit`]). The rest is guessed by element: a figure to compare models by,
//! and no more.

mod tables;

use std::str::FromStr;

use equant_runtime::op::{OpKind, RepeatParams};
use equant_runtime::operator::OperatorSet;
use equant_runtime::plan::{OpView, Plan};
use equant_runtime::work::{Class, Work};

/// A core whose instructions were measured.
#[derive(Debug, Clone, Copy)]
pub struct Core(&'static Table);

/// A name that is no core's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no core `{0}` was measured; use {names}", names = Core::ALL.map(Core::name).join(", "))]
pub struct UnknownCore(pub String);

/// What was measured on a core.
#[derive(Debug)]
struct Table {
    name: &'static str,
    title: &'static str,
    layers: usize,
    median: f64,
    largest: f64,
    fits: &'static [Fit],
}

/// What operators of a class cost on a core.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Fit {
    /// The class.
    pub class: Class,
    /// Bits of its weights; 8 for a class without any.
    pub bits: u32,
    /// Layers that were measured.
    pub layers: usize,
    /// The median error of estimates in percent, each of a layer that the fit was made without.
    pub median: f64,
    /// The largest of these errors.
    pub largest: f64,
    /// Instructions for each of [`Class::counts`].
    pub per: &'static [f64],
}

impl Core {
    /// Cortex-M4.
    pub const M4: Self = Self(&tables::M4);

    /// Every core that was measured.
    pub const ALL: [Self; 7] = [
        Self(&tables::M0PLUS),
        Self(&tables::M3),
        Self::M4,
        Self(&tables::M7),
        Self(&tables::M33),
        Self(&tables::M55),
        Self(&tables::RV32IMAC),
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        self.0.name
    }

    /// Its name in reports.
    pub const fn title(self) -> &'static str {
        self.0.title
    }

    /// Layers that were measured.
    pub const fn layers(self) -> usize {
        self.0.layers
    }

    /// The median error of estimates in percent, over all layers, each of a layer that the fit was made without.
    pub const fn median_error(self) -> f64 {
        self.0.median
    }

    /// The largest of these errors.
    pub const fn largest_error(self) -> f64 {
        self.0.largest
    }

    /// The fits of the classes.
    pub const fn fits(self) -> &'static [Fit] {
        self.0.fits
    }

    fn fit(self, class: Class, bits: u32) -> Option<&'static Fit> {
        let of_class = || self.0.fits.iter().filter(|fit| fit.class == class);
        of_class().find(|fit| fit.bits == bits).or_else(|| of_class().next())
    }
}

/// Two are one if they have one name.
impl PartialEq for Core {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Core {}

impl Default for Core {
    fn default() -> Self {
        Self::M4
    }
}

impl FromStr for Core {
    type Err = UnknownCore;

    fn from_str(text: &str) -> Result<Self, UnknownCore> {
        Self::ALL.into_iter().find(|core| core.name() == text).ok_or_else(|| UnknownCore(text.to_owned()))
    }
}

/// Estimated instructions of one run of an operator.
pub fn instructions<O: OperatorSet>(core: Core, op: &OpView<'_>, plan: &Plan<'_, O>) -> u64 {
    instructions_at(core, op, plan, weight_bits(op.kind))
}

/// As [`instructions`], if the operator's weights had this many bits: 8 or 4.
pub fn instructions_at<O: OperatorSet>(core: Core, op: &OpView<'_>, plan: &Plan<'_, O>, bits: u32) -> u64 {
    if let Some(repeat) = op.params::<RepeatParams>() {
        let first = usize::from(op.index).saturating_sub(repeat.len as usize);
        let once = plan.ops().skip(first).take(repeat.len as usize).filter(|op| op.kind != OpKind::Repeat);
        let once: u64 = once.map(|op| instructions(core, &op, plan)).sum();
        return once.saturating_mul(repeat.times.into());
    }
    let fitted = Work::of(op, plan).and_then(|work| core.fit(work.class, bits).map(|fit| (work, fit)));
    match fitted {
        Some((work, fit)) => {
            work.counts().iter().zip(fit.per).map(|(&count, per)| count as f64 * per).sum::<f64>() as u64
        }
        None => {
            let outputs = plan.output(op, 0).ok().and_then(|y| y.elements()).unwrap_or(0);
            guess(op.kind, op.macs.into(), outputs.into())
        }
    }
}

/// Whether operators like this one were measured; the cost of others is a guess.
pub fn is_fitted<O: OperatorSet>(core: Core, op: &OpView<'_>, plan: &Plan<'_, O>) -> bool {
    Work::of(op, plan).is_some_and(|work| core.fit(work.class, weight_bits(op.kind)).is_some())
}

const fn weight_bits(kind: OpKind) -> u32 {
    match kind {
        OpKind::Conv2dI4 | OpKind::DepthwiseConv2dI4 | OpKind::FullyConnectedI4 | OpKind::ConvTranspose2dI4 => 4,
        _ => 8,
    }
}

/// A guess at the instructions of an operator that was not measured, on any core: depthwise convolutions with several kernels
/// for a channel, with dilation or with outputs of more than 8 bits; softmax and means of other types than bytes.
fn guess(kind: OpKind, macs: u64, outputs: u64) -> u64 {
    let (per_mac, per_output) = match kind {
        OpKind::DepthwiseConv2d | OpKind::DepthwiseConv2dI4 => (5, 40),
        OpKind::Softmax => (0, 170),
        _ => (6, 40),
    };
    macs.saturating_mul(per_mac).saturating_add(outputs.saturating_mul(per_output))
}

#[cfg(test)]
mod tests {
    use equant_runtime::op::{AddParams, AvgPool2dParams, Params};
    use equant_runtime::operator::AllOperators;
    use equant_runtime::plan::{AlignedBytes, Builder, DType, Target, TensorRecord};

    use super::*;

    /// A plan of one operator on tensors `[1, 8, 8, 64]`.
    fn plan<P: Params>(params: &P, inputs: usize, dtype: DType) -> AlignedBytes {
        let mut builder = Builder::new(Target::Portable);
        let mut tensor = |place: u32| {
            let record = TensorRecord {
                dtype,
                rank: 4,
                flags: 0,
                dims: [1, 8, 8, 64],
                scale: 1.0,
                zero_point: 0,
                offset: 4 * 4096 * place,
            };
            builder.tensor(record).unwrap()
        };
        let (inputs, output): (Vec<u16>, u16) = ((0..inputs as u32).map(&mut tensor).collect(), tensor(2));
        builder.op(params, &inputs, &[output], 4096, None).unwrap();
        inputs.iter().for_each(|&input| builder.input(input));
        builder.output(output);
        builder.memory(3 * 4 * 4096, 0);
        AlignedBytes::from(&builder.finish().unwrap()[..])
    }

    fn cost(image: &AlignedBytes) -> (u64, bool) {
        let plan = Plan::<AllOperators>::parse(image).unwrap();
        let op = plan.ops().next().unwrap();
        (instructions(Core::M4, &op, &plan), is_fitted(Core::M4, &op, &plan))
    }

    #[test]
    fn what_was_measured_is_met() {
        let (found, fitted) = cost(&plan(
            &AddParams { a_factor: 1 << 30, b_factor: 3 << 28, shift: 31, clamp: [-128, 127] },
            2,
            DType::I8,
        ));
        // A layer of the benchmark.
        assert!(fitted && (found as f64 / 47_025.0 - 1.0).abs() < 0.05, "{found}");
    }

    #[test]
    fn the_rest_is_guessed() {
        let pool = AvgPool2dParams {
            kernel: [1, 1],
            strides: [1, 1],
            pads: [0; 4],
            count_include_pad: 0,
            mantissa: 1 << 30,
            shift: -1,
            clamp: [-128, 127],
        };
        assert_eq!(cost(&plan(&pool, 1, DType::I16)), ((6 + 40) * 4096, false));
        assert!(cost(&plan(&pool, 1, DType::I8)).1);
    }

    #[test]
    fn cores_have_names() {
        for core in Core::ALL {
            assert_eq!(core.name().parse(), Ok(core));
        }
        let error = "m5".parse::<Core>().unwrap_err().to_string();
        assert!(Core::ALL.iter().all(|core| error.contains(core.name())), "{error}");
    }

    #[test]
    fn every_class_has_its_costs() {
        for core in Core::ALL {
            for class in Class::ALL {
                for bits in [8, 4] {
                    let fit = core.fit(class, bits).unwrap();
                    assert_eq!(fit.per.len(), class.counts().len(), "{}: {class:?}", core.name());
                    assert!(fit.per.iter().all(|&per| per >= 0.0) && fit.per.iter().any(|&per| per > 0.0));
                }
            }
            assert_eq!(core.layers(), core.fits().iter().map(|fit| fit.layers).sum::<usize>());
            assert!(core.median_error() <= core.largest_error());
        }
    }
}
