//! Every set of kernels gives the bits of the reference, for awkward shapes and extreme quantization.
//!
//! A set is named once, in `conformance!`; a new one (for another instruction set) takes one more line.

mod support;

use equant_runtime::op::OpKind;
use equant_runtime::operator::{AllOperators, OperatorSet};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// Cases per operator kind.
const CASES: u32 = 400;

/// Compares the whole arena, so that a stray write is an error too.
fn conforms<O: OperatorSet>(kind: OpKind) {
    let mut runner = TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
    let draws = (any::<u64>(), prop::collection::vec(any::<u32>(), 64));
    let result = runner.run(&draws, |(seed, choices)| {
        let case = support::case(kind, &mut support::Draws::new(seed, choices));
        let arena = case.run::<O>().map_err(|error| TestCaseError::fail(format!("{error}")))?;
        let expected = case.expected();
        prop_assert_eq!(case.output(&arena), case.output(&expected), "output");
        prop_assert_eq!(&arena[..], &expected[..], "rest of the arena");
        Ok(())
    });
    if let Err(error) = result {
        panic!("{}: {error}", kind.name());
    }
}

macro_rules! conformance {
    ($module:ident, $operators:ty: $($test:ident $kind:ident,)*) => {
        mod $module {
            use super::*;

            $(#[test]
            fn $test() {
                conforms::<$operators>(OpKind::$kind);
            })*

            #[test]
            fn every_kind_has_its_test() {
                assert_eq!([$(OpKind::$kind),*], OpKind::ALL);
            }
        }
    };
    ($module:ident, $operators:ty) => {
        conformance! {
            $module, $operators:
            conv2d Conv2d,
            depthwise_conv2d DepthwiseConv2d,
            fully_connected FullyConnected,
            mat_mul MatMul,
            add Add,
            mul Mul,
            lut Lut,
            softmax Softmax,
            layer_norm LayerNorm,
            avg_pool2d AvgPool2d,
            max_pool2d MaxPool2d,
            transpose Transpose,
            concat Concat,
            pad Pad,
            requantize Requantize,
            conv2d_i4 Conv2dI4,
            depthwise_conv2d_i4 DepthwiseConv2dI4,
            fully_connected_i4 FullyConnectedI4,
            mat_mul_softmax MatMulSoftmax,
            conv_transpose2d ConvTranspose2d,
            conv_transpose2d_i4 ConvTranspose2dI4,
            take Take,
            div Div,
            resize2d Resize2d,
            arg_max ArgMax,
            rms_norm RmsNorm,
            mat_mul_mask_softmax MatMulMaskSoftmax,
            log_softmax LogSoftmax,
            gather Gather,
            state State,
            repeat Repeat,
        }
    };
}

conformance!(portable, AllOperators);

/// Plans to fuzz with, two of each kind, are those of the present format; `EQUANT_BLESS=1` writes them anew.
#[test]
fn the_corpus_of_plans_is_of_this_format() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus/plan");
    let bless = std::env::var_os("EQUANT_BLESS").is_some();
    for (kind, seed) in OpKind::ALL.into_iter().flat_map(|kind| [(kind, 1), (kind, 2)]) {
        let mut choices = support::Draws::new(seed, Vec::new());
        let choices = (0..64).map(|_| choices.noise() as u32 % 5).collect();
        let image = support::case(kind, &mut support::Draws::new(seed, choices)).image();
        let path = folder.join(format!("{}_{seed}.plan", kind.name()));
        if bless {
            std::fs::write(&path, &image[..]).unwrap();
        }
        let committed = std::fs::read(&path).unwrap_or_default();
        assert!(committed == image[..], "{}: rerun with EQUANT_BLESS=1", path.display());
    }
}
