//! The two files of a day: Markdown for people, JSON for programs.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::section::{Outcome, Table};

/// Lines of a Markdown table.
fn table(text: &mut String, table: &Table) {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    text.push_str(&line(&table.head));
    let rules: Vec<String> = table.head.iter().map(|_| "---".into()).collect();
    text.push_str(&line(&rules));
    for row in &table.rows {
        text.push_str(&line(row));
    }
    text.push('\n');
}

/// The Markdown text.
pub fn markdown(title: &str, warning: Option<&str>, settings: &Value, day: &[Outcome]) -> String {
    let mut text = format!("# {title}\n\nWritten by `cargo xtask gpu-day`.\n\n");
    if let Some(warning) = warning {
        let _ = writeln!(text, "**{warning}**\n");
    }
    if let Value::Object(map) = settings {
        for (key, value) in map {
            let value = match value {
                Value::String(s) => s.clone(),
                other => other.to_string(),
            };
            let _ = writeln!(text, "- {key}: {value}");
        }
        text.push('\n');
    }
    for outcome in day {
        let state = match (&outcome.error, outcome.passed()) {
            (Some(_), _) => "did not finish",
            (None, true) => "passed",
            (None, false) => "FAILED",
        };
        let _ = writeln!(text, "## {}\n", outcome.step);
        let _ = writeln!(text, "{state}, {:.1} s\n", outcome.seconds);
        if let Some(error) = &outcome.error {
            let _ = writeln!(text, "```\n{error}\n```\n");
        }
        let Some(section) = &outcome.section else {
            continue;
        };
        for note in &section.notes {
            let _ = writeln!(text, "{note}\n");
        }
        for failure in section.failures.iter().take(20) {
            let _ = writeln!(text, "- FAILED: {failure}");
        }
        if !section.failures.is_empty() {
            text.push('\n');
        }
        section.tables.iter().for_each(|t| table(&mut text, t));
    }
    text
}

/// Writes both files; where the Markdown is.
pub fn write(
    out: &Path,
    device: &str,
    warning: Option<&str>,
    settings: &Value,
    day: &[Outcome],
) -> Result<PathBuf> {
    std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let slug = slug(device);
    let put = |extension: &str, text: String| -> Result<PathBuf> {
        let path = out.join(format!("{slug}.{extension}"));
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(path)
    };
    let all = json!({ "device": device, "warning": warning, "settings": settings, "steps": day });
    put("json", serde_json::to_string_pretty(&all)? + "\n")?;
    put("md", markdown(device, warning, settings, day))
}

/// A device's name as a file's.
pub fn slug(name: &str) -> String {
    let words: Vec<String> = name
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
        .collect();
    if words.is_empty() {
        "device".into()
    } else {
        words.join("-")
    }
}

#[cfg(test)]
mod tests {
    use super::slug;

    #[test]
    fn names_become_files() {
        assert_eq!(slug("NVIDIA H100 80GB HBM3"), "nvidia-h100-80gb-hbm3");
        assert_eq!(slug("../.."), "device");
    }
}
