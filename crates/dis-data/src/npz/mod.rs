//! `.npz` files of images, in the layout that the evaluator of ADM (Dhariwal and Nichol, 2021)
//! reads: `arr_0`, uint8 (samples, height, width, channels), and `arr_1`, the classes; with their
//! names as `class_names` where they have any.

mod read;
#[cfg(test)]
mod tests;
mod write;

pub(super) use read::is_npz;
pub use read::{open_npz, read_npz};
pub use write::{NpzImages, differing_settings};
