//! Weights rounded to bfloat16 once instead of at every product.

use dis_kernels::bf16::{Bf16Mat, RoundBf16};
use dis_kernels::{Block, Driver, Mat};

use super::{Buf, Cuda};
use crate::backend::Buffer;
use crate::check::invalid;
use crate::error::Result;
use crate::layout::{Layout, Tokens};

const OP: &str = "prepare_weights";

/// A rounded copy of a dense matrix of a buffer.
pub struct Prepared<D: Driver> {
    /// Where the matrix begins in its buffer.
    offset: usize,
    copy: Bf16Mat,
    _memory: Block<D>,
}

impl<D: Driver> Prepared<D> {
    fn end(&self) -> usize {
        self.offset + self.copy.elements()
    }
}

/// The copy of what lies at `layout`, if all of it has one; `known` are sorted by offset.
pub(super) fn find<D: Driver>(known: &[Prepared<D>], layout: &Layout) -> Option<Bf16Mat> {
    let at = known.partition_point(|matrix| matrix.offset <= layout.offset);
    let found = &known[at.checked_sub(1)?];
    let (from, columns) = (layout.offset - found.offset, found.copy.channels);
    let alike = layout.is_matrix() && (layout.row_stride == columns || layout.rows() <= 1);
    if !alike {
        return None;
    }
    let first = [from / columns, from % columns];
    found.copy.part(first, [layout.rows(), layout.channels])
}

impl<D: Driver> Cuda<D> {
    /// Rounds a matrix, whose samples count as rows, into memory of its own.
    pub(super) fn rounded(&self, op: &'static str, x: Mat) -> Result<(Block<D>, Bf16Mat)> {
        let (rows, columns) = (x.batch * x.tokens, x.channels);
        let memory = self.scratch::<u16>(op, rows * Bf16Mat::stride(columns))?;
        self.launch(op, RoundBf16::new(x, memory.ptr_mut()))?;
        let copy = Bf16Mat::rounded(memory.ptr(), rows, columns);
        Ok((memory, copy))
    }

    /// Rounds one more matrix of a buffer.
    pub(super) fn prepare(&self, buf: &mut Buf<D>, layout: Layout) -> Result<()> {
        layout.check(OP, buf.len())?;
        if !layout.is_matrix() || layout.row_stride != layout.channels {
            return Err(invalid(OP, format!("{layout:?} is not one dense matrix")));
        }
        if layout.elements() == 0 {
            return Ok(());
        }
        let (offset, end) = (layout.offset, layout.end());
        let at = buf.prepared.partition_point(|other| other.offset < offset);
        let overlaps = |other: &Prepared<D>| other.offset < end && offset < other.end();
        if buf.prepared[at.saturating_sub(1)..]
            .iter()
            .take(2)
            .any(overlaps)
        {
            return Err(invalid(OP, format!("{layout:?} has been prepared already")));
        }
        let (memory, copy) = self.rounded(OP, super::mat(Tokens::new(&*buf, layout)))?;
        let prepared = Prepared {
            offset,
            copy,
            _memory: memory,
        };
        buf.prepared.insert(at, prepared);
        Ok(())
    }
}
