//! Writing many images into an `.npz` file, over as many runs as it takes.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use dis_files::zip::ZipWriter;
use dis_files::{ElementType, LockFile, NpyHeader, write_atomic_with};

use super::read::CLASS_NAMES;
use crate::{DataError, ImageShape, Result};

/// First bytes of a file that is being filled, with the version of its layout.
const MAGIC: &[u8; 8] = b"dis-npz1";
/// Longest text of settings.
const LONGEST: usize = 1 << 20;

/// An `.npz` file in the making. Until it is whole, its images lie in a file beside it, its name
/// with `.partial` after it: magic, length of the settings, settings, then the images so far. A
/// process that is killed loses the images that it had not appended, and the next continues. Two
/// processes cannot fill one file at once.
#[derive(Debug)]
pub struct NpzImages {
    target: PathBuf,
    partial: PathBuf,
    file: File,
    shape: ImageShape,
    count: usize,
    begin: u64,
    done: usize,
    _lock: LockFile,
}

impl NpzImages {
    /// Begins, or continues what an earlier run with the same `settings` left.
    ///
    /// # Errors
    /// If files cannot be written, the earlier run had other settings, or another process is at it.
    pub fn open(target: &Path, shape: ImageShape, count: usize, settings: &str) -> Result<Self> {
        let lock = lock(target)?;
        let partial = partial_path(target);
        let failed = DataError::io(&partial, "write");
        let mut head = MAGIC.to_vec();
        head.extend((settings.len() as u64).to_le_bytes());
        head.extend(settings.as_bytes());
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&partial)
            .map_err(&failed)?;
        let begin = head.len() as u64;
        let len = file.metadata().map_err(&failed)?.len();
        let mut done = 0;
        match earlier(&mut file, len).map_err(&failed)? {
            Earlier::None => {
                file.set_len(0).map_err(&failed)?;
                file.seek(SeekFrom::Start(0)).map_err(&failed)?;
                file.write_all(&head).map_err(&failed)?;
            }
            Earlier::Settings(found) if found == settings => {
                let images = (len - begin) / shape.len() as u64;
                done = usize::try_from(images).unwrap_or(usize::MAX).min(count);
            }
            Earlier::Settings(found) => {
                let what = format!(
                    "was begun with other settings: {}; finish it with those or delete it",
                    differing_settings(&found, settings)
                );
                return Err(DataError::format(&partial, what));
            }
            Earlier::Other => {
                return Err(in_the_way(&partial));
            }
        }
        let mut images = Self {
            target: target.to_path_buf(),
            partial,
            file,
            shape,
            count,
            begin,
            done,
            _lock: lock,
        };
        images.rewind().map_err(|e| images.failed(e))?;
        Ok(images)
    }

    /// Removes what an earlier run left unfinished, if there is anything.
    ///
    /// # Errors
    /// If it is no unfinished file, another process is at it, or it cannot be removed.
    pub fn discard(target: &Path) -> Result<()> {
        let _lock = lock(target)?;
        let path = partial_path(target);
        let failed = DataError::io(&path, "remove");
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(failed(e)),
        };
        let len = file.metadata().map_err(&failed)?.len();
        if let Earlier::Other = earlier(&mut file, len).map_err(&failed)? {
            return Err(in_the_way(&path));
        }
        std::fs::remove_file(&path).map_err(&failed)
    }

    fn failed(&self, cause: io::Error) -> DataError {
        DataError::io(&self.partial, "write")(cause)
    }

    /// Cuts off what is beyond the images that count.
    fn rewind(&mut self) -> io::Result<()> {
        let end = self.begin + (self.done * self.shape.len()) as u64;
        self.file.set_len(end)?;
        self.file.seek(SeekFrom::Start(end))?;
        Ok(())
    }

    /// Images that are there.
    pub fn done(&self) -> usize {
        self.done
    }

    /// Adds images, (n, channels, height, width), and makes sure that they are on the disk.
    ///
    /// # Errors
    /// If there are more than are wanted, parts of images, or the file cannot be written; what was
    /// there stays.
    pub fn append(&mut self, images: &[u8]) -> Result<()> {
        let (channels, pixels) = (self.shape.channels, self.shape.height * self.shape.width);
        let more = images.len() / self.shape.len().max(1);
        if more * self.shape.len() != images.len() || self.done + more > self.count {
            return Err(DataError::Invalid {
                what: format!(
                    "{} bytes are not up to {} images of {}",
                    images.len(),
                    self.count - self.done,
                    self.shape
                ),
            });
        }
        let mut interleaved = Vec::with_capacity(images.len());
        for image in images.chunks_exact(self.shape.len()) {
            for pixel in 0..pixels {
                interleaved.extend((0..channels).map(|c| image[c * pixels + pixel]));
            }
        }
        let written = self
            .file
            .write_all(&interleaved)
            .and_then(|()| self.file.sync_data());
        if let Err(cause) = written {
            // Best effort: the failure that matters is already being reported.
            let _ = self.rewind();
            return Err(self.failed(cause));
        }
        self.done += more;
        Ok(())
    }

    /// Writes the file when all images are there, with the class of each as `arr_1`, and removes
    /// the unfinished one. Names of the classes, if there are any, become `class_names`.
    ///
    /// # Errors
    /// If images are missing or files cannot be written; the unfinished one is then still there.
    pub fn finish(mut self, labels: Option<&[u32]>, names: &[String]) -> Result<()> {
        if self.done != self.count || labels.is_some_and(|l| l.len() != self.count) {
            return Err(DataError::Invalid {
                what: format!(
                    "{} of {} images are there, with {:?} labels",
                    self.done,
                    self.count,
                    labels.map(<[u32]>::len)
                ),
            });
        }
        let ImageShape {
            channels,
            height,
            width,
        } = self.shape;
        let shape = [self.count, height, width, channels];
        let header = NpyHeader::new(ElementType::U8, &shape).to_bytes();
        let bytes = (self.count * self.shape.len()) as u64;
        let crc = self.checksum(&header).map_err(|e| self.failed(e))?;
        let labels = labels.map(|labels| {
            let mut array = NpyHeader::new(ElementType::I64, &[labels.len()]).to_bytes();
            array.extend(labels.iter().flat_map(|&l| i64::from(l).to_le_bytes()));
            array
        });
        let names = (labels.is_some() && !names.is_empty()).then(|| texts(names));
        let begin = self.begin;
        let file = &mut self.file;
        write_atomic_with(&self.target, |out| {
            file.seek(SeekFrom::Start(begin))?;
            let mut zip = ZipWriter::new(out);
            let mut data = header.as_slice().chain(BufReader::new(&mut *file));
            zip.add_from("arr_0.npy", header.len() as u64 + bytes, crc, &mut data)?;
            if let Some(labels) = &labels {
                zip.add("arr_1.npy", labels)?;
            }
            if let Some(names) = &names {
                zip.add(&format!("{CLASS_NAMES}.npy"), names)?;
            }
            zip.finish()?;
            Ok(())
        })?;
        std::fs::remove_file(&self.partial).map_err(|e| self.failed(e))?;
        // Nothing is left to be guarded; where it cannot be removed the file stays, empty.
        let _ = std::fs::remove_file(lock_path(&self.target));
        Ok(())
    }

    /// CRC-32 of a header and all images.
    fn checksum(&mut self, header: &[u8]) -> io::Result<u32> {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(header);
        self.file.seek(SeekFrom::Start(self.begin))?;
        let mut buffer = vec![0; 1 << 16];
        let mut left = self.count * self.shape.len();
        while left > 0 {
            let part = left.min(buffer.len());
            self.file.read_exact(&mut buffer[..part])?;
            hasher.update(&buffer[..part]);
            left -= part;
        }
        Ok(hasher.finalize())
    }
}

/// Where the images of an unfinished file lie.
fn partial_path(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_os_string();
    name.push(".partial");
    target.with_file_name(name)
}

fn lock_path(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.lock"))
}

fn lock(target: &Path) -> Result<LockFile> {
    Ok(LockFile::acquire(&lock_path(target), "writing its images")?)
}

fn in_the_way(path: &Path) -> DataError {
    DataError::format(path, "is in the way: it is no unfinished file of samples")
}

/// An array of texts.
fn texts(texts: &[String]) -> Vec<u8> {
    let lengths = texts.iter().map(|text| text.chars().count());
    // NumPy has no texts without characters.
    let longest = lengths.max().unwrap_or_default().max(1);
    let mut array = NpyHeader::texts(texts.len(), longest).to_bytes();
    for text in texts {
        let padded = text.chars().chain(std::iter::repeat('\0')).take(longest);
        array.extend(padded.flat_map(|c| u32::from(c).to_le_bytes()));
    }
    array
}

enum Earlier {
    /// Nothing, or a beginning without an image.
    None,
    /// A run with these settings.
    Settings(String),
    /// Another file.
    Other,
}

fn earlier(file: &mut File, len: u64) -> io::Result<Earlier> {
    let mut head = [0; 16];
    let fixed = head.len() as u64;
    if len < fixed {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let ours = bytes.iter().zip(MAGIC).all(|(a, b)| a == b);
        return Ok(if ours { Earlier::None } else { Earlier::Other });
    }
    file.read_exact(&mut head)?;
    let (magic, length) = head.split_at(MAGIC.len());
    let length = u64::from_le_bytes(length.try_into().unwrap_or_default());
    if magic != MAGIC || length > LONGEST as u64 {
        return Ok(Earlier::Other);
    }
    if len - fixed < length {
        return Ok(Earlier::None);
    }
    let mut settings = vec![0; length as usize];
    file.read_exact(&mut settings)?;
    Ok(match String::from_utf8(settings) {
        Ok(text) => Earlier::Settings(text),
        Err(_) => Earlier::Other,
    })
}

/// Which of the settings `before`, a line `key: value` each, are others `now`; the first few.
pub fn differing_settings(before: &str, now: &str) -> String {
    fn key(line: &str) -> &str {
        line.split_once(": ").map_or(line, |(key, _)| key)
    }
    let mut different = Vec::new();
    for line in now.lines() {
        match before.lines().find(|old| key(old) == key(line)) {
            Some(old) if old == line => {}
            Some(old) => different.push(format!("{old} then, {line} now")),
            None => different.push(format!("{line} is new")),
        }
    }
    let gone = before
        .lines()
        .filter(|old| !now.lines().any(|line| key(line) == key(old)));
    different.extend(gone.map(|old| format!("{old} then, none now")));
    different.truncate(4);
    different.join("; ")
}
