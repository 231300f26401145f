//! Noise levels: where on the way from image to noise an array is.

/// `x = alpha x_0 + sigma epsilon` with `alpha^2 + sigma^2 = 1`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// Factor of the image.
    pub alpha: f64,
    /// Standard deviation of the noise.
    pub sigma: f64,
}

impl Level {
    /// The image itself.
    pub const CLEAN: Self = Self {
        alpha: 1.0,
        sigma: 0.0,
    };

    /// The level of a step with this `alpha_bar`.
    pub fn from_alpha_bar(alpha_bar: f64) -> Self {
        Self {
            alpha: alpha_bar.sqrt(),
            sigma: (1.0 - alpha_bar).sqrt(),
        }
    }

    /// The level where noise and image have this ratio: Karras et al.'s sigma.
    pub fn from_ratio(ratio: f64) -> Self {
        let alpha = 1.0 / (ratio * ratio + 1.0).sqrt();
        Self {
            alpha,
            sigma: ratio * alpha,
        }
    }

    /// The level with this `lambda = ln(alpha / sigma)`.
    pub fn from_lambda(lambda: f64) -> Self {
        Self::from_ratio((-lambda).exp())
    }

    /// `sigma / alpha`.
    pub fn ratio(self) -> f64 {
        self.sigma / self.alpha
    }

    /// Half the logarithm of the signal-to-noise ratio, `ln(alpha / sigma)`; infinite for an image
    /// without noise.
    pub fn lambda(self) -> f64 {
        (self.alpha / self.sigma).ln()
    }

    /// `alpha^2`.
    pub fn alpha_bar(self) -> f64 {
        self.alpha * self.alpha
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_agree() {
        for alpha_bar in [4e-5, 0.3, 0.9999] {
            let level = Level::from_alpha_bar(alpha_bar);
            for other in [
                Level::from_ratio(level.ratio()),
                Level::from_lambda(level.lambda()),
            ] {
                assert!((other.alpha - level.alpha).abs() < 1e-12);
                assert!((other.sigma - level.sigma).abs() < 1e-12);
            }
            assert!((level.alpha_bar() - alpha_bar).abs() < 1e-15);
        }
        assert_eq!(Level::CLEAN.lambda(), f64::INFINITY);
        assert_eq!(Level::CLEAN, Level::from_ratio(0.0));
    }
}
