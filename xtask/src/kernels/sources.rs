//! The texts that are made from a source, `kernels/ptx/NAME.ptx.in`, and whether they are what it gives.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::TEXTS;
use super::expand::expand;

/// A text as its source gives it.
struct Expanded {
    path: PathBuf,
    source: String,
    text: String,
}

impl Expanded {
    /// The first line that is another one in the committed text, from 1; none if all is the same.
    fn differs(&self) -> Option<usize> {
        let committed = std::fs::read_to_string(&self.path).unwrap_or_default();
        let (mut old, mut new) = (committed.lines(), self.text.lines());
        (1..).find_map(|line| match (old.next(), new.next()) {
            (None, None) => Some(None),
            (a, b) if a == b => None,
            _ => Some(Some(line)),
        })?
    }
}

/// Expands every source under the root of the repository.
fn expand_all(root: &Path) -> Result<Vec<Expanded>> {
    let folder = root.join(TEXTS);
    let mut sources: Vec<PathBuf> = std::fs::read_dir(&folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    sources.retain(|path| path.to_string_lossy().ends_with(".ptx.in"));
    sources.sort();
    let read = |name: &str| {
        std::fs::read_to_string(folder.join(name)).map_err(|e| format!("cannot read {name}: {e}"))
    };
    let expanded = sources.into_iter().map(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let source = read(&name).map_err(anyhow::Error::msg)?;
        let text = expand(&format!("{TEXTS}/{name}"), &source, &read)?;
        Ok(Expanded {
            path: path.with_extension(""),
            text: format!("// Made from {name} by `cargo xtask kernels --expand`: change that file, not this.\n//\n{text}"),
            source: name,
        })
    });
    expanded.collect()
}

/// Writes every text that is not what its source gives.
pub fn write(root: &Path) -> Result<()> {
    for expanded in expand_all(root)? {
        if expanded.differs().is_some() {
            std::fs::write(&expanded.path, &expanded.text)
                .with_context(|| format!("cannot write {}", expanded.path.display()))?;
            println!("wrote {}", expanded.path.display());
        }
    }
    Ok(())
}

/// Prints which texts are not what their sources give; returns whether all are.
pub fn check(root: &Path) -> Result<bool> {
    let mut ok = true;
    for expanded in expand_all(root)? {
        if let Some(line) = expanded.differs() {
            let Expanded { path, source, .. } = expanded;
            println!(
                "error: {}:{line} is not what {source} gives; `cargo xtask kernels --expand` writes it",
                path.display()
            );
            ok = false;
        }
    }
    Ok(ok)
}

#[cfg(test)]
mod tests {
    use super::{check, write};

    #[test]
    fn texts_are_what_their_sources_give() {
        assert!(check(&crate::kernels::root().unwrap()).unwrap());
    }

    #[test]
    fn a_text_that_is_not_is_noticed_and_written() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("kernels/ptx");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("a.ptx.in"), ".for i in 0..2\nx$i;\n.end\n").unwrap();
        assert!(!check(root.path()).unwrap());
        write(root.path()).unwrap();
        assert!(check(root.path()).unwrap());
        let text = std::fs::read_to_string(folder.join("a.ptx")).unwrap();
        assert!(text.ends_with("//\nx0;\nx1;\n"), "{text}");
        std::fs::write(folder.join("a.ptx"), text + "x2;\n").unwrap();
        assert!(!check(root.path()).unwrap());
    }
}
