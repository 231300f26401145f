//! What the arguments ask for: which images, how they are guided, with which sampler.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use dis_model::Classes;
use dis_model::classes::Division;
use dis_pipeline::{Row, Settings, Task};

use super::given::Given;
use crate::args::{Between, SampleArgs};
use crate::drawing::MOST;
use crate::{memory, warning};

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
pub fn rows(args: &SampleArgs, classes: Option<&Classes>, given: Option<&Given>) -> Result<Job> {
    ensure!(
        args.num.is_none_or(|n| (1..=MOST).contains(&n)),
        "--num must be 1 to {MOST}"
    );
    ensure!(args.batch_size > 0, "--batch-size must be at least 1");
    let chosen = chosen(args, classes)?;
    if let Some(n) = args.num {
        let rows = n as u128 * size_of::<Row>() as u128;
        memory::check("--num", n, rows)?;
    }
    let mut job = match (given, args.interpolate) {
        (Some(given), _) if args.invert => reconstructions(args, classes, &chosen, given)?,
        (Some(given), _) => changes(args, &chosen, given)?,
        (None, Some(between)) => walks(args, &chosen, between)?,
        (None, None) => fresh(args.num, &chosen),
    };
    job.columns = job.columns.clamp(1, 32);
    Ok(job)
}

/// The classes that `--classes` names; those that the model was trained on if it names none.
fn chosen(args: &SampleArgs, classes: Option<&Classes>) -> Result<Vec<Option<u32>>> {
    let Some(classes) = classes else {
        ensure!(
            args.classes.is_empty(),
            "--classes: this model has no classes"
        );
        return Ok(vec![None]);
    };
    if args.classes.is_empty() {
        return Ok(classes.occupied().into_iter().map(Some).collect());
    }
    let chosen = classes.choose(&args.classes).context("--classes")?;
    let mut warned = BTreeSet::new();
    for &class in chosen.iter().filter(|&&c| classes.is_unoccupied(c)) {
        if warned.insert(class) {
            warning!(
                "--classes: the model was trained on no image of class {}",
                classes.quoted(class)
            );
        }
    }
    Ok(chosen.into_iter().map(Some).collect())
}

fn fresh(num: Option<usize>, classes: &[Option<u32>]) -> Job {
    let conditional = classes[0].is_some();
    let total = num.unwrap_or(if conditional { 8 * classes.len() } else { 16 });
    let named: Vec<u32> = classes.iter().copied().flatten().collect();
    Job {
        rows: Row::divided(total, &named),
        columns: match conditional {
            true => total.div_ceil(classes.len()),
            false => total.isqrt(),
        },
    }
}

/// Every given image under every class. With another number of images than that, given images and
/// classes each have as many as the others, or one more or less.
fn changes(args: &SampleArgs, classes: &[Option<u32>], given: &Given) -> Result<Job> {
    let images = given.count().min(args.num.unwrap_or(FEW)).max(1);
    let total = args.num.unwrap_or(images.saturating_mul(classes.len()));
    ensure!(
        total <= MOST,
        "--init-image: {images} images under {} classes are more than {MOST}; say with --num how many",
        classes.len()
    );
    let division = Division::new(total, images);
    let mut rows: Vec<Row> = Vec::with_capacity(total);
    // Where the classes that have one more begin: after those of the given image before.
    let mut next = 0;
    for image in 0..images {
        let share = division.share(image);
        let (each, more) = (share / classes.len(), share % classes.len());
        for (i, &label) in classes.iter().enumerate() {
            let turn = (i + classes.len() - next) % classes.len();
            for _ in 0..each + usize::from(turn < more) {
                rows.push(Row {
                    image,
                    ..Row::new(rows.len() as u64, label)
                });
            }
        }
        next = (next + more) % classes.len();
    }
    // All images of a given one beside each other, and as many given ones as fit.
    let width = total.div_ceil(images);
    Ok(Job {
        rows,
        columns: (16 / width).max(1) * width,
    })
}

/// Every given image once, under the class that it has.
fn reconstructions(
    args: &SampleArgs,
    classes: Option<&Classes>,
    chosen: &[Option<u32>],
    given: &Given,
) -> Result<Job> {
    let images = given.count().min(args.num.unwrap_or(FEW));
    let labels: Vec<Option<u32>> = match (classes, args.classes.is_empty(), chosen) {
        (None, ..) => vec![None; images],
        (Some(classes), true, _) => given.labels(images, classes)?,
        (Some(_), false, [one]) => vec![*one; images],
        (Some(_), false, many) => (0..images)
            .map(|i| many.get(i).copied().flatten())
            .collect(),
    };
    if let (Some(_), Some(i)) = (classes, labels.iter().position(Option::is_none)) {
        bail!(
            "--invert: say with --classes what given image {i} is (one class for all, or one for \
             each)"
        );
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
    let division = Division::new(count, classes.len());
    ensure!(
        count.saturating_mul(frames) <= MOST,
        "--frames {frames}: {count} rows of so many are more than {MOST} images; say with --num how many"
    );
    let walk = |walk: usize| {
        let label = ends.map_or(classes[division.in_turn(walk)], |(from, _)| Some(from));
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

/// Everything that decides what the images are, a line each: an unfinished output is continued only
/// with the same. What changes speed and memory alone, such as the batch size, is no part of it.
pub fn settings(
    args: &SampleArgs,
    settings: &Settings,
    job: &Job,
    task: &Task,
    weights: u32,
    instructions: &str,
) -> String {
    let rows = crc32fast::hash(format!("{:?}", job.rows).as_bytes());
    let how = &args.how;
    let scale = settings.guidance.as_ref().map(|guidance| guidance.scale);
    let published = how.cfg_published || how.published;
    let lines: [(&str, String); 17] = [
        ("weights", format!("{weights:08x}")),
        ("images", format!("{} ({rows:08x})", job.rows.len())),
        ("--seed", args.seed.to_string()),
        ("--sampler", settings.sampler.to_string()),
        ("--steps", settings.steps.to_string()),
        ("--spacing", settings.spacing.to_string()),
        ("--eta", how.eta.to_string()),
        ("--cfg", scale.unwrap_or(1.0).to_string()),
        ("--cfg-interval", format!("{:?}", how.cfg_interval)),
        ("--cfg-rescale", how.cfg_rescale.to_string()),
        ("--cfg-published", published.to_string()),
        ("--clip", format!("{} {:?}", how.clip, how.clip_quantile)),
        ("--init-image", given_images(task)),
        ("--invert", format!("{} {}", args.invert, args.refine)),
        ("--vae", format!("{:?} {:?}", args.vae, args.vae_tile)),
        ("--precision", format!("{:?}", args.precision)),
        ("instructions", instructions.to_string()),
    ];
    lines
        .iter()
        .map(|(key, value)| format!("{key}: {value}\n"))
        .collect()
}

/// The given images by their content, whatever the files are called.
fn given_images(task: &Task) -> String {
    let hash = |values: &mut dyn Iterator<Item = &f32>| {
        let mut hasher = crc32fast::Hasher::new();
        values.for_each(|v| hasher.update(&v.to_le_bytes()));
        format!("{:08x}", hasher.finalize())
    };
    match task {
        Task::Generate => "none".into(),
        Task::Change {
            images,
            strength,
            repaint,
        } => {
            let mask = repaint.as_ref().map(|mask| hash(&mut mask.iter()));
            let images = hash(&mut images.iter());
            format!("{images}, strength {strength}, mask {mask:?}")
        }
        Task::Reconstruct { images, .. } => hash(&mut images.iter()),
    }
}
