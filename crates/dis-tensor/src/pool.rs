//! Memory of host buffers, kept for reuse so that a repeated computation allocates nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::block::{Block, LINE, Line};

/// What unspecified contents look like in debug builds: NaN in every float format, so that a
/// result that depends on them shows.
const POISON: Line = Line([0xFF; LINE]);

/// What a pool has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Blocks of memory requested from the system.
    pub allocations: u64,
    /// Requests that were served by a block handed back earlier.
    pub reuses: u64,
    /// Bytes owned, whether lent to a buffer or waiting for reuse.
    pub bytes_held: usize,
    /// Bytes lent to live buffers.
    pub bytes_in_use: usize,
}

#[derive(Debug, Default)]
struct State {
    /// Free blocks by their size in lines; every block's length is a size class.
    free: BTreeMap<usize, Vec<Block>>,
    stats: PoolStats,
}

/// Blocks of memory that return here when their buffer is dropped.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    state: Mutex<State>,
}

impl Pool {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// A poisoned lock is taken over: no operation under it leaves the state half-changed.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// At least `bytes` bytes of unspecified content.
    pub(crate) fn take(&self, bytes: usize) -> Block {
        let lines = size_class(bytes.div_ceil(LINE));
        if lines == 0 {
            return Block::default();
        }
        let (reused, number) = {
            let mut state = self.lock();
            state.stats.bytes_in_use += lines * LINE;
            let block = state.free.get_mut(&lines).and_then(Vec::pop);
            if block.is_some() {
                state.stats.reuses += 1;
            } else {
                state.stats.allocations += 1;
                state.stats.bytes_held += lines * LINE;
            }
            (block, state.stats.allocations)
        };
        match reused {
            Some(mut block) => {
                if cfg!(debug_assertions) {
                    block.fill(POISON);
                }
                block
            }
            None => Block::filled(lines, POISON, number),
        }
    }

    /// Takes back a block from [`Pool::take`].
    pub(crate) fn give(&self, block: Block) {
        if block.is_empty() {
            return;
        }
        let mut state = self.lock();
        state.stats.bytes_in_use -= block.len() * LINE;
        state.free.entry(block.len()).or_default().push(block);
    }

    pub(crate) fn stats(&self) -> PoolStats {
        self.lock().stats
    }

    /// Returns all memory that no buffer uses to the system.
    pub(crate) fn trim(&self) {
        let freed = {
            let mut state = self.lock();
            let freed = std::mem::take(&mut state.free);
            state.stats.bytes_held = state.stats.bytes_in_use;
            freed
        };
        drop(freed);
    }
}

/// Bytes that a request for so many takes from a pool.
pub fn pooled_bytes(bytes: usize) -> usize {
    size_class(bytes.div_ceil(LINE)) * LINE
}

/// The number of lines that a request for `lines` gets: eight classes an octave, so that similar
/// sizes share blocks while at most an eighth is wasted.
fn size_class(lines: usize) -> usize {
    if lines <= 8 {
        return lines;
    }
    let step = 1usize << (lines.ilog2() - 3);
    lines.next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_classes_hold_the_request_and_waste_an_eighth() {
        let mut last = 0;
        for lines in 0..20_000 {
            let class = size_class(lines);
            assert!(class >= lines && class >= last);
            assert!(class - lines <= lines / 8, "{lines} -> {class}");
            assert_eq!(size_class(class), class);
            last = class;
        }
    }

    #[test]
    fn blocks_are_counted_and_reused() {
        let pool = Pool::new();
        let a = pool.take(1000);
        assert!(a.len() * LINE >= 1000);
        let held = a.len() * LINE;
        let expected = PoolStats {
            allocations: 1,
            reuses: 0,
            bytes_held: held,
            bytes_in_use: held,
        };
        assert_eq!(pool.stats(), expected);
        pool.give(a);
        let b = pool.take(1001);
        let expected = PoolStats {
            allocations: 1,
            reuses: 1,
            bytes_held: held,
            bytes_in_use: held,
        };
        assert_eq!(pool.stats(), expected);
        pool.give(b);
        pool.trim();
        assert_eq!(pool.stats().bytes_held, 0);
        assert!(pool.take(0).is_empty());
    }
}
