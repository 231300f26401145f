//! The centre crop of the published training scripts: halve with a box filter while the short side
//! is at least twice the target, resize the short side to the target with an antialiased bicubic,
//! cut out the middle. Resampling follows Pillow's 8-bit arithmetic (weights in 22-bit fixed point,
//! columns first, rounded to bytes between the passes), so the same pictures give the same bytes.

/// An 8-bit picture, rows top to bottom, channels interleaved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Interleaved channels.
    pub channels: usize,
    /// `height * width * channels` bytes.
    pub bytes: Vec<u8>,
}

/// Resampling kernels, by their half-width and weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Average of the covered pixels.
    Box,
    /// Keys' cubic convolution with a = -0.5.
    Bicubic,
}

impl Filter {
    fn support(self) -> f64 {
        match self {
            Filter::Box => 0.5,
            Filter::Bicubic => 2.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        match self {
            // Half open, so that a pixel on the border is counted once.
            Filter::Box => f64::from(u8::from(x > -0.5 && x <= 0.5)),
            Filter::Bicubic => {
                let x = x.abs();
                if x < 1.0 {
                    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
                } else if x < 2.0 {
                    (((x - 5.0) * x + 8.0) * x - 4.0) * A
                } else {
                    0.0
                }
            }
        }
    }
}

/// Bits after the point of a weight: a byte, a weight below 2 and a sign fit 32 bits.
const PRECISION: u32 = 22;

/// Which inputs make an output, and with what weights.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

fn taps(filter: Filter, input: usize, output: usize) -> Vec<Taps> {
    let scale = input as f64 / output as f64;
    // Shrinking widens the filter (antialiasing); enlarging does not narrow it.
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    // Multiplied, not divided by: a box's border can fall on a pixel's centre, where the last bit
    // decides.
    let shrink = 1.0 / stretch;
    (0..output)
        .map(|i| {
            let center = (i as f64 + 0.5) * scale;
            let first = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(input);
            let raw: Vec<f64> = (first..end)
                .map(|j| filter.weight((j as f64 - center + 0.5) * shrink))
                .collect();
            let sum: f64 = raw.iter().sum();
            let norm = if sum == 0.0 { 1.0 } else { sum };
            let fixed = |w: f64| (w / norm * f64::from(1u32 << PRECISION)).round() as i32;
            Taps {
                first,
                weights: raw.into_iter().map(fixed).collect(),
            }
        })
        .collect()
}

fn to_byte(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

const HALF: i32 = 1 << (PRECISION - 1);

/// Resizes to `height` rows and `width` columns; each must be at least 1 for a picture to result.
pub fn resize(picture: &Picture, height: usize, width: usize, filter: Filter) -> Picture {
    let c = picture.channels;
    let mut source = picture.clone();
    if width != source.width {
        let taps = taps(filter, source.width, width);
        let mut bytes = Vec::with_capacity(source.height * width * c);
        for row in source.bytes.chunks_exact((source.width * c).max(1)) {
            for tap in &taps {
                for channel in 0..c {
                    let line = row[tap.first * c..].iter().skip(channel).step_by(c);
                    let terms = tap.weights.iter().zip(line);
                    bytes.push(to_byte(
                        terms.fold(HALF, |s, (&w, &v)| s + w * i32::from(v)),
                    ));
                }
            }
        }
        source = Picture {
            width,
            bytes,
            ..source
        };
    }
    if height != source.height {
        let taps = taps(filter, source.height, height);
        let stride = width * c;
        let mut bytes = Vec::with_capacity(height * stride);
        let mut sums = vec![0; stride];
        for tap in &taps {
            sums.fill(HALF);
            let rows = source.bytes.chunks_exact(stride.max(1)).skip(tap.first);
            for (&w, row) in tap.weights.iter().zip(rows) {
                for (s, &v) in sums.iter_mut().zip(row) {
                    *s += w * i32::from(v);
                }
            }
            bytes.extend(sums.iter().map(|&s| to_byte(s)));
        }
        source = Picture {
            height,
            bytes,
            ..source
        };
    }
    source
}

/// The published centre crop to `size` x `size`. A picture without pixels, or a size of 0, gives
/// an empty picture.
pub fn center_crop(picture: &Picture, size: usize) -> Picture {
    if size == 0 || picture.height.min(picture.width) == 0 {
        return Picture {
            height: 0,
            width: 0,
            channels: picture.channels,
            bytes: Vec::new(),
        };
    }
    let mut p = picture.clone();
    while p.height.min(p.width) >= 2 * size {
        p = resize(&p, p.height / 2, p.width / 2, Filter::Box);
    }
    let scale = size as f64 / p.height.min(p.width) as f64;
    let scaled = |side: usize| ((side as f64 * scale).round_ties_even() as usize).max(size);
    let (height, width) = (scaled(p.height), scaled(p.width));
    let p = resize(&p, height, width, Filter::Bicubic);
    let (top, left) = ((height - size) / 2, (width - size) / 2);
    let c = p.channels;
    let mut bytes = Vec::with_capacity(size * size * c);
    for row in p.bytes.chunks_exact(width * c).skip(top).take(size) {
        bytes.extend_from_slice(&row[left * c..][..size * c]);
    }
    Picture {
        height: size,
        width: size,
        channels: c,
        bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dis_golden::Golden;
    use proptest::prelude::*;

    fn picture((shape, bytes): (Vec<usize>, Vec<u8>)) -> Picture {
        Picture {
            height: shape[0],
            width: shape[1],
            channels: shape[2],
            bytes,
        }
    }

    #[test]
    fn equals_the_published_crop() {
        let golden = Golden::open("center_crop");
        let allowed = golden.manifest["tolerance"]["max_abs"].as_u64().unwrap();
        for case in golden.manifest["cases"].as_array().unwrap() {
            let name = case["case"].as_str().unwrap();
            let size = case["image_size"].as_u64().unwrap() as usize;
            let ours = center_crop(&picture(golden.raw(&format!("{name}.image"))), size);
            let theirs = picture(golden.raw(&format!("{name}.out")));
            assert_eq!((ours.height, ours.width), (theirs.height, theirs.width));
            let off = ours
                .bytes
                .iter()
                .zip(&theirs.bytes)
                .map(|(a, b)| a.abs_diff(*b))
                .max();
            println!("{name}: largest difference {off:?} levels");
            assert!(u64::from(off.unwrap()) <= allowed, "{name}: {off:?}");
        }
    }

    /// Both passes in float64 without rounding between them: at most a level and a half away.
    fn oracle(p: &Picture, height: usize, width: usize, filter: Filter) -> Vec<f64> {
        let weights = |input: usize, output: usize| -> Vec<Vec<f64>> {
            let scale = input as f64 / output as f64;
            (0..output)
                .map(|i| {
                    let center = (i as f64 + 0.5) * scale;
                    let row: Vec<f64> = (0..input)
                        .map(|j| filter.weight((j as f64 + 0.5 - center) / scale.max(1.0)))
                        .collect();
                    let sum: f64 = row.iter().sum();
                    row.iter().map(|w| w / sum).collect()
                })
                .collect()
        };
        let (rows, columns) = (weights(p.height, height), weights(p.width, width));
        let mut out = Vec::new();
        for row in &rows {
            for column in &columns {
                for c in 0..p.channels {
                    let mut sum = 0.0;
                    for (y, wy) in row.iter().enumerate() {
                        let mut line = 0.0;
                        for (x, wx) in column.iter().enumerate() {
                            line += wx * f64::from(p.bytes[(y * p.width + x) * p.channels + c]);
                        }
                        sum += wy * line.clamp(0.0, 255.0);
                    }
                    out.push(sum.clamp(0.0, 255.0));
                }
            }
        }
        out
    }

    proptest! {
        #[test]
        fn resizing_agrees_with_floating_point(
            h in 1usize..24, w in 1usize..24, nh in 1usize..20, nw in 1usize..20,
            channels in 1usize..4, boxed in any::<bool>(), seed in any::<u64>(),
        ) {
            use dis_tensor::random::{Purpose, Stream};
            let mut s = Stream::new(seed, Purpose::Test, 0, 0);
            // A box is compared where none of its borders falls on a pixel's centre, since rounding
            // decides there: n to n / 2 for even n, and for odd n with odd n / 2.
            let (filter, h, w) = match boxed {
                true => (Filter::Box, 2 * nh + nh % 2, 2 * nw + nw % 2),
                false => (Filter::Bicubic, h, w),
            };
            let bytes = (0..h * w * channels).map(|_| s.next_u32() as u8).collect();
            let p = Picture { height: h, width: w, channels, bytes };
            let ours = resize(&p, nh, nw, filter);
            prop_assert_eq!(ours.bytes.len(), nh * nw * channels);
            for (a, b) in ours.bytes.iter().zip(oracle(&p, nh, nw, filter)) {
                prop_assert!((f64::from(*a) - b).abs() <= 1.5, "{a} {b}");
            }
        }

        #[test]
        fn any_picture_gives_the_size_asked(h in 1usize..90, w in 1usize..90, size in 1usize..20) {
            let p = Picture { height: h, width: w, channels: 1, bytes: vec![77; h * w] };
            let out = center_crop(&p, size);
            prop_assert_eq!(out.bytes, vec![77; size * size]);
        }
    }

    #[test]
    fn nothing_gives_nothing() {
        let p = Picture {
            height: 0,
            width: 3,
            channels: 3,
            bytes: vec![],
        };
        assert!(center_crop(&p, 4).bytes.is_empty());
        let p = Picture {
            height: 1,
            width: 1,
            channels: 1,
            bytes: vec![9],
        };
        assert!(center_crop(&p, 0).bytes.is_empty());
        assert_eq!(center_crop(&p, 2).bytes, [9; 4]);
    }
}
