//! How good a quantized model is: signal-to-quantization-noise ratio, agreement, task metrics.
//!
//! All sums are in f64 and accumulators are merged in sample order ([`crate::exec::fold`]), so that a result does
//! not depend on the number of threads.

mod evaluation;
mod moments;
mod rank;
mod signal;
mod task;

pub use evaluation::{Evaluation, Observation, Scores, Tally};
pub use moments::Moments;
pub use rank::spearman;
pub use signal::{Cosine, MAX_DB, MaxError, Sqnr};
pub use task::{Agreement, Auc, Metric, Top1, argmax, mean_squared_error};
