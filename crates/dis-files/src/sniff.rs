//! What a file is, by its first bytes: names and extensions say what somebody hoped it is.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use crate::error::{FileError, Result};

/// Bytes that [`sniff`] looks at; fewer are enough where a file is shorter.
pub const SNIFF_LEN: usize = 512;

/// Longest index of a sharded checkpoint that is read to name its shards.
const LONGEST_INDEX: u64 = 16 << 20;
/// Longest text of JSON that is read.
const LONGEST_JSON: u64 = 1 << 28;

/// Kinds of files that are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileKind {
    /// Without a byte.
    Empty,
    /// Compressed by gzip.
    Gzip,
    /// A zip archive, such as `torch.save` and `numpy.savez` write.
    Zip,
    /// Compressed or packed in another way; its name.
    Packed(&'static str),
    /// A pickle of Python that is not in a zip archive, such as PyTorch before 1.6 wrote.
    Pickle,
    /// A header of safetensors.
    Safetensors,
    /// One array of NumPy (`.npy`).
    Npy,
    /// JSON.
    Json,
    /// A web page, or another document of tags.
    Html,
    /// What Git LFS keeps in the place of a large file.
    LfsPointer,
    /// A picture; its format.
    Picture(&'static str),
    /// Another known format; its name.
    Known(&'static str),
    /// A text; its beginning.
    Text(String),
    /// None of these.
    Unknown,
}

/// Formats that are known by how they begin.
const MAGICS: [(&[u8], FileKind); 20] = [
    (b"\x1F\x8B", FileKind::Gzip),
    (b"PK\x03\x04", FileKind::Zip),
    (b"PK\x05\x06", FileKind::Zip),
    (b"\xFD7zXZ\0", FileKind::Packed("an xz-compressed file")),
    (
        b"\x28\xB5\x2F\xFD",
        FileKind::Packed("a zstd-compressed file"),
    ),
    (b"BZh", FileKind::Packed("a bzip2-compressed file")),
    (b"7z\xBC\xAF\x27\x1C", FileKind::Packed("a 7z archive")),
    (b"Rar!\x1A\x07", FileKind::Packed("a rar archive")),
    (b"\x93NUMPY", FileKind::Npy),
    (b"version https://git-lfs.", FileKind::LfsPointer),
    (b"version https://hawser.", FileKind::LfsPointer),
    (b"\x89PNG\r\n\x1A\n", FileKind::Picture("a PNG picture")),
    (b"\xFF\xD8\xFF", FileKind::Picture("a JPEG picture")),
    (b"GIF8", FileKind::Picture("a GIF picture")),
    (b"\x89HDF\r\n\x1A\n", FileKind::Known("an HDF5 file")),
    (b"GGUF", FileKind::Known("a GGUF file")),
    (b"\x80\x02", FileKind::Pickle),
    (b"\x80\x03", FileKind::Pickle),
    (b"\x80\x04", FileKind::Pickle),
    (b"\x80\x05", FileKind::Pickle),
];

/// Tells what a file is by its first bytes, of which [`SNIFF_LEN`] are enough.
///
/// ```
/// use dis_files::{FileKind, sniff};
///
/// assert_eq!(sniff(b"<!DOCTYPE html><html>"), FileKind::Html);
/// assert_eq!(sniff(b"\x1F\x8B\x08"), FileKind::Gzip);
/// ```
pub fn sniff(head: &[u8]) -> FileKind {
    if head.is_empty() {
        return FileKind::Empty;
    }
    if is_safetensors(head) {
        return FileKind::Safetensors;
    }
    let known = MAGICS.iter().find(|(magic, _)| head.starts_with(magic));
    if let Some((_, kind)) = known {
        return kind.clone();
    }
    if head.get(257..262) == Some(b"ustar") {
        return FileKind::Packed("a tar archive");
    }
    if let Some(rest) = head.strip_prefix(b"RIFF")
        && rest.get(4..8) == Some(b"WEBP")
    {
        return FileKind::Picture("a WebP picture");
    }
    let text = head.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(head);
    match text.trim_ascii_start().first() {
        Some(b'<') => FileKind::Html,
        Some(b'{') => FileKind::Json,
        Some(b'[') if is_list(text) => FileKind::Json,
        _ => beginning(text).map_or(FileKind::Unknown, FileKind::Text),
    }
}

/// Whether a text that begins with a bracket is a list of JSON: TOML begins a table so.
fn is_list(text: &[u8]) -> bool {
    let text = text.trim_ascii();
    let (line, behind) = text.split_at(text.iter().position(|&b| b == b'\n').unwrap_or(text.len()));
    let count = |bracket| line.iter().filter(|&&b| b == bracket).count();
    if count(b'[') == count(b']') && !behind.is_empty() {
        return false;
    }
    let outside = |b: &u8| *b != b'[' && !b.is_ascii_whitespace();
    let Some(first) = text.iter().position(outside) else {
        return true;
    };
    let value = &text[first..];
    let words: [&[u8]; 3] = [b"true", b"false", b"null"];
    matches!(value[0], b'{' | b'"' | b']' | b'-' | b'0'..=b'9')
        || words.iter().any(|word| value.starts_with(word))
}

/// The length of a header that is not absurd, and behind it the header's first character.
fn is_safetensors(head: &[u8]) -> bool {
    let length = head.first_chunk::<8>().map(|n| u64::from_le_bytes(*n));
    length.is_some_and(|n| n < 1 << 40) && head.get(8) == Some(&b'{')
}

/// The first line of a text, cut to what fits a message; `None` if the bytes are no text.
fn beginning(head: &[u8]) -> Option<String> {
    const SHOWN: usize = 60;
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        // The last character may be cut off.
        Err(e) if e.error_len().is_none() => std::str::from_utf8(&head[..e.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    let odd = |c: char| c.is_control() && !c.is_ascii_whitespace();
    if text.trim().is_empty() || text.chars().any(odd) {
        return None;
    }
    let line = text.trim_start().lines().next().unwrap_or_default();
    Some(line.chars().take(SHOWN).collect())
}

/// As [`sniff`], of anything that can be read at any place, which is left at its beginning.
///
/// # Errors
/// If reading fails.
pub fn sniff_source<R: Read + Seek>(source: &mut R) -> io::Result<FileKind> {
    let mut head = Vec::with_capacity(SNIFF_LEN);
    source.seek(SeekFrom::Start(0))?;
    source.take(SNIFF_LEN as u64).read_to_end(&mut head)?;
    source.seek(SeekFrom::Start(0))?;
    Ok(sniff(&head))
}

/// What kind a source is, left at its beginning; refused if it certainly is another than those of
/// `right`. `wanted` says what that is, such as "a checkpoint".
///
/// # Errors
/// If it is another, or reading fails.
pub fn expect_kind<R: Read + Seek>(
    source: &mut R,
    origin: &Path,
    right: &[FileKind],
    wanted: &'static str,
) -> Result<FileKind> {
    let kind = sniff_source(source).map_err(FileError::io(origin, "read it"))?;
    match kind.is_foreign() && !right.contains(&kind) {
        true => Err(FileError::other_kind(source, origin, kind, wanted)),
        false => Ok(kind),
    }
}

/// Reads a file of JSON as text. What `wanted` names, such as "an index", is told of a file that is
/// something else.
///
/// # Errors
/// If it cannot be read, is a file of another kind, or longer than any such file.
pub fn read_json(path: &Path, wanted: &'static str) -> Result<String> {
    let mut file = File::open(path).map_err(FileError::io(path, "open it"))?;
    let kind = sniff_source(&mut file).map_err(FileError::io(path, "read it"))?;
    if kind.is_foreign() && !matches!(kind, FileKind::Json | FileKind::Text(_)) {
        return Err(FileError::Kind {
            path: path.to_path_buf(),
            found: kind,
            wanted,
        });
    }
    let mut text = String::new();
    file.take(LONGEST_JSON)
        .read_to_string(&mut text)
        .map_err(FileError::io(path, "read it"))?;
    Ok(text)
}

impl FileError {
    /// The error for a file that is not the one that is `wanted`, such as "a checkpoint". Of the
    /// index of a sharded checkpoint, which is read from `source`, it names the shards.
    pub(crate) fn other_kind<R: Read>(
        source: &mut R,
        path: &Path,
        found: FileKind,
        wanted: &'static str,
    ) -> Self {
        let path = path.to_path_buf();
        let shards = match found {
            FileKind::Json => shards(source),
            _ => None,
        };
        match shards {
            Some(shards) => Self::Sharded { path, shards },
            None => Self::Kind {
                path,
                found,
                wanted,
            },
        }
    }
}

impl FileKind {
    /// Whether a reader of a binary format should not try: the file is certainly something else.
    pub fn is_foreign(&self) -> bool {
        !matches!(self, Self::Empty | Self::Unknown)
    }

    /// What to do about a file of this kind where another is wanted; begins with a colon, or is
    /// empty.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::LfsPointer => ": get the file itself with `git lfs pull`",
            Self::Html => {
                ": the download gave a page instead of the file; download the file itself"
            }
            Self::Gzip => ": decompress it with gunzip",
            Self::Packed(_) => ": unpack it",
            Self::Pickle => {
                ": PyTorch before 1.6 wrote such files; load it with a newer PyTorch and torch.save \
                 its state_dict again"
            }
            _ => "",
        }
    }
}

impl std::fmt::Display for FileKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => write!(f, "empty"),
            Self::Gzip => write!(f, "a gzip-compressed file"),
            Self::Zip => write!(f, "a zip archive"),
            Self::Packed(name) | Self::Picture(name) | Self::Known(name) => write!(f, "{name}"),
            Self::Pickle => write!(f, "a bare pickle"),
            Self::Safetensors => write!(f, "a safetensors file"),
            Self::Npy => write!(f, "an array of NumPy (.npy)"),
            Self::Json => write!(f, "a JSON file"),
            Self::Html => write!(f, "a web page (HTML)"),
            Self::LfsPointer => write!(f, "a Git LFS pointer"),
            Self::Text(line) => write!(f, "a text ({line:?})"),
            Self::Unknown => write!(f, "of unknown kind"),
        }
    }
}

/// Files that the index of a sharded checkpoint names, sorted.
fn shards<R: Read>(source: &mut R) -> Option<Vec<String>> {
    let mut text = Vec::new();
    source.take(LONGEST_INDEX).read_to_end(&mut text).ok()?;
    let index: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let map = index.get("weight_map")?.as_object()?;
    let names: BTreeSet<&str> = map.values().filter_map(serde_json::Value::as_str).collect();
    Some(names.into_iter().map(str::to_string).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn files_are_known_by_their_beginning() {
        let header = |length: u64, text: &[u8]| [&length.to_le_bytes()[..], text].concat();
        let mut tar = vec![b'x'; SNIFF_LEN];
        tar[257..262].copy_from_slice(b"ustar");
        for (head, kind) in [
            (b"".to_vec(), FileKind::Empty),
            (b"\x1F\x8B\x08\0".to_vec(), FileKind::Gzip),
            (b"PK\x03\x04\x14".to_vec(), FileKind::Zip),
            (b"\x80\x02\x8A\x0A".to_vec(), FileKind::Pickle),
            (header(2, b"{}"), FileKind::Safetensors),
            // The first byte of this length is that of a JSON object.
            (header(u64::from(b'{'), b"{\"a\":"), FileKind::Safetensors),
            (b"{\"metadata\": {}".to_vec(), FileKind::Json),
            (b"\xEF\xBB\xBF\n [1]".to_vec(), FileKind::Json),
            (b"[\n  [1, 2],\n".to_vec(), FileKind::Json),
            (b"[[true, null],\n [1]]".to_vec(), FileKind::Json),
            (b"[model]\n".to_vec(), FileKind::Text("[model]".into())),
            (b"# a run\n[a]".to_vec(), FileKind::Text("# a run".into())),
            (
                b"[[axis]]\nname = \"x\"".to_vec(),
                FileKind::Text("[[axis]]".into()),
            ),
            (b"[1]\nx = 2".to_vec(), FileKind::Text("[1]".into())),
            (b"\r\n <!DOCTYPE html>".to_vec(), FileKind::Html),
            (b"<?xml version='1.0'?>".to_vec(), FileKind::Html),
            (
                b"version https://git-lfs.github.com/spec/v1\noid".to_vec(),
                FileKind::LfsPointer,
            ),
            (tar, FileKind::Packed("a tar archive")),
            (
                b"Entry not found\n".to_vec(),
                FileKind::Text("Entry not found".into()),
            ),
            (b"\0\0\x08\x03\0\0".to_vec(), FileKind::Unknown),
            (b"\xFF\xFE\0\0".to_vec(), FileKind::Unknown),
        ] {
            assert_eq!(sniff(&head), kind, "{head:?}");
        }
        for len in 0..SNIFF_LEN {
            let _ = sniff(&vec![b'{'; len]);
        }
    }

    #[test]
    fn a_source_is_left_at_its_beginning() {
        let mut source = Cursor::new(b"PK\x03\x04".to_vec());
        source.set_position(3);
        assert_eq!(sniff_source(&mut source).unwrap(), FileKind::Zip);
        assert_eq!(source.position(), 0);
    }

    #[test]
    fn shards_are_named() {
        let refuse = |text: &str| {
            let mut source = Cursor::new(text.as_bytes());
            FileError::other_kind(&mut source, Path::new("x"), FileKind::Json, "a checkpoint")
                .to_string()
        };
        let index =
            r#"{"weight_map": {"a": "2.safetensors", "b": "1.safetensors", "c": "2.safetensors"}}"#;
        let message = refuse(index);
        assert!(message.contains("sharded checkpoint"), "{message}");
        assert!(
            message.contains("2 shards (1.safetensors, 2.safetensors)"),
            "{message}"
        );
        assert_eq!(refuse(r#"{"a": 1}"#), "x: is a JSON file, not a checkpoint");
    }
}
