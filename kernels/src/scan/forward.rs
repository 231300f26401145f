//! Launch contracts of `scan_forward.ptx`.

use super::{Shape, Walk, optional, same_shapes};
use crate::contract;
use crate::contract::{Geometry, Ptr, PtrMut, Ready, launch};
use crate::driver::Driver;
use crate::error::{KernelError, Result};
use crate::mat::{Mat, MatMut, grid_limit};

/// One direction of a forward scan.
#[derive(Clone, Copy, Debug)]
pub struct ForwardWalk {
    /// What it reads.
    pub walk: Walk,
    /// Receives the states before every 16 tokens: [`super::checkpoint_len`] elements.
    pub checkpoints: Option<PtrMut<f32>>,
    /// Receives the state after the last token walked, (batch, channels, states).
    pub last: Option<MatMut>,
}

impl ForwardWalk {
    fn check(&self, kernel: &'static str) -> Result<Shape> {
        let shape = self.walk.check(kernel)?;
        if let Some(checkpoints) = self.checkpoints {
            let needed = shape.checkpoint_len() as u64;
            if checkpoints.len() < needed {
                return Err(KernelError::OutOfBounds {
                    kernel,
                    name: "checkpoints",
                    needed,
                    len: checkpoints.len(),
                });
            }
        }
        if let Some(last) = &self.last {
            last.check_shape(kernel, "last", [shape.batch, shape.channels, shape.states])?;
        }
        Ok(shape)
    }

    fn checkpoints(&self) -> PtrMut<f32> {
        self.checkpoints.unwrap_or(PtrMut::null())
    }

    fn last(&self) -> (PtrMut<f32>, u32, u32) {
        match &self.last {
            Some(last) => (last.ptr, last.row_stride as u32, last.batch_stride as u32),
            None => (PtrMut::null(), 0, 0),
        }
    }
}

macro_rules! forward_contract {
    ($(#[$meta:meta])* $name:ident, $entry:literal, { $($extra:ident: $from:ident),* }) => {
        contract! {
            $(#[$meta])*
            pub struct $name: SCAN_FORWARD, $entry {
                y: PtrMut<f32>, y_row: u32, y_batch: u32,
                z: Ptr<f32>, z_row: u32, z_batch: u32,
                accumulate: u32, directions: u32, tokens: u32, channels: u32,
                $($extra: u32,)*
                d0_u: Ptr<f32>, d0_u_row: u32, d0_u_batch: u32,
                d0_delta: Ptr<f32>, d0_delta_row: u32, d0_delta_batch: u32,
                d0_a: Ptr<f32>, d0_a_row: u32,
                d0_bc: Ptr<f32>, d0_bc_row: u32, d0_bc_batch: u32,
                d0_d: Ptr<f32>, d0_bias: Ptr<f32>,
                d0_checkpoints: PtrMut<f32>,
                d0_last: PtrMut<f32>, d0_last_row: u32, d0_last_batch: u32,
                d0_flags: u32,
                d1_u: Ptr<f32>, d1_u_row: u32, d1_u_batch: u32,
                d1_delta: Ptr<f32>, d1_delta_row: u32, d1_delta_batch: u32,
                d1_a: Ptr<f32>, d1_a_row: u32,
                d1_bc: Ptr<f32>, d1_bc_row: u32, d1_bc_batch: u32,
                d1_d: Ptr<f32>, d1_bias: Ptr<f32>,
                d1_checkpoints: PtrMut<f32>,
                d1_last: PtrMut<f32>, d1_last_row: u32, d1_last_batch: u32,
                d1_flags: u32,
            }
        }

        impl $name {
            fn fill(call: &Call<'_>) -> Self {
                let (first, second) = call.walks();
                let (w0, w1) = (&first.walk, &second.walk);
                let ((last0, last0_row, last0_batch), (last1, last1_row, last1_batch)) =
                    (first.last(), second.last());
                Self {
                    y: call.y.ptr,
                    y_row: call.y.row_stride as u32,
                    y_batch: call.y.batch_stride as u32,
                    z: optional(call.z),
                    z_row: call.z.map_or(0, |z| z.row_stride as u32),
                    z_batch: call.z.map_or(0, |z| z.batch_stride as u32),
                    accumulate: call.accumulate.into(),
                    directions: call.directions.len() as u32,
                    tokens: call.shape.tokens as u32,
                    channels: call.shape.channels as u32,
                    $($extra: call.$from,)*
                    d0_u: w0.u.ptr,
                    d0_u_row: w0.u.row_stride as u32,
                    d0_u_batch: w0.u.batch_stride as u32,
                    d0_delta: w0.delta.ptr,
                    d0_delta_row: w0.delta.row_stride as u32,
                    d0_delta_batch: w0.delta.batch_stride as u32,
                    d0_a: w0.a.ptr,
                    d0_a_row: w0.a.row_stride as u32,
                    d0_bc: w0.bc.ptr,
                    d0_bc_row: w0.bc.row_stride as u32,
                    d0_bc_batch: w0.bc.batch_stride as u32,
                    d0_d: optional(w0.d),
                    d0_bias: optional(w0.delta_bias),
                    d0_checkpoints: first.checkpoints(),
                    d0_last: last0,
                    d0_last_row: last0_row,
                    d0_last_batch: last0_batch,
                    d0_flags: w0.flags(),
                    d1_u: w1.u.ptr,
                    d1_u_row: w1.u.row_stride as u32,
                    d1_u_batch: w1.u.batch_stride as u32,
                    d1_delta: w1.delta.ptr,
                    d1_delta_row: w1.delta.row_stride as u32,
                    d1_delta_batch: w1.delta.batch_stride as u32,
                    d1_a: w1.a.ptr,
                    d1_a_row: w1.a.row_stride as u32,
                    d1_bc: w1.bc.ptr,
                    d1_bc_row: w1.bc.row_stride as u32,
                    d1_bc_batch: w1.bc.batch_stride as u32,
                    d1_d: optional(w1.d),
                    d1_bias: optional(w1.delta_bias),
                    d1_checkpoints: second.checkpoints(),
                    d1_last: last1,
                    d1_last_row: last1_row,
                    d1_last_batch: last1_batch,
                    d1_flags: w1.flags(),
                }
            }
        }
    };
}

forward_contract! {
    /// The scan of 16 states, a channel a thread; see [`Forward`].
    ScanForwardN16, "dis_scan_forward_n16", {}
}
forward_contract! {
    /// The scan of 16 states, four a lane, both directions at once; see [`Forward`].
    ScanForwardSplit16, "dis_scan_forward_split16", {}
}
forward_contract! {
    /// The scan of up to 128 states, four a lane; see [`Forward`].
    ScanForwardLanes4, "dis_scan_forward_lanes4", { states: states, lanes: lanes }
}
forward_contract! {
    /// The scan of up to 256 states, eight a lane; see [`Forward`].
    ScanForwardLanes8, "dis_scan_forward_lanes8", { states: states, lanes: lanes }
}

/// Checked arguments.
struct Call<'a> {
    directions: &'a [ForwardWalk],
    y: MatMut,
    accumulate: bool,
    z: Option<Mat>,
    shape: Shape,
    states: u32,
    /// log2 of the lanes that share a channel.
    lanes: u32,
}

impl Call<'_> {
    /// Both directions; the first twice where there is no second, which is then not read.
    fn walks(&self) -> (&ForwardWalk, &ForwardWalk) {
        let first = &self.directions[0];
        (first, self.directions.get(1).unwrap_or(first))
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
        let (kernel, per_lane, limit) = match variant {
            Variant::N16 => ("dis_scan_forward_n16", 16, 16),
            Variant::Split16 => ("dis_scan_forward_split16", 4, 16),
            Variant::Lanes4 => ("dis_scan_forward_lanes4", 4, 128),
            Variant::Lanes8 => ("dis_scan_forward_lanes8", 8, 256),
        };
        let shape = same_shapes(kernel, directions.iter().map(|walk| walk.check(kernel)))?;
        y.check_shape(kernel, "y", shape.tokens3())?;
        if let Some(z) = &z {
            z.check_shape(kernel, "z", shape.tokens3())?;
        }
        let states = shape.states;
        let sixteen = matches!(variant, Variant::N16 | Variant::Split16);
        if states > limit || (sixteen && states != 16) {
            return Err(crate::mat::shape(kernel, format!("{states} states")));
        }
        if variant == Variant::Split16 && same_way(directions) {
            let what = "two directions that are not opposite".into();
            return Err(crate::mat::shape(kernel, what));
        }
        let lanes = states.div_ceil(per_lane).next_power_of_two();
        let call = Call {
            directions,
            y,
            accumulate,
            z,
            shape,
            states: states as u32,
            lanes: lanes.ilog2(),
        };
        let blocks = shape.channels.div_ceil(128 / lanes) as u32;
        let samples = grid_limit(kernel, "the number of samples", shape.batch)?;
        let mut geometry = Geometry::new([blocks, samples, 1], [128, 1, 1]);
        if shape.is_empty() {
            geometry.grid = [0; 3];
        }
        Ok(match variant {
            Variant::N16 => Self::N16(Ready::new(ScanForwardN16::fill(&call), geometry)),
            Variant::Split16 => {
                geometry.block[0] *= directions.len() as u32;
                Self::Split16(Ready::new(ScanForwardSplit16::fill(&call), geometry))
            }
            Variant::Lanes4 => {
                geometry.dynamic_shared = tile_bytes(lanes * 4);
                Self::Lanes4(Ready::new(ScanForwardLanes4::fill(&call), geometry))
            }
            Variant::Lanes8 => {
                geometry.dynamic_shared = tile_bytes(lanes * 8);
                Self::Lanes8(Ready::new(ScanForwardLanes8::fill(&call), geometry))
            }
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
