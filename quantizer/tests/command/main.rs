//! The built command: what it says, what it refuses, what it makes.

mod common;
mod help;
mod media;
mod quantize;
mod refusals;
mod streaming;
