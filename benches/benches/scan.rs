//! Scan and convolution at the widths of DiS-S, DiS-B and DiS-H (32 x 32 images in patches of 2, and one
//! token more), with softplus, bias, skip and gate. Throughput counts (channel, token) pairs:
//! nanoseconds per element are its inverse. `DIS_SIMD` picks the instruction set.

#![allow(missing_docs, clippy::unwrap_used)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dis_scan::{
    Conv, ConvGrads, Direction, Discretization, Scan, ScanGrads, ScanOut, checkpoint_len, cpu,
};
use dis_tensor::random::{Purpose, Stream};
use dis_tensor::{Backend, Cpu, HostBuf, Layout, Tokens, TokensMut};
use std::time::Instant;

const TOKENS: usize = 257;
const STATES: usize = 16;
const WIDTHS: [usize; 3] = [736, 1536, 3072];
const THREADS: [usize; 2] = [1, 2];

type Buf = HostBuf<f32>;

struct Inputs {
    channels: usize,
    u: Buf,
    delta: Buf,
    z: Buf,
    dout: Buf,
    bc: Buf,
    a: Buf,
    d: Buf,
    bias: Buf,
    taps: Buf,
}

struct Outputs {
    y: Buf,
    checkpoints: Buf,
    du: Buf,
    ddelta: Buf,
    dz: Buf,
    dbc: Buf,
    da: Buf,
    arena: Buf,
}

fn view(buf: &Buf, layout: Layout) -> Tokens<'_, [f32]> {
    Tokens::new(buf.as_slice(), layout)
}

fn view_mut(buf: &mut Buf, layout: Layout) -> TokensMut<'_, [f32]> {
    TokensMut::new(buf.as_mut_slice(), layout)
}

impl Inputs {
    fn new(cpu: &Cpu, channels: usize) -> Self {
        let mut rng = Stream::new(1, Purpose::Test, 0, 0);
        let mut random = |len: usize, scale: f64, shift: f64| {
            let values: Vec<f32> = (0..len)
                .map(|_| (scale * rng.normal() + shift) as f32)
                .collect();
            cpu.from_f32(&values)
        };
        let full = TOKENS * channels;
        Self {
            channels,
            u: random(full, 1.0, 0.0),
            delta: random(full, 1.0, -2.0),
            z: random(full, 1.0, 0.0),
            dout: random(full, 1.0, 0.0),
            bc: random(TOKENS * 2 * STATES, 1.0, 0.0),
            a: random(channels * STATES, 0.5, -4.0),
            d: random(channels, 1.0, 0.0),
            bias: random(channels, 1.0, -2.0),
            taps: random(channels * 4, 0.5, 0.0),
        }
    }

    fn full(&self) -> Layout {
        Layout::dense(1, TOKENS, self.channels)
    }

    fn scan(&self, direction: Direction, discretization: Discretization) -> Scan<'_, [f32]> {
        let vector = Layout::vector(self.channels);
        Scan {
            u: view(&self.u, self.full()),
            delta: view(&self.delta, self.full()),
            a: view(&self.a, Layout::matrix(self.channels, STATES)),
            bc: view(&self.bc, Layout::dense(1, TOKENS, 2 * STATES)),
            d: Some(view(&self.d, vector)),
            z: Some(view(&self.z, self.full())),
            delta_bias: Some(view(&self.bias, vector)),
            initial_state: None,
            delta_softplus: true,
            discretization,
            direction,
        }
    }

    fn conv(&self) -> Conv<'_, [f32]> {
        Conv {
            x: view(&self.u, self.full()),
            weight: view(&self.taps, Layout::matrix(self.channels, 4)),
            bias: Some(view(&self.bias, Layout::vector(self.channels))),
            silu: true,
            direction: Direction::Forward,
        }
    }
}

impl Outputs {
    fn new(cpu: &Cpu, channels: usize) -> Self {
        let full = TOKENS * channels;
        Self {
            y: cpu.zeros(full),
            checkpoints: cpu.zeros(checkpoint_len(1, TOKENS, channels, STATES)),
            du: cpu.zeros(full),
            ddelta: cpu.zeros(full),
            dz: cpu.zeros(full),
            dbc: cpu.zeros(TOKENS * 2 * STATES),
            da: cpu.zeros(channels * STATES),
            arena: cpu.zeros(channels * 5),
        }
    }

    fn forward(&mut self, scan: Scan<'_, [f32]>, keep: bool) {
        let out = ScanOut {
            y: view_mut(&mut self.y, scan.u.layout),
            accumulate: false,
            checkpoints: keep.then_some(self.checkpoints.as_mut_slice()),
            last_state: None,
        };
        cpu::scan(cpu::level(), scan, out).unwrap();
    }

    fn backward(&mut self, scan: Scan<'_, [f32]>, dout: Tokens<'_, [f32]>) {
        let (full, channels) = (scan.u.layout, scan.u.layout.channels);
        let grads = ScanGrads {
            du: view_mut(&mut self.du, full),
            ddelta: view_mut(&mut self.ddelta, full),
            dbc: view_mut(&mut self.dbc, scan.bc.layout),
            dz: Some(view_mut(&mut self.dz, full)),
            accumulate_dz: false,
            da: view_mut(&mut self.da, scan.a.layout),
            arena: self.arena.as_mut_slice(),
            d: Some(0),
            delta_bias: Some(channels),
            dlast_state: None,
            dinitial_state: None,
        };
        let checkpoints = self.checkpoints.as_slice();
        cpu::scan_backward(cpu::level(), scan, checkpoints, dout, grads).unwrap();
    }

    fn conv(&mut self, conv: Conv<'_, [f32]>) {
        cpu::conv1d(cpu::level(), conv, view_mut(&mut self.y, conv.x.layout)).unwrap();
    }

    fn conv_backward(&mut self, conv: Conv<'_, [f32]>, dout: Tokens<'_, [f32]>) {
        let channels = conv.x.layout.channels;
        let grads = ConvGrads {
            arena: self.arena.as_mut_slice(),
            weight: 0,
            bias: Some(4 * channels),
        };
        let dx = view_mut(&mut self.du, conv.x.layout);
        cpu::conv1d_backward(cpu::level(), conv, dout, false, dx, grads).unwrap();
    }
}

fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group(format!("scan ({})", cpu::level()));
    for threads in THREADS {
        let cpu = Cpu::with_threads(threads).unwrap();
        for channels in WIDTHS {
            let inputs = Inputs::new(&cpu, channels);
            let mut outputs = Outputs::new(&cpu, channels);
            group.throughput(Throughput::Elements((TOKENS * channels) as u64));
            let mamba = inputs.scan(Direction::Forward, Discretization::Mamba);
            let reverse = inputs.scan(Direction::Reverse, Discretization::Mamba);
            let hold = inputs.scan(Direction::Forward, Discretization::ZeroOrderHold);
            let dout = view(&inputs.dout, inputs.full());
            let conv = inputs.conv();
            let o = &mut outputs;
            // The pool is entered once per batch of iterations, as a model would.
            let mut bench = |name: &str, f: &mut (dyn FnMut(&mut Outputs) + Send)| {
                let id = BenchmarkId::new(name, format!("D={channels} threads={threads}"));
                group.bench_function(id, |b| {
                    b.iter_custom(|count| {
                        cpu.install(|| {
                            let start = Instant::now();
                            for _ in 0..count {
                                f(o);
                            }
                            start.elapsed()
                        })
                    });
                });
            };
            bench("forward", &mut |o| o.forward(mamba, false));
            bench("reverse", &mut |o| o.forward(reverse, false));
            bench("forward, checkpoints", &mut |o| o.forward(mamba, true));
            bench("backward", &mut |o| o.backward(mamba, dout));
            bench("forward, hold", &mut |o| o.forward(hold, true));
            bench("backward, hold", &mut |o| o.backward(hold, dout));
            bench("conv", &mut |o| o.conv(conv));
            bench("conv backward", &mut |o| o.conv_backward(conv, dout));
        }
    }
    group.finish();
}

criterion_group! {
    name = all;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(std::time::Duration::from_millis(300))
        .measurement_time(std::time::Duration::from_secs(1));
    targets = benches
}
criterion_main!(all);
