//! Being asked to stop: Ctrl-C, and the signals that schedulers and closing terminals send.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

use crate::note;

/// Exit code after a request to stop, as shells expect it after Ctrl-C.
pub const INTERRUPTED: u8 = 130;

/// Watches for Ctrl-C, SIGTERM and SIGHUP. The first sets the flag and says what is `finished` before
/// the command ends; the second ends it at once.
///
/// # Errors
/// If the system does not let signals be handled.
pub fn watch(finished: &'static str) -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let handler = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if handler.swap(true, Ordering::Relaxed) {
            // A second request does not wait: what is finished is whole anyway.
            std::process::exit(i32::from(INTERRUPTED));
        }
        note!("\nstopping after {finished} (Ctrl-C again: at once)");
    })
    .context("cannot watch for Ctrl-C")?;
    Ok(stop)
}
