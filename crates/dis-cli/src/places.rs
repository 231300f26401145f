//! The files and directories that a command reads and writes: none is written that is another one too.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use dis_data::{DataKind, DataSpec};

/// Places by the options that name them.
#[derive(Debug, Default)]
pub struct Places(Vec<Place>);

#[derive(Debug)]
struct Place {
    option: &'static str,
    path: PathBuf,
    written: bool,
}

impl Places {
    /// Adds what is read.
    pub fn reads(self, option: &'static str, path: Option<&Path>) -> Self {
        self.with(option, path.map(Path::to_path_buf), false)
    }

    /// Adds a data set that is read, or whatever else lies at the path that the text is.
    pub fn reads_data(self, option: &'static str, spec: Option<&str>) -> Self {
        let path = spec.and_then(|text| {
            let path = Path::new(text);
            match path.exists() {
                true => Some(path.to_path_buf()),
                false => data_path(text),
            }
        });
        self.with(option, path, false)
    }

    /// Adds what is written.
    pub fn writes(self, option: &'static str, path: Option<&Path>) -> Self {
        self.with(option, path.map(Path::to_path_buf), true)
    }

    fn with(mut self, option: &'static str, path: Option<PathBuf>, written: bool) -> Self {
        self.0.extend(path.map(|path| Place {
            option,
            path,
            written,
        }));
        self
    }

    /// Refuses two options with one place, of which at least one is written. Names that lead to the same
    /// place, by links or by `..`, are one.
    ///
    /// # Errors
    /// Naming both options.
    pub fn check(self) -> Result<()> {
        let real: Vec<PathBuf> = self.0.iter().map(|place| real(&place.path)).collect();
        for (i, a) in self.0.iter().enumerate() {
            for (b, other) in self.0[i + 1..].iter().zip(&real[i + 1..]) {
                if (a.written || b.written) && real[i] == *other {
                    bail!(
                        "{} and {} are one place, {}: what is written must have one of its own",
                        a.option,
                        b.option,
                        a.path.display()
                    );
                }
            }
        }
        Ok(())
    }
}

/// Where a data specification's files lie.
fn data_path(text: &str) -> Option<PathBuf> {
    match text.parse::<DataSpec>().ok()?.kind {
        DataKind::Idx(path)
        | DataKind::Fashion(path)
        | DataKind::Cifar10(path)
        | DataKind::Folder(path)
        | DataKind::Npz(path)
        | DataKind::Latents(path) => Some(path),
        DataKind::Digits | DataKind::DigitsTrain | DataKind::DigitsHeldOut => None,
    }
}

/// The path without links and `..`; of what is not there yet, that of the nearest directory that is.
fn real(path: &Path) -> PathBuf {
    if let Ok(real) = path.canonicalize() {
        return real;
    }
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return path.to_path_buf(),
    };
    real(parent).join(path.file_name().unwrap_or_default())
}

/// What follows the last dot of a file's name, in small letters; empty without.
pub fn extension(path: &Path) -> String {
    let extension = path.extension().unwrap_or_default();
    extension.to_string_lossy().to_lowercase()
}

/// Refuses a file in a directory that is not there.
pub fn parent_exists(file: &Path) -> Result<()> {
    let parent = file.parent().filter(|p| !p.as_os_str().is_empty());
    if let Some(parent) = parent.filter(|p| !p.is_dir()) {
        bail!("{}: there is no such directory", parent.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_under_two_names_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("photos")).unwrap();
        std::fs::write(at("photo.png"), "").unwrap();
        let check = |read: &Path, write: &Path| {
            Places::default()
                .reads("--mask", Some(read))
                .writes("--out", Some(write))
                .check()
        };
        check(&at("photo.png"), &at("other.png")).unwrap();
        let error = check(&at("photo.png"), &at("photos/../photo.png")).unwrap_err();
        assert!(error.to_string().starts_with("--mask and --out"), "{error}");
        // Neither is there yet.
        let absent = (at("photos/../new/a.json"), at("new/a.json"));
        let twice = Places::default()
            .writes("--json", Some(&absent.0))
            .writes("--plot", Some(&absent.1));
        assert!(twice.check().is_err());
        // Reading one place twice is nothing to refuse.
        let read = Places::default()
            .reads("SAMPLES", Some(&at("photo.png")))
            .reads("--reference", Some(&at("photo.png")));
        read.check().unwrap();
        let spec = format!("folder:{},size=8", at("photos").display());
        let data = Places::default()
            .reads_data("--data", Some(&spec))
            .writes("--out", Some(&at("photos")));
        assert!(data.check().is_err());
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let both = Places::default()
            .reads("IN", Some(&file))
            .writes("OUT", Some(&link));
        assert!(both.check().is_err());
    }
}
