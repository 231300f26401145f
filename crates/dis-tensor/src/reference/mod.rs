//! The oracle: every operation in float64, or in another [`Scalar`], as plain loops written from the
//! formulas.
//!
//! Nothing here is fast or parallel, and nothing is shared with the CPU backend but the buffers.

mod images;
mod loss;
mod norm;
mod optim;

use std::borrow::Cow;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::backend::{Backend, Element, View, ViewMut};
use crate::error::Result;
use crate::host::HostBuf;
use crate::layout::{Layout, Tokens, TokensMut};
use crate::operands::{
    Accum, AdamState, AdamW, AddNorm, AddNormBackward, GemmSize, Map, Matrix, PatchGrid,
    PatchOrder, Sum, Zip,
};
use crate::pool::{Pool, PoolStats};
use crate::scalar::Scalar;

/// The float64 backend, or one of another [`Scalar`].
#[derive(Clone, Debug)]
pub struct Reference<S = f64> {
    pool: Arc<Pool>,
    scalar: PhantomData<S>,
}

impl Reference {
    /// A float64 backend with a pool of its own.
    pub fn new() -> Self {
        Self::of()
    }
}

impl<S: Scalar> Reference<S> {
    /// A backend of such scalars, with a pool of its own.
    pub fn of() -> Self {
        Self {
            pool: Pool::new(),
            scalar: PhantomData,
        }
    }

    /// What its pool has done so far.
    pub fn pool_stats(&self) -> PoolStats {
        self.pool.stats()
    }
}

impl Default for Reference {
    fn default() -> Self {
        Self::new()
    }
}

type Buf<S> = HostBuf<S>;

/// Element (b, t, c) of a view.
fn at<S: Scalar>(x: &Tokens<'_, Buf<S>>, b: usize, t: usize, c: usize) -> S {
    x.buf.as_slice()[x.layout.row(b, t) + c]
}

/// Element (b, t, c) of a view, to change.
fn at_mut<'a, S: Scalar>(
    x: &'a mut TokensMut<'_, Buf<S>>,
    b: usize,
    t: usize,
    c: usize,
) -> &'a mut S {
    let index = x.layout.row(b, t) + c;
    &mut x.buf.as_mut_slice()[index]
}

/// Calls `f` for every (b, t, c) of a layout, in order.
fn for_each(layout: Layout, mut f: impl FnMut(usize, usize, usize)) {
    for b in 0..layout.batch {
        for t in 0..layout.tokens {
            for c in 0..layout.channels {
                f(b, t, c);
            }
        }
    }
}

/// Sets every element of `out` to a function of its place.
fn set<S: Scalar>(mut out: TokensMut<'_, Buf<S>>, f: impl Fn(usize, usize, usize) -> S) {
    for_each(out.layout, |b, t, c| {
        *at_mut(&mut out, b, t, c) = f(b, t, c)
    });
}

/// A function of every row (b, t), in order.
fn per_row<T>(layout: Layout, f: impl Fn(usize, usize) -> T) -> Vec<T> {
    (0..layout.batch * layout.tokens)
        .map(|r| f(r / layout.tokens, r % layout.tokens))
        .collect()
}

/// Adds to every element of `out` a function of its place.
fn add<S: Scalar>(mut out: TokensMut<'_, Buf<S>>, f: impl Fn(usize, usize, usize) -> S) {
    for_each(out.layout, |b, t, c| {
        *at_mut(&mut out, b, t, c) += f(b, t, c)
    });
}

/// Calls `f(index in the image, sample, token, channel of the patch)` for every value.
fn for_each_pixel(grid: &PatchGrid, mut f: impl FnMut(usize, usize, usize, usize)) {
    let (p, per_row) = (grid.patch, grid.width / grid.patch);
    for b in 0..grid.batch {
        for c in 0..grid.channels {
            for y in 0..grid.height {
                for x in 0..grid.width {
                    let image = ((b * grid.channels + c) * grid.height + y) * grid.width + x;
                    let token = (y / p) * per_row + x / p;
                    let (i, j) = (y % p, x % p);
                    let value = match grid.order {
                        PatchOrder::ChannelFirst => (c * p + i) * p + j,
                        PatchOrder::ChannelLast => (i * p + j) * grid.channels + c,
                    };
                    f(image, b, token, value);
                }
            }
        }
    }
}

impl<S: Scalar> Backend for Reference<S> {
    type Real = S;
    type Buf<E: Element> = HostBuf<E>;

    fn describe(&self) -> String {
        "reference (float64, 1 thread)".into()
    }

    fn alloc<E: Element>(&self, len: usize) -> HostBuf<E> {
        HostBuf::alloc(&self.pool, len)
    }

    fn zeros<E: Element>(&self, len: usize) -> HostBuf<E> {
        HostBuf::zeros(&self.pool, len)
    }

    fn upload<E: Element>(&self, data: &[E]) -> HostBuf<E> {
        HostBuf::from_slice(&self.pool, data)
    }

    fn download<E: Element>(&self, buf: &HostBuf<E>) -> Vec<E> {
        buf.as_slice().to_vec()
    }

    fn write_f32(&self, buf: &mut Buf<S>, offset: usize, data: &[f32]) -> Result<()> {
        let to = buf.range_mut("write_f32", offset, data.len())?;
        for (to, &from) in to.iter_mut().zip(data) {
            *to = f64::from(from).into();
        }
        Ok(())
    }

    fn write_f64(&self, buf: &mut Buf<S>, offset: usize, data: &[f64]) -> Result<()> {
        let to = buf.range_mut("write_f64", offset, data.len())?;
        for (to, &from) in to.iter_mut().zip(data) {
            *to = from.into();
        }
        Ok(())
    }

    fn read_f32(&self, buf: &Buf<S>, offset: usize, out: &mut [f32]) -> Result<()> {
        let from = buf.range("read_f32", offset, out.len())?;
        for (to, &from) in out.iter_mut().zip(from) {
            *to = from.value() as f32;
        }
        Ok(())
    }

    fn read_f64(&self, buf: &Buf<S>, offset: usize, out: &mut [f64]) -> Result<()> {
        let from = buf.range("read_f64", offset, out.len())?;
        for (to, &from) in out.iter_mut().zip(from) {
            *to = from.value();
        }
        Ok(())
    }

    fn from_f32(&self, data: &[f32]) -> Buf<S> {
        let mut buf = self.alloc::<S>(data.len());
        for (to, &from) in buf.as_mut_slice().iter_mut().zip(data) {
            *to = f64::from(from).into();
        }
        buf
    }

    fn to_f32(&self, buf: &Buf<S>) -> Vec<f32> {
        buf.as_slice().iter().map(|&x| x.value() as f32).collect()
    }

    fn host_ids<'a>(&self, ids: &'a HostBuf<u32>) -> Cow<'a, [u32]> {
        Cow::Borrowed(ids.as_slice())
    }

    fn run_fill(&self, value: f64, out: ViewMut<'_, Self>) -> Result<()> {
        set(out, |_, _, _| value.into());
        Ok(())
    }

    fn run_map(&self, f: Map, x: View<'_, Self>, out: ViewMut<'_, Self>) -> Result<()> {
        match f {
            Map::Copy => set(out, |b, t, c| at(&x, b, t, c)),
            Map::Axpy(alpha) => add(out, |b, t, c| S::from(alpha) * at(&x, b, t, c)),
            Map::Silu => set(out, |b, t, c| {
                let x = at(&x, b, t, c);
                x * x.sigmoid()
            }),
            Map::NegExp => set(out, |b, t, c| -at(&x, b, t, c).exp()),
            Map::Softmax(scale) => softmax(scale, x, out),
        }
        Ok(())
    }

    fn run_zip(
        &self,
        f: Zip,
        x: View<'_, Self>,
        y: View<'_, Self>,
        out: ViewMut<'_, Self>,
    ) -> Result<()> {
        match f {
            Zip::SiluBackward => set(out, |b, t, c| {
                let x = at(&x, b, t, c);
                let s = x.sigmoid();
                at(&y, b, t, c) * (s + x * s * (S::from(1.0) - s))
            }),
            Zip::AddProduct => add(out, |b, t, c| at(&x, b, t, c) * at(&y, b, t, c)),
            Zip::SoftmaxBackward(scale) => {
                let means = per_row(x.layout, |b, t| {
                    let product = |c| at(&x, b, t, c) * at(&y, b, t, c);
                    S::sum((0..x.layout.channels).map(product))
                });
                set(out, |b, t, c| {
                    let mean = means[b * x.layout.tokens + t];
                    S::from(scale) * at(&x, b, t, c) * (at(&y, b, t, c) - mean)
                });
            }
        }
        Ok(())
    }

    fn run_sum(&self, over: Sum, x: View<'_, Self>, mut out: ViewMut<'_, Self>) -> Result<()> {
        let factor = match over {
            Sum::Rows | Sum::Samples => 1.0,
            Sum::Tokens(alpha, accum) => {
                if !accum.adds() {
                    set(out.reborrow(), |_, _, _| S::default());
                }
                alpha
            }
        };
        for_each(x.layout, |b, t, c| {
            let (b_out, t_out) = match over {
                Sum::Rows => (0, 0),
                Sum::Samples => (0, t),
                Sum::Tokens(..) => (b, 0),
            };
            *at_mut(&mut out, b_out, t_out, c) += S::from(factor) * at(&x, b, t, c);
        });
        Ok(())
    }

    fn run_scale_samples(
        &self,
        scale: View<'_, Self>,
        x: View<'_, Self>,
        out: ViewMut<'_, Self>,
    ) -> Result<()> {
        set(out, |b, t, c| at(&scale, b, 0, 0) * at(&x, b, t, c));
        Ok(())
    }

    fn run_gemm(
        &self,
        size: GemmSize,
        a: Matrix<'_, Buf<S>>,
        b: Matrix<'_, Buf<S>>,
        bias: Option<View<'_, Self>>,
        accum: Accum,
        c: ViewMut<'_, Self>,
    ) -> Result<()> {
        let ((a_i, a_p), (b_p, b_j)) = (a.strides(), b.strides());
        let (a, b) = (a.view, b.view);
        let (a_data, b_data) = (&a.buf.as_slice(), &b.buf.as_slice());
        let (c_layout, c_data) = (c.layout, c.buf.as_mut_slice());
        for i in 0..size.m {
            for j in 0..size.n {
                let mut sum = S::default();
                for p in 0..size.k {
                    sum += a_data[a.layout.offset + i * a_i + p * a_p]
                        * b_data[b.layout.offset + p * b_p + j * b_j];
                }
                let out = &mut c_data[c_layout.offset + i * c_layout.row_stride + j];
                match (&bias, accum) {
                    (Some(bias), _) => *out = sum + at(bias, 0, 0, j),
                    (None, Accum::Add) => *out += sum,
                    (None, Accum::Replace) => *out = sum,
                }
            }
        }
        Ok(())
    }

    fn run_add_norm(&self, call: AddNorm<'_, Buf<S>>) -> Result<()> {
        norm::forward(call);
        Ok(())
    }

    fn run_add_norm_backward(&self, call: AddNormBackward<'_, Buf<S>>) -> Result<()> {
        norm::backward(call);
        Ok(())
    }

    fn run_gather(
        &self,
        table: View<'_, Self>,
        ids: &HostBuf<u32>,
        out: ViewMut<'_, Self>,
    ) -> Result<()> {
        let ids = ids.as_slice();
        set(out, |b, _, c| at(&table, 0, ids[b] as usize, c));
        Ok(())
    }

    fn run_scatter_add(
        &self,
        dout: View<'_, Self>,
        ids: &HostBuf<u32>,
        mut dtable: ViewMut<'_, Self>,
    ) -> Result<()> {
        let ids = ids.as_slice();
        for_each(dout.layout, |b, _, c| {
            *at_mut(&mut dtable, 0, ids[b] as usize, c) += at(&dout, b, 0, c);
        });
        Ok(())
    }

    fn run_patchify(
        &self,
        image: &Buf<S>,
        grid: PatchGrid,
        mut out: ViewMut<'_, Self>,
    ) -> Result<()> {
        for_each_pixel(&grid, |pixel, b, t, c| {
            *at_mut(&mut out, b, t, c) = image[pixel]
        });
        Ok(())
    }

    fn run_unpatchify(
        &self,
        patches: View<'_, Self>,
        grid: PatchGrid,
        image: &mut Buf<S>,
    ) -> Result<()> {
        for_each_pixel(&grid, |pixel, b, t, c| image[pixel] = at(&patches, b, t, c));
        Ok(())
    }

    fn run_global_norm(&self, x: &Buf<S>, out: &mut Buf<S>) -> Result<()> {
        // Float64 on every device: what scalars carry besides ends here.
        let squares = x.iter().map(|x| x.value() * x.value());
        out[0] = squares.sum::<f64>().sqrt().into();
        Ok(())
    }

    fn run_adamw(&self, state: AdamState<'_, Buf<S>>, step: AdamW) -> Result<()> {
        optim::adamw(state, &step);
        Ok(())
    }
}

fn softmax<S: Scalar>(scale: f64, x: Tokens<'_, Buf<S>>, out: TokensMut<'_, Buf<S>>) {
    let scaled = |b, t, c| S::from(scale) * at(&x, b, t, c);
    // The largest itself is nothing below, whatever it is off.
    let below = |x: S, largest: S| {
        if x == largest && x.value().is_finite() {
            S::default()
        } else {
            x - largest
        }
    };
    let rows = per_row(x.layout, |b, t| {
        let row = (0..x.layout.channels).map(|c| scaled(b, t, c));
        let larger = |a: S, x: S| if x.value() > a.value() { x } else { a };
        let largest = row.clone().fold(S::from(f64::NEG_INFINITY), larger);
        (largest, S::sum(row.map(|x| below(x, largest).exp())))
    });
    set(out, |b, t, c| {
        let (largest, total) = rows[b * x.layout.tokens + t];
        below(scaled(b, t, c), largest).exp() / total
    });
}
