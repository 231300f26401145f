//! Sizes that the user gives, held against the memory of the machine before it is taken.

use anyhow::Result;
use dis_data::ImageShape;
use dis_diffusion::Guidance;
use dis_model::DisConfig;
use dis_model::cost::Cost;
use dis_tensor::machine::require_memory;

use crate::device::Device;

/// Bytes of `count` images of float32 values.
pub fn images(count: usize, shape: ImageShape) -> u128 {
    count as u128 * 4 * shape.len() as u128
}

/// Refuses a `--batch-size` of `images` at most whose forward pass, of so many rows for each image,
/// takes more memory than there is beside the model's weights. Memory of other devices is theirs to
/// refuse.
///
/// # Errors
/// Naming the option, what it takes and what there is.
pub fn inference(
    device: &Device,
    config: &DisConfig,
    batch_size: usize,
    images: usize,
    rows: usize,
) -> Result<()> {
    if !device.on_host() {
        return Ok(());
    }
    let batch = batch_size.min(images).saturating_mul(rows);
    let memory = Cost::of(config, batch)?.memory;
    let needed = u128::from(memory.weights) + u128::from(memory.inference);
    check("--batch-size", batch_size, needed)
}

/// Rows of a forward pass for each image: guidance takes two at once.
pub fn rows(guidance: &Guidance) -> usize {
    1 + usize::from(guidance.scale != 1.0)
}

/// Refuses an option whose value takes more memory than the machine has.
///
/// # Errors
/// Naming the option, what it takes and what there is.
pub fn check(option: &str, value: usize, needed: u128) -> Result<()> {
    Ok(require_memory(format!("{option} {value}"), needed)?)
}
