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
