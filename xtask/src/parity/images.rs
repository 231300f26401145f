//! What samplers do to batches of images.

use anyhow::Result;

use super::data::{Draw, Outputs, Probe, plain, read};

/// Combinations of up to six terms, limits, noise and mixing of (batch, 1, values).
pub fn images<B: Probe>(b: &B, [batch, values]: [usize; 2], seed: u64) -> Result<Outputs> {
    let mut d = Draw::new(b, seed, (seed % 4) as usize);
    let shape = [batch, 1, values];
    let fields: Vec<_> = (0..6).map(|_| d.field(shape, plain)).collect();
    let mut outputs = Outputs::new();
    // Numbers of each sample, none of them special.
    let list = |k: usize| -> Vec<f64> {
        let number = |sample: usize| 0.3 + 0.7 * k as f64 - 0.9 * sample as f64;
        (0..batch).map(number).collect()
    };
    for count in [1, 2, 6] {
        let lists: Vec<Vec<f64>> = (0..count).map(list).collect();
        let terms: Vec<_> = lists
            .iter()
            .zip(&fields)
            .map(|(c, x)| (c.as_slice(), x.view()))
            .collect();
        let mut out = d.field(shape, plain);
        b.combine(&terms, out.view_mut())?;
        outputs.push(("combine", read(b, &out.buf)));
    }
    let mut limited = d.field(shape, plain);
    b.clamp(-0.8, 0.6, limited.view_mut())?;
    outputs.push(("clamp", read(b, &limited.buf)));

    // Exponents on both sides of 0; the last sample of several is masked.
    let mut offsets = list(0);
    if batch > 1 {
        offsets[batch - 1] = f64::NEG_INFINITY;
    }
    let mut noised = d.field(shape, plain);
    let (noise, log_scale) = (fields[0].view(), fields[1].view());
    b.add_noise(noise, log_scale, &list(1), &offsets, noised.view_mut())?;
    outputs.push(("add_noise", read(b, &noised.buf)));
    // Scales beyond the range of float32, where the noise brings them back.
    let small = d.field(shape, |x| 1e-30 * x);
    let mut noised = d.field(shape, plain);
    b.add_noise(small.view(), log_scale, &[0.5], &[69.0], noised.view_mut())?;
    outputs.push(("add_noise", read(b, &noised.buf)));
    let large = d.field(shape, |x| 1e30 * x);
    let mut noised = d.field(shape, plain);
    b.add_noise(large.view(), log_scale, &[0.5], &[-69.0], noised.view_mut())?;
    outputs.push(("add_noise", read(b, &noised.buf)));

    // The same normals three times, so that what a weight of 0 or 1 leaves out is infinite.
    let same = |f: &dyn Fn(f64) -> f64| Draw::new(b, seed + 1, (seed % 4) as usize).field(shape, f);
    let weight = same(&|x| x.clamp(0.0, 1.0));
    let first = same(&|x| if x <= 0.0 { f64::INFINITY } else { 2.0 * x });
    let second = same(&|x| if x >= 1.0 { f64::INFINITY } else { 1.0 - x });
    let mut mixed = d.field(shape, plain);
    b.mix(weight.view(), first.view(), second.view(), mixed.view_mut())?;
    outputs.push(("mix", read(b, &mixed.buf)));

    for (name, strength, count) in [("rescale", 0.7, 0), ("rescale", 1.0, 1)] {
        let mut x = d.field(shape, |x| 0.2 + 3.0 * x);
        b.rescale(strength, fields[count].view(), x.view_mut())?;
        outputs.push((name, read(b, &x.buf)));
    }
    // Nothing deviates.
    let mut flat = d.field(shape, |_| 0.0);
    b.rescale(0.7, fields[2].view(), flat.view_mut())?;
    outputs.push(("rescale", read(b, &flat.buf)));
    for (ratio, most) in [
        (0.0, 9.0),
        (0.37, 9.0),
        (0.9, 9.0),
        (0.995, 2.0),
        (1.0, f64::INFINITY),
    ] {
        let mut x = d.field(shape, |x| 3.0 * x);
        b.threshold(ratio, most, x.view_mut())?;
        outputs.push(("threshold", read(b, &x.buf)));
    }
    // Of four values three are the same, of odd bits, and the quantile is between two of these, or behind their
    // last.
    let odd = f64::from(2.0f32.next_up());
    let same = values - values / 4;
    for behind in [2.5, 1.5, 0.5, -0.5] {
        let ratio = (same as f64 - behind) / (values.max(2) - 1) as f64;
        let next = std::cell::Cell::new(0);
        let mut stepped = d.field(shape, |_| {
            next.set(next.get() + 1);
            if next.get() % 4 == 0 { -4.0 } else { odd }
        });
        b.threshold(ratio.clamp(0.0, 1.0), 9.0, stepped.view_mut())?;
        outputs.push(("threshold", read(b, &stepped.buf)));
    }
    Ok(outputs)
}
