//! Who touched a word last, and whether two accesses are ordered.
//!
//! Time is counted in segments: a number that grows with each launch, each block that starts and
//! each barrier that a block passes. Two accesses of one block are ordered if they are of different
//! segments, or of one thread, or of one warp with `bar.warp.sync` between; accesses of two blocks of
//! one launch never are; those of two launches always are.

/// Segment in the upper 32 bits; then kind (2), read through `.nc` (1), warp barriers passed in
/// this segment (19), thread of the block (10).
type Stamp = u64;

const NC: u64 = 1 << 29;
const THREAD: u64 = 1023;
const WARP_STEP: u32 = 10;
const WARP_STEPS: u64 = (1 << 19) - 1;
const KIND: u32 = 30;
/// One thread.
const SINGLE: u64 = 0;
/// Several threads of one warp.
const WARP: u64 = 1;
/// Threads of several warps of one block.
const BLOCK: u64 = 2;
/// Threads of several blocks.
const MANY: u64 = 3;

/// Last writer and last readers of a word.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cell {
    pub(crate) writer: Stamp,
    pub(crate) readers: Stamp,
}

/// Who accesses, and since when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Who {
    /// Stamp without the thread.
    now: Stamp,
    /// First segment of what the access can conflict with: of the launch for global memory, of
    /// the block for shared memory.
    since: Stamp,
    /// First segment of the block.
    block: Stamp,
    nc: bool,
}

/// Why two accesses are not ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conflict {
    /// With a thread of the block, if it is known which.
    Thread { other: Option<u32>, wrote: bool },
    /// With another block.
    Block { wrote: bool },
    /// `.nc` and a write in one launch.
    NonCoherent,
}

impl Who {
    pub(crate) fn new(segment: u32, since: u32, block: u32, warp_step: u32, nc: bool) -> Self {
        let step = u64::from(warp_step).min(WARP_STEPS);
        Self {
            now: (u64::from(segment) << 32) | (step << WARP_STEP),
            since: u64::from(since) << 32,
            block: u64::from(block) << 32,
            nc,
        }
    }

    fn stamp(&self, thread: u32) -> Stamp {
        self.now | u64::from(thread) | if self.nc { NC } else { 0 }
    }

    /// Whether a stamp is of this segment, and not by an ordered thread.
    fn clashes(&self, stamp: Stamp, thread: u32) -> bool {
        let other = (stamp & THREAD) as u32;
        stamp >> 32 == self.now >> 32
            && (other != thread || (stamp >> KIND) & 3 != SINGLE)
            && !(other >> 5 == thread >> 5
                && (stamp >> KIND) & 3 != BLOCK
                && (stamp >> WARP_STEP) & WARP_STEPS < (self.now >> WARP_STEP) & WARP_STEPS)
    }

    /// Records a read.
    #[inline(always)]
    pub(crate) fn read(&self, cell: &mut Cell, thread: u32) -> Result<(), Conflict> {
        if cell.writer >= self.since {
            self.check_read(cell.writer, thread)?;
        }
        cell.readers = if cell.readers < self.since {
            self.stamp(thread)
        } else {
            self.merge(cell.readers, thread)
        };
        Ok(())
    }

    #[cold]
    fn check_read(&self, writer: Stamp, thread: u32) -> Result<(), Conflict> {
        if self.nc {
            return Err(Conflict::NonCoherent);
        }
        if writer < self.block {
            return Err(Conflict::Block { wrote: true });
        }
        if self.clashes(writer, thread) {
            let other = Some((writer & THREAD) as u32);
            return Err(Conflict::Thread { other, wrote: true });
        }
        Ok(())
    }

    /// The readers, with one more.
    fn merge(&self, readers: Stamp, thread: u32) -> Stamp {
        let me = self.stamp(thread) | (readers & NC);
        let nc = me & NC;
        let kind = (readers >> KIND) & 3;
        if kind == MANY {
            return readers | nc;
        }
        if readers < self.block {
            return me | (MANY << KIND);
        }
        if readers >> 32 < self.now >> 32 {
            return me;
        }
        let other = (readers & THREAD) as u32;
        if kind == BLOCK {
            return readers | nc;
        }
        if other >> 5 != thread >> 5 {
            return me | (BLOCK << KIND);
        }
        let earlier = (readers >> WARP_STEP) & WARP_STEPS < (self.now >> WARP_STEP) & WARP_STEPS;
        if earlier || (kind == SINGLE && other == thread) {
            me
        } else {
            me | (WARP << KIND)
        }
    }

    /// Records a write.
    #[inline(always)]
    pub(crate) fn write(&self, cell: &mut Cell, thread: u32) -> Result<(), Conflict> {
        if cell.writer >= self.since || cell.readers >= self.since {
            self.check_write(cell, thread)?;
        }
        cell.writer = self.stamp(thread);
        Ok(())
    }

    fn check_write(&self, cell: &Cell, thread: u32) -> Result<(), Conflict> {
        let Cell { writer, readers } = *cell;
        if writer >= self.since {
            if writer < self.block {
                return Err(Conflict::Block { wrote: true });
            }
            if self.clashes(writer, thread) {
                let other = Some((writer & THREAD) as u32);
                return Err(Conflict::Thread { other, wrote: true });
            }
        }
        if readers >= self.since {
            let kind = (readers >> KIND) & 3;
            if readers & NC != 0 {
                return Err(Conflict::NonCoherent);
            }
            if kind == MANY || readers < self.block {
                return Err(Conflict::Block { wrote: false });
            }
            if self.clashes(readers, thread) {
                let other = (kind == SINGLE).then_some((readers & THREAD) as u32);
                return Err(Conflict::Thread {
                    other,
                    wrote: false,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Cell, Conflict, Who};

    fn who(segment: u32, step: u32) -> Who {
        Who::new(segment, 10, 20, step, false)
    }

    #[test]
    fn accesses_of_one_thread_are_ordered() {
        let mut cell = Cell::default();
        who(20, 0).write(&mut cell, 5).unwrap();
        who(20, 0).read(&mut cell, 5).unwrap();
        who(20, 0).write(&mut cell, 5).unwrap();
    }

    #[test]
    fn accesses_of_two_threads_need_a_barrier() {
        let mut cell = Cell::default();
        who(20, 0).write(&mut cell, 5).unwrap();
        let clash = Conflict::Thread {
            other: Some(5),
            wrote: true,
        };
        assert_eq!(who(20, 0).read(&mut cell, 6), Err(clash));
        assert_eq!(who(20, 0).write(&mut cell, 6), Err(clash));
        who(21, 0).read(&mut cell, 6).unwrap();
        let clash = Conflict::Thread {
            other: Some(6),
            wrote: false,
        };
        assert_eq!(who(21, 0).write(&mut cell, 7), Err(clash));
        who(22, 0).write(&mut cell, 7).unwrap();
    }

    #[test]
    fn a_warp_barrier_orders_its_warp_only() {
        let mut cell = Cell::default();
        who(20, 0).write(&mut cell, 5).unwrap();
        who(20, 1).read(&mut cell, 6).unwrap();
        assert!(who(20, 1).read(&mut cell, 40).is_err());
    }

    #[test]
    fn several_readers_are_remembered() {
        let mut cell = Cell::default();
        who(20, 0).read(&mut cell, 5).unwrap();
        who(20, 0).read(&mut cell, 6).unwrap();
        assert!(who(20, 0).write(&mut cell, 6).is_err());
        who(20, 1).write(&mut cell, 6).unwrap();
        let mut cell = Cell::default();
        who(20, 0).read(&mut cell, 5).unwrap();
        who(20, 0).read(&mut cell, 40).unwrap();
        assert!(who(20, 3).write(&mut cell, 40).is_err());
    }

    #[test]
    fn blocks_of_a_launch_are_never_ordered() {
        let mut cell = Cell::default();
        who(15, 0).write(&mut cell, 5).unwrap();
        assert_eq!(
            who(20, 0).read(&mut cell, 5),
            Err(Conflict::Block { wrote: true })
        );
        let mut cell = Cell::default();
        who(15, 0).read(&mut cell, 5).unwrap();
        who(20, 0).read(&mut cell, 5).unwrap();
        assert_eq!(
            who(20, 0).write(&mut cell, 5),
            Err(Conflict::Block { wrote: false })
        );
        // Launches are.
        let mut cell = Cell::default();
        who(9, 0).write(&mut cell, 5).unwrap();
        who(20, 0).read(&mut cell, 6).unwrap();
    }

    #[test]
    fn a_word_read_through_nc_is_not_written_in_the_launch() {
        let nc = Who::new(20, 10, 20, 0, true);
        let mut cell = Cell::default();
        nc.read(&mut cell, 5).unwrap();
        who(20, 0).read(&mut cell, 5).unwrap();
        assert_eq!(who(21, 0).write(&mut cell, 5), Err(Conflict::NonCoherent));
        let mut cell = Cell::default();
        who(20, 0).write(&mut cell, 5).unwrap();
        assert_eq!(nc.read(&mut cell, 5), Err(Conflict::NonCoherent));
    }
}
