//! Models over sequences, from float files to plans: every form of a model must tell the same story.

mod embedding;
mod recurrent;
mod streaming;
mod support;
