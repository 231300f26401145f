//! Two warps exchange numbers in shared memory, first without the barrier that they need: the simulator names the
//! race, with its line and thread. With the barrier every sum is right.

use std::error::Error;

use dis_ptx_sim::{Device, FaultKind, Launch, Module, Options};

/// Each of 64 threads stores its index, and adds what its neighbour in the first warp stored; `BARRIER` stands
/// between.
const TEXT: &str = ".version 7.0
.target sm_80
.address_size 64
.visible .entry exchange(.param .u64 out) {
    .shared .align 4 .b8 row[256];
    .reg .b32 %t, %a, %v, %base;
    .reg .b64 %out;
    mov.u32 %t, %tid.x;
    mov.u32 %base, row;
    mad.lo.u32 %a, %t, 4, %base;
    st.shared.u32 [%a], %t;
    BARRIER
    and.b32 %v, %t, 31;
    mad.lo.u32 %a, %v, 4, %base;
    ld.shared.u32 %v, [%a];
    add.u32 %v, %v, %t;
    ld.param.u64 %out, [out];
    mad.wide.u32 %out, %t, 4, %out;
    st.global.u32 [%out], %v;
    ret;
}";

fn main() -> Result<(), Box<dyn Error>> {
    let launch = Launch {
        grid: [1, 1, 1],
        block: [64, 1, 1],
        dynamic_shared: 0,
    };
    let mut device = Device::new(Options::default());
    let out = device.alloc(4 * 64);
    let args = [out.to_le_bytes().to_vec()];

    let module = Module::parse("exchange.ptx", &TEXT.replace("BARRIER", ""))?;
    match device.launch(&module, "exchange", launch, &args) {
        Ok(_) => return Err("the race was not found".into()),
        Err(fault) => {
            println!("without a barrier: {fault}");
            assert_eq!(fault.kind, FaultKind::SharedRace);
        }
    }

    let module = Module::parse("exchange.ptx", &TEXT.replace("BARRIER", "bar.sync 0;"))?;
    let counters = device.launch(&module, "exchange", launch, &args)?;
    let mut sums = [0; 4 * 64];
    device.read(out, &mut sums)?;
    for (t, word) in (0u32..).zip(sums.chunks(4)) {
        assert_eq!(word, (t + t % 32).to_le_bytes());
    }
    println!("with one: every sum is right; {counters:?}");
    Ok(())
}
