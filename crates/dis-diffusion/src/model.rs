//! A [`DisModel`] as the network that samplers see.

use dis_model::{Condition, ConditionKind, DisModel, ModelInput};
use dis_scan::ScanBackend;
use dis_tensor::{Reals, TensorError};
use ndarray::Array4;

use crate::{Conditional, Denoiser, Error, Result};

/// A model, its weights, and the label of each sample.
#[derive(Debug)]
pub struct ModelDenoiser<'a, B: ScanBackend> {
    backend: &'a B,
    model: &'a DisModel,
    params: &'a Reals<B>,
    labels: &'a [u32],
}

impl<'a, B: ScanBackend> ModelDenoiser<'a, B> {
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
        }
    }

    fn run(&self, x: &Array4<f32>, t: &[f64], condition: Condition<'_>) -> Result<Array4<f32>> {
        let config = self.model.config();
        let (batch, channels, height, width) = x.dim();
        let expected = [batch, config.channels, config.image_size, config.image_size];
        if x.shape() != expected {
            return Err(Error::shape("model input", x.shape(), &expected));
        }
        let image = match x.as_slice() {
            Some(values) => self.backend.from_f32(values),
            None => self
                .backend
                .from_f32(&x.iter().copied().collect::<Vec<_>>()),
        };
        debug_assert_eq!(channels, config.channels);
        let input = ModelInput {
            image: &image,
            t,
            condition,
            drop_path: None,
        };
        let out = self
            .model
            .forward(self.backend, self.params, &input)
            .map_err(Error::network)?;
        let shape = (batch, config.out_channels(), height, width);
        let values = self.backend.to_f32(&out);
        if let Some(what) = self.backend.failure() {
            return Err(Error::network(TensorError::Device { op: "read", what }));
        }
        Array4::from_shape_vec(shape, values).map_err(Error::network)
    }
}

impl<B: ScanBackend> Conditional for ModelDenoiser<'_, B> {
    fn predict_rows(
        &mut self,
        x: &Array4<f32>,
        t: &[f64],
        conditions: &[Option<usize>],
    ) -> Result<Array4<f32>> {
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

impl<B: ScanBackend> Denoiser for ModelDenoiser<'_, B> {
    fn predict(&mut self, x: &Array4<f32>, t: &[f64]) -> Result<Array4<f32>> {
        let rows: Vec<Option<usize>> = (0..x.dim().0).map(Some).collect();
        self.predict_rows(x, t, &rows)
    }
}
