//! Sizes that the user gives, held against the memory of the machine before it is taken.

use anyhow::Result;
use dis_data::ImageShape;
use dis_model::DisConfig;
use dis_model::cost::Cost;
use dis_tensor::machine::require_memory;

/// Bytes of `count` images of float32 values.
pub fn images(count: usize, shape: ImageShape) -> u128 {
    count as u128 * 4 * shape.len() as u128
}

/// Bytes of a model's weights and of a forward pass of `batch` images.
///
/// # Errors
/// If the configuration is none.
pub fn inference(config: &DisConfig, batch: usize) -> Result<u128> {
    let memory = Cost::of(config, batch)?.memory;
    Ok(u128::from(memory.weights) + u128::from(memory.inference))
}

/// Refuses an option whose value takes more memory than the machine has.
///
/// # Errors
/// Naming the option, what it takes and what there is.
pub fn check(option: &str, value: usize, needed: u128) -> Result<()> {
    Ok(require_memory(format!("{option} {value}"), needed)?)
}
