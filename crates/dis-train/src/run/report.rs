//! `report.html`: a run to look at, in one file that needs no other.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use dis_eval::plot::{Plot, escaped};
use dis_files::write_atomic;
use serde_json::Value;

use super::dir::RunDir;
use super::metrics::read_metrics;
use crate::budget::in_words;
use crate::config::RunConfig;
use crate::error::Result;

/// Points of a curve.
const POINTS: usize = 400;
/// Grids that are shown: the first, the last, and some between.
const GRIDS: usize = 12;
/// Bytes of a grid's file that is shown.
const LARGEST: u64 = 8 << 20;

const STYLE: &str = "body{font-family:sans-serif;margin:2em auto;max-width:75em;padding:0 1em;color:#222}\
    code,pre{background:#f3f3f3;padding:.1em .3em}pre{padding:1em;overflow:auto}\
    .plots{display:flex;flex-wrap:wrap;gap:1em}.plots svg{max-width:100%;height:auto}\
    img{image-rendering:pixelated;max-width:100%}";

/// What a report says beside the files of its run.
pub(super) struct Facts {
    /// Steps that are done.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// What is trained on.
    pub data: String,
    /// Parameters of the model.
    pub parameters: usize,
}

/// Writes the report of a run, whole or not at all.
///
/// # Errors
/// Metrics that cannot be read, a file that cannot be written.
pub(super) fn write_report(dir: &RunDir, config: &RunConfig, facts: &Facts) -> Result<()> {
    let lines = read_metrics(&dir.metrics_path())?;
    let html = page(dir.path(), &lines, &config.to_toml()?, facts);
    Ok(write_atomic(&dir.report_path(), html.as_bytes())?)
}

fn page(run: &Path, lines: &[Value], config: &str, facts: &Facts) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut out, run, lines, config, facts);
    out
}

fn write(
    out: &mut String,
    run: &Path,
    lines: &[Value],
    config: &str,
    facts: &Facts,
) -> std::fmt::Result {
    let place = escaped(&run.display().to_string());
    writeln!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{place}</title>\n\
         <style>{STYLE}</style></head><body>\n<h1>{place}</h1>"
    )?;
    let seconds = lines.iter().rev().find_map(|line| line["seconds"].as_f64());
    let after = seconds.map_or(String::new(), |seconds| {
        format!(", after {}", in_words(seconds))
    });
    writeln!(
        out,
        "<p>Step {} of {}{after}. {}; {} parameters.</p>",
        facts.step,
        facts.steps,
        escaped(&facts.data),
        facts.parameters
    )?;
    go_on(out, run, facts)?;
    let all = grids(run, lines);
    let grids = shown(&all);
    if let Some(newest) = grids.last() {
        writeln!(out, "<h2>Samples</h2>")?;
        grid(out, newest)?;
    }
    writeln!(out, "<h2>Curves</h2>\n<div class=\"plots\">")?;
    for plot in plots(lines) {
        out.push_str(&plot);
    }
    writeln!(out, "</div>")?;
    if grids.len() > 1 {
        writeln!(
            out,
            "<h2>Earlier samples</h2>\n<p>Always from the same noise.</p>"
        )?;
        for earlier in grids.iter().rev().skip(1) {
            grid(out, earlier)?;
        }
    }
    let config = escaped_lines(config);
    writeln!(
        out,
        "<h2>Configuration</h2>\n<pre>{config}</pre>\n</body></html>"
    )
}

/// Commands for what comes next.
fn go_on(out: &mut String, run: &Path, facts: &Facts) -> std::fmt::Result {
    let run = escaped(&quoted(run));
    writeln!(out, "<h2>How to go on</h2>\n<ul>")?;
    let mut item =
        |what: &str, command: &str| writeln!(out, "<li>{what}: <code>{command}</code></li>");
    if facts.step < facts.steps {
        item(
            "continue it where it was stopped",
            &format!("dis train --resume {run}"),
        )?;
    }
    item("draw from it", &format!("dis sample --checkpoint {run}"))?;
    item(
        "give it more time, 8 hours in all",
        &format!("dis train --resume {run} --for 8h"),
    )?;
    item(
        "see what the model is",
        &format!("dis info --checkpoint {run}"),
    )?;
    writeln!(out, "</ul>")
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+@%,:".contains(c);
    match text.chars().all(plain) && !text.is_empty() {
        true => text,
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

/// A grid that is there: its step, what was measured with it, and its bytes.
struct Grid {
    step: u64,
    said: String,
    png: Vec<u8>,
}

fn grids(run: &Path, lines: &[Value]) -> Vec<Grid> {
    let looks = lines.iter().filter_map(|line| {
        let path = run.join(line["grid"].as_str()?);
        let small = fs::metadata(&path).is_ok_and(|found| found.len() <= LARGEST);
        let png = small.then(|| fs::read(&path).ok()).flatten()?;
        let mut said = match line["seconds"].as_f64() {
            Some(seconds) => format!(", after {}", in_words(seconds)),
            None => String::new(),
        };
        for (key, name) in [
            ("validation_loss", "validation loss"),
            ("frechet", "Frechet distance"),
        ] {
            if let Some(value) = line[key].as_f64() {
                let _ = write!(said, ", {name} {value:.4}");
            }
        }
        Some(Grid {
            step: line["step"].as_u64()?,
            said,
            png,
        })
    });
    looks.collect()
}

/// Some of many: the first, the last, and more of the later than of the earlier ones.
fn shown(grids: &[Grid]) -> Vec<&Grid> {
    if grids.len() <= GRIDS {
        return grids.iter().collect();
    }
    let last = grids.len() - 1;
    let at = |i: usize| &grids[i * last / (GRIDS - 1)];
    (0..GRIDS).map(at).collect()
}

fn grid(out: &mut String, grid: &Grid) -> std::fmt::Result {
    writeln!(out, "<h3>Step {}{}</h3>", grid.step, grid.said)?;
    let data = base64(&grid.png);
    writeln!(
        out,
        "<img alt=\"samples at step {}\" src=\"data:image/png;base64,{data}\">",
        grid.step
    )
}

fn plots(lines: &[Value]) -> Vec<String> {
    let curve = |key: &str| -> Vec<(f64, f64)> {
        let points = lines
            .iter()
            .filter_map(|line| Some((line["step"].as_u64()? as f64, line[key].as_f64()?)));
        thinned(&points.collect::<Vec<_>>())
    };
    let (loss, validation) = (curve("mean_loss"), curve("validation_loss"));
    let mut plot = Plot::new("Loss", "step", "loss").line("training", &loss);
    if !validation.is_empty() {
        plot = plot.dotted_line("held out", &validation);
    }
    let mut plots = vec![plot.log_y().to_svg()];
    for (key, title, dotted) in [
        ("frechet", "Frechet distance of few samples", true),
        ("images_per_second", "Images per second", false),
        ("lr", "Learning rate", false),
    ] {
        let points = curve(key);
        if points.is_empty() {
            continue;
        }
        let plot = Plot::new(title, "step", title);
        let plot = match dotted {
            true => plot.dotted_line("", &points).log_y(),
            false => plot.line("", &points),
        };
        plots.push(plot.to_svg());
    }
    plots
}

/// Means of neighbours, so that there are not too many.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let together = points.len().div_ceil(POINTS).max(1);
    let mean = |part: &[(f64, f64)]| {
        let n = part.len() as f64;
        let sum = part
            .iter()
            .fold((0.0, 0.0), |sum, p| (sum.0 + p.0, sum.1 + p.1));
        (sum.0 / n, sum.1 / n)
    };
    points.chunks(together).map(mean).collect()
}

/// Text of several lines inside an element.
fn escaped_lines(text: &str) -> String {
    text.lines().map(escaped).collect::<Vec<_>>().join("\n")
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |i: usize| u32::from(three.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            match i <= three.len() {
                true => out.push(DIGITS[(bits >> (18 - 6 * i) & 63) as usize].into()),
                false => out.push('='),
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bytes_as_text() {
        let words = ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(|t| base64(t.as_bytes()));
        let wanted = [
            "", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy",
        ];
        assert_eq!(words, wanted);
        assert_eq!(base64(&[0xff, 0xff, 0xfe]), "///+");
    }

    #[test]
    fn a_report_is_one_file_and_nothing_in_it_is_markup_by_accident() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("a <b>");
        fs::create_dir_all(run.join("samples")).unwrap();
        fs::write(run.join("samples/x.png"), b"png").unwrap();
        let lines: Vec<Value> = (1..2000)
            .map(|step| json!({"step": step, "mean_loss": 1.0 / f64::from(step), "lr": 1e-3}))
            .chain([
                json!({"step": 2000, "seconds": 90.0, "grid": "samples/x.png",
                       "validation_loss": 0.25, "frechet": 1.5}),
                json!({"step": 3000, "grid": "samples/gone.png"}),
            ])
            .collect();
        let facts = Facts {
            step: 2000,
            steps: 4000,
            data: "a data set".into(),
            parameters: 5,
        };
        let html = page(&run, &lines, "[model]\nzoo = \"<x>\"\n", &facts);
        for part in [
            "a &lt;b&gt;",
            "base64,cG5n",
            "validation loss 0.2500",
            "after 1 min 30 s",
            "[model]\nzoo = &quot;&lt;x&gt;&quot;",
            "dis train --resume '",
            "--for 8h",
        ] {
            assert!(html.contains(part), "{part}");
        }
        // Nothing is taken from elsewhere.
        assert!(!html.contains("<script") && !html.contains("gone.png"));
        assert_eq!(
            html.matches("http").count(),
            html.matches("xmlns=\"http").count()
        );
        assert!(html.matches(',').count() < 4000);
    }
}
