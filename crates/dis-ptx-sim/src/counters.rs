//! What a launch cost.

use std::ops::AddAssign;

/// Counts of one launch, or of several added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Launches.
    pub launches: u64,
    /// Blocks.
    pub blocks: u64,
    /// Threads.
    pub threads: u64,
    /// Instructions times the threads that executed them.
    pub instructions: u64,
    /// Instructions as warps issue them, whatever the number of active lanes.
    pub warp_instructions: u64,
    /// Results of the special function unit (ex2, lg2, rcp, rsqrt, sqrt, sin, cos, tanh, `.approx`).
    pub special: u64,
    /// Fused multiply-adds of floats.
    pub fma: u64,
    /// Other additions, subtractions and multiplications of floats.
    pub float_ops: u64,
    /// Divisions and roots with IEEE rounding, each a subroutine of many instructions.
    pub float_slow: u64,
    /// Bytes that threads asked for from global memory, a broadcast counted once for each thread.
    pub global_load_bytes: u64,
    /// Bytes that threads wrote to global memory.
    pub global_store_bytes: u64,
    /// Sectors of 32 bytes that warps' global loads touched, each instruction by itself.
    pub load_sectors: u64,
    /// Sectors of 32 bytes that warps' global stores touched, each instruction by itself.
    pub store_sectors: u64,
    /// `load_sectors + store_sectors`.
    pub sectors: u64,
    /// Bytes that threads asked for from shared memory.
    pub shared_load_bytes: u64,
    /// Bytes that threads wrote to shared memory.
    pub shared_store_bytes: u64,
    /// Extra passes of shared memory accesses, beyond one for each group of lanes served at once.
    pub bank_conflicts: u64,
    /// Barriers, counted once for each warp.
    pub barriers: u64,
    /// Warp shuffles.
    pub shuffles: u64,
    /// Branches.
    pub branches: u64,
    /// Branches at which lanes of a warp parted.
    pub divergent_branches: u64,
}

impl AddAssign for Counters {
    fn add_assign(&mut self, o: Self) {
        self.launches += o.launches;
        self.blocks += o.blocks;
        self.threads += o.threads;
        self.instructions += o.instructions;
        self.warp_instructions += o.warp_instructions;
        self.special += o.special;
        self.fma += o.fma;
        self.float_ops += o.float_ops;
        self.float_slow += o.float_slow;
        self.global_load_bytes += o.global_load_bytes;
        self.global_store_bytes += o.global_store_bytes;
        self.load_sectors += o.load_sectors;
        self.store_sectors += o.store_sectors;
        self.sectors += o.sectors;
        self.shared_load_bytes += o.shared_load_bytes;
        self.shared_store_bytes += o.shared_store_bytes;
        self.bank_conflicts += o.bank_conflicts;
        self.barriers += o.barriers;
        self.shuffles += o.shuffles;
        self.branches += o.branches;
        self.divergent_branches += o.divergent_branches;
    }
}
