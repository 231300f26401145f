//! The size of images.

use std::fmt;
use std::str::FromStr;

/// Height and width of an image, a crop or a latent, in pixels. A whole number is a square,
/// `[height, width]` a rectangle. Its text is `N` for a square, `WIDTHxHEIGHT` otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImageSize {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl ImageSize {
    /// Longest side that a text or a model may name.
    pub const LONGEST: usize = 1 << 16;

    /// As many rows as columns.
    pub fn square(side: usize) -> Self {
        [side, side].into()
    }

    /// The side, if it is a square.
    pub fn side(&self) -> Option<usize> {
        (self.height == self.width).then_some(self.height)
    }

    /// Pixels of a channel.
    pub fn pixels(&self) -> usize {
        self.height * self.width
    }
}

impl From<usize> for ImageSize {
    fn from(side: usize) -> Self {
        Self::square(side)
    }
}

impl From<[usize; 2]> for ImageSize {
    fn from([height, width]: [usize; 2]) -> Self {
        Self { height, width }
    }
}

impl FromStr for ImageSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const LONGEST: usize = ImageSize::LONGEST;
        let side = |text: &str| {
            let side = text.parse().ok();
            side.filter(|n| (1..=LONGEST).contains(n))
        };
        let (width, height) = text.split_once(['x', 'X']).unwrap_or((text, text));
        match (side(width), side(height)) {
            (Some(width), Some(height)) => Ok(Self { height, width }),
            _ => Err(format!(
                "needs a number from 1 to {LONGEST} or WIDTHxHEIGHT, such as 64 or 96x64"
            )),
        }
    }
}

impl fmt::Display for ImageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.side() {
            Some(side) => write!(f, "{side}"),
            None => write!(f, "{}x{}", self.width, self.height),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn width_comes_first() {
        let parse = |text: &str| text.parse::<ImageSize>();
        let (height, width) = (32, 64);
        assert_eq!(parse("64x32"), Ok(ImageSize { height, width }));
        assert_eq!(parse("64X32"), Ok(ImageSize { height, width }));
        for text in ["64x32", "7", "1x65536"] {
            assert_eq!(parse(text).map(|s| s.to_string()).as_deref(), Ok(text));
        }
        assert_eq!(parse("8x8").map(|s| s.to_string()).as_deref(), Ok("8"));
        for text in [
            "", "x", "0", "0x4", "4x0", "4x", "-4", "4x4x4", "65537", "big",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
