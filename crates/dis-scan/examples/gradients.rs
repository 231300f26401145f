//! Fits the decay rates of a system to its output, by the gradients of the scan.

use dis_scan::ndarray::{Array2, Array3};
use dis_scan::{Result, ScanOptions, selective_scan, selective_scan_grad};

const SHAPE: (usize, usize, usize) = (1, 64, 2); // batch, length, channels
const STATES: usize = 1;

fn main() -> Result<()> {
    // Impulses, every sixteen tokens.
    let u = Array3::from_shape_fn(SHAPE, |(_, t, _)| if t % 16 == 0 { 1.0 } else { 0.0 });
    let delta = Array3::from_elem(SHAPE, 0.1f32);
    let ones = Array3::ones((SHAPE.0, SHAPE.1, STATES)); // B and C
    let options = ScanOptions::default();
    let run = |a: &Array2<f32>| {
        let (u, delta, b) = (u.view(), delta.view(), ones.view());
        selective_scan(u, delta, a.view(), b, b, &options)
    };
    // What the system does: one channel forgets fast, the other slowly.
    let truth = Array2::from_shape_vec((SHAPE.2, STATES), vec![-4.0, -0.5]).unwrap_or_default();
    let wanted = run(&truth)?.y;

    let mut a = Array2::from_elem((SHAPE.2, STATES), -1.5f32);
    for step in 0..=300 {
        let off = run(&a)?.y - &wanted;
        if step % 100 == 0 {
            let loss = off.iter().map(|x| x * x).sum::<f32>() / 2.0;
            println!(
                "step {step:3}: loss {loss:.2e}, A = {:.3} and {:.3}",
                a[[0, 0]],
                a[[1, 0]]
            );
        }
        // The loss is sum(off^2) / 2, so its derivative by y is off.
        let (u, delta, b) = (u.view(), delta.view(), ones.view());
        let grads = selective_scan_grad(u, delta, a.view(), b, b, &options, off.view(), None)?;
        // A step down along ln(-A), whose derivative is A times that by A, keeps A negative.
        a.zip_mut_with(&grads.a, |a, g| *a *= (-2.0 * g * *a).exp());
    }
    println!(
        "wanted:              A = {:.3} and {:.3}",
        truth[[0, 0]],
        truth[[1, 0]]
    );
    assert!((&a - &truth).iter().all(|x| x.abs() < 0.05), "{a}");
    Ok(())
}
