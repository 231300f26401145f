//! What goes wrong: in a text, in a launch, on the host's side of memory.

use std::fmt;

use thiserror::Error;

/// A text that is not of the supported subset of PTX.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{file}:{line}: {message}")]
pub struct ParseError {
    /// Name given to [`Module::parse`](crate::Module::parse).
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// What is wrong.
    pub message: String,
}

/// What kind of mistake a kernel made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultKind {
    /// The launch itself: entry, arguments, grid, block or shared memory.
    Launch,
    /// An access outside every allocation, or outside a shared variable.
    OutOfBounds,
    /// An access to memory that was freed.
    UseAfterFree,
    /// An address that is no multiple of the size of the access.
    Misaligned,
    /// A read of memory that nothing wrote.
    UninitialisedMemory,
    /// A read of a register that this thread did not write.
    UninitialisedRegister,
    /// Two threads of a block touch a word, one of them writing, with no barrier between.
    SharedRace,
    /// Two threads touch a word of global memory, one of them writing, with nothing to order them.
    GlobalRace,
    /// A load through `.nc` of a word that the same launch writes.
    NonCoherentRead,
    /// A barrier that not all threads of the block reach together.
    BarrierDivergence,
    /// A shuffle, vote or warp barrier whose mask names lanes that do not take part.
    WarpDivergence,
    /// `bra.uni` whose lanes disagree.
    NonUniformBranch,
    /// More steps than [`Options::max_steps`](crate::Options::max_steps).
    Runaway,
    /// An operation without a defined result, as a division by zero.
    Undefined,
}

/// A mistake found while a kernel ran.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct Fault {
    /// Kind of mistake.
    pub kind: FaultKind,
    /// File of the instruction.
    pub file: String,
    /// Line of the instruction, from 1.
    pub line: u32,
    /// Text of the instruction.
    pub instruction: String,
    /// `%ctaid` of the thread.
    pub block: [u32; 3],
    /// `%tid` of the thread.
    pub thread: [u32; 3],
    /// What happened.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {:?}: {}",
            self.file, self.line, self.kind, self.message
        )?;
        if self.kind != FaultKind::Launch {
            let ([bx, by, bz], [tx, ty, tz]) = (self.block, self.thread);
            let text = &self.instruction;
            write!(
                f,
                " [block ({bx},{by},{bz}) thread ({tx},{ty},{tz}): `{text}`]"
            )?;
        }
        Ok(())
    }
}

/// A mistake of the host with device memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The range is not inside one allocation.
    #[error("{bytes} bytes at {ptr:#x} are not inside an allocation")]
    OutOfBounds {
        /// First address.
        ptr: u64,
        /// Length.
        bytes: usize,
    },
    /// The allocation was freed.
    #[error("{bytes} bytes at {ptr:#x} were freed")]
    Freed {
        /// First address.
        ptr: u64,
        /// Length.
        bytes: usize,
    },
    /// Not the start of an allocation.
    #[error("{ptr:#x} is not the start of an allocation")]
    NotAnAllocation {
        /// The address.
        ptr: u64,
    },
    /// Memory that nothing wrote.
    #[error(
        "the host reads {bytes} bytes at {ptr:#x}, but nothing wrote the byte at offset {offset}"
    )]
    Uninitialised {
        /// First address.
        ptr: u64,
        /// Length.
        bytes: usize,
        /// First byte that nothing wrote.
        offset: usize,
    },
}
