//! The command line as clap takes it: what [`args`](crate::args) declares, with headings in the help and
//! negative values.

use clap::CommandFactory;

use crate::args::Cli;

/// Headings of options in the help, and the options below them.
type Headings = &'static [(&'static str, &'static [&'static str])];

/// Of every command.
const COMMON: Headings = &[
    ("Device and speed", &["device", "threads", "precision"]),
    ("Messages", &["quiet", "verbose"]),
];

/// Of those that draw.
const DRAWING: Headings = &[
    (
        "Which images",
        &["num", "classes", "seed", "interpolate", "frames", "like"],
    ),
    (
        "Sampler and guidance",
        &[
            "steps",
            "published",
            "sampler",
            "spacing",
            "eta",
            "cfg",
            "cfg_interval",
            "cfg_rescale",
            "cfg_published",
            "clip",
            "clip_quantile",
        ],
    ),
    (
        "Starting from an image",
        &["init_image", "strength", "mask", "invert", "refine"],
    ),
    (
        "Model",
        &["checkpoint", "raw", "null_label", "vae", "vae_tile"],
    ),
    (
        "Output",
        &[
            "out",
            "overwrite",
            "trajectory",
            "scale",
            "captions",
            "json",
        ],
    ),
    ("Device and speed", &["batch_size"]),
];

/// Of `dis train`.
const TRAINING: Headings = &[
    (
        "What to train",
        &["preset", "config", "resume", "init_from", "print_config"],
    ),
    ("Data", &["data", "skip_bad", "accept_changed_data"]),
    ("How long", &["budget", "steps"]),
    (
        "Files of the run",
        &[
            "out",
            "checkpoint_every",
            "sample_every",
            "keep",
            "classifier",
            "json",
        ],
    ),
    ("How", &["batch_size", "lr", "seed", "recompute"]),
];

/// The command as it is parsed and documented.
pub fn command() -> clap::Command {
    let headed = |own: Headings| {
        move |arg: clap::Arg| {
            let id = arg.get_id().as_str();
            let heading = own.iter().chain(COMMON).find(|(_, ids)| ids.contains(&id));
            match heading {
                Some((heading, _)) if !arg.is_positional() => arg.help_heading(*heading),
                _ => arg,
            }
        }
    };
    let command = with_negative_values(Cli::command()).mut_args(headed(&[]));
    command.mut_subcommands(|sub| match sub.get_name() {
        "sample" | "verify" => sub.mut_args(headed(DRAWING)),
        "train" => sub.mut_args(headed(TRAINING)),
        _ => sub.mut_args(headed(&[])),
    })
}

/// Names of values that may begin with a minus.
const SIGNED: [&str; 7] = ["N", "X", "K", "Q", "LIST", "LOW,HIGH", "SIZE"];

/// Options with numbers take negative ones: those that make sense, as in `--onnx-range -1,1`, and those
/// that are then refused by the name of the option.
fn with_negative_values(command: clap::Command) -> clap::Command {
    let signed = |arg: clap::Arg| {
        let names = arg.get_value_names().unwrap_or_default();
        let takes = names.iter().any(|name| SIGNED.contains(&name.as_str()));
        match takes && arg.get_action().takes_values() && !arg.is_positional() {
            true => arg.allow_hyphen_values(true),
            false => arg,
        }
    };
    command
        .mut_args(signed)
        .mut_subcommands(|sub| sub.mut_args(signed))
}
