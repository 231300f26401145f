//! Matrix products of a simulated device on the host: in place of a library, which the simulator
//! has not, and much faster than the kernel of our own.

use dis_ptx_sim as ptx;

use super::fault;
use crate::driver::GemmCall;
use crate::error::Result;

/// A matrix on the host, read row by row.
fn read_rows(
    device: &ptx::Device,
    address: u64,
    rows: u32,
    columns: u32,
    stride: u32,
) -> Result<Vec<f32>> {
    let mut data = vec![0.0f32; rows as usize * columns as usize];
    if columns > 0 {
        for (r, row) in data.chunks_exact_mut(columns as usize).enumerate() {
            let place = address + 4 * r as u64 * u64::from(stride);
            device
                .read(place, bytemuck::cast_slice_mut(row))
                .map_err(fault)?;
        }
    }
    Ok(data)
}

/// As [`read_rows`], of bfloat16.
fn read_bf16_rows(
    device: &ptx::Device,
    address: u64,
    rows: u32,
    columns: u32,
    stride: u32,
) -> Result<Vec<f32>> {
    let mut data = Vec::with_capacity(rows as usize * columns as usize);
    let mut row = vec![0u16; columns as usize];
    for r in 0..u64::from(rows) {
        let place = address + 2 * r * u64::from(stride);
        device
            .read(place, bytemuck::cast_slice_mut(&mut row))
            .map_err(fault)?;
        data.extend(row.iter().map(|&x| f32::from_bits(u32::from(x) << 16)));
    }
    Ok(data)
}

/// The transpose of a `rows` x `columns` matrix.
fn transposed(data: &[f32], rows: u32, columns: u32) -> Vec<f32> {
    let (rows, columns) = (rows as usize, columns as usize);
    let mut out = vec![0.0; data.len()];
    for r in 0..rows {
        for c in 0..columns {
            out[c * rows + r] = data[r * columns + c];
        }
    }
    out
}

/// The product, from and to device memory.
pub(super) fn host_gemm(device: &mut ptx::Device, call: &GemmCall) -> Result<()> {
    let GemmCall { m, n, k, .. } = *call;
    let read = if call.bf16 { read_bf16_rows } else { read_rows };
    let a = if call.transpose_a {
        transposed(&read(device, call.a, k, m, call.lda)?, k, m)
    } else {
        read(device, call.a, m, k, call.lda)?
    };
    let b = if call.transpose_b {
        transposed(&read(device, call.b, n, k, call.ldb)?, n, k)
    } else {
        read(device, call.b, k, n, call.ldb)?
    };
    let old = if call.beta == 0.0 {
        None
    } else {
        Some(read_rows(device, call.c, m, n, call.ldc)?)
    };
    let (n, k) = (n as usize, k as usize);
    let mut row = vec![0.0f32; n];
    for i in 0..m as usize {
        row.fill(0.0);
        for p in 0..k {
            let factor = a[i * k + p];
            for (out, x) in row.iter_mut().zip(&b[p * n..]) {
                *out += factor * x;
            }
        }
        if let Some(old) = &old {
            for (out, x) in row.iter_mut().zip(&old[i * n..]) {
                *out += call.beta * x;
            }
        }
        let place = call.c + 4 * i as u64 * u64::from(call.ldc);
        device
            .write(place, bytemuck::cast_slice(&row))
            .map_err(fault)?;
    }
    Ok(())
}
