//! Attention: scores, masks and what of them is stored.

use equant_runtime::op::OpKind;

use super::{Net, check};
use crate::graph::{Attr, DataType};

fn ints(values: &[i64]) -> Attr {
    Attr::Ints(values.to_vec())
}

/// One step where rounding may differ, and nothing more.
const STEP: f64 = 1.001;

#[test]
fn attention_needs_no_moves() {
    let mut net = Net::new(42);
    let x = net.input("x", &[1, 7, 12]);
    let mut heads = Vec::new();
    for perm in [[0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]] {
        let w = net.weights(&[12, 12], 1);
        let y = net.node("MatMul", &[&x, &w], &[]);
        let y = net.q(&y, 0.05, 4, DataType::I8);
        let shape = net.ints(&[0, 0, 3, 4]);
        let y = net.node("Reshape", &[&y, &shape], &[]);
        heads.push(net.node("Transpose", &[&y], &[("perm", ints(&perm))]));
    }
    let s = net.node("MatMul", &[&heads[0], &heads[1]], &[]);
    let s = net.q(&s, 0.6, 3, DataType::I8);
    let factor = net.floats(&[], &[0.1]);
    let s = net.node("Mul", &[&s, &factor], &[]);
    let p = net.node("Softmax", &[&s], &[]);
    let p = net.q(&p, 1.0 / 255.0, 0, DataType::U8);
    let c = net.node("MatMul", &[&p, &heads[2]], &[]);
    let c = net.q(&c, 0.03, 4, DataType::I8);
    let t = net.node("Transpose", &[&c], &[("perm", ints(&[0, 2, 1, 3]))]);
    let shape = net.ints(&[0, 0, 12]);
    let y = net.node("Reshape", &[&t, &shape], &[]);
    net.output(&y);
    // Four roundings in a row; scores of one step change the result by less than a step each.
    let compiled = check(&mut net, 6.0);
    assert_eq!(compiled.operators, [OpKind::FullyConnected, OpKind::MatMul, OpKind::Softmax]);
}

#[test]
fn float_scores_are_never_stored() {
    for (seed, transposed) in [(46, false), (47, true)] {
        let mut net = Net::new(seed);
        let q = net.input("q", &[1, 2, 9, 12]);
        let shape: &[usize] = if transposed { &[1, 2, 70, 12] } else { &[1, 2, 12, 70] };
        let k = net.float_input("k", shape);
        let mut k = net.q(&k, 0.02, 7, DataType::I8);
        if transposed {
            k = net.node("Transpose", &[&k], &[("perm", ints(&[0, 1, 3, 2]))]);
        }
        let s = net.node("MatMul", &[&q, &k], &[]);
        let factor = net.floats(&[], &[0.37]);
        let s = net.node("Mul", &[&s, &factor], &[]);
        let p = net.node("Softmax", &[&s], &[]);
        let p = net.q(&p, 1.0 / 255.0, 0, DataType::U8);
        net.output(&p);
        let compiled = check(&mut net, STEP);
        assert_eq!(compiled.operators, [OpKind::MatMulSoftmax]);
        assert_eq!(compiled.map.macs(), 2 * 9 * 70 * 12);
    }
}

/// Queries and keys of two heads, 9 rows and 20 columns, their scores, and the softmax of the scores with a mask.
fn masked(net: &mut Net, mask: &str) -> String {
    let q = net.input("q", &[1, 2, 9, 12]);
    let k = net.float_input("k", &[1, 2, 12, 20]);
    let k = net.q(&k, 0.02, 7, DataType::I8);
    let s = net.node("MatMul", &[&q, &k], &[]);
    let factor = net.floats(&[], &[0.3]);
    let s = net.node("Mul", &[&s, &factor], &[]);
    let s = net.node("Add", &[mask, &s], &[]);
    let p = net.node("Softmax", &[&s], &[]);
    net.q(&p, 1.0 / 255.0, 0, DataType::U8)
}

#[test]
fn masks_are_added_to_scores_that_are_not_stored() {
    for shape in [vec![1, 1, 9, 20], vec![2, 1, 20], vec![9, 1], vec![1, 2, 9, 20]] {
        for (seed, range) in [(48, 4.0), (49, 300.0)] {
            let mut net = Net::new(seed);
            let mask = net.random_floats(&shape, -range, 0.1 * range);
            let p = masked(&mut net, &mask);
            net.output(&p);
            let compiled = check(&mut net, STEP);
            assert_eq!(compiled.operators, [OpKind::MatMulMaskSoftmax]);
        }
    }
}

#[test]
fn masks_exclude_exactly() {
    for (seed, least, ends) in [(50, f32::NEG_INFINITY, true), (51, f32::MIN, true), (52, -1e9, false)] {
        let mut net = Net::new(seed);
        let seen = |row: usize, column: usize| if ends { column <= row + 3 } else { !(column + row).is_multiple_of(3) };
        let values: Vec<f32> = (0..180).map(|i| if seen(i / 20, i % 20) { 0.0 } else { least }).collect();
        let mask = net.floats(&[9, 20], &values);
        let p = masked(&mut net, &mask);
        net.output(&p);
        let compiled = check(&mut net, STEP);
        assert_eq!(compiled.operators, [OpKind::MatMulMaskSoftmax]);
        if ends {
            // What a causal mask hides is neither stored nor computed.
            assert_eq!(compiled.map.flash.weights, 0);
            let products: usize = (0..9).map(|row| 2 * 12 * 20.min(row + 4)).sum();
            assert_eq!(compiled.map.macs() as usize, products);
        }
        let inputs: Vec<Vec<f32>> = [216, 480].iter().map(|&count| net.random.values(count, -3.0, 3.0)).collect();
        let (weights, _) = super::run(&compiled.image, &inputs).remove(0);
        for (i, &weight) in weights.iter().enumerate() {
            assert!(seen(i / 20 % 9, i % 20) || weight == 0.0, "{i}: {weight}");
        }
    }
}

#[test]
fn a_mask_may_be_an_activation() {
    for factor in [1.0, 30.0, 3000.0] {
        for shape in [vec![1, 1, 1, 20], vec![1, 2, 9, 20]] {
            let mut net = Net::new(53);
            let mask = net.float_input("mask", &shape);
            let mask = net.q(&mask, 0.03, 255, DataType::U8);
            let factor = net.floats(&[], &[factor]);
            let mask = net.node("Mul", &[&mask, &factor], &[]);
            let p = masked(&mut net, &mask);
            net.output(&p);
            assert_eq!(check(&mut net, STEP).operators, [OpKind::MatMulMaskSoftmax]);
        }
    }
}

#[test]
fn a_causal_mask_and_another_one() {
    let mut net = Net::new(54);
    let values: Vec<f32> = (0..180).map(|i| if i % 20 <= i / 20 + 2 { 0.0 } else { f32::NEG_INFINITY }).collect();
    let causal = net.floats(&[9, 20], &values);
    let padding = net.float_input("padding", &[1, 1, 1, 20]);
    let padding = net.q(&padding, 1.0, 3, DataType::I8);
    let q = net.input("q", &[1, 2, 9, 12]);
    let k = net.float_input("k", &[1, 2, 12, 20]);
    let k = net.q(&k, 0.02, 7, DataType::I8);
    let s = net.node("MatMul", &[&q, &k], &[]);
    let s = net.node("Add", &[&s, &padding], &[]);
    let s = net.node("Add", &[&s, &causal], &[]);
    let p = net.node("Softmax", &[&s], &[]);
    let p = net.q(&p, 1.0 / 255.0, 0, DataType::U8);
    net.output(&p);
    assert_eq!(check(&mut net, STEP).operators, [OpKind::MatMulMaskSoftmax]);
}

#[test]
fn stored_scores_with_a_mask() {
    let mut net = Net::new(55);
    let x = net.input("x", &[1, 9, 20]);
    let values: Vec<f32> = (0..180).map(|i| if i % 20 <= i / 20 { 0.0 } else { f32::NEG_INFINITY }).collect();
    let mask = net.floats(&[9, 20], &values);
    let s = net.node("Add", &[&x, &mask], &[]);
    let p = net.node("Softmax", &[&s], &[]);
    let p = net.q(&p, 1.0 / 255.0, 0, DataType::U8);
    net.output(&p);
    let compiled = check(&mut net, STEP);
    assert_eq!(compiled.operators, [OpKind::Add, OpKind::Softmax]);
}
