//! Samples a closure: a network that knows pixels to be drawn from N(0.3, 0.5^2), so that what comes
//! out can be checked. `cargo run --release -p dis-diffusion --example closure -- unipc-2 20`

use dis_diffusion::{GaussianDiffusion, Options, SamplerSpec, SeededNoise, Spacing, Variance};
use dis_diffusion::{Result, from_fn, sample};
use ndarray::Array4;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let sampler: SamplerSpec = args.next().as_deref().unwrap_or("dpmpp-2m").parse()?;
    let steps = args.next().and_then(|n| n.parse().ok()).unwrap_or(20);

    let options = Options {
        variance: Variance::FixedSmall,
        ..Options::default()
    };
    let full = GaussianDiffusion::new(&options)?;
    let (mean, deviation) = (0.3f64, 0.5f64);
    // E[epsilon | x_t] of independent normal pixels; `t` is given for each sample, and may lie
    // between the steps of the schedule.
    let mut network = from_fn(|x: &Array4<f32>, t: &[f64]| {
        let bars = &full.tables().alphas_cumprod;
        let (low, part) = (t[0].floor(), t[0].fract());
        let high = bars[(low as usize + 1).min(bars.len() - 1)];
        let bar = bars[low as usize] * (1.0 - part) + high * part;
        let variance = bar * deviation * deviation + 1.0 - bar;
        x.mapv(|x| ((1.0 - bar).sqrt() * (f64::from(x) - bar.sqrt() * mean) / variance) as f32)
    });

    let plan = sampler.plan(&options, steps, Spacing::Default)?;
    let mut noise = SeededNoise::new(7, 0..64);
    let start = noise.start([3, 16, 16]);
    let images = sample(&plan, &mut network, &mut noise, start, |_| {})?;

    let n = images.len() as f64;
    let got = images.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let square = |x: &f32| (f64::from(*x) - got).powi(2);
    let spread = (images.iter().map(square).sum::<f64>() / n).sqrt();
    println!("{sampler}, {steps} steps: mean {got:.3} (0.300), deviation {spread:.3} (0.500)");
    assert!((got - mean).abs() < 0.05 && (spread - deviation).abs() < 0.1);
    Ok(())
}
