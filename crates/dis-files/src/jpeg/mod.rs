//! Whether a JPEG file is whole. Decoders make a picture of what is there, however little, and fill
//! the rest with grey; a picture cut off in a download would be trained on without a word.
//!
//! Encoders write the marker that ends a picture last, so a file that was cut off, or whose rest was
//! never written, lacks it. Where a tool has put the marker behind what there was, the compressed
//! data are counted: a scan that has fewer blocks than its picture was cut off too.

mod scan;

use scan::{Component, Frame, Scan, Tables};

const START_OF_FRAME: std::ops::RangeInclusive<u8> = 0xc0..=0xcf;
const HUFFMAN_TABLES: u8 = 0xc4;
/// What lies among the frames and is none: a reserved code and the tables of arithmetic coding.
const NO_FRAMES: [u8; 2] = [0xc8, 0xcc];
const RESTARTS: std::ops::RangeInclusive<u8> = 0xd0..=0xd7;
const START_OF_IMAGE: u8 = 0xd8;
const END_OF_IMAGE: u8 = 0xd9;
const START_OF_SCAN: u8 = 0xda;
const RESTART_INTERVAL: u8 = 0xdd;
const TEMPORARY: u8 = 0x01;

/// Whether all of a picture is there. Markers within segments, such as those of a thumbnail, do not
/// count, nor does what follows the end. A file that cannot be followed but has its end counts as
/// whole: decoding it says what is wrong.
pub fn jpeg_is_whole(bytes: &[u8]) -> bool {
    let mut picture = Progress::default();
    // Between segments, and in the compressed data of a scan, 0xff begins a marker.
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|&b| b == 0xff) {
        rest = &rest[at..];
        let fill = rest.iter().take_while(|&&b| b == 0xff).count();
        let Some((&code, after)) = rest[fill..].split_first() else {
            return false;
        };
        rest = match code {
            END_OF_IMAGE => return picture.is_complete(),
            // A byte 0xff of compressed data has a zero behind it.
            0 | START_OF_IMAGE | TEMPORARY => after,
            code if RESTARTS.contains(&code) => after,
            _ => {
                let length = after.first_chunk().map_or(0, |&b| u16::from_be_bytes(b));
                let Some((segment, rest)) = after.split_at_checked(usize::from(length)) else {
                    return false;
                };
                picture.segment(code, segment.get(2..).unwrap_or_default(), rest);
                rest
            }
        };
    }
    false
}

/// What has been seen of a picture.
#[derive(Default)]
struct Progress {
    /// None before it was seen, and where its coding is not followed.
    frame: Option<Frame>,
    tables: Tables,
    restart_interval: usize,
    cut_off: bool,
}

impl Progress {
    /// Takes in a segment; `rest` is what follows it.
    fn segment(&mut self, code: u8, content: &[u8], rest: &[u8]) {
        match code {
            HUFFMAN_TABLES => self.tables.define(content),
            RESTART_INTERVAL => {
                let interval = content.first_chunk().map_or(0, |&b| u16::from_be_bytes(b));
                self.restart_interval = usize::from(interval);
            }
            START_OF_SCAN => {
                let Some(frame) = &mut self.frame else { return };
                match Scan::parse(content, frame) {
                    Some(scan) => {
                        self.cut_off |=
                            scan.is_cut_off(frame, &self.tables, self.restart_interval, rest);
                    }
                    None => self.frame = None,
                }
            }
            code if START_OF_FRAME.contains(&code) && !NO_FRAMES.contains(&code) => {
                self.frame = Frame::parse(code, content);
            }
            _ => {}
        }
    }

    fn is_complete(&self) -> bool {
        let seen = |frame: &Frame| frame.components.iter().all(Component::was_scanned);
        !self.cut_off && self.frame.as_ref().is_none_or(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_counts_where_it_is_one() {
        let whole = |parts: &[&[u8]]| jpeg_is_whole(&parts.concat());
        let (start, end) = (&[0xff, 0xd8][..], &[0xff, 0xd9][..]);
        let scan = &[0xff, 0xda, 0, 3, 1, 7, 0xff, 0, 8, 0xff, 0xd0, 9][..];
        let thumbnail = &[0xff, 0xe1, 0, 6, 0xff, 0xd8, 0xff, 0xd9][..];
        assert!(whole(&[start, thumbnail, scan, end]));
        assert!(whole(&[start, scan, scan, &[0xff, 0xff], end, b"garbage"]));
        assert!(!whole(&[start, thumbnail, scan]));
        assert!(!whole(&[start, scan, &[0; 99]]));
        assert!(!whole(&[start, scan, &[0xff]]));
        assert!(!whole(&[start, &[0xff, 0xe1, 0, 60], end]));
        assert!(!whole(&[]));
    }
}
