//! What the two sides of a comparison are: models, images or statistics.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use dis_data::{Check, DataKind, DataSpec, Dataset, ImageShape};
use dis_eval::{SavedStatistics, sha256_hex};
use dis_files::torch::TorchFile;
use dis_files::{FileKind, sniff_source};
use dis_train::run::is_checkpoint;

use super::args::EvalArgs;
use crate::bundled::{self, BUNDLED, Weights};
use crate::decode::Decoder;
use crate::places::extension;
use crate::{note, progress};

/// What a side is for.
#[derive(Clone, Copy, Debug)]
pub enum Role {
    /// It is judged.
    Samples,
    /// Samples are compared with it.
    Reference,
}

impl Role {
    /// The argument that gives it.
    fn name(self) -> &'static str {
        match self {
            Self::Samples => "SAMPLES",
            Self::Reference => "--reference",
        }
    }
}

/// One side.
pub enum Source {
    /// A model that images are drawn from.
    Model {
        /// Its weights, not read yet.
        weights: Box<Weights>,
        /// As the user named it.
        text: String,
        /// Of its file.
        sha256: String,
    },
    /// Images.
    Data {
        /// The images.
        data: Arc<dyn Dataset>,
        /// As the user named them.
        text: String,
    },
    /// Statistics of features.
    Statistics {
        /// The statistics.
        saved: Box<SavedStatistics>,
        /// As the user named them.
        text: String,
        /// Of their file.
        sha256: String,
    },
    /// A folder of pictures whose size must come from the other side.
    Unsized,
}

impl Source {
    /// Finds out what `text` is, and looks at every picture of a folder. Folders without a size take
    /// `shape`.
    pub fn open(
        role: Role,
        text: &str,
        shape: Option<ImageShape>,
        args: &EvalArgs,
    ) -> Result<Self> {
        let (name, path) = (role.name(), Path::new(text));
        if text == BUNDLED || is_model(path)? {
            let path = (text != BUNDLED).then_some(path);
            let weights = bundled::describe(path, args.raw, args.null_label)
                .with_context(|| format!("{name} {text}"))?;
            return Ok(Self::Model {
                sha256: weights.sha256()?,
                weights: Box::new(weights),
                text: text.to_string(),
            });
        }
        let file = Path::new(text.strip_prefix("npz:").unwrap_or(text));
        if is_archive(file)? && SavedStatistics::is_file(file)? {
            return Ok(Self::Statistics {
                saved: Box::new(SavedStatistics::load(file)?),
                text: text.to_string(),
                sha256: hash(file)?,
            });
        }
        let mut spec: DataSpec = text.parse().with_context(|| name.to_string())?;
        if matches!(spec.kind, DataKind::Folder(_)) && spec.size.is_none() {
            let Some(shape) = shape else {
                return Ok(Self::Unsized);
            };
            spec.size = Some(shape.into());
            spec.grey = shape.channels == 1;
        }
        if matches!(spec.kind, DataKind::Latents(_)) {
            bail!("{name} {text}: latents are no pictures; give the images they are of");
        }
        let check = Check {
            skip_bad: args.skip_bad,
            samples: matches!(role, Role::Samples),
            ..Check::default()
        };
        let (data, _) = progress::checked(&spec, &check)?;
        if matches!(spec.kind, DataKind::Folder(_)) {
            // With what was left out of it.
            note!("{name}: {}", data.describe());
        }
        Ok(Self::Data {
            data,
            text: text.to_string(),
        })
    }

    /// Size of the images, if there are any. Models of latents make larger ones, which are only
    /// known with their autoencoder.
    pub fn shape(&self) -> Option<ImageShape> {
        match self {
            Self::Model { weights, .. } => {
                let config = weights.model.config();
                let latent = weights.metadata.extra.contains_key("latent_scale");
                let pictures = matches!(config.channels, 1 | 3) && !latent;
                pictures.then(|| config.image_shape().into())
            }
            Self::Data { data, .. } => Some(data.shape()),
            Self::Statistics { .. } | Self::Unsized => None,
        }
    }

    /// The model, for likelihoods.
    pub fn model(self) -> Result<(Box<Weights>, String, String)> {
        match self {
            Self::Model {
                weights,
                text,
                sha256,
            } => Ok((weights, text, sha256)),
            _ => bail!("--bpd: SAMPLES must be a checkpoint or a run, whose likelihood it is"),
        }
    }

    /// The images, for likelihoods.
    pub fn data(self) -> Result<(Arc<dyn Dataset>, String)> {
        match self {
            Self::Data { data, text } => Ok((data, text)),
            _ => bail!("--bpd: --reference must be images"),
        }
    }
}

/// What a file is by its content; `None` if there is no file.
fn kind(path: &Path) -> Result<Option<FileKind>> {
    if !path.is_file() {
        return Ok(None);
    }
    let file = File::open(path).and_then(|mut file| sniff_source(&mut file));
    Ok(Some(file.with_context(|| {
        format!("cannot read {}", path.display())
    })?))
}

/// Whether a path is that of a zip archive.
fn is_archive(path: &Path) -> Result<bool> {
    Ok(kind(path)? == Some(FileKind::Zip))
}

/// Whether a path is that of weights: a run, a checkpoint of one, a file of weights, or one whose
/// name says that it should be one.
fn is_model(path: &Path) -> Result<bool> {
    if path.is_dir() {
        return Ok(is_checkpoint(path));
    }
    Ok(match kind(path)? {
        Some(FileKind::Safetensors) => true,
        Some(FileKind::Zip) => TorchFile::is_archive(path)?,
        _ => matches!(
            extension(path).as_str(),
            "safetensors" | "pt" | "pth" | "ckpt"
        ),
    })
}

/// The SHA-256 of a file.
pub fn hash(path: &Path) -> Result<String> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    sha256_hex(file).with_context(|| format!("cannot read {}", path.display()))
}

/// The autoencoder that a model of latents needs.
pub fn decoder(weights: &Weights, args: &EvalArgs) -> Result<Option<Decoder>> {
    let decoder = Decoder::open(args.vae.as_deref(), None, &weights.metadata)?;
    ensure!(
        decoder.is_none() || !args.bpd,
        "--bpd: the likelihood of latents is not that of pictures"
    );
    Ok(decoder)
}
