//! Times encoding and decoding with Stable Diffusion's configuration and random weights:
//! `cargo run --release -p dis-vae --example time_vae [LATENT_SIDE [THREADS]]`; a side of 32 is an image of 256.

use std::time::Instant;

use dis_tensor::random::{Purpose, Stream};
use dis_tensor::{Backend, Cpu};
use dis_vae::{Result, Vae, VaeConfig, Weights};
use ndarray::Array4;

fn main() -> Result<()> {
    let mut numbers = std::env::args().skip(1).filter_map(|a| a.parse().ok());
    let side: usize = numbers.next().unwrap_or(4);
    let cpu = match numbers.next() {
        Some(threads) => Cpu::with_threads(threads).unwrap_or_default(),
        None => Cpu::new(),
    };
    println!("{}", cpu.describe());
    let config = VaeConfig::default();
    let tensors = config
        .parameters()
        .into_iter()
        .enumerate()
        .map(|(i, (name, shape))| {
            let count: usize = shape.iter().product();
            // Keeps magnitudes: uniform of variance 1 / inputs; norms stay near 1.
            let scale = (3.0 / (count / shape[0]).max(1) as f64).sqrt();
            let mut stream = Stream::new(0, Purpose::Test, i as u64, 0);
            let norm = name.contains("norm") && name.ends_with("weight");
            let value = |u: f64| match norm {
                true => 1.0 + 0.2 * u,
                false => u * scale.min(1.0),
            };
            let data = (0..count).map(|_| value(2.0 * stream.uniform() - 1.0) as f32);
            (name, shape, data.collect())
        });
    let weights = Weights::from_tensors(tensors)?;
    let begun = Instant::now();
    let vae = Vae::new(config, &weights)?;
    drop(weights);
    println!("packed in {:.2} s", begun.elapsed().as_secs_f64());
    let mut stream = Stream::new(0, Purpose::Test, 0, 1);
    let z = Array4::from_shape_fn((1, 4, side, side), |_| stream.normal() as f32);
    for _ in 0..3 {
        let begun = Instant::now();
        let image = vae.decode(&cpu, z.view())?;
        let seconds = begun.elapsed().as_secs_f64();
        println!("decode {side} x {side}: {seconds:.2} s");
        let begun = Instant::now();
        let posterior = vae.encode(&cpu, image.view())?;
        let seconds = begun.elapsed().as_secs_f64();
        println!(
            "encode {:?}: {seconds:.2} s, mean {:?}",
            image.dim(),
            posterior.mean.mean()
        );
    }
    let peak = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    println!(
        "{}",
        peak.lines()
            .find(|l| l.starts_with("VmHWM"))
            .unwrap_or("no peak known")
    );
    Ok(())
}
