//! Firmware that runs a compiled model on its test images and says what it cost, on any board.
//!
//! A board implements [`Board`] (a counter, a log, a pin, an exit) and calls [`main`]; see `boards`. The plan and
//! the images are compiled in ([`assets`]); their file format is in [`images`]. Two more programs run plans from files
//! on the host: `conformance` and `layers`; for the latter a board need only have a [`Counter`].
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod assets;
pub mod board;
pub mod classify;
#[cfg(feature = "semihosting")]
pub mod conformance;
pub mod error;
#[cfg(feature = "semihosting")]
mod files;
pub mod hash;
pub mod images;
#[cfg(feature = "semihosting")]
pub mod layers;
#[cfg(feature = "semihosting")]
pub mod panic;
pub mod profile;
pub mod report;
mod run;
pub mod trial;

pub use board::{Board, Counter, Memory, Unit};
pub use error::Error;
pub use run::main;
