//! Operands that do not fit, accesses beside operands, and what cannot be recorded.

use dis_kernels::elementwise::{AddProduct, Axpy, Copy, NegExp, ScaleSamples, Silu, SiluBackward};
use dis_kernels::images::{AddNoise, Clamp, Combine, Lines, Mix, Terms};
use dis_kernels::patch::{Grid, Unpatchify};
use dis_kernels::statistics::{Rescale, Threshold};
use dis_kernels::{
    Driver, Kernel, KernelError, Mat, MatMut, Ptr, Ready, embed, gemm, launch, optim, reduce,
};

use crate::bench::{Bench, Field};

pub fn refused<C: std::fmt::Debug>(what: &str, kernel: dis_kernels::Result<Ready<C>>) {
    match kernel {
        Err(KernelError::Shape { .. } | KernelError::OutOfBounds { .. }) => {}
        other => panic!("{what}: {other:?}"),
    }
}

/// One channel, token or sample more than the others have.
pub fn others([batch, tokens, channels]: [usize; 3]) -> [[usize; 3]; 3] {
    [
        [batch + 1, tokens, channels],
        [batch, tokens + 1, channels],
        [batch, tokens, channels + 1],
    ]
}

/// The last element outside of its memory.
pub fn cut<T>(x: Mat<T>) -> Mat<T> {
    let all = (x.batch - 1) * x.batch_stride + (x.tokens - 1) * x.row_stride + x.channels;
    Mat {
        ptr: Ptr::new(x.ptr.address(), all as u64 - 1),
        ..x
    }
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let mut d = Bench::new();
    let shape = [2, 3, 4];
    let (x, out) = (d.field(shape, 1), d.field(shape, 0));
    let ids = d.put(&[0u32, 1]);
    let bad: Vec<Field> = others(shape).into_iter().map(|s| d.field(s, 0)).collect();
    let mats: Vec<Mat> = bad.iter().map(Field::mat).chain([cut(x.mat())]).collect();
    for &m in &mats {
        refused("copy", Copy::new(m, out.mat_mut()));
        refused("axpy", Axpy::new(m, out.mat_mut(), 1.0));
        refused("silu", Silu::new(m, out.mat_mut()));
        refused(
            "silu_backward",
            SiluBackward::new(x.mat(), m, out.mat_mut()),
        );
        refused("neg_exp", NegExp::new(m, out.mat_mut()));
        refused("add_product", AddProduct::new(m, x.mat(), out.mat_mut()));
        refused(
            "scale_samples",
            ScaleSamples::new(x.mat(), out.mat_mut(), m),
        );
        refused("patchify", {
            let grid = Grid {
                batch: 1,
                channels: 2,
                height: 2,
                width: 2,
                patch: 2,
                channel_last: true,
            };
            Unpatchify::new(out.block.ptr_mut(), m, grid)
        });
    }
    let images = d.field([2, 1, 8], 0);
    for shape in [[3, 1, 8], [2, 1, 9], [2, 2, 8]] {
        let other = d.field(shape, 0);
        refused(
            "mix",
            Mix::new(images.mat(), other.mat(), images.mat(), images.mat_mut()),
        );
        let one: &[f64] = &[1.0];
        refused("rescale", Rescale::new(other.mat(), images.mat_mut(), 0.5));
        assert!(Terms::new(&[(one, images.mat()), (one, other.mat())]).is_err());
        let terms = Terms::new(&[(one, images.mat())]).unwrap();
        let table = d.put(terms.words());
        refused(
            "combine",
            Combine::new(&terms, table.ptr(), other.mat_mut()),
        );
        refused(
            "combine",
            Combine::new(&terms, table.ptr().at(1), images.mat_mut()),
        );
    }
    refused("clamp", Clamp::new(out.mat_mut(), 0.0, 1.0));
    refused("threshold", Threshold::new(out.mat_mut(), 0.9, 2.0));
    refused("threshold", Threshold::new(images.mat_mut(), 1.5, 2.0));
    assert!(Terms::new(&[]).is_err());
    assert!(Terms::new(&[(&[1.0; 3], images.mat())]).is_err());
    assert!(Lines::new(&[1.0; 3], &[1.0], 2).is_err());
    let lines = Lines::new(&[1.0], &[1.0], 2).unwrap();
    let words = d.put(lines.words());
    let at = words.ptr().at(1);
    refused(
        "add_noise",
        AddNoise::new(images.mat(), images.mat(), &lines, at, images.mat_mut()),
    );

    let (a, b, c) = (
        d.field([1, 3, 5], 0),
        d.field([1, 4, 2], 0),
        d.field([1, 3, 2], 0),
    );
    refused(
        "gemm",
        gemm::Gemm::new(
            a.mat().factor(false),
            b.mat().factor(false),
            c.mat_mut(),
            None,
            false,
        ),
    );
    refused(
        "sum_rows",
        reduce::SumRows::new(x.mat(), out.mat_mut(), 1.0, false, 2),
    );
    refused(
        "sum_rows",
        reduce::SumRows::new(x.mat(), out.mat_mut(), 1.0, false, 0),
    );
    refused(
        "gather",
        embed::Gather::new(a.mat(), ids.ptr(), c.mat_mut()),
    );
    let rows = d.field([3, 1, 5], 0);
    refused(
        "gather",
        embed::Gather::new(a.mat(), ids.ptr(), rows.mat_mut()),
    );
    refused(
        "scatter_add",
        embed::ScatterAdd::new(rows.mat(), ids.ptr(), a.mat_mut()),
    );
    let short = d.pool.take(8).unwrap();
    let (many, few) = (d.field([1, 1, 5000], 0), d.field([1, 1, 4999], 0));
    refused(
        "square_sums",
        optim::SquareSums::new(many.block.ptr(), short.ptr_mut().at(1)),
    );
    let adamw = optim::AdamW {
        params: many.block.ptr_mut(),
        grads: many.block.ptr(),
        m: few.block.ptr_mut(),
        v: many.block.ptr_mut(),
        ema: many.block.ptr_mut(),
        grad_norm: many.block.ptr(),
        grad_scale: 1.0,
        max_norm: None,
        keep: 1.0,
        one_minus_beta1: 0.1,
        beta2: 0.9,
        one_minus_beta2: 0.1,
        step: 0.1,
        inverse_root: 1.0,
        eps: 0.0,
        ema_decay: 0.9,
        one_minus_ema: 0.1,
    };
    refused("adamw", adamw.ready());
}

/// A pool rounds sizes up, but nothing may use the rest.
#[test]
fn an_access_just_behind_a_small_operand_is_seen() {
    let d = Bench::new();
    let block = d.put(&[1.0f32; 3]);
    let behind = Mat::dense(Ptr::new(block.address(), 4), 1, 1, 4);
    let out = d.pool.take(16).unwrap();
    let kernel = Copy::new(behind, MatMut::dense(out.ptr_mut(), 1, 1, 4)).unwrap();
    let error = launch(&d.sim, &kernel).unwrap_err().to_string();
    assert!(error.contains("OutOfBounds"), "{error}");
    // Nor after the block has been handed out again, for less.
    let address = out.address();
    drop(out);
    let less = d.pool.take(8).unwrap();
    assert_eq!(less.address(), address);
    assert!(d.sim.upload(address, &[0; 9]).is_err());
    d.sim.upload(address, &[0; 8]).unwrap();
}

#[test]
fn what_cannot_be_repeated_is_not_recorded() {
    let d = Bench::new();
    let (x, out) = (d.put(&[1.0f32, 2.0]), d.pool.take(8).unwrap());
    let copy = || {
        Copy::new(
            Mat::dense(x.ptr(), 1, 1, 2),
            MatMut::dense(out.ptr_mut(), 1, 1, 2),
        )
    };
    assert!(d.sim.begin_capture().unwrap());
    d.run(copy());
    assert!(d.sim.begin_capture().is_err());
    assert!(d.sim.alloc(4).is_err() && d.sim.synchronise().is_err());
    assert!(d.sim.upload(x.address(), &[0; 4]).is_err());
    assert!(d.sim.download(x.address(), &mut [0; 4]).is_err());
    let recording = d.sim.end_capture().unwrap();
    assert!(d.sim.end_capture().is_err());
    // Nothing has run yet.
    assert!(d.sim.download(out.address(), &mut [0; 8]).is_err());
    d.sim.replay(&recording).unwrap();
    assert_eq!(d.get(&out), [1.0, 2.0]);
    d.sim
        .upload(x.address(), bytemuck::cast_slice(&[3.0f32, 4.0]))
        .unwrap();
    d.sim.replay(&recording).unwrap();
    assert_eq!(d.get(&out), [3.0, 4.0]);
}
