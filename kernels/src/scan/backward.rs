//! Launch contracts of `scan_backward.ptx`.

use super::{Shape, Walk, one_or_two, same};
use crate::contract::{Contract, Geometry, Kernel, Ready, contract, launch};
use crate::driver::Driver;
use crate::error::Result;
use crate::mat::{Mat, MatMut, grid_limit, shape, shapes};
use crate::pointer::{Ptr, PtrMut};

/// States that one launch of [`ScanBackwardAny`] takes at most.
const STATES_A_LAUNCH: usize = 64;

contract! {
    /// Partial sums of one direction, to be added up with [`super::SumPartials`].
    pub struct PartialSums {
        /// (batch, blocks, tokens, 2 states): dB and dC side by side.
        pub dbc: PtrMut<f32> as dbc_part,
        /// (batch, channels, states).
        pub da: PtrMut<f32> as da_part,
        /// (batch, channels).
        pub dd: PtrMut<f32> as dd_part,
        /// (batch, channels).
        pub dbias: PtrMut<f32> as dbias_part,
    }
}

impl PartialSums {
    /// Blocks that the channels of a sample are divided into.
    pub const fn blocks(channels: usize, states: usize) -> usize {
        channels.div_ceil(128 >> lanes(states))
    }

    /// Elements of each part, in the order of the fields.
    pub const fn lens([batch, tokens, channels]: [usize; 3], states: usize) -> [usize; 4] {
        let blocks = Self::blocks(channels, states);
        let vector = batch * channels;
        [
            batch * blocks * tokens * 2 * states,
            vector * states,
            vector,
            vector,
        ]
    }

    /// Parts of these lengths, one behind another.
    pub fn split(memory: PtrMut<f32>, [dbc, da, dd, _]: [usize; 4]) -> Self {
        let at = |elements: usize| memory.at(elements as u64);
        Self {
            dbc: memory,
            da: at(dbc),
            dd: at(dbc + da),
            dbias: at(dbc + da + dd),
        }
    }

    fn hold(&self, kernel: &'static str, shape: &Shape) -> Result<()> {
        let [dbc, da, dd, dbias] = Self::lens(shape.tokens3(), shape.states);
        for (name, part, needed) in [
            ("dbc_part", self.dbc, dbc),
            ("da_part", self.da, da),
            ("dd_part", self.dd, dd),
            ("dbias_part", self.dbias, dbias),
        ] {
            part.holds(kernel, name, needed as u64)?;
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

contract! {
    /// One direction of a backward scan.
    pub struct BackwardWalk {
        /// What the forward read.
        pub flat walk: Walk,
        /// What the forward wrote.
        pub checkpoints: Ptr<f32>,
        /// Gradient of the input, (batch, tokens, channels), overwritten.
        pub du: MatMut,
        /// Gradient of the raw step, (batch, tokens, channels), overwritten.
        pub ddelta: MatMut,
        /// Overwritten.
        pub flat sums: PartialSums,
        flags: u32 = |k| k.walk.flags(),
    }
}

impl BackwardWalk {
    fn shape(&self, kernel: &'static str) -> Result<Shape> {
        let shape = self.walk.shape(kernel)?;
        self.checkpoints
            .holds(kernel, "checkpoints", shape.checkpoint_len() as u64)?;
        let Walk { u, delta, bc, .. } = &self.walk;
        short_steps(
            kernel,
            &[
                ("u", Some(u.row_stride)),
                ("delta", Some(delta.row_stride)),
                ("bc", Some(bc.row_stride)),
                ("du", Some(self.du.row_stride)),
                ("ddelta", Some(self.ddelta.row_stride)),
            ],
        )?;
        let whole = shape.tokens3();
        shapes(
            kernel,
            &[("du", &self.du, whole), ("ddelta", &self.ddelta, whole)],
        )?;
        self.sums.hold(kernel, &shape)?;
        Ok(shape)
    }
}

/// The backward multiplies positions by steps in bytes, of 32 bits.
fn short_steps(kernel: &'static str, row_strides: &[(&str, Option<usize>)]) -> Result<()> {
    for (name, row_stride) in row_strides {
        if let Some(row_stride) = row_stride.filter(|&stride| stride >= 1 << 29) {
            let what = format!("{name} has row stride {row_stride}, supported are less than 2^29");
            return Err(shape(kernel, what));
        }
    }
    Ok(())
}

macro_rules! backward_contract {
    ($(#[$meta:meta])* $name:ident, $entry:literal, {$($extra:tt)*}) => {
        contract! {
            $(#[$meta])*
            pub struct $name: SCAN_BACKWARD, $entry {
                dout: Mat,
                z: Option<Mat>,
                dz: Option<MatMut>,
                accumulate_dz: bool,
                directions: usize = |k| 1 + usize::from(k.d1.is_some()),
                tokens: usize = |k| k.dout.tokens,
                channels: usize = |k| k.dout.channels,
                $($extra)*
                d0: BackwardWalk,
                d1: Option<BackwardWalk>,
            }
        }

        impl $name {
            /// Checks the operands; the geometry but for shared memory, and the number of states.
            fn geometry(&self) -> Result<(Geometry, usize)> {
                let first = self.d0.shape(Self::NAME)?;
                let second = self.d1.map(|walk| walk.shape(Self::NAME)).transpose()?;
                let shape = same(Self::NAME, first, second)?;
                let whole = shape.tokens3();
                shapes(
                    Self::NAME,
                    &[
                        ("dout", &self.dout, whole),
                        ("z", &self.z, whole),
                        ("dz", &self.dz, whole),
                    ],
                )?;
                short_steps(
                    Self::NAME,
                    &[
                        ("dout", Some(self.dout.row_stride)),
                        ("z", self.z.map(|z| z.row_stride)),
                        ("dz", self.dz.map(|dz| dz.row_stride)),
                    ],
                )?;
                let blocks = PartialSums::blocks(shape.channels, shape.states) as u32;
                let samples = grid_limit(Self::NAME, "the number of samples", shape.batch)?;
                let mut geometry = Geometry::new([blocks, samples, 1], [128, 1, 1]);
                if shape.is_empty() {
                    geometry.grid = [0; 3];
                }
                Ok((geometry, shape.states))
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
    ScanBackwardAny, "dis_scan_backward_any", {
        states: usize = |k| k.d0.walk.a.channels,
        state_first: usize,
        state_count: usize = |k| (k.d0.walk.a.channels - k.state_first).min(STATES_A_LAUNCH),
        lanes: u32 = |k| lanes(k.d0.walk.a.channels),
    }
}

impl Kernel for ScanBackwardN16 {
    fn fit(&mut self) -> Result<Geometry> {
        match self.geometry()? {
            (geometry, 16) => Ok(geometry),
            (_, states) => Err(shape(Self::NAME, format!("{states} states"))),
        }
    }
}

impl Kernel for ScanBackwardAny {
    fn fit(&mut self) -> Result<Geometry> {
        let (mut geometry, states) = self.geometry()?;
        let lanes = lanes(states);
        let (history, fields) = (16 * 128 * 4, 7 * 16 * (128 >> lanes));
        let rows = 16 * 2 * (4 << lanes);
        geometry.dynamic_shared = (history + fields + rows) * size_of::<f32>() as u32;
        Ok(geometry)
    }
}

/// A backward scan of one direction or two. With a gate, `dout` is the gradient of what the gate
/// gives, and `dz` gets the sum over the directions.
#[derive(Clone, Copy, Debug)]
pub enum Backward {
    /// 16 states.
    N16(Ready<ScanBackwardN16>),
    /// Other numbers of states: a launch for every 64 of them.
    Any(Ready<ScanBackwardAny>),
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
        let (d0, d1) = one_or_two("dis_scan_backward", directions)?;
        if d0.walk.a.channels != 16 {
            return Self::new_any(directions, dout, gate, accumulate_dz);
        }
        let kernel = ScanBackwardN16 {
            dout,
            z: gate.map(|(z, _)| z),
            dz: gate.map(|(_, dz)| dz),
            accumulate_dz,
            d0,
            d1,
        };
        kernel.ready().map(Self::N16)
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
        let (d0, d1) = one_or_two("dis_scan_backward", directions)?;
        let kernel = ScanBackwardAny {
            dout,
            z: gate.map(|(z, _)| z),
            dz: gate.map(|(_, dz)| dz),
            accumulate_dz,
            state_first: 0,
            d0,
            d1,
        };
        kernel.ready().map(Self::Any)
    }

    /// Launches it.
    ///
    /// # Errors
    /// As [`Driver::launch`].
    pub fn launch<D: Driver>(&self, driver: &D) -> Result<()> {
        match self {
            Self::N16(kernel) => launch(driver, kernel),
            Self::Any(kernel) => {
                let mut part = *kernel;
                for first in (0..kernel.kernel.d0.walk.a.channels).step_by(STATES_A_LAUNCH) {
                    part.kernel.state_first = first;
                    launch(driver, &part)?;
                }
                Ok(())
            }
        }
    }
}
