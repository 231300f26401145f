//! Arguments of `dis eval` and `dis train-classifier`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use dis_eval::Metric;

use crate::args::{DeviceArgs, PrecisionKind, SamplerArgs};

/// What images are compared by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeatureSpec {
    /// Pixels in [0, 1].
    Pixels,
    /// A network that `dis train-classifier` made.
    Classifier(PathBuf),
    /// Any network in a file.
    Onnx(PathBuf),
}

impl FromStr for FeatureSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = |rest: &str| match rest {
            "" => Err(format!("{text} names no file")),
            rest => Ok(PathBuf::from(rest)),
        };
        match text.split_once(':') {
            None if text == "pixels" => Ok(Self::Pixels),
            Some(("classifier", rest)) => Ok(Self::Classifier(path(rest)?)),
            Some(("onnx", rest)) => Ok(Self::Onnx(path(rest)?)),
            _ => Err("features are pixels, classifier:FILE or onnx:FILE".into()),
        }
    }
}

/// `dis eval`.
#[derive(Args, Debug)]
#[command(after_help = "SAMPLES and --reference may each be
  a checkpoint or a run directory   images are drawn, with the options of dis sample; `bundled` is
                                    the digits model in the program
  a data SPEC as for dis train      digits, digits-held-out, idx:DIR,split=test, cifar10:DIR, a
                                    folder of pictures (size=N, or that of the other side), npz:FILE
  an .npz of images                 as dis sample --out F.npz and other tools write them
  an .npz of statistics             mu and sigma, as other evaluators save them; then only the Frechet
                                    distance can be had

Metrics (docs/evaluation.md has sources and formulas)
  fid     Frechet distance of the features    sfid    of spatial features
  is      Inception score                     kid     kernel distance
  pr      precision and recall                dc      density and coverage
  labels  share classified as asked           copies  share of copies of reference images

Examples:
  dis eval bundled --reference digits
  dis train-classifier --data idx:fashion/ --out fashion-features.safetensors
  dis eval runs/fashion --num 10000 --reference idx:fashion/,split=test \\
      --features classifier:fashion-features.safetensors --json fashion.json
  dis eval samples.npz --reference photos/ --metrics fid,kid,copies
  dis eval cifar10:cifar/ --features onnx:inception.onnx --save-statistics cifar-inception.npz
  dis eval samples.npz --features onnx:inception.onnx --reference cifar-inception.npz
  dis eval bundled --bpd --reference digits-held-out --plot bits.svg

The same command gives the same figures and the same JSON, byte for byte, with any number of
threads. Compare figures only if features, number of images and reference are the same.")]
pub struct EvalArgs {
    /// What is judged.
    #[arg(value_name = "SAMPLES", default_value = "bundled")]
    pub samples: String,
    /// What it is compared with.
    #[arg(long, value_name = "REF", required_unless_present = "save_statistics")]
    pub reference: Option<String>,
    /// What images are compared by: pixels, classifier:FILE or onnx:FILE.
    #[arg(long, value_name = "WHAT", default_value = "pixels")]
    pub features: FeatureSpec,
    /// Which metrics, comma separated [default: all that can be had].
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub metrics: Vec<Metric>,
    /// Images of SAMPLES: to draw from a model [default: 1000], or to take, by chance, of those that
    /// are there [default: all].
    #[arg(long, value_name = "N")]
    pub num: Option<usize>,
    /// Images to take, by chance, of the reference [default: all; of a model: as many as samples].
    #[arg(long, value_name = "N")]
    pub num_reference: Option<usize>,
    /// Write everything here too, with all settings and hashes; - is standard output, which then has nothing
    /// else.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write mean and covariance of the features of SAMPLES, to be a reference later.
    #[arg(long, value_name = "FILE", conflicts_with = "bpd")]
    pub save_statistics: Option<PathBuf>,
    /// Sets drawn for the intervals, which hold 95 % of them; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub bootstrap: usize,
    /// Seed of all that is drawn: images, subsets, intervals.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Images at a time; changes speed and memory only.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub batch_size: usize,
    /// Splits of the Inception score.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub splits: usize,
    /// Subsets of the kernel distance.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub kid_subsets: usize,
    /// Images in a subset.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub kid_size: usize,
    /// Neighbours that make the balls of precision and recall.
    #[arg(long, value_name = "K", default_value_t = 3)]
    pub pr_k: usize,
    /// Neighbours that make the balls of density and coverage.
    #[arg(long, value_name = "K", default_value_t = 5)]
    pub dc_k: usize,
    /// Bits per dimension of the reference images under the model, instead of metrics.
    #[arg(long, requires = "reference", conflicts_with_all = ["metrics", "save_statistics"])]
    pub bpd: bool,
    /// Steps of the process that is measured; all by default, fewer are faster and a looser bound.
    #[arg(long, value_name = "N", requires = "bpd")]
    pub bpd_steps: Option<usize>,
    /// With --bpd: plot the parts over time (SVG).
    #[arg(long, value_name = "FILE", requires = "bpd")]
    pub plot: Option<PathBuf>,
    /// ONNX: side that images are resized to [default: that of the network's input].
    #[arg(long, value_name = "N")]
    pub onnx_size: Option<usize>,
    /// ONNX: what pixels of 0 and 255 become, LOW,HIGH.
    #[arg(long, value_name = "LOW,HIGH", default_value = "0,255", value_parser = crate::args::interval)]
    pub onnx_range: (f64, f64),
    /// ONNX: mean and deviation of each channel, taken off and divided by after that:
    /// M,M,M,S,S,S.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub onnx_normalize: Vec<f32>,
    /// ONNX: output that holds the features [default: the first].
    #[arg(long, value_name = "NAME")]
    pub onnx_features: Option<String>,
    /// ONNX: output that holds logits of classes.
    #[arg(long, value_name = "NAME")]
    pub onnx_logits: Option<String>,
    /// ONNX: output that holds spatial features.
    #[arg(long, value_name = "NAME")]
    pub onnx_spatial: Option<String>,
    /// Leave out pictures that do not decode, instead of refusing to begin.
    #[arg(long)]
    pub skip_bad: bool,
    /// From a run directory or .pt file, use the weights instead of their moving average.
    #[arg(long)]
    pub raw: bool,
    /// For files without metadata: whether the last row of the label table is the null label.
    #[arg(long, value_name = "BOOL")]
    pub null_label: Option<bool>,
    /// For models of latents: the autoencoder that makes pictures of them.
    #[arg(long, value_name = "DIR")]
    pub vae: Option<PathBuf>,
    /// How images are drawn from a model.
    #[command(flatten)]
    pub how: SamplerArgs,
    /// What matrix products of the model take.
    #[arg(long, value_enum, default_value_t = PrecisionKind::F32)]
    pub precision: PrecisionKind,
    /// Device.
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// `dis train-classifier`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  dis train-classifier --data digits-train --out digits-features.safetensors
  dis train-classifier --data idx:fashion/ --out fashion-features.safetensors
  dis train-classifier --data photos/,size=32,flip --out photos-features.safetensors

It is tested on the other part of the digits, on split=test of IDX and CIFAR-10 files, on --test, or on
a tenth of the images that is then not trained on. The same command writes the same file, byte for byte,
with any number of threads.")]
pub struct ClassifierArgs {
    /// What to train on, as for dis train; it must have classes.
    #[arg(long, value_name = "SPEC")]
    pub data: String,
    /// What to test on.
    #[arg(long, value_name = "SPEC")]
    pub test: Option<String>,
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Updates.
    #[arg(long, value_name = "N", default_value_t = 1500)]
    pub steps: u64,
    /// Images in an update.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub batch_size: usize,
    /// Learning rate after the warm-up.
    #[arg(long, value_name = "X", default_value_t = 3e-3)]
    pub lr: f64,
    /// Seed of weights and order.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Leave out pictures that do not decode, instead of refusing to begin.
    #[arg(long)]
    pub skip_bad: bool,
    /// Device; the processor serves.
    #[command(flatten)]
    pub device: DeviceArgs,
}
