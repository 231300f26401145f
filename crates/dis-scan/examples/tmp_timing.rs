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
        for _ in 0..60 { let t = Instant::now(); f(); best = best.min(t.elapsed().as_secs_f64()); }
        println!("{name} {lv} D={d} L={l} N={n} threads {threads}: {:.3} ns/element, {:.3} ms", best * 1e9 / (l * d) as f64, best * 1e3);
        best
    };
    let _ = Level::Portable;
    let mut fwd = || cpu.install(|| cpu::scan(lv, s, ScanOut { y: TokensMut::new(y.as_mut_slice(), full), accumulate: false, checkpoints: None, last_state: None }).unwrap());
    time("forward", &mut fwd);
    let mut fwd = || cpu.install(|| cpu::scan(lv, s, ScanOut { y: TokensMut::new(y.as_mut_slice(), full), accumulate: false, checkpoints: Some(ck.as_mut_slice()), last_state: None }).unwrap());
    time("forward+ckpt", &mut fwd);
}
