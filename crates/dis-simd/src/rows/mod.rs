//! A few rows of a matrix, where they lie, times a panel of packed columns: the inner loop of products
//! on AVX-512 and AVX2, as hand-written assembly. Elements are float32, or on AVX-512 pairs of bfloat16.
//!
//! Intrinsics do not do here: with so many streams the compiler moves sums to memory.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

use super::LANES;
use super::level::Level;
#[cfg(not(target_arch = "x86_64"))]
use std::convert::Infallible as Proof;

/// Proof of what the kernels need.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
enum Proof {
    Avx512(super::avx512::Avx512),
    Avx2(super::avx2::Avx2),
}

/// Proof that the processor can do this, for float32 or for pairs.
#[derive(Clone, Copy, Debug)]
pub struct InPlace {
    proof: Proof,
    pairs: bool,
}

/// What a kernel reads and writes: strides in elements.
#[cfg(target_arch = "x86_64")]
struct Operands {
    a: *const f32,
    l: usize,
    b: *const f32,
    steps: usize,
    add: *const f32,
    add_stride: usize,
    c: *mut f32,
    stride: usize,
}

/// What is added to the sums of a tile.
#[derive(Clone, Copy, Debug)]
pub enum Addend<'a> {
    /// To every row the first numbers of these.
    Row(&'a [f32]),
    /// What is in the result.
    Kept,
}

/// Where a tile of a result goes: `H` rows of `V` vectors, `stride` elements apart.
#[derive(Debug)]
pub struct Tile<'a, const H: usize, const V: usize> {
    start: *mut f32,
    stride: usize,
    memory: std::marker::PhantomData<&'a mut [f32]>,
}

impl<'a, const H: usize, const V: usize> Tile<'a, H, V> {
    /// All of an array.
    pub fn of(rows: &'a mut [[[f32; LANES]; V]; H]) -> Self {
        Self {
            start: rows.as_flattened_mut().as_flattened_mut().as_mut_ptr(),
            stride: V * LANES,
            memory: std::marker::PhantomData,
        }
    }

    /// # Safety
    /// For the time of the borrow, elements `i * stride .. i * stride + V * LANES` from `start`,
    /// i below `H`, belong to this tile alone.
    pub unsafe fn new(start: *mut f32, stride: usize) -> Self {
        Self {
            start,
            stride,
            memory: std::marker::PhantomData,
        }
    }
}

impl InPlace {
    /// The kernel of a level, if there is one; for pairs, if asked for.
    pub fn detect(level: Level, pairs: bool) -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        {
            let proof = match level {
                Level::Avx512 if !pairs || super::pairs::has_pairs() => {
                    Proof::Avx512(super::avx512::Avx512::detect()?)
                }
                Level::Avx2 if !pairs => Proof::Avx2(super::avx2::Avx2::detect()?),
                _ => return None,
            };
            Some(Self { proof, pairs })
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = (level, pairs);
            None
        }
    }

    /// Whether elements are pairs of bfloat16.
    pub fn pairs(self) -> bool {
        self.pairs
    }

    /// Rows of a tile and vectors of a panel.
    pub fn shape(self) -> (usize, usize) {
        #[cfg(target_arch = "x86_64")]
        return match self.proof {
            Proof::Avx512(_) => (14, 2),
            Proof::Avx2(_) => (6, 1),
        };
        #[cfg(not(target_arch = "x86_64"))]
        match self.proof {}
    }

    /// `H` rows of `a`, `stride` elements apart, times the `V` vectors of every step in `b`, which has as
    /// many steps as are summed, and what is added, to `c`. H is that of [`InPlace::shape`], V at most
    /// that. Where eight columns are enough (`narrow`, with one vector), others may not be written.
    ///
    /// # Panics
    /// If there is no such kernel, or `a` or the row that is added is too short.
    #[inline]
    pub fn times<const H: usize, const V: usize>(
        self,
        a: &[f32],
        stride: usize,
        b: &[[[f32; LANES]; V]],
        addend: Addend<'_>,
        narrow: bool,
        c: Tile<'_, H, V>,
    ) {
        let needed = stride
            .checked_mul(H - 1)
            .and_then(|x| x.checked_add(b.len()));
        assert!(
            needed.is_some_and(|needed| needed <= a.len()),
            "rows beyond a matrix"
        );
        let (add, add_stride) = match addend {
            Addend::Row(row) => (row[..V * LANES].as_ptr(), 0),
            Addend::Kept => (c.start.cast_const(), c.stride),
        };
        #[cfg(target_arch = "x86_64")]
        {
            let operands = Operands {
                a: a.as_ptr(),
                l: stride,
                b: b.as_ptr().cast(),
                steps: b.len(),
                add,
                add_stride,
                c: c.start,
                stride: c.stride,
            };
            match (self.proof, H, V, self.pairs) {
                // SAFETY: reads of rows lie in `a` (asserted for as many rows as the kernel has), reads
                // of columns end with `b`; the addend is a row (its length asserted) or the tile's own
                // elements, each read before it is written; writes are those that `Tile` owns.
                (Proof::Avx512(proof), 14, 2, false) => unsafe {
                    avx512::times::<2, false>(proof, operands)
                },
                // SAFETY: as above; `detect` asked for BF16.
                (Proof::Avx512(proof), 14, 2, true) => unsafe {
                    avx512::times::<2, true>(proof, operands)
                },
                // SAFETY: as above.
                (Proof::Avx512(proof), 14, 1, false) => unsafe {
                    avx512::times::<1, false>(proof, operands)
                },
                // SAFETY: as above; `detect` asked for BF16.
                (Proof::Avx512(proof), 14, 1, true) => unsafe {
                    avx512::times::<1, true>(proof, operands)
                },
                // SAFETY: as above.
                (Proof::Avx2(proof), 6, 1, false) if narrow => unsafe {
                    avx2::times::<true>(proof, operands)
                },
                // SAFETY: as above.
                (Proof::Avx2(proof), 6, 1, false) => unsafe {
                    avx2::times::<false>(proof, operands)
                },
                _ => no_such_kernel(),
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = (add, add_stride, narrow, c);
            match self.proof {}
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[cold]
fn no_such_kernel() -> ! {
    unreachable!("no kernel for tiles of this shape")
}
