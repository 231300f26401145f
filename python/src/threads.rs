//! The threads that calls work on: one pool of this module's own, so that it can be made anew after a fork.

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

static POOL: RwLock<Option<Arc<ThreadPool>>> = RwLock::new(None);
/// The number of threads that was asked for; 0 is the usual one.
static ASKED: AtomicUsize = AtomicUsize::new(0);

/// Work, in rough nanoseconds, below which a call stays on the thread that makes it.
pub const SERIAL: usize = 40_000;

fn build(threads: usize) -> PyResult<Arc<ThreadPool>> {
    let builder = ThreadPoolBuilder::new().num_threads(threads);
    let builder = builder.thread_name(|i| format!("dis_ssm-{i}"));
    builder
        .build()
        .map(Arc::new)
        .map_err(|error| PyRuntimeError::new_err(format!("cannot start threads: {error}")))
}

/// The pool of this process, started at the first call.
pub fn pool() -> PyResult<Arc<ThreadPool>> {
    if let Some(pool) = &*POOL.read().unwrap_or_else(PoisonError::into_inner) {
        return Ok(pool.clone());
    }
    let new = build(ASKED.load(Ordering::Relaxed))?;
    let mut current = POOL.write().unwrap_or_else(PoisonError::into_inner);
    Ok(current.get_or_insert(new).clone())
}

/// Runs `f` without the interpreter's lock, on the pool if its `work` (nanoseconds, roughly) is worth it.
pub fn detached<R: Send>(py: Python<'_>, work: usize, f: impl FnOnce() -> R + Send) -> PyResult<R> {
    if work < SERIAL {
        return Ok(py.detach(f));
    }
    let pool = pool()?;
    Ok(py.detach(|| pool.install(f)))
}

/// Sets the number of threads that calls of this package work on; 0 takes RAYON_NUM_THREADS, or all cores.
#[pyfunction]
pub fn set_num_threads(threads: usize) -> PyResult<()> {
    const MOST: usize = 1024;
    if threads > MOST {
        return Err(PyValueError::new_err(format!(
            "num_threads is {threads}, at most {MOST} are possible"
        )));
    }
    let new = build(threads)?;
    ASKED.store(threads, Ordering::Relaxed);
    *POOL.write().unwrap_or_else(PoisonError::into_inner) = Some(new);
    Ok(())
}

/// The number of threads that calls of this package work on.
#[pyfunction]
pub fn get_num_threads() -> PyResult<usize> {
    Ok(pool()?.current_num_threads())
}

/// To be called in a forked process: threads do not live on in it, so the next call starts as many of its own.
#[pyfunction]
pub fn _after_fork() -> PyResult<()> {
    // A lock that another thread held at the fork stays locked: so it is only tried.
    let Ok(mut current) = POOL.try_write() else {
        return Err(PyRuntimeError::new_err(
            "the process was forked while its threads were being set",
        ));
    };
    // The old ones are not here to be ended.
    std::mem::forget(current.take());
    Ok(())
}
