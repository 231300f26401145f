//! Memory with a shadow: what was written, and by whom.

use crate::MemoryError;
use crate::shadow::{Cell, Conflict, Who};

/// A piece of memory: an allocation, or a shared variable.
#[derive(Debug, Clone)]
pub(crate) struct Region {
    pub(crate) base: u64,
    pub(crate) data: Vec<u8>,
    /// For each word of four bytes, a bit for each byte that was written.
    pub(crate) written: Vec<u8>,
    /// Empty until a kernel touches the region with checks on.
    cells: Vec<Cell>,
    /// Logarithm of the bytes a cell stands for: 2 until there is a narrower access.
    grain: u32,
    len: usize,
    /// Bytes that may be accessed: fewer than `len` where only a part is in use.
    extent: usize,
    freed: bool,
}

impl Region {
    pub(crate) fn new(base: u64, len: usize) -> Self {
        let data = vec![0; len];
        let written = vec![0; len.div_ceil(4)];
        Self {
            base,
            data,
            written,
            cells: Vec::new(),
            grain: 2,
            len,
            extent: len,
            freed: false,
        }
    }

    /// Bytes that may be accessed.
    pub(crate) fn extent(&self) -> usize {
        self.extent
    }

    /// Makes the shadow fine enough for accesses of `bytes` bytes.
    pub(crate) fn prepare(&mut self, bytes: usize) {
        if self.cells.is_empty() {
            self.cells = vec![Cell::default(); self.len.div_ceil(1 << self.grain)];
        }
        while bytes < 1 << self.grain {
            self.grain -= 1;
            self.cells = self.cells.iter().flat_map(|&c| [c, c]).collect();
        }
    }

    /// The cells of a range of words, when each cell stands for one.
    pub(crate) fn word_cells(&mut self, at: usize, words: usize) -> Option<&mut [Cell]> {
        if self.grain != 2 {
            return None;
        }
        self.cells.get_mut(at / 4..at / 4 + words)
    }

    /// The cells of a range of bytes.
    pub(crate) fn cells(&mut self, at: usize, bytes: usize) -> &mut [Cell] {
        &mut self.cells[at >> self.grain..(at + bytes).div_ceil(1 << self.grain)]
    }

    pub(crate) fn forget(&mut self, at: usize, bytes: usize) {
        self.each_word(at, bytes, |word, bits| *word &= !bits);
    }

    pub(crate) fn note_written(&mut self, at: usize, bytes: usize) {
        self.each_word(at, bytes, |word, bits| *word |= bits);
    }

    #[inline(always)]
    fn each_word(&mut self, at: usize, bytes: usize, f: impl Fn(&mut u8, u8)) {
        let mut byte = at;
        let end = at + bytes;
        while byte < end {
            let (word, first) = (byte / 4, byte % 4);
            let count = (4 - first).min(end - byte);
            f(
                &mut self.written[word],
                ((1u16 << count) - 1) as u8 * (1 << first),
            );
            byte += count;
        }
    }

    /// First byte of a range that nothing wrote.
    pub(crate) fn first_unwritten(&self, at: usize, bytes: usize) -> Option<usize> {
        (at..at + bytes).find(|b| self.written[b / 4] >> (b % 4) & 1 == 0)
    }

    /// Whether a range was written, whose length is a power of two that divides its start.
    #[inline(always)]
    pub(crate) fn is_written(&self, at: usize, bytes: usize) -> bool {
        if bytes >= 4 {
            self.written[at / 4..(at + bytes) / 4]
                .iter()
                .all(|&w| w == 15)
        } else {
            let bits = ((1u8 << bytes) - 1) << (at % 4);
            self.written[at / 4] & bits == bits
        }
    }

    pub(crate) fn read(
        &mut self,
        at: usize,
        bytes: usize,
        who: &Who,
        thread: u32,
    ) -> Result<(), Conflict> {
        self.cells(at, bytes)
            .iter_mut()
            .try_for_each(|cell| who.read(cell, thread))
    }

    pub(crate) fn write(
        &mut self,
        at: usize,
        bytes: usize,
        who: &Who,
        thread: u32,
    ) -> Result<(), Conflict> {
        self.cells(at, bytes)
            .iter_mut()
            .try_for_each(|cell| who.write(cell, thread))
    }
}

/// Why an address is not in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Miss {
    Outside,
    Freed,
}

/// Global memory.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    /// Ascending by address; what was freed stays without its contents.
    regions: Vec<Region>,
    next: u64,
}

/// Above 32 bits, so that addresses cut to 32 bits are found.
const FIRST_ADDRESS: u64 = 0x7f00_0000_0000;
const ALIGNMENT: u64 = 256;
/// Addresses between allocations that belong to none.
const GAP: u64 = 1 << 20;

impl Memory {
    pub(crate) fn new() -> Self {
        Self {
            regions: Vec::new(),
            next: FIRST_ADDRESS,
        }
    }

    pub(crate) fn alloc(&mut self, bytes: usize) -> u64 {
        let base = self.next;
        self.regions.push(Region::new(base, bytes));
        self.next = (base + bytes as u64 + GAP).next_multiple_of(ALIGNMENT);
        base
    }

    pub(crate) fn free(&mut self, ptr: u64) -> Result<(), MemoryError> {
        let index = self.regions.binary_search_by_key(&ptr, |r| r.base);
        let region = index.ok().map(|i| &mut self.regions[i]);
        let region = region.ok_or(MemoryError::NotAnAllocation { ptr })?;
        if region.freed {
            return Err(MemoryError::Freed {
                ptr,
                bytes: region.len,
            });
        }
        *region = Region {
            len: region.len,
            extent: region.len,
            freed: true,
            ..Region::new(ptr, 0)
        };
        Ok(())
    }

    /// Only the first `bytes` bytes of an allocation are in use from now on, and nothing wrote them.
    pub(crate) fn lend(&mut self, ptr: u64, bytes: usize) -> Result<(), MemoryError> {
        let index = self.regions.binary_search_by_key(&ptr, |r| r.base);
        let region = index.ok().map(|i| &mut self.regions[i]);
        let region = region.ok_or(MemoryError::NotAnAllocation { ptr })?;
        if region.freed {
            return Err(MemoryError::Freed { ptr, bytes });
        }
        if bytes > region.len {
            return Err(MemoryError::OutOfBounds { ptr, bytes });
        }
        region.written.fill(0);
        region.extent = bytes;
        Ok(())
    }

    /// The allocation that holds an address.
    #[inline]
    pub(crate) fn find(&mut self, address: u64, bytes: u64) -> Result<&mut Region, Miss> {
        let index = self.regions.partition_point(|r| r.base <= address);
        let region = index
            .checked_sub(1)
            .map(|i| &mut self.regions[i])
            .ok_or(Miss::Outside)?;
        if (address - region.base).saturating_add(bytes) > region.extent as u64 {
            return Err(Miss::Outside);
        }
        if region.freed {
            Err(Miss::Freed)
        } else {
            Ok(region)
        }
    }

    /// The allocation whose end or start is nearest, for messages.
    pub(crate) fn nearest(&self, address: u64) -> Option<&Region> {
        self.regions.iter().min_by_key(|r| {
            let end = r.base + r.len as u64;
            r.base
                .saturating_sub(address)
                .max(address.saturating_sub(end))
        })
    }

    /// A range of the host's, and where it starts in its region.
    pub(crate) fn range(
        &mut self,
        ptr: u64,
        bytes: usize,
    ) -> Result<(&mut Region, usize), MemoryError> {
        match self.find(ptr, bytes as u64) {
            Ok(region) => {
                let at = (ptr - region.base) as usize;
                Ok((region, at))
            }
            Err(Miss::Outside) => Err(MemoryError::OutOfBounds { ptr, bytes }),
            Err(Miss::Freed) => Err(MemoryError::Freed { ptr, bytes }),
        }
    }

    pub(crate) fn view(&self, ptr: u64, bytes: usize) -> Result<(&Region, usize), MemoryError> {
        let index = self.regions.partition_point(|r| r.base <= ptr);
        let outside = MemoryError::OutOfBounds { ptr, bytes };
        let region = index
            .checked_sub(1)
            .map(|i| &self.regions[i])
            .ok_or(outside)?;
        let at = ptr - region.base;
        if at.saturating_add(bytes as u64) > region.extent as u64 {
            return Err(outside);
        }
        if region.freed {
            return Err(MemoryError::Freed { ptr, bytes });
        }
        Ok((region, at as usize))
    }

    /// Forgets all stamps, before segments start anew.
    pub(crate) fn reset_cells(&mut self) {
        for region in &mut self.regions {
            region.cells.clear();
            region.grain = 2;
        }
    }

    /// Bytes in live allocations.
    pub(crate) fn live_bytes(&self) -> usize {
        self.regions
            .iter()
            .filter(|r| !r.freed)
            .map(|r| r.len)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::{Memory, Miss, Region};

    #[test]
    fn bytes_are_tracked_one_by_one() {
        let mut region = Region::new(0, 13);
        region.note_written(3, 7);
        assert_eq!(region.first_unwritten(3, 7), None);
        assert_eq!(region.first_unwritten(0, 13), Some(0));
        assert_eq!(region.first_unwritten(4, 9), Some(10));
        assert!(region.is_written(4, 4) && !region.is_written(8, 4) && region.is_written(8, 2));
        region.forget(5, 1);
        assert_eq!(region.first_unwritten(3, 7), Some(5));
    }

    #[test]
    fn addresses_outside_and_freed_are_told_apart() {
        let mut memory = Memory::new();
        let (a, b) = (memory.alloc(10), memory.alloc(20));
        assert!(a.is_multiple_of(256) && b.is_multiple_of(256) && b > a + 10);
        assert!(memory.find(a + 6, 4).is_ok());
        assert_eq!(memory.find(a + 7, 4).err(), Some(Miss::Outside));
        assert_eq!(memory.find(a - 1, 1).err(), Some(Miss::Outside));
        memory.free(a).unwrap();
        assert_eq!(memory.find(a, 4).err(), Some(Miss::Freed));
        assert!(memory.free(a).is_err() && memory.free(b + 1).is_err());
        assert_eq!(memory.live_bytes(), 20);
    }

    #[test]
    fn only_what_is_lent_can_be_reached() {
        let mut memory = Memory::new();
        let a = memory.alloc(64);
        memory.lend(a, 13).unwrap();
        assert!(memory.find(a + 9, 4).is_ok() && memory.view(a, 13).is_ok());
        assert_eq!(memory.find(a + 12, 4).err(), Some(Miss::Outside));
        assert!(memory.view(a, 14).is_err() && memory.range(a + 13, 1).is_err());
        let (region, _) = memory.range(a, 13).unwrap();
        region.note_written(0, 13);
        memory.lend(a, 64).unwrap();
        assert_eq!(
            memory.view(a, 64).unwrap().0.first_unwritten(0, 64),
            Some(0)
        );
        assert!(memory.lend(a, 65).is_err() && memory.lend(a + 4, 4).is_err());
        memory.free(a).unwrap();
        assert!(memory.lend(a, 4).is_err());
    }

    #[test]
    fn the_shadow_is_refined_for_narrow_accesses() {
        let mut region = Region::new(0, 10);
        region.prepare(4);
        assert_eq!(region.cells(0, 10).len(), 3);
        region.prepare(2);
        assert_eq!(region.cells(2, 4).len(), 2);
        assert!(region.word_cells(0, 1).is_none());
    }
}
