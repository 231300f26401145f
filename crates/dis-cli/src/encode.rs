//! `dis encode`.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use dis_data::{DataSpec, Dataset, ImageShape, LatentIndex, Shard};
use dis_files::DirLock;
use dis_tensor::Cpu;
use dis_vae::Vae;
use ndarray::Array4;

use crate::args::EncodeArgs;
use crate::places::Places;
use crate::{device, memory, note, progress, say};

/// Writes the latents of a data set.
pub fn run(args: &EncodeArgs) -> Result<()> {
    ensure!(args.batch_size > 0, "--batch-size must be at least 1");
    ensure!(args.shard_size > 0, "--shard-size must be at least 1");
    Places::default()
        .reads_data("DATA", Some(&args.data))
        .reads("--vae", Some(&args.vae))
        .writes("--out", Some(&args.out))
        .check()?;
    let mut spec: DataSpec = args.data.parse()?;
    spec.size = args.size.or(spec.size);
    let mirrored = args.flip || spec.flip;
    let data = dis_data::open(&spec)?;
    if data.latents().is_some() {
        bail!("{}: these are latents already", args.data);
    }
    let vae = Vae::open(&args.vae)?;
    let latent = latent_shape(&vae, data.shape())?;
    let scale = vae.config().latent_scale();
    let batch = args.batch_size.min(args.shard_size).min(data.len());
    memory::check(
        "--batch-size",
        args.batch_size,
        4 * memory::images(batch, data.shape()),
    )?;
    // Means and deviations, of mirrored images too, and once more as bytes.
    let values = 4 * (1 + u128::from(mirrored));
    let shard = values * memory::images(args.shard_size.min(data.len()), latent);
    memory::check("--shard-size", args.shard_size, shard)?;
    let mut index = LatentIndex::new(
        &*data,
        latent,
        [scale.scale, scale.shift],
        vae.fingerprint(),
        args.shard_size,
        mirrored,
    );
    let _lock = DirLock::acquire(&args.out, "dis encode")?;
    let earlier = earlier(&args.out, &index)?;
    let cpu = device::open_cpu(&args.device)?;
    note!("data: {}", data.describe());
    if let Some(text) = dis_data::describe_unoccupied(&*data) {
        note!("warning: {text}");
    }

    let bar = progress::encoding(data.len() as u64);
    let mut skipped = 0;
    for i in 0..index.shard_count() {
        let images = index.shard_images(i);
        let whole = earlier
            .as_ref()
            .filter(|old| old.shard_is_whole(&args.out, i))
            .and_then(|old| old.shards.get(i).cloned());
        match whole {
            Some(hash) => {
                index.shards.push(hash);
                skipped += images.len();
                bar.inc(images.len() as u64);
            }
            None => {
                let shard = cpu.install(|| {
                    let batch = args.batch_size;
                    encode_shard(&vae, &cpu, &*data, images, mirrored, batch, &|n| bar.inc(n))
                })?;
                index.append(&args.out, &shard)?;
            }
        }
    }
    index.save(&args.out)?;
    bar.finish_and_clear();
    if skipped > 0 {
        note!("{skipped} latents were there already");
    }
    let out = args.out.display();
    say!(
        "{} latents of {latent} in {out}; train on them with: dis train --data latents:{out}",
        index.count
    )
}

/// Size of the latents of images; refuses images that the autoencoder cannot take.
fn latent_shape(vae: &Vae, images: ImageShape) -> Result<ImageShape> {
    let config = vae.config();
    let factor = config.reduction();
    let grey = images.channels == 1 && config.in_channels == 3;
    ensure!(
        images.channels == config.in_channels || grey,
        "images of {images}, but the autoencoder takes {} channels",
        config.in_channels
    );
    ensure!(
        images.height.is_multiple_of(factor) && images.width.is_multiple_of(factor),
        "images of {images}: the autoencoder makes one latent of {factor} pixels, so sides must be \
         multiples of {factor}"
    );
    Ok(ImageShape {
        channels: config.latent_channels,
        height: images.height / factor,
        width: images.width / factor,
    })
}

/// The index that an earlier call left. Refuses one of something else.
fn earlier(out: &Path, index: &LatentIndex) -> Result<Option<LatentIndex>> {
    let Some(old) = LatentIndex::load(out)? else {
        return Ok(None);
    };
    let same = LatentIndex {
        shards: Vec::new(),
        ..old.clone()
    };
    if same != *index {
        let what = if same.source != index.source {
            format!("of other data ({})", same.source)
        } else if same.autoencoder != index.autoencoder {
            "of another autoencoder".to_string()
        } else {
            "made with other settings (--flip, --shard-size)".to_string()
        };
        bail!(
            "{}: holds latents {what}; choose another --out",
            out.display()
        );
    }
    Ok(Some(old))
}

fn encode_shard(
    vae: &Vae,
    cpu: &Cpu,
    data: &dyn Dataset,
    images: std::ops::Range<usize>,
    mirrored: bool,
    batch_size: usize,
    done: &dyn Fn(u64),
) -> Result<Shard> {
    let mut shard = Shard::default();
    if mirrored {
        shard.mirrored = Some((Vec::new(), Vec::new()));
    }
    let mut start = images.start;
    while start < images.end {
        let end = start.saturating_add(batch_size).min(images.end);
        let both = [false, true];
        for &flip in &both[..1 + usize::from(mirrored)] {
            let posterior = vae.encode(cpu, read(vae, data, start..end, flip)?.view())?;
            let (mean, log_var) = match &mut shard.mirrored {
                Some((mean, log_var)) if flip => (mean, log_var),
                _ => (&mut shard.mean, &mut shard.log_var),
            };
            let each = posterior
                .mean
                .outer_iter()
                .zip(posterior.log_var.outer_iter());
            for (i, (m, v)) in (start..end).zip(each) {
                let finite = m.iter().chain(&v).all(|x| x.is_finite());
                ensure!(finite, "the latents of image {i} are not finite");
                mean.extend(m.iter());
                log_var.extend(v.iter());
            }
        }
        for i in (start..end).filter(|_| data.num_classes().is_some()) {
            let label = data.label(i);
            let label = label.with_context(|| format!("image {i} has no label"))?;
            shard.labels.push(label);
        }
        done((end - start) as u64);
        start = end;
    }
    Ok(shard)
}

/// Images in [-1, 1] with the channels that the autoencoder takes; grey ones are repeated.
fn read(
    vae: &Vae,
    data: &dyn Dataset,
    images: std::ops::Range<usize>,
    flip: bool,
) -> Result<Array4<f32>> {
    let shape = data.shape();
    let repeat = vae.config().in_channels / shape.channels.max(1);
    let mut values = Vec::with_capacity(images.len() * shape.len() * repeat);
    let mut image = vec![0.0; shape.len()];
    let count = images.len();
    for i in images {
        data.read(i, flip, &mut image)?;
        for _ in 0..repeat {
            values.extend_from_slice(&image);
        }
    }
    let size = (count, shape.channels * repeat, shape.height, shape.width);
    Ok(Array4::from_shape_vec(size, values)?)
}
