//! Samplers: from noise to images, one iteration at a time.

mod ancestral;
mod ddim;
mod dpm;
mod euler;
mod euler_ancestral;
mod grid;
mod heun;
mod level;
mod limit;
mod rule;
mod run;
mod spec;
mod unipc;

use ndarray::Array4;

pub use ancestral::{Ancestral, p_sample};
pub use ddim::{Ddim, ddim_reverse_step, ddim_step};
pub use dpm::{Correction, DpmOptions, DpmSolver, ThirdOrder};
pub use euler::Euler;
pub use euler_ancestral::EulerAncestral;
pub use grid::{End, Grid, GridOptions, LastLevel, MIN_ALPHA_BAR, Ramp, Rounding, Stride};
pub(crate) use grid::{linspace, trailing};
pub use heun::Heun;
pub use level::Level;
pub use limit::Limit;
pub use rule::{At, Estimate, Sampler};
pub(crate) use run::heed;
pub use run::{GoOn, Progress, Run, sample};
pub use spec::{Plan, SamplerSpec, Spacing};
pub use unipc::{UniPc, UniPcKind, UniPcOptions};

/// What one iteration gives.
#[derive(Clone, Debug)]
pub struct Step<S = Array4<f32>> {
    /// The image after the iteration.
    pub sample: S,
    /// The estimate of the final image that the iteration used.
    pub pred_xstart: S,
}
