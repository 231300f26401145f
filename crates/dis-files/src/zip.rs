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

use std::collections::HashMap;
use std::io::{self, Read, Seek, SeekFrom, Write};

use flate2::Compression;
use flate2::write::DeflateEncoder;

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

/// Writes entries one after the other. Nothing depends on time or place, so that equal
/// content gives equal bytes.
#[derive(Debug)]
pub struct ZipWriter<W> {
    out: W,
    at: u64,
    directory: Vec<u8>,
    entries: u64,
    /// Sizes and places from here on are written as zip64.
    limit: u64,
}

impl<W: Write> ZipWriter<W> {
    /// An empty archive.
    pub fn new(out: W) -> Self {
        Self {
            out,
            at: 0,
            directory: Vec::new(),
            entries: 0,
            limit: u64::from(u32::MAX),
        }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// If writing fails, or the name is longer than the format allows.
    pub fn add(&mut self, name: &str, data: &[u8]) -> io::Result<()> {
        let mut rest = data;
        self.add_from(name, data.len() as u64, crc32fast::hash(data), &mut rest)
    }

    /// Adds an entry of `size` bytes with the CRC-32 `crc` from a reader that gives exactly these.
    ///
    /// # Errors
    /// As [`ZipWriter::add`], or if the reader fails or ends too soon.
    pub fn add_from(
        &mut self,
        name: &str,
        size: u64,
        crc: u32,
        data: &mut dyn Read,
    ) -> io::Result<()> {
        self.entry(name, STORED, [size, size], crc, data)
    }

    /// Adds an entry that is deflated, as `numpy.savez_compressed` does.
    ///
    /// # Errors
    /// As [`ZipWriter::add`].
    pub fn add_deflated(&mut self, name: &str, data: &[u8]) -> io::Result<()> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(data)?;
        let packed = encoder.finish()?;
        let sizes = [data.len() as u64, packed.len() as u64];
        let crc = crc32fast::hash(data);
        self.entry(name, DEFLATED, sizes, crc, &mut packed.as_slice())
    }

    /// Adds an entry of `size` bytes that are `stored` ones in the archive.
    fn entry(
        &mut self,
        name: &str,
        method: u16,
        [size, stored]: [u64; 2],
        crc: u32,
        data: &mut dyn Read,
    ) -> io::Result<()> {
        let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let name_len = u16::try_from(name.len()).map_err(too_long)?;
        let header = self.at;
        let narrow = |x: u64, wide: &mut Vec<u64>| match u32::try_from(x) {
            Ok(small) if x < self.limit => small,
            _ => {
                wide.push(x);
                u32::MAX
            }
        };
        let mut local_wide = Vec::new();
        let mut size_fields = [
            narrow(stored, &mut local_wide),
            narrow(size, &mut local_wide),
        ];
        if !local_wide.is_empty() {
            // A local header has both sizes in its zip64 field or none.
            local_wide = vec![size, stored];
            size_fields = [u32::MAX; 2];
        }
        let mut central_wide = local_wide.clone();
        let header_field = narrow(header, &mut central_wide);

        let mut extra = extra_64(&local_wide);
        let unpadded = header + (LOCAL_LEN + name.len() + extra.len() + 4) as u64;
        let padding = (unpadded.next_multiple_of(ALIGN) - unpadded) as u16;
        extra.extend(EXTRA_PADDING.to_le_bytes());
        extra.extend(padding.to_le_bytes());
        extra.resize(extra.len() + usize::from(padding), b'Z');

        // Version 4.5 (zip64), names in UTF-8, the method, 1 January 1980.
        let mut common = Vec::new();
        for word in [45u16, 1 << 11, method, 0, 0x21] {
            common.extend(word.to_le_bytes());
        }
        for word in [crc, size_fields[0], size_fields[1]] {
            common.extend(word.to_le_bytes());
        }
        common.extend(name_len.to_le_bytes());

        let mut local = LOCAL.to_le_bytes().to_vec();
        local.extend(&common);
        local.extend((extra.len() as u16).to_le_bytes());
        local.extend(name.as_bytes());
        local.extend(&extra);
        self.put(&local)?;
        let copied = io::copy(&mut data.take(stored), &mut self.out)?;
        self.at += copied;
        if copied != stored {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }

        let extra = extra_64(&central_wide);
        self.directory.extend(CENTRAL.to_le_bytes());
        self.directory.extend(45u16.to_le_bytes());
        self.directory.extend(&common);
        self.directory.extend((extra.len() as u16).to_le_bytes());
        // No comment, disk 0, no attributes.
        self.directory.extend([0; 10]);
        self.directory.extend(header_field.to_le_bytes());
        self.directory.extend(name.as_bytes());
        self.directory.extend(&extra);
        self.entries += 1;
        Ok(())
    }

    /// Writes the directory.
    ///
    /// # Errors
    /// If writing fails.
    pub fn finish(mut self) -> io::Result<W> {
        let directory = std::mem::take(&mut self.directory);
        let (start, size) = (self.at, directory.len() as u64);
        self.put(&directory)?;
        // The zip64 forms are always written, as PyTorch does.
        let end_64 = self.at;
        let mut tail = END_64.to_le_bytes().to_vec();
        tail.extend((END_64_LEN as u64 - 12).to_le_bytes());
        tail.extend([45, 0, 45, 0]);
        tail.extend([0; 8]);
        for word in [self.entries, self.entries, size, start] {
            tail.extend(word.to_le_bytes());
        }
        tail.extend(LOCATOR_64.to_le_bytes());
        tail.extend(0u32.to_le_bytes());
        tail.extend(end_64.to_le_bytes());
        tail.extend(1u32.to_le_bytes());
        let entries = u16::try_from(self.entries).unwrap_or(u16::MAX);
        let narrow = |x: u64| u32::try_from(x).unwrap_or(u32::MAX);
        tail.extend(END.to_le_bytes());
        tail.extend([0; 4]);
        tail.extend(entries.to_le_bytes());
        tail.extend(entries.to_le_bytes());
        tail.extend(narrow(size).to_le_bytes());
        tail.extend(narrow(start).to_le_bytes());
        tail.extend([0; 2]);
        self.put(&tail)?;
        Ok(self.out)
    }
}

fn extra_64(values: &[u64]) -> Vec<u8> {
    let mut extra = Vec::new();
    if !values.is_empty() {
        extra.extend(EXTRA_64.to_le_bytes());
        extra.extend((8 * values.len() as u16).to_le_bytes());
        values.iter().for_each(|v| extra.extend(v.to_le_bytes()));
    }
    extra
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn archive(limit: u64) -> Vec<u8> {
        let mut writer = ZipWriter::new(Vec::new());
        writer.limit = limit;
        writer.add("a/one", b"first").unwrap();
        writer.add("a/empty", b"").unwrap();
        writer.add("a/two", &[7; 300]).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn what_was_written_is_found_again_also_as_zip64() {
        for limit in [u64::from(u32::MAX), 100, 0] {
            let bytes = archive(limit);
            let mut source = Cursor::new(bytes.as_slice());
            let archive = Archive::read(&mut source).unwrap();
            let mut read = |name: &str| archive.bytes(&mut source, name, 300).unwrap();
            assert_eq!(read("a/one"), b"first");
            assert_eq!(read("a/empty"), b"");
            assert_eq!(read("a/two"), [7; 300]);
            let (start, _) = archive.locate(&mut source, "a/two").unwrap();
            assert_eq!(start % ALIGN, 0);
            assert_eq!(archive.names().count(), 3);
        }
    }

    #[test]
    fn deflated_entries_come_back() {
        let data: Vec<u8> = (0..4000u32).map(|i| (i / 7) as u8).collect();
        for limit in [u64::from(u32::MAX), 100] {
            let mut writer = ZipWriter::new(Vec::new());
            writer.limit = limit;
            writer.add_deflated("x", &data).unwrap();
            writer.add("y", b"stored").unwrap();
            let bytes = writer.finish().unwrap();
            let mut source = Cursor::new(bytes.as_slice());
            let archive = Archive::read(&mut source).unwrap();
            let place = archive.place(&mut source, "x").unwrap();
            assert!(place.deflated && place.size == 4000 && place.stored < 4000);
            assert_eq!(place.crc, crc32fast::hash(&data));
            let start = place.start as usize;
            let packed = &bytes[start..start + place.stored as usize];
            let mut back = Vec::new();
            let mut decoder = flate2::read::DeflateDecoder::new(packed);
            decoder.read_to_end(&mut back).unwrap();
            assert_eq!(back, data);
            assert_eq!(archive.bytes(&mut source, "y", 10).unwrap(), b"stored");
            assert!(archive.locate(&mut source, "x").is_err());
        }
    }

    #[test]
    fn damage_is_named() {
        let whole = archive(u64::from(u32::MAX));
        let refused = |bytes: &[u8], word: &str| {
            let mut source = Cursor::new(bytes);
            let outcome = Archive::read(&mut source)
                .and_then(|archive| archive.bytes(&mut source, "a/two", 299));
            let message = outcome.unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        };
        refused(&whole, "more than 299");
        refused(&whole[..whole.len() - 1], "cut off");
        refused(b"PK\x03\x04", "cut off");
        refused(b"", "cut off");
        let changed = |find: &[u8], offset: usize, to: u8| {
            let mut bytes = whole.clone();
            let mut places = (0..bytes.len()).filter(|&i| bytes[i..].starts_with(find));
            let at = places.next_back().unwrap() + offset;
            bytes[at] = to;
            bytes
        };
        let record = CENTRAL.to_le_bytes();
        refused(&changed(&record, 10, 8), "compressed");
        refused(&changed(&record, 8, 1), "encrypted");
        refused(&changed(&record, 27, 1), "different sizes");
        refused(&changed(&record, 42, 1), "no header");
        refused(&changed(&record, 45, 1), "past the end");
        refused(&changed(&record, 28, 200), "directory is cut off");
        refused(&changed(&record, 0, 0), "directory is damaged");
        refused(&changed(&LOCATOR_64.to_le_bytes(), 8, 0), "zip64");
        refused(&changed(b"a/two", 2, b'x'), "missing");
    }
}
