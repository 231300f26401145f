//! The text that names a data set: `KIND[:PATH][,OPTION...]`.
//!
//! | text | data set |
//! | --- | --- |
//! | `digits` | the 1,797 embedded digits |
//! | `digits-train`, `digits-held-out` | their 1,500 and 297 images of the fixed split |
//! | `idx:PATH` | IDX files: a folder, or the common prefix of a pair |
//! | `fashion:DIR` | Fashion-MNIST: IDX files whose classes have names |
//! | `cifar10:DIR` | CIFAR-10's binary files |
//! | `folder:DIR` | pictures, flat or in class folders; needs `size` |
//! | `npz:FILE` | images as the ADM evaluator takes them |
//! | `latents:DIR` | latents written by `dis encode` |
//! | `PATH` | whichever of these the folder or file at PATH looks like |
//!
//! Options: `size=N` (side of the crops), `grey`, `cache=MIB` (memory for crops) for folders;
//! `split=NAME` for IDX, Fashion-MNIST and CIFAR-10; `flip` and `unconditional` for all.

use std::path::PathBuf;
use std::str::FromStr;

use super::{DataError, FolderOptions, Result};
use super::{cifar::is_cifar_folder, idx::is_idx_folder, latents::is_latents_folder, npz::is_npz};

/// Which data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataKind {
    /// All embedded digits.
    Digits,
    /// The part of the digits that the bundled model is trained on.
    DigitsTrain,
    /// The rest of the digits.
    DigitsHeldOut,
    /// IDX files.
    Idx(PathBuf),
    /// Fashion-MNIST: IDX files, ten classes with names.
    Fashion(PathBuf),
    /// CIFAR-10 binary files.
    Cifar10(PathBuf),
    /// A folder of pictures.
    Folder(PathBuf),
    /// An `.npz` file of images.
    Npz(PathBuf),
    /// Latents.
    Latents(PathBuf),
}

/// A parsed specification. Its `Display` text parses to the same again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataSpec {
    /// Which data set.
    pub kind: DataKind,
    /// Side of the crops of a folder's pictures.
    pub size: Option<usize>,
    /// One grey channel for a folder's pictures.
    pub grey: bool,
    /// Memory for a folder's crops in MiB.
    pub cache_mib: Option<usize>,
    /// Part of an IDX or CIFAR-10 folder.
    pub split: Option<String>,
    /// Forget the classes.
    pub unconditional: bool,
    /// Mirror half of the images in training (a wish to the loader; reading ignores it).
    pub flip: bool,
}

impl DataSpec {
    /// A data set without options.
    pub fn new(kind: DataKind) -> Self {
        Self {
            kind,
            size: None,
            grey: false,
            cache_mib: None,
            split: None,
            unconditional: false,
            flip: false,
        }
    }

    /// Refuses options that the kind does not have.
    pub(super) fn check_options(&self) -> Result<()> {
        let folder = matches!(self.kind, DataKind::Folder(_));
        let files = matches!(
            self.kind,
            DataKind::Idx(_) | DataKind::Fashion(_) | DataKind::Cifar10(_)
        );
        let misplaced = [
            ("size", self.size.is_some() && !folder),
            ("grey", self.grey && !folder),
            ("cache", self.cache_mib.is_some() && !folder),
            ("split", self.split.is_some() && !files),
        ];
        match misplaced.iter().find(|(_, wrong)| *wrong) {
            Some((option, _)) => Err(self.error(format!("has no option {option}"))),
            None => Ok(()),
        }
    }

    /// The options of a folder.
    pub(super) fn folder_options(&self) -> Result<FolderOptions> {
        let size = self.size.ok_or_else(|| {
            self.error("a folder of pictures needs the size of its crops, such as ,size=64".into())
        })?;
        let mut options = FolderOptions::new(size);
        (options.grey, options.unconditional) = (self.grey, self.unconditional);
        if let Some(mib) = self.cache_mib {
            options.cache_bytes = mib.saturating_mul(1 << 20);
        }
        Ok(options)
    }

    pub(super) fn error(&self, what: String) -> DataError {
        DataError::Spec {
            spec: self.to_string(),
            what,
        }
    }
}

impl std::fmt::Display for DataSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.kind {
            DataKind::Digits => write!(f, "digits")?,
            DataKind::DigitsTrain => write!(f, "digits-train")?,
            DataKind::DigitsHeldOut => write!(f, "digits-held-out")?,
            DataKind::Idx(path) => write!(f, "idx:{}", path.display())?,
            DataKind::Fashion(path) => write!(f, "fashion:{}", path.display())?,
            DataKind::Cifar10(path) => write!(f, "cifar10:{}", path.display())?,
            DataKind::Folder(path) => write!(f, "folder:{}", path.display())?,
            DataKind::Npz(path) => write!(f, "npz:{}", path.display())?,
            DataKind::Latents(path) => write!(f, "latents:{}", path.display())?,
        }
        if let Some(size) = self.size {
            write!(f, ",size={size}")?;
        }
        if let Some(mib) = self.cache_mib {
            write!(f, ",cache={mib}")?;
        }
        if let Some(split) = &self.split {
            write!(f, ",split={split}")?;
        }
        let flags = [
            (self.grey, "grey"),
            (self.unconditional, "unconditional"),
            (self.flip, "flip"),
        ];
        for (_, flag) in flags.iter().filter(|(on, _)| *on) {
            write!(f, ",{flag}")?;
        }
        Ok(())
    }
}

impl FromStr for DataSpec {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self> {
        let error = |what: String| DataError::Spec {
            spec: text.to_owned(),
            what,
        };
        let mut spec = Self::new(DataKind::Digits);
        let mut rest = text;
        // Options are taken from the end while they look like ones, so paths may hold commas.
        while let Some((before, option)) = rest.rsplit_once(',') {
            let (key, value) = match option.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (option, None),
            };
            let number = || -> Result<usize> {
                let n = value
                    .and_then(|v| v.parse().ok())
                    .filter(|&n| n > 0 || key == "cache");
                n.ok_or_else(|| error(format!("option {key} needs a number, as in {key}=64")))
            };
            match (key, value) {
                ("size", _) => spec.size = Some(number()?),
                ("cache", _) => spec.cache_mib = Some(number()?),
                ("split", Some(name)) if !name.is_empty() => spec.split = Some(name.to_owned()),
                ("grey" | "gray", None) => spec.grey = true,
                ("unconditional", None) => spec.unconditional = true,
                ("flip", None) => spec.flip = true,
                _ if std::path::Path::new(rest).exists() => break,
                _ => {
                    return Err(error(format!(
                        "unknown option {option:?}; there are size=N, grey, cache=MIB, split=NAME, \
                         flip, unconditional"
                    )));
                }
            }
            rest = before;
        }
        spec.kind = parse_kind(rest).map_err(error)?;
        spec.check_options()?;
        Ok(spec)
    }
}

fn parse_kind(text: &str) -> std::result::Result<DataKind, String> {
    match text {
        "digits" => return Ok(DataKind::Digits),
        "digits-train" => return Ok(DataKind::DigitsTrain),
        "digits-held-out" => return Ok(DataKind::DigitsHeldOut),
        _ => {}
    }
    let kinds = [
        ("idx:", DataKind::Idx as fn(PathBuf) -> DataKind),
        ("fashion:", DataKind::Fashion),
        ("cifar10:", DataKind::Cifar10),
        ("folder:", DataKind::Folder),
        ("npz:", DataKind::Npz),
        ("latents:", DataKind::Latents),
    ];
    for (prefix, kind) in kinds {
        match text.strip_prefix(prefix) {
            Some("") => return Err(format!("needs a path after {prefix}")),
            Some(path) => return Ok(kind(path.into())),
            None => {}
        }
    }
    let path = PathBuf::from(text);
    if is_cifar_folder(&path) {
        Ok(DataKind::Cifar10(path))
    } else if is_idx_folder(&path) {
        Ok(DataKind::Idx(path))
    } else if is_latents_folder(&path) {
        Ok(DataKind::Latents(path))
    } else if is_npz(&path) {
        Ok(DataKind::Npz(path))
    } else if path.is_dir() {
        Ok(DataKind::Folder(path))
    } else {
        Err(
            "neither an existing folder nor one of digits, digits-train, digits-held-out, \
             idx:PATH, fashion:DIR, cifar10:DIR, folder:DIR, npz:FILE, latents:DIR"
                .into(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open;

    fn parse(text: &str) -> Result<DataSpec> {
        text.parse()
    }

    #[test]
    fn texts_come_back() {
        for text in [
            "digits",
            "digits-train,flip",
            "digits-held-out,unconditional",
            "idx:a/b,split=test",
            "fashion:a/b,split=test,flip",
            "latents:a/b,unconditional,flip",
            "npz:a/b.npz,flip",
            "cifar10:C:\\data,flip",
            "folder:x,y,size=64,cache=0,grey,unconditional,flip",
        ] {
            assert_eq!(parse(text).map(|s| s.to_string()).ok().as_deref(), {
                // A comma in a path only works when it exists.
                if text.starts_with("folder:x,y") {
                    None
                } else {
                    Some(text)
                }
            });
        }
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join("x,y");
        std::fs::create_dir(&odd).unwrap();
        let spec = parse(&format!("{},size=8", odd.display())).unwrap();
        assert_eq!((spec.kind, spec.size), (DataKind::Folder(odd), Some(8)));
    }

    #[test]
    fn mistakes_are_explained() {
        for (text, part) in [
            ("digit", "neither an existing folder"),
            ("", "neither an existing folder"),
            ("digits,size=8", "no option size"),
            ("idx:x,grey", "no option grey"),
            ("fashion:x,size=8", "no option size"),
            ("fashion:", "needs a path"),
            ("digits,split=x", "no option split"),
            ("latents:x,size=8", "no option size"),
            ("digits,flipped", "unknown option \"flipped\""),
            ("folder:x,size=0", "size needs a number"),
            ("folder:x,size", "size needs a number"),
            ("folder:x,size=big", "size needs a number"),
            ("folder:", "needs a path"),
        ] {
            let e = parse(text).unwrap_err().to_string();
            assert!(e.contains(part) && e.contains(&format!("{text:?}")), "{e}");
            assert!(!e.contains('\n'));
        }
    }

    #[test]
    fn opens_every_kind() {
        let count = |text: &str| open(&parse(text).unwrap()).map(|d| (d.len(), d.num_classes()));
        assert_eq!(count("digits").unwrap(), (1797, Some(10)));
        assert_eq!(count("digits-train,unconditional").unwrap(), (1500, None));
        assert_eq!(count("digits-held-out").unwrap(), (297, Some(10)));
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["idx", "cifar", "pictures/a"] {
            std::fs::create_dir_all(path(name)).unwrap();
        }
        let images = [&[0u8, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 7][..]].concat();
        std::fs::write(path("idx/train-images-idx3-ubyte"), images).unwrap();
        std::fs::write(
            path("idx/train-labels-idx1-ubyte"),
            [0, 0, 8, 1, 0, 0, 0, 1, 4],
        )
        .unwrap();
        std::fs::write(path("cifar/data_batch_1.bin"), [1; 3073]).unwrap();
        image::GrayImage::new(5, 5)
            .save(path("pictures/a/1.png"))
            .unwrap();
        let bare = |name: &str, options: &str| format!("{}{options}", path(name).display());
        assert_eq!(count(&bare("idx", "")).unwrap(), (1, Some(5)));
        let fashion = parse(&format!("fashion:{}", path("idx").display())).unwrap();
        let fashion = open(&fashion).unwrap();
        assert_eq!(fashion.class_names()[4], "coat");
        assert_eq!((fashion.len(), fashion.num_classes()), (1, Some(10)));
        assert_eq!(count(&bare("cifar", "")).unwrap(), (1, Some(10)));
        assert_eq!(count(&bare("cifar", ",unconditional")).unwrap(), (1, None));
        assert_eq!(count(&bare("pictures", ",size=4")).unwrap(), (1, Some(1)));
        let e = count(&bare("pictures", "")).unwrap_err().to_string();
        assert!(e.contains("size=64"), "{e}");
    }
}
