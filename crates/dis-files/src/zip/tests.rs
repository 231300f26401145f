//! Archives written and read again, and damaged ones.

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
        let outcome =
            Archive::read(&mut source).and_then(|archive| archive.bytes(&mut source, "a/two", 299));
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
