//! What docs/architecture.md says of the code, held to it.

#![cfg(test)]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn architecture() -> String {
    fs::read_to_string(root().join("docs/architecture.md")).unwrap()
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Every Rust file below a folder but those of tests, as a path from the root.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !["target", "tests", "examples", "benches"].contains(&&*name) {
            sources(&path, found);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_formula_is_where_the_table_says() {
    let text = architecture();
    let table = text.split("## Where to find the paper").nth(1).unwrap();
    let table = table.split("\n## ").next().unwrap();
    let mut functions = 0;
    for row in table.lines().filter(|line| line.starts_with("| ")).skip(2) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        assert_eq!(cells.len(), 3, "{row}");
        let files: String = quoted(cells[1])
            .map(|file| {
                fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
            })
            .collect();
        assert!(!files.is_empty(), "no file: {row}");
        for function in quoted(cells[2]) {
            functions += 1;
            let defined = ["(", "<"]
                .iter()
                .any(|end| files.contains(&format!("fn {function}{end}")));
            assert!(defined, "no function {function}: {row}");
        }
    }
    assert!(functions > 40);
}

#[test]
fn unsafe_code_is_where_the_list_says() {
    let text = architecture();
    let list = text.split("- `unsafe` is found").nth(1).unwrap();
    let listed: Vec<&str> = quoted(list.split("\n- ").next().unwrap()).collect();
    assert!(listed.len() >= 4, "{listed:?}");
    let (mut files, mut used) = (Vec::new(), vec![false; listed.len()]);
    for folder in ["crates", "kernels", "python", "xtask"] {
        sources(&root().join(folder), &mut files);
    }
    for path in files {
        let code = fs::read_to_string(&path).unwrap();
        let has = code.lines().map(str::trim_start).any(|line| {
            !line.starts_with("//")
                && ["unsafe {", "unsafe fn ", "unsafe impl ", "unsafe extern"]
                    .iter()
                    .any(|w| line.contains(w))
        });
        if has && !path.ends_with("documents.rs") {
            let path = path.to_string_lossy().replace('\\', "/");
            let place = listed.iter().position(|place| path.contains(place));
            used[place.unwrap_or_else(|| panic!("{path} is not in the list of unsafe code"))] =
                true;
        }
    }
    assert!(used.iter().all(|used| *used), "{listed:?} {used:?}");
}
