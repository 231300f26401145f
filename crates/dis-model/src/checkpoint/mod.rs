//! Checkpoints: safetensors with the published parameter names, and one metadata key `dis` whose
//! sorted JSON holds everything needed to use them; and the `.pt` files of the published code, read
//! without running any of what is in them, and written so that PyTorch loads them.
//!
//! Files are read tensor by tensor, straight into the arena, rather than mapped into memory. Weights
//! are then in memory once and never twice, nothing breaks if another program shortens the file
//! meanwhile, and no `unsafe` is needed.
//!
//! Modules stand on those before them: `config_json`, `metadata`, `arguments`, `tensors`, `infer`,
//! `entry`, `names`, `dictionary`, `file`, `write`, `whole`.

mod arguments;
mod config_json;
mod dictionary;
mod entry;
mod file;
mod infer;
mod metadata;
mod names;
mod tensors;
mod whole;
mod write;

pub use config_json::{MODEL_KEYS, config_from_json, config_to_json};
pub use dis_files::{ElementType, StoredTensor};
pub use entry::Entry;
pub use file::{Format, WeightFile, read_tensors};
pub use infer::{InferError, InferHints, infer_config};
pub use metadata::{Holds, METADATA_KEY, Metadata};
pub use tensors::{NamedTensor, arena_from_tensors};
pub use whole::Checkpoint;
pub use write::{save_arena, save_torch, serialize_arena, write_arena, write_torch};
