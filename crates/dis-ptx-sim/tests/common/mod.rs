//! Shared by the tests: running small texts.

#![allow(dead_code)]

use dis_ptx_sim::{Counters, Device, Fault, Launch, Module, Options};

/// A text with its head.
pub fn module(body: &str) -> Module {
    let text = format!("// A test.\n.version 7.0\n.target sm_80\n.address_size 64\n{body}");
    match Module::parse("test.ptx", &text) {
        Ok(module) => module,
        Err(error) => panic!("{error}"),
    }
}

pub fn launch(grid: u32, block: u32) -> Launch {
    Launch {
        grid: [grid, 1, 1],
        block: [block, 1, 1],
        dynamic_shared: 0,
    }
}

pub fn bytes_of<T: Copy, const N: usize>(values: &[T], f: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|&v| f(v)).collect()
}

pub fn upload_u32(device: &mut Device, values: &[u32]) -> u64 {
    let ptr = device.alloc(4 * values.len());
    device
        .write(ptr, &bytes_of(values, u32::to_le_bytes))
        .unwrap();
    ptr
}

pub fn upload_f32(device: &mut Device, values: &[f32]) -> u64 {
    let ptr = device.alloc(4 * values.len());
    device
        .write(ptr, &bytes_of(values, f32::to_le_bytes))
        .unwrap();
    ptr
}

pub fn download_u32(device: &Device, ptr: u64, len: usize) -> Vec<u32> {
    let mut bytes = vec![0; 4 * len];
    device.read(ptr, &mut bytes).unwrap();
    bytes
        .chunks(4)
        .map(|c| u32::from_le_bytes(c.try_into().unwrap()))
        .collect()
}

pub fn download_u64(device: &Device, ptr: u64, len: usize) -> Vec<u64> {
    let mut bytes = vec![0; 8 * len];
    device.read(ptr, &mut bytes).unwrap();
    bytes
        .chunks(8)
        .map(|c| u64::from_le_bytes(c.try_into().unwrap()))
        .collect()
}

pub fn download_f32(device: &Device, ptr: u64, len: usize) -> Vec<f32> {
    download_u32(device, ptr, len)
        .into_iter()
        .map(f32::from_bits)
        .collect()
}

pub fn arg64(value: u64) -> Vec<u8> {
    value.to_le_bytes().to_vec()
}

pub fn arg32(value: u32) -> Vec<u8> {
    value.to_le_bytes().to_vec()
}

/// Runs an entry with one pointer to `words` words that are never written, and `n`; returns the words.
pub fn run_out(
    body: &str,
    grid: u32,
    block: u32,
    words: usize,
    options: Options,
) -> Result<Vec<u32>, Fault> {
    let mut device = Device::new(options);
    let out = device.alloc(4 * words);
    run_on(&mut device, body, grid, block, &[arg64(out)])?;
    Ok(download_u32(&device, out, words))
}

pub fn run_on(
    device: &mut Device,
    body: &str,
    grid: u32,
    block: u32,
    args: &[Vec<u8>],
) -> Result<Counters, Fault> {
    let module = module(body);
    let name = module
        .entries()
        .next()
        .map(|e| e.name.clone())
        .unwrap_or_default();
    device.launch(&module, &name, launch(grid, block), args)
}

/// Runs `code` once for each triple of words, which are %a, %b, %c; returns %d. There are
/// predicates %p, %q and a 64-bit register %w.
pub fn words(code: &str, inputs: &[[u32; 3]]) -> Vec<u32> {
    words_with(code, inputs, Options::default())
}

pub fn words_with(code: &str, inputs: &[[u32; 3]], options: Options) -> Vec<u32> {
    let body = format!(
        ".visible .entry k(.param .u64 in, .param .u64 out, .param .u32 n) .maxntid 128
        {{
            .reg .pred %p, %q, %end;
            .reg .b32 %a, %b, %c, %d, %i, %j, %n;
            .reg .b64 %in, %out, %w;
            ld.param.u64 %in, [in];
            ld.param.u64 %out, [out];
            ld.param.u32 %n, [n];
            mov.u32 %i, %ctaid.x;
            mov.u32 %j, %tid.x;
            mad.lo.u32 %i, %i, 128, %j;
            setp.ge.u32 %end, %i, %n;
            @%end bra DONE;
            mad.wide.u32 %in, %i, 12, %in;
            mad.wide.u32 %out, %i, 4, %out;
            ld.global.u32 %a, [%in];
            ld.global.u32 %b, [%in+4];
            ld.global.u32 %c, [%in+8];
            {code}
            st.global.u32 [%out], %d;
        DONE:
            ret;
        }}"
    );
    let mut device = Device::new(options);
    let flat: Vec<u32> = inputs.iter().flatten().copied().collect();
    let input = upload_u32(&mut device, &flat);
    let out = device.alloc(4 * inputs.len());
    let grid = inputs.len().div_ceil(128) as u32;
    let args = [arg64(input), arg64(out), arg32(inputs.len() as u32)];
    if let Err(fault) = run_on(&mut device, &body, grid, 128, &args) {
        panic!("{code}: {fault}");
    }
    download_u32(&device, out, inputs.len())
}

/// As [`words`] with 64-bit %a, %b, %c and %d; %s is the low half of %b, %r a 32-bit register.
pub fn wides(code: &str, inputs: &[[u64; 3]]) -> Vec<u64> {
    let body = format!(
        ".visible .entry k(.param .u64 in, .param .u64 out, .param .u32 n) .maxntid 128
        {{
            .reg .pred %p, %q, %end;
            .reg .b32 %i, %j, %n, %s, %r;
            .reg .b64 %in, %out, %a, %b, %c, %d;
            ld.param.u64 %in, [in];
            ld.param.u64 %out, [out];
            ld.param.u32 %n, [n];
            mov.u32 %i, %ctaid.x;
            mov.u32 %j, %tid.x;
            mad.lo.u32 %i, %i, 128, %j;
            setp.ge.u32 %end, %i, %n;
            @%end bra DONE;
            mad.wide.u32 %in, %i, 24, %in;
            mad.wide.u32 %out, %i, 8, %out;
            ld.global.u64 %a, [%in];
            ld.global.u64 %b, [%in+8];
            ld.global.u64 %c, [%in+16];
            ld.global.u32 %s, [%in+8];
            {code}
            st.global.u64 [%out], %d;
        DONE:
            ret;
        }}"
    );
    let mut device = Device::new(Options::default());
    let flat: Vec<u64> = inputs.iter().flatten().copied().collect();
    let input = device.alloc(8 * flat.len());
    device
        .write(input, &bytes_of(&flat, u64::to_le_bytes))
        .unwrap();
    let out = device.alloc(8 * inputs.len());
    let grid = inputs.len().div_ceil(128) as u32;
    let args = [arg64(input), arg64(out), arg32(inputs.len() as u32)];
    if let Err(fault) = run_on(&mut device, &body, grid, 128, &args) {
        panic!("{code}: {fault}");
    }
    download_u64(&device, out, inputs.len())
}

/// All triples of the values.
pub fn triples<T: Copy>(values: &[T]) -> Vec<[T; 3]> {
    let mut out = Vec::new();
    for &a in values {
        for &b in values {
            for &c in values {
                out.push([a, b, c]);
            }
        }
    }
    out
}

/// All pairs of the values, the third being the first of them.
pub fn pairs<T: Copy>(values: &[T]) -> Vec<[T; 3]> {
    let mut out = Vec::new();
    for &a in values {
        for &b in values {
            out.push([a, b, values[0]]);
        }
    }
    out
}

/// Integers at which something changes.
pub const INTS: [u32; 14] = [
    0,
    1,
    2,
    3,
    5,
    31,
    32,
    33,
    0x7fff,
    0x1_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xdead_beef,
    0xffff_ffff,
];

/// Floats at which something changes, as bits.
pub const FLOATS: [u32; 20] = [
    0,
    0x8000_0000,
    0x3f80_0000, // 1
    0xbf80_0000,
    0x4049_0fdb, // pi
    0xc049_0fdb,
    0x0000_0001, // the least subnormal
    0x8000_0001,
    0x007f_ffff, // the largest
    0x0080_0000, // the least normal
    0x3eaa_aaab, // a third
    0x7f7f_ffff, // the largest
    0xff7f_ffff,
    0x7f80_0000, // infinity
    0xff80_0000,
    0x7fc0_0000, // NaN
    0xffff_1234,
    0x3fc0_0000, // 1.5
    0x4020_0000, // 2.5
    0x4f80_0000, // 2^32
];
