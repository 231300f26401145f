//! Fits y = 2 x_1 - 3 x_2 + 0.5 with products, sums and AdamW of any device: here the CPU, and the float64
//! backend that checks it.

use dis_tensor::{
    Accum, AdamState, AdamW, Backend, Cpu, Layout, Reference, Result, Tokens, TokensMut,
};

/// The fitted weights and offset.
fn fit<B: Backend>(device: &B) -> Result<Vec<f32>> {
    let rows = 64;
    let x: Vec<f32> = (0..2 * rows).map(|i| (1.7 * i as f32).sin()).collect();
    let y: Vec<f32> = x.chunks(2).map(|x| 2.0 * x[0] - 3.0 * x[1] + 0.5).collect();
    let (x, y) = (device.from_f32(&x), device.from_f32(&y));
    let (x, y) = (
        Tokens::new(&x, Layout::matrix(rows, 2)),
        Tokens::new(&y, Layout::matrix(rows, 1)),
    );
    // One arena: the weights, then the offset.
    let (weight, offset) = (Layout::matrix(1, 2), Layout::vector(1).at(2));
    let [mut params, mut m, mut v, mut ema] = [3; 4].map(|len| device.zeros::<B::Real>(len));
    let mut off = device.zeros::<B::Real>(rows);
    let column = Layout::matrix(rows, 1);
    let mut norm = device.zeros::<B::Real>(1);
    for step in 1..=400 {
        let (w, b) = (Tokens::new(&params, weight), Tokens::new(&params, offset));
        device.gemm(
            x,
            w.t(),
            Some(b),
            Accum::Replace,
            TokensMut::new(&mut off, column),
        )?;
        device.axpy(-1.0, y, TokensMut::new(&mut off, column))?;
        // The loss is the mean of off^2 / 2.
        let mut grads = device.zeros::<B::Real>(3);
        let dy = Tokens::new(&off, column);
        device.gemm(
            dy.t(),
            x,
            None,
            Accum::Add,
            TokensMut::new(&mut grads, weight),
        )?;
        device.add_column_sums(dy, TokensMut::new(&mut grads, offset))?;
        device.global_norm(&grads, &mut norm)?;
        let state = AdamState {
            params: &mut params,
            grads: &grads,
            m: &mut m,
            v: &mut v,
            ema: &mut ema,
            grad_norm: &norm,
        };
        let update = AdamW {
            lr: 0.05,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
            step,
            grad_scale: 1.0 / rows as f64,
            max_grad_norm: None,
            ema_decay: 0.9,
        };
        device.adamw(state, update)?;
    }
    Ok(device.to_f32(&params))
}

fn main() -> Result<()> {
    for (name, fitted) in [
        (Cpu::new().describe(), fit(&Cpu::new())?),
        (
            Reference::<f64>::new().describe(),
            fit(&Reference::<f64>::new())?,
        ),
    ] {
        println!("{name}: {fitted:.4?}");
        let off = fitted
            .iter()
            .zip([2.0, -3.0, 0.5])
            .map(|(got, want)| (got - want).abs());
        assert!(off.fold(0.0, f32::max) < 0.01);
    }
    Ok(())
}
