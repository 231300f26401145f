use dis_tensor::Cpu;
use ndarray::{Array4, s};

use super::{error, image, normals, tiny, tolerance, weights};
use crate::oracle::{Image, Oracle};
use crate::tiling::Tiling;
use crate::vae::Vae;

fn rms(x: impl Iterator<Item = f32>) -> f64 {
    let (mut sum, mut n) = (0.0, 0);
    for x in x {
        sum += f64::from(x) * f64::from(x);
        n += 1;
    }
    (sum / f64::from(n)).sqrt()
}

fn vae() -> Vae {
    let config = tiny(&[16, 24, 32]);
    Vae::new(config.clone(), &weights(&config, 3)).unwrap()
}

fn latents(side: usize) -> Array4<f32> {
    Array4::from_shape_vec((1, 4, side, side + 5), normals(4, 4 * side * (side + 5))).unwrap()
}

#[test]
fn what_fits_a_tile_has_the_bits_of_the_whole() {
    let (vae, cpu, z) = (vae(), Cpu::new(), latents(12));
    let whole = vae.decode(&cpu, z.view()).unwrap();
    let tiled = vae.decode_tiled(&cpu, z.view(), Tiling::new(17)).unwrap();
    assert_eq!(whole, tiled);
    for (size, overlap) in [(0, 0), (4, 4), (4, 9)] {
        assert!(
            vae.decode_tiled(&cpu, z.view(), Tiling { size, overlap })
                .is_err()
        );
    }
}

/// Each tile by the oracle, blended by weights written anew: linear over what neighbours share.
#[test]
fn tiles_are_blended_as_the_oracle_blends_them() {
    let config = tiny(&[8, 12]);
    let weights = weights(&config, 5);
    let (vae, cpu) = (Vae::new(config.clone(), &weights).unwrap(), Cpu::new());
    let (exact, rounded) = (
        Oracle::new(&config, &weights),
        Oracle::new(&config, &weights).rounding(),
    );
    let factor = config.reduction();
    let (height, width) = (7, 13);
    let z = normals(6, 4 * height * width);
    // Starts for sides of 7 and 13 with tiles of 6 that share at least 2: 7 - 6 = 1, and two steps
    // over 13 - 6 = 7, the middle one rounded up.
    let tiling = Tiling {
        size: 6,
        overlap: 2,
    };
    let (rows, columns) = (vec![0, 1], vec![0, 4, 7]);
    let weight = |starts: &[usize], tile: usize, pixel: usize| {
        let side = 6 * factor;
        let shared = |a: usize, b: usize| ((starts[a] + 6 - starts[b]) * factor) as f64;
        let mut weight = 1.0f64;
        if tile > 0 {
            weight = weight.min((pixel as f64 + 0.5) / shared(tile - 1, tile));
        }
        if tile + 1 < starts.len() {
            weight = weight.min(((side - 1 - pixel) as f64 + 0.5) / shared(tile, tile + 1));
        }
        weight
    };
    let blended = |oracle: &Oracle<'_>| {
        let [h, w] = [height * factor, width * factor];
        let (mut out, mut sums) = (vec![0.0; 3 * h * w], vec![0.0; h * w]);
        for (i, &row) in rows.iter().enumerate() {
            for (j, &column) in columns.iter().enumerate() {
                let mut tile = Vec::new();
                for c in 0..4 {
                    for y in row..row + 6 {
                        let from = (c * height + y) * width + column;
                        tile.extend_from_slice(&z[from..from + 6]);
                    }
                }
                let tile = oracle.decode(&image([4, 6, 6], &tile)).unwrap();
                for y in 0..6 * factor {
                    for x in 0..6 * factor {
                        let weight = weight(&rows, i, y) * weight(&columns, j, x);
                        let at = (row * factor + y) * w + column * factor + x;
                        sums[at] += weight;
                        for c in 0..3 {
                            out[c * h * w + at] += weight * tile.at(c, y, x);
                        }
                    }
                }
            }
        }
        out.iter_mut()
            .enumerate()
            .for_each(|(i, x)| *x /= sums[i % (h * w)]);
        Image::new([3, h, w], out)
    };
    let naive = blended(&exact);
    let z = Array4::from_shape_vec((1, 4, height, width), z.clone()).unwrap();
    let tiled = vae.decode_tiled(&cpu, z.view(), tiling).unwrap();
    let limit = tolerance(&naive, &blended(&rounded));
    let found = error(tiled.as_slice().unwrap(), &naive.data);
    assert!(found < limit, "{found}, {limit}");
}

/// Tiles differ from the whole through normalisation and attention, which see the tile alone, and
/// at their edges. How much is a property of weights and latents, but less of both is left as tiles
/// grow.
#[test]
fn tiles_come_closer_to_the_whole_as_they_grow() {
    let (vae, cpu, z) = (vae(), Cpu::new(), latents(48));
    let whole = vae.decode(&cpu, z.view()).unwrap();
    let difference = |size: usize| {
        let tiled = vae.decode_tiled(&cpu, z.view(), Tiling::new(size)).unwrap();
        assert_eq!(tiled.dim(), whole.dim());
        rms((&tiled - &whole).iter().copied())
    };
    let (small, medium, large) = (difference(8), difference(16), difference(32));
    assert!(
        large < medium && medium < small,
        "{large}, {medium}, {small}"
    );
}

/// Without overlap the rows at the edges of tiles are far off, and a seam shows.
#[test]
fn overlaps_hide_the_seams() {
    let (vae, cpu, z) = (vae(), Cpu::new(), latents(40));
    let whole = vae.decode(&cpu, z.view()).unwrap();
    let row_error = |tiled: &Array4<f32>, y: usize| {
        let (a, b) = (
            tiled.slice(s![.., .., y, ..]),
            whole.slice(s![.., .., y, ..]),
        );
        rms((&a - &b).iter().copied())
    };
    let worst = |overlap: usize| {
        let tiling = Tiling { size: 20, overlap };
        let tiled = vae.decode_tiled(&cpu, z.view(), tiling).unwrap();
        (0..whole.dim().2)
            .map(|y| row_error(&tiled, y))
            .fold(0.0, f64::max)
    };
    let (hard, soft) = (worst(0), worst(5));
    assert!(soft < hard, "{soft} against {hard} without overlap");
}
