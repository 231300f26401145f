//! Memory for the time of one call or one task, kept for the next, so that a repeated computation
//! allocates nothing.

use dis_tensor::simd::Row;
use std::cell::Cell;
use std::sync::{Mutex, PoisonError};

thread_local! {
    static TASK: Cell<Vec<Row>> = const { Cell::new(Vec::new()) };
}

/// Rows that a task has on the stack: enough for the scans of sixteen states and their neighbours.
const SMALL: usize = 160;

/// Calls `f` with `rows` rows of unspecified content that belong to this thread.
///
/// A few of them lie on the stack, beside what the compiler keeps there. A kernel uses both all the
/// time, and some first-level caches (Zen's) tell lines of one set apart by a hash of their virtual addresses:
/// apart, they collide in some processes and not in others, as addresses fall.
pub(crate) fn with_task_rows<R>(rows: usize, f: impl FnOnce(&mut [Row]) -> R) -> R {
    if rows <= SMALL {
        let mut memory = [Row::ZERO; SMALL];
        return f(&mut memory[..rows]);
    }
    // Taken out, so that a task within a task would find an empty vector, not a used one.
    let mut memory = TASK.take();
    if memory.len() < rows {
        memory.resize(rows, Row::ZERO);
    }
    let result = f(&mut memory[..rows]);
    TASK.set(memory);
    result
}

static CALLS: Mutex<Vec<Vec<Row>>> = Mutex::new(Vec::new());

/// Calls `f` with `rows` rows of unspecified content that belong to this call.
pub(crate) fn with_call_rows<R>(rows: usize, f: impl FnOnce(&mut [Row]) -> R) -> R {
    let lock = || CALLS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut memory = lock().pop().unwrap_or_default();
    if memory.len() < rows {
        memory.resize(rows, Row::ZERO);
    }
    let result = f(&mut memory[..rows]);
    lock().push(memory);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_scratch_is_distinct() {
        with_task_rows(SMALL + 2, |outer| {
            outer[1].0[3] = 1.0;
            with_task_rows(SMALL + 2, |inner| inner[1].0[3] = 2.0);
            assert_eq!(Row::flat(outer)[19], 1.0);
        });
        with_call_rows(2, |outer| {
            Row::flat_mut(outer)[19] = 1.0;
            with_call_rows(2, |inner| Row::flat_mut(inner)[19] = 2.0);
            assert_eq!(outer[1].0[3], 1.0);
        });
    }
}
