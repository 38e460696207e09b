//! The distance to the float model, and its gradients for a batch.

use candle_core::Tensor as Value;

use super::loss::{Distil, Kurtosis, Squares, Tempering};
use super::options::Options;
use super::report::{Distance, Sums};
use super::samples::Memory;
use super::shards::in_parallel;
use crate::diff::{Drop, Error, Leaves, Program, Quantization, Span, to_vec};
use crate::metrics::argmax;
use crate::random::Random;

/// Elements of the largest value of one shard: what is computed together stays in a core's cache, and candle's own loops
/// on one thread.
const SHARD: usize = (1 << 16) - 1;
/// Samples on which the float model is measured.
const MEASURED: usize = 128;
/// Plain probabilities.
const PLAIN: Tempering = Tempering { exponent: 1.0, weighted: false };

/// What a step minimizes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Aim<'s> {
    /// The distance of outputs and features.
    Whole,
    /// The error at the end of one part.
    Part(&'s Span),
}

/// Everything that stays the same from step to step.
pub(super) struct Objective<'a> {
    program: &'a Program,
    options: &'a Options,
    memory: &'a Memory,
    /// Number of classes, if the first output has classes.
    pub(super) classes: Option<usize>,
    /// Intermediate values that are compared.
    features: Vec<usize>,
    /// For each value that may be compared, the reciprocal of its variance times its elements.
    factors: Vec<f64>,
    /// Samples computed together.
    shard: usize,
}

/// Sums over elements of a value.
#[derive(Debug, Clone, Copy, Default)]
struct Moments {
    count: f64,
    sum: f64,
    squares: f64,
}

impl<'a> Objective<'a> {
    /// The objective, and the root mean square of the float outputs of each layer and each shift.
    pub(super) fn new(
        program: &'a Program,
        options: &'a Options,
        memory: &'a Memory,
        classes: Option<usize>,
    ) -> Result<(Self, Vec<f32>), Error> {
        let mut objective = Self {
            program,
            options,
            memory,
            classes,
            features: program.features(),
            factors: Vec::new(),
            shard: (SHARD / program.largest().max(1)).clamp(1, options.batch.max(1)),
        };
        let all: Vec<usize> = (0..program.values()).collect();
        let moments = objective.measure(&all)?;
        let samples = memory.train.len().min(MEASURED) as f64;
        let factor = |m: &Moments| {
            let spread = (m.squares - m.sum * m.sum / m.count.max(1.0)) / samples;
            if spread > 0.0 { 1.0 / spread } else { 0.0 }
        };
        objective.factors = moments.iter().map(factor).collect();
        let layers = program.layers.iter().map(|layer| layer.output);
        let outputs = layers.chain(program.shifts.iter().map(|shift| shift.output));
        let size = |value: usize| (moments[value].squares / moments[value].count.max(1.0)).sqrt() as f32;
        Ok((objective, outputs.map(size).collect()))
    }

    /// Sums over the float model's values on some samples.
    fn measure(&self, wanted: &[usize]) -> Result<Vec<Moments>, Error> {
        let some = &self.memory.train[..self.memory.train.len().min(MEASURED)];
        let shards: Vec<&[usize]> = some.chunks(self.shard).collect();
        let parts = in_parallel(shards.len(), self.options.threads, |i| {
            let values = self.program.run(&self.memory.gather(shards[i]), None, wanted)?;
            let moments = |value: &Value| -> Result<Moments, Error> {
                let values = to_vec(value)?;
                let mut moments = Moments { count: values.len() as f64, ..Moments::default() };
                for x in values.into_iter().map(f64::from) {
                    moments.sum += x;
                    moments.squares += x * x;
                }
                Ok(moments)
            };
            values.iter().map(moments).collect::<Result<Vec<_>, Error>>()
        });
        let mut totals = vec![Moments::default(); wanted.len()];
        for part in parts {
            for (total, part) in totals.iter_mut().zip(part?) {
                total.count += part.count;
                total.sum += part.sum;
                total.squares += part.squares;
            }
        }
        Ok(totals)
    }

    /// The loss of a batch, and its gradients to all leaves.
    pub(super) fn gradients(
        &self,
        leaves: &Leaves,
        batch: &[usize],
        aim: Aim<'_>,
        step: usize,
        drop: f64,
    ) -> Result<(f64, Vec<Vec<f32>>), Error> {
        let shards: Vec<&[usize]> = batch.chunks(self.shard).collect();
        let parts = in_parallel(shards.len(), self.options.threads, |i| {
            let share = (drop.clamp(0.0, 1.0) * f64::from(u32::MAX)) as u32;
            let seed = Random::at(self.options.seed, [step as u64, !(i as u64)]).bits() as u32;
            let drop = (share > 0).then_some(Drop { seed, share });
            self.shard(leaves, shards[i], batch.len(), aim, step, drop)
        });
        let mut total: Option<(f64, Vec<Vec<f32>>)> = None;
        for part in parts {
            let (loss, part) = part?;
            match &mut total {
                None => total = Some((loss, part)),
                Some((sum, total)) => {
                    *sum += loss;
                    for (total, part) in total.iter_mut().zip(&part) {
                        total.iter_mut().zip(part).for_each(|(sum, g)| *sum += g);
                    }
                }
            }
        }
        Ok(total.unwrap_or_default())
    }

    fn shard(
        &self,
        leaves: &Leaves,
        indices: &[usize],
        batch: usize,
        aim: Aim<'_>,
        step: usize,
        drop: Option<Drop>,
    ) -> Result<(f64, Vec<Vec<f32>>), Error> {
        let inputs = self.varied(indices, step);
        let whole = matches!(aim, Aim::Whole);
        let outputs = self.program.outputs.len();
        let (wanted, weight) = match aim {
            Aim::Part(span) => (vec![span.end], 1.0),
            Aim::Whole => {
                let features = if self.options.loss.features > 0.0 { &self.features[..] } else { &[] };
                let weight = self.options.loss.features / features.len().max(1) as f64;
                ([&self.program.outputs[..], features].concat(), weight)
            }
        };
        let teacher = self.program.run(&inputs, None, &wanted)?;
        let layers: Vec<usize> = match whole && self.options.loss.kurtosis > 0.0 {
            true => self.program.layers.iter().map(|layer| layer.output).collect(),
            false => Vec::new(),
        };
        let quantization = Quantization { leaves, drop };
        let student = self.program.run(&inputs, Some(&quantization), &[&wanted[..], &layers].concat())?;
        let mut terms = Vec::new();
        for (i, (teacher, student)) in teacher.iter().zip(&student).enumerate() {
            let target = to_vec(teacher)?;
            let weight = if whole && i < outputs {
                terms.extend(self.distil(i, &target, student, batch)?);
                if self.classes.is_some() { self.options.loss.outputs } else { 1.0 }
            } else {
                weight
            };
            let factor = weight * self.factors[wanted[i]] / batch as f64;
            if factor > 0.0 {
                terms.push(student.apply_op1(Squares { target, factor })?);
            }
        }
        for (&layer, value) in layers.iter().zip(&student[wanted.len()..]) {
            terms.push(value.apply_op1(self.kurtosis(layer, value, batch))?);
        }
        let gradients = match terms.split_first() {
            None => None,
            Some((first, rest)) => {
                let mut loss = first.clone();
                for term in rest {
                    loss = loss.add(term)?;
                }
                Some((f64::from(loss.to_scalar::<f32>()?), loss.backward()?))
            }
        };
        let of = |leaf: &Value| match gradients.as_ref().and_then(|(_, gradients)| gradients.get(leaf)) {
            Some(gradient) => Ok(to_vec(gradient)?),
            None => Ok(vec![0.0; leaf.elem_count()]),
        };
        let all = leaves.all().map(of).collect::<Result<Vec<_>, Error>>()?;
        Ok((gradients.map_or(0.0, |(loss, _)| loss), all))
    }

    /// Divergence of the classes of output `i`, if it has some.
    fn distil(&self, i: usize, teacher: &[f32], student: &Value, batch: usize) -> Result<Option<Value>, Error> {
        let loss = &self.options.loss;
        let (0, Some(classes), true) = (i, self.classes, loss.divergence > 0.0) else { return Ok(None) };
        let tempering = Tempering { exponent: loss.exponent, weighted: loss.weighted };
        let distil = Distil::new(teacher, classes, tempering, loss.divergence / batch as f64);
        Ok(Some(student.apply_op1(distil)?))
    }

    fn kurtosis(&self, layer: usize, value: &Value, batch: usize) -> Kurtosis {
        let shape = self.program.shape(layer);
        // Images have their channels second, everything else last.
        let (channels, inner) = match shape {
            [_, channels, height, width] => (*channels, height * width),
            _ => (shape.last().copied().unwrap_or(1), 1),
        };
        let per_sample = shape.iter().skip(1).product::<usize>().max(1);
        let places = value.elem_count() / channels.max(1) * batch / (value.elem_count() / per_sample).max(1);
        let factor = self.options.loss.kurtosis / (places.max(1) * self.program.layers.len().max(1)) as f64;
        Kurtosis { channels, inner, factor }
    }

    /// Samples varied at random, in a way that depends on the step and the sample alone.
    fn varied(&self, indices: &[usize], step: usize) -> Vec<Vec<f32>> {
        let train = &self.memory.train;
        let of = |(input, shape): (usize, &[usize])| -> Vec<f32> {
            let varied = indices.iter().flat_map(|&index| {
                // The same for every input.
                let mut random = Random::at(self.options.seed, [step as u64, index as u64]);
                let other = train[random.below(train.len())];
                let (sample, other) = (self.memory.sample(input, index), self.memory.sample(input, other));
                self.options.augment.apply(sample, other, shape, &mut random)
            });
            varied.collect()
        };
        (0..self.memory.inputs()).zip(self.program.input_shapes()).map(of).collect()
    }

    /// The distance on held-out samples.
    pub(super) fn held_out(&self, leaves: &Leaves) -> Result<Distance, Error> {
        let shards: Vec<&[usize]> = self.memory.held.chunks(self.shard).collect();
        let outputs = &self.program.outputs;
        let parts = in_parallel(shards.len(), self.options.threads, |i| {
            let inputs = self.memory.gather(shards[i]);
            let teacher = self.program.run(&inputs, None, outputs)?;
            let student = self.program.run(&inputs, Some(&Quantization { leaves, drop: None }), outputs)?;
            let flat = |values: &[Value]| values.iter().map(|v| Ok(to_vec(v)?)).collect::<Result<Vec<_>, Error>>();
            Ok(self.compare(shards[i].len(), &flat(&teacher)?, &flat(&student)?))
        });
        self.distance(parts)
    }

    /// What held-out samples judge by: the less the better, 0 for equality.
    pub(super) fn badness(&self, distance: &Distance) -> f64 {
        match self.classes {
            Some(_) => distance.divergence,
            None => 10f64.powf(-distance.sqnr_db / 10.0),
        }
    }

    /// The distance of a sum of parts.
    pub(super) fn distance<E>(&self, parts: impl IntoIterator<Item = Result<Sums, E>>) -> Result<Distance, E> {
        let mut total = Sums::default();
        for part in parts {
            total.add(&part?);
        }
        Ok(total.distance(self.classes.is_some()))
    }

    /// Compares the outputs of some samples.
    pub(super) fn compare(&self, samples: usize, teacher: &[Vec<f32>], student: &[Vec<f32>]) -> Sums {
        let mut sums = Sums { samples, ..Sums::default() };
        for (t, s) in teacher.iter().zip(student) {
            for (&t, &s) in t.iter().zip(s) {
                let (t, s) = (f64::from(t), f64::from(s));
                sums.signal += t * t;
                sums.noise += (t - s) * (t - s);
            }
        }
        if let (Some(classes), Some(t), Some(s)) = (self.classes, teacher.first(), student.first()) {
            sums.divergence = Distil::new(t, classes, PLAIN, 1.0).value(s);
            let same = t.chunks(classes).zip(s.chunks(classes)).filter(|(t, s)| argmax(t) == argmax(s));
            sums.agree = same.count();
        }
        sums
    }
}
