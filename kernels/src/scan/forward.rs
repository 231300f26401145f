//! Launch contracts of `scan_forward.ptx`.

use super::{Shape, Walk, one_or_two, same};
use crate::contract::{Contract, Geometry, Kernel, Ready, contract, launch};
use crate::driver::Driver;
use crate::error::Result;
use crate::mat::{Mat, MatMut, grid_limit, shape, shapes};
use crate::pointer::PtrMut;

contract! {
    /// One direction of a forward scan.
    pub struct ForwardWalk {
        /// What it reads.
        pub flat walk: Walk,
        /// Receives the states before every 16 tokens: [`super::checkpoint_len`] elements.
        pub checkpoints: Option<PtrMut<f32>>,
        /// Receives the state after the last token walked, (batch, channels, states).
        pub last: Option<MatMut>,
        flags: u32 = |k| k.walk.flags(),
    }
}

impl ForwardWalk {
    fn shape(&self, kernel: &'static str) -> Result<Shape> {
        let shape = self.walk.shape(kernel)?;
        if let Some(checkpoints) = self.checkpoints {
            checkpoints.holds(kernel, "checkpoints", shape.checkpoint_len() as u64)?;
        }
        let expected = [shape.batch, shape.channels, shape.states];
        shapes(kernel, &[("last", &self.last, expected)])?;
        Ok(shape)
    }
}

macro_rules! forward_contract {
    ($(#[$meta:meta])* $variant:ident, $name:ident, $entry:literal, {$($extra:tt)*}) => {
        contract! {
            $(#[$meta])*
            pub struct $name: SCAN_FORWARD, $entry {
                y: MatMut,
                z: Option<Mat>,
                accumulate: bool,
                directions: usize = |k| 1 + usize::from(k.d1.is_some()),
                tokens: usize = |k| k.y.tokens,
                channels: usize = |k| k.y.channels,
                $($extra)*
                d0: ForwardWalk,
                d1: Option<ForwardWalk>,
            }
        }

        impl Kernel for $name {
            fn fit(&mut self) -> Result<Geometry> {
                let first = self.d0.shape(Self::NAME)?;
                let second = self.d1.map(|walk| walk.shape(Self::NAME)).transpose()?;
                let shape = same(Self::NAME, first, second)?;
                let whole = shape.tokens3();
                shapes(Self::NAME, &[("y", &self.y, whole), ("z", &self.z, whole)])?;
                let reverse = (self.d0.walk.reverse, self.d1.map(|walk| walk.walk.reverse));
                Variant::$variant.geometry(Self::NAME, shape, reverse)
            }
        }
    };
}

forward_contract! {
    /// The scan of 16 states, a channel a thread; see [`Forward`].
    N16, ScanForwardN16, "dis_scan_forward_n16", {}
}
forward_contract! {
    /// The scan of 16 states, four a lane, both directions at once; see [`Forward`].
    Split16, ScanForwardSplit16, "dis_scan_forward_split16", {}
}
forward_contract! {
    /// The scan of up to 128 states, four a lane; see [`Forward`].
    Lanes4, ScanForwardLanes4, "dis_scan_forward_lanes4", {
        states: usize = |k| k.d0.walk.a.channels,
        lanes: u32 = |k| Variant::Lanes4.lanes(k.d0.walk.a.channels).ilog2(),
    }
}
forward_contract! {
    /// The scan of up to 256 states, eight a lane; see [`Forward`].
    Lanes8, ScanForwardLanes8, "dis_scan_forward_lanes8", {
        states: usize = |k| k.d0.walk.a.channels,
        lanes: u32 = |k| Variant::Lanes8.lanes(k.d0.walk.a.channels).ilog2(),
    }
}

/// A forward scan of one direction or two:
/// `y = ([y if accumulate] + sum over directions of scan) [* silu(z)]`.
#[derive(Clone, Copy, Debug)]
pub enum Forward {
    /// 16 states, lanes on channels: where these are enough to fill a GPU.
    N16(Ready<ScanForwardN16>),
    /// 16 states, four lanes a channel, both directions at the same time: small batches.
    Split16(Ready<ScanForwardSplit16>),
    /// Four states a lane: other numbers of states, small batches.
    Lanes4(Ready<ScanForwardLanes4>),
    /// Eight states a lane: other numbers of states.
    Lanes8(Ready<ScanForwardLanes8>),
}

/// Which entry of the forward scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// [`Forward::N16`], for 16 states only.
    N16,
    /// [`Forward::Split16`], for 16 states and opposite directions only.
    Split16,
    /// [`Forward::Lanes4`], for at most 128.
    Lanes4,
    /// [`Forward::Lanes8`].
    Lanes8,
}

/// Threads that a launch should have at least on each multiprocessor: eight warps.
const ENOUGH_THREADS: usize = 8 * 32;

impl Variant {
    /// The entry with the fewest lanes a channel that still gives every multiprocessor enough
    /// threads.
    pub fn choose(batch: usize, channels: usize, states: usize, multiprocessors: u32) -> Self {
        let threads = |per_lane: usize| batch * channels * states.div_ceil(per_lane);
        let enough = ENOUGH_THREADS * multiprocessors as usize;
        if states == 16 {
            if threads(16) >= enough {
                Self::N16
            } else {
                Self::Split16
            }
        } else if states > 128 || threads(8) >= enough {
            Self::Lanes8
        } else {
            Self::Lanes4
        }
    }

    /// States that a lane has, and the most that there may be.
    const fn states(self) -> (usize, usize) {
        match self {
            Self::N16 => (16, 16),
            Self::Split16 => (4, 16),
            Self::Lanes4 => (4, 128),
            Self::Lanes8 => (8, super::MAX_STATES),
        }
    }

    /// Lanes that share a channel.
    const fn lanes(self, states: usize) -> usize {
        states.div_ceil(self.states().0).next_power_of_two()
    }

    /// Checks that it takes such scans, of a direction or two, which are reverse or not.
    fn geometry(
        self,
        kernel: &'static str,
        of: Shape,
        reverse: (bool, Option<bool>),
    ) -> Result<Geometry> {
        let (per_lane, most) = self.states();
        let sixteen = matches!(self, Self::N16 | Self::Split16);
        if of.states > most || (sixteen && of.states != 16) {
            return Err(shape(kernel, format!("{} states", of.states)));
        }
        if self == Self::Split16 && reverse.1 == Some(reverse.0) {
            let what = "two directions that are not opposite".into();
            return Err(shape(kernel, what));
        }
        let lanes = self.lanes(of.states);
        let blocks = of.channels.div_ceil(128 / lanes) as u32;
        let samples = grid_limit(kernel, "the number of samples", of.batch)?;
        let mut geometry = Geometry::new([blocks, samples, 1], [128, 1, 1]);
        if of.is_empty() {
            geometry.grid = [0; 3];
        }
        match self {
            Self::Split16 if reverse.1.is_some() => geometry.block[0] *= 2,
            Self::Lanes4 | Self::Lanes8 => geometry.dynamic_shared = tile_bytes(lanes * per_lane),
            _ => {}
        }
        Ok(geometry)
    }
}

impl Forward {
    /// Checks the operands and chooses the entry for a device of that many multiprocessors.
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(
        directions: &[ForwardWalk],
        y: MatMut,
        accumulate: bool,
        z: Option<Mat>,
        multiprocessors: u32,
    ) -> Result<Self> {
        let mut variant = directions.first().map_or(Variant::Lanes8, |first| {
            let walk = &first.walk;
            let [batch, _, channels] = walk.u.shape();
            Variant::choose(batch, channels, walk.a.channels, multiprocessors)
        });
        if variant == Variant::Split16 && same_way(directions) {
            variant = Variant::Lanes4;
        }
        Self::with_variant(variant, directions, y, accumulate, z)
    }

    /// Checks the operands for this entry.
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn with_variant(
        variant: Variant,
        directions: &[ForwardWalk],
        y: MatMut,
        accumulate: bool,
        z: Option<Mat>,
    ) -> Result<Self> {
        let (d0, d1) = one_or_two("dis_scan_forward", directions)?;
        macro_rules! of {
            ($kernel:ident) => {
                $kernel {
                    y,
                    z,
                    accumulate,
                    d0,
                    d1,
                }
                .ready()?
            };
        }
        Ok(match variant {
            Variant::N16 => Self::N16(of!(ScanForwardN16)),
            Variant::Split16 => Self::Split16(of!(ScanForwardSplit16)),
            Variant::Lanes4 => Self::Lanes4(of!(ScanForwardLanes4)),
            Variant::Lanes8 => Self::Lanes8(of!(ScanForwardLanes8)),
        })
    }

    /// Launches it.
    ///
    /// # Errors
    /// As [`Driver::launch`].
    pub fn launch<D: Driver>(&self, driver: &D) -> Result<()> {
        match self {
            Self::N16(kernel) => launch(driver, kernel),
            Self::Split16(kernel) => launch(driver, kernel),
            Self::Lanes4(kernel) => launch(driver, kernel),
            Self::Lanes8(kernel) => launch(driver, kernel),
        }
    }
}

/// Whether there are two directions and they are the same.
fn same_way(directions: &[ForwardWalk]) -> bool {
    matches!(directions, [a, b] if a.walk.reverse == b.walk.reverse)
}

/// Bytes of 16 rows of B and C, states padded.
fn tile_bytes(padded_states: usize) -> u32 {
    (super::CHUNK * 2 * padded_states * size_of::<f32>()) as u32
}
