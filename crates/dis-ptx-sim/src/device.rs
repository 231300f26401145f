//! Memory and launches.

use std::collections::HashMap;

use crate::cost::Cost;
use crate::exec::{Job, Shape, Tally};
use crate::isa::{Op, Space};
use crate::memory::{Memory, Region};
use crate::{
    Counters, Coverage, Entry, Fault, FaultKind, LineCoverage, MemoryError, Module, Options, Order,
};

/// Size of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// Blocks along x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y, z.
    pub block: [u32; 3],
    /// Bytes of `.extern .shared` memory.
    pub dynamic_shared: u32,
}

/// Shared memory a block may have on every supported device (99 KiB on sm_86, sm_89 and sm_120).
const MAX_SHARED: usize = 99 * 1024;
/// Shared variables of fixed size.
const MAX_STATIC_SHARED: usize = 48 * 1024;
/// Segments at which the stamps in memory are forgotten and counting starts anew.
const MAX_SEGMENT: u32 = 1 << 31;

/// A simulated device.
#[derive(Debug)]
pub struct Device {
    options: Options,
    memory: Memory,
    segment: u32,
    totals: Counters,
    /// Executions by warps, by text, entry and instruction.
    hits: HashMap<(u64, usize), Vec<u64>>,
}

impl Device {
    /// A device without allocations.
    pub fn new(options: Options) -> Self {
        let memory = Memory::new();
        Self {
            options,
            memory,
            segment: 0,
            totals: Counters::default(),
            hits: HashMap::new(),
        }
    }

    /// How the device behaves.
    pub fn options(&self) -> Options {
        self.options
    }

    /// Changes how the device behaves from now on.
    pub fn set_options(&mut self, options: Options) {
        self.options = options;
    }

    /// Allocates; the contents count as never written. The address is a multiple of 256.
    pub fn alloc(&mut self, bytes: usize) -> u64 {
        self.memory.alloc(bytes)
    }

    /// Frees an allocation; its addresses are never used again.
    ///
    /// # Errors
    /// If `ptr` is not the start of an allocation in use.
    pub fn free(&mut self, ptr: u64) -> Result<(), MemoryError> {
        self.memory.free(ptr)
    }

    /// Bytes in allocations that were not freed.
    pub fn live_bytes(&self) -> usize {
        self.memory.live_bytes()
    }

    /// Declares that a range counts as never written from now on.
    ///
    /// # Errors
    /// If the range is not inside an allocation in use.
    pub fn mark_uninitialised(&mut self, ptr: u64, bytes: usize) -> Result<(), MemoryError> {
        let (region, at) = self.memory.range(ptr, bytes)?;
        region.forget(at, bytes);
        Ok(())
    }

    /// Declares that from now on only the first `bytes` bytes of an allocation are in use, which
    /// count as never written; accesses beyond them are faults. What a memory pool hands out.
    ///
    /// # Errors
    /// If `ptr` is not the start of an allocation of at least so many bytes.
    pub fn lend(&mut self, ptr: u64, bytes: usize) -> Result<(), MemoryError> {
        self.memory.lend(ptr, bytes)
    }

    /// Copies from the host.
    ///
    /// # Errors
    /// If the range is not inside an allocation in use.
    pub fn write(&mut self, ptr: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        let (region, at) = self.memory.range(ptr, bytes.len())?;
        region.data[at..at + bytes.len()].copy_from_slice(bytes);
        region.note_written(at, bytes.len());
        Ok(())
    }

    /// Copies to the host; with checks, every byte must have been written.
    ///
    /// # Errors
    /// If the range is not inside an allocation in use, or holds what nothing wrote.
    pub fn read(&self, ptr: u64, bytes: &mut [u8]) -> Result<(), MemoryError> {
        let (region, at) = self.memory.view(ptr, bytes.len())?;
        if self.options.checks
            && let Some(byte) = region.first_unwritten(at, bytes.len())
        {
            let offset = byte - at;
            return Err(MemoryError::Uninitialised {
                ptr,
                bytes: bytes.len(),
                offset,
            });
        }
        bytes.copy_from_slice(&region.data[at..at + bytes.len()]);
        Ok(())
    }

    /// Copies to the host without asking whether anything was written; what was not is zero, or
    /// what was there before it was marked uninitialised.
    ///
    /// # Errors
    /// If the range is not inside an allocation in use.
    pub fn read_lossy(&self, ptr: u64, bytes: &mut [u8]) -> Result<(), MemoryError> {
        let (region, at) = self.memory.view(ptr, bytes.len())?;
        bytes.copy_from_slice(&region.data[at..at + bytes.len()]);
        Ok(())
    }

    /// Sets each byte of a range.
    ///
    /// # Errors
    /// If the range is not inside an allocation in use.
    pub fn fill(&mut self, ptr: u64, value: u8, bytes: usize) -> Result<(), MemoryError> {
        let (region, at) = self.memory.range(ptr, bytes)?;
        region.data[at..at + bytes].fill(value);
        region.note_written(at, bytes);
        Ok(())
    }

    /// Copies within the device; what was never written stays so.
    ///
    /// # Errors
    /// If a range is not inside an allocation in use.
    pub fn copy(&mut self, to: u64, from: u64, bytes: usize) -> Result<(), MemoryError> {
        let (source, at) = self.memory.view(from, bytes)?;
        let data = source.data[at..at + bytes].to_vec();
        let unwritten: Vec<usize> = (0..bytes)
            .filter(|b| source.first_unwritten(at + b, 1).is_some())
            .collect();
        let (target, at) = self.memory.range(to, bytes)?;
        target.data[at..at + bytes].copy_from_slice(&data);
        target.note_written(at, bytes);
        unwritten.into_iter().for_each(|b| target.forget(at + b, 1));
        Ok(())
    }

    /// Runs an entry to its end. `args` has the bytes of each parameter, little-endian.
    ///
    /// # Errors
    /// The first mistake that the kernel makes, or what the launch itself has wrong.
    pub fn launch(
        &mut self,
        module: &Module,
        entry: &str,
        launch: Launch,
        args: &[impl AsRef<[u8]>],
    ) -> Result<Counters, Fault> {
        let refuse = |line, message| Fault {
            kind: FaultKind::Launch,
            file: module.file.clone(),
            line,
            instruction: entry.into(),
            block: [0; 3],
            thread: [0; 3],
            message,
        };
        let Some(index) = module.entries().position(|e| e.name == entry) else {
            return Err(refuse(1, format!("no entry `{entry}`")));
        };
        let Some(entry) = module.entry(entry) else {
            return Err(refuse(1, format!("no entry `{entry}`")));
        };
        check_launch(entry, &launch).map_err(|m| refuse(entry.line, m))?;
        let params = pack_args(entry, args).map_err(|m| refuse(entry.line, m))?;
        self.execute(module, index, entry, &launch, &params)
    }

    fn execute(
        &mut self,
        module: &Module,
        index: usize,
        entry: &Entry,
        launch: &Launch,
        params: &[u8],
    ) -> Result<Counters, Fault> {
        if self.segment > MAX_SEGMENT {
            self.memory.reset_cells();
            self.segment = 0;
        }
        self.segment += 1;
        let code = &entry.code;
        let shape = Shape {
            grid: launch.grid,
            block: launch.block,
        };
        let count = code.insts.len();
        let shared = code.shared.iter().map(|v| {
            let size = v.size.unwrap_or(launch.dynamic_shared);
            Region::new(u64::from(v.base), size as usize)
        });
        let mut job = Job {
            code,
            params,
            memory: &mut self.memory,
            shared: shared.collect(),
            shape,
            checks: self.options.checks,
            approx: self.options.approx,
            order: self.options.order,
            max_steps: self.options.max_steps,
            tally: Tally {
                warps: vec![0; count],
                lanes: vec![0; count],
                ..Tally::default()
            },
            launch_segment: self.segment,
            block_segment: self.segment,
            segment: self.segment,
        };
        let mut warps = job.warps();
        let mut outcome = Ok(());
        for number in block_order(self.options.order, shape.blocks()) {
            if let Err(crash) = job.run_block(&mut warps, number) {
                let inst = &code.insts[crash.pc];
                outcome = Err(Fault {
                    kind: crash.trap.kind,
                    file: module.file.clone(),
                    line: inst.line,
                    instruction: inst.text.to_string(),
                    block: shape.block(number),
                    thread: shape.thread(crash.thread),
                    message: crash.trap.message,
                });
                break;
            }
        }
        let tally = std::mem::take(&mut job.tally);
        self.segment = job.segment;
        let hits = self
            .hits
            .entry((module.id, index))
            .or_insert_with(|| vec![0; count]);
        for (h, t) in hits.iter_mut().zip(&tally.warps) {
            *h += t;
        }
        outcome?;
        let mut counters = sum_up(entry, &tally);
        counters.blocks = shape.blocks();
        counters.threads = shape.blocks() * u64::from(shape.threads());
        self.totals += counters;
        Ok(counters)
    }

    /// Sum of the counters of all launches so far.
    pub fn totals(&self) -> Counters {
        self.totals
    }

    /// Which lines of a text this device executed.
    pub fn coverage(&self, module: &Module) -> Coverage {
        let mut lines: Vec<LineCoverage> = Vec::new();
        for (index, entry) in module.entries().enumerate() {
            let hits = self.hits.get(&(module.id, index));
            for (k, inst) in entry.code.insts.iter().enumerate() {
                let hits = hits.map_or(0, |h| h[k]);
                if let Some(last) = lines.last_mut()
                    && last.line == inst.line
                {
                    last.hits = last.hits.min(hits);
                    continue;
                }
                let (line, instruction) = (inst.line, inst.text.to_string());
                lines.push(LineCoverage {
                    line,
                    hits,
                    instruction,
                    entry: entry.name.clone(),
                });
            }
        }
        Coverage {
            file: module.file.clone(),
            lines,
        }
    }
}

fn check_launch(entry: &Entry, launch: &Launch) -> Result<(), String> {
    let Launch {
        grid,
        block,
        dynamic_shared,
    } = *launch;
    if grid.contains(&0) || block.contains(&0) {
        return Err(format!("an empty grid {grid:?} or block {block:?}"));
    }
    if grid[0] > i32::MAX as u32 || grid[1] > 65_535 || grid[2] > 65_535 {
        return Err(format!("a grid {grid:?} beyond 2147483647 x 65535 x 65535"));
    }
    let threads = block
        .iter()
        .fold(1u64, |n, &b| n.saturating_mul(u64::from(b)));
    if threads > 1024 || block[2] > 64 {
        return Err(format!(
            "a block {block:?} beyond 1024 threads or 64 along z"
        ));
    }
    if let Some(max) = entry.maxntid
        && threads > max.iter().map(|&n| u64::from(n)).product()
    {
        return Err(format!("a block {block:?} beyond `.maxntid` {max:?}"));
    }
    if let Some(required) = entry.reqntid
        && required != block
    {
        return Err(format!(
            "a block {block:?} other than `.reqntid` {required:?}"
        ));
    }
    if dynamic_shared > 0 && !entry.dynamic_shared {
        return Err("shared memory for an entry that has no `.extern .shared` variable".into());
    }
    let shared = entry.static_shared + dynamic_shared as usize;
    if entry.static_shared > MAX_STATIC_SHARED || shared > MAX_SHARED {
        return Err(format!(
            "{shared} bytes of shared memory, more than every device has"
        ));
    }
    Ok(())
}

fn pack_args(entry: &Entry, args: &[impl AsRef<[u8]>]) -> Result<Vec<u8>, String> {
    let expected = entry.params.len();
    if args.len() != expected {
        return Err(format!(
            "{} arguments for {expected} parameters",
            args.len()
        ));
    }
    let mut bytes = vec![0; entry.code.param_bytes];
    for ((param, &offset), arg) in entry.params.iter().zip(&entry.code.param_offsets).zip(args) {
        let arg = arg.as_ref();
        if arg.len() != param.size {
            let (name, size) = (&param.name, param.size);
            return Err(format!(
                "{} bytes for `{name}`, which has {size}",
                arg.len()
            ));
        }
        bytes[offset..offset + arg.len()].copy_from_slice(arg);
    }
    Ok(bytes)
}

fn block_order(order: Order, blocks: u64) -> Vec<u64> {
    let mut numbers: Vec<u64> = (0..blocks).collect();
    match order {
        Order::InOrder => {}
        Order::Reversed => numbers.reverse(),
        Order::Shuffled(seed) => {
            numbers.sort_by_key(|&n| crate::approx::mix(seed ^ crate::approx::mix(n)));
        }
    }
    numbers
}

/// Counters from what each instruction did.
fn sum_up(entry: &Entry, tally: &Tally) -> Counters {
    let mut c = Counters {
        launches: 1,
        load_sectors: tally.load_sectors,
        store_sectors: tally.store_sectors,
        sectors: tally.load_sectors + tally.store_sectors,
        bank_conflicts: tally.bank_conflicts,
        divergent_branches: tally.divergent,
        ..Counters::default()
    };
    for (inst, (&warps, &lanes)) in entry
        .code
        .insts
        .iter()
        .zip(tally.warps.iter().zip(&tally.lanes))
    {
        c.warp_instructions += warps;
        c.instructions += lanes;
        match inst.op {
            Op::Ld { space, ty, d, .. } => {
                let bytes = lanes * (ty.bytes() * d.len as usize) as u64;
                match space {
                    Space::Global { .. } => c.global_load_bytes += bytes,
                    Space::Shared => c.shared_load_bytes += bytes,
                }
            }
            Op::St { space, ty, s, .. } => {
                let bytes = lanes * (ty.bytes() * s.len as usize) as u64;
                match space {
                    Space::Global { .. } => c.global_store_bytes += bytes,
                    Space::Shared => c.shared_store_bytes += bytes,
                }
            }
            Op::Bar => c.barriers += warps,
            Op::Shfl { .. } => c.shuffles += lanes,
            Op::Bra { .. } => c.branches += warps,
            ref op => match op.cost() {
                Cost::Other => {}
                Cost::Special => c.special += lanes,
                Cost::Fma => c.fma += lanes,
                Cost::Float => c.float_ops += lanes,
                Cost::Slow => c.float_slow += lanes,
            },
        }
    }
    c
}
