//! What the arguments ask for: which images, how they are guided, with which sampler.

use anyhow::{Context, Result, bail, ensure};
use dis_diffusion::{Guidance, GuidedChannels, Limit, Plan, SamplerSpec};
use dis_model::{ConditionKind, DisConfig, Metadata};
use dis_pipeline::{Row, Task};

use super::given::Given;
use crate::args::{Between, SampleArgs, SamplerArgs};

/// Most images of one run: a bound for typing errors.
const MOST: usize = 10_000_000;
/// Given images that are taken when nothing says how many.
const FEW: usize = 8;

/// The images to draw.
pub struct Job {
    /// Each of them.
    pub rows: Vec<Row>,
    /// Images in a row of a grid.
    pub columns: usize,
}

/// The images that the arguments ask for.
pub fn rows(args: &SampleArgs, metadata: &Metadata, given: Option<&Given>) -> Result<Job> {
    ensure!(
        args.num.is_none_or(|n| (1..=MOST).contains(&n)),
        "--num must be 1 to {MOST}"
    );
    ensure!(args.batch_size > 0, "--batch-size must be at least 1");
    let classes = match metadata.model.condition {
        ConditionKind::Classes { num_classes, .. } => classes(args, metadata, num_classes)?,
        ConditionKind::None => {
            ensure!(
                args.classes.is_empty(),
                "--classes: this model has no classes"
            );
            vec![None]
        }
        ConditionKind::Context { .. } => {
            bail!("this model needs a sequence of embeddings for every image; sample it from Rust")
        }
    };
    let mut job = match (given, args.interpolate) {
        (Some(given), _) if args.invert => reconstructions(args, metadata, given)?,
        (Some(given), _) => changes(args, &classes, given),
        (None, Some(between)) => walks(args, &classes, between)?,
        (None, None) => fresh(args.num, &classes),
    };
    job.columns = job.columns.clamp(1, 32);
    Ok(job)
}

/// `num` images from noise, as many of each class; those of `dis sample` with the same numbers.
pub fn balanced(num: usize, config: &DisConfig) -> Result<Vec<Row>> {
    ensure!((1..=MOST).contains(&num), "--num must be 1 to {MOST}");
    let classes: Vec<Option<u32>> = match config.condition {
        ConditionKind::Classes { num_classes, .. } => (0..num_classes as u32).map(Some).collect(),
        ConditionKind::None => vec![None],
        ConditionKind::Context { .. } => {
            bail!("this model needs a sequence of embeddings for every image; sample it from Rust")
        }
    };
    Ok(fresh(Some(num), &classes).rows)
}

fn fresh(num: Option<usize>, classes: &[Option<u32>]) -> Job {
    let conditional = classes[0].is_some();
    let total = num.unwrap_or(if conditional { 8 * classes.len() } else { 16 });
    let each = total.div_ceil(classes.len());
    let labels = classes.iter().flat_map(|&c| std::iter::repeat_n(c, each));
    let rows = labels.take(total).enumerate();
    Job {
        rows: rows.map(|(i, label)| Row::new(i as u64, label)).collect(),
        columns: if conditional { each } else { total.isqrt() },
    }
}

/// For every given image some of every class.
fn changes(args: &SampleArgs, classes: &[Option<u32>], given: &Given) -> Job {
    let images = given.count().min(args.num.unwrap_or(FEW));
    let kinds = images * classes.len();
    let each = args.num.map_or(1, |n| n.div_ceil(kinds));
    let kinds_each = each * classes.len();
    let all = (0..images).flat_map(|image| {
        let labels = classes.iter().flat_map(|&c| std::iter::repeat_n(c, each));
        labels.map(move |label| (image, label))
    });
    let rows = all.take(args.num.unwrap_or(kinds)).enumerate();
    Job {
        rows: rows
            .map(|(i, (image, label))| Row {
                image,
                ..Row::new(i as u64, label)
            })
            .collect(),
        // All images of a given one beside each other, and as many given ones as fit.
        columns: (16 / kinds_each).max(1) * kinds_each,
    }
}

/// Every given image once, under the class that it has.
fn reconstructions(args: &SampleArgs, metadata: &Metadata, given: &Given) -> Result<Job> {
    let images = given.count().min(args.num.unwrap_or(FEW));
    let mut labels = vec![None; images];
    if let ConditionKind::Classes { num_classes, .. } = metadata.model.condition {
        let asked = match args.classes.is_empty() {
            true => Vec::new(),
            false => classes(args, metadata, num_classes)?,
        };
        for (i, label) in labels.iter_mut().enumerate() {
            *label = match asked.as_slice() {
                [] => given.label(i).filter(|&l| (l as usize) < num_classes),
                [one] => *one,
                many => many.get(i).copied().flatten(),
            };
            ensure!(
                label.is_some(),
                "--invert: say with --classes what given image {i} is (one class for all, or one \
                 for each)"
            );
        }
    }
    Ok(Job {
        rows: labels
            .into_iter()
            .enumerate()
            .map(|(image, label)| Row {
                image,
                ..Row::new(image as u64, label)
            })
            .collect(),
        columns: 2 * images.min(4),
    })
}

/// Rows of images from one noise to the next, from one class to another, or both.
fn walks(args: &SampleArgs, classes: &[Option<u32>], between: Between) -> Result<Job> {
    let frames = args.frames;
    ensure!((2..=1000).contains(&frames), "--frames must be 2 to 1000");
    let over_classes = between != Between::Noise;
    let ends = match *classes {
        [Some(from), Some(to)] if over_classes => Some((from, to)),
        _ if over_classes => bail!(
            "--interpolate: --classes must name the two classes to go between, such as --classes \
             3,8"
        ),
        _ => None,
    };
    let default = if over_classes { 4 } else { classes.len() };
    let count = args.num.map_or(default, |n| n.div_ceil(frames));
    let walk = |walk: usize| {
        let label = ends.map_or(classes[walk % classes.len()], |(from, _)| Some(from));
        (0..frames).map(move |frame| {
            let way = frame as f64 / (frames - 1) as f64;
            let noise = 2 * walk as u64;
            Row {
                noise_to: (between != Between::Classes).then_some((noise + 1, way)),
                label_to: ends.map(|(_, to)| (to, way)),
                ..Row::new(noise, label)
            }
        })
    };
    let rows = (0..count).flat_map(walk);
    Ok(Job {
        rows: rows.take(args.num.unwrap_or(count * frames)).collect(),
        columns: frames,
    })
}

/// Guidance, as far as the model allows it.
pub fn guidance(how: &SamplerArgs, invert: bool, config: &DisConfig) -> Result<Guidance> {
    let can_guide = config.null_label().is_some();
    // Inversion under guidance would have to invert both halves at once.
    let usual = if can_guide && !invert { 1.5 } else { 1.0 };
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
    if how.cfg_published {
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

/// The sampler asked for, with DDIM's noise.
pub fn sampler(how: &SamplerArgs) -> Result<SamplerSpec> {
    match how.sampler {
        _ if !(0.0..=1.0).contains(&how.eta) => bail!("--eta must be 0 to 1"),
        SamplerSpec::Ddim { .. } => Ok(SamplerSpec::Ddim { eta: how.eta }),
        _ if how.eta != 0.0 => bail!("--eta is for --sampler ddim only"),
        other => Ok(other),
    }
}

/// How the estimate of the image is limited in every step.
pub fn limit(how: &SamplerArgs) -> Result<Option<Limit>> {
    match how.clip_quantile {
        None => Ok(how.clip.then_some(Limit::Clip(1.0))),
        Some(ratio) if ratio > 0.0 && ratio <= 1.0 => Ok(Some(Limit::Dynamic {
            ratio,
            max: f64::INFINITY,
        })),
        Some(ratio) => bail!("--clip-quantile {ratio}: must be above 0 and at most 1"),
    }
}

/// How much of a given image is changed.
pub fn strength(args: &SampleArgs) -> Result<f64> {
    let usual = match (&args.init_image, &args.mask) {
        (Some(_), None) => 0.6,
        _ => 1.0,
    };
    let strength = args.strength.unwrap_or(usual);
    ensure!(
        strength > 0.0 && strength <= 1.0,
        "--strength must be above 0 and at most 1"
    );
    Ok(strength)
}

/// Calls of the progress function for one image.
pub fn iterations(plan: &Plan, task: &Task) -> Result<u64> {
    let steps = plan.iterations();
    Ok(match task {
        Task::Generate => steps as u64,
        Task::Change { strength, .. } => {
            let levels = plan.grid().timesteps().len().max(1);
            let skipped = plan.step_of_strength(*strength)?;
            (steps * (levels - skipped)).div_ceil(levels) as u64
        }
        Task::Reconstruct { .. } => (steps + plan.grid().timesteps().len()) as u64,
    })
}

/// Everything that decides what the images are, a line each: an unfinished file is continued only
/// with the same.
pub fn settings(args: &SampleArgs, job: &Job, weights: u32, instructions: &str) -> String {
    let rows = crc32fast::hash(format!("{:?}", job.rows).as_bytes());
    let lines: [(&str, String); 17] = [
        ("weights", format!("{weights:08x}")),
        ("images", format!("{} ({rows:08x})", job.rows.len())),
        ("--seed", args.seed.to_string()),
        ("--sampler", args.how.sampler.to_string()),
        ("--steps", args.how.steps.to_string()),
        ("--spacing", args.how.spacing.to_string()),
        ("--eta", args.how.eta.to_string()),
        ("--cfg", format!("{:?}", args.how.cfg)),
        ("--cfg-interval", format!("{:?}", args.how.cfg_interval)),
        ("--cfg-rescale", args.how.cfg_rescale.to_string()),
        ("--cfg-published", args.how.cfg_published.to_string()),
        (
            "--clip",
            format!("{} {:?}", args.how.clip, args.how.clip_quantile),
        ),
        ("--batch-size", args.batch_size.to_string()),
        (
            "--init-image",
            format!("{:?} {:?} {:?}", args.init_image, args.strength, args.mask),
        ),
        ("--vae", format!("{:?} {:?}", args.vae, args.vae_tile)),
        ("--precision", format!("{:?}", args.precision)),
        ("instructions", instructions.to_string()),
    ];
    lines
        .iter()
        .map(|(key, value)| format!("{key}: {value}\n"))
        .collect()
}

/// The classes asked for, by number or name.
fn classes(args: &SampleArgs, metadata: &Metadata, num_classes: usize) -> Result<Vec<Option<u32>>> {
    if args.classes.is_empty() {
        return Ok((0..num_classes as u32).map(Some).collect());
    }
    let names: Vec<String> = metadata
        .extra
        .get("class_names")
        .and_then(|v| serde_json::from_value(v.clone()).ok())
        .unwrap_or_default();
    let find = |text: &String| {
        let text = text.trim();
        let by_name = names.iter().position(|n| n == text);
        let by_number = text.parse::<usize>().ok().filter(|&n| n < num_classes);
        let class = by_name.or(by_number).with_context(|| {
            let known = if names.is_empty() {
                format!("classes are 0 to {}", num_classes - 1)
            } else {
                let few: Vec<&str> = names.iter().take(12).map(String::as_str).collect();
                let more = if names.len() > few.len() { ", ..." } else { "" };
                format!("classes are {}{more}", few.join(", "))
            };
            format!("--classes: no class {text:?}; {known}")
        })?;
        Ok(Some(class as u32))
    };
    args.classes.iter().map(find).collect()
}
