//! Weights packed once instead of at every product, where they lie.

use super::pack::{Form, Operand};
use super::ready::Columns;
use super::{Right, pack_columns, panel_width};
use crate::check::invalid;
use crate::cpu::Cpu;
use crate::error::Result;
use crate::host::HostBuf;
use crate::layout::{Layout, Tokens};
use crate::operands::Matrix;
use crate::simd::LANES;

const OP: &str = "prepare_weights";

/// A matrix of `columns` rows, which are the columns of a product, in the order that products by
/// its transpose read: whole panels of columns, `[panel][step][lane]`, where it was, and what fills
/// no panel beside it.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Where it begins in its buffer.
    offset: usize,
    columns: usize,
    steps: usize,
    /// For which products.
    form: Form,
    /// Columns of a panel.
    width: usize,
    /// `[step][vector]`.
    rest: HostBuf<f32>,
}

impl Prepared {
    fn end(&self) -> usize {
        self.offset + self.columns * self.steps
    }

    /// Its columns from a packed step on; `buf` is what it lies in.
    fn columns<'a>(&'a self, buf: &'a [f32], from: usize) -> Columns<'a> {
        let (count, units) = (self.columns / self.width, self.form.units(self.steps));
        let (vectors, left) = (
            self.width / LANES,
            (self.columns % self.width).div_ceil(LANES),
        );
        let panels = buf[self.offset..self.end()].as_chunks().0;
        let rest = self.rest.as_chunks().0;
        Columns {
            panels: &panels[(from * vectors).min(panels.len())..],
            count,
            stride: units * vectors,
            rest: &rest[from * left..],
            first: 0,
        }
    }
}

/// Packs the matrix at `layout` of `data`, if its panels fit where it lies; `known` are the
/// prepared matrices of the buffer by offset, to which it is added.
pub(in crate::cpu) fn prepare(
    cpu: &Cpu,
    data: &mut [f32],
    known: &mut Vec<Prepared>,
    layout: Layout,
) -> Result<()> {
    layout.check(OP, data.len())?;
    let (columns, steps) = (layout.rows(), layout.channels);
    if !layout.is_matrix() || layout.row_stride != steps {
        return Err(invalid(OP, format!("{layout:?} is not one dense matrix")));
    }
    let form = Form::of(cpu);
    // Where packed steps are pairs, halves of the sum, as a concatenation has, must be whole pairs.
    let pairs = form.steps();
    if columns == 0 || steps == 0 || (pairs > 1 && !steps.is_multiple_of(2 * pairs)) {
        return Ok(());
    }
    let (offset, end) = (layout.offset, layout.offset + columns * steps);
    let at = known.partition_point(|other| other.offset < offset);
    let overlaps = |other: &Prepared| other.offset < end && offset < other.end();
    if known[at.saturating_sub(1)..].iter().take(2).any(overlaps) {
        return Err(invalid(OP, format!("{layout:?} has been prepared already")));
    }
    let data = &mut data[offset..end];
    // Not from the pool, which would keep it.
    let copy = data.to_vec();
    let source = Operand::right(Tokens::new(copy.as_slice(), Layout::matrix(columns, steps)).t());
    let width = panel_width(cpu.level());
    let (count, units) = (columns / width, form.units(steps));
    let left = columns - count * width;
    let mut rest = cpu.scratch::<f32>(units * left.next_multiple_of(LANES));
    let vectors = width / LANES;
    let panels = &mut data.as_chunks_mut().0[..count * units * vectors];
    let pack = match vectors {
        1 => pack_columns::<1>,
        _ => pack_columns::<2>,
    };
    pack(cpu, &source, form, steps, panels, rest.as_chunks_mut().0);
    let matrix = Prepared {
        offset,
        columns,
        steps,
        form,
        width,
        rest,
    };
    known.insert(at, matrix);
    Ok(())
}

/// The right operand `b` of a product in this form, of a buffer with these prepared matrices.
pub(in crate::cpu) fn right<'a>(
    cpu: &Cpu,
    b: Matrix<'a, [f32]>,
    known: &'a [Prepared],
) -> Result<Right<'a>> {
    let layout = b.view.layout;
    let offset = layout.offset;
    let at = known.partition_point(|matrix| matrix.offset <= offset);
    let Some(matrix) = at.checked_sub(1).map(|i| &known[i]) else {
        return Ok(Right::Plain(b));
    };
    if offset >= matrix.end() {
        return Ok(Right::Plain(b));
    }
    let from = offset - matrix.offset;
    let form = Form::of(cpu);
    let whole = layout.rows() == matrix.columns && layout.row_stride == matrix.steps;
    if !b.transposed
        || !whole
        || from + layout.channels > matrix.steps
        || !from.is_multiple_of(form.steps())
    {
        let what = "a prepared matrix serves products by its transpose, with all columns";
        return Err(invalid("gemm", format!("{what}, not {:?}", layout)));
    }
    if form != matrix.form {
        let what = "the matrix has been prepared for another instruction set or precision";
        return Err(invalid("gemm", what.into()));
    }
    Ok(Right::Prepared(
        matrix.columns(b.view.buf, form.units(from)),
    ))
}
