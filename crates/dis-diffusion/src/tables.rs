//! The per-step coefficients of a Gaussian diffusion (Ho et al., "Denoising Diffusion
//! Probabilistic Models", 2020, equations 2 to 7), all in float64.

use crate::{Error, Respacing, Result};

/// Coefficients indexed by step, 0 being the least noisy. With `alpha = 1 - beta` and `alpha_bar`
/// the product of all alphas up to and including a step. Field names are the published ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Tables {
    /// Noise variance added by each step.
    pub betas: Vec<f64>,
    /// `alpha_bar`.
    pub alphas_cumprod: Vec<f64>,
    /// `alpha_bar` of the step before; 1 for step 0.
    pub alphas_cumprod_prev: Vec<f64>,
    /// `alpha_bar` of the step after; 0 for the last.
    pub alphas_cumprod_next: Vec<f64>,
    /// `sqrt(alpha_bar)`.
    pub sqrt_alphas_cumprod: Vec<f64>,
    /// `sqrt(1 - alpha_bar)`.
    pub sqrt_one_minus_alphas_cumprod: Vec<f64>,
    /// `ln(1 - alpha_bar)`.
    pub log_one_minus_alphas_cumprod: Vec<f64>,
    /// `sqrt(1 / alpha_bar)`.
    pub sqrt_recip_alphas_cumprod: Vec<f64>,
    /// `sqrt(1 / alpha_bar - 1)`.
    pub sqrt_recipm1_alphas_cumprod: Vec<f64>,
    /// Variance of `q(x_(t-1) | x_t, x_0)`; 0 at step 0.
    pub posterior_variance: Vec<f64>,
    /// Its logarithm, with the entry of step 0 replaced by that of step 1 (by `ln beta` if there
    /// is one step only).
    pub posterior_log_variance_clipped: Vec<f64>,
    /// Coefficient of `x_0` in the mean of `q(x_(t-1) | x_t, x_0)`.
    pub posterior_mean_coef1: Vec<f64>,
    /// Coefficient of `x_t` in that mean.
    pub posterior_mean_coef2: Vec<f64>,
    /// The original step that the network is given for each step.
    pub timestep_map: Vec<usize>,
}

impl Tables {
    /// Names that [`by_name`](Self::by_name) knows, in the order of the fields.
    pub const NAMES: [&str; 13] = [
        "betas",
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "alphas_cumprod_next",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "log_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
        "posterior_variance",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "posterior_mean_coef2",
    ];

    /// Tables of the steps that `respacing` keeps of a schedule. New betas follow from the kept
    /// cumulative products: `beta' = 1 - alpha_bar / alpha_bar(kept step before)`.
    ///
    /// # Errors
    /// A beta outside (0, 1], or a respacing that does not fit.
    pub fn new(betas: &[f64], respacing: &Respacing) -> Result<Self> {
        let kept = respacing.timesteps(betas.len())?;
        let original = cumulative(betas);
        let mut before = 1.0;
        let spaced: Vec<f64> = kept
            .iter()
            .map(|&step| {
                let beta = 1.0 - original[step] / before;
                before = original[step];
                beta
            })
            .collect();
        if let Some(beta) = betas
            .iter()
            .chain(&spaced)
            .find(|b| !(**b > 0.0 && **b <= 1.0))
        {
            return Err(Error::Invalid(format!("beta {beta} is not in (0, 1]")));
        }
        Ok(Self::of_betas(spaced, kept))
    }

    fn of_betas(betas: Vec<f64>, timestep_map: Vec<usize>) -> Self {
        let steps = betas.len();
        let bar = cumulative(&betas);
        let prev: Vec<f64> = std::iter::once(1.0)
            .chain(bar.iter().copied())
            .take(steps)
            .collect();
        let next: Vec<f64> = bar
            .iter()
            .skip(1)
            .copied()
            .chain(std::iter::once(0.0))
            .collect();
        let of_bar = |f: fn(f64) -> f64| bar.iter().map(|&a| f(a)).collect::<Vec<f64>>();
        let per_step = |f: &dyn Fn(usize) -> f64| (0..steps).map(f).collect::<Vec<f64>>();
        let posterior_variance = per_step(&|t| betas[t] * (1.0 - prev[t]) / (1.0 - bar[t]));
        let posterior_log_variance_clipped = per_step(&|t| {
            // Step 0 has no variance; its neighbour stands in, so that the logarithm is finite.
            let v = posterior_variance.get(t.max(1)).copied();
            v.unwrap_or(betas[t]).ln()
        });
        Self {
            sqrt_alphas_cumprod: of_bar(f64::sqrt),
            sqrt_one_minus_alphas_cumprod: of_bar(|a| (1.0 - a).sqrt()),
            log_one_minus_alphas_cumprod: of_bar(|a| (1.0 - a).ln()),
            sqrt_recip_alphas_cumprod: of_bar(|a| (1.0 / a).sqrt()),
            sqrt_recipm1_alphas_cumprod: of_bar(|a| (1.0 / a - 1.0).sqrt()),
            posterior_mean_coef1: per_step(&|t| betas[t] * prev[t].sqrt() / (1.0 - bar[t])),
            posterior_mean_coef2: per_step(&|t| {
                (1.0 - prev[t]) * (1.0 - betas[t]).sqrt() / (1.0 - bar[t])
            }),
            posterior_variance,
            posterior_log_variance_clipped,
            alphas_cumprod_prev: prev,
            alphas_cumprod_next: next,
            alphas_cumprod: bar,
            betas,
            timestep_map,
        }
    }

    /// Number of steps.
    pub fn steps(&self) -> usize {
        self.betas.len()
    }

    /// A float64 table by its published name; [`NAMES`](Self::NAMES) lists them.
    pub fn by_name(&self, name: &str) -> Option<&[f64]> {
        let tables: [&[f64]; 13] = [
            &self.betas,
            &self.alphas_cumprod,
            &self.alphas_cumprod_prev,
            &self.alphas_cumprod_next,
            &self.sqrt_alphas_cumprod,
            &self.sqrt_one_minus_alphas_cumprod,
            &self.log_one_minus_alphas_cumprod,
            &self.sqrt_recip_alphas_cumprod,
            &self.sqrt_recipm1_alphas_cumprod,
            &self.posterior_variance,
            &self.posterior_log_variance_clipped,
            &self.posterior_mean_coef1,
            &self.posterior_mean_coef2,
        ];
        Self::NAMES
            .iter()
            .position(|known| *known == name)
            .map(|i| tables[i])
    }
}

/// Cumulative products of `1 - beta`.
fn cumulative(betas: &[f64]) -> Vec<f64> {
    betas
        .iter()
        .scan(1.0, |product, beta| {
            *product *= 1.0 - beta;
            Some(*product)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Schedule;

    #[test]
    fn one_kept_step_has_finite_tables() {
        let betas = Schedule::Linear.betas(1000).unwrap();
        let tables = Tables::new(&betas, &Respacing::Steps(vec![999])).unwrap();
        assert_eq!(tables.timestep_map, [999]);
        for name in Tables::NAMES {
            assert!(
                tables.by_name(name).unwrap().iter().all(|x| x.is_finite()),
                "{name}"
            );
        }
        assert!(tables.by_name("gammas").is_none());
    }

    #[test]
    fn bad_betas_are_refused() {
        for bad in [0.0, -0.1, 1.1, f64::NAN] {
            assert!(
                Tables::new(&[0.1, bad, 0.1], &Respacing::All).is_err(),
                "{bad}"
            );
        }
    }
}
