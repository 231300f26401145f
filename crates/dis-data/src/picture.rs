//! Reading a picture file of any format, known by its first bytes and never by its name.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use dis_files::{SNIFF_LEN, jpeg_is_whole};
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};

use super::crop::{Picture, center_crop};
use super::{DataError, ImageShape, Result, normalise};

/// What is read.
const WANTED: &str = "a picture in a format that is read (png, jpeg, webp, bmp, tiff or gif)";

/// Usual endings of their files, in lower case.
const EXTENSIONS: [&str; 9] = [
    "png", "jpg", "jpeg", "jfif", "webp", "bmp", "tif", "tiff", "gif",
];

/// No picture takes more than this many bytes for each of its file: deflate expands by 1032 at most,
/// and a JPEG has at least a bit for 64 values. A few bytes must not ask for gigabytes.
const MOST_EXPANSION: u64 = 2048;

/// Bytes that a picture may take however short its file is, where a format has no limit to
/// expansion: one colour all over is a few bytes of WebP, GIF or TIFF.
const ALWAYS_ALLOWED: u64 = 1 << 28;

/// Longest file of a picture.
const LONGEST_FILE: u64 = 1 << 30;

/// First bytes that tell a format.
const HEAD: u64 = 32;

/// The format that the first bytes of a file tell, of those that are read.
fn format_of(head: &[u8]) -> Option<ImageFormat> {
    use ImageFormat::{Bmp, Gif, Jpeg, Png, Tiff, WebP};
    let format = image::guess_format(head).ok()?;
    // Two letters say too little; the size of the header follows at a fixed place.
    let bitmap = || matches!(head.get(14..18), Some([12 | 16 | 40..=124, 0, 0, 0]));
    (matches!(format, Jpeg | Png | Tiff | WebP | Gif) || format == Bmp && bitmap())
        .then_some(format)
}

/// Whether a file is meant as a picture: by its name, so that a damaged one is not passed over, or
/// by its first bytes. A file that cannot be looked into is none.
pub(super) fn is_meant(path: &Path) -> bool {
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    let named = extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str()));
    named || is_picture(path)
}

/// Whether the first bytes of a file are those of a picture.
pub(super) fn is_picture(path: &Path) -> bool {
    let mut head = Vec::new();
    // Opening a pipe would wait for its other end.
    path.is_file()
        && File::open(path)
            .and_then(|file| file.take(HEAD).read_to_end(&mut head))
            .is_ok_and(|_| format_of(&head).is_some())
}

/// One picture as a network sees it: cropped to `shape`, whose one channel is grey and three are
/// colours, channel by channel in [-1, 1].
///
/// # Errors
/// If the file cannot be read or does not decode.
pub fn read_picture(path: &Path, shape: ImageShape) -> Result<Vec<f32>> {
    let mut out = vec![0.0; shape.len()];
    normalise(&crop(path, shape)?, shape, u8::MAX, false, &mut out);
    Ok(out)
}

/// The levels of a picture's crop, channel by channel.
pub(super) fn crop(path: &Path, shape: ImageShape) -> Result<Box<[u8]>> {
    crop_bytes(&read_file(path)?, path, shape)
}

/// As [`crop`], of the content of a file; `path` names it in errors.
pub(super) fn crop_bytes(bytes: &[u8], path: &Path, shape: ImageShape) -> Result<Box<[u8]>> {
    let picture = decode(bytes, path, shape.channels == 1)?;
    let picture = center_crop(&picture, shape.height, shape.width);
    if picture.bytes.len() != shape.len() {
        return Err(DataError::format(path, "the picture has no pixels"));
    }
    let c = picture.channels;
    let plane = |channel| picture.bytes.iter().skip(channel).step_by(c).copied();
    Ok((0..c).flat_map(plane).collect())
}

/// The content of a picture's file.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(DataError::io(path, "open"))?;
    let mut bytes = Vec::new();
    file.take(LONGEST_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(DataError::io(path, "read"))?;
    if bytes.len() as u64 > LONGEST_FILE {
        let what = format!("is longer than {LONGEST_FILE} bytes, the most of a picture");
        return Err(DataError::format(path, what));
    }
    Ok(bytes)
}

/// Decodes a picture, turned as its Exif orientation says; of an animation the first frame.
/// Transparency is dropped; 16-bit pictures lose their low bytes; grey is BT.601 luma. `path` names
/// it in errors.
///
/// # Errors
/// If it does not decode, or is not whole.
pub(super) fn decode(bytes: &[u8], path: &Path, grey: bool) -> Result<Picture> {
    let decode = |cause| DataError::Decode {
        path: path.to_path_buf(),
        cause,
    };
    let Some(format) = format_of(bytes) else {
        let head = bytes.get(..SNIFF_LEN).unwrap_or(bytes);
        return Err(DataError::kind(path, head, WANTED));
    };
    let reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut decoder = reader.into_decoder().map_err(decode)?;
    let length = bytes.len() as u64;
    let unlimited = matches!(
        format,
        ImageFormat::WebP | ImageFormat::Gif | ImageFormat::Tiff
    );
    let least = if unlimited { ALWAYS_ALLOWED } else { 0 };
    let most = length.saturating_mul(MOST_EXPANSION).max(least);
    if decoder.total_bytes() > most {
        let (width, height) = decoder.dimensions();
        let what = format!(
            "a picture of {width}x{height} cannot be in a file of {length} bytes: it is damaged"
        );
        return Err(DataError::format(path, what));
    }
    if !is_whole(bytes, format) {
        let what = "truncated: the file ends before its picture does";
        return Err(DataError::format(path, what));
    }
    let orientation = decoder.orientation().map_err(decode)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(decode)?;
    picture.apply_orientation(orientation);
    let rgb = picture.into_rgb8();
    let (height, width) = (rgb.height() as usize, rgb.width() as usize);
    let mut bytes = rgb.into_raw();
    let channels = if grey { 1 } else { 3 };
    if grey {
        bytes = bytes.chunks_exact(3).map(luma).collect();
    }
    Ok(Picture {
        height,
        width,
        channels,
        bytes,
    })
}

/// Whether nothing is missing at the end, where decoders of a format pass over that.
fn is_whole(bytes: &[u8], format: ImageFormat) -> bool {
    match format {
        ImageFormat::Jpeg => jpeg_is_whole(bytes),
        ImageFormat::WebP => {
            let size = bytes.get(4..).and_then(|b| b.first_chunk());
            let size = size.map_or(0, |&b| u64::from(u32::from_le_bytes(b)));
            bytes.len() as u64 >= 8 + size
        }
        _ => true,
    }
}

/// BT.601 luma in 16-bit fixed point; the weights add up to one, so grey stays as it is.
fn luma(rgb: &[u8]) -> u8 {
    let [r, g, b] = [rgb[0], rgb[1], rgb[2]].map(u32::from);
    ((19595 * r + 38470 * g + 7471 * b + 0x8000) >> 16) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageBuffer, Luma, LumaA, Rgb, Rgba};

    fn encoded(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut out = Cursor::new(Vec::new());
        picture.into().write_to(&mut out, format).unwrap();
        out.into_inner()
    }

    /// Named so that only the content can decide.
    fn decoded(bytes: &[u8], grey: bool) -> Result<Picture> {
        decode(bytes, Path::new("a.png"), grey)
    }

    fn gradient(x: u32, y: u32) -> [u8; 3] {
        [x as u8 * 9, y as u8 * 7, 200]
    }

    #[test]
    fn every_format_gives_the_same_levels() {
        let picture = ImageBuffer::from_fn(9, 5, |x, y| Rgb(gradient(x, y)));
        for format in [
            ImageFormat::Png,
            ImageFormat::Bmp,
            ImageFormat::Tiff,
            ImageFormat::WebP,
        ] {
            let ours = decoded(&encoded(picture.clone(), format), false).unwrap();
            assert_eq!((ours.height, ours.width), (5, 9));
            assert!(ours.bytes == picture.as_raw()[..], "{format:?}");
        }
        let two = ImageBuffer::from_fn(6, 3, |x, _| Rgb([[9, 8, 7], [250, 0, 4]][x as usize % 2]));
        let gif = encoded(DynamicImage::from(two.clone()).to_rgba8(), ImageFormat::Gif);
        assert!(decoded(&gif, false).unwrap().bytes == two.into_raw());
        let jpeg = decoded(&encoded(picture, ImageFormat::Jpeg), true).unwrap();
        assert_eq!((jpeg.height, jpeg.width, jpeg.channels), (5, 9, 1));
    }

    #[test]
    fn transparency_and_low_bytes_are_dropped() {
        let clear = ImageBuffer::from_pixel(3, 3, Rgba([9, 8, 7, 0u8]));
        for format in [ImageFormat::Png, ImageFormat::Tiff, ImageFormat::WebP] {
            let ours = decoded(&encoded(clear.clone(), format), false).unwrap();
            assert_eq!(ours.bytes[..3], [9, 8, 7], "{format:?}");
        }
        let clear = ImageBuffer::from_pixel(3, 3, LumaA([9, 0u8]));
        let ours = decoded(&encoded(clear, ImageFormat::Png), true).unwrap();
        assert_eq!(ours.bytes, [9; 9]);
        let deep = ImageBuffer::from_pixel(2, 2, Luma([257u16 * 40]));
        for format in [ImageFormat::Png, ImageFormat::Tiff] {
            let ours = decoded(&encoded(deep.clone(), format), true).unwrap();
            assert_eq!(ours.bytes, [40; 4], "{format:?}");
        }
    }

    #[test]
    fn the_first_frame_of_an_animation_is_read() {
        let mut bytes = Vec::new();
        let mut encoder = image::codecs::gif::GifEncoder::new(&mut bytes);
        for level in [10, 200] {
            let frame = ImageBuffer::from_pixel(4, 2, Rgba([level, level, level, 255]));
            encoder.encode_frame(image::Frame::new(frame)).unwrap();
        }
        drop(encoder);
        assert_eq!(decoded(&bytes, true).unwrap().bytes, [10; 8]);
    }

    /// Large enough that a part of it is no picture by chance.
    fn busy() -> DynamicImage {
        ImageBuffer::from_fn(40, 40, |x, y| {
            Rgb([(x * y) as u8, (x * 31 + y * 17) as u8, 9])
        })
        .into()
    }

    #[test]
    fn pictures_cut_off_are_refused() {
        let progressive = include_bytes!("../tests/data/progressive.jpg").to_vec();
        let mut files = vec![(ImageFormat::Jpeg, progressive)];
        for format in [
            ImageFormat::Png,
            ImageFormat::Jpeg,
            ImageFormat::Bmp,
            ImageFormat::Tiff,
            ImageFormat::WebP,
            ImageFormat::Gif,
        ] {
            files.push((format, encoded(busy(), format)));
        }
        for (format, whole) in files {
            let ours = decoded(&whole, false).unwrap();
            // What follows the end of a picture is no part of it.
            let longer = [&whole[..], b"something else\xff"].concat();
            assert_eq!(decoded(&longer, false).unwrap(), ours, "{format:?}");
            for keep in [40, 70, 95] {
                let end = whole.len() * keep / 100;
                let cut = decoded(&whole[..end], false);
                assert!(cut.is_err(), "{format:?} {keep} %");
                if format == ImageFormat::Jpeg {
                    let mut zeros = whole.clone();
                    zeros[end..].fill(0);
                    // A tool may have put an end to what there was.
                    let ended = [&whole[..end], b"\xff\xd9"].concat();
                    for damaged in [zeros, ended] {
                        let e = decoded(&damaged, false).unwrap_err().to_string();
                        assert!(e.starts_with("a.png: truncated"), "{keep} % {e}");
                    }
                }
            }
            if matches!(format, ImageFormat::Jpeg | ImageFormat::WebP) {
                let e = decoded(&whole[..whole.len() - 1], false).unwrap_err();
                assert!(e.to_string().contains("truncated"), "{format:?} {e}");
            }
        }
    }

    #[test]
    fn what_is_no_picture_is_said() {
        let said = |bytes: &[u8]| decoded(bytes, false).unwrap_err().to_string();
        assert!(said(b"").starts_with("a.png: is empty, not a picture in a format that is read"));
        assert!(said(b"BMW and others").starts_with("a.png: is a text (\"BMW and others\"), not"));
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n";
        assert!(said(pointer).contains("is a Git LFS pointer, not a picture"));
        assert!(said(b"\x89PNG\r\n\x1a\nbroken").contains("cannot decode"));
        // Far more pixels than bytes.
        let mut bmp = encoded(
            ImageBuffer::from_pixel(1, 1, Rgb([0u8; 3])),
            ImageFormat::Bmp,
        );
        for at in [18, 22] {
            bmp[at..at + 4].copy_from_slice(&4_000u32.to_le_bytes());
        }
        let said = said(&bmp);
        assert!(
            said.contains("4000x4000 cannot be in a file of 58 bytes"),
            "{said}"
        );
    }
}
