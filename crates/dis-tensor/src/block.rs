//! Memory in cache lines, of which no two large pieces begin at the same place of a page.
//!
//! Large pieces from the system begin at a page. Where rows are a multiple of a page apart, as 3072 or
//! 1024 float32 are, all rows of all arrays that a loop reads then share one set of the first-level
//! cache, which has room for eight lines. Begun at different lines, arrays are at least out of each other's way.

use std::ops::{Deref, DerefMut};

/// The unit of memory: one cache line, and so the alignment of every buffer.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Line(pub [u8; LINE]);

/// Bytes of a [`Line`].
pub(crate) const LINE: usize = 64;
/// Lines of a page.
const PAGE: usize = 64;
/// Lines from which a block is large: to begin elsewhere costs it a page.
const LARGE: usize = 16 * PAGE;

/// Lines of memory.
#[derive(Debug, Default)]
pub(crate) struct Block {
    lines: Vec<Line>,
    /// Lines that are not used.
    skipped: usize,
}

impl Block {
    /// So many lines, all the same. Large blocks of different numbers begin at different lines of
    /// a page, as long as the numbers are less than a page apart.
    pub fn filled(len: usize, line: Line, number: u64) -> Self {
        // An odd factor reaches every line, and this one keeps blocks that were made in turn apart.
        let skipped = match len {
            LARGE.. => (number % PAGE as u64) as usize * 13 % PAGE,
            _ => 0,
        };
        Self {
            lines: vec![line; skipped + len],
            skipped,
        }
    }
}

impl Deref for Block {
    type Target = [Line];
    fn deref(&self) -> &[Line] {
        &self.lines[self.skipped..]
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut [Line] {
        &mut self.lines[self.skipped..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_their_length_wherever_they_begin() {
        for len in [0, 1, LARGE - 1, LARGE, 100_001] {
            let begins: Vec<usize> = (0..PAGE as u64)
                .map(|number| {
                    let mut block = Block::filled(len, Line([7; LINE]), number);
                    assert_eq!(block.len(), len);
                    block.fill(Line([1; LINE]));
                    block.skipped
                })
                .collect();
            for (i, line) in begins.iter().enumerate() {
                assert_eq!(begins[..i].contains(line), len < LARGE && i > 0);
            }
        }
    }
}
