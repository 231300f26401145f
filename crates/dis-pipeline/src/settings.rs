//! How images are drawn.

use dis_diffusion::{DpmOptions, Guidance, Limit, Plan, SamplerSpec, Spacing};
use dis_model::{DisConfig, Metadata};

use crate::diffusion::diffusion_options;
use crate::error::{PipelineError, Result};

/// Steps of other samplers where none are named.
const USUAL_STEPS: usize = 50;

/// How images are drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The sampler; [`Default`] is `dpmpp-2m`.
    pub sampler: SamplerSpec,
    /// Its steps, 1 to those of the diffusion; 20.
    pub steps: usize,
    /// How the steps are spread over time; as Karras.
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
            // Nearest to the data of all that call the network twenty times; more gain nothing (docs/results.md).
            sampler: SamplerSpec::Dpm(DpmOptions::new(2)),
            steps: 20,
            spacing: Spacing::Karras,
            limit: None,
            guidance: None,
            seed: 0,
            batch_size: 16,
        }
    }
}

impl Settings {
    /// A sampler, and the steps and spacing that go with it where they are not named: `dpmpp-2m` in 20 steps
    /// of Karras where no sampler is, 50 steps of the default spacing where one is.
    pub fn of(
        sampler: Option<SamplerSpec>,
        steps: Option<usize>,
        spacing: Option<Spacing>,
    ) -> Self {
        let usual = match sampler {
            None => Self::default(),
            Some(sampler) => Self {
                sampler,
                steps: USUAL_STEPS,
                spacing: Spacing::Default,
                ..Self::default()
            },
        };
        Self {
            steps: steps.unwrap_or(usual.steps),
            spacing: spacing.unwrap_or(usual.spacing),
            ..usual
        }
    }

    /// As the code of the paper samples: all its noise drawn anew in 250 steps.
    pub fn published() -> Self {
        Self {
            steps: 250,
            ..Self::of(Some(SamplerSpec::Ancestral), None, None)
        }
    }

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
