//! Writing an archive.

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::write::DeflateEncoder;

use super::{
    ALIGN, CENTRAL, DEFLATED, END, END_64, END_64_LEN, EXTRA_64, EXTRA_PADDING, LOCAL, LOCAL_LEN,
    LOCATOR_64, STORED,
};

/// Writes entries one after the other. Nothing depends on time or place, so that equal
/// content gives equal bytes.
#[derive(Debug)]
pub struct ZipWriter<W> {
    out: W,
    at: u64,
    directory: Vec<u8>,
    entries: u64,
    /// Sizes and places from here on are written as zip64.
    pub(super) limit: u64,
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
