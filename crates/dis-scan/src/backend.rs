//! The operations on host backends: [`Cpu`] through the fast code, [`Reference`] through the
//! oracle.

use crate::ops::{Conv, ConvGrads, Scan, ScanBackend, ScanGrads, ScanOut};
use crate::oracle;
use dis_tensor::{Cpu, Element, HostBuf, Reals, Reference, Result, Scalar, View, ViewMut};

fn conv_slices<'a, E: Element>(conv: Conv<'a, HostBuf<E>>) -> Conv<'a, [E]> {
    Conv {
        x: conv.x.map(HostBuf::as_slice),
        weight: conv.weight.map(HostBuf::as_slice),
        bias: conv.bias.map(|v| v.map(HostBuf::as_slice)),
        silu: conv.silu,
        direction: conv.direction,
    }
}

fn conv_grad_slices<'a, E: Element>(grads: ConvGrads<'a, HostBuf<E>>) -> ConvGrads<'a, [E]> {
    ConvGrads {
        arena: grads.arena.as_mut_slice(),
        weight: grads.weight,
        bias: grads.bias,
    }
}

fn scan_slices<'a, E: Element>(scan: Scan<'a, HostBuf<E>>) -> Scan<'a, [E]> {
    Scan {
        u: scan.u.map(HostBuf::as_slice),
        delta: scan.delta.map(HostBuf::as_slice),
        a: scan.a.map(HostBuf::as_slice),
        bc: scan.bc.map(HostBuf::as_slice),
        d: scan.d.map(|v| v.map(HostBuf::as_slice)),
        z: scan.z.map(|v| v.map(HostBuf::as_slice)),
        delta_bias: scan.delta_bias.map(|v| v.map(HostBuf::as_slice)),
        initial_state: scan.initial_state.map(|v| v.map(HostBuf::as_slice)),
        delta_softplus: scan.delta_softplus,
        discretization: scan.discretization,
        direction: scan.direction,
    }
}

fn out_slices<'a, E: Element>(out: ScanOut<'a, HostBuf<E>>) -> ScanOut<'a, [E]> {
    ScanOut {
        y: out.y.map(HostBuf::as_mut_slice),
        accumulate: out.accumulate,
        checkpoints: out.checkpoints.map(HostBuf::as_mut_slice),
        last_state: out.last_state.map(|v| v.map(HostBuf::as_mut_slice)),
    }
}

fn grad_slices<'a, E: Element>(grads: ScanGrads<'a, HostBuf<E>>) -> ScanGrads<'a, [E]> {
    ScanGrads {
        du: grads.du.map(HostBuf::as_mut_slice),
        ddelta: grads.ddelta.map(HostBuf::as_mut_slice),
        dbc: grads.dbc.map(HostBuf::as_mut_slice),
        dz: grads.dz.map(|v| v.map(HostBuf::as_mut_slice)),
        accumulate_dz: grads.accumulate_dz,
        da: grads.da.map(HostBuf::as_mut_slice),
        arena: grads.arena.as_mut_slice(),
        d: grads.d,
        delta_bias: grads.delta_bias,
        dlast_state: grads.dlast_state.map(|v| v.map(HostBuf::as_slice)),
        dinitial_state: grads.dinitial_state.map(|v| v.map(HostBuf::as_mut_slice)),
    }
}

impl<S: Scalar> ScanBackend for Reference<S> {
    fn conv1d(&self, conv: Conv<'_, Reals<Self>>, out: ViewMut<'_, Self>) -> Result<()> {
        oracle::conv1d(conv_slices(conv), out.map(HostBuf::as_mut_slice))
    }

    fn conv1d_backward(
        &self,
        conv: Conv<'_, Reals<Self>>,
        dout: View<'_, Self>,
        accumulate: bool,
        dx: ViewMut<'_, Self>,
        grads: ConvGrads<'_, Reals<Self>>,
    ) -> Result<()> {
        oracle::conv1d_backward(
            conv_slices(conv),
            dout.map(HostBuf::as_slice),
            accumulate,
            dx.map(HostBuf::as_mut_slice),
            conv_grad_slices(grads),
        )
    }

    fn scan(&self, scan: Scan<'_, Reals<Self>>, out: ScanOut<'_, Reals<Self>>) -> Result<()> {
        oracle::scan(scan_slices(scan), out_slices(out))
    }

    fn scan_backward(
        &self,
        scan: Scan<'_, Reals<Self>>,
        _checkpoints: &Reals<Self>,
        dout: View<'_, Self>,
        grads: ScanGrads<'_, Reals<Self>>,
    ) -> Result<()> {
        oracle::scan_backward(
            scan_slices(scan),
            dout.map(HostBuf::as_slice),
            grad_slices(grads),
        )
    }
}

impl ScanBackend for Cpu {
    fn conv1d(&self, conv: Conv<'_, Reals<Self>>, out: ViewMut<'_, Self>) -> Result<()> {
        let (conv, out) = (conv_slices(conv), out.map(HostBuf::as_mut_slice));
        self.install(|| crate::cpu::conv1d(crate::cpu::level(), conv, out))
    }

    fn conv1d_backward(
        &self,
        conv: Conv<'_, Reals<Self>>,
        dout: View<'_, Self>,
        accumulate: bool,
        dx: ViewMut<'_, Self>,
        grads: ConvGrads<'_, Reals<Self>>,
    ) -> Result<()> {
        let (conv, grads) = (conv_slices(conv), conv_grad_slices(grads));
        let (dout, dx) = (dout.map(HostBuf::as_slice), dx.map(HostBuf::as_mut_slice));
        self.install(|| {
            crate::cpu::conv1d_backward(crate::cpu::level(), conv, dout, accumulate, dx, grads)
        })
    }

    fn scan(&self, scan: Scan<'_, Reals<Self>>, out: ScanOut<'_, Reals<Self>>) -> Result<()> {
        let (scan, out) = (scan_slices(scan), out_slices(out));
        self.install(|| crate::cpu::scan(crate::cpu::level(), scan, out))
    }

    fn scan_backward(
        &self,
        scan: Scan<'_, Reals<Self>>,
        checkpoints: &Reals<Self>,
        dout: View<'_, Self>,
        grads: ScanGrads<'_, Reals<Self>>,
    ) -> Result<()> {
        let (scan, grads) = (scan_slices(scan), grad_slices(grads));
        let (checkpoints, dout) = (checkpoints.as_slice(), dout.map(HostBuf::as_slice));
        self.install(|| {
            crate::cpu::scan_backward(crate::cpu::level(), scan, checkpoints, dout, grads)
        })
    }
}
