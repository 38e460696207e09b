//! Equant turns a trained fp32 ONNX model and a few hundred samples into a standard int8 QDQ ONNX
//! file, and that file into a plan for the `equant-runtime` interpreter.
//!
//! Data flows one way, one module each:
//!
//! [`onnx`] (read) → [`graph`] → [`passes`] → [`observe`] over [`exec`] → [`quantize`] →
//! [`qdq`] (write) → [`compile`] → plan. [`data`] reads samples, [`metrics`] and [`report`] tell
//! what happened, [`diagnose`] why it is hard, [`cli`] is the command. [`sensitivity`] tells how much each layer minds
//! few bits, [`allocate`] deals bits out within a budget.
#![forbid(unsafe_code)]

pub mod allocate;
pub mod cli;
pub mod compile;
pub mod data;
pub mod diagnose;
#[cfg(feature = "tune")]
pub mod diff;
pub mod elastic;
pub mod equalize;
pub mod exec;
pub mod files;
pub mod graph;
mod half_even;
pub mod metrics;
pub mod observe;
pub mod onnx;
pub mod package;
mod parallel;
pub mod passes;
pub mod pipeline;
pub mod qdq;
pub mod quantize;
pub mod random;
pub mod rate;
pub mod report;
pub mod round;
pub mod sensitivity;
pub mod target;
#[cfg(feature = "tune")]
pub mod tune;
