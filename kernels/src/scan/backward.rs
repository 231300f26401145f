//! Launch contracts of `scan_backward.ptx`.

use super::{Shape, Walk, optional, same_shapes};
use crate::contract;
use crate::contract::{Geometry, Ptr, PtrMut, Ready, launch};
use crate::driver::Driver;
use crate::error::{KernelError, Result};
use crate::mat::{Mat, MatMut, grid_limit, shape};

/// States that one launch of [`ScanBackwardAny`] takes at most.
const STATES_A_LAUNCH: usize = 64;

/// Partial sums of one direction, to be added up with [`super::SumPartials`].
#[derive(Clone, Copy, Debug)]
pub struct PartialSums {
    /// (batch, blocks, tokens, 2 states): dB and dC side by side.
    pub dbc: PtrMut<f32>,
    /// (batch, channels, states).
    pub da: PtrMut<f32>,
    /// (batch, channels).
    pub dd: PtrMut<f32>,
    /// (batch, channels).
    pub dbias: PtrMut<f32>,
}

impl PartialSums {
    /// Blocks that the channels of a sample are divided into.
    pub const fn blocks(channels: usize, states: usize) -> usize {
        channels.div_ceil(128 >> lanes(states))
    }

    fn check(&self, kernel: &'static str, shape: &Shape) -> Result<()> {
        let Shape {
            batch,
            tokens,
            channels,
            states,
        } = *shape;
        let blocks = Self::blocks(channels, states);
        for (name, part, needed) in [
            ("dbc_part", self.dbc, batch * blocks * tokens * 2 * states),
            ("da_part", self.da, batch * channels * states),
            ("dd_part", self.dd, batch * channels),
            ("dbias_part", self.dbias, batch * channels),
        ] {
            let (needed, len) = (needed as u64, part.len());
            if len < needed {
                return Err(KernelError::OutOfBounds {
                    kernel,
                    name,
                    needed,
                    len,
                });
            }
        }
        Ok(())
    }
}

/// log2 of the lanes that share a channel, four states each.
const fn lanes(states: usize) -> u32 {
    let states = if states > STATES_A_LAUNCH {
        STATES_A_LAUNCH
    } else {
        states
    };
    let lanes = states.div_ceil(4).next_power_of_two();
    // The kernel uses two lanes of a channel, and shared memory for at most 32 channels.
    if lanes < 4 { 2 } else { lanes.ilog2() }
}

/// One direction of a backward scan.
#[derive(Clone, Copy, Debug)]
pub struct BackwardWalk {
    /// What the forward read.
    pub walk: Walk,
    /// What the forward wrote.
    pub checkpoints: Ptr<f32>,
    /// Gradient of the input, (batch, tokens, channels), overwritten.
    pub du: MatMut,
    /// Gradient of the raw step, (batch, tokens, channels), overwritten.
    pub ddelta: MatMut,
    /// Overwritten.
    pub sums: PartialSums,
}

impl BackwardWalk {
    fn check(&self, kernel: &'static str) -> Result<Shape> {
        let shape = self.walk.check(kernel)?;
        let needed = shape.checkpoint_len() as u64;
        if self.checkpoints.len() < needed {
            return Err(KernelError::OutOfBounds {
                kernel,
                name: "checkpoints",
                needed,
                len: self.checkpoints.len(),
            });
        }
        let Walk { u, delta, bc, .. } = &self.walk;
        short_steps(kernel, "u", u.row_stride)?;
        short_steps(kernel, "delta", delta.row_stride)?;
        short_steps(kernel, "bc", bc.row_stride)?;
        short_steps(kernel, "du", self.du.row_stride)?;
        short_steps(kernel, "ddelta", self.ddelta.row_stride)?;
        self.du.check_shape(kernel, "du", shape.tokens3())?;
        self.ddelta.check_shape(kernel, "ddelta", shape.tokens3())?;
        self.sums.check(kernel, &shape)?;
        Ok(shape)
    }
}

/// The backward multiplies positions by steps in bytes, of 32 bits.
fn short_steps(kernel: &'static str, name: &str, row_stride: usize) -> Result<()> {
    if row_stride < 1 << 29 {
        return Ok(());
    }
    Err(shape(
        kernel,
        format!("{name} has row stride {row_stride}, supported are less than 2^29"),
    ))
}

macro_rules! backward_contract {
    ($(#[$meta:meta])* $name:ident, $entry:literal, { $($extra:ident),* }) => {
        contract! {
            $(#[$meta])*
            pub struct $name: SCAN_BACKWARD, $entry {
                dout: Ptr<f32>, dout_row: u32, dout_batch: u32,
                z: Ptr<f32>, z_row: u32, z_batch: u32,
                dz: PtrMut<f32>, dz_row: u32, dz_batch: u32,
                accumulate_dz: u32, directions: u32, tokens: u32, channels: u32,
                $($extra: u32,)*
                d0_u: Ptr<f32>, d0_u_row: u32, d0_u_batch: u32,
                d0_delta: Ptr<f32>, d0_delta_row: u32, d0_delta_batch: u32,
                d0_a: Ptr<f32>, d0_a_row: u32,
                d0_bc: Ptr<f32>, d0_bc_row: u32, d0_bc_batch: u32,
                d0_d: Ptr<f32>, d0_bias: Ptr<f32>,
                d0_checkpoints: Ptr<f32>,
                d0_du: PtrMut<f32>, d0_du_row: u32, d0_du_batch: u32,
                d0_ddelta: PtrMut<f32>, d0_ddelta_row: u32, d0_ddelta_batch: u32,
                d0_dbc_part: PtrMut<f32>, d0_da_part: PtrMut<f32>,
                d0_dd_part: PtrMut<f32>, d0_dbias_part: PtrMut<f32>,
                d0_flags: u32,
                d1_u: Ptr<f32>, d1_u_row: u32, d1_u_batch: u32,
                d1_delta: Ptr<f32>, d1_delta_row: u32, d1_delta_batch: u32,
                d1_a: Ptr<f32>, d1_a_row: u32,
                d1_bc: Ptr<f32>, d1_bc_row: u32, d1_bc_batch: u32,
                d1_d: Ptr<f32>, d1_bias: Ptr<f32>,
                d1_checkpoints: Ptr<f32>,
                d1_du: PtrMut<f32>, d1_du_row: u32, d1_du_batch: u32,
                d1_ddelta: PtrMut<f32>, d1_ddelta_row: u32, d1_ddelta_batch: u32,
                d1_dbc_part: PtrMut<f32>, d1_da_part: PtrMut<f32>,
                d1_dd_part: PtrMut<f32>, d1_dbias_part: PtrMut<f32>,
                d1_flags: u32,
            }
        }

        impl $name {
            fn fill(call: &Call<'_>) -> Self {
                let first = &call.directions[0];
                // The first twice where there is no second, which is then not read.
                let second = call.directions.get(1).unwrap_or(first);
                let (w0, w1) = (&first.walk, &second.walk);
                Self {
                    dout: call.dout.ptr,
                    dout_row: call.dout.row_stride as u32,
                    dout_batch: call.dout.batch_stride as u32,
                    z: optional(call.gate.map(|(z, _)| z)),
                    z_row: call.gate.map_or(0, |(z, _)| z.row_stride as u32),
                    z_batch: call.gate.map_or(0, |(z, _)| z.batch_stride as u32),
                    dz: call.gate.map_or(PtrMut::null(), |(_, dz)| dz.ptr),
                    dz_row: call.gate.map_or(0, |(_, dz)| dz.row_stride as u32),
                    dz_batch: call.gate.map_or(0, |(_, dz)| dz.batch_stride as u32),
                    accumulate_dz: call.accumulate_dz.into(),
                    directions: call.directions.len() as u32,
                    tokens: call.shape.tokens as u32,
                    channels: call.shape.channels as u32,
                    $($extra: call.$extra,)*
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
                    d0_checkpoints: first.checkpoints,
                    d0_du: first.du.ptr,
                    d0_du_row: first.du.row_stride as u32,
                    d0_du_batch: first.du.batch_stride as u32,
                    d0_ddelta: first.ddelta.ptr,
                    d0_ddelta_row: first.ddelta.row_stride as u32,
                    d0_ddelta_batch: first.ddelta.batch_stride as u32,
                    d0_dbc_part: first.sums.dbc,
                    d0_da_part: first.sums.da,
                    d0_dd_part: first.sums.dd,
                    d0_dbias_part: first.sums.dbias,
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
                    d1_checkpoints: second.checkpoints,
                    d1_du: second.du.ptr,
                    d1_du_row: second.du.row_stride as u32,
                    d1_du_batch: second.du.batch_stride as u32,
                    d1_ddelta: second.ddelta.ptr,
                    d1_ddelta_row: second.ddelta.row_stride as u32,
                    d1_ddelta_batch: second.ddelta.batch_stride as u32,
                    d1_dbc_part: second.sums.dbc,
                    d1_da_part: second.sums.da,
                    d1_dd_part: second.sums.dd,
                    d1_dbias_part: second.sums.dbias,
                    d1_flags: w1.flags(),
                }
            }
        }
    };
}

backward_contract! {
    /// The backward of 16 states; see [`Backward`].
    ScanBackwardN16, "dis_scan_backward_n16", {}
}
backward_contract! {
    /// The backward of up to 64 of the states; see [`Backward`].
    ScanBackwardAny, "dis_scan_backward_any", { states, state_first, state_count, lanes }
}

/// Checked arguments.
struct Call<'a> {
    directions: &'a [BackwardWalk],
    dout: Mat,
    gate: Option<(Mat, MatMut)>,
    accumulate_dz: bool,
    shape: Shape,
    states: u32,
    state_first: u32,
    state_count: u32,
    lanes: u32,
}

/// A backward scan of one direction or two. With a gate, `dout` is the gradient of what the gate
/// gives, and `dz` gets the sum over the directions.
#[derive(Clone, Debug)]
pub enum Backward {
    /// 16 states.
    N16(Box<Ready<ScanBackwardN16>>),
    /// Other numbers of states: a launch for every 64 of them.
    Any(Vec<Ready<ScanBackwardAny>>),
}

impl Backward {
    /// Checks the operands; `gate` is z and dz.
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new(
        directions: &[BackwardWalk],
        dout: Mat,
        gate: Option<(Mat, MatMut)>,
        accumulate_dz: bool,
    ) -> Result<Self> {
        let sixteen = directions
            .first()
            .is_some_and(|first| first.walk.a.channels == 16);
        let kernel = if sixteen {
            "dis_scan_backward_n16"
        } else {
            "dis_scan_backward_any"
        };
        let call = check(kernel, directions, dout, gate, accumulate_dz)?;
        let geometry = geometry(kernel, &call.shape)?;
        Ok(if sixteen {
            Self::N16(Box::new(Ready::new(ScanBackwardN16::fill(&call), geometry)))
        } else {
            Self::Any(any(call, geometry))
        })
    }

    /// As [`Self::new`], by the entry that takes any number of states, also for 16.
    ///
    /// # Errors
    /// If shapes do not fit together, sizes exceed the kernel's arithmetic, or an operand leaves
    /// its memory.
    pub fn new_any(
        directions: &[BackwardWalk],
        dout: Mat,
        gate: Option<(Mat, MatMut)>,
        accumulate_dz: bool,
    ) -> Result<Self> {
        const NAME: &str = "dis_scan_backward_any";
        let call = check(NAME, directions, dout, gate, accumulate_dz)?;
        let geometry = geometry(NAME, &call.shape)?;
        Ok(Self::Any(any(call, geometry)))
    }

    /// Launches it.
    ///
    /// # Errors
    /// As [`Driver::launch`].
    pub fn launch<D: Driver>(&self, driver: &D) -> Result<()> {
        match self {
            Self::N16(kernel) => launch(driver, &**kernel),
            Self::Any(kernels) => kernels.iter().try_for_each(|kernel| launch(driver, kernel)),
        }
    }
}

fn check<'a>(
    kernel: &'static str,
    directions: &'a [BackwardWalk],
    dout: Mat,
    gate: Option<(Mat, MatMut)>,
    accumulate_dz: bool,
) -> Result<Call<'a>> {
    let of = same_shapes(kernel, directions.iter().map(|walk| walk.check(kernel)))?;
    let full = of.tokens3();
    dout.check_shape(kernel, "dout", full)?;
    short_steps(kernel, "dout", dout.row_stride)?;
    if let Some((z, dz)) = &gate {
        short_steps(kernel, "z", z.row_stride)?;
        short_steps(kernel, "dz", dz.row_stride)?;
        z.check_shape(kernel, "z", full)?;
        dz.check_shape(kernel, "dz", full)?;
    }
    Ok(Call {
        directions,
        dout,
        gate,
        accumulate_dz,
        shape: of,
        states: of.states as u32,
        state_first: 0,
        state_count: of.states.min(STATES_A_LAUNCH) as u32,
        lanes: lanes(of.states),
    })
}

fn geometry(kernel: &'static str, shape: &Shape) -> Result<Geometry> {
    let blocks = PartialSums::blocks(shape.channels, shape.states) as u32;
    let samples = grid_limit(kernel, "the number of samples", shape.batch)?;
    let mut geometry = Geometry::new([blocks, samples, 1], [128, 1, 1]);
    if shape.is_empty() {
        geometry.grid = [0; 3];
    }
    Ok(geometry)
}

/// One launch for every 64 states.
fn any(mut call: Call<'_>, mut geometry: Geometry) -> Vec<Ready<ScanBackwardAny>> {
    let (history, fields) = (16 * 128 * 4, 7 * 16 * (128 >> call.lanes));
    let rows = 16 * 2 * (4 << call.lanes);
    geometry.dynamic_shared = (history + fields + rows) * size_of::<f32>() as u32;
    let mut launches = Vec::new();
    for first in (0..call.states).step_by(STATES_A_LAUNCH) {
        call.state_first = first;
        call.state_count = (call.states - first).min(STATES_A_LAUNCH as u32);
        launches.push(Ready::new(ScanBackwardAny::fill(&call), geometry));
    }
    launches
}
