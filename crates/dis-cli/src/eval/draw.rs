//! Images of a model, as evaluators take them: bytes.

use anyhow::Result;
use dis_data::{ImageShape, MemoryDataset};
use dis_pipeline::{Artist, Task, plan_for};
use dis_tensor::Backend;

use super::args::EvalArgs;
use super::source;
use crate::bundled::Weights;
use crate::decode::Decoder;
use crate::device::{Device, with_backend};
use crate::drawing::{self, pictures};
use crate::{memory, progress};

/// Draws `num` images, as many of each class: those that `dis sample` draws with the same options.
/// With it comes a warning where not every class is drawn.
pub fn draw(
    weights: &mut Weights,
    num: usize,
    args: &EvalArgs,
    device: &Device,
) -> Result<(MemoryDataset, Option<String>)> {
    let decoder = source::decoder(weights, args)?;
    let config = *weights.model.config();
    let shape = decoder
        .as_ref()
        .map_or_else(|| ImageShape::from(config.image_shape()), Decoder::shape);
    let classes = drawing::classes(&weights.metadata)?;
    let rows = drawing::balanced(num, classes.as_ref())?;
    let drawable = classes.as_ref().map_or(0, |c| c.occupied().len());
    let warning = (num < drawable).then(|| {
        format!(
            "{num} images are drawn of {num} of the model's {drawable} classes only; ask for at \
             least {drawable}"
        )
    });
    let guidance = drawing::guidance(&args.how, false, &config)?;
    let steps = plan_for(
        &weights.metadata,
        drawing::sampler(&args.how)?,
        args.how.steps,
        args.how.spacing,
        drawing::limit(&args.how)?,
    )?;
    // The bytes, and as features float32.
    let images = num as u128 * 5 * shape.len() as u128;
    memory::check("drawing --num images:", num, images)?;
    let batch = args.batch_size.min(num);
    if device.on_host() {
        let passes = batch.saturating_mul(1 + usize::from(guidance.scale != 1.0));
        memory::check(
            "--batch-size",
            args.batch_size,
            memory::inference(&config, passes)?,
        )?;
    }
    let mut bytes = Vec::with_capacity(num * shape.len());
    let bar = progress::sampling();
    bar.start(
        0,
        num as u64 * drawing::iterations(&steps, &Task::Generate)?,
    );
    with_backend!(device, |backend| {
        let table = weights.model.table();
        let mut params = weights.file.read_params(backend, table)?;
        backend.prepare_weights(&mut params, table.products())?;
        let artist = Artist {
            backend,
            model: &weights.model,
            params: &params,
            plan: &steps,
            seed: args.seed,
            guidance,
        };
        for rows in rows.chunks(args.batch_size) {
            let drawn = artist.draw(rows, &Task::Generate, &mut |_| bar.inc(rows.len() as u64))?;
            let drawn = drawn.into_iter().collect();
            bytes.extend(pictures(&device.cpu, decoder.as_ref(), drawn)?);
        }
    });
    bar.finish_and_clear();
    let labels: Option<Vec<u32>> = rows.iter().map(|row| row.label).collect();
    let names = classes.map(|c| c.names()).unwrap_or_default();
    let data = MemoryDataset::new("drawn", shape, u8::MAX, bytes, labels, names)?;
    Ok((data, warning))
}
