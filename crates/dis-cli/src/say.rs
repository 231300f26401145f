//! What is said: results on standard output, everything else on standard error.
//!
//! A reader that is gone (`dis info | head -1`) or a device that is full is an error like any other, and
//! what cannot be said on standard error is left unsaid. The macros of the standard library panic.

use std::fmt::Arguments;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

/// Whether lines of results go to standard error, since standard output has something else.
static DIVERTED: AtomicBool = AtomicBool::new(false);

/// Keeps standard output for [`on_stdout`] from here on.
pub fn divert() {
    DIVERTED.store(true, Ordering::Relaxed);
}

/// Writes a line of results; for `say!`.
///
/// # Errors
/// If nobody reads it, or it cannot be written.
pub fn result(text: Arguments<'_>) -> Result<()> {
    if DIVERTED.load(Ordering::Relaxed) {
        remark(text);
        return Ok(());
    }
    on_stdout(text)
}

/// Writes lines to standard output.
///
/// # Errors
/// As [`result`].
pub fn on_stdout(text: Arguments<'_>) -> Result<()> {
    let mut out = io::stdout().lock();
    write(&mut out, text).context("cannot write to standard output")
}

/// Whether remarks are left unsaid: `--quiet`.
static QUIET: AtomicBool = AtomicBool::new(false);

/// Leaves remarks and progress unsaid from here on.
pub fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// Whether remarks and progress are left unsaid.
pub fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Writes a line for people, if there is anybody to read it and they want it; for `note!`.
pub fn remark(text: Arguments<'_>) {
    if !is_quiet() {
        complaint(text);
    }
}

/// Writes a line for people that they need: a warning, for `warning!`, or an error.
pub fn complaint(text: Arguments<'_>) {
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

/// A line on standard error that begins with `warning:`, quiet or not.
#[macro_export]
macro_rules! warning {
    ($($text:tt)*) => { $crate::say::complaint(format_args!("warning: {}", format_args!($($text)*))) };
}

/// A line on standard error, as of `eprintln!`, unless the command is to be quiet.
#[macro_export]
macro_rules! note {
    ($($text:tt)*) => { $crate::say::remark(format_args!($($text)*)) };
}
