//! The built command: what it says, what it refuses, what it makes.

mod common;
mod help;
mod quantize;
mod refusals;
