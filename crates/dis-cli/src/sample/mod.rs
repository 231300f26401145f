//! `dis sample`.

mod folder;
mod given;
pub mod output;
pub mod plan;
pub mod record;
mod trajectory;

use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, ensure};
use dis_data::ImageShape;
use dis_data::crop::Picture;
use dis_pipeline::{Pipeline, Row, Task};
use dis_tensor::{Backend, Reals};

use crate::args::SampleArgs;
use crate::decode::Decoder;
use crate::device::{self, with_backend};
use crate::drawing::{self, pictures};
use crate::interrupt::{self, INTERRUPTED};
use crate::places::Places;
use crate::{bundled, json, memory, note, progress, say};
use output::{Contents, Target};
use record::Record;
use trajectory::Recorder;

/// A picture that is to be drawn again.
#[derive(Clone, Copy)]
pub struct Like<'a> {
    /// Its file.
    pub picture: &'a Path,
    /// What it says.
    pub record: &'a Record,
}

/// What came of drawing.
pub enum Outcome {
    /// All images are where they were to go.
    Written,
    /// The picture, which was to go nowhere, and the instruction set or device that it was drawn on.
    Picture(Picture, String),
    /// The user asked to stop.
    Interrupted,
}

/// Draws images.
pub fn run(args: &SampleArgs) -> Result<ExitCode> {
    json::prepare(args.json.as_deref())?;
    let outcome = match &args.like {
        None => draw(args, None, Target::of(&args.out, args.overwrite)?),
        Some(picture) => {
            let record = Record::read(picture)?;
            let target = Target::of(&args.out, args.overwrite)?;
            let like = Like {
                picture,
                record: &record,
            };
            draw(&record.arguments(args)?, Some(like), target)
        }
    };
    Ok(match outcome? {
        Outcome::Written | Outcome::Picture(..) => ExitCode::SUCCESS,
        Outcome::Interrupted => ExitCode::from(INTERRUPTED),
    })
}

/// Draws what the arguments ask for, or of that the image that a picture is of, to a target.
///
/// # Errors
/// What does not fit, by the name of its option, and what fails on the way.
pub fn draw(args: &SampleArgs, like: Option<Like<'_>>, target: Target) -> Result<Outcome> {
    Places::default()
        .reads("--like", like.map(|like| like.picture))
        .reads("--checkpoint", args.checkpoint.as_deref())
        .reads_data("--init-image", args.init_image.as_deref())
        .reads("--mask", args.mask.as_deref())
        .reads("--vae", args.vae.as_deref())
        .writes("--out", Some(&args.out))
        .writes("--trajectory", args.trajectory.as_deref())
        .writes("--json", json::file(args.json.as_deref()))
        .check()?;
    let weights = bundled::describe(args.checkpoint.as_deref(), args.raw, args.null_label)?;
    let metadata = &weights.metadata;
    let config = *weights.model.config();
    let decoder = Decoder::open(args.vae.as_deref(), args.vae_tile, metadata)?;
    let shape = decoder
        .as_ref()
        .map_or(ImageShape::from(config.image_shape()), Decoder::shape);
    let recorder = Recorder::open(args.trajectory.as_deref(), decoder.is_some())?;
    ensure!(
        recorder.is_none() || target != Target::Npz,
        "--trajectory: goes with pictures, not with --out {}",
        args.out.display()
    );
    let guidance = drawing::guidance(&args.how, args.invert, &config)?;
    let settings = drawing::settings(
        &args.how,
        args.invert,
        &guidance,
        args.seed,
        args.batch_size,
    )?;
    let steps = settings.plan(metadata)?;
    let strength = plan::strength(args)?;
    if strength < 1.0 {
        steps.step_of_strength(strength)?;
    }
    let given = given::open(args, shape)?;
    let classes = drawing::classes(metadata)?;
    let mut job = plan::rows(args, classes.as_ref(), given.as_ref())?;
    note!("model: {}", weights.describe(shape)?);
    let device = device::open(&args.device, args.precision)?;
    let stop = interrupt::watch("this step")?;
    let (cpu, instructions) = (&device.cpu, device.instruction_set());
    // Of many images in one file the hash of a large checkpoint is not worth its time, unless it is asked for.
    let record = match target {
        Target::Npz if args.json.is_none() => None,
        _ => {
            let hash = weights.sha256()?;
            if let Some(like) = like {
                let from = args.checkpoint.as_deref();
                like.record.expect(like.picture, &hash, from)?;
            }
            let instructions = instructions.clone();
            Some(Record::new(
                args,
                &settings,
                job.rows.len(),
                hash,
                instructions,
            ))
        }
    };
    let only = like.and_then(|like| like.record.index);
    if let Some(index) = only {
        let row = job.rows.get(index).copied();
        job.rows = vec![row.context("--like: the picture is of an image that there is not")?];
    }
    let (batch_size, images) = (args.batch_size, job.rows.len());
    let each = memory::rows(&guidance);
    memory::inference(&device, &config, batch_size, images, each)?;
    let batch = memory::images(batch_size.min(images), shape);
    memory::check("--batch-size", batch_size, batch)?;

    cpu.install(|| {
        with_backend!(device, |backend| {
            let task = match given {
                Some(given) => {
                    let count = job.rows.iter().map(|row| row.image + 1).max().unwrap_or(0);
                    given.task(count, args, strength, &config, decoder.as_ref(), cpu)?
                }
                None => Task::Generate,
            };
            let bundled::Weights {
                mut file,
                model,
                metadata,
                ..
            } = weights;
            let params = file.read_params(backend, model.table())?;
            let settings_then = match target {
                Target::Grid | Target::Memory => String::new(),
                _ => {
                    let weights = checksum(backend, &params)?;
                    plan::settings(args, &settings, &job, &task, weights, &instructions)
                }
            };
            // Only now: the checksum is of the weights in the order of the file.
            let pipeline = Pipeline::with_params(model, metadata, params, backend.clone())?;
            let contents = Contents {
                shape,
                rows: &job.rows,
                each: 1 + usize::from(args.invert),
                columns: job.columns,
                classes: classes.as_ref(),
                settings: &settings_then,
                record: record.as_ref(),
                only,
                scale: args.scale,
                captions: args.captions,
            };
            let mut sink = target.open(args, &contents)?;
            // A trajectory is of the first images, so these are drawn again.
            let missing = match recorder {
                Some(_) => (0..job.rows.len()).collect(),
                None => sink.missing(job.rows.len()),
            };
            let mut done = job.rows.len() - missing.len();
            if done > 0 {
                note!("continuing after {done} images");
            }
            let artist = pipeline.artist(&steps, &settings);
            let mut recorder = recorder;
            let bar = progress::sampling();
            let calls = task.iterations(&steps)?;
            bar.start((done * calls) as u64, (job.rows.len() * calls) as u64);
            for numbers in missing.chunks(args.batch_size) {
                let rows: Vec<Row> = numbers.iter().map(|&i| job.rows[i]).collect();
                let rows = rows.as_slice();
                let mut kept = Ok(());
                let drawn = artist.draw(rows, &task, &mut |at| {
                    bar.inc(at.images as u64);
                    if let Some(recorder) = &mut recorder {
                        kept = recorder.record(|| Ok(at.sample()?), calls);
                    }
                    match kept.is_err() || stop.load(Ordering::Relaxed) {
                        true => ControlFlow::Break(()),
                        false => ControlFlow::Continue(()),
                    }
                });
                kept?;
                if matches!(&drawn, Err(error) if error.is_ended()) {
                    bar.finish_and_clear();
                    note!("{}", sink.stopped(done, job.rows.len()));
                    return Ok(Outcome::Interrupted);
                }
                let drawn = drawn?;
                if let Some(recorder) = recorder.take() {
                    recorder.write(|latents| pictures(cpu, decoder.as_ref(), latents), shape)?;
                }
                let images = pictures(cpu, decoder.as_ref(), drawn.into_iter().collect())?;
                let images = match &task {
                    Task::Reconstruct { images: given, .. } => {
                        let originals = rows.iter().flat_map(|row| {
                            let image = given.index_axis(ndarray::Axis(0), row.image);
                            image.iter().copied().collect::<Vec<f32>>()
                        });
                        let originals = pictures(cpu, decoder.as_ref(), originals.collect())?;
                        given::report(&originals, &images, shape);
                        given::alternate(&originals, &images, shape)
                    }
                    _ => images,
                };
                sink.add(&contents, &images, numbers)?;
                done += numbers.len();
            }
            bar.finish_and_clear();
            if let Some(picture) = sink.finish(&contents)? {
                return Ok(Outcome::Picture(picture, instructions.clone()));
            }
            if let (Some(place), Some(record)) = (&args.json, &record) {
                json::save(place, &record.summary(args, &contents)?)?;
            }
            let shown = job.rows.len() * contents.each;
            say!("{shown} images in {}", args.out.display())?;
            if let Some(path) = &args.trajectory {
                say!("denoising in {}", path.display())?;
            }
            Ok(Outcome::Written)
        })
    })
}

/// CRC-32 of weights: tells models apart that only differ in these.
fn checksum<B: Backend>(backend: &B, params: &Reals<B>) -> Result<u32> {
    let len = dis_tensor::Buffer::len(params);
    let (mut hasher, mut piece) = (crc32fast::Hasher::new(), vec![0.0f32; len.min(1 << 16)]);
    let mut at = 0;
    while at < len {
        let part = &mut piece[..(len - at).min(1 << 16)];
        backend.read_f32(params, at, part)?;
        part.iter().for_each(|x| hasher.update(&x.to_le_bytes()));
        at += part.len();
    }
    Ok(hasher.finalize())
}
