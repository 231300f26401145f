//! The embedded digits: 1,797 images of 8x8 with levels 0 to 16, ten classes
//! (see `assets/ATTRIBUTION.md` for their source and licence).
//!
//! Format of `assets/digits.bin`, integers little-endian: the eight bytes `DISDIG01`, the number of
//! images (u32), then one byte each for height, width, largest level and number of classes; then
//! for each image its 64 levels, five bits each, least significant bits first (40 bytes); then the
//! labels, one byte each.

use dis_tensor::random::{Purpose, Stream};

use super::{DataError, ImageShape, MemoryDataset, Result};

static PACKED: &[u8] = include_bytes!("../assets/digits.bin");

const MAGIC: &[u8; 8] = b"DISDIG01";
const HEADER: usize = 16;
const BITS: usize = 5;

/// Largest level of the digits.
pub const DIGITS_LEVELS: u8 = 16;
/// Images in the training part of [`digits_split`].
pub const DIGITS_TRAIN: usize = 1500;
/// Seed of the split behind the specification `digits-train`, which the bundled model is trained
/// on, so that its check for copies can use the images it has never seen.
pub const DIGITS_SPLIT_SEED: u64 = 0;

/// Keys the split apart from the order of training images, which uses sample 0.
const SPLIT_STREAM: u64 = u64::MAX;

/// All 1,797 digits.
///
/// # Errors
/// Never with the file this crate is built with.
pub fn digits() -> Result<MemoryDataset> {
    let corrupt = || DataError::Invalid {
        what: "embedded digits: corrupt".into(),
    };
    unpack(PACKED).ok_or_else(corrupt)?
}

/// The digits in two parts, 1,500 to train on and 297 held out, drawn by `seed`; both keep the
/// original order.
///
/// # Errors
/// Never with the file this crate is built with.
pub fn digits_split(seed: u64) -> Result<(MemoryDataset, MemoryDataset)> {
    let all = digits()?;
    let n = super::Dataset::len(&all);
    let order = Stream::new(seed, Purpose::Shuffle, SPLIT_STREAM, 0).permutation(n);
    let part = |range: &[u32]| {
        let mut part: Vec<usize> = range.iter().map(|&i| i as usize).collect();
        part.sort_unstable();
        part
    };
    let (train, held) = order.split_at(DIGITS_TRAIN.min(n));
    Ok((
        all.subset("digits-train", &part(train))?,
        all.subset("digits-held-out", &part(held))?,
    ))
}

fn unpack(bytes: &[u8]) -> Option<Result<MemoryDataset>> {
    let (header, body) = bytes.split_at_checked(HEADER)?;
    let (magic, rest) = header.split_at(8);
    let &[n0, n1, n2, n3, height, width, max_level, classes] = rest else {
        return None;
    };
    let n = u32::from_le_bytes([n0, n1, n2, n3]) as usize;
    let shape = ImageShape::from([1, height.into(), width.into()]);
    let packed = (shape.len() * BITS).div_ceil(8);
    if magic != MAGIC || body.len() != n * (packed + 1) {
        return None;
    }
    let (images, labels) = body.split_at(n * packed);
    let mut pixels = Vec::with_capacity(n * shape.len());
    for image in images.chunks_exact(packed) {
        for i in 0..shape.len() {
            let (byte, shift) = (i * BITS / 8, i * BITS % 8);
            let low = u16::from(image[byte]);
            let high = u16::from(image.get(byte + 1).copied().unwrap_or(0));
            pixels.push(((low | high << 8) >> shift & 31) as u8);
        }
    }
    let labels = labels.iter().map(|&l| l.into()).collect();
    let names = (0..classes).map(|c| c.to_string()).collect();
    Some(MemoryDataset::new(
        "digits",
        shape,
        max_level,
        pixels,
        Some(labels),
        names,
    ))
}

#[cfg(test)]
mod tests {
    use dis_golden::Golden;

    use super::*;
    use crate::Dataset;

    fn pack(pixels: &[u8], labels: &[u8]) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend((labels.len() as u32).to_le_bytes());
        out.extend([8, 8, DIGITS_LEVELS, 10]);
        for image in pixels.chunks_exact(64) {
            let mut packed = [0u8; 40];
            for (i, &v) in image.iter().enumerate() {
                for bit in 0..BITS {
                    packed[(i * BITS + bit) / 8] |= (v >> bit & 1) << ((i * BITS + bit) % 8);
                }
            }
            out.extend(packed);
        }
        out.extend(labels);
        out
    }

    fn source() -> (Vec<u8>, Vec<u8>) {
        let golden = Golden::open("train_digits_data");
        let labels = golden
            .indices("labels")
            .1
            .iter()
            .map(|&l| l as u8)
            .collect();
        (golden.bytes("images_u8").1, labels)
    }

    /// With `DIS_WRITE=1` the asset is written instead.
    #[test]
    fn asset_equals_its_source() {
        let (pixels, labels) = source();
        let packed = pack(&pixels, &labels);
        if std::env::var_os("DIS_WRITE").is_some() {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/digits.bin");
            std::fs::write(path, packed).unwrap();
            return;
        }
        assert_eq!(PACKED, packed);
        let all = digits().unwrap();
        assert_eq!(all.raw_pixels(), pixels);
        let expected: Vec<u32> = labels.iter().map(|&l| l.into()).collect();
        assert_eq!(all.labels().unwrap(), expected);
        assert_eq!(all.max_level(), 16);
        let first = all.sample(3, false).unwrap();
        for (v, raw) in first.image.iter().zip(&pixels[192..]) {
            assert_eq!(*v, f32::from(*raw) / 8.0 - 1.0);
        }
    }

    #[test]
    fn corrupt_assets_are_noticed() {
        assert!(unpack(&PACKED[..PACKED.len() - 1]).is_none());
        assert!(unpack(&PACKED[..10]).is_none());
        let mut bad = PACKED.to_vec();
        bad[0] = 0;
        assert!(unpack(&bad).is_none());
        let mut bad = PACKED.to_vec();
        *bad.last_mut().unwrap() = 10;
        assert!(unpack(&bad).unwrap().is_err());
    }

    #[test]
    fn split_is_a_partition_that_the_seed_decides() {
        let (train, held) = digits_split(0).unwrap();
        assert_eq!((train.len(), held.len()), (1500, 297));
        let mut parts: Vec<Vec<u8>> = train
            .raw_pixels()
            .chunks_exact(64)
            .chain(held.raw_pixels().chunks_exact(64))
            .map(<[u8]>::to_vec)
            .collect();
        let all = digits().unwrap();
        let mut whole: Vec<Vec<u8>> = all
            .raw_pixels()
            .chunks_exact(64)
            .map(<[u8]>::to_vec)
            .collect();
        parts.sort();
        whole.sort();
        assert_eq!(parts, whole);
        assert_eq!(digits_split(0).unwrap().0.identity(), train.identity());
        assert_ne!(digits_split(1).unwrap().0.identity(), train.identity());
        // Every class is in both parts, so the bundled model knows all of them.
        for part in [&train, &held] {
            for class in 0..10 {
                assert!(part.labels().unwrap().contains(&class));
            }
        }
    }
}
