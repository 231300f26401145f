//! What is said: results on standard output, everything else on standard error.
//!
//! A reader that is gone (`dis info | head -1`) or a device that is full is an error like any other, and
//! what cannot be said on standard error is left unsaid. The macros of the standard library panic.

use std::fmt::Arguments;
use std::io::{self, Write};

use anyhow::{Context, Result};

/// Writes a line of results; for `say!`.
///
/// # Errors
/// If nobody reads it, or it cannot be written.
pub fn result(text: Arguments<'_>) -> Result<()> {
    let mut out = io::stdout().lock();
    write(&mut out, text).context("cannot write to standard output")
}

/// Writes a line for people, if there is anybody to read it; for `note!`.
pub fn remark(text: Arguments<'_>) {
    let _ = write(&mut io::stderr().lock(), text);
}

fn write(out: &mut impl Write, text: Arguments<'_>) -> io::Result<()> {
    out.write_fmt(text)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// A line on standard output, as of `println!`. The value is a `Result`.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => { $crate::say::result(format_args!($($text)*)) };
}

/// A line on standard error, as of `eprintln!`.
#[macro_export]
macro_rules! note {
    ($($text:tt)*) => { $crate::say::remark(format_args!($($text)*)) };
}
