//! A model with weights on a backend, as the checks use it.

use anyhow::{Context, Result, bail};
use dis_model::ModelBackend;
use dis_model::checkpoint::{NamedTensor, arena_from_tensors};
use dis_model::{Condition, Ctx, DisConfig, DisModel, ModelInput};
use dis_pipeline::ModelDenoiser;
use dis_ssm::{ParamTable, TokenBuf};
use dis_tensor::{Backend, Buffer, Reals};
use ndarray::Array4;

use super::case::{Case, Rule};
use dis_golden::{Tensor, read_tensors};

/// All elements of a buffer.
pub fn buffer_values<B: Backend>(backend: &B, buf: &Reals<B>) -> Result<Vec<f64>> {
    let mut out = vec![0.0; buf.len()];
    backend.read_f64(buf, 0, &mut out)?;
    Ok(out)
}

/// All elements of a token matrix, densely.
pub fn values<B: Backend>(backend: &B, x: &TokenBuf<B>) -> Result<Vec<f64>> {
    let all = buffer_values(backend, &x.buf)?;
    let layout = x.layout;
    let mut out = Vec::with_capacity(layout.elements());
    for b in 0..layout.batch {
        for t in 0..layout.tokens {
            let start = layout.row(b, t);
            out.extend_from_slice(&all[start..start + layout.channels]);
        }
    }
    Ok(out)
}

/// A stored (batch, channels, height, width).
pub fn image(tensor: &Tensor) -> Result<Array4<f32>> {
    let [b, c, h, w] = tensor.shape[..] else {
        bail!("shape {:?} is not one of images", tensor.shape);
    };
    Ok(Array4::from_shape_vec((b, c, h, w), tensor.f32())?)
}

/// Stored class ids.
pub fn labels(tensor: &Tensor) -> Result<Vec<u32>> {
    Ok(tensor.indices()?.into_iter().map(|x| x as u32).collect())
}

fn named<'a>(tensors: impl Iterator<Item = (&'a str, &'a Tensor)>) -> Vec<NamedTensor> {
    let one = |(name, tensor): (&str, &Tensor)| NamedTensor {
        name: name.to_string(),
        shape: tensor.shape.clone(),
        data: tensor.f32(),
    };
    tensors.map(one).collect()
}

/// An arena from the case's own tensors whose names begin with `prefix`, such as `param.`.
pub fn own_weights(case: &Case, prefix: &str, table: &ParamTable) -> Result<Vec<f32>> {
    let names = case.names(prefix);
    let mut tensors = Vec::with_capacity(names.len());
    for name in &names {
        tensors.push((name.trim_start_matches(prefix), case.tensor(name)?));
    }
    Ok(arena_from_tensors(
        table,
        &named(tensors.into_iter()),
        &case.manifest.dir,
    )?)
}

/// An arena from another file, given as `x.safetensors`, or `x.safetensors (prefix.*)`.
pub fn other_weights(case: &Case, reference: &str, table: &ParamTable) -> Result<Vec<f32>> {
    let (file, rest) = match reference.split_once(' ') {
        Some((file, rest)) => (file, rest.trim()),
        None => (reference, ""),
    };
    let prefix = match rest {
        "" => "",
        pattern => pattern
            .strip_prefix('(')
            .and_then(|p| p.strip_suffix("*)"))
            .with_context(|| format!("weights {reference:?} are not understood"))?,
    };
    let path = case.manifest.dir.join(file);
    let tensors = read_tensors(&path)?;
    let chosen = tensors
        .iter()
        .filter_map(|(name, t)| Some((name.strip_prefix(prefix)?, t)));
    Ok(arena_from_tensors(table, &named(chosen), &path)?)
}

/// A model with weights.
pub struct Network<'a, B: ModelBackend> {
    /// The architecture.
    pub model: DisModel,
    /// The parameter arena.
    pub params: Reals<B>,
    /// Where they are.
    pub backend: &'a B,
}

/// A batch for a network.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    /// (batch, channels, height, width).
    pub x: &'a [f32],
    /// Diffusion times.
    pub t: &'a [f64],
    /// Class ids, for a conditional model.
    pub labels: Option<&'a [u32]>,
    /// Factors under stochastic depth.
    pub drop_path: Option<&'a [Vec<f32>]>,
}

impl<'a, B: ModelBackend> Network<'a, B> {
    /// A model of this configuration with the weights that `load` gives for its parameters.
    pub fn new(
        config: DisConfig,
        backend: &'a B,
        load: impl FnOnce(&ParamTable) -> Result<Vec<f32>>,
    ) -> Result<Self> {
        let model = DisModel::new(config)?;
        let params = backend.from_f32(&load(model.table())?);
        Ok(Self {
            model,
            params,
            backend,
        })
    }

    fn with_input<T>(
        &self,
        batch: Batch<'_>,
        run: impl FnOnce(&ModelInput<'_, B>) -> dis_model::Result<T>,
    ) -> Result<T> {
        let image = self.backend.from_f32(batch.x);
        let conditional = self.model.config().condition != dis_model::ConditionKind::None;
        let condition = match batch.labels {
            Some(labels) if conditional => Condition::Classes(labels),
            None if conditional => bail!("a conditional model, but no labels are stored"),
            _ => Condition::None,
        };
        let input = ModelInput {
            image: &image,
            t: batch.t,
            condition,
            drop_path: batch.drop_path,
        };
        Ok(run(&input)?)
    }

    /// The output.
    pub fn forward(&self, batch: Batch<'_>) -> Result<Vec<f64>> {
        let out = self.with_input(batch, |input| {
            self.model
                .forward(Ctx::new(self.backend, &self.params), input)
        })?;
        buffer_values(self.backend, &out)
    }

    /// The output, and each block's hidden value and residual.
    #[allow(clippy::type_complexity)]
    pub fn forward_blocks(&self, batch: Batch<'_>) -> Result<(Vec<f64>, Vec<[Vec<f64>; 2]>)> {
        let mut blocks = Vec::new();
        let mut observe = |_: usize, out: &TokenBuf<B>, sum: &TokenBuf<B>| {
            blocks.push([values(self.backend, out), values(self.backend, sum)]);
        };
        let out = self.with_input(batch, |input| {
            self.model
                .forward_observed(Ctx::new(self.backend, &self.params), input, &mut observe)
        })?;
        let blocks = blocks
            .into_iter()
            .map(|[a, b]| Ok([a?, b?]))
            .collect::<Result<_>>()?;
        Ok((buffer_values(self.backend, &out)?, blocks))
    }

    /// Forward, and backward from the gradient that `dout` makes of the output, into `grads`.
    /// Returns the gradient of the image.
    pub fn gradients(
        &self,
        batch: Batch<'_>,
        grads: &mut Reals<B>,
        dout: impl FnOnce(&[f64]) -> Result<Vec<f32>>,
    ) -> Result<Vec<f64>> {
        let (out, saved) = self.with_input(batch, |input| {
            self.model
                .forward_saved(Ctx::new(self.backend, &self.params), input, false)
        })?;
        let dout = self
            .backend
            .from_f32(&dout(&buffer_values(self.backend, &out)?)?);
        let mut dimage = self.backend.zeros(batch.x.len());
        let (model, backend) = (&self.model, self.backend);
        model.backward(
            Ctx::new(backend, &self.params),
            saved,
            &dout,
            grads,
            Some(&mut dimage),
        )?;
        buffer_values(self.backend, &dimage)
    }

    /// A zeroed gradient arena.
    pub fn zero_grads(&self) -> Reals<B> {
        self.backend.zeros(self.model.table().len())
    }

    /// Holds an arena against stored tensors `prefix` + parameter name, which must all be there.
    pub fn expect_arena(
        &self,
        case: &Case,
        prefix: &str,
        arena: &Reals<B>,
        rule: Rule,
    ) -> Result<()> {
        expect_arena(
            case,
            self.model.table(),
            prefix,
            &buffer_values(self.backend, arena)?,
            rule,
        )
    }

    /// The network under these labels, as samplers see it.
    pub fn denoiser<'n>(&'n self, labels: &'n [u32]) -> ModelDenoiser<'n, B> {
        ModelDenoiser::new(self.backend, &self.model, &self.params, labels)
    }
}

/// Holds an arena against stored tensors `prefix` + parameter name, which must all be there.
pub fn expect_arena(
    case: &Case,
    table: &ParamTable,
    prefix: &str,
    arena: &[f64],
    rule: Rule,
) -> Result<()> {
    for spec in table.specs() {
        let ours = &arena[spec.offset..spec.offset + spec.len()];
        case.expect(&format!("{prefix}{}", spec.name), ours, rule)?;
    }
    Ok(())
}
