//! Firmware that runs a compiled model on its test images and says what it cost, on any board.
//!
//! A board implements [`Board`] (a counter, a log, a pin, an exit) and calls [`main`]; see `boards`. The plan and
//! the images are compiled in ([`assets`]); their file format is in [`images`].
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod assets;
pub mod board;
pub mod classify;
#[cfg(feature = "semihosting")]
pub mod conformance;
pub mod error;
pub mod hash;
pub mod images;
pub mod profile;
pub mod report;
mod run;

pub use board::{Board, Memory, Unit};
pub use error::Error;
pub use run::main;
