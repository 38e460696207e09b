//! Rewrites of a float graph that leave what it computes and make it quantize better.
//!
//! Between observation and quantization, channels are scaled: what makes a channel multiplies it by a factor, what reads
//! it divides by the same, and since everything between commutes with positive factors, the outputs stay. Activations
//! that share a step then have channels of similar ranges, at the price of weights with less similar ones; rules weigh
//! one against the other ([`Method`]).

mod channels;
mod decisions;
mod descent;
mod factors;
mod layout;
mod noise;
mod ranges;
mod rewrite;
mod statistics;
mod trace;

#[cfg(test)]
mod tests;

pub use channels::Channels;
pub use decisions::Decision;
pub use factors::Method;
pub use noise::Precision;
pub use statistics::{ChannelMoments, ChannelStatistics};

use crate::graph::Graph;
use channels::FIXED;
use factors::Limits;
use noise::Noise;

/// What becomes of channels that a Clip may cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clamping {
    /// They keep their scale: the same bounds stay right for every input.
    Exact,
    /// Where the values seen stay clear of the bounds, the Clip is taken as not reached. For inputs unlike the samples
    /// the rewritten graph may then cut off at another place than the original.
    AsSeen,
}

/// A rewritten graph.
#[derive(Debug, Clone)]
pub struct Equalized {
    /// Computes the outputs of the original.
    pub graph: Graph,
    /// Factors chosen freely.
    pub variables: usize,
    /// Predicted noise of the outputs over that of the original graph, as a power ratio.
    pub predicted: f64,
    /// What happened to each set of activations that share a step, where channels were scaled.
    pub decisions: Vec<Decision>,
}

/// Everything that is known of a graph before its factors are chosen.
#[derive(Debug)]
pub struct Equalizer<'a> {
    graph: &'a Graph,
    channels: &'a Channels,
    seen: &'a ChannelStatistics,
    noise: Noise,
}

impl<'a> Equalizer<'a> {
    /// For a graph, its channels and what was seen of them.
    pub fn new(graph: &'a Graph, channels: &'a Channels, seen: &'a ChannelStatistics, precision: &Precision) -> Self {
        Self { graph, channels, seen, noise: Noise::of(graph, channels, seen, precision) }
    }

    /// The graph rewritten by a method; `None` where every factor is 1.
    pub fn equalize(&self, method: Method, clamping: Clamping) -> Option<Equalized> {
        let limits = Limits::of(self.channels, self.seen, clamping);
        let logs = factors::logs(method, &self.noise, &limits);
        let before = self.noise.at(&vec![0.0; logs.len()]);
        let factors: Vec<f64> = logs.iter().map(|log| log.exp()).collect();
        if factors.iter().all(|&factor| factor == 1.0) {
            return None;
        }
        Some(Equalized {
            graph: rewrite::rewrite(self.graph, self.channels, &factors),
            variables: factors.iter().skip(FIXED + 1).filter(|&&factor| factor != 1.0).count(),
            predicted: if before > 0.0 { self.noise.at(&logs) / before } else { 1.0 },
            decisions: decisions::of(self.channels, self.seen, &factors),
        })
    }
}
