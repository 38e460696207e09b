use super::*;
use crate::graph::{Attr, DataType, Node, Tensor};
use crate::rate::shannon_bits;

const INT4: Levels = Levels { low: -8, high: 7, symmetric: true };

/// Pseudo-random numbers in (−1, 1): xorshift64*.
fn noise(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    }
}

/// Moments of patches whose elements are correlated, or independent with variances that differ.
fn moments(depth: usize, count: usize, correlated: bool) -> Moments {
    let mut next = noise(7);
    let mut patches = Vec::new();
    for _ in 0..count {
        let common = next();
        patches.extend((0..depth).map(|i| {
            let own = next() * (1.0 + i as f32 / depth as f32);
            if correlated { 0.5 + common + 0.4 * own } else { own }
        }));
    }
    let mut moments = Moments::new(depth, Crossed::Inputs);
    moments.add(&Partial::of(&patches, &patches, depth, Crossed::Inputs));
    moments
}

fn weights(rows: usize, depth: usize) -> Vec<f32> {
    let mut next = noise(3);
    (0..rows * depth).map(|_| next()).collect()
}

fn solve(problem: &Problem, method: Method, threads: usize) -> Solution {
    let least = vec![0.0; problem.rows()];
    problem.solve(method, &Constraints { levels: INT4, least_scale: &least, per_row: true }, threads)
}

#[test]
fn each_method_is_at_least_as_good_as_the_one_before() {
    let problem = Problem::new(&weights(6, 40), &moments(40, 400, true), true);
    let [nearest, gptq, search, soft] =
        [Method::Nearest, Method::Gptq, Method::Search, Method::Soft].map(|method| solve(&problem, method, 1).error);
    assert!(gptq < nearest, "{gptq} against {nearest}");
    assert!(search < gptq, "{search} against {gptq}");
    assert!(soft < gptq, "{soft} against {gptq}");
}

#[test]
fn inputs_that_are_independent_leave_nothing_to_pass_on() {
    let mut diagonal = moments(12, 4000, false);
    diagonal.keep_diagonal();
    let problem = Problem::new(&weights(4, 12), &diagonal, false);
    assert_eq!(solve(&problem, Method::Gptq, 1).integers, solve(&problem, Method::Nearest, 1).integers);
}

#[test]
fn the_reported_error_is_that_of_the_integers() {
    let problem = Problem::new(&weights(3, 20), &moments(20, 200, true), true);
    for method in [Method::Nearest, Method::Gptq, Method::Search, Method::Soft] {
        let solution = solve(&problem, method, 1);
        let error: f64 =
            (0..3).map(|row| problem.error(row, &solution.integers[row * 20..][..20], solution.scales[row])).sum();
        assert!((solution.error - error).abs() <= 1e-4 * error, "{method:?}: {} {error}", solution.error);
        assert!(solution.integers.iter().all(|q| (-8..=7).contains(q)));
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let problem = Problem::new(&weights(9, 30), &moments(30, 300, true), true);
    assert_eq!(solve(&problem, Method::Search, 1), solve(&problem, Method::Search, 4));
}

/// Two groups of a layer, solved and then refined.
fn refined(terms: Terms, levels: Levels, per_row: bool, threads: usize) -> Vec<Solution> {
    let least = vec![0.0; 12];
    let (w, moments) = (weights(24, 40), moments(40, 400, true));
    // A sum of three uniform numbers: more weights near zero than far from it.
    let w: Vec<f32> = (0..w.len()).map(|i| w[i] + w[(i + 7) % w.len()] + w[(i + 31) % w.len()]).collect();
    let halves = if per_row { w.chunks(12 * 40) } else { w[..12 * 40].chunks(12 * 40) };
    let mut groups: Vec<Group<'_>> = halves
        .map(|w| {
            let problem = Problem::new(w, &moments, true);
            let limits = Constraints { levels, least_scale: &least, per_row };
            let solution = problem.solve(Method::Search, &limits, threads);
            Group { problem, limits, solution }
        })
        .collect();
    refine(&mut groups, &terms, threads);
    for group in &groups {
        let rows = group.solution.integers.chunks(40).zip(&group.solution.scales).enumerate();
        let error: f64 = rows.map(|(row, (integers, &scale))| group.problem.error(row, integers, scale)).sum();
        assert!((group.solution.error - error).abs() <= 1e-4 * error, "{} {error}", group.solution.error);
    }
    groups.into_iter().map(|group| group.solution).collect()
}

fn integers(solutions: &[Solution]) -> Vec<i32> {
    solutions.iter().flat_map(|solution| solution.integers.clone()).collect()
}

#[test]
fn a_price_of_bits_buys_fewer_bits() {
    for (levels, per_row) in [(INT4, true), (INT4, false), (Levels::I8, true)] {
        let at = |rate: f64| {
            let solutions = refined(Terms { rate, ..Terms::default() }, levels, per_row, 1);
            let integers = integers(&solutions);
            assert!(integers.iter().all(|q| (levels.low..=levels.high).contains(q)));
            (shannon_bits(&integers), solutions.iter().map(|solution| solution.error).sum::<f64>())
        };
        let curve: Vec<(f64, f64)> = [0.0, 0.3, 1.0, 2.0].map(at).to_vec();
        assert!(curve.windows(2).all(|two| two[1].0 <= two[0].0), "{curve:?}");
        assert!(curve[3].0 < curve[2].0 && curve[2].0 < curve[1].0 - 0.1, "{curve:?}");
        // A search from elsewhere may end a little lower.
        assert!(curve.windows(2).all(|two| two[1].1 > 0.99 * two[0].1), "{curve:?}");
        assert!(curve[2].1 > curve[0].1 && curve[2].1 < 2.0 * curve[0].1, "{curve:?}");
    }
}

#[test]
fn a_price_of_kurtosis_flattens_the_integers() {
    for per_row in [true, false] {
        let gaps = |strength: f64| {
            let integers = integers(&refined(Terms { kurtosis: strength, rate: 0.0 }, INT4, per_row, 1));
            let of = |row: &[i32]| crate::metrics::Moments::of_iter(row.iter().map(|&q| q as f32)).kurtosis() - 1.8;
            let parts = integers.chunks(if per_row { 40 } else { integers.len() });
            parts.map(|row| of(row).abs()).sum::<f64>()
        };
        let curve = [0.0, 1.0, 10.0].map(gaps);
        assert!(curve[1] < 0.9 * curve[0] && curve[2] < curve[1], "{curve:?}");
    }
}

#[test]
fn terms_of_no_weight_change_nothing_and_threads_neither() {
    assert_eq!(refined(Terms::default(), INT4, true, 1)[0], {
        let w = weights(24, 40);
        let w: Vec<f32> = (0..12 * 40).map(|i| w[i] + w[(i + 7) % w.len()] + w[(i + 31) % w.len()]).collect();
        solve(&Problem::new(&w, &moments(40, 400, true), true), Method::Search, 1)
    });
    for per_row in [true, false] {
        let terms = Terms { rate: 0.2, kurtosis: 0.2 };
        assert_eq!(refined(terms, INT4, per_row, 1), refined(terms, INT4, per_row, 4));
    }
}

#[test]
fn rows_may_share_one_scale() {
    let problem = Problem::new(&weights(5, 16), &moments(16, 200, true), true);
    let least = [0.0; 5];
    let limits = Constraints { levels: INT4, least_scale: &least, per_row: false };
    let solution = problem.solve(Method::Search, &limits, 2);
    assert!(solution.scales.iter().all(|&scale| scale == solution.scales[0]));
    assert!(solution.error >= solve(&problem, Method::Search, 1).error);
    assert!(solution.error <= problem.solve(Method::Gptq, &limits, 1).error);
}

#[test]
fn scales_leave_room_for_the_bias_and_zero_rows_have_scale_one() {
    let mut w = weights(2, 8);
    w[8..].fill(0.0);
    let problem = Problem::new(&w, &moments(8, 100, true), true);
    let limits = Constraints { levels: INT4, least_scale: &[10.0, 0.0], per_row: true };
    let solution = problem.solve(Method::Search, &limits, 1);
    assert!(solution.scales[0] >= 10.0);
    assert_eq!((solution.scales[1], &solution.integers[8..]), (1.0, &[0; 8][..]));
}

#[test]
fn what_the_layers_before_lost_is_made_up_for() {
    // The quantized prefix gives half of every input; weights twice as large give the output back.
    let depth = 6;
    let mut next = noise(5);
    let float: Vec<f32> = (0..depth * 500).map(|_| next()).collect();
    let half: Vec<f32> = float.iter().map(|x| 0.5 * x).collect();
    let mut moments = Moments::new(depth, Crossed::Inputs);
    moments.add(&Partial::of(&float, &half, depth, Crossed::Inputs));
    let w = weights(1, depth);
    let problem = Problem::new(&w, &moments, true);
    for (&target, &w) in problem.target(0).iter().zip(&w) {
        // Damping pulls towards the weight itself.
        assert!((target / w - 2.0).abs() < 0.2, "{target} {w}");
    }
}

#[test]
fn more_samples_do_not_change_what_partial_sums_say() {
    let depth = 40;
    let mut next = noise(9);
    let patches: Vec<f32> = (0..depth * 64).map(|_| next()).collect();
    let mut whole = Moments::new(depth, Crossed::Inputs);
    whole.add(&Partial::of(&patches, &patches, depth, Crossed::Inputs));
    let mut parts = Moments::new(depth, Crossed::Inputs);
    for part in patches.chunks(16 * depth) {
        parts.add(&Partial::of(part, part, depth, Crossed::Inputs));
    }
    assert_eq!(whole.count(), parts.count());
    let (a, b) = (whole.covariance(true), parts.covariance(true));
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5));
}

#[test]
fn moments_of_outputs_say_what_those_of_inputs_do() {
    let (depth, rows) = (150, 3);
    let mut next = noise(11);
    let float: Vec<f32> = (0..depth * 300).map(|_| next() + 0.3).collect();
    let quantized: Vec<f32> = float.iter().map(|x| 0.8 * x + 0.05 * next()).collect();
    let w = weights(rows, depth);
    assert!(matches!(Crossed::cheaper(&w, depth), Crossed::Outputs(_)));
    assert!(matches!(Crossed::cheaper(&weights(100, depth), depth), Crossed::Inputs));
    let wide: Vec<f64> = w.iter().map(|&w| w.into()).collect();
    for centred in [true, false] {
        let [inputs, outputs] = [Crossed::Inputs, Crossed::Outputs(&w)].map(|crossed| {
            let mut moments = Moments::new(depth, crossed);
            moments.add(&Partial::of(&float, &quantized, depth, crossed));
            moments
        });
        assert_eq!(inputs.covariance(centred), outputs.covariance(centred));
        let [a, b] = [&inputs, &outputs].map(|moments| moments.cross_covariance(&wide, centred));
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-4), "{centred}");
    }
    // The Gram matrix is computed in blocks, of which half are copied.
    let gram = linalg::gram(&quantized, 300, depth);
    let direct = linalg::transposed_product(&quantized, &quantized, depth, 300, depth);
    assert!(gram.iter().zip(&direct).all(|(a, b)| (a - b).abs() < 1e-3));
}

#[test]
fn the_factor_solves_its_matrix() {
    let n = 17;
    let gram = moments(n, 300, true).covariance(true);
    let factor = Factor::new(&gram, n);
    let x: Vec<f64> = (0..n).map(|i| i as f64 - 5.0).collect();
    let mut b: Vec<f64> = gram.chunks(n).map(|row| linalg::dot(row, &x)).collect();
    factor.solve(&mut b);
    assert!(x.iter().zip(&b).all(|(x, b)| (x - b).abs() < 1e-6), "{b:?}");
}

#[test]
fn the_entropy_term_waits_and_then_grows_to_its_full_weight() {
    let options = SoftOptions { steps: 100, warm_up: 0.2, ..SoftOptions::default() };
    let weights: Vec<f64> = (0..=100).map(|step| entropy_weight(&options, step)).collect();
    assert!(weights[..=20].iter().all(|&w| w == 0.0));
    assert!(weights.windows(2).all(|pair| pair[0] <= pair[1]));
    assert_eq!(weights[100], 1.0);
}

#[test]
fn a_convolution_is_the_product_of_its_patches_and_rows() {
    // 2 groups, stride 2, padding 1, dilation 1: against a direct sum.
    let node = Node::new("Conv", "c", ["x", "w"], ["y"])
        .with("group", Attr::Int(2))
        .with("strides", Attr::Ints(vec![2, 1]))
        .with("pads", Attr::Ints(vec![1, 0, 1, 1]));
    let (shape, input) = ([4, 2, 3, 2], [1, 4, 5, 4]);
    let w = Tensor::from_f32(&shape, &weights(4, 12));
    let mut next = noise(11);
    let x: Vec<f32> = (0..80).map(|_| next()).collect();
    let rows = Rows::of(&node, &shape).unwrap();
    let patches = Patches::of(&node, rows, &shape, &input).unwrap();
    let values = rows.values(&w);
    let (oh, ow) = (3, 4);
    assert_eq!(patches.positions(), oh * ow);
    for o in 0..4 {
        let mut cut = Vec::new();
        let all: Vec<usize> = (0..oh * ow).collect();
        patches.cut(&x, &all, o / 2, &mut cut);
        for (position, patch) in cut.chunks(12).enumerate() {
            let product = linalg::dot_f32(patch, &values[o * 12..][..12]);
            let mut direct = 0.0;
            for c in 0..2 {
                for ky in 0..3 {
                    for kx in 0..2 {
                        let (y, xx) = ((position / ow * 2 + ky) as isize - 1, position % ow + kx);
                        if (0..5).contains(&y) && xx < 4 {
                            direct += x[((o / 2 * 2 + c) * 5 + y as usize) * 4 + xx]
                                * values[((o * 2 + c) * 3 + ky) * 2 + kx];
                        }
                    }
                }
            }
            assert!((product - direct).abs() < 1e-5);
        }
    }
}

#[test]
fn a_transposed_convolution_is_the_product_of_its_patches_and_rows() {
    // 2 groups of 2 inputs and 3 outputs, stride 2 and 3, cut off, with output padding: against scattering.
    let node = Node::new("ConvTranspose", "t", ["x", "w"], ["y"])
        .with("group", Attr::Int(2))
        .with("strides", Attr::Ints(vec![2, 3]))
        .with("dilations", Attr::Ints(vec![1, 2]))
        .with("pads", Attr::Ints(vec![1, 0, 0, 2]))
        .with("output_padding", Attr::Ints(vec![1, 0]));
    let (shape, input) = ([4, 3, 3, 2], [1, 4, 5, 4]);
    let w = Tensor::from_f32(&shape, &weights(4, 18));
    let mut next = noise(11);
    let x: Vec<f32> = (0..80).map(|_| next()).collect();
    let rows = Rows::of(&node, &shape).unwrap();
    assert_eq!((rows.rows, rows.depth, rows.groups), (6, 12, 2));
    let patches = Patches::of(&node, rows, &shape, &input).unwrap();
    let (oh, ow) = (4 * 2 + 3 - 1 + 1, 3 * 3 + 3 - 2);
    assert_eq!(patches.positions(), oh * ow);
    let mut direct = vec![0.0; 6 * oh * ow];
    let kernel = w.to_f32();
    for (c, iy, ix) in (0..4).flat_map(|c| (0..5).flat_map(move |y| (0..4).map(move |x| (c, y, x)))) {
        for (o, ky, kx) in (0..3).flat_map(|o| (0..3).flat_map(move |y| (0..2).map(move |x| (o, y, x)))) {
            let (y, xx) = (iy * 2 + ky, ix * 3 + kx * 2);
            if (1..=oh).contains(&y) && xx < ow {
                let weight = kernel[((c * 3 + o) * 3 + ky) * 2 + kx];
                direct[((c / 2 * 3 + o) * oh + y - 1) * ow + xx] += x[(c * 5 + iy) * 4 + ix] * weight;
            }
        }
    }
    let (values, all) = (rows.values(&w), (0..oh * ow).collect::<Vec<usize>>());
    for o in 0..6 {
        let mut cut = Vec::new();
        patches.cut(&x, &all, o / 3, &mut cut);
        for (position, patch) in cut.chunks(12).enumerate() {
            let product = linalg::dot_f32(patch, &values[o * 12..][..12]);
            assert!((product - direct[o * oh * ow + position]).abs() < 1e-5, "{o} {position}");
        }
    }
    let numbered: Vec<i32> = (0..72).collect();
    let by_row = rows.values(&Tensor::from_f32(&shape, &numbered.iter().map(|&v| v as f32).collect::<Vec<_>>()));
    assert_eq!(rows.restore(&by_row.iter().map(|&v| v as i32).collect::<Vec<_>>()), numbered);
}

#[test]
fn rows_go_back_where_they_came_from() {
    let node = Node::new("MatMul", "m", ["x", "w"], ["y"]);
    let weights = Tensor::from_ints(DataType::I8, &[3, 2], &[1, 2, 3, 4, 5, 6]);
    let rows = Rows::of(&node, &weights.shape).unwrap();
    assert_eq!((rows.rows, rows.depth), (2, 3));
    let by_row: Vec<i32> =
        rows.values(&Tensor::from_f32(&[3, 2], &[1., 2., 3., 4., 5., 6.])).iter().map(|&v| v as i32).collect();
    assert_eq!(by_row, [1, 3, 5, 2, 4, 6]);
    assert_eq!(rows.restore(&by_row), [1, 2, 3, 4, 5, 6]);
}
