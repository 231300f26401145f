//! Loads and stores of a warp: addresses, checks, values, cost.

use super::block::Job;
use super::warp::Warp;
use super::{FULL, Mask, Trap, lanes};
use crate::FaultKind;
use crate::isa::{Addr, Base, File, Sort, Space, Ty, Vector};
use crate::memory::{Memory, Miss, Region};
use crate::shadow::{Conflict, Who};

/// Addresses of the lanes, and how they lie.
struct Pattern {
    addresses: [u64; 32],
    active: Mask,
    /// Bytes of one lane.
    bytes: usize,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// All 32 lanes, one behind the other.
    Contiguous,
    /// All active lanes the same.
    Uniform,
    Any,
}

impl Pattern {
    fn new(warp: &Warp, addr: &Addr, active: Mask, bytes: usize) -> Self {
        let mut addresses = [addr.offset as u64; 32];
        match addr.base {
            Base::Absolute => {}
            Base::Wide(slot) => {
                for (a, b) in addresses.iter_mut().zip(&warp.wides[slot as usize].0) {
                    *a = a.wrapping_add(*b);
                }
            }
            // Addresses of shared memory have 32 bits and wrap there.
            Base::Word(slot) => {
                for (a, b) in addresses.iter_mut().zip(&warp.words[slot as usize].0) {
                    *a = u64::from((*a as u32).wrapping_add(*b));
                }
            }
        }
        let first = addresses[active.trailing_zeros() as usize];
        let mut kind = Kind::Any;
        if active == FULL {
            let step = bytes as u64;
            let mut off = 0;
            for (lane, a) in (0u64..).zip(&addresses) {
                off |= a ^ first.wrapping_add(lane.wrapping_mul(step));
            }
            if off == 0 {
                kind = Kind::Contiguous;
            } else if addresses.iter().fold(0, |off, a| off | (a ^ first)) == 0 {
                kind = Kind::Uniform;
            }
        } else if lanes(active).all(|l| addresses[l] == first) {
            kind = Kind::Uniform;
        }
        Self {
            addresses,
            active,
            bytes,
            kind,
        }
    }

    fn first_lane(&self) -> usize {
        self.active.trailing_zeros() as usize
    }

    /// Refuses addresses that are no multiple of the size of the access.
    fn check_alignment(&self) -> Result<(), Box<Trap>> {
        let low = self.bytes as u64 - 1;
        match lanes(self.active).find(|&l| self.addresses[l] & low != 0) {
            None => Ok(()),
            Some(lane) => {
                let (address, bytes) = (self.addresses[lane], self.bytes);
                let message = format!("address {address:#x} of a {bytes}-byte access");
                Err(Trap::boxed(FaultKind::Misaligned, lane as u32, message))
            }
        }
    }

    /// Sectors of 32 bytes that are touched.
    fn sectors(&self) -> u64 {
        let first = self.addresses[self.first_lane()];
        match self.kind {
            Kind::Uniform => 1,
            Kind::Contiguous => {
                let last = first + 32 * self.bytes as u64 - 1;
                (last >> 5) - (first >> 5) + 1
            }
            Kind::Any => {
                let (mut count, mut last, mut sorted) = (0, u64::MAX, true);
                for lane in lanes(self.active) {
                    let sector = self.addresses[lane] >> 5;
                    sorted &= last == u64::MAX || sector >= last;
                    count += u64::from(sector != last);
                    last = sector;
                }
                if sorted {
                    return count;
                }
                let mut all: Vec<u64> =
                    lanes(self.active).map(|l| self.addresses[l] >> 5).collect();
                all.sort_unstable();
                all.dedup();
                all.len() as u64
            }
        }
    }

    /// Passes beyond the first that shared memory needs: 32 banks of four bytes serve 128 bytes
    /// of lanes at once, and each bank one word.
    fn bank_conflicts(&self) -> u64 {
        if self.kind != Kind::Any {
            return 0;
        }
        let group = (128 / self.bytes.max(4)).min(32);
        let mut extra = 0;
        for start in (0..32).step_by(group) {
            let mut words: Vec<u64> = (start..start + group)
                .filter(|&l| self.active >> l & 1 != 0)
                .flat_map(|l| (0..self.bytes.div_ceil(4) as u64).map(move |k| (l, k)))
                .map(|(l, k)| self.addresses[l] / 4 + k)
                .collect();
            words.sort_unstable();
            words.dedup();
            let mut banks = [0u64; 32];
            for w in words {
                banks[(w % 32) as usize] += 1;
            }
            extra += banks.iter().max().map_or(0, |m| m.saturating_sub(1));
        }
        extra
    }
}

fn miss(memory: &Memory, address: u64, bytes: usize, why: Miss, lane: usize) -> Box<Trap> {
    let near = match memory.nearest(address) {
        None => "there is no allocation".into(),
        Some(r) => {
            let (base, len) = (r.base, r.extent());
            let offset = address.wrapping_sub(base) as i64;
            format!("offset {offset} of the allocation of {len} bytes at {base:#x}")
        }
    };
    let kind = match why {
        Miss::Outside => FaultKind::OutOfBounds,
        Miss::Freed => FaultKind::UseAfterFree,
    };
    Trap::boxed(
        kind,
        lane as u32,
        format!("{bytes} bytes at {address:#x}: {near}"),
    )
}

fn find_shared(
    shared: &mut [Region],
    address: u64,
    bytes: usize,
    lane: usize,
) -> Result<&mut Region, Box<Trap>> {
    let inside =
        |r: &Region| address >= r.base && address - r.base + bytes as u64 <= r.extent() as u64;
    if let Some(index) = shared.iter().position(inside) {
        return Ok(&mut shared[index]);
    }
    let near = shared
        .iter()
        .filter(|r| r.base <= address)
        .max_by_key(|r| r.base);
    let near = near.map_or("before every shared variable".into(), |r| {
        format!(
            "offset {} of a shared variable of {} bytes",
            address - r.base,
            r.extent()
        )
    });
    let message = format!("{bytes} bytes at {address:#x} of shared memory: {near}");
    Err(Trap::boxed(FaultKind::OutOfBounds, lane as u32, message))
}

fn race(space: Space, conflict: Conflict, address: u64, lane: usize) -> Box<Trap> {
    let kind = match (conflict, space) {
        (Conflict::NonCoherent, _) => FaultKind::NonCoherentRead,
        (_, Space::Shared) => FaultKind::SharedRace,
        _ => FaultKind::GlobalRace,
    };
    let done = |wrote| if wrote { "wrote" } else { "read" };
    let message = match conflict {
        Conflict::NonCoherent => {
            format!("the word at {address:#x} is read through `.nc` and written in one launch")
        }
        Conflict::Block { wrote } => {
            format!(
                "another block of the launch {} the word at {address:#x}",
                done(wrote)
            )
        }
        Conflict::Thread {
            other: Some(other),
            wrote,
        } => {
            let done = done(wrote);
            format!(
                "thread {other} of the block {done} the word at {address:#x}, no barrier between"
            )
        }
        Conflict::Thread { other: None, wrote } => {
            let done = done(wrote);
            format!(
                "other threads of the block {done} the word at {address:#x}, no barrier between"
            )
        }
    };
    Trap::boxed(kind, lane as u32, message)
}

fn unwritten(region: &Region, at: usize, bytes: usize, lane: usize, space: Space) -> Box<Trap> {
    let offset = region.first_unwritten(at, bytes).unwrap_or(at);
    let what = if space == Space::Shared {
        "shared variable"
    } else {
        "allocation"
    };
    let len = region.extent();
    let message = format!("nothing wrote the byte at offset {offset} of the {what} of {len} bytes");
    Trap::boxed(FaultKind::UninitialisedMemory, lane as u32, message)
}

impl Job<'_> {
    /// The region of one address.
    fn region(
        &mut self,
        space: Space,
        address: u64,
        bytes: usize,
        lane: usize,
    ) -> Result<&mut Region, Box<Trap>> {
        if space == Space::Shared {
            return find_shared(&mut self.shared, address, bytes, lane);
        }
        match self.memory.find(address, bytes as u64) {
            Ok(_) => {}
            Err(why) => return Err(miss(self.memory, address, bytes, why, lane)),
        }
        match self.memory.find(address, bytes as u64) {
            Ok(region) => Ok(region),
            Err(_) => unreachable!("found above"),
        }
    }

    fn who(&self, warp: &Warp, space: Space) -> Who {
        let since = match space {
            Space::Shared => self.block_segment,
            Space::Global { .. } => self.launch_segment,
        };
        let nc = space == Space::Global { nc: true };
        Who::new(self.segment, since, self.block_segment, warp.warp_step, nc)
    }

    fn count(&mut self, space: Space, pattern: &Pattern, store: bool) {
        match space {
            Space::Shared => self.tally.bank_conflicts += pattern.bank_conflicts(),
            Space::Global { .. } if store => self.tally.store_sectors += pattern.sectors(),
            Space::Global { .. } => self.tally.load_sectors += pattern.sectors(),
        }
    }

    pub(crate) fn load(
        &mut self,
        warp: &mut Warp,
        space: Space,
        ty: Ty,
        d: &Vector,
        addr: &Addr,
        active: Mask,
    ) -> Result<(), Box<Trap>> {
        let (size, len) = (ty.bytes(), d.len as usize);
        let bytes = size * len;
        let pattern = Pattern::new(warp, addr, active, bytes);
        pattern.check_alignment()?;
        self.count(space, &pattern, false);
        let who = self.who(warp, space);
        let checks = self.checks;
        let first = pattern.first_lane();
        let start = pattern.addresses[first];
        if size == 4 && d.file == File::Word && pattern.kind == Kind::Contiguous {
            let region = self.region(space, start, bytes, first)?;
            let at = (start - region.base) as usize;
            if at + 32 * bytes <= region.extent() {
                return contiguous_load(region, at, warp, d, &who, space, checks);
            }
        } else if size == 4 && d.file == File::Word && pattern.kind == Kind::Uniform {
            let region = self.region(space, start, bytes, first)?;
            let at = (start - region.base) as usize;
            return uniform_load(region, at, warp, d, &who, space, checks, active);
        }
        for lane in lanes(active) {
            let address = pattern.addresses[lane];
            let thread = warp.thread(lane as u32);
            let region = self.region(space, address, bytes, lane)?;
            let at = (address - region.base) as usize;
            if checks {
                if !region.is_written(at, bytes) {
                    return Err(unwritten(region, at, bytes, lane, space));
                }
                region.prepare(size);
                let done = region.read(at, bytes, &who, thread);
                done.map_err(|c| race(space, c, address, lane))?;
            }
            for k in 0..len {
                let mut raw = [0; 8];
                raw[..size].copy_from_slice(&region.data[at + k * size..at + (k + 1) * size]);
                let mut value = u64::from_le_bytes(raw);
                if ty.sort() == Sort::Signed {
                    let up = 64 - 8 * size as u32;
                    value = ((value << up) as i64 >> up) as u64;
                }
                let slot = d.slots[k] as usize;
                match d.file {
                    File::Wide => warp.wides[slot].0[lane] = value,
                    _ => warp.words[slot].0[lane] = value as u32,
                }
            }
        }
        mark(warp, d, active);
        Ok(())
    }

    pub(crate) fn store(
        &mut self,
        warp: &Warp,
        space: Space,
        ty: Ty,
        s: &Vector,
        addr: &Addr,
        active: Mask,
    ) -> Result<(), Box<Trap>> {
        let (size, len) = (ty.bytes(), s.len as usize);
        let bytes = size * len;
        let pattern = Pattern::new(warp, addr, active, bytes);
        pattern.check_alignment()?;
        self.count(space, &pattern, true);
        let who = self.who(warp, space);
        let checks = self.checks;
        if size == 4 && s.file == File::Word && pattern.kind == Kind::Contiguous {
            let start = pattern.addresses[0];
            let region = self.region(space, start, bytes, 0)?;
            let at = (start - region.base) as usize;
            if at + 32 * bytes <= region.extent() {
                return contiguous_store(region, at, warp, s, &who, space, checks);
            }
        }
        for lane in lanes(active) {
            let address = pattern.addresses[lane];
            let thread = warp.thread(lane as u32);
            let region = self.region(space, address, bytes, lane)?;
            let at = (address - region.base) as usize;
            if checks {
                region.prepare(size);
                let done = region.write(at, bytes, &who, thread);
                done.map_err(|c| race(space, c, address, lane))?;
            }
            region.note_written(at, bytes);
            for k in 0..len {
                let slot = s.slots[k] as usize;
                let raw = match s.file {
                    File::Wide => warp.wides[slot].0[lane].to_le_bytes(),
                    _ => u64::from(warp.words[slot].0[lane]).to_le_bytes(),
                };
                region.data[at + k * size..at + (k + 1) * size].copy_from_slice(&raw[..size]);
            }
        }
        Ok(())
    }
}

/// Marks the registers of a load as written.
fn mark(warp: &mut Warp, d: &Vector, active: Mask) {
    for &slot in &d.slots[..d.len as usize] {
        match d.file {
            File::Wide => warp.wide_set[slot as usize] |= active,
            _ => warp.word_set[slot as usize] |= active,
        }
    }
}

fn word(data: &[u8], at: usize) -> u32 {
    let mut raw = [0; 4];
    raw.copy_from_slice(&data[at..at + 4]);
    u32::from_le_bytes(raw)
}

fn contiguous_load(
    region: &mut Region,
    at: usize,
    warp: &mut Warp,
    d: &Vector,
    who: &Who,
    space: Space,
    checks: bool,
) -> Result<(), Box<Trap>> {
    let len = d.len as usize;
    let bytes = 4 * len;
    if checks {
        if region.written[at / 4..at / 4 + 32 * len]
            .iter()
            .fold(15, |a, b| a & b)
            != 15
        {
            let lane = (0..32)
                .find(|l| !region.is_written(at + l * bytes, bytes))
                .unwrap_or(0);
            return Err(unwritten(region, at + lane * bytes, bytes, lane, space));
        }
        region.prepare(4);
        let base = region.base;
        let failed = |k: usize, c| {
            let lane = k / len;
            Err(race(space, c, base + (at + 4 * k) as u64, lane))
        };
        let first = warp.thread(0);
        if let Some(cells) = region.word_cells(at, 32 * len) {
            for (k, cell) in cells.iter_mut().enumerate() {
                if let Err(c) = who.read(cell, first + (k / len) as u32) {
                    return failed(k, c);
                }
            }
        } else {
            for k in 0..32 * len {
                if let Err(c) = region.read(at + 4 * k, 4, who, first + (k / len) as u32) {
                    return failed(k, c);
                }
            }
        }
    }
    let data = &region.data[at..at + 32 * bytes];
    for k in 0..len {
        let row = &mut warp.words[d.slots[k] as usize].0;
        for (lane, value) in row.iter_mut().enumerate() {
            *value = word(data, lane * bytes + 4 * k);
        }
    }
    mark(warp, d, FULL);
    Ok(())
}

fn uniform_load(
    region: &mut Region,
    at: usize,
    warp: &mut Warp,
    d: &Vector,
    who: &Who,
    space: Space,
    checks: bool,
    active: Mask,
) -> Result<(), Box<Trap>> {
    let len = d.len as usize;
    if checks {
        let lane = active.trailing_zeros() as usize;
        if !region.is_written(at, 4 * len) {
            return Err(unwritten(region, at, 4 * len, lane, space));
        }
        region.prepare(4);
        // A record of two lanes of a warp stands for any number of them.
        for lane in lanes(active).take(2) {
            let thread = warp.thread(lane as u32);
            let done = region.read(at, 4 * len, who, thread);
            done.map_err(|c| race(space, c, region.base + at as u64, lane))?;
        }
    }
    for k in 0..len {
        let value = word(&region.data, at + 4 * k);
        let row = &mut warp.words[d.slots[k] as usize].0;
        if active == FULL {
            *row = [value; 32];
        } else {
            lanes(active).for_each(|l| row[l] = value);
        }
    }
    mark(warp, d, active);
    Ok(())
}

fn contiguous_store(
    region: &mut Region,
    at: usize,
    warp: &Warp,
    s: &Vector,
    who: &Who,
    space: Space,
    checks: bool,
) -> Result<(), Box<Trap>> {
    let len = s.len as usize;
    let bytes = 4 * len;
    if checks {
        region.prepare(4);
        let base = region.base;
        let failed = |k: usize, c| Err(race(space, c, base + (at + 4 * k) as u64, k / len));
        let first = warp.thread(0);
        if let Some(cells) = region.word_cells(at, 32 * len) {
            for (k, cell) in cells.iter_mut().enumerate() {
                if let Err(c) = who.write(cell, first + (k / len) as u32) {
                    return failed(k, c);
                }
            }
        } else {
            for k in 0..32 * len {
                if let Err(c) = region.write(at + 4 * k, 4, who, first + (k / len) as u32) {
                    return failed(k, c);
                }
            }
        }
    }
    region.written[at / 4..at / 4 + 32 * len].fill(15);
    let data = &mut region.data[at..at + 32 * bytes];
    for k in 0..len {
        let row = &warp.words[s.slots[k] as usize].0;
        for (lane, value) in row.iter().enumerate() {
            data[lane * bytes + 4 * k..lane * bytes + 4 * k + 4]
                .copy_from_slice(&value.to_le_bytes());
        }
    }
    Ok(())
}
