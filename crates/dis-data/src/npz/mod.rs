//! `.npz` files of images, in the layout that the evaluator of ADM (Dhariwal and Nichol, 2021)
//! reads: `arr_0`, uint8 (samples, height, width, channels), and `arr_1`, the classes.

mod arrays;
mod npy;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use arrays::{FloatArray, npz_names, read_float_arrays, write_float_arrays};
pub(super) use read::is_npz;
pub use read::{open_npz, read_npz};
pub use write::NpzImages;
