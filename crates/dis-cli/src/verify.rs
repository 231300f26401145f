//! `dis verify`.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Command, FromArgMatches};
use dis_data::crop::Picture;
use image::DynamicImage;

use crate::args::{SampleArgs, VerifyArgs};
use crate::interrupt::INTERRUPTED;
use crate::sample::output::Target;
use crate::sample::record::Record;
use crate::sample::{Like, Outcome, draw};
use crate::say;

/// Draws a picture again, and says whether it has the same bits.
pub fn run(args: &VerifyArgs) -> Result<ExitCode> {
    let path = args.picture.as_path();
    let record = Record::read(path)?;
    let usual =
        SampleArgs::augment_args(Command::new("sample")).try_get_matches_from(["sample"])?;
    let usual = SampleArgs {
        checkpoint: args.checkpoint.clone(),
        vae: args.vae.clone(),
        device: args.device.clone(),
        ..SampleArgs::from_arg_matches(&usual)?
    };
    let like = Like {
        picture: path,
        record: &record,
    };
    let (drawn, instructions) = match draw(&record.arguments(&usual)?, Some(like), Target::Memory)?
    {
        Outcome::Interrupted => return Ok(ExitCode::from(INTERRUPTED)),
        Outcome::Written => bail!("nothing was drawn"),
        Outcome::Picture(picture, instructions) => (picture, instructions),
    };
    let found = read(path)?;
    let at = path.display();
    let sizes = |picture: &Picture| (picture.height, picture.width, picture.channels);
    if found == drawn {
        say!("{at}: the same bits")?;
        return Ok(ExitCode::SUCCESS);
    }
    if sizes(&found) != sizes(&drawn) {
        say!(
            "{at}: another picture: {}x{}, drawn again {}x{}",
            found.width,
            found.height,
            drawn.width,
            drawn.height
        )?;
        return Ok(ExitCode::FAILURE);
    }
    let apart = found.bytes.iter().zip(&drawn.bytes);
    let apart: Vec<u8> = apart
        .map(|(&a, &b)| a.abs_diff(b))
        .filter(|&by| by > 0)
        .collect();
    let most = apart.iter().max().copied().unwrap_or_default();
    let why = match (record.instructions == instructions, record.version.as_str()) {
        (false, _) => format!(
            "; it was drawn on {}, this is {instructions}, and their rounding differs",
            record.instructions
        ),
        (true, env!("CARGO_PKG_VERSION")) => String::new(),
        (true, version) => format!("; it was drawn by version {version}"),
    };
    say!(
        "{at}: {} of {} values differ, by {most} of 255 at most{why}",
        apart.len(),
        found.bytes.len()
    )?;
    Ok(ExitCode::FAILURE)
}

/// The pixels of a PNG as they are.
fn read(path: &std::path::Path) -> Result<Picture> {
    let image = image::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (height, width) = (image.height() as usize, image.width() as usize);
    let (channels, bytes) = match image {
        DynamicImage::ImageLuma8(image) => (1, image.into_raw()),
        other => (3, other.into_rgb8().into_raw()),
    };
    Ok(Picture {
        height,
        width,
        channels,
        bytes,
    })
}
