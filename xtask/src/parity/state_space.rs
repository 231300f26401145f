//! The operations of dis-scan, and a whole mixer.

use anyhow::Result;
use dis_scan::{
    Conv, ConvGrads, Direction, Discretization, OneOfPair, Scan, ScanGrads, ScanOut, ScanPair,
    ScanPairGrads, checkpoint_len,
};
use dis_ssm::{Ctx, Mixer, MixerConfig, MixerInit, ParamTable};
use dis_tensor::random::{Purpose, Stream};

use super::data::{Draw, Field, Outputs, Probe, plain, read};

/// One point of the grid of scans.
#[derive(Clone, Copy, Debug)]
pub struct ScanCase {
    /// (batch, tokens, channels).
    pub shape: [usize; 3],
    /// States.
    pub states: usize,
    /// Which way.
    pub direction: Direction,
    /// Which B.
    pub discretization: Discretization,
    /// Gate, skip and bias, or none of them.
    pub full: bool,
    /// Whether results are added to.
    pub accumulate: bool,
}

/// Inputs of a scan on a backend.
pub(super) struct Inputs<B: Probe> {
    u: Field<B>,
    delta: Field<B>,
    a: Field<B>,
    bc: Field<B>,
    d: Field<B>,
    pub(super) z: Field<B>,
    bias: Field<B>,
}

impl<B: Probe> Inputs<B> {
    pub(super) fn new(draw: &mut Draw<'_, B>, case: &ScanCase) -> Self {
        let [batch, tokens, channels] = case.shape;
        let row = [1, 1, channels];
        Self {
            u: draw.field(case.shape, plain),
            delta: draw.field(
                case.shape,
                |x| {
                    if case.full { x - 1.0 } else { 0.3 * x.abs() }
                },
            ),
            a: draw.shifted([1, channels, case.states], |x| -(0.8 * x).exp() * 2.0),
            bc: draw.field([batch, tokens, 2 * case.states], plain),
            d: draw.field(row, plain),
            z: draw.field(case.shape, |x| 2.0 * x),
            bias: draw.field(row, |x| x - 1.0),
        }
    }

    pub(super) fn scan(
        &self,
        case: &ScanCase,
        direction: Direction,
    ) -> Scan<'_, dis_tensor::Reals<B>> {
        Scan {
            u: self.u.view(),
            delta: self.delta.view(),
            a: self.a.view(),
            bc: self.bc.view(),
            d: case.full.then(|| self.d.view()),
            z: case.full.then(|| self.z.view()),
            delta_bias: case.full.then(|| self.bias.view()),
            initial_state: None,
            delta_softplus: case.full,
            discretization: case.discretization,
            direction,
        }
    }
}

/// A scan, forward and backward, and both directions at once.
pub fn scan<B: Probe>(b: &B, case: &ScanCase, seed: u64) -> Result<Outputs> {
    let mut d = Draw::new(b, seed, (seed % 4) as usize);
    let [batch, tokens, channels] = case.shape;
    let inputs = Inputs::new(&mut d, case);
    let scan = inputs.scan(case, case.direction);
    let mut y = d.field(case.shape, plain);
    let mut last = d.field([batch, channels, case.states], plain);
    let len = checkpoint_len(batch, tokens, channels, case.states);
    let mut checkpoints = b.alloc(len);
    b.scan(
        scan,
        ScanOut {
            y: y.view_mut(),
            accumulate: case.accumulate,
            checkpoints: Some(&mut checkpoints),
            last_state: Some(last.view_mut()),
        },
    )?;
    let dout = d.field(case.shape, plain);
    let (mut du, mut ddelta) = (d.field(case.shape, plain), d.field(case.shape, plain));
    let mut dbc = d.field([batch, tokens, 2 * case.states], plain);
    let mut dz = d.field(case.shape, plain);
    let mut da = d.field([1, channels, case.states], plain);
    let mut arena = d.dense([1, 1, 2 * channels + 3], plain);
    b.scan_backward(
        scan,
        &checkpoints,
        dout.view(),
        ScanGrads {
            du: du.view_mut(),
            ddelta: ddelta.view_mut(),
            dbc: dbc.view_mut(),
            dz: case.full.then(|| dz.view_mut()),
            accumulate_dz: case.accumulate,
            da: da.view_mut(),
            arena: &mut arena.buf,
            d: case.full.then_some(1),
            delta_bias: case.full.then_some(channels + 2),
            dlast_state: None,
            dinitial_state: None,
        },
    )?;
    let mut outputs = vec![
        ("scan y", read(b, &y.buf)),
        ("scan state", read(b, &last.buf)),
        ("scan du", read(b, &du.buf)),
        ("scan ddelta", read(b, &ddelta.buf)),
        ("scan dB, dC", read(b, &dbc.buf)),
        ("scan dz", read(b, &dz.buf)),
        ("scan dA", read(b, &da.buf)),
        ("scan dD, dbias", read(b, &arena.buf)),
    ];
    let other = Inputs::new(&mut d, case);
    let mut both = d.field(case.shape, plain);
    let (mut first, mut second) = (b.alloc(len), b.alloc(len));
    b.scan_pair(ScanPair {
        scans: [
            inputs.scan(case, Direction::Forward),
            other.scan(case, Direction::Reverse),
        ],
        z: case.full.then(|| inputs.z.view()),
        y: both.view_mut(),
        checkpoints: Some([&mut first, &mut second]),
    })?;
    outputs.push(("scan pair", read(b, &both.buf)));
    let mut own = || -> [Field<B>; 4] {
        [
            d.field(case.shape, plain),
            d.field(case.shape, plain),
            d.field([batch, tokens, 2 * case.states], plain),
            d.field([1, channels, case.states], plain),
        ]
    };
    let (mut one, mut two) = (own(), own());
    let mut dz = d.field(case.shape, plain);
    let mut arena = d.dense([1, 1, 4 * channels], plain);
    b.scan_backward_pair(
        [
            inputs.scan(case, Direction::Forward),
            other.scan(case, Direction::Reverse),
        ],
        case.full.then(|| inputs.z.view()),
        [&first, &second],
        dout.view(),
        ScanPairGrads {
            each: [
                part(&mut one, case.full.then_some(0), channels),
                part(&mut two, case.full.then_some(2 * channels), channels),
            ],
            dz: case.full.then(|| dz.view_mut()),
            arena: &mut arena.buf,
        },
    )?;
    for fields in [&one, &two] {
        for (name, field) in [
            "scan pair du",
            "scan pair ddelta",
            "scan pair dB, dC",
            "scan pair dA",
        ]
        .into_iter()
        .zip(fields)
        {
            outputs.push((name, read(b, &field.buf)));
        }
    }
    outputs.push(("scan pair dz", read(b, &dz.buf)));
    outputs.push(("scan pair dD, dbias", read(b, &arena.buf)));
    Ok(outputs)
}

/// Where one scan of a pair writes its gradients; those of its vectors from `start` on.
fn part<B: Probe>(
    fields: &mut [Field<B>; 4],
    start: Option<usize>,
    channels: usize,
) -> OneOfPair<'_, dis_tensor::Reals<B>> {
    let [du, ddelta, dbc, da] = fields;
    OneOfPair {
        du: du.view_mut(),
        ddelta: ddelta.view_mut(),
        dbc: dbc.view_mut(),
        da: da.view_mut(),
        d: start,
        delta_bias: start.map(|start| start + channels),
    }
}

/// A convolution, forward and backward, and both directions at once.
pub fn conv<B: Probe>(
    b: &B,
    shape: [usize; 3],
    width: usize,
    direction: Direction,
    seed: u64,
) -> Result<Outputs> {
    let mut d = Draw::new(b, seed, (seed % 4) as usize);
    let [_, _, channels] = shape;
    let (biased, silu, accumulate) = (seed & 4 != 0, seed & 8 != 0, seed & 16 != 0);
    let x = d.field(shape, plain);
    let weight = d.field([1, channels, width], plain);
    let bias = d.field([1, 1, channels], plain);
    let conv = |direction| Conv {
        x: x.view(),
        weight: weight.view(),
        bias: biased.then(|| bias.view()),
        silu,
        direction,
    };
    let (mut out, dout, mut dx) = (
        d.field(shape, plain),
        d.field(shape, plain),
        d.field(shape, plain),
    );
    b.conv1d(conv(direction), out.view_mut())?;
    let mut arena = d.dense([1, 1, channels * (width + 1) + 3], plain);
    b.conv1d_backward(
        conv(direction),
        dout.view(),
        accumulate,
        dx.view_mut(),
        ConvGrads {
            arena: &mut arena.buf,
            weight: 1,
            bias: Some(channels * width + 2),
        },
    )?;
    let (mut one, mut two) = (d.field(shape, plain), d.field(shape, plain));
    b.conv1d_pair(
        conv(Direction::Forward),
        conv(Direction::Reverse),
        one.view_mut(),
        two.view_mut(),
    )?;
    let (mut same, mut again) = (d.field(shape, plain), d.field(shape, plain));
    b.conv1d_pair(
        conv(direction),
        conv(direction),
        same.view_mut(),
        again.view_mut(),
    )?;
    Ok(vec![
        ("conv1d pair", read(b, &same.buf)),
        ("conv1d pair", read(b, &again.buf)),
        ("conv1d", read(b, &out.buf)),
        ("conv1d dx", read(b, &dx.buf)),
        ("conv1d dweight, dbias", read(b, &arena.buf)),
        ("conv1d pair", read(b, &one.buf)),
        ("conv1d pair", read(b, &two.buf)),
    ])
}

/// A mixer, forward and backward. `width` channels outside.
pub fn mixer<B: Probe>(
    b: &B,
    [batch, tokens, width]: [usize; 3],
    states: usize,
    seed: u64,
) -> Result<Outputs> {
    let config = MixerConfig {
        d_state: states,
        bias: seed & 1 != 0,
        discretization: if seed & 2 != 0 {
            Discretization::ZeroOrderHold
        } else {
            Discretization::Mamba
        },
        ..MixerConfig::new(width)
    };
    let mut table = ParamTable::new();
    let init = MixerInit {
        repaired_reverse_step: true,
    };
    let mixer = Mixer::new(&mut table, "", config, init, 1.0);
    let mut weights = table.initial(seed);
    let mut noise = Stream::new(seed, Purpose::Test, 1, 0);
    for spec in table.specs() {
        for w in &mut weights[spec.offset..spec.offset + spec.len()] {
            *w += (0.1 * noise.normal()) as f32;
        }
    }
    let params = b.from_f32(&weights);
    let mut d = Draw::new(b, seed, 0);
    let shape = [batch, tokens, width];
    let (input, dout) = (d.dense(shape, plain), d.dense(shape, plain));
    let (mut out, mut dinput) = (d.dense(shape, plain), d.dense(shape, plain));
    let mut grads = b.zeros(weights.len());
    let saved = mixer.forward_saved(Ctx::new(b, &params), input.view(), Some(out.view_mut()))?;
    mixer.backward(
        Ctx::new(b, &params),
        saved,
        input.view(),
        dout.view(),
        dinput.view_mut(),
        &mut grads,
    )?;
    Ok(vec![
        ("mixer", read(b, &out.buf)),
        ("mixer dinput", read(b, &dinput.buf)),
        ("mixer dparams", read(b, &grads)),
    ])
}
