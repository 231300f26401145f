//! The same problems on the GPU backend, executed by the simulator.

use std::sync::LazyLock;

use dis_kernels::sim::{Approx, Options as SimOptions, Order, Sim};
use dis_scan::{Conv, ConvGrads, Scan, ScanBackend, ScanGrads, ScanOut, ScanPair, checkpoint_len};
use dis_tensor::cuda::DeviceBuf;
use dis_tensor::{Backend, Cuda, Tokens, TokensMut};

use super::case::{Inputs, Matrix, Outputs};

type Gpu = Cuda<Sim>;
type Buf = DeviceBuf<Sim, f32>;

/// Approximate instructions exact and at both ends of their error, in three orders.
pub static GPUS: LazyLock<[Gpu; 3]> = LazyLock::new(|| {
    [
        (Approx::Exact, Order::Reversed),
        (Approx::High, Order::InOrder),
        (Approx::Low, Order::Shuffled(5)),
    ]
    .map(|(approx, order)| {
        Cuda::new(Sim::new(SimOptions {
            approx,
            order,
            ..SimOptions::default()
        }))
    })
});

/// A matrix in device memory.
pub struct OnDevice {
    pub buf: Buf,
    layout: dis_tensor::Layout,
}

impl OnDevice {
    pub fn new(gpu: &Gpu, matrix: &Matrix) -> Self {
        Self {
            buf: gpu.from_f32(&matrix.narrow),
            layout: matrix.layout,
        }
    }

    pub fn view(&self) -> Tokens<'_, Buf> {
        Tokens::new(&self.buf, self.layout)
    }

    pub fn view_mut(&mut self) -> TokensMut<'_, Buf> {
        TokensMut::new(&mut self.buf, self.layout)
    }

    pub fn fetch(&self, gpu: &Gpu, matrix: &mut Matrix) {
        matrix.narrow = gpu.to_f32(&self.buf);
        assert_eq!(gpu.failure(), None);
    }
}

/// The inputs of a scan.
struct Loaded {
    u: OnDevice,
    delta: OnDevice,
    a: OnDevice,
    bc: OnDevice,
    d: Option<OnDevice>,
    z: Option<OnDevice>,
    bias: Option<OnDevice>,
    dout: OnDevice,
}

impl Loaded {
    fn new(gpu: &Gpu, inputs: &Inputs) -> Self {
        let load = |matrix: &Matrix| OnDevice::new(gpu, matrix);
        Self {
            u: load(&inputs.u),
            delta: load(&inputs.delta),
            a: load(&inputs.a),
            bc: load(&inputs.bc),
            d: inputs.d.as_ref().map(load),
            z: inputs.z.as_ref().map(load),
            bias: inputs.bias.as_ref().map(load),
            dout: load(&inputs.dout),
        }
    }

    fn scan(&self, inputs: &Inputs) -> Scan<'_, Buf> {
        Scan {
            u: self.u.view(),
            delta: self.delta.view(),
            a: self.a.view(),
            bc: self.bc.view(),
            d: self.d.as_ref().map(OnDevice::view),
            z: self.z.as_ref().map(OnDevice::view),
            delta_bias: self.bias.as_ref().map(OnDevice::view),
            initial_state: None,
            delta_softplus: inputs.options.softplus,
            discretization: inputs.options.discretization,
            direction: inputs.options.direction,
        }
    }
}

impl Outputs {
    /// Forward and backward on a device.
    pub fn run_gpu(&mut self, gpu: &Gpu, inputs: &Inputs) {
        let loaded = Loaded::new(gpu, inputs);
        let scan = loaded.scan(inputs);
        let accumulate = inputs.options.accumulate;
        let [batch, tokens, channels, states] = inputs.options.shape;
        let mut checkpoints = gpu.alloc::<f32>(checkpoint_len(batch, tokens, channels, states));
        let fields = [
            &mut self.y,
            &mut self.last,
            &mut self.du,
            &mut self.ddelta,
            &mut self.dbc,
            &mut self.dz,
            &mut self.da,
            &mut self.arena,
        ];
        let on_device = fields.each_ref().map(|field| OnDevice::new(gpu, field));
        let [
            mut y,
            mut last,
            mut du,
            mut ddelta,
            mut dbc,
            mut dz,
            mut da,
            mut arena,
        ] = on_device;
        let out = ScanOut {
            y: y.view_mut(),
            accumulate,
            checkpoints: Some(&mut checkpoints),
            last_state: Some(last.view_mut()),
        };
        gpu.scan(scan, out).unwrap();
        let grads = ScanGrads {
            du: du.view_mut(),
            ddelta: ddelta.view_mut(),
            dbc: dbc.view_mut(),
            dz: scan.z.map(|_| dz.view_mut()),
            accumulate_dz: accumulate,
            da: da.view_mut(),
            arena: &mut arena.buf,
            d: Some(1),
            delta_bias: Some(channels + 2),
            dlast_state: None,
            dinitial_state: None,
        };
        gpu.scan_backward(scan, &checkpoints, loaded.dout.view(), grads)
            .unwrap();
        for (field, result) in fields
            .into_iter()
            .zip([y, last, du, ddelta, dbc, dz, da, arena])
        {
            result.fetch(gpu, field);
        }
    }
}

/// A convolution, forward and backward, on a device.
pub struct ConvCase<'a> {
    pub x: &'a Matrix,
    pub weight: &'a Matrix,
    pub bias: Option<&'a Matrix>,
    pub dout: &'a Matrix,
    pub silu: bool,
    pub direction: dis_scan::Direction,
    pub accumulate: bool,
    pub offsets: (usize, Option<usize>),
}

impl ConvCase<'_> {
    pub fn run(&self, gpu: &Gpu, out: &mut Matrix, dx: &mut Matrix, arena: &mut Matrix) {
        let load = |matrix: &Matrix| OnDevice::new(gpu, matrix);
        let (x, weight, dout) = (load(self.x), load(self.weight), load(self.dout));
        let bias = self.bias.map(load);
        let conv = Conv {
            x: x.view(),
            weight: weight.view(),
            bias: bias.as_ref().map(OnDevice::view),
            silu: self.silu,
            direction: self.direction,
        };
        let (mut gpu_out, mut gpu_dx, mut gpu_arena) = (load(out), load(dx), load(arena));
        gpu.conv1d(conv, gpu_out.view_mut()).unwrap();
        let (weight, bias) = self.offsets;
        let grads = ConvGrads {
            arena: &mut gpu_arena.buf,
            weight,
            bias,
        };
        gpu.conv1d_backward(conv, dout.view(), self.accumulate, gpu_dx.view_mut(), grads)
            .unwrap();
        gpu_out.fetch(gpu, out);
        gpu_dx.fetch(gpu, dx);
        gpu_arena.fetch(gpu, arena);
    }
}

/// The kernels begin at zero, and say so.
#[test]
fn an_initial_state_is_refused_in_words() {
    let inputs = Inputs::random(&super::case::Options {
        state: true,
        ..super::scan::plain([1, 5, 3, 2])
    });
    let (gpu, [initial, _]) = (&GPUS[0], inputs.ends.as_ref().unwrap());
    let (loaded, state) = (Loaded::new(gpu, &inputs), OnDevice::new(gpu, initial));
    let scan = Scan {
        initial_state: Some(state.view()),
        ..loaded.scan(&inputs)
    };
    let mut y = OnDevice::new(gpu, &Outputs::new(&inputs).y);
    let out = ScanOut {
        y: y.view_mut(),
        accumulate: false,
        checkpoints: None,
        last_state: None,
    };
    let error = gpu.scan(scan, out).unwrap_err();
    assert!(matches!(
        error,
        dis_scan::TensorError::Unsupported { op: "scan", .. }
    ));
    assert!(error.to_string().contains("an initial state"), "{error}");
}

/// Both directions in one launch, against one after the other on the CPU.
#[test]
fn a_pair_in_one_launch_is_both_scans() {
    use super::case::Options;
    use dis_scan::{Direction, Discretization};
    for (shape, gated) in [
        ([2, 33, 20, 16], true),
        ([1, 50, 37, 16], false),
        ([3, 17, 24, 8], true),
    ] {
        let options = Options {
            shape,
            pad: 3,
            direction: Direction::Forward,
            discretization: Discretization::Mamba,
            d: true,
            z: gated,
            bias: true,
            softplus: true,
            accumulate: false,
            state: false,
            scale: 1.0,
            seed: 4,
        };
        let forward = Inputs::random(&options);
        let other = Inputs::random(&Options {
            seed: 5,
            ..options.clone()
        });
        let reverse = Inputs {
            options: Options {
                direction: Direction::Reverse,
                ..options.clone()
            },
            z: forward.z.clone(),
            ..other
        };
        let mut expected = Outputs::new(&forward);
        let ungated = Inputs {
            z: None,
            ..forward.clone()
        };
        expected.run_oracle(&ungated);
        let mut second = reverse.clone();
        second.options.accumulate = true;
        expected.run_oracle(&second);
        for gpu in GPUS.iter() {
            let (one, two) = (Loaded::new(gpu, &forward), Loaded::new(gpu, &reverse));
            let z = one.z.as_ref().map(OnDevice::view);
            let mut y = OnDevice::new(gpu, &Outputs::new(&forward).y);
            let [batch, tokens, channels, states] = shape;
            let len = checkpoint_len(batch, tokens, channels, states);
            let (mut first, mut last) = (gpu.alloc::<f32>(len), gpu.alloc::<f32>(len));
            let scans =
                [one.scan(&forward), two.scan(&reverse)].map(|scan| Scan { z: None, ..scan });
            gpu.scan_pair(ScanPair {
                scans,
                z,
                y: y.view_mut(),
                checkpoints: Some([&mut first, &mut last]),
            })
            .unwrap();
            y.fetch(gpu, &mut expected.y);
            expected.y.check("y", 3e-6, 1.0).unwrap();
        }
    }
}
