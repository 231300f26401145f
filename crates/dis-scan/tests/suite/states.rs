//! States that enter and leave, and B and C in all their forms: sequences in pieces against whole
//! ones, groups against what they stand for.

use dis_scan::*;
use dis_tensor::random::{Purpose, Stream};
use ndarray::{
    Array, Array1, Array2, Array3, Array4, Axis, Dimension, ShapeBuilder, concatenate, s,
};
use proptest::prelude::*;

/// Constant, variable, grouped.
type Forms = (Array2<f32>, Array3<f32>, Array4<f32>);

/// Standard normal numbers in a shape.
fn random<D: Dimension>(rng: &mut Stream, shape: impl ShapeBuilder<Dim = D>) -> Array<f32, D> {
    Array::from_shape_simple_fn(shape, || rng.normal() as f32)
}

struct Problem {
    u: Array3<f32>,
    delta: Array3<f32>,
    z: Array3<f32>,
    a: Array2<f32>,
    b: Array3<f32>,
    c: Array3<f32>,
    d: Array1<f32>,
    state: Array3<f32>,
    dout: Array3<f32>,
    dlast: Array3<f32>,
    direction: Direction,
}

impl Problem {
    fn new([batch, length, channels, states]: [usize; 4], reverse: bool, seed: u64) -> Self {
        let rng = &mut Stream::new(seed, Purpose::Test, 2, 0);
        let full = (batch, length, channels);
        let ends = (batch, channels, states);
        Self {
            u: random(rng, full),
            delta: random(rng, full) - 1.0,
            z: random(rng, full),
            a: -random(rng, (channels, states)).exp(),
            b: random(rng, (batch, length, states)),
            c: random(rng, (batch, length, states)),
            d: random(rng, channels),
            state: random(rng, ends),
            dout: random(rng, full),
            dlast: random(rng, ends),
            direction: if reverse {
                Direction::Reverse
            } else {
                Direction::Forward
            },
        }
    }

    fn options(&self) -> ScanOptions<'_> {
        ScanOptions {
            d: Some(self.d.view()),
            z: Some(self.z.view()),
            delta_softplus: true,
            direction: self.direction,
            initial_state: Some(self.state.view()),
            ..ScanOptions::default()
        }
    }

    /// Positions `start .. end` of the walk, from a state to the gradient of the next.
    fn piece(&self, start: usize, end: usize, state: Array3<f32>, dlast: Array3<f32>) -> Self {
        let length = self.u.len_of(Axis(1));
        let (start, end) = match self.direction {
            Direction::Forward => (start, end),
            Direction::Reverse => (length - end, length - start),
        };
        let cut = |x: &Array3<f32>| x.slice(s![.., start..end, ..]).to_owned();
        Self {
            u: cut(&self.u),
            delta: cut(&self.delta),
            z: cut(&self.z),
            a: self.a.clone(),
            b: cut(&self.b),
            c: cut(&self.c),
            d: self.d.clone(),
            state,
            dout: cut(&self.dout),
            dlast,
            direction: self.direction,
        }
    }

    fn run(&self) -> ScanOutput {
        let (b, c) = (self.b.view(), self.c.view());
        let (u, delta, a) = (self.u.view(), self.delta.view(), self.a.view());
        selective_scan(u, delta, a, b, c, &self.options()).unwrap()
    }

    fn gradients(&self) -> ScanGradients {
        let (b, c) = (self.b.view(), self.c.view());
        let (u, delta, a) = (self.u.view(), self.delta.view(), self.a.view());
        let (dout, dlast) = (self.dout.view(), Some(self.dlast.view()));
        selective_scan_grad(u, delta, a, b, c, &self.options(), dout, dlast).unwrap()
    }

    /// Two pieces, as one after the other, in the order of memory.
    fn join<D: ndarray::RemoveAxis>(
        &self,
        first: &Array<f32, D>,
        second: &Array<f32, D>,
    ) -> Array<f32, D> {
        let pieces = match self.direction {
            Direction::Forward => [first.view(), second.view()],
            Direction::Reverse => [second.view(), first.view()],
        };
        concatenate(Axis(1), &pieces).unwrap()
    }
}

/// Sums over tokens differ in the order of addition.
fn close(what: &str, got: &Array2<f32>, want: &Array2<f32>) -> Result<(), TestCaseError> {
    let scale = want.iter().fold(1.0f32, |m, x| m.max(x.abs()));
    let off = (got - want).iter().fold(0.0f32, |m, x| m.max(x.abs()));
    prop_assert!(off <= 2e-5 * scale, "{what}: {off} of {scale}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_sequence_in_two_pieces_is_the_whole(
        (b, l, d, n) in (1..3usize, 1..40usize, 1..40usize, 1..20usize),
        at in any::<prop::sample::Index>(),
        reverse in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let whole = Problem::new([b, l, d, n], reverse, seed);
        // Pieces without a token too.
        let split = at.index(l + 1);
        let none = whole.dlast.clone();
        let first = whole.piece(0, split, whole.state.clone(), none);
        let middle = first.run().last_state;
        let second = whole.piece(split, l, middle, whole.dlast.clone());
        let (want, pieces) = (whole.run(), [first.run(), second.run()]);
        prop_assert_eq!(&want.y, &whole.join(&pieces[0].y, &pieces[1].y));
        prop_assert_eq!(&want.last_state, &pieces[1].last_state);

        let want = whole.gradients();
        let late = second.gradients();
        let first = Problem { dlast: late.initial_state.clone().unwrap(), ..first };
        let early = first.gradients();
        prop_assert_eq!(&want.u, &whole.join(&early.u, &late.u));
        prop_assert_eq!(&want.delta, &whole.join(&early.delta, &late.delta));
        prop_assert_eq!(&want.b, &whole.join(&early.b, &late.b));
        prop_assert_eq!(&want.c, &whole.join(&early.c, &late.c));
        prop_assert_eq!(want.z, Some(whole.join(&early.z.unwrap(), &late.z.unwrap())));
        prop_assert_eq!(want.initial_state, early.initial_state);
        close("dA", &(early.a + late.a), &want.a)?;
        let row = |x: Option<Array1<f32>>| x.unwrap().insert_axis(Axis(0));
        close("dD", &(row(early.d) + row(late.d)), &row(want.d))?;
    }

    #[test]
    fn single_tokens_are_the_sequence(
        (b, l, d, n) in (1..3usize, 1..9usize, 1..20usize, 1..20usize),
        reverse in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let whole = Problem::new([b, l, d, n], reverse, seed);
        let mut state = whole.state.clone();
        let mut y = Array3::zeros((b, 0, d));
        for t in 0..l {
            let one = whole.piece(t, t + 1, whole.state.clone(), whole.dlast.clone());
            let options = ScanOptions { initial_state: None, ..one.options() };
            let (u, delta, a) = (one.u.view(), one.delta.view(), one.a.view());
            let (b, c) = (one.b.view(), one.c.view());
            let out = selective_state_update(state.view_mut(), u, delta, a, b, c, &options).unwrap();
            y = whole.join(&y, &out);
        }
        let want = whole.run();
        prop_assert_eq!(want.y, y);
        prop_assert_eq!(want.last_state, state);
    }

    #[test]
    fn a_convolution_in_pieces_is_the_whole(
        (b, l, d, width) in (1..3usize, 1..12usize, 1..40usize, 2..5usize),
        at in any::<prop::sample::Index>(),
        (reverse, bias, silu) in any::<(bool, bool, bool)>(),
        seed in any::<u64>(),
    ) {
        let whole = Problem::new([b, l, d, 1], reverse, seed);
        let weight = random(&mut Stream::new(seed, Purpose::Test, 3, 0), (d, width));
        let bias = bias.then(|| whole.d.view());
        let split = at.index(l + 1);
        let mut state = Array3::zeros((b, width, d));
        let mut run = |start, end| {
            let piece = whole.piece(start, end, whole.state.clone(), whole.dlast.clone());
            let (x, taps) = (piece.u.view(), weight.view());
            causal_conv1d_update(state.view_mut(), x, taps, bias, silu, whole.direction).unwrap()
        };
        let (first, second) = (run(0, split), run(split, l));
        let want = causal_conv1d(whole.u.view(), weight.view(), bias, silu, whole.direction);
        prop_assert_eq!(want.unwrap(), whole.join(&first, &second));
        // The newest input is the last row.
        let newest = if reverse { 0 } else { l - 1 };
        prop_assert_eq!(state.slice(s![.., width - 1, ..]), whole.u.slice(s![.., newest, ..]));
    }

    /// Each form of B and C against the oracle on every channel alone, whose B and C are variable.
    #[test]
    fn groups_and_constants_are_what_they_stand_for(
        (b, l, wide, n) in (1..3usize, 1..20usize, 1..5usize, 1..9usize),
        (groups, of_b, of_c) in (1..4usize, 0..3usize, 0..3usize),
        reverse in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let d = wide * groups;
        let p = Problem::new([b, l, d, n], reverse, seed);
        let rng = &mut Stream::new(seed, Purpose::Test, 3, 0);
        let mut forms = |variable: &Array3<f32>| -> Forms {
            (random(rng, (d, n)), variable.clone(), random(rng, (b, l, groups, n)))
        };
        let (bs, cs) = (forms(&p.b), forms(&p.c));
        let options = p.options();
        let got = selective_scan_grad(
            p.u.view(), p.delta.view(), p.a.view(),
            view(of_b, &bs), view(of_c, &cs),
            &options, p.dout.view(), Some(p.dlast.view()),
        ).unwrap();
        let out = selective_scan(
            p.u.view(), p.delta.view(), p.a.view(), view(of_b, &bs), view(of_c, &cs), &options,
        ).unwrap();
        let (mut db, mut dc) = (
            Array::<f64, _>::zeros(got.b.raw_dim()),
            Array::<f64, _>::zeros(got.c.raw_dim()),
        );
        for channel in 0..d {
            let one = channel..channel + 1;
            let wide3 = |x: &Array3<f32>| x.slice(s![.., .., one.clone()]).mapv(f64::from);
            let state = |x: &Array3<f32>| x.slice(s![.., one.clone(), ..]).mapv(f64::from);
            let rows = |of: usize, x: &Forms| match of {
                0 => x.0.row(channel).broadcast((b, l, n)).unwrap().mapv(f64::from),
                1 => x.1.mapv(f64::from),
                _ => x.2.slice(s![.., .., channel / wide, ..]).mapv(f64::from),
            };
            let (u, delta, z) = (wide3(&p.u), wide3(&p.delta), wide3(&p.z));
            let (initial, dlast, dout) = (state(&p.state), state(&p.dlast), wide3(&p.dout));
            let a = p.a.slice(s![one.clone(), ..]).mapv(f64::from);
            let skip = p.d.slice(s![one.clone()]).mapv(f64::from);
            let (bm, cm) = (rows(of_b, &bs), rows(of_c, &cs));
            let options = ScanOptions {
                d: Some(skip.view()),
                z: Some(z.view()),
                delta_softplus: true,
                direction: p.direction,
                initial_state: Some(initial.view()),
                ..ScanOptions::default()
            };
            let want = selective_scan_grad(
                u.view(), delta.view(), a.view(), bm.view(), cm.view(),
                &options, dout.view(), Some(dlast.view()),
            ).unwrap();
            let y = selective_scan(u.view(), delta.view(), a.view(), bm.view(), cm.view(), &options).unwrap();
            let near = |what: &str, got: ndarray::ArrayViewD<'_, f32>, want: ndarray::ArrayViewD<'_, f64>| {
                let scale = want.iter().fold(3.0f64, |m, x| m.max(x.abs()));
                let off = got.iter().zip(&want).fold(0.0f64, |m, (&g, &w)| m.max((f64::from(g) - w).abs()));
                prop_assert!(off <= 1e-5 * scale, "{what} of channel {channel}: {off} of {scale}");
                Ok(())
            };
            let column = |x: &Array3<f32>| x.slice(s![.., .., one.clone()]).to_owned().into_dyn();
            let ends = |x: &Array3<f32>| x.slice(s![.., one.clone(), ..]).to_owned().into_dyn();
            near("y", column(&out.y).view(), y.y.view().into_dyn())?;
            near("last state", ends(&out.last_state).view(), y.last_state.view().into_dyn())?;
            near("du", column(&got.u).view(), want.u.view().into_dyn())?;
            near("ddelta", column(&got.delta).view(), want.delta.view().into_dyn())?;
            near("dz", column(got.z.as_ref().unwrap()).view(), want.z.unwrap().view().into_dyn())?;
            let initial = got.initial_state.as_ref().unwrap();
            near("dinitial", ends(initial).view(), want.initial_state.unwrap().view().into_dyn())?;
            near("dA", got.a.slice(s![one.clone(), ..]).into_dyn(), want.a.view().into_dyn())?;
            for (of, sum, one) in [(of_b, &mut db, want.b), (of_c, &mut dc, want.c)] {
                match of {
                    0 => {
                        let total = one.sum_axis(Axis(0)).sum_axis(Axis(0));
                        sum.index_axis_mut(Axis(0), channel).scaled_add(1.0, &total);
                    }
                    1 => *sum += &one,
                    _ => sum.index_axis_mut(Axis(2), channel / wide).scaled_add(1.0, &one),
                }
            }
        }
        for (what, got, want) in [("dB", &got.b, &db), ("dC", &got.c, &dc)] {
            prop_assert_eq!(got.shape(), want.shape());
            let scale = want.iter().fold(3.0f64, |m, x| m.max(x.abs()));
            let off = got.iter().zip(want).fold(0.0f64, |m, (&g, w)| m.max((f64::from(g) - w).abs()));
            prop_assert!(off <= 2e-5 * scale, "{what}: {off} of {scale}");
        }
    }
}

/// One of the forms of B or C.
fn view(of: usize, x: &Forms) -> ScanMatrix<'_> {
    match of {
        0 => x.0.view().into(),
        1 => x.1.view().into(),
        _ => x.2.view().into(),
    }
}

#[test]
fn states_and_groups_that_do_not_fit_are_named() {
    let p = Problem::new([2, 3, 6, 4], false, 1);
    let short = Array3::<f32>::zeros((2, 5, 4));
    let options = ScanOptions {
        initial_state: Some(short.view()),
        ..p.options()
    };
    let (u, delta, a) = (|| p.u.view(), || p.delta.view(), || p.a.view());
    let (b, c) = (|| p.b.view(), || p.c.view());
    let text = |error: TensorError| error.to_string();
    let error = selective_scan(u(), delta(), a(), b(), c(), &options).unwrap_err();
    assert!(text(error).contains("initial_state has shape [2, 5, 4]"));
    let options = ScanOptions {
        initial_state: None,
        ..p.options()
    };
    let (dout, dlast) = (p.dout.view(), Some(short.view()));
    let error = selective_scan_grad(u(), delta(), a(), b(), c(), &options, dout, dlast);
    assert!(text(error.unwrap_err()).contains("dlast_state"));
    let four = Array4::<f32>::zeros((2, 3, 4, 4));
    let error = selective_scan(u(), delta(), a(), four.view(), c(), &options).unwrap_err();
    assert!(text(error).contains("B has 4 groups, which do not divide 6 channels"));
    let none = Array4::<f32>::zeros((2, 3, 0, 4));
    let error = selective_scan(u(), delta(), a(), b(), none.view(), &options).unwrap_err();
    assert!(text(error).contains("C has 0 groups"));
    let constant = Array2::<f32>::zeros((5, 4));
    let error = selective_scan(u(), delta(), a(), b(), constant.view(), &options).unwrap_err();
    assert!(text(error).contains("C has shape [1, 5, 4]"));

    let mut state = p.state.clone();
    let both = p.options();
    let error = selective_state_update(state.view_mut(), u(), delta(), a(), b(), c(), &both);
    assert!(text(error.unwrap_err()).contains("beside the state to update"));
    let taps = Array2::<f32>::ones((6, 3));
    let update = |state: &mut Array3<f32>| {
        let direction = Direction::Forward;
        causal_conv1d_update(state.view_mut(), u(), taps.view(), None, true, direction)
    };
    let error = update(&mut state).unwrap_err();
    assert!(text(error).contains("state has shape [2, 6, 4] but (batch, width, channels)"));
    assert_eq!(state, p.state);
}
