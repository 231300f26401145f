//! What this program wrote itself, which never counts as data: run directories, studies, latents and
//! pictures that it drew.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::latents::is_latents_folder;
use super::{DataError, Result};

/// Keyword and text of the PNG chunk that marks pictures drawn by this program.
pub const DRAWN_BY: (&str, &str) = ("Software", "dis");

/// Keyword of the PNG chunk that says how a picture was drawn.
pub(super) const DRAWN_WITH: &str = "dis";

/// Most memory for what stands before the pixels of a PNG.
const MOST_BYTES: usize = 1 << 24;

/// What was left out of a folder because this program wrote it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outputs {
    /// Run directories and studies.
    pub runs: usize,
    /// Folders of latents.
    pub latents: usize,
    /// Pictures.
    pub drawn: usize,
}

impl Outputs {
    /// Whether there was nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn add(&mut self, other: Self) {
        self.runs += other.runs;
        self.latents += other.latents;
        self.drawn += other.drawn;
    }

    /// What a folder is, if this program made it.
    pub(super) fn of_folder(path: &Path) -> Option<Self> {
        let run = || path.join("config.toml").is_file() && path.join("checkpoints").is_dir();
        if run() || path.join("study.toml").is_file() {
            let runs = 1;
            return Some(Self {
                runs,
                ..Self::default()
            });
        }
        let latents = 1;
        is_latents_folder(path).then(|| Self {
            latents,
            ..Self::default()
        })
    }
}

/// As in "1 run and 3 pictures that dis drew are left out"; empty without any.
impl std::fmt::Display for Outputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = |n: usize, one: &str, many: &str| match n {
            0 => None,
            1 => Some(format!("1 {one}")),
            n => Some(format!("{n} {many}")),
        };
        let parts: Vec<String> = [
            count(self.runs, "run", "runs"),
            count(self.latents, "folder of latents", "folders of latents"),
            count(
                self.drawn,
                "picture that dis drew",
                "pictures that dis drew",
            ),
        ]
        .into_iter()
        .flatten()
        .collect();
        let verb = match self.runs + self.latents + self.drawn {
            0 => return Ok(()),
            1 => "is",
            _ => "are",
        };
        match parts.split_last() {
            Some((last, [])) => write!(f, "{last} {verb} left out"),
            Some((last, rest)) => write!(f, "{} and {last} {verb} left out", rest.join(", ")),
            None => Ok(()),
        }
    }
}

/// The text that says how a PNG was drawn, if this program wrote one into it.
///
/// # Errors
/// If the file cannot be read, or is no PNG or not a whole one.
pub fn drawn_with(path: &Path) -> Result<Option<String>> {
    let file = File::open(path).map_err(DataError::io(path, "open it"))?;
    let limits = png::Limits { bytes: MOST_BYTES };
    // Up to the pixels, before which the text stands.
    let reader = png::Decoder::new_with_limits(BufReader::new(file), limits)
        .read_info()
        .map_err(|cause| DataError::format(path, format!("cannot be read as PNG: {cause}")))?;
    let mut texts = reader.info().uncompressed_latin1_text.iter();
    let found = texts.find(|chunk| chunk.keyword == DRAWN_WITH);
    Ok(found.map(|chunk| chunk.text.clone()))
}

/// Whether a file is a PNG that this program drew.
pub(super) fn is_drawn(path: &Path) -> bool {
    // The mark stands before the pixels, among the first chunks.
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(512).read_to_end(&mut start));
    read.is_ok() && has_mark(&start)
}

/// Looks for the mark among the chunks of a PNG that lie wholly in `start`.
pub(super) fn has_mark(start: &[u8]) -> bool {
    let Some(mut rest) = start.strip_prefix(b"\x89PNG\r\n\x1a\n") else {
        return false;
    };
    let mark = [DRAWN_BY.0.as_bytes(), &[0], DRAWN_BY.1.as_bytes()].concat();
    // A chunk: length, kind, content, checksum.
    while let Some((head, after)) = rest.split_first_chunk::<8>() {
        let (length, kind) = head.split_at(4);
        let length = length.iter().fold(0, |n, &b| n << 8 | usize::from(b));
        let Some(content) = after.get(..length) else {
            return false;
        };
        if kind == b"tEXt" && content == mark {
            return true;
        }
        rest = after.get(length + 4..).unwrap_or_default();
    }
    false
}
