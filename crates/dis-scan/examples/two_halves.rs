//! A sequence in two halves, whose outputs and gradients are those of the whole, bit for bit: the last state
//! of the first half enters the second, and the gradient of that state goes back.

use dis_scan::ndarray::{Array2, Array3, Axis, concatenate, s};
use dis_scan::{Result, ScanOptions, selective_scan, selective_scan_grad};

fn main() -> Result<()> {
    let (batch, length, channels, states) = (2, 100, 24, 16);
    let wave = |n: usize, k: f32| {
        Array3::from_shape_fn((batch, length, n), |(b, t, c)| {
            (k * (1 + b + t + 3 * c) as f32).sin()
        })
    };
    let (u, delta, dout) = (
        wave(channels, 0.3),
        wave(channels, 0.7),
        wave(channels, 1.1),
    );
    let (b, c) = (wave(states, 0.2), wave(states, 0.5));
    let a = Array2::from_shape_fn((channels, states), |(_, n)| -(1.0 + n as f32));

    // Tokens `start .. end`, from a state.
    let options = |state| ScanOptions {
        delta_softplus: true,
        initial_state: state,
        ..ScanOptions::default()
    };
    let run = |start: usize, end: usize, state| {
        let cut = s![.., start..end, ..];
        let (u, delta, b, c) = (u.slice(cut), delta.slice(cut), b.slice(cut), c.slice(cut));
        selective_scan(u, delta, a.view(), b, c, &options(state))
    };
    let whole = run(0, length, None)?;
    let first = run(0, 37, None)?;
    let second = run(37, length, Some(first.last_state.view()))?;
    let joined = concatenate(Axis(1), &[first.y.view(), second.y.view()]);
    assert_eq!(joined.as_ref(), Ok(&whole.y));
    assert_eq!(second.last_state, whole.last_state);
    println!("outputs and last state: equal");

    // Backward, the second half first.
    let back = |start: usize, end: usize, state, dlast| {
        let cut = s![.., start..end, ..];
        let (u, delta, b, c) = (u.slice(cut), delta.slice(cut), b.slice(cut), c.slice(cut));
        let dout = dout.slice(cut);
        selective_scan_grad(u, delta, a.view(), b, c, &options(state), dout, dlast)
    };
    let whole = back(0, length, None, None)?;
    let second = back(37, length, Some(first.last_state.view()), None)?;
    let dstate = second.initial_state.as_ref().map(|x| x.view());
    let first = back(0, 37, None, dstate)?;
    let joined = concatenate(Axis(1), &[first.u.view(), second.u.view()]);
    assert_eq!(joined, Ok(whole.u));
    println!("gradients of the input: equal");

    // A's gradient is a sum over all tokens: equal but for the order of addition.
    let off = (first.a + second.a - &whole.a)
        .iter()
        .fold(0.0f32, |m, x| m.max(x.abs()));
    let largest = whole.a.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    println!("gradient of A: {off:.1e} off, of {largest:.1e}");
    assert!(off < 1e-5 * largest);
    Ok(())
}
