//! Shared helpers of the workspace-level tests.
#![forbid(unsafe_code)]

pub mod cut;
pub mod fuzz;
pub mod models;
pub mod node_tests;
pub mod npy;
pub mod peak;
pub mod reference;
