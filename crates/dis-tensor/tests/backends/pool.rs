//! Reuse of memory, and transfers.

use dis_tensor::{
    Accum, AddNorm, AddNormBackward, Backend, Buffer, Layout, Norm, NormGrads, NormKind, Reference,
    Result,
};
use dis_tensor::{Tokens, TokensMut};

use crate::draw::cpu;

/// Something like a layer's forward and backward, with temporaries.
fn work<B: Backend>(b: &B) -> Result<Vec<f32>> {
    let (rows, width) = (130, 200);
    let layout = Layout::dense(2, rows / 2, width);
    let stat = Layout::dense(2, rows / 2, 2);
    let one = Layout::vector(width);
    let x = b.from_f32(&vec![0.5; rows * width]);
    let weight = b.from_f32(&vec![1.5; width * width]);
    let (mut y, mut stats, mut z) = (
        b.alloc(rows * width),
        b.alloc(rows * 2),
        b.alloc(rows * width),
    );
    let norm = Norm {
        kind: NormKind::Rms,
        eps: 1e-5,
        weight: Some(Tokens::new(&weight, one)),
        bias: None,
        shift_scale: None,
    };
    let (xs, ws) = (
        Tokens::new(&x, layout),
        Tokens::new(&weight, Layout::matrix(width, width)),
    );
    let stats_out = Some(TokensMut::new(&mut stats, stat));
    b.add_norm(AddNorm {
        residual: None,
        hidden: xs,
        hidden_scale: None,
        norm,
        sum: None,
        stats: stats_out,
        out: TokensMut::new(&mut y, layout),
    })?;
    b.gemm(
        Tokens::new(&y, layout),
        ws.t(),
        None,
        Accum::Replace,
        TokensMut::new(&mut z, layout),
    )?;
    let mut grads = b.zeros(width);
    b.add_column_sums(Tokens::new(&z, layout), TokensMut::new(&mut grads, one))?;
    b.token_sums(
        0.5,
        Accum::Replace,
        Tokens::new(&z, layout),
        TokensMut::new(&mut y, Layout::dense(2, 1, width)),
    )?;
    let (stats, zs) = (Tokens::new(&stats, stat), Tokens::new(&z, layout));
    let places = NormGrads {
        arena: &mut grads,
        weight: Some(0),
        bias: None,
    };
    let dx = TokensMut::new(&mut y, layout);
    b.add_norm_backward(AddNormBackward {
        x: xs,
        stats,
        norm,
        dout: zs,
        accum: Accum::Replace,
        dx,
        grads: Some(places),
        d_shift_scale: None,
    })?;
    let mut total = b.zeros(1);
    b.global_norm(&z, &mut total)?;
    Ok(b.to_f32(&total))
}

#[test]
fn repeated_work_allocates_nothing() {
    let (cpu, reference) = (cpu(2), Reference::new());
    let first = (work(&cpu).unwrap(), work(&reference).unwrap());
    let before = (cpu.pool_stats(), reference.pool_stats());
    assert_eq!((before.0.bytes_in_use, before.1.bytes_in_use), (0, 0));
    assert!(before.0.allocations > 0);
    for _ in 0..3 {
        assert_eq!(first, (work(&cpu).unwrap(), work(&reference).unwrap()));
    }
    let after = (cpu.pool_stats(), reference.pool_stats());
    assert_eq!(before.0.allocations, after.0.allocations);
    assert_eq!(before.1.allocations, after.1.allocations);
    assert_eq!(before.0.bytes_held, after.0.bytes_held);
    assert!(after.0.reuses > before.0.reuses);
    cpu.trim();
    assert_eq!(cpu.pool_stats().bytes_held, 0);
}

#[test]
fn clones_share_a_pool() {
    let a = cpu(1);
    let b = a.clone();
    drop(a.alloc::<f32>(1000));
    drop(b.alloc::<f64>(500));
    assert_eq!(b.pool_stats().allocations, 1);
}

fn transfers<B: Backend>(b: &B) {
    let data: Vec<f32> = (0u8..100).map(f32::from).collect();
    let mut buf = b.from_f32(&data);
    assert_eq!(buf.len(), 100);
    assert_eq!(b.to_f32(&buf), data);
    b.write_f32(&mut buf, 98, &[-1.0, -2.0]).unwrap();
    b.write_f64(&mut buf, 0, &[0.1]).unwrap();
    let mut one = [0.0f32];
    b.read_f32(&buf, 99, &mut one).unwrap();
    assert_eq!(one, [-2.0]);
    b.read_f32(&buf, 0, &mut one).unwrap();
    assert_eq!(one, [0.1]);
    let mut two = [0.0f64; 2];
    b.read_f64(&buf, 97, &mut two).unwrap();
    assert_eq!(two, [97.0, -1.0]);
    assert!(b.write_f32(&mut buf, 99, &[0.0; 2]).is_err());
    assert!(b.write_f64(&mut buf, usize::MAX, &[0.0]).is_err());
    assert!(b.read_f32(&buf, 101, &mut []).is_err());
    assert!(b.read_f64(&buf, 100, &mut two).is_err());
    assert_eq!(b.download(&b.upload(&[1u32, 2, 3])), [1, 2, 3]);
    assert!(b.alloc::<f32>(0).is_empty());
}

#[test]
fn values_arrive_where_they_should() {
    transfers(&cpu(1));
    transfers(&Reference::new());
    #[cfg(feature = "sim")]
    transfers(&crate::gpu::GPUS[0].backend);
}

#[cfg(feature = "sim")]
#[test]
fn repeated_work_allocates_nothing_on_a_device() {
    let gpu = dis_tensor::Cuda::new(crate::gpu::GPUS[0].backend.driver().clone());
    let first = work(&gpu).unwrap();
    let before = gpu.pool_stats();
    assert_eq!(before.bytes_in_use, 0);
    for _ in 0..2 {
        assert_eq!(first, work(&gpu).unwrap());
    }
    let after = gpu.pool_stats();
    assert_eq!(before.allocations, after.allocations);
    assert!(after.reuses > before.reuses);
    gpu.trim();
    assert_eq!(gpu.pool_stats().bytes_held, 0);
}

#[test]
fn backends_say_what_they_are() {
    assert!(
        cpu(1).describe().ends_with("1 thread)"),
        "{}",
        cpu(1).describe()
    );
    assert!(
        cpu(2).describe().ends_with("2 threads)"),
        "{}",
        cpu(2).describe()
    );
    assert!(Reference::new().describe().contains("float64"));
    assert_eq!(cpu(3).threads(), 3);
    assert_eq!(cpu(3).install(rayon::current_num_threads), 3);
}
