//! Device memory by address: what kernels are told of an operand's place.

use std::fmt;
use std::marker::PhantomData;

use crate::error::{KernelError, Result};

/// Memory that a kernel reads.
#[derive(Clone, Copy, Debug)]
pub enum Read {}

/// Memory that a kernel writes (and may read).
#[derive(Clone, Copy, Debug)]
pub enum Write {}

/// Device memory: an address and the number of elements from there on.
pub struct Pointer<T, Access> {
    address: u64,
    len: u64,
    element: PhantomData<fn() -> (T, Access)>,
}

/// Device memory that a kernel reads.
pub type Ptr<T> = Pointer<T, Read>;

/// Device memory that a kernel writes (and may read).
pub type PtrMut<T> = Pointer<T, Write>;

impl<T, Access> Pointer<T, Access> {
    /// `len` elements at `address`, which must be live device memory of that size for as long as
    /// kernels use it; [`crate::Block`] hands out such pointers.
    pub const fn new(address: u64, len: u64) -> Self {
        Self {
            address,
            len,
            element: PhantomData,
        }
    }

    /// No memory.
    pub const fn null() -> Self {
        Self::new(0, 0)
    }

    /// The address.
    pub fn address(self) -> u64 {
        self.address
    }

    /// Elements from the address on.
    pub fn len(self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The pointer `elements` further on (empty when that is outside).
    pub fn at(self, elements: u64) -> Self {
        let step = elements.min(self.len);
        Self::new(self.address + step * size_of::<T>() as u64, self.len - step)
    }

    /// The same memory, to read.
    pub fn read(self) -> Ptr<T> {
        Ptr::new(self.address, self.len)
    }

    /// Checks that `needed` elements lie there, for a kernel's operand of that name.
    ///
    /// # Errors
    /// If they do not.
    pub fn holds(self, kernel: &'static str, name: &'static str, needed: u64) -> Result<()> {
        if needed <= self.len {
            return Ok(());
        }
        Err(KernelError::OutOfBounds {
            kernel,
            name,
            needed,
            len: self.len,
        })
    }
}

impl<T, Access> Clone for Pointer<T, Access> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, Access> Copy for Pointer<T, Access> {}

impl<T, Access> fmt::Debug for Pointer<T, Access> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}+{}", self.address, self.len)
    }
}
