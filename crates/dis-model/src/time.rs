//! Sinusoidal embedding of diffusion time.

/// Writes the embedding of each t: cosines, then sines, of `t * 10000^(-i / half)`; an odd width
/// ends in one zero. Computed in float64 through `libm`, the same on every platform.
pub fn time_embedding(t: &[f64], dim: usize) -> Vec<f64> {
    let half = dim / 2;
    let mut out = vec![0.0; t.len() * dim];
    for (row, &t) in out.chunks_exact_mut(dim.max(1)).zip(t) {
        for i in 0..half {
            let frequency = libm::exp(-libm::log(10_000.0) * i as f64 / half as f64);
            row[i] = libm::cos(t * frequency);
            row[half + i] = libm::sin(t * frequency);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::time_embedding;

    #[test]
    fn odd_width_ends_in_zero() {
        let e = time_embedding(&[0.0, 3.0], 5);
        assert_eq!(e[..5], [1.0, 1.0, 0.0, 0.0, 0.0]);
        assert_eq!(e[9], 0.0);
        assert!((e[5] - 3f64.cos()).abs() < 1e-15 && (e[7] - 3f64.sin()).abs() < 1e-15);
    }
}
