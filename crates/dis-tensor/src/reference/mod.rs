//! The oracle: every operation in float64, or in another [`Scalar`], as plain loops written from the
//! formulas.
//!
//! Nothing here is fast or parallel, and nothing is shared with the CPU backend but the buffers
//! and the checks of arguments.

mod images;
mod loss;
mod norm;
mod optim;

use std::marker::PhantomData;
use std::sync::Arc;

use crate::backend::{AdamState, AdamW, Backend, Element, Norm, NormGrads, PatchGrid, PatchOrder};
use crate::backend::{Reals, View, ViewMut};
use crate::check::{self, dst, src};
use crate::error::Result;
use crate::host::HostBuf;
use crate::layout::{Layout, Tokens, TokensMut};
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

    fn fill(&self, out: ViewMut<'_, Self>, value: f64) -> Result<()> {
        check::one("fill", dst("dst", &out))?;
        set(out, |_, _, _| value.into());
        Ok(())
    }

    fn copy(&self, x: View<'_, Self>, out: ViewMut<'_, Self>) -> Result<()> {
        check::equal("copy", &[src("src", &x), dst("dst", &out)])?;
        set(out, |b, t, c| at(&x, b, t, c));
        Ok(())
    }

    fn axpy(&self, alpha: f64, x: View<'_, Self>, out: ViewMut<'_, Self>) -> Result<()> {
        check::equal("axpy", &[src("src", &x), dst("dst", &out)])?;
        add(out, |b, t, c| S::from(alpha) * at(&x, b, t, c));
        Ok(())
    }

    fn scale_samples(
        &self,
        scale: View<'_, Self>,
        x: View<'_, Self>,
        out: ViewMut<'_, Self>,
    ) -> Result<()> {
        const OP: &str = "scale_samples";
        check::equal(OP, &[src("src", &x), dst("dst", &out)])?;
        check::per_sample(OP, src("scale", &scale), src("src", &x))?;
        set(out, |b, t, c| at(&scale, b, 0, 0) * at(&x, b, t, c));
        Ok(())
    }

    fn gemm(
        &self,
        a: View<'_, Self>,
        transpose_a: bool,
        b: View<'_, Self>,
        transpose_b: bool,
        bias: Option<View<'_, Self>>,
        accumulate: bool,
        c: ViewMut<'_, Self>,
    ) -> Result<()> {
        let size = check::gemm(
            src("a", &a),
            transpose_a,
            src("b", &b),
            transpose_b,
            bias.as_ref().map(|x| src("bias", x)),
            accumulate,
            dst("c", &c),
        )?;
        // Strides of op(a)[i, p] and op(b)[p, j].
        let (a_i, a_p) = if transpose_a {
            (1, a.layout.row_stride)
        } else {
            (a.layout.row_stride, 1)
        };
        let (b_p, b_j) = if transpose_b {
            (1, b.layout.row_stride)
        } else {
            (b.layout.row_stride, 1)
        };
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
                match &bias {
                    Some(bias) => *out = sum + at(bias, 0, 0, j),
                    None if accumulate => *out += sum,
                    None => *out = sum,
                }
            }
        }
        Ok(())
    }

    fn add_column_sums(&self, x: View<'_, Self>, mut out: ViewMut<'_, Self>) -> Result<()> {
        check::per_channel("add_column_sums", dst("out", &out), src("x", &x))?;
        for_each(x.layout, |b, t, c| {
            *at_mut(&mut out, 0, 0, c) += at(&x, b, t, c)
        });
        Ok(())
    }

    fn add_batch_sums(&self, x: View<'_, Self>, mut out: ViewMut<'_, Self>) -> Result<()> {
        check::per_token("add_batch_sums", dst("out", &out), src("x", &x))?;
        for_each(x.layout, |b, t, c| {
            *at_mut(&mut out, 0, t, c) += at(&x, b, t, c)
        });
        Ok(())
    }

    fn token_sums(
        &self,
        alpha: f64,
        x: View<'_, Self>,
        accumulate: bool,
        mut out: ViewMut<'_, Self>,
    ) -> Result<()> {
        check::per_sample_channel("token_sums", dst("out", &out), src("x", &x))?;
        if !accumulate {
            set(out.reborrow(), |_, _, _| S::default());
        }
        for_each(x.layout, |b, t, c| {
            *at_mut(&mut out, b, 0, c) += S::from(alpha) * at(&x, b, t, c)
        });
        Ok(())
    }

    fn add_to_tokens(&self, alpha: f64, x: View<'_, Self>, out: ViewMut<'_, Self>) -> Result<()> {
        check::broadcast_row("add_to_tokens", src("x", &x), dst("dst", &out))?;
        let one = x.layout.batch == 1;
        let alpha = S::from(alpha);
        add(out, |b, _, c| alpha * at(&x, if one { 0 } else { b }, 0, c));
        Ok(())
    }

    fn add_to_samples(&self, alpha: f64, x: View<'_, Self>, out: ViewMut<'_, Self>) -> Result<()> {
        check::per_token("add_to_samples", src("x", &x), dst("dst", &out))?;
        add(out, |_, t, c| S::from(alpha) * at(&x, 0, t, c));
        Ok(())
    }

    fn silu(&self, x: View<'_, Self>, out: ViewMut<'_, Self>) -> Result<()> {
        check::equal("silu", &[src("x", &x), dst("out", &out)])?;
        set(out, |b, t, c| {
            let x = at(&x, b, t, c);
            x * x.sigmoid()
        });
        Ok(())
    }

    fn silu_backward(
        &self,
        x: View<'_, Self>,
        dout: View<'_, Self>,
        dx: ViewMut<'_, Self>,
    ) -> Result<()> {
        check::equal(
            "silu_backward",
            &[src("x", &x), src("dout", &dout), dst("dx", &dx)],
        )?;
        set(dx, |b, t, c| {
            let x = at(&x, b, t, c);
            let s = x.sigmoid();
            at(&dout, b, t, c) * (s + x * s * (S::from(1.0) - s))
        });
        Ok(())
    }

    fn neg_exp(&self, x: View<'_, Self>, out: ViewMut<'_, Self>) -> Result<()> {
        check::equal("neg_exp", &[src("x", &x), dst("out", &out)])?;
        set(out, |b, t, c| -at(&x, b, t, c).exp());
        Ok(())
    }

    fn add_product(
        &self,
        x: View<'_, Self>,
        y: View<'_, Self>,
        out: ViewMut<'_, Self>,
    ) -> Result<()> {
        check::equal(
            "add_product",
            &[src("a", &x), src("b", &y), dst("dst", &out)],
        )?;
        add(out, |b, t, c| at(&x, b, t, c) * at(&y, b, t, c));
        Ok(())
    }

    fn softmax(&self, scale: f64, x: View<'_, Self>, out: ViewMut<'_, Self>) -> Result<()> {
        check::equal("softmax", &[src("x", &x), dst("out", &out)])?;
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
        Ok(())
    }

    fn softmax_backward(
        &self,
        scale: f64,
        y: View<'_, Self>,
        dout: View<'_, Self>,
        dx: ViewMut<'_, Self>,
    ) -> Result<()> {
        check::equal(
            "softmax_backward",
            &[src("y", &y), src("dout", &dout), dst("dx", &dx)],
        )?;
        let means = per_row(y.layout, |b, t| {
            let product = |c| at(&y, b, t, c) * at(&dout, b, t, c);
            S::sum((0..y.layout.channels).map(product))
        });
        set(dx, |b, t, c| {
            let mean = means[b * y.layout.tokens + t];
            S::from(scale) * at(&y, b, t, c) * (at(&dout, b, t, c) - mean)
        });
        Ok(())
    }

    fn add_norm(
        &self,
        residual: Option<View<'_, Self>>,
        hidden: View<'_, Self>,
        hidden_scale: Option<View<'_, Self>>,
        norm: Norm<'_, Reals<Self>>,
        sum: Option<ViewMut<'_, Self>>,
        stats: Option<ViewMut<'_, Self>>,
        out: ViewMut<'_, Self>,
    ) -> Result<()> {
        check::add_norm(
            residual.as_ref(),
            &hidden,
            hidden_scale.as_ref(),
            &norm,
            sum.as_ref(),
            stats.as_ref(),
            &out,
        )?;
        norm::forward(residual, hidden, hidden_scale, norm, sum, stats, out);
        Ok(())
    }

    fn add_norm_backward(
        &self,
        x: View<'_, Self>,
        stats: View<'_, Self>,
        norm: Norm<'_, Reals<Self>>,
        dout: View<'_, Self>,
        accumulate: bool,
        dx: ViewMut<'_, Self>,
        grads: Option<NormGrads<'_, Reals<Self>>>,
        d_shift_scale: Option<ViewMut<'_, Self>>,
    ) -> Result<()> {
        check::add_norm_backward(
            &x,
            &stats,
            &norm,
            &dout,
            &dx,
            grads.as_ref(),
            d_shift_scale.as_ref(),
        )?;
        norm::backward(x, stats, norm, dout, accumulate, dx, grads, d_shift_scale);
        Ok(())
    }

    fn gather(
        &self,
        table: View<'_, Self>,
        ids: &HostBuf<u32>,
        out: ViewMut<'_, Self>,
    ) -> Result<()> {
        let ids = ids.as_slice();
        check::lookup("gather", src("table", &table), ids, dst("out", &out))?;
        set(out, |b, _, c| at(&table, 0, ids[b] as usize, c));
        Ok(())
    }

    fn scatter_add(
        &self,
        dout: View<'_, Self>,
        ids: &HostBuf<u32>,
        mut dtable: ViewMut<'_, Self>,
    ) -> Result<()> {
        let ids = ids.as_slice();
        check::lookup(
            "scatter_add",
            dst("dtable", &dtable),
            ids,
            src("dout", &dout),
        )?;
        for_each(dout.layout, |b, _, c| {
            *at_mut(&mut dtable, 0, ids[b] as usize, c) += at(&dout, b, 0, c);
        });
        Ok(())
    }

    fn patchify(&self, image: &Buf<S>, grid: PatchGrid, mut out: ViewMut<'_, Self>) -> Result<()> {
        check::patches("patchify", &grid, image.as_slice().len(), dst("out", &out))?;
        for_each_pixel(&grid, |pixel, b, t, c| {
            *at_mut(&mut out, b, t, c) = image[pixel]
        });
        Ok(())
    }

    fn unpatchify(
        &self,
        patches: View<'_, Self>,
        grid: PatchGrid,
        image: &mut Buf<S>,
    ) -> Result<()> {
        check::patches(
            "unpatchify",
            &grid,
            image.as_slice().len(),
            src("patches", &patches),
        )?;
        for_each_pixel(&grid, |pixel, b, t, c| image[pixel] = at(&patches, b, t, c));
        Ok(())
    }

    fn global_norm(&self, x: &Buf<S>, out: &mut Buf<S>) -> Result<()> {
        check::scalar_out("global_norm", "out", out.as_slice().len())?;
        // Float64 on every device: what scalars carry besides ends here.
        let squares = x.iter().map(|x| x.value() * x.value());
        out[0] = squares.sum::<f64>().sqrt().into();
        Ok(())
    }

    fn adamw(&self, state: AdamState<'_, Buf<S>>, step: AdamW) -> Result<()> {
        check::adamw(&state, &step)?;
        optim::adamw(state, &step);
        Ok(())
    }
}
