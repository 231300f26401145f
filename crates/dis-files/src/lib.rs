//! File formats that models and their data come in, read within bounds, and files that are written
//! whole or not at all.
//!
//! | format | read | written |
//! | --- | --- | --- |
//! | safetensors | [`SafetensorsFile`] | [`write_safetensors`] |
//! | `.pt` of PyTorch | [`torch::TorchFile`], without running any of it | [`torch::write_torch`] |
//! | `.npz` of NumPy, stored or deflated | [`npz::NpzFile`] | [`npz::write_npz`] |
//! | zip | [`zip::Archive`] | [`zip::ZipWriter`] |
//! | JPEG | [`jpeg_is_whole`], only whether all of it is there | |
//!
//! [`sniff`] tells what a file is by its first bytes, [`write_atomic`] replaces a file in one step,
//! and [`LockFile`] and [`DirLock`] keep two processes from writing to one place.
//!
//! What a file can make a reader use is bounded by its own size: a count, a shape or a length that
//! a file announces is compared with the bytes that are there before memory is taken for it, and
//! deflated data are read as they come. Nothing panics, whatever the bytes are. Errors name the
//! file and, where there is one, the tensor or array.
//!
//! ```
//! use dis_files::npz::{Array, NpzFile, write_npz};
//!
//! let path = std::env::temp_dir().join(format!("statistics-{}.npz", std::process::id()));
//! let mean = Array::from_f64(&[2, 2], &[0.0, 0.5, 1.0, 1.5])?;
//! write_npz(&path, &[("mu", &mean)])?;
//!
//! let mut file = NpzFile::open(&path)?;
//! assert_eq!(file.names(), ["mu"]);
//! assert_eq!(file.array("mu")?.to_f64()?, [0.0, 0.5, 1.0, 1.5]);
//! std::fs::remove_file(&path)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod array;
mod atomic;
mod element;
mod error;
mod jpeg;
mod lock;
mod npy;
pub mod npz;
mod safetensors_file;
mod sniff;
mod stored;
pub mod torch;
pub mod zip;

pub use atomic::{write_atomic, write_atomic_with};
pub use element::{ElementType, le_bytes};
pub use error::{FileError, Result};
pub use jpeg::jpeg_is_whole;
pub use lock::{DirLock, LockError, LockFile};
pub use npy::NpyHeader;
pub use safetensors_file::{SafetensorsFile, View, write_safetensors};
pub use sniff::{FileKind, SNIFF_LEN, expect_kind, read_json, sniff, sniff_source};
pub use stored::StoredTensor;
