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
//! Options: `size=N` or `size=WIDTHxHEIGHT` (of the crops), `grey`, `recursive` (pictures in folders
//! below class folders), `cache=MIB` (memory for crops) for folders; `split=NAME` for IDX,
//! Fashion-MNIST and CIFAR-10; `flip` and `unconditional` for all.
//!
//! Options are taken from the end, and never from a path that exists, so paths may hold commas. Where
//! that leaves doubt, a comma of its own ends the path: `folder:a,flip,,size=8`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use dis_files::SNIFF_LEN;

use super::{DataError, FolderOptions, ImageSize, Result};
use super::{cifar::is_cifar_folder, idx, latents::is_latents_folder, npz::is_npz};

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
    /// Size of the crops of a folder's pictures.
    pub size: Option<ImageSize>,
    /// One grey channel for a folder's pictures.
    pub grey: bool,
    /// Pictures in folders below class folders too.
    pub recursive: bool,
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
            recursive: false,
            cache_mib: None,
            split: None,
            unconditional: false,
            flip: false,
        }
    }

    /// The same data whatever the present directory is.
    pub fn absolute(mut self) -> Self {
        match &mut self.kind {
            DataKind::Digits | DataKind::DigitsTrain | DataKind::DigitsHeldOut => {}
            DataKind::Idx(path)
            | DataKind::Fashion(path)
            | DataKind::Cifar10(path)
            | DataKind::Folder(path)
            | DataKind::Npz(path)
            | DataKind::Latents(path) => {
                // Fails only for an empty path, or where there is no present directory.
                if let Ok(absolute) = std::path::absolute(&*path) {
                    *path = absolute;
                }
            }
        }
        self
    }

    /// With those options of `other` that this has not, as far as its kind has them.
    pub fn with_options_of(self, other: &Self) -> Self {
        let folder = matches!(self.kind, DataKind::Folder(_));
        let split = matches!(
            self.kind,
            DataKind::Idx(_) | DataKind::Fashion(_) | DataKind::Cifar10(_)
        );
        Self {
            kind: self.kind,
            size: self.size.or(other.size.filter(|_| folder)),
            grey: self.grey || (other.grey && folder),
            recursive: self.recursive || (other.recursive && folder),
            cache_mib: self.cache_mib.or(other.cache_mib.filter(|_| folder)),
            split: self.split.or(other.split.clone().filter(|_| split)),
            unconditional: self.unconditional || other.unconditional,
            flip: self.flip || other.flip,
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
            ("recursive", self.recursive && !folder),
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
            let what =
                "a folder of pictures needs the size of its crops, such as ,size=64 or ,size=96x64";
            self.error(what.into())
        })?;
        let mut options = FolderOptions::new(size);
        (options.grey, options.unconditional) = (self.grey, self.unconditional);
        options.recursive = self.recursive;
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
        let (prefix, path) = match &self.kind {
            DataKind::Digits => (DIGITS, None),
            DataKind::DigitsTrain => (DIGITS_TRAIN, None),
            DataKind::DigitsHeldOut => (DIGITS_HELD_OUT, None),
            DataKind::Idx(path) => ("idx:", Some(path)),
            DataKind::Fashion(path) => ("fashion:", Some(path)),
            DataKind::Cifar10(path) => ("cifar10:", Some(path)),
            DataKind::Folder(path) => ("folder:", Some(path)),
            DataKind::Npz(path) => ("npz:", Some(path)),
            DataKind::Latents(path) => ("latents:", Some(path)),
        };
        write!(f, "{prefix}")?;
        if let Some(path) = path.map(|path| path.to_string_lossy()) {
            let end = if path.contains(',') { "," } else { "" };
            write!(f, "{path}{end}")?;
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
            (self.recursive, "recursive"),
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
        let rest = spec.take_options(text).map_err(error)?;
        spec.kind = match explicit_kind(rest) {
            Some(kind) => kind.map_err(error)?,
            None => spec.kind_at(rest)?,
        };
        spec.check_options()?;
        Ok(spec)
    }
}

const DIGITS: &str = "digits";
const DIGITS_TRAIN: &str = "digits-train";
const DIGITS_HELD_OUT: &str = "digits-held-out";

impl DataSpec {
    /// Takes options from the end of a text as far as they are ones; returns the rest.
    fn take_options<'a>(&mut self, text: &'a str) -> std::result::Result<&'a str, String> {
        let mut rest = text;
        while !names_something(rest) {
            let Some((before, option)) = rest.rsplit_once(',') else {
                break;
            };
            if option.is_empty() {
                return Ok(before);
            }
            if !self.take_option(option)? {
                // A comma of a path that is not there, or a misspelt option of something that is.
                let mut shorter = rest.match_indices(',').map(|(at, _)| &rest[..at]);
                if shorter.any(names_something) {
                    return Err(format!(
                        "unknown option {option:?}; there are size=N, size=WIDTHxHEIGHT, grey, \
                         recursive, cache=MIB, split=NAME, flip, unconditional"
                    ));
                }
                break;
            }
            rest = before;
        }
        Ok(rest)
    }

    /// Whether a text is an option, which is then set.
    fn take_option(&mut self, option: &str) -> std::result::Result<bool, String> {
        let (key, value) = match option.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (option, None),
        };
        match (key, value) {
            ("size", value) => {
                let size = value.unwrap_or_default().parse();
                self.size = Some(size.map_err(|what| format!("option size {what}"))?);
            }
            ("cache", value) => {
                let mib = value.and_then(|v| v.parse().ok());
                let missing = || "option cache needs a number, as in cache=64".to_owned();
                self.cache_mib = Some(mib.ok_or_else(missing)?);
            }
            ("split", Some(name)) if !name.is_empty() => self.split = Some(name.to_owned()),
            ("grey" | "gray", None) => self.grey = true,
            ("recursive", None) => self.recursive = true,
            ("unconditional", None) => self.unconditional = true,
            ("flip", None) => self.flip = true,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// What the folder or file at a path looks like.
    fn kind_at(&self, text: &str) -> Result<DataKind> {
        let path = PathBuf::from(text);
        if path.is_dir() {
            return Ok(if is_cifar_folder(&path) {
                DataKind::Cifar10(path)
            } else if idx::is_idx_folder(&path) {
                DataKind::Idx(path)
            } else if is_latents_folder(&path) {
                DataKind::Latents(path)
            } else {
                DataKind::Folder(path)
            });
        }
        if !path.exists() {
            return Err(self.no_such(path));
        }
        if is_npz(&path) {
            return Ok(DataKind::Npz(path));
        }
        if idx::is_idx_file(&path) {
            return Ok(DataKind::Idx(path));
        }
        let wanted = "data (an npz file or an IDX file; pictures are given by their folder)";
        let mut head = Vec::new();
        let file = File::open(&path).map_err(DataError::io(&path, "open"))?;
        file.take(SNIFF_LEN as u64)
            .read_to_end(&mut head)
            .map_err(DataError::io(&path, "read"))?;
        Err(DataError::kind(&path, &head, wanted))
    }

    /// Nothing lies at a path that names no kind of data.
    fn no_such(&self, path: PathBuf) -> DataError {
        let text = path.to_string_lossy();
        let slash = text.contains(std::path::is_separator);
        let of_folder = self.size.is_some() || self.grey || self.recursive;
        let folder = of_folder || text.ends_with(std::path::is_separator);
        let (what, hint) = match (folder, path.extension().is_some()) {
            (true, _) => ("folder", ""),
            (false, true) => ("file", ""),
            (false, false) if slash => ("file or folder", ""),
            (false, false) => (
                "file or folder",
                ", and none of digits, digits-train, digits-held-out, idx:PATH, fashion:DIR, \
                 cifar10:DIR, folder:DIR, npz:FILE, latents:DIR",
            ),
        };
        DataError::NoSuch { path, what, hint }
    }
}

/// The kind that a text names; `None` if it is only a path.
fn explicit_kind(text: &str) -> Option<std::result::Result<DataKind, String>> {
    match text {
        DIGITS => return Some(Ok(DataKind::Digits)),
        DIGITS_TRAIN => return Some(Ok(DataKind::DigitsTrain)),
        DIGITS_HELD_OUT => return Some(Ok(DataKind::DigitsHeldOut)),
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
    let (prefix, kind, path) = kinds
        .into_iter()
        .find_map(|(prefix, kind)| Some((prefix, kind, text.strip_prefix(prefix)?)))?;
    Some(match path {
        "" => Err(format!("needs a path after {prefix}")),
        path => Ok(kind(path.into())),
    })
}

/// Whether a text without options names data that are there.
fn names_something(text: &str) -> bool {
    match explicit_kind(text) {
        Some(Ok(DataKind::Digits | DataKind::DigitsTrain | DataKind::DigitsHeldOut)) => true,
        Some(Ok(DataKind::Idx(path) | DataKind::Fashion(path))) => {
            path.exists() || idx::is_prefix(&path)
        }
        Some(Ok(
            DataKind::Cifar10(path)
            | DataKind::Folder(path)
            | DataKind::Npz(path)
            | DataKind::Latents(path),
        )) => path.exists(),
        Some(Err(_)) => false,
        None => Path::new(text).exists(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<DataSpec> {
        text.parse()
    }

    fn kinds() -> impl Strategy<Value = DataKind> {
        // Commas, words of options and colons, where they could be mistaken for what they are not.
        let part = prop::sample::select(vec![
            "a", ",", "/", ".", "flip", ",flip", ",size=8", "grey", "=", " ", "idx:", "digits", "é",
        ]);
        let path =
            prop::collection::vec(part, 1..6).prop_map(|parts| PathBuf::from(parts.concat()));
        (0usize..9, path).prop_map(|(kind, path)| match kind {
            0 => DataKind::Digits,
            1 => DataKind::DigitsTrain,
            2 => DataKind::DigitsHeldOut,
            3 => DataKind::Idx(path),
            4 => DataKind::Fashion(path),
            5 => DataKind::Cifar10(path),
            6 => DataKind::Folder(path),
            7 => DataKind::Npz(path),
            _ => DataKind::Latents(path),
        })
    }

    proptest! {
        #[test]
        fn texts_of_specifications_come_back(
            kind in kinds(), size in prop::option::of((1usize..300, 1usize..300)), cache in prop::option::of(0usize..9),
            split in prop::option::of("[a-z=.]{1,4}"), flags in any::<[bool; 4]>(),
        ) {
            let folder = matches!(kind, DataKind::Folder(_));
            let parts = matches!(kind, DataKind::Idx(_) | DataKind::Fashion(_) | DataKind::Cifar10(_));
            let spec = DataSpec {
                size: size.filter(|_| folder).map(|(height, width)| ImageSize { height, width }),
                grey: folder && flags[0],
                recursive: folder && flags[1],
                cache_mib: cache.filter(|_| folder),
                split: split.filter(|_| parts),
                unconditional: flags[2],
                flip: flags[3],
                kind,
            };
            prop_assert_eq!(parse(&spec.to_string()).unwrap(), spec);
        }
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
            "folder:x,y,,size=64,cache=0,grey,recursive,unconditional,flip",
            "folder:x,size=96x64",
        ] {
            let spec = parse(text).map(|s| s.to_string());
            assert_eq!(spec.ok().as_deref(), Some(text));
        }
    }

    #[test]
    fn existing_paths_win_over_options() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["x,y", "x,flip", "x,flip,size=8"] {
            std::fs::create_dir(path(name)).unwrap();
        }
        std::fs::write(path("a,b.npz"), "PK").unwrap();
        std::fs::write(path("c,d-images-idx3-ubyte"), "").unwrap();
        let at = |prefix: &str, name: &str| format!("{prefix}{}", path(name).display());
        for prefix in ["", "folder:"] {
            for (text, folder, size) in [
                ("x,y,size=8", "x,y", Some(8)),
                ("x,flip", "x,flip", None),
                ("x,flip,size=9", "x,flip", Some(9)),
                ("x,flip,size=8", "x,flip,size=8", None),
            ] {
                let spec = parse(&at(prefix, text)).unwrap();
                assert_eq!(spec.kind, DataKind::Folder(path(folder)));
                assert_eq!((spec.size, spec.flip), (size.map(ImageSize::from), false));
            }
            let npz = if prefix.is_empty() { "" } else { "npz:" };
            let spec = parse(&at(npz, "a,b.npz,flip")).unwrap();
            assert_eq!(
                (spec.kind, spec.flip),
                (DataKind::Npz(path("a,b.npz")), true)
            );
        }
        let spec = parse(&at("idx:", "c,d,split=x")).unwrap();
        assert_eq!(spec.kind, DataKind::Idx(path("c,d")));
        let e = parse(&at("folder:", "x,y,greyish"))
            .unwrap_err()
            .to_string();
        assert!(e.contains("unknown option \"greyish\""), "{e}");
    }

    #[test]
    fn what_is_not_there_is_said_first() {
        for (text, message) in [
            ("gone.npz", "gone.npz: no such file"),
            ("gone/,size=8", "gone/: no such folder"),
            ("gone,size=8", "gone: no such folder"),
            ("a/gone", "a/gone: no such file or folder"),
            ("gone, too.npz", "gone, too.npz: no such file"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn mistakes_are_explained() {
        for (text, part) in [
            ("digit", "no such file or folder, and none of digits, "),
            ("", "no such file or folder, and none of digits, "),
            ("digits,size=8", "no option size"),
            ("idx:x,grey", "no option grey"),
            ("cifar10:x,recursive", "no option recursive"),
            ("fashion:x,size=8", "no option size"),
            ("fashion:", "needs a path"),
            ("digits,split=x", "no option split"),
            ("latents:x,size=8", "no option size"),
            ("digits,flipped", "unknown option \"flipped\""),
            ("folder:x,size=0", "size needs a number"),
            ("folder:x,size", "size needs a number"),
            ("folder:x,size=big", "size needs a number"),
            ("folder:x,cache=-1", "cache needs a number"),
            ("folder:", "needs a path"),
        ] {
            let e = parse(text).unwrap_err().to_string();
            assert!(e.contains(part) && e.contains(text), "{e}");
            assert!(!e.contains('\n'));
        }
    }

    #[test]
    fn files_are_known_by_their_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let idx = [0u8, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 7];
        let parse = |name: &str| super::tests::parse(&path(name).display().to_string());
        for (name, content) in [
            ("A.NPZ", &b"PK"[..]),
            ("stats", b"PK\x03\x04"),
            ("b.dat", b"PK\x03\x04"),
        ] {
            std::fs::write(path(name), content).unwrap();
            assert_eq!(parse(name).unwrap().kind, DataKind::Npz(path(name)));
        }
        std::fs::write(path("train-images-idx3-ubyte"), idx).unwrap();
        let kind = parse("train-images-idx3-ubyte").unwrap().kind;
        assert_eq!(kind, DataKind::Idx(path("train-images-idx3-ubyte")));
        image::GrayImage::new(5, 5).save(path("1.png")).unwrap();
        std::fs::write(path("1.txt"), "words").unwrap();
        for (name, part) in [
            ("1.png", "is a PNG picture, not data"),
            ("1.txt", "is a text (\"words\"), not data"),
        ] {
            let e = parse(name).unwrap_err().to_string();
            assert!(e.contains(name) && e.contains(part), "{e}");
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
