//! Command-line arguments.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use dis_data::ImageSize;
use dis_diffusion::{SamplerSpec, Spacing};
use dis_train::Budget;

/// Train, sample and inspect DiS models: diffusion with bidirectional state space blocks.
#[derive(Debug, Parser)]
#[command(
    name = "dis",
    version,
    about,
    after_help = "Try `dis sample`: it draws digits from a bundled model into samples.png."
)]
pub struct Cli {
    /// Say nothing but results, warnings and errors.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Log what is done; twice for more. RUST_LOG chooses by part, as RUST_LOG=dis_data=debug.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a model, or continue a run exactly where it stopped.
    Train(Box<TrainArgs>),
    /// Draw images from a model.
    Sample(Box<SampleArgs>),
    /// Say whether a picture of dis sample is drawn with the same bits here.
    Verify(VerifyArgs),
    /// Judge samples: Frechet distance, precision and recall, copies, ..., or bits per dimension.
    Eval(Box<crate::eval::args::EvalArgs>),
    /// Train a small classifier whose features `dis eval` compares by.
    TrainClassifier(crate::eval::args::ClassifierArgs),
    /// Show configuration, parameters, multiply-adds and memory of a model.
    Info(InfoArgs),
    /// Convert a checkpoint between safetensors and PyTorch's .pt.
    Convert(ConvertArgs),
    /// Look at all of a data set: how many images of which classes, and which files are bad.
    Data(DataArgs),
    /// Turn images into latents of an autoencoder, to train on.
    Encode(EncodeArgs),
    /// Train and judge a grid of runs, and report them together.
    Study(StudyArgs),
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Write manual pages, one for each command, into a directory.
    Man {
        /// The directory.
        #[arg(value_name = "DIR")]
        out: PathBuf,
    },
}

/// Where and with how many threads to compute.
#[derive(Args, Clone, Debug)]
pub struct DeviceArgs {
    /// Where to compute.
    #[arg(long, value_enum, default_value_t = DeviceKind::Auto)]
    pub device: DeviceKind,
    /// CPU threads; all cores by default. Results do not depend on it.
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

/// Devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DeviceKind {
    /// The best there is.
    Auto,
    /// The processor.
    Cpu,
    /// An NVIDIA GPU.
    #[cfg_attr(not(feature = "cuda"), value(hide = true))]
    Cuda,
    /// The GPU simulator.
    #[cfg_attr(not(feature = "sim"), value(hide = true))]
    Sim,
}

/// `dis train`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  dis train --data photos/                        (a plan for one hour on this machine)
  dis train --data photos/,size=64 --for 8h
  dis train --data photos/ --for 8h --print-config          (shows the plan, trains nothing)
  dis train --preset digits --out runs/digits
  dis train --config run.toml --data idx:mnist/ --out runs/mnist --steps 20000
  dis train --resume runs/photos
  dis train --resume runs/photos --for 3h          (extends a run: 3 hours in all)
  dis train --resume runs/mnist --steps 100000

Without a preset, file or --steps a plan is made: a few models are timed on this machine, and the recipe of
docs/training.md says what is trained and how, so that it ends in the time of --for. The number of steps
follows the speed of the machine. What is said by options, a preset or a file goes before the plan.

Data: `digits` (embedded), or a folder of pictures (flat, or one folder a class) with size=N or size=WIDTHxHEIGHT,
`idx:DIR` (MNIST files), `fashion:DIR` (Fashion-MNIST), `cifar10:DIR`, `npz:FILE` (arr_0 and arr_1 as evaluators take them),
`latents:DIR` (made by dis encode); options after commas: size, grey, recursive (pictures below
class folders too), flip, unconditional, split=NAME.")]
pub struct TrainArgs {
    /// Start from a built-in configuration: digits or small.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["config", "resume"])]
    pub preset: Option<String>,
    /// Start from a configuration file (TOML).
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    pub config: Option<PathBuf>,
    /// Continue the run in this directory from its newest checkpoint.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["out", "init_from", "batch_size", "lr", "seed"])]
    pub resume: Option<PathBuf>,
    /// What to train on; see below. With --resume, where the data are now: their contents must be those
    /// that the run began with.
    #[arg(long, value_name = "SPEC")]
    pub data: Option<String>,
    /// Begin without the pictures that do not decode, instead of refusing; config.toml lists them.
    #[arg(long)]
    pub skip_bad: bool,
    /// Continue with other data than those of the newest checkpoint; later manifests record it.
    #[arg(long)]
    pub accept_changed_data: bool,
    /// How long the run may take, such as 20m, 1h30m or 8h: a plan is made, and the number of steps follows the
    /// speed of the machine [default: 1h without --steps, --preset and --config]. With --resume, how long
    /// it may have taken in all.
    #[arg(long = "for", value_name = "TIME", conflicts_with = "steps")]
    pub budget: Option<Budget>,
    /// Print the configuration, plan and all, and train nothing.
    #[arg(long, conflicts_with = "resume")]
    pub print_config: bool,
    /// Judge samples during training by the features of this classifier (of dis train-classifier), not by
    /// small pictures.
    #[arg(long, value_name = "FILE")]
    pub classifier: Option<PathBuf>,
    /// Directory of the new run [default: runs/NAME, after the preset, file or data].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Start from the weights of this checkpoint or run. Images may be of another size and classes
    /// others: positions are interpolated, classes go by name, and what is new is drawn.
    #[arg(long, value_name = "FILE")]
    pub init_from: Option<PathBuf>,
    /// Updates in all.
    #[arg(long, value_name = "N")]
    pub steps: Option<u64>,
    /// Steps between checkpoints.
    #[arg(long, value_name = "N")]
    pub checkpoint_every: Option<u64>,
    /// Steps between sample grids, of which there are some before by the clock; 0 makes none.
    #[arg(long, value_name = "N")]
    pub sample_every: Option<u64>,
    /// Images in a forward and backward pass.
    #[arg(long, value_name = "N")]
    pub batch_size: Option<usize>,
    /// Learning rate after the warm-up.
    #[arg(long, value_name = "X")]
    pub lr: Option<f64>,
    /// Seed of everything random.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// At the end write what was trained, as JSON; - is standard output, which then has nothing else.
    #[arg(long, value_name = "FILE", conflicts_with = "print_config")]
    pub json: Option<PathBuf>,
    /// Newest checkpoints to keep; 0 keeps all.
    #[arg(long, value_name = "N")]
    pub keep: Option<usize>,
    /// Run blocks again in the backward: less memory, more time, same results.
    #[arg(long)]
    pub recompute: bool,
    /// What matrix products take: f32; bf16, about 1.5 times as fast as a whole, where the processor has
    /// instructions for it (AVX-512 BF16); tf32 on GPUs. Weights and the optimizer are float32 in any case. Like the
    /// device it is no part of the run: say it again with --resume.
    #[arg(long, value_enum, default_value_t = PrecisionKind::F32)]
    pub precision: PrecisionKind,
    /// Device.
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// `dis study`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  dis study studies/digits.toml --out runs/study
  dis study studies/digits.toml --out runs/study      (again after a kill: goes on)
  dis study studies/digits.toml --list

The file names a base configuration and axes: keys of the run configuration with their values. Each
variant is trained with each seed in a run directory of its own, and judged every few steps by
samples. REPORT.md in the directory has tables, plots and samples; docs/study.md explains the file.")]
pub struct StudyArgs {
    /// The description (TOML).
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Directory of the runs and the report [default: runs/NAME, after the file].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Only write the report, of the runs that are finished.
    #[arg(long)]
    pub report: bool,
    /// Only list the variants.
    #[arg(long, conflicts_with = "report")]
    pub list: bool,
    /// Leave out pictures that do not decode, instead of refusing to begin.
    #[arg(long)]
    pub skip_bad: bool,
    /// Device.
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// `dis sample`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  dis sample
  dis sample --classes 3,5 --num 20 --cfg 3 --seed 7 --out threes-and-fives.png
  dis sample --checkpoint runs/photos --num 100 --out pictures/
  dis sample --checkpoint runs/photos --sampler unipc-2 --steps 10
  dis sample --checkpoint DiS-H-2.pt --published
  dis sample --checkpoint runs/latents --vae sd-vae-ft-mse/
  dis sample --num 50000 --out samples.npz             (again after a kill: continues)
  dis sample --init-image photo.png --strength 0.6     (image to image)
  dis sample --init-image photo.png --mask white-is-new.png
  dis sample --init-image digits-held-out --invert     (to noise and back)
  dis sample --interpolate both --classes 3,8 --frames 12
  dis sample --num 8 --classes 5 --trajectory denoising.apng
  dis sample --like samples.png --out again.png        (by what the picture says)

A seed gives the same images whatever the batch size and the number of threads.")]
pub struct SampleArgs {
    /// A checkpoint (.safetensors, .pt) or a run directory [default: the bundled digits model].
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Option<PathBuf>,
    /// From a run directory or .pt file, use the weights instead of their moving average.
    #[arg(long)]
    pub raw: bool,
    /// Images in all, as many of each class or one more of the first [default: 8 a class, or 16].
    #[arg(long, value_name = "N")]
    pub num: Option<usize>,
    /// Classes by name or number, comma separated [default: all that were trained on]. May be given
    /// several times; a name may hold commas, or stand in double quotes. Where all names are numbers,
    /// a number is a name.
    #[arg(long, value_name = "LIST")]
    pub classes: Vec<String>,
    /// Sampler and guidance.
    #[command(flatten)]
    pub how: SamplerArgs,
    /// Seed.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Images at a time; changes speed and memory, not the images.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub batch_size: usize,
    /// A .png for a grid, a directory for one picture an image, or an .npz for all in one file as
    /// evaluators take it (uint8 arr_0 and classes arr_1). A directory and an .npz continue where the
    /// same command was killed; a directory that holds anything else is refused.
    #[arg(long, value_name = "PATH", default_value = "samples.png")]
    pub out: PathBuf,
    /// Draw a picture of dis sample again, by what it says of how it was drawn; its checkpoint must be the
    /// bundled one or be named. dis verify says whether that gives the same bits.
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "raw", "num", "classes", "seed", "steps", "sampler", "spacing", "published", "eta", "cfg", "cfg_interval",
        "cfg_rescale", "cfg_published", "clip", "clip_quantile", "init_image", "interpolate", "null_label",
        "vae_tile", "precision", "scale", "captions",
    ])]
    pub like: Option<PathBuf>,
    /// Side of a pixel in a grid [default: as much as makes images 48 pixels high].
    #[arg(long, value_name = "N")]
    pub scale: Option<usize>,
    /// Write the names of the classes beside the rows of a grid.
    #[arg(long)]
    pub captions: bool,
    /// Also write what was drawn, and how, as JSON; - is standard output, which then has nothing else.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Draw into the directory --out although something is there: pictures that dis sample drew into it
    /// before are removed, other files stay. Of an .npz what is unfinished is thrown away.
    #[arg(long)]
    pub overwrite: bool,
    /// Also show how the first images come out of the noise: a .png strip, or an .apng animation.
    #[arg(long, value_name = "FILE")]
    pub trajectory: Option<PathBuf>,
    /// Begin with this instead of noise: a picture, or data as for `dis train --data`.
    #[arg(long, value_name = "SPEC")]
    pub init_image: Option<String>,
    /// How much of --init-image is changed, above 0 to 1 [default: 0.6, with --mask 1].
    #[arg(long, value_name = "X", requires = "init_image")]
    pub strength: Option<f64>,
    /// Paint only a part of --init-image anew: a picture that is white there and black elsewhere.
    #[arg(long, value_name = "FILE", requires = "init_image")]
    pub mask: Option<PathBuf>,
    /// Take --init-image to the noise that leads to it and draw it again from there; shows each
    /// image and its reconstruction. --classes says what the images are.
    #[arg(long, requires = "init_image", conflicts_with_all = ["strength", "mask"])]
    pub invert: bool,
    /// Improvements of each step of --invert; 0 is fastest, 5 nearly exact.
    #[arg(long, value_name = "N", default_value_t = 5, requires = "invert")]
    pub refine: usize,
    /// Go from one noise or class to another in each row; classes go between the two of --classes.
    #[arg(long, value_name = "WHAT", value_enum, conflicts_with = "init_image")]
    pub interpolate: Option<Between>,
    /// Images in a row of --interpolate.
    #[arg(long, value_name = "N", default_value_t = 10, requires = "interpolate")]
    pub frames: usize,
    /// For files without metadata: whether the last row of the label table is the null label.
    #[arg(long, value_name = "BOOL")]
    pub null_label: Option<bool>,
    /// For models of latents: the autoencoder that makes pictures of them, a diffusers folder or a
    /// .safetensors file.
    #[arg(long, value_name = "DIR")]
    pub vae: Option<PathBuf>,
    /// Decode in overlapping tiles of N latents a side, to save memory; 0 decodes whole [default: 64
    /// for more than 64 latents a side, else 0].
    #[arg(long, value_name = "N", requires = "vae")]
    pub vae_tile: Option<usize>,
    /// What matrix products take: f32; bf16, about 1.5 times as fast as a whole, where the processor
    /// has instructions for it (AVX-512 BF16; docs/performance.md says what it does to images), on GPUs with half of the
    /// bytes of weights; tf32 on GPUs.
    #[arg(long, value_enum, default_value_t = PrecisionKind::F32)]
    pub precision: PrecisionKind,
    /// Device.
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// `dis verify`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  dis verify samples.png
  dis verify pictures/000003-class0.png --checkpoint runs/photos

The picture is drawn again by what it says of how it was drawn, and compared pixel by pixel. Instruction sets
(AVX-512, AVX2, ...) and devices round differently, so the same bits are to be expected where these are the
same. The exit code is 0 for the same bits, and 1 otherwise.")]
pub struct VerifyArgs {
    /// A PNG file that dis sample drew: a grid or a single picture.
    #[arg(value_name = "FILE")]
    pub picture: PathBuf,
    /// The checkpoint that it was drawn with, or its run directory [default: the bundled digits model].
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Option<PathBuf>,
    /// For models of latents: the autoencoder that makes pictures of them.
    #[arg(long, value_name = "DIR")]
    pub vae: Option<PathBuf>,
    /// Device.
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// How images are drawn from a model.
#[derive(Args, Clone, Debug)]
pub struct SamplerArgs {
    /// Sampler steps [default: 20; where --sampler is given 50].
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
    /// As the paper's code samples: ancestral, 250 steps, guidance of the first three channels.
    #[arg(long, conflicts_with_all = ["sampler", "spacing", "cfg_published"])]
    pub published: bool,
    /// ddim, ancestral, euler, euler-a, heun, dpmpp-1 to dpmpp-3m, dpmpp-2m-sde, unipc-1 to unipc-3,
    /// ...; docs/samplers.md compares them [default: dpmpp-2m, with --invert ddim].
    #[arg(long, value_name = "NAME")]
    pub sampler: Option<SamplerSpec>,
    /// How steps are spread over time: default, leading, linspace, trailing, karras, log-snr [default: karras;
    /// where --sampler is given default].
    #[arg(long, value_name = "NAME")]
    pub spacing: Option<Spacing>,
    /// Noise added by --sampler ddim, 0 to 1.
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    pub eta: f64,
    /// Guidance scale; 1 is none [default: 1.5 for models with a null label].
    #[arg(long, visible_alias = "cfg-scale", value_name = "X")]
    pub cfg: Option<f64>,
    /// Guide only while the original timestep is within LOW,HIGH.
    #[arg(long, value_name = "LOW,HIGH", value_parser = interval)]
    pub cfg_interval: Option<(f64, f64)>,
    /// Rescale the guided prediction towards the conditional one's spread, 0 to 1; 0 is off.
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    pub cfg_rescale: f64,
    /// Guide the first three channels only, as the published code does.
    #[arg(long)]
    pub cfg_published: bool,
    /// Limit the estimate of the image to the value range in every step.
    #[arg(long)]
    pub clip: bool,
    /// Limit it to this quantile of its own magnitudes instead (dynamic thresholding), such as 0.995.
    #[arg(long, value_name = "Q", conflicts_with = "clip")]
    pub clip_quantile: Option<f64>,
}

/// What matrix products take; sums are float32 in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PrecisionKind {
    /// float32.
    #[default]
    F32,
    /// TensorFloat-32, on a GPU with cuBLAS.
    Tf32,
    /// bfloat16, on every device.
    Bf16,
}

/// What `--interpolate` goes between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Between {
    /// Two noises.
    Noise,
    /// Two classes.
    Classes,
    /// Two noises and two classes at once.
    Both,
}

/// `dis data`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  dis data photos/
  dis data photos/,size=64 --json
  dis data idx:mnist/,split=test
  dis data latents:latents/          (compares the hashes of all shards)

Pictures of a folder are decoded once, on all cores; what is known of them is kept in the folder, in
.dis-index.json (or in the user's cache, where the folder cannot be written), so that only files that
are new or have changed are read the next time. dis train, dis study, dis encode, dis eval and dis
train-classifier look too before they begin.")]
pub struct DataArgs {
    /// The data, as for `dis train --data`; a folder needs no size.
    #[arg(value_name = "SPEC")]
    pub data: String,
    /// Succeed even if files are bad.
    #[arg(long)]
    pub skip_bad: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// CPU threads; all cores by default.
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

/// `dis encode`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  dis encode photos/ --size 256 --vae sd-vae-ft-mse/ --out latents/
  dis train --data latents:latents/ --for 8h --out runs/latents
  dis sample --checkpoint runs/latents --vae sd-vae-ft-mse/

Run it again after an interruption: shards that are whole are kept.")]
pub struct EncodeArgs {
    /// The images, as for `dis train --data`.
    #[arg(value_name = "DATA")]
    pub data: String,
    /// The autoencoder: a diffusers folder (config.json and diffusion_pytorch_model.safetensors),
    /// or a .safetensors file.
    #[arg(long, value_name = "DIR")]
    pub vae: PathBuf,
    /// Directory to write.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Size that pictures of a folder are cropped to: N or WIDTHxHEIGHT.
    #[arg(long, value_name = "SIZE")]
    pub size: Option<ImageSize>,
    /// Images at a time; changes speed and memory, not the latents.
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub batch_size: usize,
    /// Images in a file.
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub shard_size: usize,
    /// Encode each image mirrored too, so that training can flip.
    #[arg(long)]
    pub flip: bool,
    /// Leave out pictures that do not decode, instead of refusing to begin; latents.json lists them.
    #[arg(long)]
    pub skip_bad: bool,
    /// Make the latents in --out anew where they are of other data.
    #[arg(long)]
    pub accept_changed_data: bool,
    /// Device.
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// `dis info`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  dis info
  dis info --checkpoint runs/photos
  dis info --model DiS-H/2 --image-size 256 --latent --num-classes 1000")]
pub struct InfoArgs {
    /// A checkpoint (.safetensors, .pt) or a run directory [default: the bundled digits model].
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    pub checkpoint: Option<PathBuf>,
    /// A published entry: DiS-{S,B,M,L,H}/{2,4,8}.
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Side of the images, or WIDTHxHEIGHT.
    #[arg(long, value_name = "SIZE", default_value = "32", requires = "model")]
    pub image_size: ImageSize,
    /// Channels of the images.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 3,
        requires = "model",
        conflicts_with = "latent"
    )]
    pub channels: usize,
    /// The model works on latents: 4 channels, 1/8 of the image's side.
    #[arg(long, requires = "model")]
    pub latent: bool,
    /// Classes; none by default.
    #[arg(long, value_name = "N", requires = "model")]
    pub num_classes: Option<usize>,
    /// Batch size that memory is shown for.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub batch_size: usize,
    /// For files without metadata: whether the last row of the label table is the null label.
    #[arg(long, value_name = "BOOL")]
    pub null_label: Option<bool>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `dis convert`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  dis convert DiS-H-2.pt DiS-H-2.safetensors
  dis convert checkpoint.pt raw.safetensors --raw
  dis convert runs/photos photos.pt

Of a .pt file nothing is ever run: only tensors, containers and plain settings are read, and
whatever else it asks for is refused by name.")]
pub struct ConvertArgs {
    /// A checkpoint (.safetensors, .pt) or a run directory.
    #[arg(value_name = "IN")]
    pub input: PathBuf,
    /// What to write: a file ending in .safetensors, .pt or .pth.
    #[arg(value_name = "OUT")]
    pub output: PathBuf,
    /// Take the moving average (default where there is one).
    #[arg(long)]
    pub ema: bool,
    /// Take the weights as they were trained.
    #[arg(long, conflicts_with = "ema")]
    pub raw: bool,
    /// Take this entry of a .pt file; `/` goes into nested ones.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["ema", "raw"])]
    pub entry: Option<String>,
    /// For files without metadata: whether the last row of the label table is the null label.
    #[arg(long, value_name = "BOOL")]
    pub null_label: Option<bool>,
    /// For files without metadata: the images' WIDTHxHEIGHT, where they are not square.
    #[arg(long, value_name = "SIZE")]
    pub image_size: Option<ImageSize>,
}

/// Two numbers with a comma between them.
pub fn interval(text: &str) -> Result<(f64, f64), String> {
    let parsed = text
        .split_once(',')
        .and_then(|(low, high)| Some((low.trim().parse().ok()?, high.trim().parse().ok()?)));
    match parsed {
        Some((low, high)) if low <= high => Ok((low, high)),
        _ => Err("expected two numbers such as 100,600, the lower one first".into()),
    }
}
