//! The fast code against the oracle, the oracle against finite differences, both against recorded
//! results of the published code.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod arrays;
mod case;
mod conv;
mod finite_differences;
mod golden;
#[cfg(feature = "sim")]
mod gpu;
mod scan;
mod states;
