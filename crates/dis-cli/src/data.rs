//! `dis data`.

use std::ops::ControlFlow;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use dis_data::{DataSpec, Survey, survey};
use dis_tensor::Cpu;
use serde_json::{Value, json};

use crate::args::DataArgs;
use crate::{progress, say, warning};

/// Looks at all of a data set and says what is there; fails if files are bad.
pub fn run(args: &DataArgs) -> Result<ExitCode> {
    ensure!(args.threads != Some(0), "--threads must be at least 1");
    let spec: DataSpec = args.data.parse()?;
    let cpu = Cpu::with_threads(args.threads.unwrap_or(0))
        .context("--threads: cannot start the threads")?;
    let mut bar = progress::Checking::default();
    let found = cpu.install(|| {
        survey(&spec, &mut |done, all| {
            bar.at(done, all);
            ControlFlow::Continue(())
        })
    });
    bar.finish();
    let found = found?;
    match args.json {
        true => say!("{:#}", as_json(&args.data, &found))?,
        false => say!("{}", as_text(&found))?,
    }
    if let Some(why) = &found.checked.no_index {
        warning!("{why}: without an index all files are read again the next time");
    }
    let good = found.checked.bad.is_empty() || args.skip_bad;
    Ok(ExitCode::from(u8::from(!good)))
}

fn as_text(found: &Survey) -> String {
    let mut lines = vec![found.description.clone()];
    let width = found.classes.iter().map(|(name, _)| name.chars().count());
    let width = width.max().unwrap_or(0);
    for (name, images) in &found.classes {
        let gap = " ".repeat(width - name.chars().count());
        lines.push(format!("  {name}{gap}  {images:>8}"));
    }
    let checked = &found.checked;
    if let Some(sizes) = &checked.sizes {
        let size = |(width, height)| format!("{width}x{height}");
        lines.push(format!(
            "sizes: {} to {} pixels, the shortest side has {}",
            size(sizes.smallest),
            size(sizes.largest),
            sizes.shortest_side
        ));
    }
    lines.push(format!("identity: {}", found.identity));
    if let Some(index) = &checked.index {
        let read = match checked.read {
            0 => "no file had to be read".to_owned(),
            n => format!("{n} files were read"),
        };
        lines.push(format!("index: {} ({read})", index.display()));
    }
    if !checked.bad.is_empty() {
        lines.push(format!("bad files: {}", checked.bad.len()));
        lines.extend(checked.bad.iter().map(|bad| format!("  {bad}")));
    }
    lines.join("\n")
}

fn as_json(spec: &str, found: &Survey) -> Value {
    let checked = &found.checked;
    let classes = found.classes.iter();
    let bad = checked.bad.iter();
    let size = |(width, height): (u32, u32)| json!([width, height]);
    json!({
        "data": spec,
        "identity": found.identity,
        "images": found.images,
        "classes": classes
            .map(|(name, images)| json!({ "name": name, "images": images }))
            .collect::<Vec<_>>(),
        "bad": bad
            .map(|bad| json!({ "file": bad.file, "reason": bad.reason }))
            .collect::<Vec<_>>(),
        "sizes": checked.sizes.map(|sizes| json!({
            "smallest": size(sizes.smallest),
            "largest": size(sizes.largest),
            "shortest_side": sizes.shortest_side,
        })),
        "left_out": {
            "other_files": found.others,
            "runs": found.outputs.runs,
            "latents": found.outputs.latents,
            "drawn": found.outputs.drawn,
        },
        "files_read": checked.read,
        "index": checked.index.as_ref().map(|path| path.display().to_string()),
    })
}
