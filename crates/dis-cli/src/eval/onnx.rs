//! Feature networks in ONNX files, run by tract.
//!
//! The network has one input of float32 images, (batch, channels, height, width) or with channels
//! last; features, logits and spatial features are outputs or inner values by name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use dis_data::ImageShape;
use dis_data::crop::{Filter, Picture, resize};
use dis_eval::EvalError;
use dis_eval::{FeatureBatch, FeatureNetwork};
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::DimLike;
use tract_onnx::tract_hir::infer::Factoid;

use super::args::EvalArgs;
use super::source;

/// Images at a time, where the network leaves it open.
const BATCH: usize = 8;
/// Largest side that images are resized to.
const LARGEST: usize = 4096;

/// A network of someone else's.
pub struct OnnxFeatures {
    path: PathBuf,
    sha256: String,
    plan: Arc<TypedRunnableModel>,
    input: Input,
    /// What an image's pixels become: value / 255 * scale + shift, for each channel.
    scale: Vec<f32>,
    shift: Vec<f32>,
    /// Which of features, logits and spatial features there are after the features.
    logits: bool,
    spatial: bool,
}

/// What goes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Input {
    batch: usize,
    channels: usize,
    height: usize,
    width: usize,
    channels_last: bool,
}

impl Input {
    fn shape(&self) -> [usize; 4] {
        let Self {
            batch,
            channels,
            height,
            width,
            channels_last,
        } = *self;
        match channels_last {
            true => [batch, height, width, channels],
            false => [batch, channels, height, width],
        }
    }

    /// From the lengths that the file says; what it leaves open is asked for.
    fn of(lengths: &[Option<usize>], size: Option<usize>) -> Result<Self> {
        let &[batch, a, b, c] = lengths else {
            bail!(
                "its input has {} dimensions, not the 4 of images",
                lengths.len()
            );
        };
        let colours = |n: Option<usize>| n.filter(|n| matches!(n, 1 | 3));
        let (channels, height, width, channels_last) = match (colours(a), colours(c)) {
            (Some(channels), _) => (channels, b, c, false),
            (None, Some(channels)) => (channels, a, b, true),
            _ => bail!("its input {lengths:?} has neither 1 nor 3 channels at either end"),
        };
        let side = |known: Option<usize>| match (known, size) {
            (Some(known), Some(asked)) if known != asked => {
                bail!("--onnx-size {asked}: the network takes {known}")
            }
            (known, asked) => known
                .or(asked)
                .filter(|n| (1..=LARGEST).contains(n))
                .context(
                    "the file does not say how large its images are (1 to 4096): use --onnx-size N",
                ),
        };
        Ok(Self {
            batch: batch.filter(|n| *n > 0).unwrap_or(BATCH),
            channels,
            height: side(height)?,
            width: side(width)?,
            channels_last,
        })
    }
}

impl OnnxFeatures {
    /// Reads a file.
    pub fn open(path: &Path, args: &EvalArgs) -> Result<Self> {
        let named = || format!("{}", path.display());
        let failed = |what: &'static str| move |e: TractError| anyhow!("{what}: {e:#}");
        let sha256 = source::hash(path)?;
        let mut model = tract_onnx::onnx()
            .model_for_path(path)
            .map_err(failed("not an ONNX network that can be read"))
            .with_context(named)?;
        let inputs = model.input_outlets().map_or(0, <[OutletId]>::len);
        ensure!(
            inputs == 1,
            "{}: has {inputs} inputs, not one",
            path.display()
        );
        let fact = model
            .input_fact(0)
            .map_err(failed("its input"))
            .with_context(named)?;
        let lengths: Vec<Option<usize>> = fact
            .shape
            .dims()
            .map(|d| d.concretize().and_then(|d| d.to_usize().ok()))
            .collect();
        let input = Input::of(&lengths, args.onnx_size).with_context(named)?;
        let names: Vec<&String> = [&args.onnx_features, &args.onnx_logits, &args.onnx_spatial]
            .into_iter()
            .flatten()
            .collect();
        if args.onnx_features.is_some() {
            model
                .select_outputs_by_name(&names)
                .map_err(failed("its outputs"))
                .with_context(named)?;
        } else {
            ensure!(
                names.is_empty(),
                "--onnx-features: name the output of the features too"
            );
            let first = model
                .output_outlets()
                .map_or(&[][..], |o| &o[..o.len().min(1)])
                .to_vec();
            model
                .select_output_outlets(&first)
                .map_err(failed("its outputs"))
                .with_context(named)?;
        }
        let plan = model
            .with_input_fact(0, f32::fact(input.shape()).into())
            .and_then(|model| model.into_optimized())
            .and_then(|model| model.into_runnable())
            .map_err(failed("cannot be run"))
            .with_context(named)?;
        let (scale, shift) = normalisation(args, input.channels)?;
        Ok(Self {
            path: path.to_path_buf(),
            sha256,
            plan,
            input,
            scale,
            shift,
            logits: args.onnx_logits.is_some(),
            spatial: args.onnx_spatial.is_some(),
        })
    }

    /// A batch as the network takes it; places that are left are zero.
    fn tensor(&self, images: &[f32], shape: ImageShape) -> Vec<f32> {
        let Input {
            channels,
            height,
            width,
            channels_last,
            ..
        } = self.input;
        let plane = height * width;
        let mut out = vec![0.0; self.input.batch * plane * channels];
        let places = out.chunks_exact_mut(plane * channels);
        for (image, out) in images.chunks_exact(shape.len()).zip(places) {
            let picture = resize(&picture(image, shape), height, width, Filter::Bicubic);
            for (p, pixel) in picture.bytes.chunks_exact(shape.channels).enumerate() {
                for c in 0..channels {
                    // Grey is repeated.
                    let value = f32::from(pixel[c.min(shape.channels - 1)]) / 255.0;
                    let at = if channels_last {
                        p * channels + c
                    } else {
                        c * plane + p
                    };
                    out[at] = value.mul_add(self.scale[c], self.shift[c]);
                }
            }
        }
        out
    }

    fn run_part(&self, images: &[f32], shape: ImageShape) -> Result<Vec<Vec<f32>>> {
        let count = images.len() / shape.len();
        let tensor = Tensor::from_shape(&self.input.shape(), &self.tensor(images, shape))
            .map_err(|e| anyhow!("{e:#}"))?;
        let outputs = self
            .plan
            .run(tvec!(tensor.into()))
            .map_err(|e| anyhow!("{e:#}"))?;
        let part = |output: &TValue| -> Result<Vec<f32>> {
            let output = output
                .cast_to::<f32>()
                .map_err(|e| anyhow!("an output holds no numbers: {e:#}"))?;
            let values = output
                .to_plain_array_view::<f32>()
                .map_err(|e| anyhow!("{e:#}"))?;
            ensure!(
                values.shape().first() == Some(&self.input.batch),
                "an output of shape {:?} has no row for each of {} images",
                values.shape(),
                self.input.batch
            );
            let each = values.len() / self.input.batch;
            Ok(values.iter().take(count * each).copied().collect())
        };
        outputs.iter().map(part).collect()
    }
}

/// Bytes of an image, channels interleaved.
fn picture(image: &[f32], shape: ImageShape) -> Picture {
    let plane = shape.height * shape.width;
    let mut bytes = Vec::with_capacity(image.len());
    for p in 0..plane {
        for c in 0..shape.channels {
            let level = (image[c * plane + p] + 1.0) * 127.5;
            bytes.push(level.round().clamp(0.0, 255.0) as u8);
        }
    }
    Picture {
        height: shape.height,
        width: shape.width,
        channels: shape.channels,
        bytes,
    }
}

/// Scale and shift of each channel from `--onnx-range` and `--onnx-normalize`.
fn normalisation(args: &EvalArgs, channels: usize) -> Result<(Vec<f32>, Vec<f32>)> {
    let (low, high) = (args.onnx_range.0 as f32, args.onnx_range.1 as f32);
    let list = &args.onnx_normalize;
    let (means, deviations) = match list.len() {
        0 => (vec![0.0; channels], vec![1.0; channels]),
        n if n == 2 * channels => (list[..channels].to_vec(), list[channels..].to_vec()),
        n => bail!(
            "--onnx-normalize: {n} numbers, but {channels} channels take {} (means, deviations)",
            2 * channels
        ),
    };
    ensure!(
        list.iter().all(|v| v.is_finite()) && !deviations.contains(&0.0),
        "--onnx-normalize: deviations must not be 0"
    );
    let scale = deviations.iter().map(|d| (high - low) / d).collect();
    let shift = means.iter().zip(&deviations).map(|(m, d)| (low - m) / d);
    Ok((scale, shift.collect()))
}

impl FeatureNetwork for OnnxFeatures {
    fn name(&self) -> String {
        "onnx".into()
    }

    fn identity(&self) -> String {
        let [a, b, c, d] = self.input.shape();
        format!("onnx sha256={}, input {a}x{b}x{c}x{d}", self.sha256)
    }

    fn check(&self, shape: ImageShape) -> dis_eval::Result<()> {
        if shape.channels == self.input.channels || shape.channels == 1 {
            return Ok(());
        }
        Err(failed(format!(
            "{}: takes images of {} channels, not {shape}",
            self.path.display(),
            self.input.channels
        )))
    }

    fn run(&self, images: &[f32], shape: ImageShape) -> dis_eval::Result<FeatureBatch> {
        let mut all = [Vec::new(), Vec::new(), Vec::new()];
        for part in images.chunks(self.input.batch * shape.len()) {
            let outputs = self
                .run_part(part, shape)
                .map_err(|e| failed(format!("{}: {e:#}", self.path.display())))?;
            for (all, output) in all.iter_mut().zip(outputs) {
                all.extend(output);
            }
        }
        let [features, second, third] = all;
        let (logits, spatial) = match (self.logits, self.spatial) {
            (true, true) => (Some(second), Some(third)),
            (true, false) => (Some(second), None),
            (false, true) => (None, Some(second)),
            (false, false) => (None, None),
        };
        Ok(FeatureBatch {
            features,
            logits,
            spatial,
        })
    }
}

fn failed(what: String) -> EvalError {
    EvalError::Invalid(what)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_told_by_their_channels() {
        let first = Input::of(&[None, Some(3), Some(299), Some(299)], None).unwrap();
        assert_eq!(first.shape(), [BATCH, 3, 299, 299]);
        let last = Input::of(&[Some(1), None, None, Some(3)], Some(64)).unwrap();
        assert_eq!(last.shape(), [1, 64, 64, 3]);
        for (lengths, size, word) in [
            (vec![None, Some(3), None, None], None, "--onnx-size"),
            (vec![None, Some(3), Some(8), Some(8)], Some(9), "takes 8"),
            (vec![None, Some(7), Some(8), Some(8)], None, "channels"),
            (vec![None, Some(7)], None, "2 dimensions"),
            (vec![None, Some(3), None, None], Some(0), "1 to 4096"),
        ] {
            let e = Input::of(&lengths, size).unwrap_err().to_string();
            assert!(e.contains(word), "{e}");
        }
    }
}
