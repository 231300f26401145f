use dis_tensor::Cpu;
use ndarray::{Array4, s};

use super::{normals, tiny, weights};
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

/// Tiles differ from the whole through normalisation and attention, which see the tile alone, and
/// at their edges. Over noise and with random weights that is a lot; it shrinks as tiles grow.
#[test]
fn tiles_agree_with_the_whole_within_a_bound() {
    let (vae, cpu, z) = (vae(), Cpu::new(), latents(48));
    let difference = |z: &Array4<f32>, size: usize| {
        let whole = vae.decode(&cpu, z.view()).unwrap();
        let tiled = vae.decode_tiled(&cpu, z.view(), Tiling::new(size)).unwrap();
        assert_eq!(tiled.dim(), whole.dim());
        rms((&tiled - &whole).iter().copied()) / rms(whole.iter().copied())
    };
    let (small, large) = (difference(&z, 16), difference(&z, 32));
    assert!(small < 0.25, "{small}");
    assert!(large < 0.1 && large < 0.5 * small, "{large}, {small}");
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
    assert!(soft < 0.5 * hard, "{soft} against {hard} without overlap");
}
