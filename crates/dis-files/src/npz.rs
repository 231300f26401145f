//! `.npz` files of NumPy: a zip archive of arrays, stored (`numpy.savez`) or deflated
//! (`numpy.savez_compressed`), in C or Fortran order, of either byte order.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::read::DeflateDecoder;

pub use crate::array::{Array, ArrayError};

use crate::array::elements;
use crate::atomic::write_atomic_with;
use crate::element::ElementType;
use crate::error::{FileError, Result};
use crate::npy::NpyHeader;
use crate::sniff::{FileKind, expect_kind};
use crate::stored::offsets;
use crate::zip::{Archive, Place, ZipError, ZipWriter};

/// Deflate makes at most this many bytes of one.
const EXPANSION: u64 = 1032;
/// Most texts of a list.
const MOST_TEXTS: usize = 1 << 20;
/// Bytes that a deflated array is made room for before its data have come.
const FIRST_ROOM: u64 = 1 << 16;

/// An `.npz` file that was opened: the names of its arrays are known, their values still in it.
#[derive(Debug)]
pub struct NpzFile<R = File> {
    source: R,
    origin: PathBuf,
    archive: Archive,
}

impl NpzFile<File> {
    /// Opens a file.
    ///
    /// # Errors
    /// If it cannot be read, is a file of another kind, or its archive is damaged.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(FileError::io(path, "open it"))?;
        Self::new(file, path)
    }
}

impl<R: Read + Seek> NpzFile<R> {
    /// As [`NpzFile::open`], from anything that can be read at any place; `origin` names it in
    /// errors.
    ///
    /// # Errors
    /// As [`NpzFile::open`].
    pub fn new(mut source: R, origin: &Path) -> Result<Self> {
        expect_kind(&mut source, origin, &[FileKind::Zip], "an .npz file")?;
        let archive = Archive::read(&mut source).map_err(zip_error(origin))?;
        Ok(Self {
            source,
            origin: origin.to_path_buf(),
            archive,
        })
    }

    /// Names of the arrays, sorted.
    pub fn names(&self) -> Vec<&str> {
        let names = self.archive.names();
        let mut names: Vec<&str> = names.filter_map(|n| n.strip_suffix(".npy")).collect();
        names.sort_unstable();
        names
    }

    /// Whether there is an array of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.archive.contains(&format!("{name}.npy"))
    }

    /// Opens an array, to be read as its data come.
    ///
    /// # Errors
    /// If it is missing, of a type that is no plain number, or its size is not the one that its
    /// header says.
    pub fn reader(&mut self, name: &str) -> Result<ArrayReader<'_>> {
        self.open_array(name, |header| header)
    }

    /// Opens an array whose header is first changed by `read_as`.
    fn open_array(
        &mut self,
        name: &str,
        read_as: fn(NpyHeader) -> NpyHeader,
    ) -> Result<ArrayReader<'_>> {
        if !self.contains(name) {
            let names = self.names();
            let few: Vec<&&str> = names.iter().take(8).collect();
            let what = format!("has no array {name} (it has {few:?})");
            return Err(FileError::format(&self.origin, what));
        }
        let place = self
            .archive
            .place(&mut self.source, &format!("{name}.npy"))
            .map_err(zip_error(&self.origin))?;
        ArrayReader::new(&mut self.source, place, &self.origin, name, read_as)
    }

    /// Reads a list of texts, of NumPy's type `<U`.
    ///
    /// # Errors
    /// As [`NpzFile::array`], or if it is no list of texts.
    pub fn texts(&mut self, name: &str) -> Result<Vec<String>> {
        let reader = self.open_array(name, NpyHeader::texts_as_numbers)?;
        // Texts without characters would take no room in the file, however many there are.
        let (count, length) = match *reader.header().shape.as_slice() {
            [count, length] if count <= MOST_TEXTS && length > 0 => (count, length),
            _ => return Err(reader.refuse("is no list of texts")),
        };
        let array = reader.read_all()?;
        let numbers = array.bytes().chunks_exact(4).map(|bytes| {
            let (number, _) = bytes.split_first_chunk::<4>()?;
            char::from_u32(u32::from_le_bytes(*number))
        });
        let characters: Option<Vec<char>> = numbers.collect();
        let characters = characters
            .filter(|c| array.element() == ElementType::U32 && c.len() == count * length)
            .ok_or_else(|| {
                let what = format!("array {name} holds what is no text");
                FileError::format(&self.origin, what)
            })?;
        let text = |i: usize| {
            let padded: String = characters[i * length..(i + 1) * length].iter().collect();
            padded.trim_end_matches('\0').to_owned()
        };
        Ok((0..count).map(text).collect())
    }

    /// Reads a whole array.
    ///
    /// # Errors
    /// As [`NpzFile::reader`], or if the data are cut off or damaged.
    pub fn array(&mut self, name: &str) -> Result<Array> {
        self.reader(name)?.read_all()
    }
}

fn zip_error(origin: &Path) -> impl Fn(ZipError) -> FileError + '_ {
    move |error| match error {
        ZipError::Io(source) => FileError::io(origin, "read it")(source),
        other => FileError::format(origin, other.to_string()),
    }
}

/// An array whose header was read. Its data come as they are in the file; at their end it is
/// checked that no more follow and that they have the checksum of the archive.
pub struct ArrayReader<'a> {
    data: Hashed<'a>,
    origin: PathBuf,
    name: String,
    header: NpyHeader,
    element: ElementType,
    big_endian: bool,
    deflated: bool,
    /// Bytes of data that have not come yet.
    left: u64,
    expected: u32,
}

/// The data of an entry; hashes and counts what goes by.
struct Hashed<'a> {
    source: Box<dyn Read + 'a>,
    crc: crc32fast::Hasher,
    read: u64,
}

impl Read for Hashed<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read(out)?;
        self.crc.update(&out[..n]);
        self.read += n as u64;
        Ok(n)
    }
}

impl<'a> ArrayReader<'a> {
    fn new<R: Read + Seek>(
        file: &'a mut R,
        place: Place,
        origin: &Path,
        name: &str,
        read_as: fn(NpyHeader) -> NpyHeader,
    ) -> Result<Self> {
        let refuse = |what: String| FileError::format(origin, format!("array {name} {what}"));
        if place.size > place.stored.saturating_mul(EXPANSION) {
            let what = format!("claims {} bytes, which are not there", place.size);
            return Err(refuse(what));
        }
        file.seek(SeekFrom::Start(place.start))
            .map_err(FileError::io(origin, "read it"))?;
        let stored = file.take(place.stored);
        let mut data = Hashed {
            source: match place.deflated {
                true => Box::new(DeflateDecoder::new(stored)),
                false => Box::new(stored),
            },
            crc: crc32fast::Hasher::new(),
            read: 0,
        };
        let header = NpyHeader::read(&mut data).map_err(|e| refuse(e.to_string()))?;
        let header = read_as(header);
        let Some((element, big_endian)) = header.element() else {
            let what = match header.descr.contains('O') {
                true => "holds Python objects, which cannot be read without running code".into(),
                false => format!("is of type {:?}, which is not read", header.descr),
            };
            return Err(refuse(what));
        };
        let needed = elements(&header.shape).and_then(|n| n.checked_mul(element.size() as u64));
        let have = place.size.saturating_sub(data.read);
        if needed != Some(have) {
            return Err(refuse(format!(
                "of shape {:?} and type {} has {have} bytes",
                header.shape, header.descr
            )));
        }
        Ok(Self {
            data,
            origin: origin.to_path_buf(),
            name: name.to_string(),
            header,
            element,
            big_endian,
            deflated: place.deflated,
            left: have,
            expected: place.crc,
        })
    }

    /// What the array says of itself.
    pub fn header(&self) -> &NpyHeader {
        &self.header
    }

    /// Type of the elements.
    pub fn element(&self) -> ElementType {
        self.element
    }

    /// Bytes for which memory may be taken before they have come: all that are left of a stored
    /// array, which lie in the file, and a few of a deflated one.
    pub fn room(&self) -> usize {
        let room = if self.deflated {
            self.left.min(FIRST_ROOM)
        } else {
            self.left
        };
        usize::try_from(room).unwrap_or(usize::MAX)
    }

    fn refuse(&self, what: impl std::fmt::Display) -> FileError {
        FileError::format(&self.origin, format!("array {} {what}", self.name))
    }

    /// The next bytes of the data, in the byte order and the order of elements that the header says.
    ///
    /// # Errors
    /// If the data are cut off or damaged.
    pub fn read_exact(&mut self, out: &mut [u8]) -> Result<()> {
        if out.len() as u64 > self.left {
            return Err(self.refuse("has no more data"));
        }
        let read = self.data.read_exact(out);
        read.map_err(|e| self.damaged(&e))?;
        self.left -= out.len() as u64;
        if self.left == 0 {
            self.finish()
        } else {
            Ok(())
        }
    }

    fn damaged(&self, error: &io::Error) -> FileError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.refuse("is cut off"),
            _ => self.refuse(format!("cannot be read: {error}")),
        }
    }

    /// What follows the last element: nothing.
    fn finish(&mut self) -> Result<()> {
        let more = self.data.read(&mut [0]).map_err(|e| self.damaged(&e))?;
        if more > 0 {
            return Err(self.refuse("has more data than the archive says"));
        }
        if self.data.crc.clone().finalize() != self.expected {
            return Err(self.refuse("is damaged: its checksum is not that of the archive"));
        }
        Ok(())
    }

    /// Reads all of it, little-endian and in C order. Memory is taken as the data come, so that
    /// sizes which a small file only announces cost nothing.
    ///
    /// # Errors
    /// If the data are cut off or damaged.
    pub fn read_all(mut self) -> Result<Array> {
        let mut bytes = Vec::new();
        loop {
            let (start, room) = (bytes.len(), self.room().max(bytes.len()));
            let more = room.min(usize::try_from(self.left).unwrap_or(usize::MAX));
            bytes.reserve_exact(more);
            bytes.resize(start + more, 0);
            self.read_exact(&mut bytes[start..])?;
            if self.left == 0 {
                break;
            }
        }
        let width = self.element.size();
        if self.big_endian {
            bytes.chunks_exact_mut(width).for_each(<[u8]>::reverse);
        }
        let shape = self.header.shape;
        if self.header.fortran_order && shape.len() > 1 {
            bytes = c_order(&bytes, &shape, width);
        }
        Ok(Array::new(self.element, shape, bytes))
    }
}

/// Elements whose first index runs fastest, in the order in which the last does.
fn c_order(bytes: &[u8], shape: &[usize], width: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    if bytes.is_empty() {
        return out;
    }
    let mut strides = vec![0; shape.len()];
    let mut stride = 1;
    for (out, &length) in strides.iter_mut().zip(shape) {
        *out = stride;
        stride *= length;
    }
    for at in offsets(shape, &strides).take(bytes.len() / width.max(1)) {
        out.extend_from_slice(&bytes[at * width..(at + 1) * width]);
    }
    out
}

/// Writes arrays as `numpy.savez` does, whole or not at all.
///
/// # Errors
/// If the file cannot be written.
pub fn write_npz(path: &Path, arrays: &[(&str, &Array)]) -> Result<()> {
    write_atomic_with(path, |file| {
        let mut zip = ZipWriter::new(file);
        for (name, array) in arrays {
            let mut bytes = NpyHeader::new(array.element(), array.shape()).to_bytes();
            bytes.extend(array.bytes());
            zip.add(&format!("{name}.npy"), &bytes)?;
        }
        zip.finish()?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use flate2::Compression;
    use flate2::write::DeflateEncoder;
    use proptest::prelude::*;

    use super::*;

    /// An entry of an archive, with the sizes that are claimed.
    struct Entry<'a> {
        name: &'a str,
        content: &'a [u8],
        deflated: bool,
        claimed: usize,
    }

    /// A zip archive of one entry.
    fn archive(entry: &Entry<'_>) -> Vec<u8> {
        let packed = match entry.deflated {
            true => {
                let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
                io::Write::write_all(&mut encoder, entry.content).unwrap();
                encoder.finish().unwrap()
            }
            false => entry.content.to_vec(),
        };
        let fields = |out: &mut Vec<u8>| {
            out.extend(if entry.deflated { 8u16 } else { 0 }.to_le_bytes());
            out.extend([0; 4]);
            out.extend(crc32fast::hash(entry.content).to_le_bytes());
            out.extend((packed.len() as u32).to_le_bytes());
            out.extend((entry.claimed as u32).to_le_bytes());
            out.extend((entry.name.len() as u16).to_le_bytes());
            out.extend([0; 2]);
        };
        let mut zip = b"PK\x03\x04\x14\x00\x00\x00".to_vec();
        fields(&mut zip);
        zip.extend(entry.name.as_bytes());
        zip.extend(&packed);
        let directory = zip.len();
        zip.extend(b"PK\x01\x02\x14\x00\x14\x00\x00\x00");
        fields(&mut zip);
        zip.extend([0; 14]);
        zip.extend(entry.name.as_bytes());
        let size = zip.len() - directory;
        zip.extend(b"PK\x05\x06\x00\x00\x00\x00\x01\x00\x01\x00");
        zip.extend((size as u32).to_le_bytes());
        zip.extend((directory as u32).to_le_bytes());
        zip.extend([0; 2]);
        zip
    }

    fn content(descr: &str, fortran_order: bool, shape: &[usize], data: &[u8]) -> Vec<u8> {
        let header = NpyHeader {
            descr: descr.into(),
            fortran_order,
            shape: shape.to_vec(),
        };
        [&header.to_bytes(), data].concat()
    }

    fn read(bytes: &[u8]) -> Result<Array> {
        NpzFile::new(Cursor::new(bytes), Path::new("s.npz"))?.array("mu")
    }

    fn whole(content: &[u8], deflated: bool) -> Vec<u8> {
        archive(&Entry {
            name: "mu.npy",
            content,
            deflated,
            claimed: content.len(),
        })
    }

    proptest! {
        /// However it is stored, an array is the same.
        #[test]
        fn orders_and_compression_do_not_matter(
            shape in prop::collection::vec(1usize..5, 0..4), deflated: bool,
            fortran_order: bool, big: bool,
        ) {
            let n: usize = shape.iter().product();
            let values: Vec<f64> = (0..n).map(|i| (i as f64).sqrt() - 1.5).collect();
            let expected = Array::from_f64(&shape, &values).unwrap();
            let mut order: Vec<usize> = (0..n).collect();
            if fortran_order {
                // The place of each element, its first index running fastest.
                let place = |flat: usize| {
                    let (mut rest, mut stride, mut at) = (flat, n, 0);
                    for &length in shape.iter().rev() {
                        stride /= length;
                        at += rest % length * stride;
                        rest /= length;
                    }
                    at
                };
                order.sort_by_key(|&flat| place(flat));
            }
            let bytes = |v: f64| if big { v.to_be_bytes() } else { v.to_le_bytes() };
            let data: Vec<u8> = order.iter().flat_map(|&i| bytes(values[i])).collect();
            let descr = if big { ">f8" } else { "<f8" };
            let content = content(descr, fortran_order, &shape, &data);
            prop_assert_eq!(read(&whole(&content, deflated)).unwrap(), expected);
        }
    }

    #[test]
    fn arrays_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.npz");
        let mu = Array::from_f64(&[3], &[0.5, -1.0, 2.0]).unwrap();
        let sigma = Array::from_f64(&[0, 3], &[]).unwrap();
        write_npz(&path, &[("mu", &mu), ("sigma", &sigma)]).unwrap();
        let mut file = NpzFile::open(&path).unwrap();
        assert_eq!(file.names(), ["mu", "sigma"]);
        assert_eq!(file.array("mu").unwrap(), mu);
        assert_eq!(file.array("sigma").unwrap(), sigma);
        let message = file.array("nu").unwrap_err().to_string();
        assert!(
            message.contains("has no array nu (it has [\"mu\", \"sigma\"])"),
            "{message}"
        );
        assert!(Array::from_f64(&[2], &[0.0]).is_err());
    }

    #[test]
    fn false_claims_are_not_believed() {
        let data: Vec<u8> = (0..80)
            .flat_map(|i| (i as f32 / 4.0).to_le_bytes())
            .collect();
        let right = content("<f4", false, &[40, 2], &data);
        let refused = |bytes: &[u8], part: &str| {
            let e = read(bytes).unwrap_err().to_string();
            assert!(e.contains("s.npz: array mu") && e.contains(part), "{e}");
        };
        let size = right.len();
        for claimed in [size + 1, size - 1, 200, u32::MAX as usize - 1] {
            for deflated in [false, true] {
                let bytes = archive(&Entry {
                    name: "mu.npy",
                    content: &right,
                    deflated,
                    claimed,
                });
                assert!(read(&bytes).is_err(), "{claimed}");
            }
        }
        // More comes out than the array says it has, and the archive says the same.
        let mut more = right.clone();
        more.resize(1 << 20, 0);
        let bomb = Entry {
            name: "mu.npy",
            content: &more,
            deflated: true,
            claimed: size,
        };
        refused(&archive(&bomb), "more data");
        refused(&whole(&more, true), "of shape [40, 2]");
        // Sizes that only the header of the array announces.
        let huge = content("<f4", false, &[1 << 40, 1 << 40], &data);
        refused(&whole(&huge, true), "bytes");
        let mut changed = whole(&right, false);
        let at = changed
            .windows(4)
            .position(|w| w == 2.5f32.to_le_bytes())
            .unwrap();
        changed[at] ^= 1;
        refused(&changed, "checksum");
        let mut cut = whole(&right, true);
        let middle = cut.len() / 3;
        cut[middle..middle + 8].fill(0xFF);
        assert!(read(&cut).is_err());
    }

    #[test]
    fn types_are_named() {
        let of = |descr: &str, data: &[u8]| read(&whole(&content(descr, false, &[2], data), true));
        assert_eq!(of("|i1", &[255, 3]).unwrap().to_i64().unwrap(), [-1, 3]);
        assert_eq!(
            of(">u2", &[1, 0, 0, 2]).unwrap().to_i64().unwrap(),
            [256, 2]
        );
        assert_eq!(
            of("<f2", &[0, 0x3C, 0, 0xC0]).unwrap().to_f64().unwrap(),
            [1.0, -2.0]
        );
        assert!(of("<u8", &[255; 16]).unwrap().to_i64().is_err());
        assert!(of("<f4", &[0; 8]).unwrap().to_i64().is_err());
        assert!(of("<i4", &[0; 8]).unwrap().to_f64().is_err());
        for (descr, part) in [
            ("|O", "Python objects"),
            ("<U2", "\"<U2\""),
            ("<c8", "\"<c8\""),
        ] {
            let e = of(descr, &[0; 16]).unwrap_err().to_string();
            assert!(e.contains(part), "{e}");
        }
        let e = NpzFile::new(Cursor::new(b"\x93NUMPY\x01\0"), Path::new("x")).unwrap_err();
        assert!(e.to_string().contains("(.npy), not an .npz file"), "{e}");
    }
}
