//! Matrix products of a simulated device on the host: in place of a library, which the simulator
//! has not, and much faster than the kernel of our own.

use dis_ptx_sim as ptx;

use super::fault;
use crate::driver::GemmCall;
use crate::error::Result;

/// A matrix on the host, read or written row by row.
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
    let a = if call.transpose_a {
        transposed(&read_rows(device, call.a, k, m, call.lda)?, k, m)
    } else {
        read_rows(device, call.a, m, k, call.lda)?
    };
    let b = if call.transpose_b {
        transposed(&read_rows(device, call.b, n, k, call.ldb)?, n, k)
    } else {
        read_rows(device, call.b, k, n, call.ldb)?
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
