//! `dis sample`.

use std::path::Path;

use anyhow::{Context, Result, bail};
use dis_diffusion::{Guidance, GuidedChannels, Limit, SamplerSpec};
use dis_model::{Checkpoint, ConditionKind};
use dis_tensor::Backend;
use dis_train::data::{ImageShape, grid};
use dis_train::run::{SampleSpec, generate, plan_for};

use crate::args::SampleArgs;
use crate::decode::Decoder;
use crate::{bundled, device, progress};

/// Most images of one run: far beyond what fits in memory as a grid.
const MOST: usize = 1_000_000;

/// Draws images.
pub fn run(args: Box<SampleArgs>) -> Result<()> {
    let checkpoint = bundled::open(args.checkpoint.as_deref(), args.raw, args.null_label)?;
    let (spec, columns) = plan(&args, &checkpoint)?;
    let decoder = Decoder::open(&args, &checkpoint)?;
    let config = checkpoint.model.config();
    let shape = decoder.as_ref().map_or(
        ImageShape {
            channels: config.channels,
            height: config.image_size,
            width: config.image_size,
        },
        Decoder::shape,
    );
    let target = Target::of(&args.out, shape)?;
    let steps = plan_for(
        &checkpoint.metadata,
        sampler(&args)?,
        args.steps,
        args.spacing,
        limit(&args)?,
    )?;
    let cpu = device::open(&args.device)?;

    let bar = progress::sampling();
    let images = cpu.install(|| {
        let params = cpu.from_f32(&checkpoint.weights);
        generate(
            &cpu,
            &checkpoint.model,
            &params,
            &steps,
            &spec,
            &mut |done, total| {
                bar.set_length(total);
                bar.set_position(done);
            },
        )
    });
    bar.finish_and_clear();
    let images = match decoder {
        Some(decoder) => {
            let bar = progress::decoding(spec.count as u64);
            let pictures = cpu.install(|| decoder.decode(&cpu, images?, &|| bar.inc(1)))?;
            bar.finish_and_clear();
            pictures
        }
        None => grid::to_bytes(&images?),
    };
    target.write(&args.out, &images, columns, &spec)?;
    println!("{} images in {}", spec.count, args.out.display());
    Ok(())
}

fn plan(args: &SampleArgs, checkpoint: &Checkpoint) -> Result<(SampleSpec, usize)> {
    let config = checkpoint.model.config();
    if args.num == Some(0) || args.num.is_some_and(|n| n > MOST) {
        bail!("--num must be 1 to {MOST}");
    }
    if args.batch_size == 0 {
        bail!("--batch-size must be at least 1");
    }
    let (labels, count, columns) = match config.condition {
        ConditionKind::Classes { num_classes, .. } => {
            let classes = classes(args, checkpoint, num_classes)?;
            let each = args.num.map_or(8, |n| n.div_ceil(classes.len()));
            let count = args.num.unwrap_or(each * classes.len());
            let all = classes.iter().flat_map(|&c| std::iter::repeat_n(c, each));
            (all.take(count).collect(), count, each.min(32))
        }
        ConditionKind::None => {
            if !args.classes.is_empty() {
                bail!("--classes: this model has no classes");
            }
            let count = args.num.unwrap_or(16);
            (Vec::new(), count, count.isqrt().clamp(1, 32))
        }
        ConditionKind::Context { .. } => {
            bail!("this model needs a sequence of embeddings for every image; sample it from Rust")
        }
    };
    let can_guide = config.null_label().is_some();
    let scale = args.cfg.unwrap_or(if can_guide { 1.5 } else { 1.0 });
    if !scale.is_finite() || scale < 0.0 {
        bail!("--cfg must be a number that is not negative");
    }
    if scale != 1.0 && !can_guide {
        bail!("--cfg {scale}: guidance needs a model with a null label, and this one has none");
    }
    let mut guidance = Guidance::new(scale);
    if args.cfg_published {
        guidance.channels = GuidedChannels::FirstThree;
    }
    if let Some((low, high)) = args.cfg_interval {
        guidance.interval = Some(low..=high);
    }
    if !(0.0..=1.0).contains(&args.cfg_rescale) {
        bail!("--cfg-rescale must be 0 to 1");
    }
    guidance.rescale = args.cfg_rescale;
    let spec = SampleSpec {
        count,
        labels,
        seed: args.seed,
        first: 0,
        guidance,
        batch_size: args.batch_size,
    };
    Ok((spec, columns.max(1)))
}

/// The sampler asked for, with DDIM's noise.
fn sampler(args: &SampleArgs) -> Result<SamplerSpec> {
    match args.sampler {
        _ if !(0.0..=1.0).contains(&args.eta) => bail!("--eta must be 0 to 1"),
        SamplerSpec::Ddim { .. } => Ok(SamplerSpec::Ddim { eta: args.eta }),
        _ if args.eta != 0.0 => bail!("--eta is for --sampler ddim only"),
        other => Ok(other),
    }
}

/// How the estimate of the image is limited in every step.
fn limit(args: &SampleArgs) -> Result<Option<Limit>> {
    match args.clip_quantile {
        None => Ok(args.clip.then_some(Limit::Clip(1.0))),
        Some(ratio) if ratio > 0.0 && ratio <= 1.0 => Ok(Some(Limit::Dynamic {
            ratio,
            max: f64::INFINITY,
        })),
        Some(ratio) => bail!("--clip-quantile {ratio}: must be above 0 and at most 1"),
    }
}

/// The classes asked for, by number or name.
fn classes(args: &SampleArgs, checkpoint: &Checkpoint, num_classes: usize) -> Result<Vec<u32>> {
    if args.classes.is_empty() {
        return Ok((0..num_classes as u32).collect());
    }
    let names: Vec<String> = checkpoint
        .metadata
        .extra
        .get("class_names")
        .and_then(|v| serde_json::from_value(v.clone()).ok())
        .unwrap_or_default();
    let find = |text: &String| {
        let text = text.trim();
        let by_name = names.iter().position(|n| n == text);
        let by_number = text.parse::<usize>().ok().filter(|&n| n < num_classes);
        by_name.or(by_number).map(|n| n as u32).with_context(|| {
            let known = if names.is_empty() {
                format!("classes are 0 to {}", num_classes - 1)
            } else {
                let few: Vec<&str> = names.iter().take(12).map(String::as_str).collect();
                let more = if names.len() > few.len() { ", ..." } else { "" };
                format!("classes are {}{more}", few.join(", "))
            };
            format!("--classes: no class {text:?}; {known}")
        })
    };
    args.classes.iter().map(find).collect()
}

/// What the output is.
enum Target {
    Grid(ImageShape),
    Folder(ImageShape),
}

impl Target {
    /// Decides before anything is computed whether the output can be written.
    fn of(out: &Path, shape: ImageShape) -> Result<Self> {
        match out.extension().and_then(|e| e.to_str()) {
            Some("png") if !out.is_dir() => {
                let parent = out.parent().filter(|p| !p.as_os_str().is_empty());
                if let Some(parent) = parent.filter(|p| !p.is_dir()) {
                    bail!("{}: there is no such directory", parent.display());
                }
                Ok(Self::Grid(shape))
            }
            Some(other) if !out.is_dir() => {
                bail!(
                    "--out {}: cannot write .{other}; use .png or a directory",
                    out.display()
                )
            }
            _ => {
                std::fs::create_dir_all(out)
                    .with_context(|| format!("cannot create {}", out.display()))?;
                Ok(Self::Folder(shape))
            }
        }
    }

    fn write(&self, out: &Path, images: &[u8], columns: usize, spec: &SampleSpec) -> Result<()> {
        match *self {
            Self::Grid(shape) => {
                let layout = grid::GridLayout::new(columns).enlarged(shape, 48);
                grid::write_png(out, &grid::render(images, shape, layout)?)?;
            }
            Self::Folder(shape) => {
                let one = grid::GridLayout {
                    padding: 0,
                    ..grid::GridLayout::new(1)
                };
                for (i, image) in images.chunks_exact(shape.len()).enumerate() {
                    let class = spec
                        .labels
                        .get(i)
                        .map(|c| format!("-class{c}"))
                        .unwrap_or_default();
                    let path = out.join(format!("{:06}{class}.png", spec.first + i as u64));
                    grid::write_png(&path, &grid::render(image, shape, one)?)?;
                }
            }
        }
        Ok(())
    }
}
