//! Kernels that cut their work in blocks give the bits of the reference for sizes of several blocks too.

mod support;

use equant_runtime::op::OpKind;
use equant_runtime::operator::AllOperators;
use support::numeric::{fully_connected_of, mat_mul_of, mat_mul_softmax_of};
use support::windows::{Axis, Geometry, conv2d_of, depthwise_conv2d_of};
use support::{Case, Draws};

/// Compares cases of one size: `make` is given its draws.
fn conforms(name: &str, cases: u64, make: impl Fn(&mut Draws) -> Case) {
    for seed in 0..cases {
        let mut noise = Draws::new(seed, Vec::new());
        let choices = (0..64).map(|_| (noise.noise() >> 8) as u32).collect();
        let case = make(&mut Draws::new(seed, choices));
        let arena = case.run::<AllOperators>().unwrap_or_else(|error| panic!("{name}, seed {seed}: {error}"));
        let expected = case.expected();
        assert_eq!(case.output(&arena), case.output(&expected), "{name}, seed {seed}");
        assert!(arena[..] == expected[..], "{name}, seed {seed}: rest of the arena");
    }
}

fn geometry(rows: Axis, cols: Axis) -> Geometry {
    Geometry { rows, cols, batch: 1 }
}

#[test]
fn convolutions() {
    // Kernel, stride, dilation; padding.
    let same = |input| Axis::new(input, [3, 1, 1], [1, 1]);
    let strided = |input| Axis::new(input, [3, 2, 1], [0, 1]);
    let dilated = |input| Axis::new(input, [2, 1, 3], [2, 0]);
    let pixels = |input| Axis::new(input, [1, 1, 1], [0, 0]);
    let wide = |input| Axis::new(input, [1, 2, 1], [3, 5]);
    for kind in [OpKind::Conv2d, OpKind::Conv2dI4] {
        conforms("blocks", 30, |draws| conv2d_of(draws, kind, &geometry(same(9), same(7)), 1, [5, 37]));
        conforms("one channel", 10, |draws| conv2d_of(draws, kind, &geometry(same(11), strided(13)), 1, [1, 16]));
        conforms("several tiles", 3, |draws| conv2d_of(draws, kind, &geometry(same(40), strided(41)), 1, [40, 18]));
        conforms("several panels", 3, |draws| conv2d_of(draws, kind, &geometry(pixels(5), pixels(2)), 1, [90, 300]));
        conforms("tiles and panels", 2, |draws| conv2d_of(draws, kind, &geometry(same(40), same(20)), 1, [60, 70]));
        conforms("groups", 10, |draws| conv2d_of(draws, kind, &geometry(strided(9), dilated(12)), 3, [12, 33]));
        conforms("long filters", 3, |draws| conv2d_of(draws, kind, &geometry(same(5), same(4)), 1, [130, 19]));
        conforms("wide rows", 2, |draws| conv2d_of(draws, kind, &geometry(pixels(3), wide(700)), 1, [60, 9]));
    }
}

#[test]
fn depthwise_convolutions() {
    let same = |input| Axis::new(input, [3, 1, 1], [1, 1]);
    let strided = |input| Axis::new(input, [5, 2, 1], [2, 1]);
    let dilated = |input| Axis::new(input, [3, 1, 4], [3, 5]);
    for kind in [OpKind::DepthwiseConv2d, OpKind::DepthwiseConv2dI4] {
        conforms("blocks", 20, |draws| depthwise_conv2d_of(draws, kind, &geometry(same(9), strided(12)), 1, 40));
        conforms("eight channels", 20, |draws| depthwise_conv2d_of(draws, kind, &geometry(same(8), same(5)), 1, 8));
        conforms("tiles below", 2, |draws| depthwise_conv2d_of(draws, kind, &geometry(strided(90), same(60)), 1, 17));
        conforms("tiles beside", 2, |draws| depthwise_conv2d_of(draws, kind, &geometry(dilated(12), same(950)), 1, 5));
        conforms("strided tiles", 2, |draws| depthwise_conv2d_of(draws, kind, &geometry(same(3), strided(1800)), 1, 3));
    }
}

#[test]
fn products() {
    for kind in [OpKind::FullyConnected, OpKind::FullyConnectedI4] {
        conforms("few rows", 20, |draws| fully_connected_of(draws, kind, [3, 100, 29]));
        conforms("a row", 20, |draws| fully_connected_of(draws, kind, [1, 139, 45]));
        conforms("many rows", 10, |draws| fully_connected_of(draws, kind, [50, 61, 41]));
        conforms("several tiles", 2, |draws| fully_connected_of(draws, kind, [333, 200, 11]));
    }
}

#[test]
fn products_of_activations() {
    conforms("attention", 40, |draws| mat_mul_of(draws, [1, 2], [13, 49, 50]));
    conforms("deep", 10, |draws| mat_mul_of(draws, [1, 1], [5, 300, 20]));
    conforms("wide", 10, |draws| mat_mul_of(draws, [2, 1], [3, 33, 290]));
    conforms("scores", 40, |draws| mat_mul_softmax_of(draws, [2, 2], [9, 16, 49]));
    conforms("many scores", 10, |draws| mat_mul_softmax_of(draws, [1, 1], [5, 24, 256]));
    conforms("more scores", 10, |draws| mat_mul_softmax_of(draws, [1, 1], [2, 24, 300]));
}
