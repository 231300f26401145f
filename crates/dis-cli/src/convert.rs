//! `dis convert`.

use std::path::Path;

use anyhow::{Result, bail};
use dis_model::Checkpoint;
use dis_model::checkpoint::{Entry, Format, Holds, InferHints, WeightFile, save_torch};
use dis_train::run::Found;

use crate::args::ConvertArgs;
use crate::bundled::{self, BUNDLED, add_hint};
use crate::places::Places;
use crate::places::extension;
use crate::say;

/// Writes a checkpoint in the format that the output's name says.
pub fn run(args: &ConvertArgs) -> Result<()> {
    let format = output_format(&args.output)?;
    Places::default()
        .reads("IN", Some(&args.input))
        .writes("OUT", Some(&args.output))
        .check()?;
    let (checkpoint, average, taken) = read(args, format)?;
    let (table, out) = (checkpoint.model.table(), args.output.as_path());
    match (format, &average) {
        (Format::Safetensors, _) => checkpoint.save(out)?,
        (Format::Torch, None) => checkpoint.save_torch(out)?,
        (Format::Torch, Some(average)) => save_torch(
            out,
            table,
            &[("model", &checkpoint.weights), ("ema", average)],
            Some(&checkpoint.metadata),
        )?,
    }
    say!(
        "{}: {} parameters in {} tensors, {taken} of {}",
        out.display(),
        table.parameters(),
        table.specs().len(),
        args.input.display()
    )
}

/// The format of the output, decided and checked before anything is read.
fn output_format(out: &Path) -> Result<Format> {
    let format = match extension(out).as_str() {
        "safetensors" => Format::Safetensors,
        "pt" | "pth" => Format::Torch,
        _ => bail!(
            "{}: the output's name must end in .safetensors, .pt or .pth",
            out.display()
        ),
    };
    if out.is_dir() {
        bail!("{}: this is a directory", out.display());
    }
    let parent = out.parent().filter(|p| !p.as_os_str().is_empty());
    if let Some(parent) = parent.filter(|p| !p.is_dir()) {
        bail!("{}: there is no such directory", parent.display());
    }
    Ok(format)
}

/// The weights, beside them their average if both go into the output, and what was taken.
fn read(args: &ConvertArgs, format: Format) -> Result<(Checkpoint, Option<Vec<f32>>, String)> {
    let path = args.input.as_path();
    if path == Path::new(BUNDLED) && !path.exists() {
        return Ok((bundled::open(None, false, None)?, None, "weights".into()));
    }
    if let Found::Checkpoint(folder) = bundled::find(path)? {
        if args.entry.is_some() {
            bail!("--entry is for files of several models; of a run take --ema or --raw");
        }
        let found = Found::Checkpoint(folder);
        let load = |raw| found.load(raw);
        if format == Format::Torch && !args.ema && !args.raw {
            let mut checkpoint = load(true)?;
            checkpoint.metadata.holds = Some(Holds::Both);
            return Ok((
                checkpoint,
                Some(load(false)?.weights),
                "model and ema".into(),
            ));
        }
        let taken = if args.raw { "weights" } else { "ema" };
        return Ok((load(args.raw)?, None, taken.into()));
    }
    let entry = match &args.entry {
        Some(name) => Entry::Named(name.clone()),
        None if args.ema => Entry::Ema,
        None if args.raw => Entry::Raw,
        None => Entry::Auto,
    };
    let file = WeightFile::open(path, &entry)?;
    if file.format() == Format::Safetensors && file.models() == 1 && entry != Entry::Auto {
        bail!(
            "{}: this file holds one set of weights; --ema, --raw and --entry are for files of \
             several, and for runs",
            path.display()
        );
    }
    let taken = match file.entry() {
        "" => "weights".to_string(),
        entry => format!("entry {entry}"),
    };
    let hints = InferHints {
        null_label: args.null_label,
        image_size: args.image_size,
        ..InferHints::default()
    };
    let checkpoint = Checkpoint::read(file, &hints).map_err(add_hint)?;
    Ok((checkpoint, None, taken))
}
