//! The lowest PTX version with which each text assembles.

use anyhow::{Context, Result};

use super::Text;
use super::ptxas::Ptxas;

/// Versions of PTX from 6.0 on, ascending (PTX ISA, "Release Notes"). sm_80 came with 7.0.
const VERSIONS: [(u32, u32); 24] = [
    (6, 0),
    (6, 1),
    (6, 2),
    (6, 3),
    (6, 4),
    (6, 5),
    (7, 0),
    (7, 1),
    (7, 2),
    (7, 3),
    (7, 4),
    (7, 5),
    (7, 6),
    (7, 7),
    (7, 8),
    (8, 0),
    (8, 1),
    (8, 2),
    (8, 3),
    (8, 4),
    (8, 5),
    (8, 6),
    (8, 7),
    (8, 8),
];

/// The text with another version, and what its version is now.
fn with_version(text: &str, version: (u32, u32)) -> Option<String> {
    let line = text.lines().find(|l| l.starts_with(".version"))?;
    let comment = line.find("//").map_or("", |at| &line[at..]);
    let (major, minor) = version;
    Some(text.replacen(line, &format!(".version {major}.{minor} {comment}"), 1))
}

/// Prints the lowest version of each text; whether none asks for more than it needs.
pub fn check(ptxas: &Ptxas, texts: &[Text]) -> Result<bool> {
    let folder = tempfile::tempdir()?;
    let (path, cubin) = (
        folder.path().join("text.ptx"),
        folder.path().join("text.cubin"),
    );
    let mut ok = true;
    let mut lowest = Vec::new();
    for text in texts {
        let declared = text.module.version;
        let sm = text
            .module
            .target
            .strip_prefix("sm_")
            .and_then(|sm| sm.parse().ok());
        let sm = sm.with_context(|| format!("{}.ptx is for no GPU of a number", text.name))?;
        let mut found = declared;
        // Down from the declared version, as each version contains those before it.
        for &version in VERSIONS.iter().rev().filter(|v| **v < declared) {
            let changed = with_version(&text.text, version)
                .with_context(|| format!("{}.ptx has no line `.version`", text.name))?;
            std::fs::write(&path, changed)?;
            if !ptxas.accepts(&path, sm, &cubin)? {
                break;
            }
            found = version;
        }
        if found < declared {
            let ((a, b), (c, d)) = (declared, found);
            println!(
                "error: {}.ptx says version {a}.{b}, but {c}.{d} will do",
                text.name
            );
            ok = false;
        }
        lowest.push(found);
    }
    if let Some((major, minor)) = lowest.iter().max() {
        println!("lowest PTX version that assembles all texts: {major}.{minor}");
    }
    Ok(ok)
}

#[cfg(test)]
mod tests {
    use super::with_version;

    #[test]
    fn the_version_is_replaced_and_nothing_else() {
        let text = "// .version in a comment\n.version 7.1 // for cvt\n.target sm_80\n";
        let want = "// .version in a comment\n.version 7.0 // for cvt\n.target sm_80\n";
        assert_eq!(with_version(text, (7, 0)).as_deref(), Some(want));
        assert_eq!(with_version("// none\n", (7, 0)), None);
    }
}
