//! `dis sample`.

pub mod decode;
mod given;
pub mod output;
pub mod plan;
mod trajectory;

use anyhow::{Result, bail, ensure};
use dis_data::{ImageShape, grid};
use dis_pipeline::{Artist, Task, plan_for};
use dis_tensor::{Backend, Reals};

use crate::args::SampleArgs;
use crate::device::{self, with_backend};
use crate::{bundled, progress};
use decode::Decoder;
use output::Target;
use trajectory::Recorder;

/// Draws images.
pub fn run(args: Box<SampleArgs>) -> Result<()> {
    let mut weights = bundled::describe(args.checkpoint.as_deref(), args.raw, args.null_label)?;
    let (model, metadata) = (&weights.model, &weights.metadata);
    let config = *model.config();
    let decoder = Decoder::open(args.vae.as_deref(), args.vae_tile, metadata)?;
    let shape = decoder.as_ref().map_or(
        ImageShape {
            channels: config.channels,
            height: config.image_size,
            width: config.image_size,
        },
        Decoder::shape,
    );
    let target = Target::of(&args.out)?;
    let recorder = Recorder::open(args.trajectory.as_deref(), decoder.is_some())?;
    ensure!(
        recorder.is_none() || target != Target::Npz,
        "--trajectory: goes with pictures, not with --out {}",
        args.out.display()
    );
    let guidance = plan::guidance(&args.how, args.invert, &config)?;
    let steps = plan_for(
        metadata,
        plan::sampler(&args.how)?,
        args.how.steps,
        args.how.spacing,
        plan::limit(&args.how)?,
    )?;
    let strength = plan::strength(&args)?;
    if strength < 1.0 {
        steps.step_of_strength(strength)?;
    }
    let given = given::open(&args, shape)?;
    let classes = plan::classes(metadata)?;
    let job = plan::rows(&args, classes.as_ref(), given.as_ref())?;
    let device = device::open(&args.device, args.precision)?;
    let (cpu, instructions) = (&device.cpu, device.instruction_set());

    cpu.install(|| {
        with_backend!(device, |backend| {
            let task = match given {
                Some(given) => {
                    let count = job.rows.iter().map(|row| row.image + 1).max().unwrap_or(0);
                    given.task(count, &args, strength, &config, decoder.as_ref(), cpu)?
                }
                None => Task::Generate,
            };
            let mut params = weights.file.read_params(backend, model.table())?;
            let settings = match target {
                Target::Npz => {
                    plan::settings(&args, &job, checksum(backend, &params)?, &instructions)
                }
                _ => String::new(),
            };
            // Only now: the checksum is of the weights in the order of the file.
            backend.prepare_weights(&mut params, model.table().products())?;
            let shown = job.rows.len() * (1 + usize::from(args.invert));
            let mut sink =
                target.open(&args.out, shape, shown, &args, classes.as_ref(), &settings)?;
            if sink.done() > 0 {
                eprintln!("continuing after {} images", sink.done());
            }
            let artist = Artist {
                backend,
                model,
                params: &params,
                plan: &steps,
                seed: args.seed,
                guidance,
            };
            let mut recorder = recorder;
            let bar = progress::sampling();
            let calls = plan::iterations(&steps, &task)?;
            bar.set_length(job.rows.len() as u64 * calls);
            bar.set_position(sink.done() as u64 * calls);
            bar.reset_eta();
            for rows in job.rows[sink.done()..].chunks(args.batch_size) {
                let mut kept = Ok(());
                let drawn = artist.draw(rows, &task, &mut |at| {
                    bar.inc(rows.len() as u64);
                    if let (Some(recorder), Ok(())) = (&mut recorder, &kept) {
                        kept = recorder.record(|| Ok(at.sample()?), calls as usize);
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
                sink.add(&images, rows)?;
            }
            bar.finish_and_clear();
            sink.finish(job.columns, &job.rows)?;
            println!("{shown} images in {}", args.out.display());
            if let Some(path) = &args.trajectory {
                println!("denoising in {}", path.display());
            }
            Ok(())
        })
    })
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
