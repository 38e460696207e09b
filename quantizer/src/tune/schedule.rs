//! The phases of tuning and their steps.

use std::time::Instant;

use super::adam::{Adam, cosine};
use super::objective::{Aim, Objective};
use super::options::{Options, Rounding};
use super::parameters::{Parameters, Regularizers, Rendering, Space};
use super::report::{Distance, Look};
use super::samples::Memory;
use crate::diff::{Error, Program, Span};
use crate::random::Random;

/// Steps that may fail (a loss or gradient that is no number) before tuning stops.
const FAILURES: usize = 3;
/// Learning rates after such a step.
const SLOWER: f32 = 0.3;
/// Exponent β of soft rounding's regularizer: from the first to the second, after a share of the way without it.
const BETA: (f64, f64) = (20.0, 2.0);
/// That share.
const WARM_UP: f64 = 0.2;

/// A run of tuning.
pub(super) struct Run<'a> {
    objective: &'a Objective<'a>,
    space: &'a Space,
    options: &'a Options,
    memory: &'a Memory,
    start: Instant,
    parameters: Parameters,
    /// Step, distance and parameters of the best look.
    best: (usize, Distance, Parameters),
    /// Indices of samples still to come in this pass over the samples.
    queue: Vec<usize>,
    /// Factor of the learning rates.
    pace: f32,
    failures: usize,
    pub(super) steps: usize,
    pub(super) history: Vec<Look>,
    pub(super) notes: Vec<String>,
}

/// Some steps with one aim.
struct Phase<'s> {
    aim: Aim<'s>,
    rendering: Rendering,
    /// The blocks of parameters that move.
    moving: Vec<bool>,
    steps: usize,
    /// Whether looks at held-out samples count.
    judged: bool,
    /// Share of all of the time budget at which the phase ends.
    until: f64,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        objective: &'a Objective<'a>,
        space: &'a Space,
        options: &'a Options,
        memory: &'a Memory,
        start: Instant,
    ) -> Result<Self, Error> {
        let parameters = space.zeros();
        let before = objective.held_out(&space.leaves(&parameters, Rendering::Exact, &[])?)?;
        Ok(Self {
            objective,
            space,
            options,
            memory,
            start,
            best: (0, before, parameters.clone()),
            parameters,
            queue: Vec::new(),
            pace: 1.0,
            failures: 0,
            steps: 0,
            history: vec![Look { step: 0, distance: before }],
            notes: Vec::new(),
        })
    }

    /// Step, distance and parameters of the best look.
    pub(super) fn best(&self) -> (usize, Distance, &Parameters) {
        (self.best.0, self.best.1, &self.best.2)
    }

    /// All phases.
    pub(super) fn all(&mut self, program: &Program, progress: &dyn Fn(usize)) -> Result<(), Error> {
        let everything = vec![true; self.space.zeros().len()];
        let spans = if self.options.block_steps > 0 { program.spans() } else { Vec::new() };
        let rendering = match self.options.rounding {
            Rounding::Straight => Rendering::Exact,
            Rounding::Soft(_) => Rendering::Relaxed,
        };
        let mut phases = Vec::new();
        let phase = |aim, rendering, moving, steps| Phase { aim, rendering, moving, steps, judged: false, until: 1.0 };
        if self.options.wide_steps > 0 {
            phases.push(phase(Aim::Whole, Rendering::Wide, everything.clone(), self.options.wide_steps));
        }
        for (i, span) in spans.iter().enumerate() {
            let aim = if i + 1 == spans.len() { Aim::Whole } else { Aim::Part(span) };
            phases.push(phase(aim, rendering, self.moving(program, span), self.options.block_steps));
        }
        phases.push(Phase { judged: true, ..phase(Aim::Whole, rendering, everything, self.options.steps) });
        let total: usize = phases.iter().map(|phase| phase.steps).sum();
        let mut done = 0;
        for phase in &mut phases {
            done += phase.steps;
            phase.until = done as f64 / total.max(1) as f64;
        }
        for phase in &phases {
            self.phase(phase, progress)?;
        }
        Ok(())
    }

    fn moving(&self, program: &Program, span: &Span) -> Vec<bool> {
        let mask = |count: usize, chosen: &[usize]| (0..count).map(|i| chosen.contains(&i)).collect::<Vec<bool>>();
        self.space.select(
            &mask(program.layers.len(), &span.layers),
            &mask(program.shifts.len(), &span.shifts),
            &mask(program.groups.len(), &span.groups),
        )
    }

    /// The share of the time budget that is spent.
    fn spent(&self) -> f64 {
        match self.options.time_budget {
            Some(budget) => self.start.elapsed().as_secs_f64() / budget.as_secs_f64().max(1e-9),
            None => 0.0,
        }
    }

    fn phase(&mut self, phase: &Phase<'_>, progress: &dyn Fn(usize)) -> Result<(), Error> {
        let mut adam = Adam::new(self.space.zeros());
        let began = self.spent();
        for step in 0..phase.steps {
            let spent = self.spent();
            if spent >= phase.until || self.failures >= FAILURES {
                break;
            }
            // By steps, or by the budget where that is ahead.
            let of_budget = (spent - began) / (phase.until - began).max(1e-9);
            let way = (step as f64 / phase.steps as f64).max(of_budget);
            self.step(phase, &mut adam, way)?;
            self.steps += 1;
            progress(1);
            let last = step + 1 == phase.steps;
            if phase.judged && (last || (step + 1).is_multiple_of(self.options.every.max(1))) {
                self.look()?;
            }
        }
        // What came after the last look counts too.
        if phase.judged && self.history.last().is_none_or(|look| look.step != self.steps) {
            self.look()?;
        }
        Ok(())
    }

    fn step(&mut self, phase: &Phase<'_>, adam: &mut Adam, way: f64) -> Result<(), Error> {
        let batch = self.next_batch();
        let leaves = self.space.leaves(&self.parameters, phase.rendering, &phase.moving)?;
        let drop = self.options.drop * f64::from(cosine(way));
        let (loss, of_leaves) = self.objective.gradients(&leaves, &batch, phase.aim, self.steps, drop)?;
        let mut gradients = self.space.gradients(&self.parameters, &of_leaves, phase.rendering);
        self.space.regularize(&self.parameters, &mut gradients, &self.regularizers(way));
        let finite = |g: &f32| g.is_finite();
        if !loss.is_finite() || !gradients.iter().all(|block| block.values.iter().all(finite)) {
            // Back to what is known to work, and slower.
            self.failures += 1;
            self.pace *= SLOWER;
            self.parameters.clone_from(&self.best.2);
            *adam = Adam::new(self.space.zeros());
            self.notes.push(format!("step {}: the loss or a gradient was not finite", self.steps + 1));
            return Ok(());
        }
        for (gradient, &moves) in gradients.iter_mut().zip(&phase.moving) {
            if !moves {
                gradient.values.clear();
            }
        }
        adam.step(&mut self.parameters, &gradients, &self.options.rates, self.pace * cosine(way));
        Ok(())
    }

    fn regularizers(&self, way: f64) -> Regularizers {
        let decided = match self.options.rounding {
            Rounding::Soft(factor) if way >= WARM_UP => {
                let way = (way - WARM_UP) / (1.0 - WARM_UP);
                (factor, BETA.0 + (BETA.1 - BETA.0) * way)
            }
            _ => (0.0, BETA.0),
        };
        let loss = &self.options.loss;
        // The distribution matters before weights settle.
        Regularizers { shape: loss.shape * f64::from(cosine(way)), anchor: loss.anchor, decided }
    }

    /// The next samples of a pass in random order.
    fn next_batch(&mut self) -> Vec<usize> {
        let train = &self.memory.train;
        let size = self.options.batch.clamp(1, train.len());
        if self.queue.len() < size {
            let order = Random::at(self.options.seed, [1, self.steps as u64]).permutation(train.len());
            self.queue.extend(order.into_iter().map(|i| train[i]));
        }
        self.queue.drain(..size).collect()
    }

    fn look(&mut self) -> Result<(), Error> {
        let leaves = self.space.leaves(&self.parameters, Rendering::Exact, &[])?;
        let distance = self.objective.held_out(&leaves)?;
        self.history.push(Look { step: self.steps, distance });
        if self.objective.badness(&distance) < self.objective.badness(&self.best.1) {
            self.best = (self.steps, distance, self.parameters.clone());
        }
        Ok(())
    }
}
