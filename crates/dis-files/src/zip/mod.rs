//! Zip archives as `torch.save` and `numpy.savez` write them.
//!
//! Own code instead of a zip library for two reasons. What is needed is small: the position of
//! entries that are not compressed, so that tensors can be read where they lie. And a damaged or
//! hostile file must not make the reader allocate beyond a small multiple of the file's size,
//! which libraries that reserve space for the number of entries a header claims do not promise.
//!
//! Layout: APPNOTE.TXT of PKWARE, sections 4.3.7 (local header), 4.3.12 (central directory), 4.3.14
//! to 4.3.16 (its end, with zip64) and 4.5.3 (zip64 sizes). Checksums are written, and known to
//! those who read an entry; of PyTorch's files they are not compared, since PyTorch can be told to
//! write files without valid ones.

#[cfg(test)]
mod tests;
mod write;

use std::collections::HashMap;
use std::io::{self, Read, Seek, SeekFrom};

pub use write::ZipWriter;

/// What can be wrong with an archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ZipError {
    /// Reading failed.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is damaged, or of a kind that is not read.
    #[error("zip archive: {0}")]
    Damaged(String),
}

const LOCAL: u32 = 0x0403_4B50;
const CENTRAL: u32 = 0x0201_4B50;
const END: u32 = 0x0605_4B50;
const END_64: u32 = 0x0606_4B50;
const LOCATOR_64: u32 = 0x0706_4B50;

const LOCAL_LEN: usize = 30;
const CENTRAL_LEN: usize = 46;
const END_LEN: usize = 22;
const END_64_LEN: usize = 56;
const LOCATOR_LEN: usize = 20;

/// Methods of storing that are read.
const STORED: u16 = 0;
const DEFLATED: u16 = 8;
/// Extra field of zip64 sizes.
const EXTRA_64: u16 = 1;
/// Extra field that PyTorch pads with.
const EXTRA_PADDING: u16 = 0x4246;
/// PyTorch aligns the data of entries to this many bytes, for those who map them.
const ALIGN: u64 = 64;

/// An entry, as the central directory has it.
#[derive(Clone, Copy, Debug)]
struct Record {
    header: u64,
    /// Of the data as they are stored.
    stored: u64,
    /// Of the data themselves.
    size: u64,
    method: u16,
    flags: u16,
    crc: u32,
}

/// Where the data of an entry are, and in which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// First byte in the file.
    pub start: u64,
    /// Bytes in the file; they are all within it.
    pub stored: u64,
    /// Bytes that the archive says they become: a claim, if they are deflated.
    pub size: u64,
    /// Whether they are deflated (method 8), which is for the caller to undo.
    pub deflated: bool,
    /// CRC-32 of the data themselves. Archives of PyTorch may lack a valid one.
    pub crc: u32,
}

/// The entries of an archive by name.
#[derive(Debug)]
pub struct Archive {
    records: HashMap<String, Record>,
    len: u64,
}

fn damaged(what: impl Into<String>) -> ZipError {
    ZipError::Damaged(what.into())
}

/// Little-endian fields of a header, read one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn at<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut bytes = [0; N];
        if let Some(found) = self.0.get(offset..offset + N) {
            bytes.copy_from_slice(found);
        }
        bytes
    }

    fn u16(&self, offset: usize) -> u16 {
        u16::from_le_bytes(self.at(offset))
    }

    fn u32(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.at(offset))
    }

    fn u64(&self, offset: usize) -> u64 {
        u64::from_le_bytes(self.at(offset))
    }
}

/// Reads `len` bytes at `start`, which must be within a file of `total`.
fn read_at<R: Read + Seek>(
    source: &mut R,
    start: u64,
    len: u64,
    total: u64,
) -> Result<Vec<u8>, ZipError> {
    if start.checked_add(len).is_none_or(|end| end > total) {
        return Err(damaged(format!(
            "{len} bytes at {start} are past the end of {total} bytes"
        )));
    }
    let len = usize::try_from(len).map_err(|_| damaged("too large for this machine"))?;
    source.seek(SeekFrom::Start(start))?;
    let mut bytes = vec![0; len];
    source.read_exact(&mut bytes)?;
    Ok(bytes)
}

impl Archive {
    /// Reads the central directory.
    ///
    /// # Errors
    /// If reading fails, the archive is cut off or damaged, or names an entry twice.
    pub fn read<R: Read + Seek>(source: &mut R) -> Result<Self, ZipError> {
        let len = source.seek(SeekFrom::End(0))?;
        let (start, size) = directory(source, len)?;
        let bytes = read_at(source, start, size, len)?;
        let mut records = HashMap::new();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (name, record, left) = central(rest)?;
            if records.insert(name.clone(), record).is_some() {
                return Err(damaged(format!("entry {name:?} is there twice")));
            }
            rest = left;
        }
        Ok(Self { records, len })
    }

    /// Bytes of the archive.
    pub fn file_len(&self) -> u64 {
        self.len
    }

    /// Names of the entries, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.records.keys().map(String::as_str)
    }

    /// Whether there is such an entry.
    pub fn contains(&self, name: &str) -> bool {
        self.records.contains_key(name)
    }

    /// First byte and length of an entry's data. They are within the file.
    ///
    /// # Errors
    /// If the entry is missing, compressed, encrypted or cut off, or reading fails.
    pub fn locate<R: Read + Seek>(
        &self,
        source: &mut R,
        name: &str,
    ) -> Result<(u64, u64), ZipError> {
        let place = self.place(source, name)?;
        if place.deflated {
            return Err(damaged(format!(
                "entry {name:?} is compressed (method 8); only stored entries are read"
            )));
        }
        Ok((place.start, place.size))
    }

    /// As [`Archive::locate`], for readers that can also undo deflate.
    ///
    /// # Errors
    /// If the entry is missing, compressed in another way, encrypted or cut off, or reading fails.
    pub fn place<R: Read + Seek>(&self, source: &mut R, name: &str) -> Result<Place, ZipError> {
        let record = self
            .records
            .get(name)
            .ok_or_else(|| damaged(format!("entry {name:?} is missing")))?;
        if record.flags & 1 != 0 {
            return Err(damaged(format!("entry {name:?} is encrypted")));
        }
        if !matches!(record.method, STORED | DEFLATED) {
            return Err(damaged(format!(
                "entry {name:?} is compressed (method {}); only stored entries are read",
                record.method
            )));
        }
        let header = read_at(source, record.header, LOCAL_LEN as u64, self.len)?;
        let header = Fields(&header);
        if header.u32(0) != LOCAL {
            return Err(damaged(format!(
                "entry {name:?} has no header at its place"
            )));
        }
        let names = u64::from(header.u16(26)) + u64::from(header.u16(28));
        // Within the file by the read above, so this does not overflow.
        let start = record.header + LOCAL_LEN as u64 + names;
        if start
            .checked_add(record.stored)
            .is_none_or(|end| end > self.len)
        {
            return Err(damaged(format!(
                "entry {name:?} of {} bytes is cut off",
                record.stored
            )));
        }
        Ok(Place {
            start,
            stored: record.stored,
            size: record.size,
            deflated: record.method == DEFLATED,
            crc: record.crc,
        })
    }

    /// All data of an entry of at most `most` bytes.
    ///
    /// # Errors
    /// As [`Archive::locate`], or if the entry is larger.
    pub fn bytes<R: Read + Seek>(
        &self,
        source: &mut R,
        name: &str,
        most: u64,
    ) -> Result<Vec<u8>, ZipError> {
        let (start, size) = self.locate(source, name)?;
        if size > most {
            return Err(damaged(format!(
                "entry {name:?} has {size} bytes; more than {most} are not read"
            )));
        }
        read_at(source, start, size, self.len)
    }
}

/// Start and length of the central directory.
fn directory<R: Read + Seek>(source: &mut R, len: u64) -> Result<(u64, u64), ZipError> {
    let tail_len = len.min((END_LEN + LOCATOR_LEN) as u64 + u64::from(u16::MAX));
    let tail_start = len - tail_len;
    let tail = read_at(source, tail_start, tail_len, len)?;
    // The last one whose comment reaches exactly to the end of the file.
    let end = (0..=tail.len().saturating_sub(END_LEN)).rev().find(|&at| {
        let fields = Fields(&tail[at..]);
        fields.u32(0) == END && at + END_LEN + usize::from(fields.u16(20)) == tail.len()
    });
    let end = end.ok_or_else(|| {
        damaged("has no directory at its end: the file is cut off, or not a zip archive")
    })?;
    let fields = Fields(&tail[end..]);
    let (mut size, mut start) = (u64::from(fields.u32(12)), u64::from(fields.u32(16)));
    let locator = end.checked_sub(LOCATOR_LEN).map(|at| Fields(&tail[at..]));
    if let Some(locator) = locator.filter(|l| l.u32(0) == LOCATOR_64) {
        let record = read_at(source, locator.u64(8), END_64_LEN as u64, len)?;
        let record = Fields(&record);
        if record.u32(0) != END_64 {
            return Err(damaged("its zip64 directory is not where it should be"));
        }
        (size, start) = (record.u64(40), record.u64(48));
    }
    Ok((start, size))
}

/// The first record of a central directory, and what follows it.
fn central(bytes: &[u8]) -> Result<(String, Record, &[u8]), ZipError> {
    let cut = || damaged("its directory is cut off");
    let (fixed, rest) = bytes.split_at_checked(CENTRAL_LEN).ok_or_else(cut)?;
    let fields = Fields(fixed);
    if fields.u32(0) != CENTRAL {
        return Err(damaged("its directory is damaged"));
    }
    let part = |offset: usize| usize::from(fields.u16(offset));
    let (name, rest) = rest.split_at_checked(part(28)).ok_or_else(cut)?;
    let (mut extra, rest) = rest.split_at_checked(part(30)).ok_or_else(cut)?;
    let (_, rest) = rest.split_at_checked(part(32)).ok_or_else(cut)?;
    let name = std::str::from_utf8(name).map_err(|_| damaged("an entry's name is not UTF-8"))?;

    let narrow = [fields.u32(24), fields.u32(20), fields.u32(42)];
    let mut wide = narrow.map(u64::from);
    // Of the three, those that are all ones are in the zip64 field, in this order.
    while narrow.contains(&u32::MAX) && extra.len() >= 4 {
        let head = Fields(extra);
        let (id, len) = (head.u16(0), usize::from(head.u16(2)));
        let (field, left) = extra[4..].split_at_checked(len).ok_or_else(cut)?;
        if id == EXTRA_64 {
            let all_ones = wide.iter_mut().zip(narrow);
            let all_ones = all_ones.filter(|(_, narrow)| *narrow == u32::MAX);
            for ((value, _), word) in all_ones.zip(field.as_chunks::<8>().0) {
                *value = u64::from_le_bytes(*word);
            }
            break;
        }
        extra = left;
    }
    let [size, stored, header] = wide;
    let (flags, method) = (fields.u16(8), fields.u16(10));
    if method == 0 && size != stored {
        return Err(damaged(format!("entry {name:?} has two different sizes")));
    }
    let record = Record {
        header,
        stored,
        size,
        method,
        flags,
        crc: fields.u32(16),
    };
    Ok((name.to_string(), record, rest))
}
