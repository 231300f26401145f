//! Limits on the estimate of the image, applied in every iteration.

use crate::{Error, Result, State};

/// What an estimate of `x_0` is limited to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// Values beyond plus or minus this are cut off.
    Clip(f64),
    /// Dynamic thresholding (Saharia et al., "Photorealistic Text-to-Image Diffusion Models with
    /// Deep Language Understanding", 2022, section 2.3): with s the quantile `ratio` of a sample's
    /// absolute values, at least 1 and at most `max`, values are cut off at plus or minus s and
    /// divided by s.
    Dynamic {
        /// The quantile, in [0, 1]; 0.995 is usual.
        ratio: f64,
        /// Largest s. With 1 this is [`Clip`](Self::Clip) at 1; infinite as published.
        max: f64,
    },
}

impl Default for Limit {
    /// Cut off at 1.
    fn default() -> Self {
        Self::Clip(1.0)
    }
}

impl Limit {
    /// Limits every sample of `x`.
    ///
    /// # Errors
    /// A ratio outside [0, 1] or limits that are not positive.
    pub fn apply<S: State>(self, x: S) -> Result<S> {
        let mut x = x;
        match self {
            Self::Clip(bound) if bound > 0.0 => {
                x.clamp(-bound as f32, bound as f32)?;
                Ok(x)
            }
            Self::Dynamic { ratio, max } if (0.0..=1.0).contains(&ratio) && max > 0.0 => {
                x.threshold(ratio, max)?;
                Ok(x)
            }
            _ => Err(Error::Invalid(format!("{self:?} is no limit for images"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array4, array};

    use super::*;

    fn rows(values: [[f32; 5]; 2]) -> Array4<f32> {
        let flat: Vec<f32> = values.concat();
        Array4::from_shape_vec((2, 1, 1, 5), flat).unwrap()
    }

    #[test]
    fn dynamic_thresholding_scales_what_leaves_the_range() {
        let x = rows([[0.0, -1.0, 2.0, -3.0, 4.0], [0.1, 0.2, -0.3, 0.4, -0.5]]);
        let half = Limit::Dynamic {
            ratio: 0.625,
            max: f64::INFINITY,
        };
        // Of 0 1 2 3 4 the quantile is 2.5; of the other row 0.35, raised to 1.
        let y = half.apply(x.clone()).unwrap();
        let expected = rows([[0.0, -0.4, 0.8, -1.0, 1.0], [0.1, 0.2, -0.3, 0.4, -0.5]]);
        assert!(y.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6));
        // With s at most 1 it is cutting off.
        let capped = Limit::Dynamic {
            ratio: 0.995,
            max: 1.0,
        };
        assert_eq!(
            capped.apply(x.clone()).unwrap(),
            Limit::default().apply(x).unwrap()
        );
    }

    #[test]
    fn absurd_limits_are_refused() {
        let x = array![[[[1.0f32]]]];
        for limit in [
            Limit::Clip(0.0),
            Limit::Clip(f64::NAN),
            Limit::Dynamic {
                ratio: 1.5,
                max: 1.0,
            },
        ] {
            assert!(limit.apply(x.clone()).is_err());
        }
    }
}
