//! `cargo xtask front-pages`, `examples` and `packages`: what somebody meets first who depends on one crate of the
//! workspace must compile and run.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Arguments of these tasks.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only these crates.
    crates: Vec<String>,
}

/// A crate that others may depend on: one with a library that may be published.
struct Library {
    name: String,
    dir: PathBuf,
    /// The library's `lib.rs`.
    source: PathBuf,
    /// Features that its documentation is built with, hence those of its front page.
    features: Vec<String>,
    /// Names of its examples, with the features that each needs.
    examples: Vec<(String, Vec<String>)>,
}

/// The workspace: its folder, that of its outputs, and the libraries that were asked for.
struct Workspace {
    root: PathBuf,
    target: PathBuf,
    libraries: Vec<Library>,
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|x| x.as_str().map(String::from)).collect()
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    let text = value.get(key).and_then(Value::as_str);
    text.with_context(|| format!("cargo metadata: no {key:?}"))
}

impl Workspace {
    fn read(args: &Args) -> Result<Self> {
        let command = [
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ];
        let output = cargo().args(command).output().context("cargo metadata")?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let json: Value = serde_json::from_slice(&output.stdout)?;
        let mut libraries = Vec::new();
        for package in json["packages"].as_array().into_iter().flatten() {
            libraries.extend(Library::new(package)?);
        }
        if let Some(unknown) = args
            .crates
            .iter()
            .find(|name| libraries.iter().all(|library| library.name != **name))
        {
            bail!("no library {unknown:?} in this workspace");
        }
        libraries.retain(|x| args.crates.is_empty() || args.crates.contains(&x.name));
        libraries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self {
            root: text(&json, "workspace_root")?.into(),
            target: text(&json, "target_directory")?.into(),
            libraries,
        })
    }
}

impl Library {
    /// The library of a package, if it has one and may be published.
    fn new(package: &Value) -> Result<Option<Self>> {
        let kind =
            |target: &Value, kind: &str| strings(target.get("kind")).iter().any(|k| k == kind);
        let targets = package["targets"].as_array().map_or(&[][..], Vec::as_slice);
        let Some(library) = targets.iter().find(|target| kind(target, "lib")) else {
            return Ok(None);
        };
        // An empty list of registries: `publish = false`.
        if package["publish"].as_array().is_some_and(Vec::is_empty) {
            return Ok(None);
        }
        let manifest = Path::new(text(package, "manifest_path")?);
        let mut examples = Vec::new();
        for target in targets.iter().filter(|target| kind(target, "example")) {
            let needed = strings(target.get("required-features"));
            examples.push((text(target, "name")?.to_string(), needed));
        }
        Ok(Some(Self {
            name: text(package, "name")?.into(),
            dir: manifest.parent().unwrap_or(Path::new(".")).into(),
            source: text(library, "src_path")?.into(),
            features: strings(package.pointer("/metadata/docs/rs/features")),
            examples,
        }))
    }
}

/// `cargo xtask examples`: runs every example of every library. Whether all succeeded.
pub fn run_examples(args: &Args) -> Result<bool> {
    let (mut run, mut failed) = (0, Vec::new());
    for library in &Workspace::read(args)?.libraries {
        for (example, features) in &library.examples {
            let name = format!("{} --example {example}", library.name);
            println!("-- {name}");
            let mut command = cargo();
            command.args([
                "run",
                "--quiet",
                "--package",
                &library.name,
                "--example",
                example,
            ]);
            if !features.is_empty() {
                command.args(["--features", &features.join(",")]);
            }
            run += 1;
            if !command.status()?.success() {
                failed.push(name);
            }
        }
    }
    println!(
        "{run} examples, {} failed: {}",
        failed.len(),
        failed.join(", ")
    );
    ensure!(run > 0, "no examples");
    Ok(failed.is_empty())
}

/// `cargo xtask front-pages`: compiles and runs the first example of every library's front page in an empty crate
/// elsewhere, whose one dependency is that library. Whether all succeeded.
pub fn run_front_pages(args: &Args) -> Result<bool> {
    let workspace = Workspace::read(args)?;
    let elsewhere = tempfile::tempdir()?;
    let mut pages = Vec::new();
    for library in &workspace.libraries {
        let Some((example, runs)) = first_example(&front_page(&library.source)?) else {
            println!("{:<14} no example on its front page", library.name);
            continue;
        };
        let dir = elsewhere.path().join(&library.name);
        std::fs::create_dir_all(dir.join("src"))?;
        std::fs::write(dir.join("src/main.rs"), program(&example))?;
        std::fs::write(dir.join("Cargo.toml"), manifest(library))?;
        pages.push((&library.name, runs));
    }
    ensure!(!pages.is_empty(), "no front pages");
    // Built together, so that each crate that they have in common is compiled once, with one set of features.
    // That a crate's own features suffice is what `cargo xtask packages` is for.
    let profiles = profiles(&workspace.root)?;
    let common = format!("[workspace]\nresolver = \"3\"\nmembers = [\"*\"]\n\n{profiles}");
    std::fs::write(elsewhere.path().join("Cargo.toml"), common)?;
    let lock = "Cargo.lock";
    std::fs::copy(workspace.root.join(lock), elsewhere.path().join(lock))?;
    let program = |name: &str| {
        let file = format!("front-page-of-{name}{}", std::env::consts::EXE_SUFFIX);
        workspace.target.join("debug").join(file)
    };
    for (name, _) in &pages {
        // One of an earlier call must not stand for one that does not compile.
        let _ = std::fs::remove_file(program(name));
    }
    let built = cargo()
        .args([
            "build",
            "--quiet",
            "--offline",
            "--workspace",
            "--keep-going",
        ])
        .current_dir(elsewhere.path())
        .env("CARGO_TARGET_DIR", &workspace.target)
        .status()?;
    let mut failed = 0;
    for (name, runs) in &pages {
        let program = program(name);
        let ok = program.is_file() && (!runs || Command::new(&program).status()?.success());
        println!("{name:<14} {}", if ok { "ok" } else { "FAILED" });
        failed += usize::from(!ok);
    }
    println!("{} front pages, {failed} failed", pages.len());
    Ok(built.success() && failed == 0)
}

/// `cargo xtask packages`: packs every library and builds it from its package, each with those below it from
/// theirs. Whether all succeeded.
pub fn run_packages(args: &Args) -> Result<bool> {
    let workspace = Workspace::read(args)?;
    let mut command = cargo();
    command.args(["package", "--quiet", "--offline", "--allow-dirty"]);
    for library in &workspace.libraries {
        command.args(["--package", &library.name]);
    }
    // All are built in one folder, where what they have in common is compiled once.
    let target = workspace.target.join("packages");
    let status = command.env("CARGO_TARGET_DIR", target).status()?;
    println!("{} packages", workspace.libraries.len());
    Ok(status.success())
}

/// A manifest with one dependency.
fn manifest(library: &Library) -> String {
    let (name, features) = (&library.name, &library.features);
    let path = library.dir.display().to_string();
    format!(
        "[package]\nname = \"front-page-of-{name}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
         [dependencies]\n{name} = {{ path = {path:?}, features = {features:?} }}\n"
    )
}

/// The profiles of the workspace, as text, so that both share what they compile of other people's crates.
fn profiles(root: &Path) -> Result<String> {
    let manifest: toml::Table = toml::from_str(&std::fs::read_to_string(root.join("Cargo.toml"))?)?;
    let mut profiles = toml::Table::new();
    if let Some(profile) = manifest.get("profile") {
        profiles.insert("profile".into(), profile.clone());
    }
    Ok(toml::to_string(&profiles)?)
}

/// The documentation at the top of a `lib.rs`: its `//!` lines, and files that are included there.
fn front_page(source: &Path) -> Result<String> {
    let text = std::fs::read_to_string(source).with_context(|| format!("{}", source.display()))?;
    let mut docs = String::new();
    for line in text.lines() {
        if let Some(line) = line.strip_prefix("//!") {
            docs.push_str(line.strip_prefix(' ').unwrap_or(line));
            docs.push('\n');
        } else if line.starts_with("#!") && line.contains("include_str!") {
            let file = line.split('"').rfind(|part| part.ends_with(".md"));
            let file = file.with_context(|| format!("{}: {line}", source.display()))?;
            let path = source.parent().unwrap_or(Path::new(".")).join(file);
            docs +=
                &std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
        } else if !line.is_empty() && !line.starts_with("#!") {
            break;
        }
    }
    Ok(docs)
}

/// The first block of Rust in a document, without the marks of hidden lines, and whether it can run.
fn first_example(docs: &str) -> Option<(String, bool)> {
    let mut lines = docs.lines();
    loop {
        let fence = lines.find_map(|line| line.strip_prefix("```"))?;
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        if matches!(fence, "" | "rust" | "no_run" | "rust,no_run") {
            let shown = block.into_iter().map(|line| match line {
                "#" => "",
                line => line.strip_prefix("# ").unwrap_or(line),
            });
            let example = shown.collect::<Vec<_>>().join("\n");
            return Some((example, !fence.contains("no_run")));
        }
    }
}

/// An example as a program, in the way of rustdoc.
fn program(example: &str) -> String {
    if example.contains("fn main()") {
        return format!("{example}\n");
    }
    match example.trim_end().ends_with("(())") {
        true => format!(
            "fn main() {{\nfn example() -> Result<(), impl std::fmt::Debug> {{\n{example}\n}}\nexample().unwrap()\n}}\n"
        ),
        false => format!("fn main() {{\n{example}\n}}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rust_block_is_found_and_made_a_program() {
        let docs = "Words.\n```text\nno\n```\n```\nlet x = 1;\n# hidden();\n#\n# Ok::<(), E>(())\n```\n```\nlater\n```";
        let (example, runs) = first_example(docs).unwrap();
        assert!(runs);
        assert_eq!(example, "let x = 1;\nhidden();\n\nOk::<(), E>(())");
        assert!(program(&example).contains("example().unwrap()"));
        assert_eq!(program("fn main() {}"), "fn main() {}\n");
        assert_eq!(first_example("```text\nno\n```"), None);
    }

    #[test]
    fn front_pages_follow_included_files() {
        let dir = tempfile::tempdir().unwrap();
        let lib = dir.path().join("lib.rs");
        std::fs::write(
            dir.path().join("README.md"),
            "# Title\n```rust\nrun();\n```\n",
        )
        .unwrap();
        let text = "#![doc = include_str!(\"README.md\")]\n//!\n//! More.\n\n#![warn(x)]\nmod a;\n//! not\n";
        std::fs::write(&lib, text).unwrap();
        let docs = front_page(&lib).unwrap();
        assert!(docs.ends_with("\nMore.\n"), "{docs}");
        assert_eq!(first_example(&docs).unwrap().0, "run();");
    }
}
