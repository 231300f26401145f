//! Executes PTX on a CPU, and checks it while it runs.
//!
//! A [`Module`] is decoded once; a [`Device`] holds memory and launches its entries. A warp is 32
//! lanes with a program counter each, of which the lowest runs first, so that divergence,
//! reconvergence, shuffles and barriers behave as on hardware. What would be silent there is a
//! [`Fault`] here, named by file, line, block and thread: accesses out of bounds or misaligned,
//! reads of what nothing wrote, races in shared and global memory, barriers and shuffles that not
//! all threads reach, loops without an end.

mod approx;
mod cost;
mod counters;
mod coverage;
mod device;
mod exec;
mod fault;
mod isa;
mod lex;
mod memory;
mod module;
mod options;
mod parse;
mod shadow;

pub use counters::Counters;
pub use coverage::{Coverage, LineCoverage};
pub use device::{Device, Launch};
pub use fault::{Fault, FaultKind, MemoryError, ParseError};
pub use module::{Entry, Lint, LintKind, Module, Param};
pub use options::{Approx, Options, Order};
