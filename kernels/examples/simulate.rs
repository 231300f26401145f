//! A softmax on a simulated GPU: launched, read back, counted; and a mistake of the host found.

use dis_kernels::sim::{Options, Sim};
use dis_kernels::softmax::SoftmaxForward;
use dis_kernels::{Driver, Mat, MatMut, Pool, Result, launch};

fn main() -> Result<()> {
    let gpu = Sim::new(Options::default());
    println!("{}", gpu.describe());
    let pool = Pool::new(gpu.clone());
    let (rows, columns) = (3, 100);
    let bytes = 4 * rows * columns;
    let (x, y) = (pool.take(bytes)?, pool.take(bytes)?);
    let from = Mat::dense(x.ptr(), 1, rows, columns);
    let to = MatMut::dense(y.ptr_mut(), 1, rows, columns);
    let softmax = SoftmaxForward::new(from, to, 1.0)?;

    // Launched before anything was uploaded.
    match launch(&gpu, &softmax).and_then(|()| gpu.synchronise()) {
        Err(fault) => println!("forgotten upload: {fault}"),
        Ok(()) => panic!("a read of memory that nothing wrote was not found"),
    }

    let values: Vec<f32> = (0..rows * columns)
        .map(|i| (0.3 * i as f32).sin())
        .collect();
    let data: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    gpu.upload(x.address(), &data)?;
    launch(&gpu, &softmax)?;
    let mut data = vec![0; bytes];
    gpu.download(y.address(), &mut data)?;
    let words = data.as_chunks::<4>().0.iter();
    let out: Vec<f32> = words.map(|word| f32::from_le_bytes(*word)).collect();
    for (row, (x, y)) in values.chunks(columns).zip(out.chunks(columns)).enumerate() {
        let sum: f64 = x.iter().map(|&x| f64::from(x).exp()).sum();
        let off = x
            .iter()
            .zip(y)
            .map(|(&x, &y)| (f64::from(x).exp() / sum - f64::from(y)).abs());
        let off = off.fold(0.0, f64::max);
        println!(
            "row {row}: sum {:.6}, at most {off:.1e} off",
            y.iter().sum::<f32>()
        );
        assert!(off < 1e-8);
    }
    for (kernel, counters) in gpu.counters() {
        println!("{kernel}: {} bytes read", counters.global_load_bytes);
        assert!(counters.global_load_bytes as usize >= bytes);
    }
    Ok(())
}
