//! `cargo xtask licences`: every crate that the workspace is built from may be used under a licence that the
//! project allows, by the SPDX expression of its manifest.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use spdx::{Expression, ParseMode};

/// Licences that ask for no more than a notice.
const ALLOWED: [&str; 11] = [
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// List every crate with its licence, not only a count of each expression.
    #[arg(long)]
    list: bool,
}

/// Whether every crate is allowed.
pub fn run(args: &Args) -> Result<bool> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let command = [
        "metadata",
        "--locked",
        "--all-features",
        "--format-version",
        "1",
    ];
    let output = Command::new(cargo).args(command).output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo metadata: {error}");
    let json: Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let packages = json["packages"]
        .as_array()
        .context("cargo metadata: no packages")?;
    ensure!(!packages.is_empty(), "no packages");

    let (mut counts, mut refused) = (BTreeMap::<String, usize>::new(), 0);
    for package in packages {
        let text = |key: &str| package[key].as_str().unwrap_or_default();
        let (name, version, licence) = (text("name"), text("version"), text("license"));
        if args.list {
            println!("{name} {version}: {licence}");
        }
        *counts.entry(licence.to_string()).or_default() += 1;
        if !allowed(licence) {
            refused += 1;
            println!("{name} {version}: {licence:?} is not allowed");
        }
    }
    for (licence, count) in counts.iter().filter(|_| !args.list) {
        println!("{count:>4}  {licence}");
    }
    println!("{} crates, {refused} not allowed", packages.len());
    Ok(refused == 0)
}

/// Whether an expression can be met with allowed licences alone.
fn allowed(expression: &str) -> bool {
    Expression::parse_mode(expression, ParseMode::LAX).is_ok_and(|expression| {
        expression.evaluate(|wanted| {
            wanted
                .license
                .id()
                .is_some_and(|id| ALLOWED.contains(&id.name))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_met_and_what_is_unknown_is_not() {
        assert!(allowed("MIT OR GPL-3.0-only"));
        assert!(allowed("MIT/Apache-2.0"));
        assert!(allowed("Apache-2.0 WITH LLVM-exception"));
        assert!(!allowed("MIT AND GPL-3.0-only"));
        assert!(!allowed("LicenseRef-own"));
        assert!(!allowed(""));
    }
}
