//! Buffers in device memory.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use dis_kernels::{Block, Driver, Mat, MatMut, Ptr, PtrMut};

use super::prepared::Prepared;
use crate::backend::{Buffer, Element};
use crate::layout::{Tokens, TokensMut};

/// Elements in device memory; the memory returns to its backend's pool when the buffer is dropped.
pub struct DeviceBuf<D: Driver, E: Element> {
    /// None where the device had no memory left: then the backend has recorded a failure.
    pub(super) block: Option<Block<D>>,
    pub(super) len: usize,
    /// What was uploaded, for buffers of ids, which are checked on the host.
    pub(super) ids: Option<Arc<[u32]>>,
    /// Rounded copies of some of its matrices, by offset. A write ends them, so that none is stale.
    pub(super) prepared: Vec<Prepared<D>>,
    element: PhantomData<E>,
}

impl<D: Driver, E: Element> DeviceBuf<D, E> {
    pub(super) fn new(block: Option<Block<D>>, len: usize) -> Self {
        Self {
            block,
            len,
            ids: None,
            prepared: Vec::new(),
            element: PhantomData,
        }
    }

    /// The address; 0 when empty.
    pub fn address(&self) -> u64 {
        self.block.as_ref().map_or(0, Block::address)
    }

    /// The elements, to read.
    pub fn ptr(&self) -> Ptr<E> {
        self.block.as_ref().map_or(Ptr::null(), |block| {
            Ptr::new(block.address(), self.len as u64)
        })
    }

    /// The elements, to write.
    pub fn ptr_mut(&mut self) -> PtrMut<E> {
        self.prepared.clear();
        self.block.as_ref().map_or(PtrMut::null(), |block| {
            PtrMut::new(block.address(), self.len as u64)
        })
    }
}

impl<D: Driver, E: Element> Buffer for DeviceBuf<D, E> {
    fn len(&self) -> usize {
        self.len
    }
}

impl<D: Driver, E: Element> fmt::Debug for DeviceBuf<D, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceBuf<{}>({})", E::NAME, self.len)
    }
}

/// A view as kernels take it.
pub fn mat<D: Driver>(x: Tokens<'_, DeviceBuf<D, f32>>) -> Mat {
    let l = x.layout;
    Mat {
        ptr: x.buf.ptr().at(l.offset as u64),
        batch: l.batch,
        tokens: l.tokens,
        channels: l.channels,
        row_stride: l.row_stride,
        batch_stride: l.batch_stride,
    }
}

/// A writable view as kernels take it.
pub fn mat_mut<D: Driver>(x: TokensMut<'_, DeviceBuf<D, f32>>) -> MatMut {
    let l = x.layout;
    MatMut {
        ptr: x.buf.ptr_mut().at(l.offset as u64),
        batch: l.batch,
        tokens: l.tokens,
        channels: l.channels,
        row_stride: l.row_stride,
        batch_stride: l.batch_stride,
    }
}
