//! Device memory that is kept for reuse: a repeated computation allocates nothing, and since all
//! use is in stream order a block may be handed out again while earlier kernels still run.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::driver::Driver;
use crate::error::Result;
use crate::pointer::{Ptr, PtrMut};

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

/// Addresses of free blocks by size.
type Free = BTreeMap<usize, Vec<u64>>;

struct Shared<D: Driver> {
    driver: D,
    free: Mutex<Free>,
    /// Of this pool and those set apart from it.
    stats: Arc<Mutex<Stats>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in a critical section can panic halfway.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn trim(&self) {
        let freed = std::mem::take(&mut *lock(&self.free));
        for (size, addresses) in freed {
            for address in addresses {
                self.driver.free(address);
                lock(&self.stats).bytes_held -= size;
            }
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
                free: Mutex::default(),
                stats: Arc::default(),
            }),
        }
    }

    /// A pool on the same device that hands out none of this one's memory and gives it none; they
    /// count together.
    pub fn apart(&self) -> Self {
        Self {
            shared: Arc::new(Shared {
                driver: self.driver().clone(),
                free: Mutex::default(),
                stats: Arc::clone(&self.shared.stats),
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
        let reused = lock(&self.shared.free).get_mut(&size).and_then(Vec::pop);
        if let Some(address) = reused {
            let mut stats = lock(&self.shared.stats);
            stats.reuses += 1;
            stats.bytes_in_use += size;
            drop(stats);
            self.driver().lend(address, bytes);
            return Ok(block(address));
        }
        let address = self.driver().alloc(size).or_else(|_| {
            self.shared.trim();
            self.driver().alloc(size)
        })?;
        let mut stats = lock(&self.shared.stats);
        stats.allocations += 1;
        stats.bytes_held += size;
        stats.bytes_in_use += size;
        drop(stats);
        self.driver().lend(address, bytes);
        Ok(block(address))
    }

    /// What it has done so far.
    pub fn stats(&self) -> Stats {
        *lock(&self.shared.stats)
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
            let shared = &self.pool.shared;
            lock(&shared.stats).bytes_in_use -= self.size;
            let mut free = lock(&shared.free);
            free.entry(self.size).or_default().push(self.address);
        }
    }
}
