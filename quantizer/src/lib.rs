//! Equant turns a trained fp32 ONNX model and a few hundred samples into a standard int8 QDQ ONNX
//! file, and that file into a plan for the `equant-runtime` interpreter.
//!
//! Data flows one way, one module each:
//!
//! [`onnx`] (read) → [`graph`] → [`passes`] → [`observe`] over [`exec`] → [`quantize`] →
//! [`qdq`] (write) → [`compile`] → plan. [`data`] reads samples, [`metrics`] and [`report`] tell
//! what happened, [`cli`] is the command.
#![forbid(unsafe_code)]

pub mod cli;
pub mod compile;
pub mod data;
pub mod exec;
pub mod files;
pub mod graph;
pub mod metrics;
pub mod observe;
pub mod onnx;
pub mod passes;
pub mod pipeline;
pub mod qdq;
pub mod quantize;
pub mod report;
