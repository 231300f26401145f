//! Results as JSON: in a file, or on standard output, which then has nothing else.

use std::path::Path;

use anyhow::Result;
use dis_files::write_atomic;
use serde_json::Value;

use crate::places::parent_exists;
use crate::say;

/// Standard output as a place for JSON.
const STDOUT: &str = "-";

/// To be called before anything is said: keeps standard output free where JSON goes there, and refuses a
/// file in a directory that is not there.
///
/// # Errors
/// Of that file.
pub fn prepare(place: Option<&Path>) -> Result<()> {
    match place {
        Some(place) if place == Path::new(STDOUT) => say::divert(),
        Some(file) => parent_exists(file)?,
        None => {}
    }
    Ok(())
}

/// Writes JSON to its place; a file whole or not at all.
///
/// # Errors
/// If it cannot be written.
pub fn save(place: &Path, value: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    if place == Path::new(STDOUT) {
        return say::on_stdout(format_args!("{text}"));
    }
    Ok(write_atomic(place, format!("{text}\n").as_bytes())?)
}

/// The file that JSON goes to, if it is one.
pub fn file(place: Option<&Path>) -> Option<&Path> {
    place.filter(|place| *place != Path::new(STDOUT))
}
