//! Images of a model, as evaluators take them: bytes.

use std::ops::ControlFlow;

use anyhow::{Result, ensure};
use dis_data::{ImageShape, MemoryDataset};
use dis_model::Classes;
use dis_pipeline::{Row, Task};

use super::args::EvalArgs;
use super::source;
use crate::bundled::Weights;
use crate::decode::Decoder;
use crate::device::{Device, with_backend};
use crate::drawing::{self, MOST, pictures};
use crate::{memory, progress};

/// Draws `num` images, as many of each class: those that `dis sample` draws with the same options.
/// With it comes a warning where not every class is drawn.
pub fn draw(
    weights: Weights,
    num: usize,
    args: &EvalArgs,
    device: &Device,
) -> Result<(MemoryDataset, Option<String>)> {
    let decoder = source::decoder(&weights, args)?;
    let config = *weights.model.config();
    let shape = decoder
        .as_ref()
        .map_or_else(|| ImageShape::from(config.image_shape()), Decoder::shape);
    let classes = drawing::classes(&weights.metadata)?;
    ensure!((1..=MOST).contains(&num), "--num must be 1 to {MOST}");
    let drawable = classes.as_ref().map(Classes::occupied).unwrap_or_default();
    let rows = Row::divided(num, &drawable);
    let drawable = drawable.len();
    let warning = (num < drawable).then(|| {
        format!(
            "{num} images are drawn of {num} of the model's {drawable} classes only; ask for at \
             least {drawable}"
        )
    });
    let guidance = drawing::guidance(&args.how, false, &config)?;
    let settings = drawing::settings(&args.how, false, &guidance, args.seed, args.batch_size)?;
    let plan = settings.plan(&weights.metadata)?;
    // The bytes, and as features float32.
    let images = num as u128 * 5 * shape.len() as u128;
    memory::check("drawing --num images:", num, images)?;
    let each = memory::rows(&guidance);
    memory::inference(device, &config, args.batch_size, num, each)?;
    let mut bytes = Vec::with_capacity(num * shape.len());
    let bar = progress::sampling();
    bar.start(0, num as u64 * plan.iterations() as u64);
    with_backend!(device, |backend| {
        let pipeline = weights.load(backend)?;
        let artist = pipeline.artist(&plan, &settings);
        for rows in rows.chunks(args.batch_size) {
            let drawn = artist.draw(rows, &Task::Generate, &mut |at| {
                bar.inc(at.images as u64);
                ControlFlow::Continue(())
            })?;
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
