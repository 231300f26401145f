//! Loads and stores: widths, signs, vectors, sectors, bank conflicts.

#![allow(clippy::unwrap_used)]

mod common;

use common::{arg64, download_u32, download_u64, run_on, upload_u32};
use dis_ptx_sim::{Counters, Device, FaultKind, Options};

/// Runs `code` for a warp whose %x is the input's address, %y that of the thread's place in the
/// output of 16 bytes a thread.
fn run(code: &str, input: &[u8], words: usize) -> (Vec<u32>, Counters) {
    let body = format!(
        ".visible .entry k(.param .u64 x, .param .u64 y) .maxntid 32
        {{
            .reg .b16 %h;
            .reg .b32 %t, %a, %b, %c, %d;
            .reg .b64 %x, %y, %l, %m;
            ld.param.u64 %x, [x];
            ld.param.u64 %y, [y];
            mov.u32 %t, %tid.x;
            mad.wide.u32 %y, %t, 16, %y;
            {code}
            ret;
        }}"
    );
    let mut device = Device::new(Options::default());
    let x = device.alloc(input.len());
    device.write(x, input).unwrap();
    let y = device.alloc(512);
    let counters = match run_on(&mut device, &body, 1, 32, &[arg64(x), arg64(y)]) {
        Ok(counters) => counters,
        Err(fault) => panic!("{code}: {fault}"),
    };
    let mut out = Vec::new();
    for t in 0..32 {
        out.extend(download_u32(&device, y + 16 * t, words));
    }
    (out, counters)
}

#[test]
fn narrow_values_are_extended() {
    let input: Vec<u8> = (0..64)
        .map(|k: u8| 200u8.wrapping_add(k.wrapping_mul(5)))
        .collect();
    let signed = |t: usize| i16::from_le_bytes([input[2 * t], input[2 * t + 1]]);
    for (code, want) in [
        (
            "cvt.u64.u32 %l, %t; add.u64 %x, %x, %l; ld.global.u8 %a, [%x];",
            0,
        ),
        (
            "cvt.u64.u32 %l, %t; add.u64 %x, %x, %l; ld.global.s8 %a, [%x];",
            1,
        ),
        ("mad.wide.u32 %x, %t, 2, %x; ld.global.u16 %a, [%x];", 2),
        ("mad.wide.u32 %x, %t, 2, %x; ld.global.s16 %a, [%x];", 3),
        (
            "mad.wide.u32 %x, %t, 2, %x; ld.global.b16 %h, [%x]; mov.b32 %a, {%h, %h};",
            4,
        ),
    ] {
        let (out, _) = run(&format!("{code} st.global.u32 [%y], %a;"), &input, 1);
        for (t, got) in out.into_iter().enumerate() {
            let want = match want {
                0 => u32::from(input[t]),
                1 => input[t] as i8 as u32,
                2 => u32::from(signed(t) as u16),
                3 => signed(t) as u32,
                _ => u32::from(signed(t) as u16) * 0x1_0001,
            };
            assert_eq!(got, want, "{code} of thread {t}");
        }
    }
}

/// Two halves of a word that two threads write are no race, and only they are written.
#[test]
fn neighbours_write_halves_of_a_word() {
    let body = "
        .visible .entry k(.param .u64 y) .maxntid 32
        {
            .reg .b32 %t;
            .reg .b64 %y;
            ld.param.u64 %y, [y];
            mov.u32 %t, %tid.x;
            mad.wide.u32 %y, %t, 2, %y;
            st.global.u16 [%y], %t;
            ret;
        }";
    let mut device = Device::new(Options::default());
    let y = device.alloc(68);
    run_on(&mut device, body, 1, 32, &[arg64(y)]).unwrap();
    let words = download_u32(&device, y, 16);
    assert!(
        words
            .iter()
            .zip(0..)
            .all(|(w, k): (_, u32)| *w == 2 * k + ((2 * k + 1) << 16))
    );
    assert!(device.read(y + 64, &mut [0]).is_err());
    // Two blocks that write the same halves are a race, word stores after halves too.
    let fault = run_on(&mut device, body, 2, 32, &[arg64(y)]).unwrap_err();
    assert_eq!(fault.kind, FaultKind::GlobalRace);
}

#[test]
fn vectors_are_consecutive_and_whole() {
    let input: Vec<u8> = (0..512u32)
        .flat_map(|k| (k as u8).wrapping_mul(7).to_le_bytes())
        .collect();
    let words: Vec<u32> = input
        .chunks(4)
        .map(|c| u32::from_le_bytes(c.try_into().unwrap()))
        .collect();
    let (out, counters) = run(
        "mad.wide.u32 %x, %t, 16, %x;
        ld.global.v4.u32 {%a, %b, %c, %d}, [%x];
        st.global.v4.u32 [%y], {%d, %c, %b, %a};",
        &input,
        4,
    );
    for (got, want) in out.chunks(4).zip(words.chunks(4)) {
        assert!(got.iter().rev().eq(want));
    }
    assert_eq!((counters.load_sectors, counters.store_sectors), (16, 16));
    assert_eq!(
        (counters.global_load_bytes, counters.global_store_bytes),
        (512, 512)
    );
    let (out, _) = run(
        "mad.wide.u32 %x, %t, 8, %x;
        ld.global.v2.u32 {%a, %b}, [%x+8];
        st.global.v2.u32 [%y+8], {%a, %b};
        st.global.u64 [%y], 7;",
        &input[..264],
        4,
    );
    for (t, got) in out.chunks(4).enumerate() {
        assert_eq!(got, [7, 0, words[2 * t + 2], words[2 * t + 3]]);
    }
    let (out, counters) = run(
        "ld.global.v2.u64 {%l, %m}, [%x];
        st.global.v2.u64 [%y], {%m, %l};",
        &input[..16],
        4,
    );
    assert!(
        out.chunks(4)
            .all(|c| c == [words[2], words[3], words[0], words[1]])
    );
    assert_eq!(counters.load_sectors, 1);
}

/// Sectors of 32 bytes by the addresses of a warp.
#[test]
fn sectors_are_counted() {
    let input = vec![1; 32 * 132 + 64];
    for (stride, offset, sectors) in [
        (0, 0, 1),
        (4, 0, 4),
        (4, 4, 5),
        (8, 0, 8),
        (32, 0, 32),
        (128, 0, 32),
        (132, 0, 32),
    ] {
        let code = format!(
            "mad.wide.u32 %x, %t, {stride}, %x;
            ld.global.u32 %a, [%x+{offset}];
            st.global.u32 [%y], %a;"
        );
        let (_, counters) = run(&code, &input, 1);
        assert_eq!(counters.load_sectors, sectors, "{stride} {offset}");
        assert_eq!(counters.store_sectors, 16);
        assert_eq!(counters.sectors, sectors + 16);
    }
    let (_, counters) = run(
        "sub.u32 %a, 31, %t;
        mad.wide.u32 %x, %a, 4, %x;
        ld.global.u32 %a, [%x];
        st.global.u32 [%y], %a;",
        &input,
        1,
    );
    assert_eq!(counters.load_sectors, 4);
}

/// A bank serves one word at a time; lanes of 8 and 16 bytes are served by halves and quarters.
#[test]
fn bank_conflicts_are_counted() {
    let conflicts = |stride: u32, vector: &str, values: &str| {
        let body = format!(
            ".visible .entry k() .maxntid 32
            {{
                .shared .align 16 .b8 box[{}];
                .reg .b32 %t, %a, %b, %c, %d;
                mov.u32 %t, %tid.x;
                mad.lo.u32 %a, %t, {stride}, box;
                mov.u32 %b, 1;
                mov.u32 %c, 2;
                mov.u32 %d, 3;
                st.shared{vector}.u32 [%a], {values};
                ret;
            }}",
            32 * stride.max(16)
        );
        let mut device = Device::new(Options::default());
        run_on(&mut device, &body, 1, 32, &[])
            .unwrap()
            .bank_conflicts
    };
    let (one, two, four) = ("%b", "{%b, %c}", "{%b, %c, %d, %b}");
    assert_eq!(conflicts(4, "", one), 0);
    assert_eq!(conflicts(8, "", one), 1);
    assert_eq!(conflicts(12, "", one), 0);
    assert_eq!(conflicts(128, "", one), 31);
    assert_eq!(conflicts(132, "", one), 0);
    assert_eq!(conflicts(8, ".v2", two), 0);
    assert_eq!(conflicts(16, ".v4", four), 0);
    assert_eq!(conflicts(16, ".v2", two), 2);
    assert_eq!(conflicts(32, ".v4", four), 4);
}

#[test]
fn dynamic_shared_memory_has_the_size_of_the_launch() {
    let text = common::module(
        ".extern .shared .align 16 .b8 dyn[];
        .visible .entry k(.param .u64 y) .maxntid 32 {
            .shared .align 4 .b32 one[1];
            .reg .b32 %t, %a;
            .reg .b64 %y;
            ld.param.u64 %y, [y];
            mov.u32 %t, %tid.x;
            mad.lo.u32 %a, %t, 4, dyn;
            st.shared.u32 [%a], %t;
            ld.shared.u32 %t, [%a];
            mad.wide.u32 %y, %t, 4, %y;
            st.global.u32 [%y], %t;
            mov.u32 %a, one;
            ret;
        }",
    );
    let mut device = Device::new(Options::default());
    let y = device.alloc(128);
    let mut launch = common::launch(1, 32);
    launch.dynamic_shared = 128;
    device.launch(&text, "k", launch, &[arg64(y)]).unwrap();
    assert_eq!(download_u64(&device, y, 1), [1 << 32]);
    launch.dynamic_shared = 124;
    let fault = device.launch(&text, "k", launch, &[arg64(y)]).unwrap_err();
    assert_eq!(
        (fault.kind, fault.thread),
        (FaultKind::OutOfBounds, [31, 0, 0])
    );
}

#[test]
fn parameters_of_all_sizes() {
    let body = "
        .visible .entry k(.param .u64 y, .param .f32 f, .param .f64 g, .param .u16 h, .param .b8 s[8])
        .maxntid 32 {
            .reg .b32 %a, %b, %c;
            .reg .b64 %y, %l;
            ld.param.u64 %y, [y];
            ld.param.f32 %a, [f];
            ld.param.f64 %l, [g];
            ld.param.u16 %b, [h];
            ld.param.u32 %c, [s+4];
            setp.ne.u32 %p, %tid.x, 0;
            @%p ret;
            st.global.v2.u64 [%y], {%l, %l};
            st.global.u32 [%y], %a;
            st.global.u32 [%y+8], %b;
            st.global.u32 [%y+12], %c;
            ret;
            .reg .pred %p;
        }"
    .replace("ret;\n            .reg .pred %p;", "ret;")
    .replace(".reg .b32 %a", ".reg .pred %p; .reg .b32 %a");
    let mut device = Device::new(Options::default());
    let y = device.alloc(16);
    let args = [
        arg64(y),
        1.5f32.to_le_bytes().to_vec(),
        (-2.0f64).to_le_bytes().to_vec(),
        513u16.to_le_bytes().to_vec(),
        vec![1, 2, 3, 4, 5, 6, 7, 8],
    ];
    run_on(&mut device, &body, 1, 32, &args).unwrap();
    assert_eq!(
        download_u32(&device, y, 4),
        [1.5f32.to_bits(), 0xc000_0000, 513, 0x0807_0605]
    );
}

#[test]
fn a_launch_adds_to_the_totals_and_to_coverage() {
    let text = common::module(
        ".visible .entry k(.param .u64 y, .param .u32 n) .maxntid 32 {
            .reg .pred %p;
            .reg .b32 %t, %n;
            .reg .b64 %y;
            ld.param.u64 %y, [y];
            ld.param.u32 %n, [n];
            mov.u32 %t, %tid.x;
            setp.lt.u32 %p, %t, %n;
            @!%p bra REST;
            mad.wide.u32 %y, %t, 4, %y;
            st.global.u32 [%y], 1;
            ret;
        REST:
            mul.lo.u32 %t, %t, %t;
            ret;
        }
        .visible .entry other() .maxntid 32 { ret; }",
    );
    let mut device = Device::new(Options::default());
    let y = upload_u32(&mut device, &[0; 32]);
    let run = |device: &mut Device, n: u32| {
        device.launch(
            &text,
            "k",
            common::launch(2, 16),
            &[arg64(y), common::arg32(n)],
        )
    };
    // Two blocks write the same words.
    assert_eq!(
        run(&mut device, 16).unwrap_err().kind,
        FaultKind::GlobalRace
    );
    assert_eq!(device.totals(), Counters::default());
    let mut device = Device::new(Options::default());
    let one = run(&mut device, 0).unwrap();
    assert_eq!(
        (
            one.launches,
            one.blocks,
            one.threads,
            one.divergent_branches
        ),
        (1, 2, 32, 0)
    );
    run(&mut device, 0).unwrap();
    assert_eq!(device.totals().instructions, 2 * one.instructions);
    let coverage = device.coverage(&text);
    assert_eq!(coverage.file, "test.ptx");
    let missed: Vec<&str> = coverage
        .uncovered()
        .map(|l| l.instruction.as_str())
        .collect();
    assert_eq!(
        missed,
        [
            "mad.wide.u32 %y, %t, 4, %y;",
            "st.global.u32 [%y], 1;",
            "ret;",
            "ret;"
        ]
    );
    assert_eq!(coverage.uncovered().last().unwrap().entry, "other");
    // Another device ran the rest.
    let mut second = Device::new(Options::default());
    let _ = upload_u32(&mut second, &[0; 32]);
    let launch = common::launch(1, 32);
    second
        .launch(&text, "k", launch, &[arg64(y), common::arg32(5)])
        .unwrap();
    second
        .launch(&text, "other", launch, &[[0u8; 0]; 0])
        .unwrap();
    let mut all = coverage.clone();
    all.merge(&second.coverage(&text));
    assert_eq!((all.fraction(), all.uncovered().count()), (1.0, 0));
    assert!(coverage.fraction() < 0.8);
}
