//! `dis encode`.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use dis_data::{Check, DataSpec, Dataset, ImageShape, LatentIndex, Shard};
use dis_files::DirLock;
use dis_tensor::Cpu;
use dis_vae::Vae;
use ndarray::Array4;

use crate::args::EncodeArgs;
use crate::places::Places;
use crate::{device, memory, note, progress, say, warning};

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
    let vae = Vae::open(&args.vae)?;
    let cpu = device::open_cpu(&args.device)?;
    let check = Check {
        skip_bad: args.skip_bad,
        ..Check::default()
    };
    let (data, checked) = cpu.install(|| progress::checked(&spec, &check))?;
    if data.latents().is_some() {
        bail!("{}: these are latents already", args.data);
    }
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
    index.skipped = checked.skipped;
    let _lock = DirLock::acquire(&args.out, "dis encode")?;
    let earlier = Earlier::open(&args.out, &mut index, &*data, args.accept_changed_data)?;
    note!("data: {}", data.describe());
    if let Some(text) = dis_data::describe_unoccupied(&*data) {
        warning!("{text}");
    }

    let bar = progress::encoding(data.len() as u64);
    let mut kept = 0;
    for i in 0..index.shard_count() {
        let images = index.shard_images(i);
        index.sources.extend(index.source_of(&*data, i));
        match earlier.shard(&args.out, &index, i) {
            Some(hash) => {
                index.shards.push(hash);
                kept += images.len();
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
    if kept > 0 {
        note!("{kept} latents were there already");
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

/// What an earlier call left.
struct Earlier {
    index: Option<LatentIndex>,
    /// Whether all of it is of the same data, which an index without contents of shards does not tell
    /// shard by shard.
    whole: bool,
}

impl Earlier {
    /// Refuses latents that were made otherwise, and those of other data: of data that have changed in
    /// part, whole shards are kept.
    fn open(
        out: &Path,
        index: &mut LatentIndex,
        data: &dyn Dataset,
        accept_changed: bool,
    ) -> Result<Self> {
        let Some(old) = LatentIndex::load(out)? else {
            return Ok(Self {
                index: None,
                whole: false,
            });
        };
        let refuse = |what: String| {
            let out = out.display();
            bail!("{out}: holds latents {what}")
        };
        if old.autoencoder != index.autoencoder {
            return refuse("of another autoencoder; choose another --out".into());
        }
        let by_names = data.identity_by_names();
        let whole = old.class_names == index.class_names
            && (old.source == index.source || Some(&old.source) == by_names.as_ref());
        if whole {
            // The latents stay those that they were for whoever trains on them.
            index.source.clone_from(&old.source);
        }
        let agree = |i: usize| old.sources.get(i) == index.source_of(data, i).as_ref();
        let some = old.class_names == index.class_names && (0..old.sources.len()).any(agree);
        if !whole && !some && !old.shards.is_empty() && !accept_changed {
            return refuse(format!(
                "of other data ({}); choose another --out, or make them anew with \
                 --accept-changed-data",
                old.source
            ));
        }
        if !old.same_making(index) {
            return refuse(
                "made with other settings (--size, --flip, --shard-size); choose another --out"
                    .into(),
            );
        }
        Ok(Self {
            index: Some(old),
            whole,
        })
    }

    /// The hash of shard `i`, if its file is whole and of the images that are due; `index` has its source
    /// already.
    fn shard(&self, out: &Path, index: &LatentIndex, i: usize) -> Option<String> {
        let old = self.index.as_ref()?;
        let same = match old.sources.get(i) {
            Some(source) => index.sources.get(i) == Some(source),
            None => self.whole,
        };
        (same && old.shard_is_whole(out, i)).then(|| old.shards.get(i).cloned())?
    }
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
