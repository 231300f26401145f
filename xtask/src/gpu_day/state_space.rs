//! Operands of the scan and the convolution.

use anyhow::Result;
use dis_kernels::scan::{
    self, BackwardWalk, ConvBackward, ConvBoth, ConvForward, ConvWalk, ForwardWalk, PartialSums,
    SumPartials, Variant, Walk, checkpoint_len, conv_tiles,
};
use dis_kernels::{Driver, launch};

use super::work::{Memory, Shape, Work};

/// A forward scan of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    variant: Variant,
    both: bool,
    checkpoints: bool,
    hold: bool,
}

const fn forward(variant: Variant, both: bool, checkpoints: bool, hold: bool) -> Forward {
    Forward {
        variant,
        both,
        checkpoints,
        hold,
    }
}

/// Those that are timed.
pub const FORWARDS: [Forward; 7] = [
    forward(Variant::N16, false, false, false),
    forward(Variant::N16, true, false, false),
    forward(Variant::N16, true, true, false),
    forward(Variant::N16, true, false, true),
    forward(Variant::Split16, true, false, false),
    forward(Variant::Lanes4, true, false, false),
    forward(Variant::Lanes8, true, false, false),
];

/// A backward scan of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backward {
    both: bool,
    hold: bool,
    /// By the entry for any number of states.
    any: bool,
}

const fn backward(both: bool, hold: bool, any: bool) -> Backward {
    Backward { both, hold, any }
}

/// Those that are timed.
pub const BACKWARDS: [Backward; 4] = [
    backward(false, false, false),
    backward(true, false, false),
    backward(true, true, false),
    backward(true, false, true),
];

/// The directions of a walk of one, or both: whether each is the reverse one.
fn directions(both: bool) -> &'static [bool] {
    if both { &[false, true] } else { &[false] }
}

/// What a scan does.
fn note(both: bool, checkpoints: bool, hold: bool) -> String {
    let mut note = String::from(if both { ", both" } else { ", one way" });
    if checkpoints {
        note += ", checkpoints";
    }
    if hold {
        note += ", zero-order hold";
    }
    note
}

/// One direction's inputs.
fn walk<D: Driver>(m: &mut Memory<'_, D>, s: Shape, hold: bool, reverse: bool) -> Result<Walk> {
    let full = [s.batch, s.tokens, s.channels];
    let vector = [1, 1, s.channels];
    Ok(Walk {
        u: m.mat(full, -1.0, 1.0)?.read(),
        delta: m.mat(full, -2.0, 1.0)?.read(),
        a: m.mat([1, s.channels, s.states], -8.0, -0.5)?.read(),
        bc: m.mat([s.batch, s.tokens, 2 * s.states], -1.0, 1.0)?.read(),
        d: Some(m.mat(vector, 0.5, 1.5)?.read()),
        delta_bias: Some(m.mat(vector, -4.0, -2.0)?.read()),
        softplus: true,
        hold,
        reverse,
    })
}

fn checkpoints(s: Shape) -> usize {
    checkpoint_len(s.batch, s.tokens, s.channels, s.states)
}

impl Forward {
    /// In the table.
    pub fn name(&self) -> String {
        format!("scan forward {:?}{}", self.variant, self.note())
    }

    /// What it does.
    pub fn note(&self) -> String {
        note(self.both, self.checkpoints, self.hold)
    }

    /// Whether it is for small batches.
    pub fn is_for_few(&self) -> bool {
        matches!(self.variant, Variant::Split16 | Variant::Lanes4)
    }

    /// With operands.
    pub fn build<D: Driver>(self, mut m: Memory<'_, D>, s: Shape) -> Result<Work<D>> {
        let full = [s.batch, s.tokens, s.channels];
        let mut walks = Vec::new();
        for &reverse in directions(self.both) {
            let walk = walk(&mut m, s, self.hold, reverse)?;
            let checkpoints = match self.checkpoints {
                true => Some(m.room(checkpoints(s))?),
                false => None,
            };
            walks.push(ForwardWalk {
                walk,
                checkpoints,
                last: None,
            });
        }
        let z = m.mat(full, -2.0, 2.0)?.read();
        let y = m.out(full)?;
        let kernel = scan::Forward::with_variant(self.variant, &walks, y, false, Some(z))?;
        Ok(m.work_of(move |driver| kernel.launch(driver)))
    }
}

impl Backward {
    /// In the table.
    pub fn name(&self) -> String {
        let any = if self.any { ", any states" } else { "" };
        format!("scan backward{any}{}", self.note())
    }

    /// What it does.
    pub fn note(&self) -> String {
        note(self.both, false, self.hold)
    }

    /// With operands.
    pub fn build<D: Driver>(self, mut m: Memory<'_, D>, s: Shape) -> Result<Work<D>> {
        let full = [s.batch, s.tokens, s.channels];
        let mut walks = Vec::new();
        for &reverse in directions(self.both) {
            let lens = PartialSums::lens(full, s.states);
            walks.push(BackwardWalk {
                walk: walk(&mut m, s, self.hold, reverse)?,
                checkpoints: m.values(checkpoints(s), -1.0, 1.0)?.read(),
                du: m.out(full)?,
                ddelta: m.out(full)?,
                sums: PartialSums::split(m.room(lens.iter().sum())?, lens),
            });
        }
        let dout = m.mat(full, -1.0, 1.0)?.read();
        let z = m.mat(full, -2.0, 2.0)?.read();
        let dz = m.out(full)?;
        let new = if self.any {
            scan::Backward::new_any
        } else {
            scan::Backward::new
        };
        let kernel = new(&walks, dout, Some((z, dz)), false)?;
        Ok(m.work_of(move |driver| kernel.launch(driver)))
    }
}

/// The sums that are left after a backward scan of both directions.
pub fn sum_partials<D: Driver>(mut m: Memory<'_, D>, s: Shape) -> Result<Work<D>> {
    let blocks = PartialSums::blocks(s.channels, s.states);
    let mut kernels = Vec::new();
    for _ in directions(true) {
        for (count, shape, accumulate) in [
            (blocks, [s.batch, s.tokens, 2 * s.states], false),
            (s.batch, [1, s.channels, s.states], false),
            (s.batch, [1, 1, s.channels], true),
            (s.batch, [1, 1, s.channels], true),
        ] {
            let parts = m.values(count * shape.iter().product::<usize>(), -1.0, 1.0)?;
            let out = match accumulate {
                true => m.changed(shape, -1.0, 1.0)?,
                false => m.out(shape)?,
            };
            kernels.push(SumPartials::new(parts.read(), out, count, accumulate)?);
        }
    }
    Ok(m.work_of(move |driver| kernels.iter().try_for_each(|kernel| launch(driver, kernel))))
}

fn taps<D: Driver>(m: &mut Memory<'_, D>, s: Shape, reverse: bool) -> Result<ConvWalk> {
    Ok(ConvWalk {
        weight: m.mat([1, s.channels, 4], -0.5, 0.5)?.read(),
        bias: Some(m.mat([1, 1, s.channels], -0.5, 0.5)?.read()),
        silu: true,
        reverse,
    })
}

/// The convolution of one direction.
pub fn conv_forward<D: Driver>(mut m: Memory<'_, D>, s: Shape) -> Result<Work<D>> {
    let full = [s.batch, s.tokens, s.channels];
    let x = m.mat(full, -1.0, 1.0)?.read();
    let walk = (taps(&mut m, s, false)?, m.out(full)?);
    Ok(m.work(ConvForward::new(x, &[walk])?))
}

/// The convolution of both directions.
pub fn conv_both<D: Driver>(mut m: Memory<'_, D>, s: Shape) -> Result<Work<D>> {
    let full = [s.batch, s.tokens, s.channels];
    let x = m.mat(full, -1.0, 1.0)?.read();
    let mut walk = |reverse| -> Result<_> { Ok((taps(&mut m, s, reverse)?, m.out(full)?)) };
    let walks = [walk(false)?, walk(true)?];
    Ok(m.work(ConvBoth::new(x, &walks)?))
}

/// Backward of one convolution.
pub fn conv_backward<D: Driver>(mut m: Memory<'_, D>, s: Shape) -> Result<Work<D>> {
    let full = [s.batch, s.tokens, s.channels];
    let (x, dout) = (m.mat(full, -1.0, 1.0)?.read(), m.mat(full, -1.0, 1.0)?);
    let walk = taps(&mut m, s, false)?;
    let dx = m.out(full)?;
    let parts = s.batch * conv_tiles(s.tokens) * s.channels;
    let (dweight, dbias) = (m.room(4 * parts)?, m.room(parts)?);
    let kernel = ConvBackward::new(x, dout.read(), dx, walk, dweight, dbias, false)?;
    Ok(m.work(kernel))
}
