//! Times and conditions of a batch on the device: all that a model is told besides the image, and all
//! that comes from the host.

use crate::ModelBackend;
use dis_ssm::TokenBuf;
use dis_tensor::Layout;

use crate::config::ConditionKind;
use crate::error::{ModelError, Result};
use crate::model::{Condition, DisModel};
use crate::time::time_embedding;

/// Times and conditions of a batch, on the device. From [`DisModel::inputs`].
#[derive(Debug)]
pub struct ModelInputs<B: ModelBackend> {
    /// Embedded times, (batch, 1, D).
    pub(crate) sinusoid: TokenBuf<B>,
    pub(crate) labels: Option<B::Buf<u32>>,
    pub(crate) context: Option<ContextInputs<B>>,
}

/// A context, (batch, tokens, dim).
#[derive(Debug)]
pub(crate) struct ContextInputs<B: ModelBackend> {
    pub(crate) embeddings: TokenBuf<B>,
    /// Per sample 1 where the given context is used, and where the null one is.
    pub(crate) masks: Option<[TokenBuf<B>; 2]>,
}

impl<B: ModelBackend> ModelInputs<B> {
    /// Samples.
    pub fn batch(&self) -> usize {
        self.sinusoid.layout.batch
    }
}

/// 1 for the samples whose flag has this value.
fn mask(null: &[bool], value: bool) -> Vec<f32> {
    let one = |&flag: &bool| f32::from(u8::from(flag == value));
    null.iter().map(one).collect()
}

impl DisModel {
    /// Puts times (in steps of the original schedule; one a sample) and conditions on the device.
    ///
    /// # Errors
    /// No sample, a time that is not finite, a condition that is not the model's kind or does not fit
    /// the batch, labels outside of the table.
    pub fn inputs<B: ModelBackend>(
        &self,
        backend: &B,
        t: &[f64],
        condition: Condition<'_>,
    ) -> Result<ModelInputs<B>> {
        self.check_inputs(t, condition)?;
        let (batch, d) = (t.len(), self.config.embed_dim);
        let mut sinusoid = TokenBuf::dense(backend, batch, 1, d);
        backend.write_f64(&mut sinusoid.buf, 0, &time_embedding(t, d))?;
        let (mut labels, mut context) = (None, None);
        match condition {
            Condition::None => {}
            Condition::Classes(ids) => labels = Some(backend.upload(ids)),
            Condition::Context { embeddings, null } => {
                let [tokens, dim] = self.context_shape();
                let layout = Layout::dense(batch, tokens, dim);
                let flags = Layout::dense(batch, 1, 1);
                let put = |value| TokenBuf::from_f32(backend, flags, &mask(null, value));
                context = Some(ContextInputs {
                    embeddings: TokenBuf::from_f32(backend, layout, embeddings),
                    masks: self.null_context.map(|_| [put(false), put(true)]),
                });
            }
        }
        Ok(ModelInputs {
            sinusoid,
            labels,
            context,
        })
    }

    /// Overwrites times and conditions where they lie, in stream order: what was recorded with these
    /// inputs then runs with the new ones.
    ///
    /// # Errors
    /// As [`DisModel::inputs`], or a batch of another size.
    pub fn rewrite_inputs<B: ModelBackend>(
        &self,
        backend: &B,
        inputs: &mut ModelInputs<B>,
        t: &[f64],
        condition: Condition<'_>,
    ) -> Result<()> {
        self.check_inputs(t, condition)?;
        if t.len() != inputs.batch() {
            return Err(ModelError::Input(format!(
                "{} times in place of {}",
                t.len(),
                inputs.batch()
            )));
        }
        let embedded = time_embedding(t, self.config.embed_dim);
        backend.write_f64(&mut inputs.sinusoid.buf, 0, &embedded)?;
        if let (Some(buf), Condition::Classes(ids)) = (&mut inputs.labels, condition) {
            backend.write_ids(buf, ids)?;
        }
        if let (Some(context), Condition::Context { embeddings, null }) =
            (&mut inputs.context, condition)
        {
            backend.write_f32(&mut context.embeddings.buf, 0, embeddings)?;
            if let Some(masks) = &mut context.masks {
                for (place, value) in masks.iter_mut().zip([false, true]) {
                    backend.write_f32(&mut place.buf, 0, &mask(null, value))?;
                }
            }
        }
        Ok(())
    }

    /// Tokens and values a token of a context.
    fn context_shape(&self) -> [usize; 2] {
        match self.config.condition {
            ConditionKind::Context { dim, tokens, .. } => [tokens, dim],
            _ => [0, 0],
        }
    }

    fn check_inputs(&self, t: &[f64], condition: Condition<'_>) -> Result<()> {
        let batch = t.len();
        if batch == 0 {
            return Err(ModelError::Input("a batch of no samples".into()));
        }
        if let Some(t) = t.iter().find(|t| !t.is_finite()) {
            return Err(ModelError::Input(format!(
                "diffusion time {t} is not a number"
            )));
        }
        match (self.config.condition, condition) {
            (ConditionKind::None, Condition::None) => Ok(()),
            (
                ConditionKind::Classes {
                    num_classes,
                    null_label,
                },
                Condition::Classes(ids),
            ) => {
                if ids.len() != batch {
                    return Err(ModelError::Input(format!(
                        "{} labels for a batch of {batch}",
                        ids.len()
                    )));
                }
                let rows = num_classes + usize::from(null_label);
                match ids.iter().find(|&&id| id as usize >= rows) {
                    Some(id) => Err(ModelError::Input(format!(
                        "label {id} is outside the table of {rows} rows"
                    ))),
                    None => Ok(()),
                }
            }
            (ConditionKind::Context { .. }, Condition::Context { embeddings, null }) => {
                let [tokens, dim] = self.context_shape();
                if embeddings.len() != batch * tokens * dim || null.len() != batch {
                    return Err(ModelError::Input(format!(
                        "a context of {} values and {} flags for a batch of {batch} x {tokens} x {dim}",
                        embeddings.len(),
                        null.len()
                    )));
                }
                if self.null_context.is_none() && null.contains(&true) {
                    return Err(ModelError::Input("this model has no null context".into()));
                }
                Ok(())
            }
            (ConditionKind::None, _) => Err(ModelError::Input(
                "a condition was given to an unconditional model".into(),
            )),
            (ConditionKind::Classes { .. }, _) => Err(ModelError::Input(
                "this model needs a class label for every sample".into(),
            )),
            (ConditionKind::Context { .. }, _) => Err(ModelError::Input(
                "this model needs a sequence of embeddings for every sample".into(),
            )),
        }
    }
}
