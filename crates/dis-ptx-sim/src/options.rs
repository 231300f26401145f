//! How a simulated device behaves.

/// What `.approx` instructions return.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Approx {
    /// The exact result, rounded to nearest.
    #[default]
    Exact,
    /// The exact result less the documented error bound.
    Low,
    /// The exact result plus the documented error bound.
    High,
    /// Anything within the bound: a function of the seed, the instruction and its operands.
    Random(u64),
}

/// In what order blocks, and the warps of a block between barriers, run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Ascending.
    #[default]
    InOrder,
    /// Descending.
    Reversed,
    /// Shuffled by a seed, anew after each barrier.
    Shuffled(u64),
}

/// Behaviour of a [`Device`](crate::Device).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Check for races and for reads of what nothing wrote. Bounds, alignment and divergence are
    /// checked always.
    pub checks: bool,
    /// What `.approx` instructions return.
    pub approx: Approx,
    /// Order of blocks and warps.
    pub order: Order,
    /// Instructions that one warp may execute in one launch.
    pub max_steps: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            checks: true,
            approx: Approx::Exact,
            order: Order::InOrder,
            max_steps: 1 << 26,
        }
    }
}
