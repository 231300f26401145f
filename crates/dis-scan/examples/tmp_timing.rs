use dis_scan::*;
use dis_tensor::simd::{self, Level};
use dis_tensor::{Layout, Tokens, TokensMut, HostBuf, Backend, Cpu};
use std::time::Instant;
fn main() {
    let args: Vec<usize> = std::env::args().skip(1).map(|x| x.parse().unwrap()).collect();
    let (d, l, n, threads) = (args[0], args[1], args[2], args[3]);
    let cpu = Cpu::with_threads(threads).unwrap();
    let lv = simd::level();
    let mk = |len: usize, k: f32, o: f32| -> HostBuf<f32> {
        let v: Vec<f32> = (0..len).map(|i| ((i as f32 * 0.7381).sin() * k) + o).collect();
        cpu.from_f32(&v)
    };
    let u = mk(l * d, 1.0, 0.0);
    let delta = mk(l * d, 2.0, -3.0);
    let a = mk(d * n, 4.0, -5.0);
    let bc = mk(l * 2 * n, 1.0, 0.0);
    let z = mk(l * d, 2.0, 0.0);
    let dv = mk(d, 1.0, 0.0);
    let bias = mk(d, 1.0, 0.0);
    let mut y = cpu.zeros::<f32>(l * d);
    let mut ck = cpu.zeros::<f32>(checkpoint_len(1, l, d, n));
    let full = Layout::dense(1, l, d);
    let s = Scan {
        u: Tokens::new(u.as_slice(), full), delta: Tokens::new(delta.as_slice(), full),
        a: Tokens::new(a.as_slice(), Layout::matrix(d, n)), bc: Tokens::new(bc.as_slice(), Layout::dense(1, l, 2 * n)),
        d: Some(Tokens::new(dv.as_slice(), Layout::vector(d))), z: Some(Tokens::new(z.as_slice(), full)),
        delta_bias: Some(Tokens::new(bias.as_slice(), Layout::vector(d))), delta_softplus: true,
        discretization: Discretization::Mamba, direction: Direction::Forward,
    };
    let time = |name: &str, f: &mut dyn FnMut()| {
        let mut best = f64::MAX;
        let only = std::env::var("ONLY").unwrap_or_default();
        if !only.is_empty() && only != name { if name != "forward+ckpt" {return 1.0;} f(); return 1.0; }
        let reps = if only.is_empty() { 60 } else { 2000 };
        for _ in 0..reps { let t = Instant::now(); f(); best = best.min(t.elapsed().as_secs_f64()); }
        println!("{name} {lv} D={d} L={l} N={n} threads {threads}: {:.3} ns/element, {:.3} ms", best * 1e9 / (l * d) as f64, best * 1e3);
        best
    };
    let _ = Level::Portable;
    let mut fwd = || cpu.install(|| cpu::scan(lv, s, ScanOut { y: TokensMut::new(y.as_mut_slice(), full), accumulate: false, checkpoints: None, last_state: None }).unwrap());
    time("forward", &mut fwd);
    let mut fwd = || cpu.install(|| cpu::scan(lv, s, ScanOut { y: TokensMut::new(y.as_mut_slice(), full), accumulate: false, checkpoints: Some(ck.as_mut_slice()), last_state: None }).unwrap());
    let f = time("forward+ckpt", &mut fwd);
    let dout = mk(l * d, 1.3, 0.0);
    let (mut du, mut dd, mut dz) = (cpu.zeros::<f32>(l * d), cpu.zeros::<f32>(l * d), cpu.zeros::<f32>(l * d));
    let (mut dbc, mut da, mut ar) = (cpu.zeros::<f32>(l * 2 * n), cpu.zeros::<f32>(d * n), cpu.zeros::<f32>(2 * d));
    let mut bwd = || cpu.install(|| cpu::scan_backward(lv, s, ck.as_slice(), Tokens::new(dout.as_slice(), full), ScanGrads {
        du: TokensMut::new(du.as_mut_slice(), full), ddelta: TokensMut::new(dd.as_mut_slice(), full), dbc: TokensMut::new(dbc.as_mut_slice(), Layout::dense(1, l, 2 * n)),
        dz: Some(TokensMut::new(dz.as_mut_slice(), full)), accumulate_dz: false, da: TokensMut::new(da.as_mut_slice(), Layout::matrix(d, n)), arena: ar.as_mut_slice(), d: Some(0), delta_bias: Some(d) }).unwrap());
    let b = time("backward", &mut bwd);
    println!("ratio {:.2}", b / f);
    let w = mk(d * 4, 0.5, 0.1);
    let conv = Conv { x: Tokens::new(u.as_slice(), full), weight: Tokens::new(w.as_slice(), Layout::matrix(d, 4)), bias: Some(Tokens::new(dv.as_slice(), Layout::vector(d))), silu: true, direction: Direction::Forward };
    let mut cf = || cpu.install(|| cpu::conv1d(lv, conv, TokensMut::new(y.as_mut_slice(), full)).unwrap());
    time("conv", &mut cf);
    let mut arw = cpu.zeros::<f32>(5 * d);
    let mut cb = || cpu.install(|| cpu::conv1d_backward(lv, conv, Tokens::new(dout.as_slice(), full), false, TokensMut::new(y.as_mut_slice(), full), ConvGrads { arena: arw.as_mut_slice(), weight: 0, bias: Some(4 * d) }).unwrap());
    time("conv backward", &mut cb);
    let zs = Scan { discretization: Discretization::ZeroOrderHold, ..s };
    let mut fwd = || cpu.install(|| cpu::scan(lv, zs, ScanOut { y: TokensMut::new(y.as_mut_slice(), full), accumulate: false, checkpoints: None, last_state: None }).unwrap());
    time("hold forward", &mut fwd);
}
