//! The integer arithmetic of each operator, one file per operator.
//!
//! Each file holds the operator type (checks and dispatch) and its portable kernel. `reference`
//! holds the plainest possible form of every kernel, never optimised, which the conformance suite
//! compares everything with.
