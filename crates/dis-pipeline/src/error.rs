//! What drawing can refuse.

/// Errors of pipelines.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// A setting, label or image that does not fit the model.
    #[error("{0}")]
    Invalid(String),
    /// The model could not be built, run or read.
    #[error(transparent)]
    Model(#[from] dis_model::ModelError),
    /// The diffusion could not be set up or run.
    #[error(transparent)]
    Diffusion(#[from] dis_diffusion::Error),
    /// The device failed.
    #[error(transparent)]
    Tensor(#[from] dis_tensor::TensorError),
}

impl PipelineError {
    /// Whether values became infinite or no numbers.
    pub fn is_divergence(&self) -> bool {
        matches!(
            self,
            Self::Diffusion(dis_diffusion::Error::NotFinite { .. })
        )
    }

    /// Whether who watched the drawing ended it.
    pub fn is_ended(&self) -> bool {
        matches!(self, Self::Diffusion(dis_diffusion::Error::Ended { .. }))
    }

    pub(crate) fn config(what: impl Into<String>) -> Self {
        Self::Invalid(what.into())
    }
}

/// Result of pipelines.
pub type Result<T> = std::result::Result<T, PipelineError>;
