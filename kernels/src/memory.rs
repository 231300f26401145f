//! Device memory that is kept for reuse: a repeated computation allocates nothing, and since all
//! use is in stream order a block may be handed out again while earlier kernels still run.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::contract::{Ptr, PtrMut};
use crate::driver::Driver;
use crate::error::Result;

/// Alignment and smallest size of a block.
const UNIT: usize = 256;

/// What a pool has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Blocks taken from the device.
    pub allocations: u64,
    /// Blocks handed out again.
    pub reuses: u64,
    /// Bytes held, used or free.
    pub bytes_held: usize,
    /// Bytes that buffers use now.
    pub bytes_in_use: usize,
}

#[derive(Default)]
struct State {
    free: BTreeMap<usize, Vec<u64>>,
    stats: Stats,
}

struct Shared<D: Driver> {
    driver: D,
    state: Mutex<State>,
}

/// A pool of device memory.
pub struct Pool<D: Driver> {
    shared: Arc<Shared<D>>,
}

impl<D: Driver> Clone for Pool<D> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<D: Driver> fmt::Debug for Pool<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({:?})", self.stats())
    }
}

impl<D: Driver> Shared<D> {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in a critical section can panic halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trim(&self) {
        let freed = {
            let mut state = self.lock();
            state.stats.bytes_held = state.stats.bytes_in_use;
            std::mem::take(&mut state.free)
        };
        for address in freed.into_values().flatten() {
            self.driver.free(address);
        }
    }
}

impl<D: Driver> Drop for Shared<D> {
    fn drop(&mut self) {
        self.trim();
    }
}

impl<D: Driver> Pool<D> {
    /// An empty pool.
    pub fn new(driver: D) -> Self {
        Self {
            shared: Arc::new(Shared {
                driver,
                state: Mutex::default(),
            }),
        }
    }

    /// The device.
    pub fn driver(&self) -> &D {
        &self.shared.driver
    }

    /// A block of at least `bytes` of stale contents.
    ///
    /// # Errors
    /// If the device has no memory left even after everything free was returned to it.
    pub fn take(&self, bytes: usize) -> Result<Block<D>> {
        let size = size_class(bytes);
        let block = |address| Block {
            pool: self.clone(),
            address,
            bytes,
            size,
        };
        if bytes == 0 {
            return Ok(block(0));
        }
        let reused = {
            let mut state = self.shared.lock();
            let reused = state.free.get_mut(&size).and_then(Vec::pop);
            if reused.is_some() {
                state.stats.reuses += 1;
                state.stats.bytes_in_use += size;
            }
            reused
        };
        if let Some(address) = reused {
            self.driver().mark_uninitialised(address, size);
            return Ok(block(address));
        }
        let address = self.driver().alloc(size).or_else(|_| {
            self.shared.trim();
            self.driver().alloc(size)
        })?;
        let mut state = self.shared.lock();
        state.stats.allocations += 1;
        state.stats.bytes_held += size;
        state.stats.bytes_in_use += size;
        drop(state);
        Ok(block(address))
    }

    /// What it has done so far.
    pub fn stats(&self) -> Stats {
        self.shared.lock().stats
    }

    /// Returns what no buffer uses to the device.
    pub fn trim(&self) {
        self.shared.trim();
    }
}

/// The size that a request gets: eight classes an octave.
fn size_class(bytes: usize) -> usize {
    let units = bytes.div_ceil(UNIT);
    let units = if units <= 8 {
        units
    } else {
        units.next_multiple_of(1 << (units.ilog2() - 3))
    };
    units * UNIT
}

/// Device memory that returns to its pool when dropped.
pub struct Block<D: Driver> {
    pool: Pool<D>,
    address: u64,
    bytes: usize,
    size: usize,
}

impl<D: Driver> Block<D> {
    /// The first byte.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Usable bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The contents as elements, to read.
    pub fn ptr<T>(&self) -> Ptr<T> {
        Ptr::new(self.address, (self.bytes / size_of::<T>()) as u64)
    }

    /// The contents as elements, to write.
    pub fn ptr_mut<T>(&self) -> PtrMut<T> {
        PtrMut::new(self.address, (self.bytes / size_of::<T>()) as u64)
    }
}

impl<D: Driver> fmt::Debug for Block<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}+{}", self.address, self.bytes)
    }
}

impl<D: Driver> Drop for Block<D> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            let mut state = self.pool.shared.lock();
            state.stats.bytes_in_use -= self.size;
            state.free.entry(self.size).or_default().push(self.address);
        }
    }
}
