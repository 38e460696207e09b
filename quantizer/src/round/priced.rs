//! Integers chosen by more than the error: by what they cost in an entropy coder, and by how far their kurtosis is from
//! a uniform law's.
//!
//! The first is the rate term of Girish et al., "SHACIRA", ICCV 2023, section 3, with the code lengths of the layer's own
//! histogram for a learned distribution. It makes entropy-coded downloads smaller, and nothing else. The second is KURE's
//! (Shkolnik et al., "Robust Quantization: One Model to Rule Them All", NeurIPS 2020), on integers, whose kurtosis is that
//! of the weights they stand for.

use super::coordinate::{COARSE, PAIRS, SWEEPS, State};
use super::powers::Powers;
use super::{Constraints, Method, Problem, Row, Solution};
use crate::parallel::in_parallel;
use crate::rate::CodeLengths;

/// Times at most that the histogram is renewed.
const ROUNDS: usize = 6;
/// Factors of all scales of a layer that are tried: coarser steps take fewer bits, finer ones clip the tails.
const FACTORS: [f32; 12] = [0.7, 0.8, 0.9, 1.0, 1.12, 1.25, 1.4, 1.57, 1.76, 2.0, 2.4, 2.8];

/// What integers are chosen by, besides the error. The unit is the error of rounding the row to nearest (at its scale),
/// so that one number fits all layers.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Terms {
    /// Price of a bit per weight of the row, by the code lengths of the layer's integers. Not negative.
    pub rate: f64,
    /// Price of a unit of |kurtosis − 1.8| of the row's integers, or of the layer's where rows share a scale. Not
    /// negative.
    pub kurtosis: f64,
}

impl Terms {
    /// Whether there is any.
    pub fn active(&self) -> bool {
        self.rate > 0.0 || self.kurtosis > 0.0
    }
}

/// One group of a layer, solved.
#[derive(Debug, Clone)]
pub struct Group<'a> {
    /// What was to be solved.
    pub problem: Problem,
    /// Its limits.
    pub limits: Constraints<'a>,
    /// Integers and scales within the limits.
    pub solution: Solution,
}

impl Group<'_> {
    fn integers(&self, row: usize) -> &[i32] {
        &self.solution.integers[row * self.problem.depth..][..self.problem.depth]
    }

    fn put(&mut self, row: usize, solved: &Row) {
        let depth = self.problem.depth;
        self.solution.integers[row * depth..][..depth].copy_from_slice(&solved.integers);
        self.solution.scales[row] = solved.scale;
    }

    /// A row rounded anew at a multiple of its scale.
    fn at(&self, row: usize, factor: f32) -> Row {
        let limits = &self.limits;
        let least = match limits.per_row {
            true => limits.least_scale.get(row).copied().unwrap_or(0.0),
            false => limits.least_scale.iter().copied().fold(0.0, f32::max),
        };
        let scale = (self.solution.scales[row] * factor).max(least);
        self.problem.round(row, scale, Method::Gptq, limits.levels)
    }

    /// Error for each weight of rounding a row to nearest.
    fn unit(&self, row: usize) -> f64 {
        let scale = self.solution.scales[row];
        self.problem.round(row, scale, Method::Nearest, self.limits.levels).error / self.problem.depth.max(1) as f64
    }
}

/// Changes integers and scales of all groups of a layer, however they were found, for the least sum of the error and the
/// terms: first all scales by one factor, then integers one by one and in pairs. Without terms nothing changes. The code
/// lengths are those of all the layer's integers before each round, so the result does not depend on `threads`.
pub fn refine(groups: &mut [Group<'_>], terms: &Terms, threads: usize) {
    if !terms.active() {
        return;
    }
    let rows: Vec<(usize, usize)> =
        groups.iter().enumerate().flat_map(|(group, of)| (0..of.problem.rows()).map(move |row| (group, row))).collect();
    let units = in_parallel(rows.len(), threads, |i| groups[rows[i].0].unit(rows[i].1));
    let depth = groups.first().map_or(0, |group| group.problem.depth) as f64;
    let together = groups.iter().any(|group| !group.limits.per_row);
    let whole = depth * units.iter().sum::<f64>();
    let layer = Layer { terms, units: &units, together };
    let mut least: Option<(f64, Vec<Row>)> = None;
    for factor in FACTORS {
        let at = in_parallel(rows.len(), threads, |i| groups[rows[i].0].at(rows[i].1, factor));
        let cost = layer.cost(&at);
        if least.as_ref().is_none_or(|least| cost < least.0) {
            // The solution given is at least as good as this rounding of it.
            least = Some((cost, if factor == 1.0 { Vec::new() } else { at }));
        }
    }
    for (&(group, row), at) in rows.iter().zip(least.map_or(Vec::new(), |least| least.1)) {
        groups[group].put(row, &at);
    }
    for _ in 0..ROUNDS {
        let integers: Vec<i32> = groups.iter().flat_map(|group| &group.solution.integers).copied().collect();
        let lengths = CodeLengths::of(&integers);
        let solve = |i: usize, powers: Powers| {
            let (group, row) = (&groups[rows[i].0], rows[i].1);
            let kurtosis = terms.kurtosis * if together { whole } else { units[i] * depth };
            Priced::new(group, row, &lengths, terms.rate * units[i], kurtosis, powers).improved()
        };
        let solved: Vec<Row> = if together && terms.kurtosis > 0.0 {
            // The kurtosis is that of all rows: one after the other.
            let mut all = Powers::of(&integers);
            let one_more = |i: usize| {
                let row = solve(i, all);
                let old = Powers::of(groups[rows[i].0].integers(rows[i].1));
                all = all.exchanged(&old, &Powers::of(&row.integers));
                row
            };
            (0..rows.len()).map(one_more).collect()
        } else {
            in_parallel(rows.len(), threads, |i| solve(i, Powers::of(groups[rows[i].0].integers(rows[i].1))))
        };
        let mut changed = false;
        for (&(group, row), solved) in rows.iter().zip(solved) {
            changed |= *groups[group].integers(row) != *solved.integers;
            groups[group].put(row, &solved);
        }
        if !changed {
            break;
        }
    }
    for Group { problem, solution, .. } in groups {
        let of_row = |row: usize| {
            let integers = &solution.integers[row * problem.depth..][..problem.depth];
            problem.error(row, integers, solution.scales[row])
        };
        solution.error = (0..problem.rows()).map(of_row).sum();
    }
}

/// What solutions of a whole layer are compared by.
struct Layer<'a> {
    terms: &'a Terms,
    /// Of each row.
    units: &'a [f64],
    /// Whether rows share a scale.
    together: bool,
}

impl Layer<'_> {
    /// Error and terms, with the code lengths of these very integers.
    fn cost(&self, rows: &[Row]) -> f64 {
        let error: f64 = rows.iter().map(|row| row.error).sum();
        let integers: Vec<i32> = rows.iter().flat_map(|row| &row.integers).copied().collect();
        let lengths = CodeLengths::of(&integers);
        let bits: f64 = rows.iter().zip(self.units).map(|(row, unit)| unit * lengths.total(&row.integers)).sum();
        let gap = |integers: &[i32]| Powers::of(integers).gap().unwrap_or(0.0);
        let size = |row: &Row, unit: f64| unit * row.integers.len() as f64;
        let of_rows = rows.iter().zip(self.units);
        let gaps: f64 = match self.together {
            true => gap(&integers) * of_rows.map(|(row, &unit)| size(row, unit)).sum::<f64>(),
            false => of_rows.map(|(row, &unit)| gap(&row.integers) * size(row, unit)).sum(),
        };
        error + self.terms.rate * bits + self.terms.kurtosis * gaps
    }
}

/// A row on its way.
struct Priced<'p> {
    state: State<'p>,
    /// Whether the row has a scale of its own, and its least.
    least_scale: Option<f32>,
    /// What each level costs, from the lowest on, in units of the error; and the least of it.
    prices: Vec<f64>,
    least_price: f64,
    /// What a unit of the kurtosis' gap costs, and what is known of the integers it is of.
    kurtosis: f64,
    powers: Powers,
    /// What one step up, or down, of each integer adds to the terms; infinite where there is no level.
    up: Vec<f64>,
    down: Vec<f64>,
}

impl<'p> Priced<'p> {
    fn new(group: &'p Group<'_>, row: usize, lengths: &CodeLengths, bit: f64, kurtosis: f64, powers: Powers) -> Self {
        let levels = group.limits.levels;
        let scale = group.solution.scales[row];
        let start = Row { integers: group.integers(row).to_vec(), scale, error: f64::INFINITY };
        let prices: Vec<f64> = (levels.low..=levels.high).map(|q| bit * lengths.bits(q)).collect();
        let least = group.limits.least_scale.get(row).copied().unwrap_or(0.0);
        Self {
            state: State::new(&group.problem, row, start, levels),
            least_scale: group.limits.per_row.then_some(least),
            least_price: prices.iter().copied().fold(f64::INFINITY, f64::min),
            prices,
            kurtosis,
            powers,
            up: Vec::new(),
            down: Vec::new(),
        }
    }

    fn improved(mut self) -> Row {
        for _ in 0..SWEEPS {
            if !self.singles() && !self.pairs() {
                break;
            }
        }
        if let Some(least) = self.least_scale {
            self.state.refit(least);
        }
        Row { integers: self.state.integers, scale: self.state.scale, error: f64::INFINITY }
    }

    fn price(&self, q: i32) -> f64 {
        self.prices[(q - self.state.low) as usize]
    }

    /// What moves of single integers add to the terms, one after the other.
    fn added(&self, moves: &[(i32, i32)]) -> f64 {
        let rate: f64 = moves.iter().map(|&(from, to)| self.price(to) - self.price(from)).sum();
        if self.kurtosis == 0.0 {
            return rate;
        }
        let after = moves.iter().fold(self.powers, |powers, &(from, to)| powers.moved(from, to));
        rate + self.kurtosis * self.powers.growth(&after)
    }

    fn change(&mut self, i: usize, to: i32) {
        let from = self.state.integers[i];
        self.powers = self.powers.moved(from, to);
        self.state.change(i, to - from);
    }

    /// The best level for each integer alone. Whether any helped.
    fn singles(&mut self) -> bool {
        let scale = f64::from(self.state.scale);
        let (low, high) = (self.state.low, self.state.high);
        let mut changed = false;
        for i in 0..self.state.depth {
            let (now, slope, curvature) = (self.state.integers[i], self.state.gradient[i], self.state.diagonal[i]);
            let off = -slope / (curvature * scale);
            let wanted = (f64::from(now) + off).round_ties_even().clamp(low.into(), high.into()) as i32;
            let error = |q: i32| {
                let delta = f64::from(q - now) * scale;
                delta * (2.0 * slope + delta * curvature)
            };
            // Outwards from the level of the least error, as far as the terms could make up for it.
            let most = self.price(now) - self.least_price + self.kurtosis * self.powers.gap().unwrap_or(0.0);
            let mut best = (-1e-9 * curvature * scale * scale, now);
            let mut look = |q: i32| {
                if error(q) - most >= best.0 {
                    return false;
                }
                let total = error(q) + self.added(&[(now, q)]);
                if q != now && total < best.0 {
                    best = (total, q);
                }
                true
            };
            let _ = (wanted..=high).all(&mut look);
            let _ = (low..wanted).rev().all(&mut look);
            if best.1 != now {
                self.change(i, best.1);
                changed = true;
            }
        }
        changed
    }

    /// For each integer the best change by one step together with one of another. Whether any helped.
    fn pairs(&mut self) -> bool {
        let (low, high) = (self.state.low, self.state.high);
        if self.state.depth > PAIRS || high - low > COARSE {
            return false;
        }
        let scale = f64::from(self.state.scale);
        let mut changed = false;
        self.price_steps();
        for i in 0..self.state.depth {
            let row = self.state.row(i);
            let now = self.state.integers[i];
            let mut best = (-1e-9 * row[i] * scale * scale, 0, 0, 0);
            for (step, terms) in [(1, self.up[i]), (-1, self.down[i])] {
                let delta = f64::from(step) * scale;
                let alone = delta * (2.0 * self.state.gradient[i] + delta * row[i]);
                if alone + terms + self.least_gain(row, delta) >= best.0 {
                    continue;
                }
                for (j, r) in row.iter().enumerate().filter(|&(j, _)| j != i) {
                    let slope = self.state.gradient[j] + delta * r;
                    let then = self.state.integers[j];
                    for (other, others) in [(1, self.up[j]), (-1, self.down[j])] {
                        let gain = alone + step_gain(scale, slope, self.state.diagonal[j], other);
                        // Kurtosis is not a sum over integers; where it looks well, the pair's own counts.
                        if gain + terms + others < best.0 {
                            let total = gain + self.added(&[(now, now + step), (then, then + other)]);
                            if total < best.0 {
                                best = (total, step, j, other);
                            }
                        }
                    }
                }
            }
            if best.1 != 0 {
                self.change(i, now + best.1);
                self.change(best.2, self.state.integers[best.2] + best.3);
                match self.kurtosis == 0.0 {
                    true => [i, best.2].into_iter().for_each(|i| self.price_step(i)),
                    false => self.price_steps(),
                }
                changed = true;
            }
        }
        changed
    }

    fn price_steps(&mut self) {
        self.up.resize(self.state.depth, 0.0);
        self.down.resize(self.state.depth, 0.0);
        (0..self.state.depth).for_each(|i| self.price_step(i));
    }

    fn price_step(&mut self, i: usize) {
        let q = self.state.integers[i];
        self.up[i] = if q < self.state.high { self.added(&[(q, q + 1)]) } else { f64::INFINITY };
        self.down[i] = if q > self.state.low { self.added(&[(q, q - 1)]) } else { f64::INFINITY };
    }

    /// The least that one step of any integer adds once another has moved by `delta`, in eight interleaved parts so that
    /// the compiler can keep them in vector registers.
    fn least_gain(&self, row: &[f64], delta: f64) -> f64 {
        let scale = f64::from(self.state.scale);
        let mut least = [f64::INFINITY; 8];
        let state = self.state.gradient.chunks(8).zip(self.state.diagonal.chunks(8));
        let parts = state.zip(row.chunks(8)).zip(self.up.chunks(8).zip(self.down.chunks(8)));
        for (((gradient, diagonal), row), (up, down)) in parts {
            let state = gradient.iter().zip(diagonal).zip(row);
            for (least, (((g, d), r), (up, down))) in least.iter_mut().zip(state.zip(up.iter().zip(down))) {
                let slope = g + delta * r;
                let (up, down) = (step_gain(scale, slope, *d, 1) + up, step_gain(scale, slope, *d, -1) + down);
                let gain = if up < down { up } else { down };
                *least = if gain < *least { gain } else { *least };
            }
        }
        least.into_iter().fold(f64::INFINITY, f64::min)
    }
}

/// What one step adds to the error.
fn step_gain(scale: f64, slope: f64, curvature: f64, step: i32) -> f64 {
    scale * (scale * curvature + 2.0 * f64::from(step) * slope)
}
