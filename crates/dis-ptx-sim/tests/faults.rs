//! Mistakes injected into a correct kernel: each is caught, and named by file and line.

#![allow(clippy::unwrap_used)]

mod common;

use common::{arg32, arg64, download_f32, launch, module, run_on, upload_f32};
use dis_ptx_sim::{Device, Fault, FaultKind, MemoryError, Module, Options, Order};

/// A scan with its state in a register, whose blocks of 64 threads stage 64 inputs at a time in
/// shared memory, sum them over the block, and keep a running sum of those sums.
const KERNEL: &str = "// y[b][t] = running sum over t of the sum of x[b][t][0..64], per block b.
.version 7.0
.target sm_80
.address_size 64
.visible .entry sums(.param .u64 x, .param .u64 y, .param .u32 length, .param .u32 batch)
.maxntid 64
{
    .shared .align 16 .f32 stage[64];
    .reg .pred %p, %q, %r;
    .reg .b32 %tid, %len, %n, %at, %k, %g;
    .reg .b64 %x, %y, %step;
    .reg .f32 %v, %w, %h, %a, %b, %c, %d;
    ld.param.u64 %x, [x];
    ld.param.u64 %y, [y];
    ld.param.u32 %len, [length];
    ld.param.u32 %n, [batch];
    mov.u32 %g, %ctaid.x;
    setp.ge.u32 %p, %g, %n;                  // MARK: bounds of the grid
    @%p bra DONE;
    mov.u32 %tid, %tid.x;
    mul.lo.u32 %at, %g, %len;
    mul.wide.u32 %step, %at, 4;
    add.u64 %y, %y, %step;
    shl.b32 %k, %at, 6;
    add.u32 %k, %k, %tid;
    mad.wide.u32 %x, %k, 4, %x;
    mov.f32 %h, 0f00000000;                  // MARK: state
    shl.b32 %at, %tid, 2;
    add.u32 %at, %at, stage;
    setp.eq.u32 %r, %tid, 0;
LOOP:
    ld.global.f32 %v, [%x];                  // MARK: load
    st.shared.f32 [%at], %v;
    bar.sync 0;                              // MARK: barrier before the sum
    @!%r bra NEXT;
    mov.f32 %w, 0f00000000;
    mov.u32 %k, stage;
    mov.u32 %g, 0;
SUM:
    ld.shared.v4.f32 {%a, %b, %c, %d}, [%k]; // MARK: vector
    add.rn.f32 %a, %a, %b;
    add.rn.f32 %c, %c, %d;
    add.rn.f32 %a, %a, %c;
    add.rn.f32 %w, %w, %a;
    add.u32 %k, %k, 16;
    add.u32 %g, %g, 4;
    setp.lt.u32 %q, %g, 64;                  // MARK: end of the sum
    @%q bra SUM;
    add.rn.f32 %h, %h, %w;
    st.global.f32 [%y], %h;                  // MARK: store
    add.u64 %y, %y, 4;
NEXT:
    bar.sync 0;                              // MARK: barrier after the sum
    add.u64 %x, %x, 256;
    sub.u32 %len, %len, 1;
    setp.ne.u32 %p, %len, 0;                 // MARK: end of the loop
    @%p bra LOOP;
DONE:
    ret;
}
";

const LENGTH: usize = 5;
const BATCH: usize = 3;

fn input() -> Vec<f32> {
    (0..BATCH * LENGTH * 64).map(|k| (k % 7) as f32).collect()
}

fn run(text: &str, blocks: u32, options: Options) -> Result<Vec<f32>, Fault> {
    let module = Module::parse("kernels/sums.ptx", text).unwrap();
    let mut device = Device::new(options);
    let x = upload_f32(&mut device, &input());
    let y = device.alloc(4 * BATCH * LENGTH);
    let args = [
        arg64(x),
        arg64(y),
        arg32(LENGTH as u32),
        arg32(BATCH as u32),
    ];
    device.launch(&module, "sums", launch(blocks, 64), &args)?;
    Ok(download_f32(&device, y, BATCH * LENGTH))
}

fn line(text: &str, part: &str) -> u32 {
    text.lines().position(|l| l.contains(part)).unwrap() as u32 + 1
}

/// Replaces the line with a mark by another, and expects a fault of a kind at the line with `at`.
fn inject(mark: &str, with: &str, kind: FaultKind, at: &str) {
    for order in [Order::InOrder, Order::Reversed, Order::Shuffled(5)] {
        let text: Vec<&str> = KERNEL
            .lines()
            .map(|l| if l.contains(mark) { with } else { l })
            .collect();
        let text = text.join("\n");
        let options = Options {
            order,
            ..Options::default()
        };
        let fault = run(&text, BATCH as u32, options).unwrap_err();
        assert_eq!(fault.kind, kind, "{fault}");
        assert_eq!(fault.line, line(&text, at), "{fault}");
        let shown = fault.to_string();
        assert!(shown.starts_with(&format!("kernels/sums.ptx:{}: {kind:?}: ", fault.line)));
        assert!(
            shown.contains("block (") && shown.contains(&fault.instruction),
            "{shown}"
        );
    }
}

#[test]
fn the_kernel_itself_is_right_in_every_order() {
    let x = input();
    let mut want = Vec::new();
    for sample in x.chunks(LENGTH * 64) {
        let mut sum = 0.0;
        for step in sample.chunks(64) {
            sum += step.iter().sum::<f32>();
            want.push(sum);
        }
    }
    for order in [
        Order::InOrder,
        Order::Reversed,
        Order::Shuffled(1),
        Order::Shuffled(2),
    ] {
        let options = Options {
            order,
            ..Options::default()
        };
        assert_eq!(run(KERNEL, BATCH as u32, options).unwrap(), want);
        // Blocks beyond the batch leave at once.
        assert_eq!(run(KERNEL, BATCH as u32 + 2, options).unwrap(), want);
    }
    let module = Module::parse("kernels/sums.ptx", KERNEL).unwrap();
    assert_eq!(module.lint(), []);
    assert_eq!(module.entry("sums").unwrap().static_shared, 256);
}

#[test]
fn a_removed_barrier() {
    let (after, before) = (
        "MARK: barrier after the sum",
        "MARK: barrier before the sum",
    );
    for (mark, seen) in [(after, "st.shared.f32"), (before, "MARK: vector")] {
        let text: Vec<&str> = KERNEL
            .lines()
            .map(|l| if l.contains(mark) { "" } else { l })
            .collect();
        let text = text.join("\n");
        for order in [Order::InOrder, Order::Reversed, Order::Shuffled(5)] {
            let options = Options {
                order,
                ..Options::default()
            };
            let fault = run(&text, BATCH as u32, options).unwrap_err();
            // Which of the two accesses comes second depends on the order.
            let lines = [
                line(&text, seen),
                line(&text, "MARK: vector"),
                line(&text, "st.shared.f32"),
            ];
            assert!(lines.contains(&fault.line), "{fault}");
            let kinds = [FaultKind::SharedRace, FaultKind::UninitialisedMemory];
            assert!(kinds.contains(&fault.kind), "{fault}");
            // What nothing wrote is only seen without the race check, in some orders.
            let unchecked = Options {
                checks: false,
                ..options
            };
            assert!(run(&text, BATCH as u32, unchecked).is_ok());
        }
    }
}

#[test]
fn a_loop_one_too_far() {
    let with = "setp.le.u32 %q, %g, 64; // too far";
    inject(
        "MARK: end of the sum",
        with,
        FaultKind::OutOfBounds,
        "MARK: vector",
    );
    // Past the end of the input only in the last block; before, another block's output is hit.
    let with = "setp.ne.u32 %p, %len, -1; // too far";
    let text: Vec<&str> = KERNEL
        .lines()
        .map(|l| {
            if l.contains("MARK: end of the loop") {
                with
            } else {
                l
            }
        })
        .collect();
    let fault = run(&text.join("\n"), BATCH as u32, Options::default()).unwrap_err();
    assert_eq!(fault.kind, FaultKind::GlobalRace, "{fault}");
    assert_eq!(fault.block, [1, 0, 0]);
    let unchecked = Options {
        checks: false,
        ..Options::default()
    };
    let fault = run(&text.join("\n"), BATCH as u32, unchecked).unwrap_err();
    assert_eq!(fault.kind, FaultKind::OutOfBounds, "{fault}");
    assert_eq!(
        (fault.block, fault.line),
        ([2, 0, 0], line(KERNEL, "MARK: load"))
    );
}

#[test]
fn a_misaligned_access() {
    let with = "ld.shared.v4.f32 {%a, %b, %c, %d}, [%k+4]; // misaligned";
    inject("MARK: vector", with, FaultKind::Misaligned, "// misaligned");
    let with = "ld.global.f32 %v, [%x+2]; // misaligned";
    inject("MARK: load", with, FaultKind::Misaligned, "// misaligned");
    // An array that promises less alignment than its vectors need.
    inject(
        ".shared .align 16",
        "    .shared .f32 stage[64];",
        FaultKind::Misaligned,
        "MARK: vector",
    );
}

#[test]
fn an_uninitialised_state() {
    inject(
        "MARK: state",
        "",
        FaultKind::UninitialisedRegister,
        "add.rn.f32 %h, %h, %w;",
    );
}

#[test]
fn a_shared_array_that_is_too_small() {
    let with = "    .shared .align 16 .f32 stage[60];";
    inject(
        ".shared .align 16",
        with,
        FaultKind::OutOfBounds,
        "st.shared.f32",
    );
    // Neighbours do not hide it.
    let with = "    .shared .align 16 .f32 stage[60]; .shared .align 16 .f32 other[64];";
    inject(
        ".shared .align 16",
        with,
        FaultKind::OutOfBounds,
        "st.shared.f32",
    );
}

#[test]
fn a_missing_bounds_check_on_the_last_block() {
    let with = "setp.ge.u32 %p, %g, 1000; // no bound";
    let text: Vec<&str> = KERNEL
        .lines()
        .map(|l| if l.contains("MARK: bounds") { with } else { l })
        .collect();
    let fault = run(&text.join("\n"), BATCH as u32 + 1, Options::default()).unwrap_err();
    assert_eq!(fault.kind, FaultKind::OutOfBounds, "{fault}");
    assert_eq!(
        (fault.line, fault.block),
        (line(KERNEL, "MARK: load"), [3, 0, 0])
    );
}

#[test]
fn blocks_that_write_one_place() {
    let with = "ld.param.u64 %step, [y]; st.global.f32 [%step], %h; // wrong pointer";
    inject(
        "MARK: store",
        with,
        FaultKind::GlobalRace,
        "// wrong pointer",
    );
}

#[test]
fn an_address_cut_to_32_bits() {
    let with = "cvt.u32.u64 %k, %x; cvt.u64.u32 %x, %k; ld.global.f32 %v, [%x]; // cut";
    inject("MARK: load", with, FaultKind::OutOfBounds, "// cut");
}

fn copy_text(load: &str) -> String {
    format!(
        ".visible .entry copy(.param .u64 x, .param .u64 y) .maxntid 32
        {{
            .reg .b32 %t;
            .reg .b64 %x, %y;
            .reg .f32 %v;
            ld.param.u64 %x, [x];
            ld.param.u64 %y, [y];
            mov.u32 %t, %tid.x;
            mad.wide.u32 %x, %t, 4, %x;
            mad.wide.u32 %y, %t, 4, %y;
            {load} %v, [%x];
            st.global.f32 [%y], %v;
            ret;
        }}"
    )
}

#[test]
fn memory_that_nothing_wrote() {
    let body = copy_text("ld.global.f32");
    let mut device = Device::new(Options::default());
    let (x, y) = (device.alloc(128), device.alloc(128));
    device.write(x, &[0; 64]).unwrap();
    let fault = run_on(&mut device, &body, 1, 32, &[arg64(x), arg64(y)]).unwrap_err();
    assert_eq!(fault.kind, FaultKind::UninitialisedMemory);
    assert_eq!((fault.thread, fault.line), ([16, 0, 0], 15), "{fault}");
    assert!(fault.message.contains("offset 64"), "{fault}");
    device.write(x + 64, &[0; 64]).unwrap();
    run_on(&mut device, &body, 1, 32, &[arg64(x), arg64(y)]).unwrap();
    // What a pool hands out again is as good as never written.
    device.mark_uninitialised(x + 32, 4).unwrap();
    let fault = run_on(&mut device, &body, 1, 32, &[arg64(x), arg64(y)]).unwrap_err();
    assert_eq!(
        (fault.kind, fault.thread),
        (FaultKind::UninitialisedMemory, [8, 0, 0])
    );
    // The host's reads are checked too.
    let y = device.alloc(8);
    device.write(y, &[1; 6]).unwrap();
    let error = device.read(y, &mut [0; 8]).unwrap_err();
    assert_eq!(
        error,
        MemoryError::Uninitialised {
            ptr: y,
            bytes: 8,
            offset: 6
        }
    );
    let mut bytes = [9; 8];
    device.read_lossy(y, &mut bytes).unwrap();
    assert_eq!(bytes, [1, 1, 1, 1, 1, 1, 0, 0]);
    let z = device.alloc(8);
    device.copy(z, y, 8).unwrap();
    assert!(device.read(z, &mut [0; 8]).is_err() && device.read(z, &mut [0; 6]).is_ok());
    device.fill(z, 3, 8).unwrap();
    device.read(z, &mut bytes).unwrap();
    assert_eq!(bytes, [3; 8]);
}

#[test]
fn memory_that_was_freed() {
    let body = copy_text("ld.global.f32");
    let mut device = Device::new(Options::default());
    let (x, y) = (upload_f32(&mut device, &[1.0; 32]), device.alloc(128));
    assert_eq!(device.live_bytes(), 256);
    device.free(x).unwrap();
    let fault = run_on(&mut device, &body, 1, 32, &[arg64(x), arg64(y)]).unwrap_err();
    assert_eq!(fault.kind, FaultKind::UseAfterFree);
    assert_eq!(
        device.free(x),
        Err(MemoryError::Freed { ptr: x, bytes: 128 })
    );
    assert_eq!(
        device.write(x, &[0]),
        Err(MemoryError::Freed { ptr: x, bytes: 1 })
    );
    assert_ne!(device.alloc(128), x);
    let fault = run_on(&mut device, &body, 1, 32, &[arg64(0), arg64(y)]).unwrap_err();
    assert_eq!(fault.kind, FaultKind::OutOfBounds);
}

#[test]
fn a_non_coherent_load_of_what_the_launch_writes() {
    for (load, ok) in [("ld.global.nc.f32", false), ("ld.global.f32", true)] {
        let mut device = Device::new(Options::default());
        let x = upload_f32(&mut device, &[1.0; 32]);
        let outcome = run_on(&mut device, &copy_text(load), 1, 32, &[arg64(x), arg64(x)]);
        assert_eq!(
            outcome.map_err(|f| f.kind).err(),
            (!ok).then_some(FaultKind::NonCoherentRead)
        );
    }
}

#[test]
fn a_race_in_global_memory_within_a_block() {
    // Each thread reads its right neighbour's word while that thread writes it.
    let body = copy_text("ld.global.f32");
    let mut device = Device::new(Options::default());
    let x = upload_f32(&mut device, &[1.0; 33]);
    let fault = run_on(&mut device, &body, 1, 32, &[arg64(x + 4), arg64(x)]).unwrap_err();
    assert_eq!(fault.kind, FaultKind::GlobalRace);
    // Two blocks that both write all of y.
    let y = device.alloc(128);
    let fault = run_on(&mut device, &body, 2, 32, &[arg64(x), arg64(y)]).unwrap_err();
    assert_eq!(
        (fault.kind, fault.block),
        (FaultKind::GlobalRace, [1, 0, 0])
    );
    assert!(fault.message.contains("another block"), "{fault}");
    // Two launches are in order.
    let y = device.alloc(128);
    for _ in 0..2 {
        run_on(&mut device, &body, 1, 32, &[arg64(x), arg64(y)]).unwrap();
    }
}

#[test]
fn a_division_by_zero() {
    let body = ".visible .entry k(.param .u64 out) .maxntid 32 {
        .reg .b32 %t;
        mov.u32 %t, %tid.x;
        div.u32 %t, 100, %t;
        ret; }";
    let mut device = Device::new(Options::default());
    let fault = run_on(&mut device, body, 1, 32, &[arg64(0)]).unwrap_err();
    assert_eq!((fault.kind, fault.thread), (FaultKind::Undefined, [0; 3]));
}

#[test]
fn launches_that_do_not_fit() {
    let text = module(
        ".extern .shared .align 16 .b8 dyn[];
        .visible .entry k(.param .u64 a, .param .u32 b) .maxntid 64 {
            .shared .b8 big[40000];
            .reg .b32 %r; mov.u32 %r, dyn; mov.u32 %r, big; ret; }
        .visible .entry plain() .reqntid 32 { ret; }",
    );
    let args = [arg64(0), arg32(0)];
    let mut device = Device::new(Options::default());
    let mut refused = |entry: &str, grid: u32, block: u32, shared: u32, args: &[Vec<u8>]| {
        let launch = dis_ptx_sim::Launch {
            dynamic_shared: shared,
            ..launch(grid, block)
        };
        match device.launch(&text, entry, launch, args) {
            Ok(_) => None,
            Err(fault) => {
                assert_eq!(fault.kind, FaultKind::Launch);
                Some(fault.message)
            }
        }
    };
    assert_eq!(refused("k", 1, 64, 61_000, &args), None);
    for (entry, grid, block, shared, args) in [
        ("other", 1, 64, 0, &args[..]),
        ("k", 0, 64, 0, &args),
        ("k", 1, 65, 0, &args),
        ("k", 1, 64, 62_000, &args),
        ("k", 1, 64, 0, &args[..1]),
        ("k", 1, 64, 0, &[arg32(0), arg32(0)]),
        ("plain", 1, 64, 0, &[]),
        ("plain", 1, 32, 4, &[]),
    ] {
        assert!(
            refused(entry, grid, block, shared, args).is_some(),
            "{entry} {grid} {block}"
        );
    }
    assert_eq!(refused("plain", 1, 32, 0, &[]), None);
}
