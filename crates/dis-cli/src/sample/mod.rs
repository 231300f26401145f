//! `dis sample`.

mod folder;
mod given;
pub mod output;
pub mod plan;
mod trajectory;

use anyhow::{Result, ensure};
use dis_data::ImageShape;
use dis_pipeline::{Pipeline, Row, Task};
use dis_tensor::{Backend, Reals};

use crate::args::SampleArgs;
use crate::decode::Decoder;
use crate::device::{self, with_backend};
use crate::drawing::{self, pictures};
use crate::places::Places;
use crate::{bundled, memory, note, progress, say};
use output::{Contents, Target};
use trajectory::Recorder;

/// Draws images.
pub fn run(args: Box<SampleArgs>) -> Result<()> {
    Places::default()
        .reads("--checkpoint", args.checkpoint.as_deref())
        .reads_data("--init-image", args.init_image.as_deref())
        .reads("--mask", args.mask.as_deref())
        .reads("--vae", args.vae.as_deref())
        .writes("--out", Some(&args.out))
        .writes("--trajectory", args.trajectory.as_deref())
        .check()?;
    let weights = bundled::describe(args.checkpoint.as_deref(), args.raw, args.null_label)?;
    let metadata = &weights.metadata;
    let config = *weights.model.config();
    let decoder = Decoder::open(args.vae.as_deref(), args.vae_tile, metadata)?;
    let shape = decoder
        .as_ref()
        .map_or(ImageShape::from(config.image_shape()), Decoder::shape);
    let target = Target::of(&args.out, args.overwrite)?;
    let recorder = Recorder::open(args.trajectory.as_deref(), decoder.is_some())?;
    ensure!(
        recorder.is_none() || target != Target::Npz,
        "--trajectory: goes with pictures, not with --out {}",
        args.out.display()
    );
    let guidance = drawing::guidance(&args.how, args.invert, &config)?;
    let settings = drawing::settings(&args.how, &guidance, args.seed, args.batch_size)?;
    let steps = settings.plan(metadata)?;
    let strength = plan::strength(&args)?;
    if strength < 1.0 {
        steps.step_of_strength(strength)?;
    }
    let given = given::open(&args, shape)?;
    let classes = drawing::classes(metadata)?;
    let job = plan::rows(&args, classes.as_ref(), given.as_ref())?;
    let device = device::open(&args.device, args.precision)?;
    let (cpu, instructions) = (&device.cpu, device.instruction_set());
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
                    given.task(count, &args, strength, &config, decoder.as_ref(), cpu)?
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
            let record = match target {
                Target::Grid => String::new(),
                _ => {
                    let weights = checksum(backend, &params)?;
                    plan::settings(&args, &job, &task, guidance.scale, weights, &instructions)
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
                settings: &record,
            };
            let mut sink = target.open(&args, &contents)?;
            // A trajectory is of the first images, so these are drawn again.
            let missing = match recorder {
                Some(_) => (0..job.rows.len()).collect(),
                None => sink.missing(job.rows.len()),
            };
            let done = job.rows.len() - missing.len();
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
                    bar.inc(rows.len() as u64);
                    if let (Some(recorder), Ok(())) = (&mut recorder, &kept) {
                        kept = recorder.record(|| Ok(at.sample()?), calls);
                    }
                })?;
                kept?;
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
                sink.add(&images, numbers)?;
            }
            bar.finish_and_clear();
            sink.finish(&contents)?;
            let shown = job.rows.len() * contents.each;
            say!("{shown} images in {}", args.out.display())?;
            if let Some(path) = &args.trajectory {
                say!("denoising in {}", path.display())?;
            }
            Ok(())
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
