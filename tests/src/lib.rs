//! Shared helpers of the workspace-level tests.
#![forbid(unsafe_code)]

pub mod fuzz;
