//! The operations on the GPU backend: checks, scratch for partial sums, and launches.

use dis_kernels::scan::{
    self, Backward, BackwardWalk, ConvBackward, ConvBoth, ConvForward, ConvWalk, Forward,
    ForwardWalk, PartialSums, SumPartials, Walk, conv_tiles,
};
use dis_kernels::{Block, Driver, Mat, MatMut, Ptr};
use dis_tensor::cuda::{CudaView, CudaViewMut, DeviceBuf, mat, mat_mut};
use dis_tensor::{Buffer, Cuda, Layout, Result, TensorError, TokensMut};

use crate::check::{self, ConvShape, ScanShape};
use crate::ops::{CHUNK, Conv, ConvGrads, Direction, Discretization, Scan, ScanBackend, ScanGrads};
use crate::ops::{ScanOut, ScanPair, ScanPairGrads, checkpoint_len};

type Buf<D> = DeviceBuf<D, f32>;

// Callers make checkpoint buffers by this crate's sizes, whatever the backend: those of the kernels, which
// are a crate of their own and optional here, must be the same.
const _: () = {
    assert!(CHUNK == scan::CHUNK);
    let (here, there) = (
        checkpoint_len(3, 33, 37, 5),
        scan::checkpoint_len(3, 33, 37, 5),
    );
    assert!(here == there);
};

/// A vector or matrix at an offset of the gradient arena.
fn in_arena<D: Driver>(arena: &mut Buf<D>, offset: usize, rows: usize, columns: usize) -> MatMut {
    mat_mut(TokensMut::new(
        arena,
        Layout::matrix(rows, columns).at(offset),
    ))
}

fn conv_walk<D: Driver>(conv: &Conv<'_, Buf<D>>) -> ConvWalk {
    ConvWalk {
        weight: mat(conv.weight),
        bias: conv.bias.map(mat),
        silu: conv.silu,
        reverse: conv.direction == Direction::Reverse,
    }
}

fn walk<D: Driver>(scan: &Scan<'_, Buf<D>>) -> Walk {
    Walk {
        u: mat(scan.u),
        delta: mat(scan.delta),
        a: mat(scan.a),
        bc: mat(scan.bc),
        d: scan.d.map(mat),
        delta_bias: scan.delta_bias.map(mat),
        softplus: scan.delta_softplus,
        hold: scan.discretization == Discretization::ZeroOrderHold,
        reverse: scan.direction == Direction::Reverse,
    }
}

/// Scratch for the partial sums of one direction.
struct Parts<D: Driver> {
    sums: PartialSums,
    blocks: usize,
    _memory: Block<D>,
}

impl<D: Driver> Parts<D> {
    fn new(cuda: &Cuda<D>, op: &'static str, shape: &ScanShape) -> Result<Self> {
        let lens = PartialSums::lens(shape.tokens3(), shape.states);
        let memory = cuda.scratch::<f32>(op, lens.iter().sum())?;
        Ok(Self {
            sums: PartialSums::split(memory.ptr_mut(), lens),
            blocks: PartialSums::blocks(shape.channels, shape.states),
            _memory: memory,
        })
    }
}

/// What is left to add up after a backward scan.
struct Sums<'a, D: Driver> {
    dbc: MatMut,
    da: MatMut,
    arena: &'a mut Buf<D>,
    d: Option<usize>,
    delta_bias: Option<usize>,
}

fn add_up<D: Driver>(
    cuda: &Cuda<D>,
    op: &'static str,
    shape: &ScanShape,
    parts: &Parts<D>,
    sums: Sums<'_, D>,
) -> Result<()> {
    let (batch, channels) = (shape.batch, shape.channels);
    let PartialSums { dbc, da, dd, dbias } = parts.sums;
    let dbc = SumPartials::new(dbc.read(), sums.dbc, parts.blocks, false);
    cuda.launch(op, dbc)?;
    cuda.launch(op, SumPartials::new(da.read(), sums.da, batch, false))?;
    for (part, offset) in [(dd, sums.d), (dbias, sums.delta_bias)] {
        if let Some(offset) = offset {
            let out = in_arena(sums.arena, offset, 1, channels);
            cuda.launch(op, SumPartials::new(part.read(), out, batch, true))?;
        }
    }
    Ok(())
}

impl<D: Driver> ScanBackend for Cuda<D> {
    fn conv1d(&self, conv: Conv<'_, Buf<D>>, out: CudaViewMut<'_, D>) -> Result<()> {
        const OP: &str = "conv1d";
        let shape = check::conv(OP, &conv)?;
        check_conv_out(OP, &shape, &out)?;
        self.launch(
            OP,
            ConvForward::new(mat(conv.x), &[(conv_walk(&conv), mat_mut(out))]),
        )
    }

    fn conv1d_pair(
        &self,
        first: Conv<'_, Buf<D>>,
        second: Conv<'_, Buf<D>>,
        first_out: CudaViewMut<'_, D>,
        second_out: CudaViewMut<'_, D>,
    ) -> Result<()> {
        const OP: &str = "conv1d";
        if !std::ptr::eq(first.x.buf, second.x.buf) || first.x.layout != second.x.layout {
            self.conv1d(first, first_out)?;
            return self.conv1d(second, second_out);
        }
        check_conv_out(OP, &check::conv(OP, &first)?, &first_out)?;
        check_conv_out(OP, &check::conv(OP, &second)?, &second_out)?;
        let walks = [
            (conv_walk(&first), mat_mut(first_out)),
            (conv_walk(&second), mat_mut(second_out)),
        ];
        if ConvBoth::takes(&walks[0].0, &walks[1].0) {
            return self.launch(OP, ConvBoth::new(mat(first.x), &walks));
        }
        self.launch(OP, ConvForward::new(mat(first.x), &walks))
    }

    fn conv1d_backward(
        &self,
        conv: Conv<'_, Buf<D>>,
        dout: CudaView<'_, D>,
        accumulate: bool,
        dx: CudaViewMut<'_, D>,
        grads: ConvGrads<'_, Buf<D>>,
    ) -> Result<()> {
        const OP: &str = "conv1d_backward";
        let shape = check::conv(OP, &conv)?;
        let full = [shape.batch, shape.tokens, shape.channels];
        check::like(OP, "dout", &dout.layout, dout.buf.len(), "x", full)?;
        check::like(OP, "dx", &dx.layout, dx.buf.len(), "x", full)?;
        check::conv_grads(OP, &shape, conv.bias.is_some(), &grads)?;
        if full.contains(&0) {
            return Ok(());
        }
        let ConvShape {
            batch,
            tokens,
            channels,
            width,
        } = shape;
        let count = batch * conv_tiles(tokens);
        let memory = self.scratch::<f32>(OP, count * channels * (width + 1))?;
        let split = (count * channels * width) as u64;
        self.launch(
            OP,
            ConvBackward::new(
                mat(conv.x),
                mat(dout),
                mat_mut(dx),
                conv_walk(&conv),
                memory.ptr_mut(),
                memory.ptr_mut::<f32>().at(split),
                accumulate,
            ),
        )?;
        let parts: Ptr<f32> = memory.ptr();
        let ConvGrads {
            arena,
            weight,
            bias,
        } = grads;
        let out = in_arena(arena, weight, channels, width);
        self.launch(OP, SumPartials::new(parts, out, count, true))?;
        match bias.filter(|_| conv.bias.is_some()) {
            Some(bias) => {
                let out = in_arena(arena, bias, 1, channels);
                self.launch(OP, SumPartials::new(parts.at(split), out, count, true))
            }
            None => Ok(()),
        }
    }

    fn scan(&self, scan: Scan<'_, Buf<D>>, out: ScanOut<'_, Buf<D>>) -> Result<()> {
        const OP: &str = "scan";
        let shape = stateless(OP, &scan)?;
        check::scan_out(OP, &shape, &out)?;
        let first = ForwardWalk {
            walk: walk(&scan),
            checkpoints: out.checkpoints.map(Buf::ptr_mut),
            last: out.last_state.map(mat_mut),
        };
        run_forward(
            self,
            OP,
            &[first],
            mat_mut(out.y),
            out.accumulate,
            scan.z.map(mat),
        )
    }

    fn scan_pair(&self, pair: ScanPair<'_, Buf<D>>) -> Result<()> {
        const OP: &str = "scan";
        let ScanPair {
            scans: [first, second],
            z,
            y,
            checkpoints,
        } = pair;
        let shape = stateless(OP, &Scan { z, ..first })?;
        let same = stateless(OP, &second)?;
        dis_tensor::same_shape(OP, "second u", same.tokens3(), "first u", shape.tokens3())?;
        let (mut stored, y) = (checkpoints, mat_mut(y));
        if let Some(both) = &stored {
            for buf in both {
                check::checkpoints(OP, &shape, buf.len())?;
            }
        }
        let mut checkpoint = |i: usize| stored.as_mut().map(|both| both[i].ptr_mut());
        let walks = [
            ForwardWalk {
                walk: walk(&first),
                checkpoints: checkpoint(0),
                last: None,
            },
            ForwardWalk {
                walk: walk(&second),
                checkpoints: checkpoint(1),
                last: None,
            },
        ];
        run_forward(self, OP, &walks, y, false, z.map(mat))
    }

    fn scan_backward(
        &self,
        scan: Scan<'_, Buf<D>>,
        checkpoints: &Buf<D>,
        dout: CudaView<'_, D>,
        grads: ScanGrads<'_, Buf<D>>,
    ) -> Result<()> {
        const OP: &str = "scan_backward";
        let shape = stateless(OP, &scan)?;
        check::checkpoints(OP, &shape, checkpoints.len())?;
        check::scan_grads(OP, &scan, &shape, &dout, &grads)?;
        if grads.dlast_state.is_some() || grads.dinitial_state.is_some() {
            return Err(no_states(OP));
        }
        let parts = Parts::new(self, OP, &shape)?;
        let gate = scan.z.map(mat).zip(grads.dz.map(mat_mut));
        let one = BackwardWalk {
            walk: walk(&scan),
            checkpoints: checkpoints.ptr(),
            du: mat_mut(grads.du),
            ddelta: mat_mut(grads.ddelta),
            sums: parts.sums,
        };
        let backward = Backward::new(&[one], mat(dout), gate, grads.accumulate_dz);
        run_backward(self, OP, backward)?;
        add_up(
            self,
            OP,
            &shape,
            &parts,
            Sums {
                dbc: mat_mut(grads.dbc),
                da: mat_mut(grads.da),
                arena: grads.arena,
                d: wanted(grads.d, scan.d.is_some()),
                delta_bias: wanted(grads.delta_bias, scan.delta_bias.is_some()),
            },
        )
    }

    fn scan_backward_pair(
        &self,
        scans: [Scan<'_, Buf<D>>; 2],
        z: Option<CudaView<'_, D>>,
        checkpoints: [&Buf<D>; 2],
        dout: CudaView<'_, D>,
        grads: ScanPairGrads<'_, Buf<D>>,
    ) -> Result<()> {
        const OP: &str = "scan_backward";
        let ScanPairGrads {
            each: [first, second],
            mut dz,
            arena,
        } = grads;
        let scans = scans.map(|scan| Scan { z, ..scan });
        let shape = stateless(OP, &scans[0])?;
        let same = stateless(OP, &scans[1])?;
        dis_tensor::same_shape(OP, "second u", same.tokens3(), "first u", shape.tokens3())?;
        let mut walks = Vec::with_capacity(2);
        let mut rest = Vec::with_capacity(2);
        for ((scan, stored), each) in scans.iter().zip(checkpoints).zip([first, second]) {
            check::checkpoints(OP, &shape, stored.len())?;
            let mut all = each.with(dz.as_mut(), false, &mut *arena);
            check::scan_grads(OP, scan, &shape, &dout, &all)?;
            let parts = Parts::new(self, OP, &shape)?;
            walks.push(BackwardWalk {
                walk: walk(scan),
                checkpoints: stored.ptr(),
                du: mat_mut(all.du.reborrow()),
                ddelta: mat_mut(all.ddelta.reborrow()),
                sums: parts.sums,
            });
            let (dbc, da) = (mat_mut(all.dbc.reborrow()), mat_mut(all.da.reborrow()));
            let d = wanted(all.d, scan.d.is_some());
            rest.push((
                parts,
                dbc,
                da,
                d,
                wanted(all.delta_bias, scan.delta_bias.is_some()),
            ));
        }
        let gate = z.map(mat).zip(dz.map(mat_mut));
        run_backward(self, OP, Backward::new(&walks, mat(dout), gate, false))?;
        for (parts, dbc, da, d, delta_bias) in rest {
            let sums = Sums {
                dbc,
                da,
                arena: &mut *arena,
                d,
                delta_bias,
            };
            add_up(self, OP, &shape, &parts, sums)?;
        }
        Ok(())
    }
}

/// Checks a scan's inputs: the kernels begin at a state of zero.
fn stateless<D: Driver>(op: &'static str, scan: &Scan<'_, Buf<D>>) -> Result<ScanShape> {
    let shape = check::scan(op, scan)?;
    match scan.initial_state {
        Some(_) => Err(no_states(op)),
        None => Ok(shape),
    }
}

fn no_states(op: &'static str) -> TensorError {
    TensorError::Unsupported {
        op,
        what: "an initial state, or gradients of the states at the ends; a CPU has both",
    }
}

/// The arena's offset of a gradient, if the scan has what it is the gradient of.
fn wanted(offset: Option<usize>, has: bool) -> Option<usize> {
    offset.filter(|_| has)
}

fn check_conv_out<D: Driver>(
    op: &'static str,
    shape: &ConvShape,
    out: &CudaViewMut<'_, D>,
) -> Result<()> {
    let full = [shape.batch, shape.tokens, shape.channels];
    check::like(op, "out", &out.layout, out.buf.len(), "x", full)
}

fn run_forward<D: Driver>(
    cuda: &Cuda<D>,
    op: &'static str,
    walks: &[ForwardWalk],
    y: MatMut,
    accumulate: bool,
    z: Option<Mat>,
) -> Result<()> {
    cuda.run(op, |driver| {
        Forward::new(walks, y, accumulate, z, driver.multiprocessors())?.launch(driver)
    })
}

fn run_backward<D: Driver>(
    cuda: &Cuda<D>,
    op: &'static str,
    backward: dis_kernels::Result<Backward>,
) -> Result<()> {
    cuda.run(op, |driver| backward?.launch(driver))
}
