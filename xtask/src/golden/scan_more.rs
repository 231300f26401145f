//! Scans that begin with a state and end with one, B and C in all their forms, single tokens, and a mixer
//! that goes on from where it stopped.

use anyhow::{Context, Result, bail, ensure};
use dis_scan::{
    Direction, ScanBackend, ScanElement, ScanMatrix, ScanOptions, causal_conv1d,
    causal_conv1d_update, selective_scan, selective_scan_grad, selective_state_update,
};
use dis_ssm::{CausalMixer, Ctx, MixerConfig, ParamTable, TokenBuf};
use dis_tensor::Layout;
use ndarray::{Array, Array1, Array2, Array3, ArrayD, ArrayView, Axis, Dimension, concatenate, s};
use serde_json::Value;

use super::case::{Case, Rule, flag, string, whole};
use super::network::{own_weights, values};

/// "selective_scan_more".
pub fn selective_scan_more<B: ScanBackend>(case: &Case, backend: &B) -> Result<()> {
    // The entry points for arrays compute in float32 by the fast code and in float64 by the oracle.
    let wide = size_of::<B::Real>() == size_of::<f64>();
    for entry in case.list("cases")? {
        let part = Part {
            case,
            entry,
            label: string(entry, "label")?,
            wide,
        };
        let task = string(entry, "task")?;
        let outcome = match (task, wide) {
            ("mixer_step", _) => part.mixer_step(backend),
            (_, false) => part.arrays::<f32>(task),
            (_, true) => part.arrays::<f64>(task),
        };
        outcome.with_context(|| format!("case {:?}", part.label))?;
    }
    Ok(())
}

/// What the formulas need of a number.
trait Number: ScanElement + ndarray::LinalgScalar {}
impl Number for f32 {}
impl Number for f64 {}

/// One case of the manifest.
struct Part<'a> {
    case: &'a Case,
    entry: &'a Value,
    label: &'a str,
    wide: bool,
}

/// (batch, channels, length) to (batch, length, channels), and back.
const TURNED: [usize; 3] = [0, 2, 1];
const PLAIN: [usize; 3] = [0, 1, 2];

impl Part<'_> {
    fn name(&self, name: &str) -> String {
        format!("{}.{name}", self.label)
    }

    /// A stored array whose axes are put in this order.
    fn get<T: Number, D: Dimension>(&self, name: &str, axes: D) -> Result<Array<T, D>> {
        let name = self.name(name);
        let tensor = self.case.tensor(&name)?;
        let values = tensor.f32().into_iter().map(T::from).collect();
        let stored = ArrayD::from_shape_vec(tensor.shape.clone(), values)?;
        let stored = stored
            .into_dimensionality::<D>()
            .with_context(|| format!("{name} has shape {:?}", tensor.shape))?;
        Ok(stored.permuted_axes(axes).as_standard_layout().into_owned())
    }

    fn turned<T: Number>(&self, name: &str) -> Result<Array3<T>> {
        self.get(name, ndarray::Ix3(TURNED[0], TURNED[1], TURNED[2]))
    }

    fn plain3<T: Number>(&self, name: &str) -> Result<Array3<T>> {
        self.get(name, ndarray::Ix3(PLAIN[0], PLAIN[1], PLAIN[2]))
    }

    fn matrix<T: Number>(&self, name: &str) -> Result<Array2<T>> {
        self.get(name, ndarray::Ix2(0, 1))
    }

    fn vector<T: Number>(&self, name: &str) -> Result<Array1<T>> {
        self.get(name, ndarray::Ix1(0))
    }

    /// Holds an array, its axes put in this order, against the stored one.
    fn expect<T: Number, D: Dimension>(
        &self,
        name: &str,
        ours: ArrayView<'_, T, D>,
        axes: impl ndarray::IntoDimension<Dim = D>,
    ) -> Result<()> {
        let ours = ours.permuted_axes(axes);
        let values: Vec<f64> = ours.iter().map(|&x| x.into()).collect();
        self.expect_values(name, &values)
    }

    fn expect_values(&self, name: &str, ours: &[f64]) -> Result<()> {
        let name = self.name(name);
        let rtol = match self.wide {
            true => self.case.tolerance(&["rtol_float64"])?,
            false => self.case.listed_rtol(&name)?,
        };
        self.case.expect(&name, ours, Rule::OfLargest(rtol))
    }

    fn arrays<T: Number>(&self, task: &str) -> Result<()> {
        match task {
            "scan" => self.scan::<T>(),
            "halves" => self.halves::<T>(),
            "state_update" => self.state_update::<T>(),
            "conv_update" => self.conv_update::<T>(),
            task => bail!("unknown task {task:?}"),
        }
    }

    fn scan<T: Number>(&self) -> Result<()> {
        let (u, delta) = (self.turned::<T>("u")?, self.turned("delta")?);
        let (a, dout) = (self.matrix("A")?, self.turned("gout")?);
        let (b, c) = (self.form("B")?, self.form("C")?);
        let has = |key| flag(self.entry, key);
        let d = has("D_skip")?.then(|| self.vector("D")).transpose()?;
        let z = has("z")?.then(|| self.turned("z")).transpose()?;
        let bias = has("delta_bias")?.then(|| self.vector("delta_bias"));
        let bias = bias.transpose()?;
        let initial = has("initial_state")?.then(|| self.plain3("initial_state"));
        let initial = initial.transpose()?;
        let dlast = has("grad_of_last_state")?.then(|| self.plain3("glast"));
        let dlast = dlast.transpose()?;
        let options = ScanOptions {
            d: d.as_ref().map(|x| x.view()),
            z: z.as_ref().map(|x| x.view()),
            delta_bias: bias.as_ref().map(|x| x.view()),
            delta_softplus: has("delta_softplus")?,
            initial_state: initial.as_ref().map(|x| x.view()),
            ..ScanOptions::default()
        };
        let (u, delta, a) = (u.view(), delta.view(), a.view());
        let out = selective_scan(u, delta, a, b.view()?, c.view()?, &options)?;
        self.expect("out", out.y.view(), TURNED)?;
        self.expect("last_state", out.last_state.view(), PLAIN)?;
        let dlast = dlast.as_ref().map(|x| x.view());
        let (b, c) = (b.view()?, c.view()?);
        let grads = selective_scan_grad(u, delta, a, b, c, &options, dout.view(), dlast)?;
        self.expect("grad_u", grads.u.view(), TURNED)?;
        self.expect("grad_delta", grads.delta.view(), TURNED)?;
        self.expect("grad_A", grads.a.view(), [0, 1])?;
        for (name, grad) in [("grad_B", &grads.b), ("grad_C", &grads.c)] {
            let axes: &[usize] = match grad.ndim() {
                2 => &[0, 1],
                3 => &TURNED,
                _ => &[0, 2, 3, 1],
            };
            self.expect(name, grad.view(), axes)?;
        }
        if let Some(grad) = &grads.d {
            self.expect("grad_D", grad.view(), [0])?;
        }
        if let Some(grad) = &grads.z {
            self.expect("grad_z", grad.view(), TURNED)?;
        }
        if let Some(grad) = &grads.delta_bias {
            self.expect("grad_delta_bias", grad.view(), [0])?;
        }
        if let Some(grad) = &grads.initial_state {
            self.expect("grad_initial_state", grad.view(), PLAIN)?;
        }
        Ok(())
    }

    /// B or C as its kind says.
    fn form<T: Number>(&self, name: &str) -> Result<Form<T>> {
        Ok(Form(match string(self.entry, &format!("{name}_kind"))? {
            "constant" => self.matrix(name)?.into_dyn(),
            "variable" => self.turned(name)?.into_dyn(),
            "grouped" => self.get(name, ndarray::Ix4(0, 3, 1, 2))?.into_dyn(),
            kind => bail!("unknown {name}_kind {kind:?}"),
        }))
    }

    /// A convolution and a scan of a sequence, whole and in two halves.
    fn halves<T: Number>(&self) -> Result<()> {
        let (x, delta) = (self.turned::<T>("x")?, self.turned("delta")?);
        let (weight, bias) = (self.matrix("weight")?, self.vector("bias")?);
        let (b, c, z) = (self.turned("B")?, self.turned("C")?, self.turned("z")?);
        let (a, d) = (self.matrix("A")?, self.vector("D")?);
        let delta_bias = self.vector("delta_bias")?;
        let (split, length) = (whole(self.entry, "split")?, x.len_of(Axis(1)));
        ensure!(split <= length, "split {split} of {length}");
        let (taps, forward) = (weight.view(), Direction::Forward);

        let u = causal_conv1d(x.view(), taps, Some(bias.view()), true, forward)?;
        self.expect("conv_out", u.view(), TURNED)?;
        let mut conv_state = Array3::zeros((x.dim().0, weight.ncols(), x.dim().2));
        let mut conv = |start: usize, end: usize| {
            let x = x.slice(s![.., start..end, ..]);
            let bias = Some(bias.view());
            causal_conv1d_update(conv_state.view_mut(), x, taps, bias, true, forward)
        };
        let first = conv(0, split)?;
        let second = {
            let state = conv_state.clone();
            self.expect("conv_state", state.view(), TURNED)?;
            let mut state = state;
            let x = x.slice(s![.., split.., ..]);
            causal_conv1d_update(state.view_mut(), x, taps, Some(bias.view()), true, forward)?
        };
        let joined = concatenate(Axis(1), &[first.view(), second.view()])?;
        self.expect("conv_out", joined.view(), TURNED)?;

        let run =
            |start: usize, end: usize, state: Option<&Array3<T>>, dout: Option<&Array3<T>>| {
                let cut = s![.., start..end, ..];
                let options = ScanOptions {
                    d: Some(d.view()),
                    z: Some(z.slice(cut)),
                    delta_bias: Some(delta_bias.view()),
                    delta_softplus: true,
                    initial_state: state.map(|x| x.view()),
                    ..ScanOptions::default()
                };
                let (u, delta) = (u.slice(cut), delta.slice(cut));
                let (b, c) = (b.slice(cut), c.slice(cut));
                let out = selective_scan(u, delta, a.view(), b, c, &options)?;
                let grads = dout.map(|dout| {
                    selective_scan_grad(u, delta, a.view(), b, c, &options, dout.view(), None)
                });
                anyhow::Ok((out, grads.transpose()?))
            };
        let (all, _) = run(0, length, None, None)?;
        self.expect("out", all.y.view(), TURNED)?;
        self.expect("last_state", all.last_state.view(), PLAIN)?;
        let (first, _) = run(0, split, None, None)?;
        self.expect("mid_state", first.last_state.view(), PLAIN)?;
        let dout = self.turned("g_second")?;
        let (second, grads) = run(split, length, Some(&first.last_state), Some(&dout))?;
        let joined = concatenate(Axis(1), &[first.y.view(), second.y.view()])?;
        self.expect("out", joined.view(), TURNED)?;
        self.expect("last_state", second.last_state.view(), PLAIN)?;
        let grad = grads.and_then(|grads| grads.initial_state);
        let grad = grad.context("no gradient of the initial state")?;
        self.expect("grad_mid_state", grad.view(), PLAIN)
    }

    /// Single tokens. Heads are channels side by side.
    fn state_update<T: Number>(&self) -> Result<()> {
        let (heads, groups) = (whole(self.entry, "heads")?, whole(self.entry, "groups")?);
        let (batch, steps) = (whole(self.entry, "B")?, whole(self.entry, "steps")?);
        let (states, channels) = (
            whole(self.entry, "N")?,
            whole(self.entry, "D")? * heads.max(1),
        );
        let stored = |name: &str| -> Result<Vec<T>> {
            let values = self.case.tensor(&self.name(name))?.f32();
            Ok(values.into_iter().map(T::from).collect())
        };
        let tokens = |name: &str| -> Result<Array3<T>> {
            Ok(Array3::from_shape_vec(
                (steps, batch, channels),
                stored(name)?,
            )?)
        };
        let (x, dt) = (tokens("x")?, tokens("dt")?);
        let a = Array2::from_shape_vec((channels, states), stored("A")?)?;
        let rows = (steps, batch, 1, groups.max(1), states);
        let b = Array::from_shape_vec(rows, stored("B")?)?;
        let c = Array::from_shape_vec(rows, stored("C")?)?;
        let has = |key| flag(self.entry, key);
        let z = has("z")?.then(|| tokens("z")).transpose()?;
        let vector = |name| Ok::<_, anyhow::Error>(Array1::from(stored(name)?));
        let d = has("D_skip")?.then(|| vector("D")).transpose()?;
        let bias = has("dt_bias")?.then(|| vector("dt_bias")).transpose()?;
        let mut state = Array3::from_shape_vec((batch, channels, states), stored("state")?)?;
        let (mut outs, mut after) = (Vec::new(), Vec::new());
        for i in 0..steps {
            let token = |x: &'_ Array3<T>| x.slice(s![i, .., ..]).insert_axis(Axis(1)).to_owned();
            let z = z.as_ref().map(token);
            let options = ScanOptions {
                d: d.as_ref().map(|x| x.view()),
                z: z.as_ref().map(|x| x.view()),
                delta_bias: bias.as_ref().map(|x| x.view()),
                delta_softplus: has("dt_softplus")?,
                ..ScanOptions::default()
            };
            let (x, dt) = (token(&x), token(&dt));
            let (b, c) = (b.index_axis(Axis(0), i), c.index_axis(Axis(0), i));
            let (u, delta) = (x.view(), dt.view());
            let y = selective_state_update(state.view_mut(), u, delta, a.view(), b, c, &options)?;
            outs.extend(y.iter().map(|&x| -> f64 { x.into() }));
            after.extend(state.iter().map(|&x| -> f64 { x.into() }));
        }
        self.expect_values("out", &outs)?;
        self.expect_values("states", &after)
    }

    fn conv_update<T: Number>(&self) -> Result<()> {
        // (steps, batch, channels).
        let x = self.plain3::<T>("x")?;
        let weight = self.matrix("weight")?;
        let bias = flag(self.entry, "bias")?.then(|| self.vector("bias"));
        let bias = bias.transpose()?;
        let silu = match self.entry.get("activation") {
            None | Some(Value::Null) => false,
            Some(name) if name == "silu" => true,
            Some(name) => bail!("unknown activation {name}"),
        };
        let mut state = self.turned("conv_state")?;
        let (mut outs, mut after) = (Vec::new(), Vec::new());
        for token in x.outer_iter() {
            let token = token.insert_axis(Axis(1));
            let bias = bias.as_ref().map(|x| x.view());
            let (taps, forward) = (weight.view(), Direction::Forward);
            let y = causal_conv1d_update(state.view_mut(), token, taps, bias, silu, forward)?;
            outs.extend(y.iter().map(|&x| -> f64 { x.into() }));
            let turned = state.view().permuted_axes(TURNED);
            after.extend(turned.iter().map(|&x| -> f64 { x.into() }));
        }
        self.expect_values("out", &outs)?;
        self.expect_values("states", &after)
    }

    /// A mixer over a prefix at once, then token by token.
    fn mixer_step<B: ScanBackend>(&self, backend: &B) -> Result<()> {
        let entry = self.entry;
        let d_model = whole(entry, "d_model")?;
        let config = MixerConfig {
            d_inner: whole(entry, "expand")? * d_model,
            d_state: whole(entry, "d_state")?,
            d_conv: whole(entry, "d_conv")?,
            dt_rank: whole(entry, "dt_rank")?,
            bias: flag(entry, "bias")?,
            conv_bias: flag(entry, "conv_bias")?,
            ..MixerConfig::new(d_model)
        };
        let (batch, length) = (whole(entry, "B")?, whole(entry, "L")?);
        let prefix = whole(entry, "prefix")?;
        ensure!(prefix <= length, "prefix {prefix} of {length}");
        let mut table = ParamTable::new();
        let mixer = CausalMixer::new(&mut table, "", config, 1.0);
        let weights = own_weights(self.case, &self.name("param."), &table)?;
        let params = backend.from_f32(&weights);
        let layout = Layout::dense(batch, length, d_model);
        let stored = self.case.tensor(&self.name("x"))?.f32();
        ensure!(stored.len() == layout.elements(), "x has another size");
        let x = TokenBuf::from_f32(backend, layout, &stored);

        let mut out = TokenBuf::new(backend, layout);
        let mut state = mixer.start(backend, batch);
        let (mut conv, mut ssm) = (Vec::new(), Vec::new());
        let mut start = 0;
        for end in prefix..=length {
            let count = end - start;
            // Products take whole matrices, so tokens of several samples are copied together.
            let mut piece = TokenBuf::dense(backend, batch, count, d_model);
            backend.copy(x.tokens(start, count), piece.view_mut())?;
            let mut to = TokenBuf::dense(backend, batch, count, d_model);
            mixer.advance(
                Ctx::new(backend, &params),
                &mut state,
                piece.view(),
                to.view_mut(),
            )?;
            backend.copy(to.view(), out.tokens_mut(start, count))?;
            conv.extend(super::scan::transpose(
                &values(backend, &state.conv)?,
                batch,
                config.d_conv,
                config.d_inner,
            ));
            ssm.extend(values(backend, &state.ssm)?);
            start = end;
        }
        self.expect_values("out", &values(backend, &out)?)?;
        self.expect_values("conv_states", &conv)?;
        self.expect_values("ssm_states", &ssm)
    }
}

/// B or C in one of its forms, by the number of its axes.
struct Form<T>(ArrayD<T>);

impl<T: Number> Form<T> {
    fn view(&self) -> Result<ScanMatrix<'_, T>> {
        let view = self.0.view();
        Ok(match view.ndim() {
            2 => view.into_dimensionality::<ndarray::Ix2>()?.into(),
            3 => view.into_dimensionality::<ndarray::Ix3>()?.into(),
            _ => view.into_dimensionality::<ndarray::Ix4>()?.into(),
        })
    }
}
