//! The centre crop of the published training scripts: halve with a box filter while both sides are
//! at least twice the target, resize with an antialiased bicubic until the target just fits in, cut
//! out the middle. The scripts know squares, where "just fits" is the short side; rectangles
//! generalise them.
//!
//! Resampling follows the 8-bit arithmetic of Pillow 13.0 (weights in 22-bit fixed point, rounded to
//! bytes between the passes), so the same pictures give the same bytes. Rounding makes the order of
//! the passes matter, by up to ten levels: [`rows_first`] is the rule of that version. Earlier ones
//! resize columns first always, which differs for pictures more than about twice as high as wide.

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

/// Whether Pillow 13.0 resizes the rows before the columns, sizes being (height, width): if the
/// height shrinks by more than twice what the width shrinks by (a width that grows shrinks by less
/// than nothing).
pub fn rows_first(from: (usize, usize), to: (usize, usize)) -> bool {
    // A difference of two sizes in memory is far below 2^63, twice of it included.
    let shrinks = |from: usize, to: usize| from as i128 - to as i128;
    let (rows, columns) = (shrinks(from.0, to.0), shrinks(from.1, to.1));
    rows > 0 && rows > 2 * columns
}

/// Resizes to `height` rows and `width` columns; each must be at least 1 for a picture to result.
pub fn resize(picture: &Picture, height: usize, width: usize, filter: Filter) -> Picture {
    let from = (picture.height, picture.width);
    match rows_first(from, (height, width)) {
        true => resize_columns(resize_rows(picture.clone(), height, filter), width, filter),
        false => resize_rows(
            resize_columns(picture.clone(), width, filter),
            height,
            filter,
        ),
    }
}

/// Resizes every row to `width` columns.
fn resize_columns(picture: Picture, width: usize, filter: Filter) -> Picture {
    if width == picture.width {
        return picture;
    }
    let c = picture.channels;
    let taps = taps(filter, picture.width, width);
    let mut bytes = Vec::with_capacity(picture.height * width * c);
    for row in picture.bytes.chunks_exact((picture.width * c).max(1)) {
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
    Picture {
        width,
        bytes,
        ..picture
    }
}

/// Resizes every column to `height` rows.
fn resize_rows(picture: Picture, height: usize, filter: Filter) -> Picture {
    if height == picture.height {
        return picture;
    }
    let taps = taps(filter, picture.height, height);
    let stride = picture.width * picture.channels;
    let mut bytes = Vec::with_capacity(height * stride);
    let mut sums = vec![0; stride];
    for tap in &taps {
        sums.fill(HALF);
        let rows = picture.bytes.chunks_exact(stride.max(1)).skip(tap.first);
        for (&w, row) in tap.weights.iter().zip(rows) {
            for (s, &v) in sums.iter_mut().zip(row) {
                *s += w * i32::from(v);
            }
        }
        bytes.extend(sums.iter().map(|&s| to_byte(s)));
    }
    Picture {
        height,
        bytes,
        ..picture
    }
}

/// The centre crop to `height` x `width`; the published one where both are the same. A picture
/// without pixels, or a side of 0, gives an empty picture.
pub fn center_crop(picture: &Picture, height: usize, width: usize) -> Picture {
    let c = picture.channels;
    if height.min(width).min(picture.height).min(picture.width) == 0 {
        return Picture {
            height: 0,
            width: 0,
            channels: c,
            bytes: Vec::new(),
        };
    }
    let mut p = picture.clone();
    while p.height / 2 >= height && p.width / 2 >= width {
        p = resize(&p, p.height / 2, p.width / 2, Filter::Box);
    }
    let scale = (height as f64 / p.height as f64).max(width as f64 / p.width as f64);
    let scaled = |side: usize| (side as f64 * scale).round_ties_even() as usize;
    let (rows, columns) = (scaled(p.height).max(height), scaled(p.width).max(width));
    let p = resize(&p, rows, columns, Filter::Bicubic);
    let (top, left) = ((rows - height) / 2, (columns - width) / 2);
    let mut bytes = Vec::with_capacity(height * width * c);
    for row in p.bytes.chunks_exact(columns * c).skip(top).take(height) {
        bytes.extend_from_slice(&row[left * c..][..width * c]);
    }
    Picture {
        height,
        width,
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
            channels: shape.get(2).copied().unwrap_or(1),
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
            let ours = center_crop(&picture(golden.bytes(&format!("{name}.image"))), size, size);
            let theirs = picture(golden.bytes(&format!("{name}.out")));
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

    /// Every byte as Pillow 13.0, in whose favour twelve of the pictures decide.
    #[test]
    fn passes_come_in_the_order_of_pillow_13() {
        let golden = Golden::open("pillow_crop");
        let mut rows_came_first = 0;
        for case in golden.manifest["cases"].as_array().unwrap() {
            let name = case["label"].as_str().unwrap();
            let size = case["image_size"].as_u64().unwrap() as usize;
            let ours = center_crop(&picture(golden.bytes(&format!("{name}.image"))), size, size);
            let theirs = picture(golden.bytes(&format!("{name}.out_13_0_0")));
            assert!(ours == theirs, "{name}");
            rows_came_first += u32::from(case["differing_values"] != 0);
        }
        assert_eq!(rows_came_first, 12);
        assert!(!rows_first((10, 7), (4, 4)), "a tie");
        assert!(rows_first((10, 7), (9, 9)) && !rows_first((9, 7), (9, 9)));
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
        let rows_come_first = rows_first((p.height, p.width), (height, width));
        // What lies between the passes is a picture too, and has no levels beyond its ends.
        let passes = |first: &[f64], second: &[f64], pixel: &dyn Fn(usize, usize) -> f64| {
            let line = |j| {
                let terms = first.iter().enumerate();
                terms.map(|(i, w)| w * pixel(i, j)).sum::<f64>()
            };
            let lines = second.iter().enumerate();
            lines
                .map(|(j, w)| w * line(j).clamp(0.0, 255.0))
                .sum::<f64>()
        };
        let mut out = Vec::new();
        for row in &rows {
            for column in &columns {
                for c in 0..p.channels {
                    let level = |y, x| f64::from(p.bytes[(y * p.width + x) * p.channels + c]);
                    let sum = match rows_come_first {
                        true => passes(row, column, &level),
                        false => passes(column, row, &|x, y| level(y, x)),
                    };
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
        fn any_picture_gives_the_size_asked(
            h in 1usize..90, w in 1usize..90, height in 1usize..20, width in 1usize..20,
        ) {
            let p = Picture { height: h, width: w, channels: 1, bytes: vec![77; h * w] };
            let out = center_crop(&p, height, width);
            prop_assert_eq!((out.height, out.width), (height, width));
            prop_assert_eq!(out.bytes, vec![77; height * width]);
        }

        /// A rectangle of a picture's own proportions is the whole picture.
        #[test]
        fn proportions_that_fit_lose_nothing(
            height in 1usize..9, width in 1usize..9, times in 1usize..7, seed in any::<u64>(),
        ) {
            use dis_tensor::random::{Purpose, Stream};
            let mut s = Stream::new(seed, Purpose::Test, 0, 0);
            let (h, w) = (height * times, width * times);
            let bytes = (0..h * w).map(|_| s.next_u32() as u8).collect();
            let p = Picture { height: h, width: w, channels: 1, bytes };
            let mut halved = p.clone();
            while halved.height / 2 >= height && halved.width / 2 >= width {
                halved = resize(&halved, halved.height / 2, halved.width / 2, Filter::Box);
            }
            let whole = resize(&halved, height, width, Filter::Bicubic);
            // Halving an odd side changes the proportions; then something is cut off.
            if halved.height * width == halved.width * height {
                prop_assert_eq!(center_crop(&p, height, width), whole);
            }
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
        assert!(center_crop(&p, 4, 4).bytes.is_empty());
        let p = Picture {
            height: 1,
            width: 1,
            channels: 1,
            bytes: vec![9],
        };
        assert!(center_crop(&p, 0, 1).bytes.is_empty());
        assert_eq!(center_crop(&p, 2, 3).bytes, [9; 6]);
    }
}
