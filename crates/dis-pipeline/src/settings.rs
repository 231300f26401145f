//! How images are drawn.

use dis_diffusion::{Guidance, Limit, Plan, SamplerSpec, Spacing};
use dis_model::{DisConfig, Metadata};

use crate::diffusion::diffusion_options;
use crate::error::{PipelineError, Result};

/// How images are drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The sampler.
    pub sampler: SamplerSpec,
    /// Its steps, 1 to those of the diffusion.
    pub steps: usize,
    /// How the steps are spread over time.
    pub spacing: Spacing,
    /// What the estimate of the image is limited to in every step.
    pub limit: Option<Limit>,
    /// Guidance; that of [`usual_guidance`] where none is given.
    pub guidance: Option<Guidance>,
    /// Seed: image i depends on (seed, i) alone.
    pub seed: u64,
    /// Images at a time; decides speed and memory, not the images.
    pub batch_size: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sampler: SamplerSpec::Ddim { eta: 0.0 },
            steps: 50,
            spacing: Spacing::Default,
            limit: None,
            guidance: None,
            seed: 0,
            batch_size: 16,
        }
    }
}

impl Settings {
    /// The levels and the rule of a run through the diffusion that a checkpoint describes.
    ///
    /// # Errors
    /// Steps that the diffusion does not have, metadata that describe no diffusion.
    pub fn plan(&self, metadata: &Metadata) -> Result<Plan> {
        let options = diffusion_options(metadata)?;
        let steps = self.steps;
        if steps == 0 || steps > options.steps {
            return Err(PipelineError::config(format!(
                "{steps} sampler steps, but the diffusion has 1 to {}",
                options.steps
            )));
        }
        let plan = self.sampler.plan(&options, steps, self.spacing)?;
        Ok(plan.with_limit(self.limit))
    }
}

/// Guidance by 1.5 for models that can be guided, none for others.
pub fn usual_guidance(config: &DisConfig) -> Guidance {
    let guided = config.null_label().is_some();
    Guidance::new(if guided { 1.5 } else { 1.0 })
}
