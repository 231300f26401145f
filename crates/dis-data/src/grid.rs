//! Pictures of many images in rows and columns, written as PNG with a mark that this program drew them.

use std::path::Path;

use dis_files::write_atomic;

use super::captions;
use super::crop::Picture;
use super::outputs::{DRAWN_BY, DRAWN_WITH};
use super::{DataError, ImageShape, Result};

/// How images are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GridLayout {
    /// Images in a row.
    pub columns: usize,
    /// Pixels around and between images.
    pub padding: usize,
    /// Each pixel becomes a square of this side.
    pub scale: usize,
    /// Level of the padding and of missing images.
    pub background: u8,
}

impl GridLayout {
    /// Two pixels of black padding, no enlargement.
    pub fn new(columns: usize) -> Self {
        Self {
            columns,
            padding: 2,
            scale: 1,
            background: 0,
        }
    }

    /// Enlarges small images so that each is at least `pixels` high.
    pub fn enlarged(self, shape: ImageShape, pixels: usize) -> Self {
        Self {
            scale: pixels.div_ceil(shape.height.max(1)).max(1),
            ..self
        }
    }
}

/// Network values in [-1, 1] as bytes, rounded and clamped; what is not a number becomes 0.
pub fn to_bytes(values: &[f32]) -> Vec<u8> {
    // The cast truncates, saturates, and turns NaN into 0.
    values
        .iter()
        .map(|v| ((v + 1.0) * 127.5 + 0.5) as u8)
        .collect()
}

/// Pictures of images (n, channels, height, width): as they are with 1 or 3 channels. Others are
/// latents, which have about unit variance: their channels are shown side by side in grey, from
/// -3 to 3.
pub fn preview(values: &[f32], shape: ImageShape) -> (Vec<u8>, ImageShape) {
    let ImageShape {
        channels,
        height,
        width,
    } = shape;
    if matches!(channels, 1 | 3) || shape.is_empty() {
        return (to_bytes(values), shape);
    }
    let beside = ImageShape::from([1, height, width * channels]);
    let mut thirds = Vec::with_capacity(values.len());
    for image in values.chunks_exact(shape.len()) {
        for y in 0..height {
            for channel in 0..channels {
                let row = &image[(channel * height + y) * width..][..width];
                thirds.extend(row.iter().map(|v| v / 3.0));
            }
        }
    }
    (to_bytes(&thirds), beside)
}

/// Lays out images (n, channels, height, width), one byte a value, row by row; the last row may be
/// short.
///
/// # Errors
/// If the images are not 1 or 3 channels, their length is not a multiple of one image's, there is
/// none, or columns or scale are 0.
pub fn render(images: &[u8], shape: ImageShape, layout: GridLayout) -> Result<Picture> {
    render_with_captions(images, shape, layout, &[])
}

/// As [`render`], with a text before every row: the captions of the rows in order, on the left.
///
/// # Errors
/// As [`render`].
pub fn render_with_captions(
    images: &[u8],
    shape: ImageShape,
    layout: GridLayout,
    captions: &[String],
) -> Result<Picture> {
    let GridLayout {
        columns,
        padding,
        scale,
        background,
    } = layout;
    let invalid = |what: String| Err(DataError::Invalid { what });
    if columns == 0 || scale == 0 {
        return invalid(format!(
            "a grid needs columns and a scale, not {columns} and {scale}"
        ));
    }
    if !matches!(shape.channels, 1 | 3) {
        return invalid(format!(
            "a grid shows 1 or 3 channels, not {}",
            shape.channels
        ));
    }
    if shape.is_empty() || images.is_empty() || !images.len().is_multiple_of(shape.len()) {
        return invalid(format!(
            "{} bytes are not a grid of images of {shape}",
            images.len()
        ));
    }
    let n = images.len() / shape.len();
    let columns = columns.min(n);
    let (cell_h, cell_w) = (
        shape.height * scale + padding,
        shape.width * scale + padding,
    );
    let height = n.div_ceil(columns) * cell_h + padding;
    let margin = captions::margin(captions, padding);
    let width = margin + columns * cell_w + padding;
    let c = shape.channels;
    let mut bytes = vec![background; height * width * c];
    for (row, caption) in captions.iter().enumerate().take(n.div_ceil(columns)) {
        let top = row * cell_h + padding + (cell_h - padding).saturating_sub(captions::HEIGHT) / 2;
        captions::letters(caption, |x, y| {
            let (x, y) = (padding + x, top + y);
            if x < margin && y < height {
                bytes[(y * width + x) * c..][..c].fill(!background);
            }
        });
    }
    for (i, image) in images.chunks_exact(shape.len()).enumerate() {
        let (top, left) = (
            i / columns * cell_h + padding,
            margin + i % columns * cell_w + padding,
        );
        for y in 0..shape.height * scale {
            for x in 0..shape.width * scale {
                for channel in 0..c {
                    let row = channel * shape.height + y / scale;
                    bytes[((top + y) * width + left + x) * c + channel] =
                        image[row * shape.width + x / scale];
                }
            }
        }
    }
    Ok(Picture {
        height,
        width,
        channels: c,
        bytes,
    })
}

/// Writes a picture of 1 or 3 channels as PNG: to a temporary name beside it, synced, then
/// renamed, so that a file of this name is always whole. It is marked as drawn by this program
/// ([`DRAWN_BY`]), so that it does not count as data where it lies among them.
///
/// # Errors
/// If the picture does not encode or a file operation fails; nothing is left behind then.
pub fn write_png(path: &Path, picture: &Picture) -> Result<()> {
    let bytes = encode(path, std::slice::from_ref(picture), None, &[DRAWN_BY])?;
    Ok(write_atomic(path, &bytes)?)
}

/// As [`write_png`], with a text that says how the picture was drawn, which
/// [`drawn_with`](crate::drawn_with) reads: ASCII, in a chunk `tEXt` before the pixels.
///
/// # Errors
/// As [`write_png`], and for a text that is not ASCII.
pub fn write_png_with(path: &Path, picture: &Picture, text: &str) -> Result<()> {
    let texts = [DRAWN_BY, (DRAWN_WITH, text)];
    let bytes = encode(path, std::slice::from_ref(picture), None, &texts)?;
    Ok(write_atomic(path, &bytes)?)
}

/// As [`write_png`], without the mark: for pictures that are to be data.
///
/// # Errors
/// As [`write_png`].
pub fn write_unmarked_png(path: &Path, picture: &Picture) -> Result<()> {
    let bytes = encode(path, std::slice::from_ref(picture), None, &[])?;
    Ok(write_atomic(path, &bytes)?)
}

/// Writes pictures of one size and of 1 or 3 channels as an animated PNG that repeats for ever, with
/// the milliseconds that frames and the last frame stay. Whole or not at all, and marked, as
/// [`write_png`].
///
/// # Errors
/// If there is no picture, they differ in size, do not encode, or a file operation fails.
pub fn write_apng(path: &Path, frames: &[Picture], delays: (u16, u16)) -> Result<()> {
    let bytes = encode(path, frames, Some(delays), &[DRAWN_BY])?;
    Ok(write_atomic(path, &bytes)?)
}

/// A PNG of one picture, or with `delays` an animation of any number of them.
fn encode(
    path: &Path,
    frames: &[Picture],
    delays: Option<(u16, u16)>,
    texts: &[(&str, &str)],
) -> Result<Vec<u8>> {
    let invalid = |what: String| DataError::Invalid {
        what: format!("{}: {what}", path.display()),
    };
    let encoding = |cause: png::EncodingError| invalid(format!("cannot encode: {cause}"));
    let Some((first, rest)) = frames.split_first() else {
        return Err(invalid("an animation of no pictures".into()));
    };
    let Picture {
        height,
        width,
        channels,
        ..
    } = *first;
    if rest
        .iter()
        .any(|f| (f.height, f.width, f.channels) != (height, width, channels))
    {
        return Err(invalid(
            "the pictures of an animation differ in size".into(),
        ));
    }
    let colour = match channels {
        1 => png::ColorType::Grayscale,
        3 => png::ColorType::Rgb,
        c => return Err(invalid(format!("a picture has 1 or 3 channels, not {c}"))),
    };
    let (Ok(w), Ok(h), Ok(count)) = (
        u32::try_from(width),
        u32::try_from(height),
        u32::try_from(frames.len()),
    ) else {
        return Err(invalid(format!(
            "a picture of {height}x{width} is too large"
        )));
    };
    let size = height.saturating_mul(width).saturating_mul(channels);
    if let Some(wrong) = frames
        .iter()
        .find(|f| f.bytes.is_empty() || f.bytes.len() != size)
    {
        return Err(invalid(format!(
            "{} bytes are not {height}x{width} pixels",
            wrong.bytes.len()
        )));
    }
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, w, h);
    encoder.set_color(colour);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    encoder.set_filter(png::Filter::Adaptive);
    for (keyword, text) in texts {
        if !text.is_ascii() {
            return Err(invalid(format!("the text {keyword:?} is not ASCII")));
        }
        encoder
            .add_text_chunk((*keyword).into(), (*text).into())
            .map_err(encoding)?;
    }
    if let Some((each, _)) = delays {
        encoder.set_animated(count, 0).map_err(encoding)?;
        encoder.set_frame_delay(each, 1000).map_err(encoding)?;
    }
    let mut writer = encoder.write_header().map_err(encoding)?;
    for (i, frame) in frames.iter().enumerate() {
        match delays {
            Some((_, last)) if i + 1 == frames.len() => {
                writer.set_frame_delay(last, 1000).map_err(encoding)?;
            }
            _ => {}
        }
        writer.write_image_data(&frame.bytes).map_err(encoding)?;
    }
    writer.finish().map_err(encoding)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outputs::{drawn_with, is_drawn};
    use crate::picture::{decode, read_file};
    use proptest::prelude::*;

    const SHAPE: ImageShape = ImageShape {
        channels: 1,
        height: 2,
        width: 2,
    };

    #[test]
    fn bytes_round_clamp_and_survive_nan() {
        let values = [-1.0, 1.0, 0.0, -7.0, 7.0, f32::NAN, 1.0 / 127.5 - 1.0];
        assert_eq!(to_bytes(&values), [0, 255, 128, 0, 255, 0, 1]);
        // Every level comes back from its network value.
        let all: Vec<f32> = (0..=255u8).map(|v| f32::from(v) / 127.5 - 1.0).collect();
        assert_eq!(to_bytes(&all), (0..=255).collect::<Vec<u8>>());
    }

    #[test]
    fn latents_are_shown_channel_beside_channel() {
        let shape = ImageShape {
            channels: 4,
            ..SHAPE
        };
        let values: Vec<f32> = (0..32).map(|i| (i / 4) as f32 - 3.0).collect();
        let (bytes, beside) = preview(&values, shape);
        assert_eq!((beside.channels, beside.height, beside.width), (1, 2, 8));
        let row = to_bytes(&[
            -1.0,
            -1.0,
            -2.0 / 3.0,
            -2.0 / 3.0,
            -1.0 / 3.0,
            -1.0 / 3.0,
            0.0,
            0.0,
        ]);
        assert_eq!(bytes[..8], row);
        assert_eq!(bytes[8..16], row);
        assert!(render(&bytes, beside, GridLayout::new(1)).is_ok());
        assert_eq!(preview(&values, SHAPE), (to_bytes(&values), SHAPE));
    }

    #[test]
    fn rows_padding_and_scale() {
        let layout = GridLayout {
            columns: 2,
            padding: 1,
            scale: 1,
            background: 9,
        };
        let images = [1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13];
        let p = render(&images, SHAPE, layout).unwrap();
        assert_eq!((p.height, p.width, p.channels), (7, 7, 1));
        #[rustfmt::skip]
        assert_eq!(p.bytes, [
            9, 9, 9, 9, 9, 9, 9,
            9, 1, 2, 9, 5, 6, 9,
            9, 3, 4, 9, 7, 8, 9,
            9, 9, 9, 9, 9, 9, 9,
            9, 10, 11, 9, 9, 9, 9,
            9, 12, 13, 9, 9, 9, 9,
            9, 9, 9, 9, 9, 9, 9,
        ]);
        let layout = GridLayout {
            columns: 5,
            padding: 0,
            scale: 2,
            background: 0,
        };
        let p = render(&images[..4], SHAPE, layout).unwrap();
        assert_eq!(p.bytes, [1, 1, 2, 2, 1, 1, 2, 2, 3, 3, 4, 4, 3, 3, 4, 4]);
        assert_eq!(GridLayout::new(3).enlarged(SHAPE, 15).scale, 8);
    }

    #[test]
    fn captions_stand_before_the_rows() {
        let layout = GridLayout::new(2).enlarged(SHAPE, 20);
        let images = [7; 12];
        let plain = render(&images, SHAPE, layout).unwrap();
        let captions = [
            "Grün".to_string(),
            "a name that is far too long for a margin".into(),
        ];
        let p = render_with_captions(&images, SHAPE, layout, &captions).unwrap();
        assert_eq!((p.height, p.channels), (plain.height, 1));
        let margin = p.width - plain.width;
        let row = |p: &Picture, y: usize| p.bytes[y * p.width..][..p.width].to_vec();
        let mut lit = 0;
        for y in 0..p.height {
            let line = row(&p, y);
            let (text, images) = line.split_at(margin);
            assert_eq!(images, row(&plain, y));
            lit += text.iter().filter(|&&x| x == 255).count();
        }
        assert!(lit > 100, "{lit}");
        // One pixel of image is lower than a letter.
        let low = render_with_captions(&[9; 4], SHAPE, GridLayout::new(1), &captions).unwrap();
        assert_eq!(low.height, 6);
    }

    #[test]
    fn refuses_what_is_no_grid() {
        let layout = GridLayout::new(1);
        assert!(render(&[0; 3], SHAPE, layout).is_err());
        assert!(render(&[], SHAPE, layout).is_err());
        assert!(render(&[0; 4], SHAPE, GridLayout::new(0)).is_err());
        assert!(render(&[0; 4], SHAPE, GridLayout { scale: 0, ..layout }).is_err());
        assert!(
            render(
                &[0; 8],
                ImageShape {
                    channels: 2,
                    ..SHAPE
                },
                layout
            )
            .is_err()
        );
    }

    #[test]
    fn failed_writes_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let p = render(&[0; 4], SHAPE, GridLayout::new(1)).unwrap();
        let inside = dir.path().join("gone/x.png");
        let e = write_png(&inside, &p).unwrap_err();
        assert!(e.to_string().contains("x.png"), "{e}");
        // A folder of that name cannot be replaced; the temporary file goes away.
        let taken = dir.path().join("taken.png");
        std::fs::create_dir(&taken).unwrap();
        assert!(write_png(&taken, &p).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        let bad = Picture {
            bytes: vec![1],
            ..p.clone()
        };
        assert!(write_png(&dir.path().join("x.png"), &bad).is_err());
        assert!(write_png(&dir.path().join("x.png"), &Picture { channels: 2, ..p }).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn how_a_picture_was_drawn_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.png");
        let picture = render(&[0, 50, 100, 150], SHAPE, GridLayout::new(1)).unwrap();
        let text = format!("{{\"seed\":7,\"filler\":\"{}\"}}", "x".repeat(5000));
        write_png_with(&path, &picture, &text).unwrap();
        assert_eq!(drawn_with(&path).unwrap(), Some(text));
        assert!(is_drawn(&path), "it still does not count as data");
        let same = decode(&read_file(&path).unwrap(), &path, true).unwrap();
        assert_eq!(same, picture);
        write_png(&path, &picture).unwrap();
        assert_eq!(drawn_with(&path).unwrap(), None);
        assert!(write_png_with(&path, &picture, "Grün").is_err());
        // Files of others: no PNG, and a chunk that says it is longer than all there is.
        std::fs::write(&path, "GIF89a").unwrap();
        assert!(drawn_with(&path).is_err());
        std::fs::write(&path, b"\x89PNG\r\n\x1a\n\xff\xff\xff\xfftEXtdis\0{}").unwrap();
        assert!(drawn_with(&path).is_err());
        assert!(drawn_with(&dir.path().join("none.png")).is_err());
    }

    proptest! {
        // Each case syncs a file to the disk.
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn files_hold_what_was_rendered(
            n in 1usize..9, columns in 1usize..5, padding in 0usize..3, scale in 1usize..4,
            rgb in any::<bool>(), height in 1usize..5, width in 1usize..5, seed in any::<u8>(),
        ) {
            let shape = ImageShape { channels: if rgb { 3 } else { 1 }, height, width };
            let images: Vec<u8> =
                (0..n * shape.len()).map(|i| (i as u8).wrapping_mul(37) ^ seed).collect();
            let layout = GridLayout { columns, padding, scale, background: seed };
            let p = render(&images, shape, layout).unwrap();
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("grid.png");
            std::fs::write(&path, "an older file").unwrap();
            write_png(&path, &p).unwrap();
            prop_assert_eq!(decode(&read_file(&path).unwrap(), &path, !rgb).unwrap(), p.clone());
            prop_assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
            // Naive look-up of one pixel of every image.
            for i in 0..n {
                let (r, c) = (i / columns.min(n), i % columns.min(n));
                let y = padding + r * (height * scale + padding);
                let x = padding + c * (width * scale + padding);
                for ch in 0..shape.channels {
                    let at = (y * p.width + x) * shape.channels + ch;
                    prop_assert_eq!(p.bytes[at], images[i * shape.len() + ch * height * width]);
                }
            }
        }
    }
}
