//! The training loss and its gradient.

use anyhow::Result;
use dis_tensor::{BoundStep, LossInputs, LossStep};

use super::data::{Draw, Outputs, Probe, plain, read};

/// Numbers of a step: square error, bound or both, by noise (0), image (1) or velocity (2), divergence or
/// likelihood (`last`). None is special but those of the targets.
fn step(kinds: [bool; 2], prediction: usize, values: usize, last: bool) -> LossStep {
    // At the last step there is hardly any noise, and a prediction of it is close to the image at any
    // rate; one of the image is not, so its distribution has to be wide.
    let (signal, spread): (f64, f64) = if last { (0.99995, 0.01) } else { (0.8, 0.6) };
    let (target, start) = [
        ([1.0, 0.0], [-spread / signal, 1.0 / signal]),
        ([0.0, 1.0], [1.0, 0.0]),
        ([signal, -spread], [-spread, signal]),
    ][prediction];
    let mean = if last { [1.0, 0.0] } else { [0.3, 0.65] };
    let log_variance = match (last, prediction) {
        (true, 1) => [0.3, -1.0],
        (true, _) => [0.4, -8.5],
        _ => [0.5, -3.0],
    };
    let scale = 1.3 / values as f64;
    LossStep {
        signal,
        spread,
        target: kinds[0].then_some(target),
        bound: kinds[1].then_some(BoundStep {
            start,
            mean,
            log_variance,
            true_log_variance: (!last).then_some(-3.4),
            scale,
            through_mean: if kinds[0] {
                0.0
            } else {
                scale * mean[0] * start[0]
            },
            through_variance: scale * log_variance[0],
        }),
        weight: 0.7,
    }
}

/// Every kind of loss for images of (batch, 1, values), with fixed and with learned variances.
pub fn loss<B: Probe>(b: &B, [batch, values]: [usize; 2], seed: u64) -> Result<Outputs> {
    let mut d = Draw::new(b, seed, (seed % 4) as usize);
    let shape = [batch, 1, values];
    // Grey values, the outermost among them; all of one end in the last image, so that it is there
    // however few values an image has.
    let grey = |x: f64| (127.5 * (0.7 * x + 1.0)).round().clamp(0.0, 255.0) / 127.5 - 1.0;
    let x_start = d.field(shape, grey);
    let (dark, light) = (d.field(shape, |_| -1.0), d.field(shape, |_| 1.0));
    let noise = d.field(shape, plain);
    let mut outputs = Outputs::new();
    for (k, (kinds, learned)) in [
        ([true, true], true),
        ([true, false], false),
        ([false, true], false),
        ([false, true], true),
        ([false, false], true),
    ]
    .into_iter()
    .enumerate()
    {
        for prediction in 0..3 {
            let width = if learned { 2 * values } else { values };
            let output = d.field([batch, 1, width], plain);
            for first in [false, true] {
                let last = |b: usize| (b % 2 == 1) != first;
                let steps: Vec<LossStep> = (0..batch)
                    .map(|b| step(kinds, prediction, values, last(b)))
                    .collect();
                let inputs = LossInputs {
                    x_start: [&x_start, &dark, &light][(k + prediction) % 3].view(),
                    noise: noise.view(),
                    output: output.view(),
                };
                let mut gradient = d.field([batch, 1, width], plain);
                let mut sums = b.zeros(2 * batch);
                b.gaussian_loss(&steps, inputs, gradient.view_mut(), &mut sums, 0)?;
                outputs.push(("gradient", read(b, &gradient.buf)));
                outputs.push(("loss", b.download(&sums).into()));
            }
        }
    }
    // Grey values of all kinds in the bound of one prediction of the noise.
    let output = d.field([batch, 1, 2 * values], plain);
    for variance in [1.0, f64::INFINITY] {
        let mut steps = vec![step([true, true], 0, values, true); batch];
        // The first sample alone is beyond all bounds: its gradient is spoilt.
        if let Some(bound) = &mut steps[0].bound {
            bound.scale *= variance;
        }
        let inputs = LossInputs {
            x_start: x_start.view(),
            noise: noise.view(),
            output: output.view(),
        };
        let mut gradient = d.field([batch, 1, 2 * values], plain);
        let mut sums = b.zeros(2 * batch);
        b.gaussian_loss(&steps, inputs, gradient.view_mut(), &mut sums, 0)?;
        let gradient = read(b, &gradient.buf);
        if variance.is_finite() {
            outputs.push(("gradient", gradient));
            outputs.push(("loss", b.download(&sums).into()));
        } else {
            let spoilt = |x: &f64| f64::from(u8::from(x.is_nan()));
            let spoilt: Vec<f64> = gradient.values.iter().map(spoilt).collect();
            outputs.push(("spoilt", spoilt.into()));
        }
    }
    Ok(outputs)
}
