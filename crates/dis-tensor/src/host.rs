//! The buffer of the backends that compute in host memory.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::backend::{Buffer, Element};
use crate::block::Block;
use crate::cpu::Prepared;
use crate::error::{Result, TensorError};
use crate::layout::Layout;
use crate::pool::Pool;

/// Elements in host memory, aligned to a cache line. The memory returns to its backend's pool
/// when the buffer is dropped.
pub struct HostBuf<E: Element> {
    lines: Block,
    len: usize,
    pool: Arc<Pool>,
    /// Matrices in another order, by offset.
    pub(crate) prepared: Vec<Prepared>,
    element: PhantomData<E>,
}

impl<E: Element> HostBuf<E> {
    /// `len` elements of unspecified content.
    pub(crate) fn alloc(pool: &Arc<Pool>, len: usize) -> Self {
        Self {
            lines: pool.take(len * size_of::<E>()),
            len,
            pool: Arc::clone(pool),
            prepared: Vec::new(),
            element: PhantomData,
        }
    }

    /// `len` zeros.
    pub(crate) fn zeros(pool: &Arc<Pool>, len: usize) -> Self {
        let mut buf = Self::alloc(pool, len);
        buf.as_mut_slice().fill(E::zeroed());
        buf
    }

    /// A copy of `data`.
    pub(crate) fn from_slice(pool: &Arc<Pool>, data: &[E]) -> Self {
        let mut buf = Self::alloc(pool, data.len());
        buf.as_mut_slice().copy_from_slice(data);
        buf
    }

    /// The elements.
    pub fn as_slice(&self) -> &[E] {
        let bytes: &[u8] = bytemuck::cast_slice(&self.lines);
        bytemuck::cast_slice(&bytes[..self.len * size_of::<E>()])
    }

    /// The elements, to change.
    pub fn as_mut_slice(&mut self) -> &mut [E] {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut self.lines);
        bytemuck::cast_slice_mut(&mut bytes[..self.len * size_of::<E>()])
    }

    /// Elements `offset .. offset + len`.
    pub(crate) fn range(&self, op: &'static str, offset: usize, len: usize) -> Result<&[E]> {
        let error = out_of_range(op, offset, len, self.len);
        let end = offset.saturating_add(len);
        self.as_slice().get(offset..end).ok_or(error)
    }

    /// Elements `offset .. offset + len`, to change.
    pub(crate) fn range_mut(
        &mut self,
        op: &'static str,
        offset: usize,
        len: usize,
    ) -> Result<&mut [E]> {
        let error = out_of_range(op, offset, len, self.len);
        let end = offset.saturating_add(len);
        self.as_mut_slice().get_mut(offset..end).ok_or(error)
    }
}

fn out_of_range(op: &'static str, offset: usize, len: usize, have: usize) -> TensorError {
    TensorError::OutOfBounds {
        op,
        layout: Layout::vector(len).at(offset),
        needed: offset.saturating_add(len),
        len: have,
    }
}

impl<E: Element> Buffer for HostBuf<E> {
    fn len(&self) -> usize {
        self.len
    }
}

impl<E: Element> Deref for HostBuf<E> {
    type Target = [E];
    fn deref(&self) -> &[E] {
        self.as_slice()
    }
}

impl<E: Element> DerefMut for HostBuf<E> {
    fn deref_mut(&mut self) -> &mut [E] {
        self.as_mut_slice()
    }
}

impl<E: Element> fmt::Debug for HostBuf<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostBuf<{}>({})", E::NAME, self.len)
    }
}

impl<E: Element> Drop for HostBuf<E> {
    fn drop(&mut self) {
        self.pool.give(std::mem::take(&mut self.lines));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_show_only_their_length() {
        let pool = Pool::new();
        for len in [0, 1, 15, 16, 17, 1000] {
            let buf = HostBuf::<f32>::alloc(&pool, len);
            assert_eq!(buf.as_slice().len(), len);
            assert_eq!(Buffer::len(&buf), len);
            assert_eq!(buf.as_slice().as_ptr().align_offset(64), 0);
            assert_eq!(format!("{buf:?}"), format!("HostBuf<f32>({len})"));
        }
        assert!(HostBuf::<f64>::zeros(&pool, 9).iter().all(|&x| x == 0.0));
        assert_eq!(
            HostBuf::from_slice(&pool, &[1u32, 2, 3]).as_slice(),
            &[1, 2, 3]
        );
    }

    #[test]
    fn ranges_are_checked() {
        let pool = Pool::new();
        let buf = HostBuf::<f32>::zeros(&pool, 4);
        assert_eq!(buf.range("t", 1, 3).unwrap().len(), 3);
        assert!(buf.range("t", 1, 4).is_err());
        assert!(buf.range("t", usize::MAX, 2).is_err());
    }
}
