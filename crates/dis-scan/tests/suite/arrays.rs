//! The `ndarray` entry points: memory order, errors, gradients.

use dis_scan::*;
use ndarray::{Array1, Array2, Array3, Axis, s};

fn wave(shape: (usize, usize, usize), phase: f32) -> Array3<f32> {
    Array3::from_shape_fn(shape, |(b, l, c)| {
        (phase + (b * 31 + l * 7 + c) as f32).sin()
    })
}

#[test]
fn strided_arrays_give_the_same() {
    let (u, delta) = (wave((2, 9, 5), 0.1), wave((2, 9, 5), 0.2));
    let a = -wave((1, 5, 3), 0.3)
        .index_axis_move(Axis(0), 0)
        .mapv(|x| x * x + 0.1);
    let (b, c) = (wave((2, 9, 3), 0.4), wave((2, 9, 3), 0.5));
    let options = ScanOptions {
        delta_softplus: true,
        ..Default::default()
    };
    let y = selective_scan(
        u.view(),
        delta.view(),
        a.view(),
        b.view(),
        c.view(),
        &options,
    )
    .unwrap();
    // The same values with length and channels swapped in memory.
    let turned = u
        .clone()
        .permuted_axes([0, 2, 1])
        .as_standard_layout()
        .into_owned();
    let turned = turned.permuted_axes([0, 2, 1]);
    assert!(turned.as_slice().is_none());
    let again = selective_scan(
        turned.view(),
        delta.view(),
        a.view(),
        b.view(),
        c.view(),
        &options,
    )
    .unwrap();
    assert_eq!(y.y, again.y);
    // And walked backwards over flipped arrays.
    let flip = |x: &Array3<f32>| x.slice(s![.., ..;-1, ..]).to_owned();
    let options = ScanOptions {
        direction: Direction::Reverse,
        ..options
    };
    let (fu, fd, fb, fc) = (flip(&u), flip(&delta), flip(&b), flip(&c));
    let back = selective_scan(
        fu.view(),
        fd.view(),
        a.view(),
        fb.view(),
        fc.view(),
        &options,
    );
    assert_eq!(y.y, flip(&back.unwrap().y));
    assert_eq!(y.last_state, again.last_state);
}

#[test]
fn wrong_shapes_name_the_array() {
    let (u, a, b) = (
        wave((2, 9, 5), 0.1),
        Array2::<f32>::ones((5, 3)),
        wave((2, 9, 3), 0.4),
    );
    let bad = wave((2, 9, 4), 0.0);
    let options = ScanOptions::default();
    let error = selective_scan(u.view(), bad.view(), a.view(), b.view(), b.view(), &options);
    let text = error.unwrap_err().to_string();
    assert!(
        text.contains("delta") && text.contains("[2, 9, 4]") && text.contains("[2, 9, 5]"),
        "{text}"
    );
    let error = selective_scan(u.view(), u.view(), a.view(), b.view(), bad.view(), &options);
    assert!(error.unwrap_err().to_string().contains("C has shape"));
    let short = Array1::<f32>::ones(4);
    let options = ScanOptions {
        d: Some(short.view()),
        ..Default::default()
    };
    let error = selective_scan(u.view(), u.view(), a.view(), b.view(), b.view(), &options);
    assert!(error.unwrap_err().to_string().contains("D has shape"));
    let none = Array2::<f32>::ones((5, 0));
    let empty = wave((2, 9, 0), 0.0);
    let options = ScanOptions::default();
    let error = selective_scan(
        u.view(),
        u.view(),
        none.view(),
        empty.view(),
        empty.view(),
        &options,
    );
    assert!(error.unwrap_err().to_string().contains("no states"));
    let wide = Array2::<f32>::ones((5, 5));
    let error = causal_conv1d(u.view(), wide.view(), None, true, Direction::Forward);
    assert!(error.unwrap_err().to_string().contains("width 5"));
}

#[test]
fn gradients_fit_differences() {
    let (u, delta) = (wave((1, 6, 3), 0.1), wave((1, 6, 3), 0.2));
    let a = -Array2::<f32>::ones((3, 2));
    let (b, c, dout) = (
        wave((1, 6, 2), 0.4),
        wave((1, 6, 2), 0.5),
        wave((1, 6, 3), 0.6),
    );
    let options = ScanOptions {
        delta_softplus: true,
        z: Some(dout.view()),
        ..Default::default()
    };
    let grads = selective_scan_grad(
        u.view(),
        delta.view(),
        a.view(),
        b.view(),
        c.view(),
        &options,
        dout.view(),
        None,
    )
    .unwrap();
    let loss = |b: &Array3<f32>| {
        let y = selective_scan(
            u.view(),
            delta.view(),
            a.view(),
            b.view(),
            c.view(),
            &options,
        );
        (y.unwrap().y * &dout).sum()
    };
    for (index, &want) in grads.b.indexed_iter() {
        let (mut up, mut down) = (b.clone(), b.clone());
        up[[index[0], index[1], index[2]]] += 0.01;
        down[[index[0], index[1], index[2]]] -= 0.01;
        let got = (loss(&up) - loss(&down)) / 0.02;
        assert!((got - want).abs() < 1e-3, "{index:?}: {got} for {want}");
    }
    assert!(grads.d.is_none() && grads.delta_bias.is_none() && grads.z.is_some());

    let weight = wave((1, 3, 4), 0.7).index_axis_move(Axis(0), 0);
    let direction = Direction::Reverse;
    let grads =
        causal_conv1d_grad(u.view(), weight.view(), None, true, direction, dout.view()).unwrap();
    for (index, &want) in grads.weight.indexed_iter() {
        let loss = |shift: f32| {
            let mut weight = weight.clone();
            weight[index] += shift;
            let y = causal_conv1d(u.view(), weight.view(), None, true, direction);
            (y.unwrap() * &dout).sum()
        };
        let got = (loss(0.01) - loss(-0.01)) / 0.02;
        assert!((got - want).abs() < 1e-3, "{index:?}: {got} for {want}");
    }
    assert_eq!(grads.x.dim(), (1, 6, 3));
    assert!(grads.bias.is_none());
}
