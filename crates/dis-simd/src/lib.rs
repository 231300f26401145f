//! Sixteen float32 lanes at a time, on whatever the processor offers, and the vector mathematics
//! of the scan and the activations on top.
//!
//! Code is written once, generic over [`Simd`], as a [`Kernel`]; [`dispatch`] compiles it for every
//! instruction set and picks one at run time:
//!
//! ```
//! use dis_simd::{Kernel, Row, Simd, Vector, dispatch, level};
//!
//! struct Double<'a>(&'a mut Row);
//! impl Kernel for Double<'_> {
//!     type Output = ();
//!     #[inline(always)]
//!     fn run<S: Simd>(self, simd: S) {
//!         let x = simd.load(&self.0.0);
//!         (x + x).store(&mut self.0.0);
//!     }
//! }
//! let mut row = Row([1.5; 16]);
//! dispatch(level(), Double(&mut row));
//! assert_eq!(row.0, [3.0; 16]);
//! ```
//!
//! A vector always has [`LANES`] lanes, whatever the registers' width (two of AVX2's, four of
//! NEON's), so layouts and the order of sums are the same everywhere. Lanes differ between
//! instruction sets only by the rounding of fused and unfused multiply-adds and of `exp2`.
//!
//! Soundness: a [`Simd`] token exists only where its instructions do, and a vector only where a
//! token made it, so their methods are safe to call.

mod level;
pub mod math;
pub mod pairs;
mod portable;
#[doc(hidden)]
pub mod rows;
pub mod slices;
mod transpose;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(test)]
mod tests;

pub use level::{
    Kernel, Level, Selection, dispatch, level, prefetch, prefetch_second, selection, supported,
};

pub use transpose::{columns_to_rows, rows_to_columns};

use std::ops::{Add, Div, Mul, Neg, Sub};

/// Lanes of every vector.
pub const LANES: usize = 16;

/// Sixteen numbers, aligned so that a vector is one cache line.
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub struct Row(pub [f32; LANES]);

impl Row {
    /// All zero.
    pub const ZERO: Self = Self([0.0; LANES]);

    /// The numbers of consecutive rows.
    pub fn flat(rows: &[Self]) -> &[f32] {
        bytemuck::cast_slice(rows)
    }

    /// The numbers of consecutive rows, to change.
    pub fn flat_mut(rows: &mut [Self]) -> &mut [f32] {
        bytemuck::cast_slice_mut(rows)
    }
}

/// Proof that a set of instructions can be used; makes vectors.
pub trait Simd: Copy + Send + Sync + std::fmt::Debug + 'static {
    /// Its vectors.
    type V: Vector;
    /// A part of a vector. Where a vector takes several of few registers, loops that keep many numbers
    /// in registers go over the parts of their rows one after another.
    type P: Number;
    /// Parts of a vector.
    const PARTS: usize;
    /// States of a scan that a kernel can hold in registers beside its temporaries; 4, 8 or 16.
    const STATE_BLOCK: usize;
    /// Parts whose exponentials are computed step by step together: as many as registers hold, so that
    /// the steps of one fill the waiting times of the others. 1, 2 or 4.
    const TOGETHER: usize;
    /// `x` in all lanes.
    fn splat(self, x: f32) -> Self::V;
    /// Sixteen numbers; unaligned memory will do.
    fn load(self, src: &[f32; LANES]) -> Self::V;
    /// The first `min(16, src.len())` lanes from `src`, zeros after.
    #[inline(always)]
    fn load_partial(self, src: &[f32]) -> Self::V {
        match src.first_chunk::<LANES>() {
            Some(all) => self.load(all),
            None => {
                let mut lanes = [0.0; LANES];
                lanes[..src.len()].copy_from_slice(src);
                self.load(&lanes)
            }
        }
    }
    /// `x` in all lanes of a part.
    fn splat_part(self, x: f32) -> Self::P;
    /// Part `part` (modulo [`Simd::PARTS`]) of sixteen numbers.
    fn load_part(self, src: &[f32; LANES], part: usize) -> Self::P;
    /// Writes part `part` (modulo [`Simd::PARTS`]) of sixteen numbers.
    fn store_part(self, x: Self::P, dst: &mut [f32; LANES], part: usize);
    /// With [`Simd::fold_first`]: what [`Vector::fold_halves`] gives for `first` and `second`, written to
    /// `dst` when all parts are done, in order and each with this before the other.
    fn fold_second(self, second: Self::P, dst: &mut [f32; LANES], part: usize);
    /// See [`Simd::fold_second`].
    fn fold_first(self, first: Self::P, dst: &mut [f32; LANES], part: usize);
}

/// What [`Simd`] says of parts where a vector is its own only part.
macro_rules! undivided {
    () => {
        type P = Self::V;
        const PARTS: usize = 1;

        #[inline(always)]
        fn splat_part(self, x: f32) -> Self::V {
            self.splat(x)
        }

        #[inline(always)]
        fn load_part(self, src: &[f32; LANES], _: usize) -> Self::V {
            self.load(src)
        }

        #[inline(always)]
        fn store_part(self, x: Self::V, dst: &mut [f32; LANES], _: usize) {
            x.store(dst);
        }

        #[inline(always)]
        fn fold_second(self, second: Self::V, dst: &mut [f32; LANES], _: usize) {
            second.store(dst);
        }

        #[inline(always)]
        fn fold_first(self, first: Self::V, dst: &mut [f32; LANES], _: usize) {
            Self::V::fold_halves(first, self.load(dst)).store(dst);
        }
    };
}
use undivided;

/// Float32 lanes and their arithmetic. Comparisons with NaN are false.
pub trait Number:
    Copy
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    /// Whether [`Number::scale2`] is one instruction that takes any exponent.
    const NATIVE_SCALE: bool;
    /// `x` in all lanes, for constants.
    fn like(self, x: f32) -> Self;
    /// `self * m + a`, rounded once where the hardware can.
    fn fma(self, m: Self, a: Self) -> Self;
    /// `a - self * m`, rounded once where the hardware can.
    fn nmadd(self, m: Self, a: Self) -> Self;
    /// `self < other ? self : other`: `other` where either is NaN.
    fn min(self, other: Self) -> Self;
    /// `self > other ? self : other`: `other` where either is NaN.
    fn max(self, other: Self) -> Self;
    /// Without the sign.
    fn abs(self) -> Self;
    /// To the nearest integer, ties to even, for magnitudes up to 2^22 (for all where
    /// [`Number::NATIVE_SCALE`]).
    fn round(self) -> Self;
    /// `self * 2^n`, rounded once, for integral n of magnitude up to 250; where
    /// [`Number::NATIVE_SCALE`] for all n, also infinite ones, even of NaN.
    fn scale2(self, n: Self) -> Self;
    /// `self * 2^(n - 1)` for integral n in -126 ..= 128, and 0 for n = -126: cheaper than
    /// [`Number::scale2`] where that is not native.
    fn scale2_half(self, n: Self) -> Self;
    /// `self * 2^n` where both are normal numbers and `shifted` is n + [`math::MAGIC`]: an addition of
    /// integers, which no multiply-add waits for.
    fn add_exponent(self, shifted: Self) -> Self;
    /// The same numbers; what follows from them is computed after all of them. A compiler that would
    /// finish one chain of operations before the next, to save registers, is kept from it.
    #[inline(always)]
    fn abreast<const K: usize>(x: [Self; K]) -> [Self; K] {
        x
    }
    /// `a < b ? yes : no`.
    fn select_lt(a: Self, b: Self, yes: Self, no: Self) -> Self;
    /// Lane `4 q + i` is the sum of lanes `4 q ..  4 q + 4` of `x[i]`, added as
    /// `(x0 + x2) + (x1 + x3)`.
    fn fold_within(x: [Self; 4]) -> Self;
}

/// Sixteen float32 lanes.
pub trait Vector: Number {
    /// Writes all lanes.
    fn store(self, dst: &mut [f32; LANES]);
    /// Writes the first `min(16, dst.len())` lanes.
    #[inline(always)]
    fn store_partial(self, dst: &mut [f32]) {
        match dst.first_chunk_mut::<LANES>() {
            Some(all) => self.store(all),
            None => {
                let mut lanes = [0.0; LANES];
                self.store(&mut lanes);
                let count = dst.len();
                dst.copy_from_slice(&lanes[..count]);
            }
        }
    }
    /// Writes the first half of the lanes.
    #[inline(always)]
    fn store_low(self, dst: &mut [f32; LANES / 2]) {
        let mut lanes = [0.0; LANES];
        self.store(&mut lanes);
        dst.copy_from_slice(&lanes[..LANES / 2]);
    }
    /// The first half added to the second of each: `a` gives lanes 0 to 8, `b` the others.
    fn fold_halves(a: Self, b: Self) -> Self;
    /// The first quarter added to the second, and the third to the fourth, of each: `a` gives lanes
    /// 0 to 8, `b` the others. After [`Number::fold_within`] and [`Vector::fold_halves`] of two
    /// fours of vectors each, this gives the full sums of sixteen vectors in their order.
    fn fold_quarters(a: Self, b: Self) -> Self;
    /// Lane j of vector i becomes lane i of vector j.
    #[inline(always)]
    fn transpose(x: [Self; LANES], simd: impl Simd<V = Self>) -> [Self; LANES] {
        let mut lanes = [[0.0; LANES]; LANES];
        for (lanes, x) in lanes.iter_mut().zip(x) {
            x.store(lanes);
        }
        let mut out = x;
        for (j, out) in out.iter_mut().enumerate() {
            let mut column = [0.0; LANES];
            for (to, from) in column.iter_mut().zip(&lanes) {
                *to = from[j];
            }
            *out = simd.load(&column);
        }
        out
    }
}
