//! Tables of learned positions for grids of another size, by bicubic interpolation.
//!
//! Along a side of `n` entries that is to have `m`, entry `i` of the result lies at
//! `x = (i + 1/2) n / m - 1/2` between those of the table (both cover the same picture), and is the
//! sum of the table's entries `j` weighted by Keys' kernel (R. G. Keys, Cubic convolution
//! interpolation for digital image processing, 1981):
//!
//! ```text
//! k(d) = (a + 2) |d|^3 - (a + 3) |d|^2 + 1        for |d| < 1
//!        a |d|^3 - 5 a |d|^2 + 8 a |d| - 4 a      for 1 <= |d| < 2, else 0
//! ```
//!
//! [`Bicubic::Plain`] is what image models are commonly fine-tuned with (PyTorch's `interpolate` in
//! mode `bicubic` with a size and without `antialias`): a = -3/4, four entries, those beyond the
//! border repeat it. [`Bicubic::Antialiased`] has a = -1/2, widens the kernel by `n / m` where the
//! table shrinks, and normalises the weights of the entries that there are.
//!
//! Rows and columns are independent: `out = R table C^T`. The gradient of the table is
//! `R^T upstream C`.

use crate::error::{ModelError, Result};

/// Which weights a resize has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bicubic {
    /// Four entries, whatever the sizes.
    #[default]
    Plain,
    /// As many entries as the picture shrinks by, so that none is skipped.
    Antialiased,
}

/// Most positions of a side, which bounds the work that sizes ask for.
const MOST: usize = 1 << 16;

/// One side: for every entry of the result the entries of the table that it is made of.
type Side = Vec<Vec<(usize, f64)>>;

/// A resize of tables (extra + height * width, D) of positions: those of extra tokens come first and
/// are copied, the rest is a grid, row by row.
#[derive(Clone, Debug)]
pub struct PositionResize {
    extra: usize,
    from: [usize; 2],
    to: [usize; 2],
    rows: Side,
    columns: Side,
}

impl PositionResize {
    /// Between grids of these rows and columns, with so many extra tokens in front.
    ///
    /// # Errors
    /// Grids without rows or columns, or with more than 65536.
    pub fn new(from: [usize; 2], to: [usize; 2], extra: usize, kind: Bicubic) -> Result<Self> {
        if let Some(side) = [from, to]
            .concat()
            .iter()
            .find(|s| !(1..=MOST).contains(*s))
        {
            return Err(ModelError::Input(format!(
                "a grid of positions of {side} rows or columns; there must be 1 to {MOST}"
            )));
        }
        Ok(Self {
            extra,
            from,
            to,
            rows: side(from[0], to[0], kind),
            columns: side(from[1], to[1], kind),
        })
    }

    /// The resized table (extra + height * width, D) of `table`, whose rows are `dim` wide.
    ///
    /// # Errors
    /// A table of another size.
    pub fn forward(&self, table: &[f64], dim: usize) -> Result<Vec<f64>> {
        let grid = self.grid("the table", table, self.from, dim)?;
        let [height, _] = self.from;
        let [_, width] = self.to;
        // Columns first: (height before, width after), then rows.
        let mut wide = vec![0.0; height * width * dim];
        for y in 0..height {
            for (x, taps) in self.columns.iter().enumerate() {
                let out = &mut wide[(y * width + x) * dim..][..dim];
                for &(j, weight) in taps {
                    add(out, weight, &grid[(y * self.from[1] + j) * dim..][..dim]);
                }
            }
        }
        let mut out = table[..self.extra * dim].to_vec();
        let row = width * dim;
        for taps in &self.rows {
            let start = out.len();
            out.resize(start + row, 0.0);
            for &(j, weight) in taps {
                add(&mut out[start..], weight, &wide[j * row..][..row]);
            }
        }
        Ok(out)
    }

    /// The gradient of the table from that of the resized one.
    ///
    /// # Errors
    /// A gradient of another size.
    pub fn backward(&self, upstream: &[f64], dim: usize) -> Result<Vec<f64>> {
        let grid = self.grid("the gradient", upstream, self.to, dim)?;
        let [height, before] = self.from;
        let [_, width] = self.to;
        let row = width * dim;
        let mut wide = vec![0.0; height * row];
        for (upstream, taps) in grid.chunks_exact(row).zip(&self.rows) {
            for &(j, weight) in taps {
                add(&mut wide[j * row..][..row], weight, upstream);
            }
        }
        let mut out = upstream[..self.extra * dim].to_vec();
        let start = out.len();
        out.resize(start + height * before * dim, 0.0);
        for y in 0..height {
            for (x, taps) in self.columns.iter().enumerate() {
                for &(j, weight) in taps {
                    let out = &mut out[start + (y * before + j) * dim..][..dim];
                    add(out, weight, &wide[(y * width + x) * dim..][..dim]);
                }
            }
        }
        Ok(out)
    }

    /// The part of a table that is the grid.
    fn grid<'a>(
        &self,
        what: &str,
        table: &'a [f64],
        [height, width]: [usize; 2],
        dim: usize,
    ) -> Result<&'a [f64]> {
        let tokens = self.extra.saturating_add(height * width);
        if table.len() != tokens.saturating_mul(dim) || dim == 0 {
            return Err(ModelError::Input(format!(
                "{what} of positions has {} values, but {} extra tokens and a grid of {height}x{width} \
                 have {tokens} times {dim}",
                table.len(),
                self.extra
            )));
        }
        Ok(&table[self.extra * dim..])
    }
}

/// `out += weight * values`.
fn add(out: &mut [f64], weight: f64, values: &[f64]) {
    for (out, value) in out.iter_mut().zip(values) {
        *out += weight * value;
    }
}

/// Keys' kernel.
fn keys(distance: f64, a: f64) -> f64 {
    let d = distance.abs();
    if d < 1.0 {
        ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0
    } else if d < 2.0 {
        ((d - 5.0) * d + 8.0) * d * a - 4.0 * a
    } else {
        0.0
    }
}

fn side(from: usize, to: usize, kind: Bicubic) -> Side {
    let scale = from as f64 / to as f64;
    let entry = |i: usize| {
        let center = (i as f64 + 0.5) * scale - 0.5;
        match kind {
            Bicubic::Plain => plain(center, from),
            Bicubic::Antialiased => antialiased(center, scale.max(1.0), from),
        }
    };
    (0..to).map(entry).collect()
}

fn plain(center: f64, from: usize) -> Vec<(usize, f64)> {
    let below = center.floor();
    let tap = |step: i64| {
        let at = (below as i64 + step).clamp(0, from as i64 - 1);
        (at as usize, keys(center - below - step as f64, -0.75))
    };
    (-1..=2).map(tap).collect()
}

fn antialiased(center: f64, stretch: f64, from: usize) -> Vec<(usize, f64)> {
    // From the first to past the last entry whose middle is less than two (stretched) steps away.
    let first = (center - 2.0 * stretch + 1.0).max(0.0) as usize;
    let end = ((center + 2.0 * stretch + 1.0) as usize).min(from);
    let weights = (first..end).map(|j| (j, keys((j as f64 - center) / stretch, -0.5)));
    let weights: Vec<(usize, f64)> = weights.collect();
    let sum: f64 = weights.iter().map(|(_, w)| w).sum();
    weights.into_iter().map(|(j, w)| (j, w / sum)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resize(from: [usize; 2], to: [usize; 2], extra: usize, kind: Bicubic) -> PositionResize {
        PositionResize::new(from, to, extra, kind).unwrap()
    }

    fn ramp(len: usize) -> Vec<f64> {
        (0..len).map(|i| (0.37 * i as f64).sin()).collect()
    }

    #[test]
    fn a_grid_of_the_same_size_is_copied_bit_for_bit() {
        for kind in [Bicubic::Plain, Bicubic::Antialiased] {
            let table = ramp((2 + 15) * 3);
            let same = resize([3, 5], [3, 5], 2, kind);
            assert_eq!(same.forward(&table, 3).unwrap(), table);
            assert_eq!(same.backward(&table, 3).unwrap(), table);
        }
    }

    #[test]
    fn constants_stay_and_extra_tokens_are_copied() {
        for kind in [Bicubic::Plain, Bicubic::Antialiased] {
            for to in [[1, 1], [2, 9], [13, 4]] {
                let out = resize([4, 6], to, 1, kind);
                let mut table = vec![3.5; 25];
                table[0] = -7.0;
                let out = out.forward(&table, 1).unwrap();
                assert_eq!((out.len(), out[0]), (1 + to[0] * to[1], -7.0));
                assert!(out[1..].iter().all(|x| (x - 3.5).abs() < 1e-14), "{out:?}");
            }
        }
    }

    /// `sum(forward(x) y) = sum(x backward(y))`.
    #[test]
    fn backward_is_the_adjoint() {
        for kind in [Bicubic::Plain, Bicubic::Antialiased] {
            for (from, to) in [([4, 6], [9, 2]), ([1, 7], [3, 7]), ([8, 8], [3, 5])] {
                let r = resize(from, to, 1, kind);
                let x = ramp((1 + from[0] * from[1]) * 2);
                let y = ramp((1 + to[0] * to[1]) * 2);
                let dot =
                    |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
                let forward = dot(&r.forward(&x, 2).unwrap(), &y);
                let backward = dot(&x, &r.backward(&y, 2).unwrap());
                assert!(
                    (forward - backward).abs() < 1e-12,
                    "{kind:?} {from:?} {to:?}"
                );
            }
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        let refused = |from, to| PositionResize::new(from, to, 0, Bicubic::Plain).is_err();
        assert!(refused([0, 2], [2, 2]) && refused([2, 2], [2, usize::MAX]));
        let r = resize([2, 2], [4, 4], 1, Bicubic::Plain);
        let message = r.forward(&[0.0; 4], 1).unwrap_err().to_string();
        assert!(
            message.contains("4 values") && message.contains("2x2"),
            "{message}"
        );
        assert!(r.backward(&[0.0; 5], 1).is_err() && r.forward(&[], 0).is_err());
    }
}
