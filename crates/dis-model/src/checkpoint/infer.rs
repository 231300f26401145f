//! The configuration of a file without metadata, from its tensor shapes.

use std::collections::HashMap;

use dis_ssm::SkipKind;
use dis_tensor::{ImageSize, NormKind};
use serde_json::{Map, Value};

use super::arguments;
use super::tensors::NamedTensor;
use crate::config::{ConditionKind, Conditioning, DisConfig, SsmConfig};
use crate::model::LABEL_TABLE;

/// What shapes cannot tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InferHints {
    /// Whether the last row of the label table is the null label. Required for class-conditional
    /// files without metadata.
    pub null_label: Option<bool>,
    /// Whether blocks without a skip map add their skip.
    pub skip_add: bool,
    /// Height and width of the image; that of a square when absent.
    pub image_size: Option<ImageSize>,
}

/// Why shapes say no configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InferError {
    /// The shapes are not those of a model.
    #[error("{0}")]
    Shapes(String),
    /// They leave [`InferHints::null_label`] open.
    #[error(
        "the label table has {rows} rows, and shapes cannot tell whether the last one is the null \
         label ({} classes) or a class ({rows} classes){why}: say which",
        rows - 1
    )]
    NullLabel {
        /// Rows of the label table.
        rows: usize,
        /// Why the arguments of the training script do not tell either, after a comma; empty where
        /// there are none.
        why: String,
    },
    /// They leave [`InferHints::image_size`] open.
    #[error(
        "pos_embed has {positions} tokens, {extra} of them in front of the patches; the {patches} \
         left are not a square, and there is no metadata: say the height and width of the images"
    )]
    ImageSize {
        /// Tokens of the position table.
        positions: usize,
        /// Those of condition and time.
        extra: usize,
        /// Those of patches.
        patches: usize,
    },
}

impl From<String> for InferError {
    fn from(what: String) -> Self {
        Self::Shapes(what)
    }
}

/// Reads the configuration off the shapes. The rest is as published; errors say what is missing or
/// open.
///
/// # Errors
/// If the shapes are not those of a model, or leave open what `hints` do not say.
pub fn infer_config(tensors: &[NamedTensor], hints: &InferHints) -> Result<DisConfig, InferError> {
    let shapes = tensors
        .iter()
        .map(|t| (t.name.as_str(), t.shape.as_slice()));
    infer_from_shapes(shapes, hints, &Map::new())
}

/// As [`infer_config`], for tensors that were not read. A training script's arguments answer what
/// shapes leave open, if they fit the shapes.
pub(super) fn infer_from_shapes<'a>(
    shapes: impl Iterator<Item = (&'a str, &'a [usize])>,
    hints: &InferHints,
    args: &Map<String, Value>,
) -> Result<DisConfig, InferError> {
    let shapes: HashMap<&str, &[usize]> = shapes.collect();
    let rows = match shapes.get(LABEL_TABLE) {
        Some([rows, _]) => *rows,
        _ => 0,
    };
    // A table of one row cannot hold a null label beside classes. For more rows either answer does
    // to read the rest off the shapes.
    let open = hints.null_label.is_none() && rows > 1;
    let assumed = InferHints {
        null_label: hints.null_label.or(Some(rows > 1)),
        ..*hints
    };
    let mut config = from_shapes(&shapes, &assumed)?;
    if open {
        let null_label = arguments::null_label(args, rows, &config)
            .map_err(|why| InferError::NullLabel { rows, why })?;
        config.condition = ConditionKind::Classes {
            num_classes: rows - usize::from(null_label),
            null_label,
        };
    }
    Ok(config)
}

fn from_shapes(
    shapes: &HashMap<&str, &[usize]>,
    hints: &InferHints,
) -> Result<DisConfig, InferError> {
    let has = |name: &str| shapes.contains_key(name);
    let find = |name: &str, dims: usize| match shapes.get(name) {
        Some(shape) if shape.len() == dims => Ok(*shape),
        Some(shape) => Err(format!(
            "tensor {name:?} has shape {shape:?}; expected {dims} dimensions"
        )),
        None => Err(format!(
            "tensor {name:?} is missing, and there is no metadata, so this is not a DiS checkpoint"
        )),
    };

    let patch = find("patch_embed.proj.weight", 4)?;
    let (embed_dim, channels, patch_size) = (patch[0], patch[1], patch[2]);
    let positions = find("pos_embed", 3)?[1];
    let a_log = find("mid_block.mixer.A_log", 2)?;
    let (d_inner, d_state) = (a_log[0], a_log[1]);
    let d_conv = find("mid_block.mixer.conv1d.weight", 3)?[2];
    let dt_rank = find("mid_block.mixer.dt_proj.weight", 2)?[1];
    let head = find("final_layer.linear.weight", 2)?[0];
    if embed_dim == 0 || d_inner % embed_dim != 0 {
        let what = format!("d_inner {d_inner} is not a multiple of the width {embed_dim}");
        return Err(what.into());
    }

    let ada_ln = has("mid_block.adaLN_modulation.1.weight");
    let condition = if has(LABEL_TABLE) {
        let rows = find(LABEL_TABLE, 2)?[0];
        let null_label = hints.null_label.unwrap_or(true);
        let num_classes = rows.saturating_sub(usize::from(null_label));
        ConditionKind::Classes {
            num_classes,
            null_label,
        }
    } else if has("context_embed.weight") {
        let dim = find("context_embed.weight", 2)?[1];
        let tokens = find("null_context", 3)?[1];
        ConditionKind::Context {
            dim,
            tokens,
            null_context: true,
        }
    } else {
        ConditionKind::None
    };
    let conditioning = if ada_ln {
        Conditioning::AdaLn
    } else {
        Conditioning::Tokens
    };
    let extra = match (conditioning, condition) {
        (Conditioning::AdaLn, _) => 0,
        (_, ConditionKind::None) => 1,
        (_, ConditionKind::Classes { .. }) => 2,
        (_, ConditionKind::Context { tokens, .. }) => tokens + 1,
    };
    let patches = positions.saturating_sub(extra);
    let side = patches.isqrt();
    let image_size = match hints.image_size {
        Some(size) => size,
        None if patches > 0 && side * side == patches => side.saturating_mul(patch_size).into(),
        None => {
            return Err(InferError::ImageSize {
                positions,
                extra,
                patches,
            });
        }
    };

    let half = (0..)
        .take_while(|i| has(&format!("in_blocks.{i}.mixer.A_log")))
        .count();
    let skip = if half > 0 && has("out_blocks.0.skip_linear.weight") || half == 0 {
        SkipKind::Concat
    } else if hints.skip_add {
        SkipKind::Add
    } else {
        SkipKind::None
    };
    let layer = has("norm_f.bias");
    let outputs = patch_size
        .saturating_mul(patch_size)
        .saturating_mul(channels)
        .max(1);
    let learn_sigma = match head / outputs {
        1 => false,
        2 => true,
        _ => {
            let what = format!("the decoder has {head} outputs; expected {outputs} or twice that");
            return Err(what.into());
        }
    };
    let config = DisConfig {
        image_size,
        patch_size,
        channels,
        embed_dim,
        // An odd depth builds as many blocks as the even one below it plus one: the same shapes.
        depth: 2 * half,
        conditioning,
        condition,
        learn_sigma,
        skip,
        norm: if layer {
            NormKind::Layer
        } else {
            NormKind::Rms
        },
        mlp_time_embed: has("time_embed.0.weight"),
        ssm: SsmConfig {
            d_state,
            d_conv,
            expand: d_inner / embed_dim,
            dt_rank: (dt_rank != embed_dim.div_ceil(16)).then_some(dt_rank),
            bias: has("mid_block.mixer.in_proj.bias"),
            conv_bias: has("mid_block.mixer.conv1d.bias"),
            ..SsmConfig::default()
        },
        ..DisConfig::new(1, 1, 1, 1, 0)
    };
    config.validate().map_err(|e| e.to_string())?;
    if config.patches() != patches {
        let ImageSize { height, width } = image_size;
        return Err(format!(
            "pos_embed has {positions} tokens, {extra} of them in front of the patches; images of \
             {width}x{height} have {} patches of {patch_size}x{patch_size}, but {patches} are left",
            config.patches()
        )
        .into());
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::DisModel;

    fn inferred(config: DisConfig, image_size: Option<ImageSize>) -> Result<DisConfig, InferError> {
        let model = DisModel::new(config).map_err(|e| e.to_string())?;
        let specs = model.table().specs().iter();
        let shapes = specs.map(|s| (s.name.as_str(), s.shape.as_slice()));
        let hints = InferHints {
            image_size,
            ..InferHints::default()
        };
        infer_from_shapes(shapes, &hints, &Map::new())
    }

    #[test]
    fn a_rectangle_is_asked_for_and_held_to_the_table() {
        let config = DisConfig::new([4, 6], 2, 3, 16, 4);
        let open = InferError::ImageSize {
            positions: 7,
            extra: 1,
            patches: 6,
        };
        assert_eq!(inferred(config, None).unwrap_err(), open);
        let found = |size: [usize; 2]| inferred(config, Some(size.into()));
        assert_eq!(found([4, 6]).unwrap().image_size, [4, 6].into());
        assert_eq!(found([6, 4]).unwrap().image_size, [6, 4].into());
        let message = found([4, 8]).unwrap_err().to_string();
        assert!(message.contains("8x4 have 8 patches"), "{message}");
        let message = found([0, 6]).unwrap_err().to_string();
        assert!(message.contains("image_size is 0"), "{message}");
        // As many patches as a square has: only a hint tells them apart.
        let config = DisConfig::new([2, 8], 2, 3, 16, 4);
        let size = |hint: Option<ImageSize>| inferred(config, hint).unwrap().image_size;
        assert_eq!(size(None), 4.into());
        assert_eq!(size(Some([2, 8].into())), [2, 8].into());
    }
}
