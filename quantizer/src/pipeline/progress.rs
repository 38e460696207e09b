//! What a long run tells while it goes on.

use std::time::Instant;

use crate::report::Stage;

/// Is told how the work goes on. All methods are called from the thread that runs the work.
pub trait Progress {
    /// A step begins; `total` is its number of samples, or 0 when it cannot be counted.
    fn begin(&self, step: &'static str, total: usize);
    /// This many more samples of the step are done.
    fn advance(&self, samples: usize);
    /// The step is done after `seconds`.
    fn end(&self, step: &'static str, seconds: f64);
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: &'static str, _: usize) {}
    fn advance(&self, _: usize) {}
    fn end(&self, _: &'static str, _: f64) {}
}

/// Times steps and tells about them.
pub(super) struct Clock<'a> {
    progress: &'a dyn Progress,
    pub(super) stages: Vec<Stage>,
}

impl<'a> Clock<'a> {
    pub(super) fn new(progress: &'a dyn Progress) -> Self {
        Self { progress, stages: Vec::new() }
    }

    /// Runs one step. It is handed the function that counts samples.
    pub(super) fn step<T, E>(
        &mut self,
        name: &'static str,
        total: usize,
        work: impl FnOnce(&dyn Fn(usize)) -> Result<T, E>,
    ) -> Result<T, E> {
        self.progress.begin(name, total);
        let start = Instant::now();
        let result = work(&|samples| self.progress.advance(samples));
        let seconds = start.elapsed().as_secs_f64();
        self.progress.end(name, seconds);
        self.stages.push(Stage { name, seconds });
        result
    }
}
