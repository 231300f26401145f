//! The size of what a model draws.

use std::fmt;

/// Height and width of an image or latent, in pixels. A whole number is a square, `[height, width]` a
/// rectangle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImageSize {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl ImageSize {
    /// As many rows as columns.
    pub fn square(side: usize) -> Self {
        Self {
            height: side,
            width: side,
        }
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

/// As `height x width`.
impl fmt::Display for ImageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.height, self.width)
    }
}
