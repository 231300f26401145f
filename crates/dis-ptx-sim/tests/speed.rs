//! A scan of the size that the simulator is meant for; `cargo test --release -- --nocapture speed`
//! prints how long it takes.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Instant;

use common::{arg32, arg64, download_f32, launch, module, upload_f32};
use dis_ptx_sim::{Device, Options};

/// A scan with four states in a loop that is unrolled over them, one thread a channel:
/// h = exp(delta a) h + delta u b, y = sum of c h.
fn scan_text(states: usize) -> String {
    use std::fmt::Write;
    let mut t = String::from(
        ".visible .entry scan(.param .u64 u, .param .u64 dt, .param .u64 a, .param .u64 b,
            .param .u64 c, .param .u64 y, .param .u32 length, .param .u32 channels)
        .maxntid 128
        {
            .reg .pred %p<2>;
            .reg .b32 %r<8>;
            .reg .b64 %rd<16>;
            .reg .f32 %u, %d, %y, %du, %e, %b<4>, %c<4>;\n",
    );
    writeln!(t, ".reg .f32 %h<{states}>, %a<{states}>;").unwrap();
    t.push_str(
        "   ld.param.u64 %rd0, [u];
            ld.param.u64 %rd1, [dt];
            ld.param.u64 %rd2, [a];
            ld.param.u64 %rd3, [b];
            ld.param.u64 %rd4, [c];
            ld.param.u64 %rd5, [y];
            ld.param.u32 %r0, [length];
            ld.param.u32 %r1, [channels];
            mov.u32 %r2, %ctaid.x;
            mov.u32 %r3, %ntid.x;
            mov.u32 %r4, %tid.x;
            mad.lo.u32 %r2, %r2, %r3, %r4;
            setp.ge.u32 %p0, %r2, %r1;
            @%p0 bra DONE;
            mov.u32 %r5, %ctaid.y;
            mul.lo.u32 %r6, %r5, %r0;
            mad.lo.u32 %r7, %r6, %r1, %r2;
            mul.wide.u32 %rd6, %r7, 4;
            add.u64 %rd0, %rd0, %rd6;
            add.u64 %rd1, %rd1, %rd6;
            add.u64 %rd5, %rd5, %rd6;
            mul.wide.u32 %rd7, %r1, 4;\n",
    );
    writeln!(t, "mul.wide.u32 %rd8, %r6, {};", 4 * states).unwrap();
    t.push_str("add.u64 %rd3, %rd3, %rd8;\nadd.u64 %rd4, %rd4, %rd8;\n");
    writeln!(
        t,
        "mul.wide.u32 %rd9, %r2, {};\nadd.u64 %rd2, %rd2, %rd9;",
        4 * states
    )
    .unwrap();
    for n in 0..states {
        writeln!(
            t,
            "ld.global.f32 %a{n}, [%rd2+{}];\nmov.f32 %h{n}, 0f00000000;",
            4 * n
        )
        .unwrap();
    }
    t.push_str("LOOP:\nld.global.f32 %u, [%rd0];\nld.global.f32 %d, [%rd1];\n");
    t.push_str("mov.f32 %y, 0f00000000;\nmul.rn.f32 %du, %u, %d;\n");
    for n in 0..states {
        if n % 4 == 0 {
            for (r, p) in [("%b", "%rd3"), ("%c", "%rd4")] {
                writeln!(
                    t,
                    "ld.global.v4.f32 {{{r}0, {r}1, {r}2, {r}3}}, [{p}+{}];",
                    4 * n
                )
                .unwrap();
            }
        }
        let k = n % 4;
        writeln!(t, "mul.rn.f32 %e, %d, %a{n};\nex2.approx.ftz.f32 %e, %e;").unwrap();
        writeln!(
            t,
            "mul.rn.f32 %b{k}, %du, %b{k};\nfma.rn.f32 %h{n}, %e, %h{n}, %b{k};"
        )
        .unwrap();
        writeln!(t, "fma.rn.f32 %y, %c{k}, %h{n}, %y;").unwrap();
    }
    writeln!(t, "st.global.f32 [%rd5], %y;").unwrap();
    for r in ["%rd0", "%rd1", "%rd5"] {
        writeln!(t, "add.u64 {r}, {r}, %rd7;").unwrap();
    }
    for r in ["%rd3", "%rd4"] {
        writeln!(t, "add.u64 {r}, {r}, {};", 4 * states).unwrap();
    }
    t.push_str("sub.u32 %r0, %r0, 1;\nsetp.ne.u32 %p1, %r0, 0;\n@%p1 bra LOOP;\nDONE:\nret;\n}\n");
    t
}

#[test]
fn speed_of_a_scan() {
    let (batch, channels, length, states) = (2usize, 768usize, 257usize, 16usize);
    let mut device = Device::new(Options::default());
    let wave = |n: usize, k: f32| (0..n).map(|i| (k * i as f32).sin()).collect::<Vec<_>>();
    let (u, dt) = (
        wave(batch * length * channels, 0.3),
        wave(batch * length * channels, 0.7),
    );
    let dt: Vec<f32> = dt.iter().map(|d| 0.1 + 0.1 * d.abs()).collect();
    let a: Vec<f32> = (0..channels * states)
        .map(|i| -1.0 - (i % states) as f32)
        .collect();
    let (b, c) = (
        wave(batch * length * states, 0.2),
        wave(batch * length * states, 0.5),
    );
    let pointers: Vec<u64> = [&u, &dt, &a, &b, &c]
        .iter()
        .map(|v| upload_f32(&mut device, v))
        .collect();
    let y = device.alloc(4 * u.len());
    let mut args: Vec<Vec<u8>> = pointers.iter().map(|&p| arg64(p)).collect();
    args.extend([arg64(y), arg32(length as u32), arg32(channels as u32)]);
    let module = module(&scan_text(states));
    let mut size = launch(channels.div_ceil(128) as u32, 128);
    size.grid[1] = batch as u32;
    let start = Instant::now();
    let counters = device.launch(&module, "scan", size, &args).unwrap();
    println!(
        "scan of {batch} x {length} x {channels}, N = {states}: {:?}",
        start.elapsed()
    );
    println!("{counters:#?}");
    assert_eq!(
        counters.special as usize,
        batch * length * channels * states
    );
    assert_eq!(counters.global_store_bytes as usize, 4 * u.len());
    let coverage = device.coverage(&module);
    // No lane of this size leaves early.
    let missed: Vec<_> = coverage
        .uncovered()
        .map(|l| l.instruction.as_str())
        .collect();
    assert_eq!(missed, ["@%p0 bra DONE;"]);
    let got = download_f32(&device, y, u.len());
    // One channel against float64.
    let (sample, channel) = (1, 700);
    let mut h = vec![0f64; states];
    for t in 0..length {
        let at = (sample * length + t) * channels + channel;
        let row = (sample * length + t) * states;
        let mut want = 0.0;
        for n in 0..states {
            let decay = (f64::from(dt[at]) * f64::from(a[channel * states + n])).exp2();
            let input = f64::from(dt[at]) * f64::from(u[at]) * f64::from(b[row + n]);
            h[n] = decay * h[n] + input;
            want += h[n] * f64::from(c[row + n]);
        }
        assert!(
            (f64::from(got[at]) - want).abs() < 1e-5,
            "{t}: {} {want}",
            got[at]
        );
    }
}
