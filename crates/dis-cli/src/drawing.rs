//! What `dis sample` and `dis eval` draw with: classes, guidance, sampler, and pictures of what comes.

use anyhow::{Result, bail, ensure};
use dis_data::grid;
use dis_diffusion::{Guidance, GuidedChannels, Limit, SamplerSpec};
use dis_model::{Classes, ConditionKind, DisConfig, Metadata};
use dis_pipeline::{Settings, usual_guidance};

use crate::args::SamplerArgs;
use crate::decode::Decoder;
use crate::progress;

/// Most images of one run: a bound for typing errors.
pub const MOST: usize = 10_000_000;

const DDIM: SamplerSpec = SamplerSpec::Ddim { eta: 0.0 };

/// The classes of a model that can be drawn from; none if it has none.
pub fn classes(metadata: &Metadata) -> Result<Option<Classes>> {
    ensure!(
        !matches!(metadata.model.condition, ConditionKind::Context { .. }),
        "this model needs a sequence of embeddings for every image; sample it from Rust"
    );
    Ok(Classes::of(metadata)?)
}

/// The sampler, steps and spacing that the options name, or mean.
pub fn named(how: &SamplerArgs, invert: bool) -> Settings {
    match (how.published, how.sampler) {
        (true, _) => Settings {
            steps: how.steps.unwrap_or(Settings::published().steps),
            ..Settings::published()
        },
        // Inversion finds the noise that a sampler of order 1 draws an image from.
        (false, None) if invert => Settings::of(Some(DDIM), how.steps, how.spacing),
        (false, sampler) => Settings::of(sampler, how.steps, how.spacing),
    }
}

/// The settings that the options ask for.
pub fn settings(
    how: &SamplerArgs,
    invert: bool,
    guidance: &Guidance,
    seed: u64,
    batch_size: usize,
) -> Result<Settings> {
    let named = named(how, invert);
    Ok(Settings {
        sampler: with_eta(named.sampler, how.eta)?,
        limit: limit(how)?,
        guidance: Some(guidance.clone()),
        seed,
        batch_size,
        ..named
    })
}

/// Guidance, as far as the model allows it.
pub fn guidance(how: &SamplerArgs, invert: bool, config: &DisConfig) -> Result<Guidance> {
    let can_guide = config.null_label().is_some();
    // Inversion under guidance would have to invert both halves at once.
    let usual = if invert {
        1.0
    } else {
        usual_guidance(config).scale
    };
    let scale = how.cfg.unwrap_or(usual);
    ensure!(
        scale.is_finite() && scale >= 0.0,
        "--cfg must be a number that is not negative"
    );
    ensure!(
        scale == 1.0 || can_guide,
        "--cfg {scale}: guidance needs a model with a null label, and this one has none"
    );
    let mut guidance = Guidance::new(scale);
    if how.cfg_published || how.published {
        guidance.channels = GuidedChannels::FirstThree;
    }
    if let Some((low, high)) = how.cfg_interval {
        guidance.interval = Some(low..=high);
    }
    ensure!(
        (0.0..=1.0).contains(&how.cfg_rescale),
        "--cfg-rescale must be 0 to 1"
    );
    guidance.rescale = how.cfg_rescale;
    Ok(guidance)
}

/// The sampler, with DDIM's noise.
fn with_eta(sampler: SamplerSpec, eta: f64) -> Result<SamplerSpec> {
    match sampler {
        _ if !(0.0..=1.0).contains(&eta) => bail!("--eta must be 0 to 1"),
        SamplerSpec::Ddim { .. } => Ok(SamplerSpec::Ddim { eta }),
        _ if eta != 0.0 => bail!("--eta is for --sampler ddim only"),
        other => Ok(other),
    }
}

/// How the estimate of the image is limited in every step.
fn limit(how: &SamplerArgs) -> Result<Option<Limit>> {
    match how.clip_quantile {
        None => Ok(how.clip.then_some(Limit::Clip(1.0))),
        Some(ratio) if ratio > 0.0 && ratio <= 1.0 => Ok(Some(Limit::Dynamic {
            ratio,
            max: f64::INFINITY,
        })),
        Some(ratio) => bail!("--clip-quantile {ratio}: must be above 0 and at most 1"),
    }
}

/// Bytes of what a model draws, decoded if they are latents.
pub fn pictures(
    cpu: &dis_tensor::Cpu,
    decoder: Option<&Decoder>,
    values: Vec<f32>,
) -> Result<Vec<u8>> {
    if let Some(bad) = values.iter().position(|x| !x.is_finite()) {
        bail!("the model's value {bad} is not a finite number");
    }
    match decoder {
        Some(decoder) => {
            let bar = progress::decoding((values.len() / decoder.latent().len()) as u64);
            let bytes = decoder.decode(cpu, values, &|| bar.inc(1));
            bar.finish_and_clear();
            bytes
        }
        None => Ok(grid::to_bytes(&values)),
    }
}
