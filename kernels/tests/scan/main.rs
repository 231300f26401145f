//! The kernels of scan and convolution on the simulator, against float64.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used)]

mod accuracy;
mod case;
mod check;
mod conv;
mod counters;
mod oracle;
mod partials;
mod scan;
mod special;
