//! The built `dis`, from the command line: one program of all tests, which is linked once.

#![allow(clippy::unwrap_used)]

mod command;
mod common;
mod convert;
mod editing;
mod eval;
mod info;
mod latents;
mod npz;
mod sample;
mod study;
mod train;
