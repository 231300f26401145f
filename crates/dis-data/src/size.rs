//! The size of crops, as people write it.

use std::fmt;
use std::str::FromStr;

use super::ImageShape;

/// Height and width of crops in pixels. Its text is `N` for a square, `WIDTHxHEIGHT` otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CropSize {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

/// Longest side: what a model takes at most.
const LONGEST: usize = 1 << 16;

impl From<usize> for CropSize {
    fn from(side: usize) -> Self {
        Self {
            height: side,
            width: side,
        }
    }
}

impl From<ImageShape> for CropSize {
    fn from(shape: ImageShape) -> Self {
        Self {
            height: shape.height,
            width: shape.width,
        }
    }
}

impl FromStr for CropSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
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

impl fmt::Display for CropSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.width == self.height {
            true => write!(f, "{}", self.width),
            false => write!(f, "{}x{}", self.width, self.height),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn width_comes_first() {
        let parse = |text: &str| text.parse::<CropSize>();
        let (height, width) = (32, 64);
        assert_eq!(parse("64x32"), Ok(CropSize { height, width }));
        assert_eq!(parse("64X32"), Ok(CropSize { height, width }));
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
