//! Sizes of the pictures of a folder.

/// Sizes of pictures in pixels, (width, height).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The picture with the fewest pixels.
    pub smallest: (u32, u32),
    /// The picture with the most pixels.
    pub largest: (u32, u32),
    /// The shortest side of all: crops beyond it are enlarged.
    pub shortest_side: u32,
}

impl Sizes {
    /// Of these, (width, height); `None` if there are none.
    pub(super) fn of(sizes: impl Iterator<Item = (u32, u32)>) -> Option<Self> {
        let area = |(width, height): (u32, u32)| u64::from(width) * u64::from(height);
        let one = |size: (u32, u32)| Self {
            smallest: size,
            largest: size,
            shortest_side: size.0.min(size.1),
        };
        sizes.map(one).reduce(|a, b| Self {
            smallest: if area(b.smallest) < area(a.smallest) {
                b.smallest
            } else {
                a.smallest
            },
            largest: if area(b.largest) > area(a.largest) {
                b.largest
            } else {
                a.largest
            },
            shortest_side: a.shortest_side.min(b.shortest_side),
        })
    }
}
