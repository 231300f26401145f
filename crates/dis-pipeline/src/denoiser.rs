//! A [`DisModel`] as the network that samplers see.

use dis_diffusion::{Conditional, Denoiser, Error, OnDevice, Result, State};
use dis_model::ModelBackend;
use dis_model::{Condition, ConditionKind, DisModel};
use dis_tensor::Reals;
use ndarray::Array4;

use crate::repeat::Repeated;

/// A model, its weights, and the label of each sample.
///
/// On a device that can, what it launches for a batch is recorded at the second call and repeated at
/// all later ones (see [`ModelDenoiser::recorded`]).
#[derive(Debug)]
pub struct ModelDenoiser<'a, B: ModelBackend> {
    backend: &'a B,
    model: &'a DisModel,
    params: &'a Reals<B>,
    labels: &'a [u32],
    repeated: Repeated<B>,
}

impl<'a, B: ModelBackend> ModelDenoiser<'a, B> {
    /// `labels` holds one class a sample, and is empty for an unconditional model.
    pub fn new(
        backend: &'a B,
        model: &'a DisModel,
        params: &'a Reals<B>,
        labels: &'a [u32],
    ) -> Self {
        Self {
            backend,
            model,
            params,
            labels,
            repeated: Repeated::new(backend),
        }
    }

    /// The same network, which launches everything anew at every call unless `recorded`. The results
    /// are the same, bit for bit.
    pub fn recorded(mut self, recorded: bool) -> Self {
        self.repeated.allow(recorded);
        self
    }

    fn run(&mut self, x: &OnDevice<B>, t: &[f64], condition: Condition<'_>) -> Result<OnDevice<B>> {
        let config = self.model.config();
        let [batch, _, height, width] = x.dims();
        let [channels, rows, columns] = config.image_shape();
        let expected = [batch, channels, rows, columns];
        if x.dims() != expected {
            return Err(Error::shape("model input", &x.dims(), &expected));
        }
        if t.len() != batch {
            return Err(Error::Count {
                what: "timesteps",
                got: t.len(),
                expected: batch,
            });
        }
        let (backend, repeated) = (self.backend, &mut self.repeated);
        let (model, params, image) = (self.model, self.params, x.buf());
        let out =
            backend.within(|| repeated.forward(backend, model, params, image, t, condition))?;
        let dims = [batch, config.out_channels(), height, width];
        OnDevice::from_buf(self.backend, out, dims)
    }
}

impl<B: ModelBackend> Conditional<OnDevice<B>> for ModelDenoiser<'_, B> {
    fn predict_rows(
        &mut self,
        x: &OnDevice<B>,
        t: &[f64],
        conditions: &[Option<usize>],
    ) -> Result<OnDevice<B>> {
        if let ConditionKind::None = self.model.config().condition {
            return self.run(x, t, Condition::None);
        }
        let null = self.model.config().null_label();
        let labels: Result<Vec<u32>> = conditions
            .iter()
            .map(|row| match row {
                Some(sample) => self.labels.get(*sample).copied().ok_or_else(|| {
                    Error::Invalid(format!(
                        "sample {sample} has no label: {} were given",
                        self.labels.len()
                    ))
                }),
                None => null.ok_or_else(|| {
                    Error::Invalid(
                        "guidance needs a model with a null label, and this one has none".into(),
                    )
                }),
            })
            .collect();
        self.run(x, t, Condition::Classes(&labels?))
    }
}

impl<B: ModelBackend> Conditional for ModelDenoiser<'_, B> {
    fn predict_rows(
        &mut self,
        x: &Array4<f32>,
        t: &[f64],
        conditions: &[Option<usize>],
    ) -> Result<Array4<f32>> {
        let x = OnDevice::new(self.backend, x.clone());
        self.predict_rows(&x, t, conditions)?.fetch()
    }
}

impl<B: ModelBackend> Denoiser<OnDevice<B>> for ModelDenoiser<'_, B> {
    fn predict(&mut self, x: &OnDevice<B>, t: &[f64]) -> Result<OnDevice<B>> {
        let rows: Vec<Option<usize>> = (0..x.dims()[0]).map(Some).collect();
        self.predict_rows(x, t, &rows)
    }
}

impl<B: ModelBackend> Denoiser for ModelDenoiser<'_, B> {
    fn predict(&mut self, x: &Array4<f32>, t: &[f64]) -> Result<Array4<f32>> {
        let rows: Vec<Option<usize>> = (0..x.dim().0).map(Some).collect();
        self.predict_rows(x, t, &rows)
    }
}
