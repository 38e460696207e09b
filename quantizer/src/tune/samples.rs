//! Calibration samples in memory, split into those trained on and those held out.

use super::Error;
use super::options::{LEAST_SAMPLES, MOST_SAMPLES};
use crate::data::{Batch, Samples};
use crate::random::Random;

/// Samples read together.
const READ: usize = 64;

/// Samples by index.
#[derive(Debug)]
pub(super) struct Memory {
    /// For each graph input, all samples, and elements of one.
    inputs: Vec<(Vec<f32>, usize)>,
    /// Indices of samples trained on.
    pub(super) train: Vec<usize>,
    /// Indices of the others.
    pub(super) held: Vec<usize>,
}

impl Memory {
    /// Reads the first samples and splits them at random.
    pub(super) fn read(samples: &Samples, held_out: f64, seed: u64) -> Result<Self, Error> {
        let samples = samples.head(MOST_SAMPLES);
        let count = samples.len();
        if count < LEAST_SAMPLES {
            return Err(Error::TooFew(count));
        }
        let mut inputs: Vec<(Vec<f32>, usize)> = Vec::new();
        for batch in samples.batches(READ)? {
            let batch = batch?;
            inputs.resize(batch.inputs.len(), (Vec::new(), 0));
            for ((all, size), part) in inputs.iter_mut().zip(batch.inputs) {
                *size = part.len() / batch.count.max(1);
                all.extend(part);
            }
        }
        let mut order = Random::at(seed, [0, 0]).permutation(count);
        // At least a batch's worth on either side.
        let held = (count as f64 * held_out.clamp(0.0, 1.0)) as usize;
        let train = order.split_off(held.clamp(LEAST_SAMPLES / 4, count - LEAST_SAMPLES / 4));
        Ok(Self { inputs, train, held: order })
    }

    /// Number of graph inputs.
    pub(super) fn inputs(&self) -> usize {
        self.inputs.len()
    }

    /// One sample of an input.
    pub(super) fn sample(&self, input: usize, index: usize) -> &[f32] {
        let (all, size) = &self.inputs[input];
        &all[index * size..][..*size]
    }

    /// Some samples of every input, one after the other.
    pub(super) fn gather(&self, indices: &[usize]) -> Vec<Vec<f32>> {
        let of = |input: usize| indices.iter().flat_map(|&i| self.sample(input, i)).copied().collect();
        (0..self.inputs.len()).map(of).collect()
    }

    /// The same as a batch for an executor.
    pub(super) fn batch(&self, indices: &[usize]) -> Batch {
        Batch { first: 0, count: indices.len(), inputs: self.gather(indices) }
    }
}
