//! Equant turns a trained fp32 ONNX model and a few hundred samples into a standard int8 QDQ ONNX
//! file, and that file into a plan for the `equant-runtime` interpreter.
//!
//! Data flows one way, one module each:
//!
//! [`onnx`] (read) → [`graph`] → [`passes`] → [`observe`] over [`exec`] → [`quantize`] →
//! [`qdq`] (write) → [`compile`] → plan. [`data`] reads samples, [`report`] tells what happened,
//! [`cli`] is the command.
#![forbid(unsafe_code)]

pub mod graph;
pub mod onnx;
