//! Divergence and reconvergence, shuffles, votes, barriers.

#![allow(clippy::unwrap_used)]

mod common;

use common::{arg64, download_u32, module, run_on, run_out, upload_u32};
use dis_ptx_sim::{Device, FaultKind, Launch, Options, Order};

/// A kernel over `%t` (thread) that stores `%d` at its thread's place.
fn kernel(declarations: &str, code: &str) -> String {
    format!(
        ".visible .entry k(.param .u64 out) .maxntid 1024
        {{
            .reg .pred %p, %q;
            .reg .b32 %t, %d, %x, %y;
            .reg .b64 %out;
            {declarations}
            ld.param.u64 %out, [out];
            mov.u32 %t, %tid.x;
            {code}
            mad.wide.u32 %out, %t, 4, %out;
            st.global.u32 [%out], %d;
            ret;
        }}"
    )
}

fn run(code: &str, threads: u32) -> Vec<u32> {
    match run_out(
        &kernel("", code),
        1,
        threads,
        threads as usize,
        Options::default(),
    ) {
        Ok(out) => out,
        Err(fault) => panic!("{code}: {fault}"),
    }
}

fn fault(code: &str, threads: u32) -> FaultKind {
    match run_out(
        &kernel("", code),
        1,
        threads,
        threads as usize,
        Options::default(),
    ) {
        Ok(out) => panic!("{code} gives {out:?}"),
        Err(fault) => {
            assert_eq!(fault.file, "test.ptx");
            assert!(fault.line > 5 && !fault.instruction.is_empty());
            fault.kind
        }
    }
}

#[test]
fn lanes_part_and_meet() {
    let code = "
        and.b32 %x, %t, 1;
        setp.eq.u32 %p, %x, 0;
        @%p bra EVEN;
        add.u32 %d, %t, 1000;
        bra JOIN;
    EVEN:
        add.u32 %d, %t, 2000;
    JOIN:
        // All lanes are together again, or this is a fault.
        shfl.sync.bfly.b32 %d, %d, 1, 31, -1;";
    let want: Vec<u32> = (0..64)
        .map(|t| t ^ 1)
        .map(|t| t + if t % 2 == 0 { 2000 } else { 1000 })
        .collect();
    assert_eq!(run(code, 64), want);
}

#[test]
fn lanes_leave_a_loop_one_by_one() {
    let code = "
        mov.u32 %d, 0;
        mov.u32 %x, %laneid;
    LOOP:
        setp.eq.u32 %p, %x, 0;
        @%p bra OUT;
        add.u32 %d, %d, %x;
        sub.u32 %x, %x, 1;
        bra LOOP;
    OUT:
        vote.sync.ballot.b32 %y, 1 != 0, -1;";
    let code = code.replace("1 != 0", "%p");
    let want: Vec<u32> = (0..32).map(|t| t * (t + 1) / 2).collect();
    assert_eq!(run(&code, 32), want);
}

#[test]
fn nested_branches_meet() {
    let code = "
        mov.u32 %d, 0;
        setp.ge.u32 %p, %t, 8;
        @%p bra OUTER;
        setp.ge.u32 %q, %t, 4;
        @%q bra INNER;
        add.u32 %d, %d, 1;
    INNER:
        add.u32 %d, %d, 10;
    OUTER:
        add.u32 %d, %d, 100;
        activemask.b32 %x;
        setp.ne.u32 %p, %x, -1;
        @%p mov.u32 %d, 0;";
    let want: Vec<u32> = (0..32)
        .map(|t| {
            100 + if t < 4 {
                11
            } else if t < 8 {
                10
            } else {
                0
            }
        })
        .collect();
    assert_eq!(run(code, 32), want);
}

#[test]
fn predicated_instructions_leave_the_other_lanes_alone() {
    let code = "
        setp.lt.u32 %p, %t, 10;
        mov.u32 %d, 7;
        @%p add.u32 %d, %d, %t;
        @!%p sub.u32 %d, %d, 7;";
    let want: Vec<u32> = (0..40).map(|t| if t < 10 { 7 + t } else { 0 }).collect();
    assert_eq!(run(code, 40), want);
}

#[test]
fn special_registers() {
    for (register, want) in [
        ("%tid.x", (|t| t) as fn(u32) -> u32),
        ("%tid.y", |_| 0),
        ("%ntid.x", |_| 70),
        ("%nctaid.x", |_| 1),
        ("%ctaid.x", |_| 0),
        ("%laneid", |t| t % 32),
        ("%warpid", |t| t / 32),
        ("%lanemask_eq", |t| 1 << (t % 32)),
        ("%lanemask_lt", |t| (1u64 << (t % 32)) as u32 - 1),
        ("%lanemask_le", |t| ((2u64 << (t % 32)) - 1) as u32),
        ("%lanemask_gt", |t| !((2u64 << (t % 32)) - 1) as u32),
        ("%lanemask_ge", |t| !((1u64 << (t % 32)) - 1) as u32),
    ] {
        let out = run(&format!("mov.u32 %d, {register};"), 70);
        assert_eq!(out, (0..70).map(want).collect::<Vec<_>>(), "{register}");
    }
}

#[test]
fn blocks_and_threads_have_three_axes() {
    let text = module(
        ".visible .entry k(.param .u64 out) .maxntid 64 {
            .reg .b32 %x<7>;
            .reg .b64 %out;
            ld.param.u64 %out, [out];
            mov.u32 %x0, %ctaid.z;
            mad.lo.u32 %x0, %x0, %nctaid.y, %ctaid.y;
            mad.lo.u32 %x0, %x0, %nctaid.x, %ctaid.x;
            mad.lo.u32 %x1, %x0, %ntid.z, %tid.z;
            mad.lo.u32 %x1, %x1, %ntid.y, %tid.y;
            mad.lo.u32 %x1, %x1, %ntid.x, %tid.x;
            mad.wide.u32 %out, %x1, 4, %out;
            st.global.u32 [%out], %x1;
            ret;
        }",
    );
    let words = 2 * 3 * 4 * 5 * 2 * 3;
    for order in [Order::InOrder, Order::Reversed, Order::Shuffled(1)] {
        let mut device = Device::new(Options {
            order,
            ..Options::default()
        });
        let out = device.alloc(4 * words);
        let launch = Launch {
            grid: [2, 3, 4],
            block: [5, 2, 3],
            dynamic_shared: 0,
        };
        let counters = device.launch(&text, "k", launch, &[arg64(out)]).unwrap();
        assert_eq!(
            download_u32(&device, out, words),
            (0..words as u32).collect::<Vec<_>>()
        );
        assert_eq!((counters.blocks, counters.threads), (24, words as u64));
        assert_eq!(counters.global_store_bytes, 4 * words as u64);
    }
}

/// Source lanes as the pseudocode of the ISA gives them.
fn shuffled(mode: &str, lane: u32, b: u32, c: u32) -> (u32, bool) {
    let (bval, cval, segment) = (b & 31, c & 31, c >> 8 & 31);
    let max = (lane & segment) | (cval & !segment);
    let min = lane & segment;
    let (j, p) = match mode {
        "up" => (
            lane as i64 - i64::from(bval),
            lane as i64 - i64::from(bval) >= i64::from(max),
        ),
        "down" => (i64::from(lane + bval), lane + bval <= max),
        "bfly" => (i64::from(lane ^ bval), lane ^ bval <= max),
        _ => (
            i64::from(min | (bval & !segment)),
            min | (bval & !segment) <= max,
        ),
    };
    if p { (j as u32, true) } else { (lane, false) }
}

#[test]
fn shuffles_follow_the_isa() {
    for mode in ["up", "down", "bfly", "idx"] {
        for b in [0, 1, 2, 3, 5, 8, 16, 31, 33] {
            for c in [0, 31, 0x1c1f, 0x181f, 0x101f, 0x1c03, 0x1800, 7, 15] {
                let code = format!(
                    "add.u32 %x, %t, 100;
                    shfl.sync.{mode}.b32 %d|%p, %x, {b}, {c}, -1;
                    @%p add.u32 %d, %d, 1000;"
                );
                let want: Vec<u32> = (0..32)
                    .map(|t| {
                        let (from, p) = shuffled(mode, t, b, c);
                        from + 100 + if p { 1000 } else { 0 }
                    })
                    .collect();
                assert_eq!(run(&code, 32), want, "{mode} {b} {c:#x}");
            }
        }
    }
}

#[test]
fn shuffles_take_a_lane_from_each_lane() {
    let code = "
        sub.u32 %x, 31, %t;
        shfl.sync.idx.b32 %d, %t, %x, 31, 0xffffffff;";
    assert_eq!(run(code, 32), (0..32).rev().collect::<Vec<_>>());
}

#[test]
fn votes() {
    let vote = |mode: &str| {
        format!(
            "shr.u32 %x, %t, 5;
            setp.eq.u32 %p, %x, 0;           // warp 0: all, warp 1: some, warp 2: none
            setp.eq.u32 %q, %t, 40;
            or.pred %p, %p, %q;
            vote.sync.{mode} %p, -1;
            "
        )
    };
    let read = "selp.u32 %d, 1, 0, %q;";
    let first = |code: &str| {
        let out = run(code, 96);
        [out[0], out[32], out[64]]
    };
    assert_eq!(first(&format!("{}{read}", vote("any.pred %q,"))), [1, 1, 0]);
    assert_eq!(first(&format!("{}{read}", vote("all.pred %q,"))), [1, 0, 0]);
    assert_eq!(first(&format!("{}{read}", vote("uni.pred %q,"))), [1, 0, 1]);
    assert_eq!(first(&vote("ballot.b32 %d,")), [u32::MAX, 1 << 8, 0]);
    assert_eq!(
        first(&vote("ballot.b32 %d,").replace("%p, -1", "!%p, -1")),
        [0, !(1 << 8), u32::MAX]
    );
}

#[test]
fn a_shuffle_in_a_divergent_branch_is_a_fault() {
    let code = "
        setp.lt.u32 %p, %t, 16;
        mov.u32 %d, 0;
        @!%p bra SKIP;
        shfl.sync.down.b32 %d, %t, 8, 31, 0xffffffff;
    SKIP:
        add.u32 %d, %d, 1;";
    assert_eq!(fault(code, 32), FaultKind::WarpDivergence);
    // With the right mask it is none.
    let out = run(&code.replace("8, 31, 0xffffffff", "4, 15, 0xffff"), 32);
    assert_eq!(out[..4], [5, 6, 7, 8]);
    // A lane outside its own mask, a lane that does not exist, one that returned.
    assert_eq!(
        fault("shfl.sync.down.b32 %d, %t, 8, 31, 0xffff;", 32),
        FaultKind::WarpDivergence
    );
    assert_eq!(
        fault("shfl.sync.idx.b32 %d, %t, 0, 31, -1;", 20),
        FaultKind::WarpDivergence
    );
    let code = "
        setp.eq.u32 %p, %t, 3;
        @%p ret;
        shfl.sync.idx.b32 %d, %t, 0, 31, -1;";
    assert_eq!(fault(code, 32), FaultKind::WarpDivergence);
    // A source lane outside the mask.
    let code = "
        setp.lt.u32 %p, %t, 16;
        mov.u32 %d, 0;
        @%p shfl.sync.idx.b32 %d, %t, 20, 31, 0xffff;";
    assert_eq!(fault(code, 32), FaultKind::WarpDivergence);
    let code = "
        setp.lt.u32 %p, %t, 16;
        mov.u32 %d, 0;
        @%p vote.sync.any.pred %q, %p, -1;";
    assert_eq!(fault(code, 32), FaultKind::WarpDivergence);
}

#[test]
fn a_uniform_branch_whose_lanes_disagree_is_a_fault() {
    let code = "
        mov.u32 %d, 0;
        setp.lt.u32 %p, %t, LIMIT;
        @%p bra.uni SKIP;
        mov.u32 %d, 1;
    SKIP:";
    assert_eq!(
        fault(&code.replace("LIMIT", "16"), 64),
        FaultKind::NonUniformBranch
    );
    assert_eq!(run(&code.replace("LIMIT", "32"), 64)[31..33], [0, 1]);
}

#[test]
fn barriers_separate_writes_and_reads_of_shared_memory() {
    let declarations = ".shared .align 4 .b32 box[256];";
    let code = "
        shl.b32 %x, %t, 2;
        add.u32 %y, %x, box;
        st.shared.u32 [%y], %t;
        bar.sync 0;
        xor.b32 %x, %x, 1020;
        add.u32 %y, %x, box;
        ld.shared.u32 %d, [%y];";
    let want: Vec<u32> = (0..256).map(|t| t ^ 255).collect();
    for order in [
        Order::InOrder,
        Order::Reversed,
        Order::Shuffled(3),
        Order::Shuffled(4),
    ] {
        let options = Options {
            order,
            ..Options::default()
        };
        let body = kernel(declarations, code);
        assert_eq!(run_out(&body, 1, 256, 256, options).unwrap(), want);
        // Without the barrier it is a race, whatever the order.
        let body = body.replace("bar.sync 0;", "");
        let kind = run_out(&body, 1, 256, 256, options).unwrap_err().kind;
        assert!(matches!(
            kind,
            FaultKind::SharedRace | FaultKind::UninitialisedMemory
        ));
    }
}

#[test]
fn a_warp_barrier_separates_the_accesses_of_a_warp() {
    let declarations = ".shared .align 4 .b32 box[64];";
    let code = "
        shl.b32 %x, %t, 2;
        add.u32 %y, %x, box;
        st.shared.u32 [%y], %t;
        bar.warp.sync -1;
        xor.b32 %x, %x, 4;
        add.u32 %y, %x, box;
        ld.shared.u32 %d, [%y];";
    let body = kernel(declarations, code);
    let out = run_out(&body, 1, 64, 64, Options::default()).unwrap();
    assert_eq!(out, (0..64).map(|t| t ^ 1).collect::<Vec<_>>());
    let without = body.replace("bar.warp.sync -1;", "");
    let kind = run_out(&without, 1, 64, 64, Options::default())
        .unwrap_err()
        .kind;
    assert_eq!(kind, FaultKind::SharedRace);
    let across = body.replace("xor.b32 %x, %x, 4;", "xor.b32 %x, %x, 128;");
    let kind = run_out(&across, 1, 64, 64, Options::default())
        .unwrap_err()
        .kind;
    assert!(matches!(
        kind,
        FaultKind::SharedRace | FaultKind::UninitialisedMemory
    ));
}

#[test]
fn a_barrier_that_some_threads_miss_is_a_fault() {
    let kind = FaultKind::BarrierDivergence;
    // Lanes of a warp that went elsewhere, that returned; a warp that returned; two barriers.
    assert_eq!(
        fault("mov.u32 %d, 0; setp.lt.u32 %p, %t, 5; @%p bar.sync 0;", 32),
        kind
    );
    assert_eq!(
        fault(
            "mov.u32 %d, 0; setp.lt.u32 %p, %t, 5; @%p ret; bar.sync 0;",
            32
        ),
        kind
    );
    assert_eq!(
        fault(
            "mov.u32 %d, 0; setp.lt.u32 %p, %t, 32; @%p ret; bar.sync 0;",
            64
        ),
        kind
    );
    let code = "
        mov.u32 %d, 0;
        setp.lt.u32 %p, %t, 32;
        @%p bra OTHER;
        bar.sync 0;
        bra JOIN;
    OTHER:
        bar.sync 0;
    JOIN:";
    assert_eq!(fault(code, 64), kind);
}

#[test]
fn a_loop_without_an_end_is_a_fault() {
    let body = kernel("", "mov.u32 %d, 0; LOOP: add.u32 %d, %d, 1; bra LOOP;");
    let options = Options {
        max_steps: 10_000,
        ..Options::default()
    };
    assert_eq!(
        run_out(&body, 1, 32, 32, options).unwrap_err().kind,
        FaultKind::Runaway
    );
}

#[test]
fn order_of_blocks_does_not_change_a_correct_kernel() {
    let body = "
        .visible .entry k(.param .u64 in, .param .u64 out) .maxntid 128
        {
            .shared .align 4 .b32 sums[4];
            .reg .pred %p;
            .reg .b32 %t, %x, %y, %lane, %w, %s;
            .reg .b64 %in, %out;
            ld.param.u64 %in, [in];
            ld.param.u64 %out, [out];
            mov.u32 %t, %tid.x;
            mad.lo.u32 %x, %ctaid.x, 128, %t;
            mad.wide.u32 %in, %x, 4, %in;
            ld.global.nc.u32 %s, [%in];
            // Sum of a warp, then of the block.
            shfl.sync.bfly.b32 %y, %s, 16, 31, -1;
            add.u32 %s, %s, %y;
            shfl.sync.bfly.b32 %y, %s, 8, 31, -1;
            add.u32 %s, %s, %y;
            shfl.sync.bfly.b32 %y, %s, 4, 31, -1;
            add.u32 %s, %s, %y;
            shfl.sync.bfly.b32 %y, %s, 2, 31, -1;
            add.u32 %s, %s, %y;
            shfl.sync.bfly.b32 %y, %s, 1, 31, -1;
            add.u32 %s, %s, %y;
            mov.u32 %lane, %laneid;
            setp.eq.u32 %p, %lane, 0;
            shr.u32 %w, %t, 5;
            shl.b32 %w, %w, 2;
            add.u32 %w, %w, sums;
            @%p st.shared.u32 [%w], %s;
            bar.sync 0;
            setp.eq.u32 %p, %t, 0;
            @!%p ret;
            ld.shared.u32 %s, [sums];
            ld.shared.u32 %x, [sums+4];
            add.u32 %s, %s, %x;
            ld.shared.u32 %x, [sums+8];
            add.u32 %s, %s, %x;
            ld.shared.u32 %x, [sums+12];
            add.u32 %s, %s, %x;
            mad.wide.u32 %out, %ctaid.x, 4, %out;
            st.global.u32 [%out], %s;
            ret;
        }";
    let values: Vec<u32> = (0..128 * 40).map(|k| k * k + 7).collect();
    let want: Vec<u32> = values.chunks(128).map(|c| c.iter().sum()).collect();
    for order in [
        Order::InOrder,
        Order::Reversed,
        Order::Shuffled(8),
        Order::Shuffled(9),
    ] {
        let mut device = Device::new(Options {
            order,
            ..Options::default()
        });
        let input = upload_u32(&mut device, &values);
        let out = device.alloc(4 * 40);
        let counters = run_on(&mut device, body, 40, 128, &[arg64(input), arg64(out)]).unwrap();
        assert_eq!(download_u32(&device, out, 40), want);
        assert_eq!((counters.barriers, counters.shuffles), (160, 5 * 128 * 40));
        assert_eq!(counters.load_sectors, 40 * 128 * 4 / 32);
    }
}
