//! Classifier-free guidance (Ho and Salimans, "Classifier-Free Diffusion Guidance", 2022):
//! `unconditional + scale * (conditional - unconditional)`, both halves in one batch.

use std::ops::RangeInclusive;

use crate::{Conditional, Denoiser, Error, Result, State};

/// Which output channels guidance acts on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GuidedChannels {
    /// The prediction channels, as many as the image has; variance channels are the conditional
    /// ones.
    #[default]
    Prediction,
    /// The first three output channels, whatever they are, as the published DiS code does: latents
    /// keep the conditional fourth channel, grey images have their variance guided too.
    FirstThree,
}

impl GuidedChannels {
    /// How many of `output` channels are guided for images of `image` channels.
    pub fn count(self, image: usize, output: usize) -> usize {
        match self {
            Self::Prediction => image.min(output),
            Self::FirstThree => output.min(3),
        }
    }
}

/// How strongly, on what and when to guide.
#[derive(Clone, Debug, PartialEq)]
pub struct Guidance {
    /// 1 is the conditional network alone, 0 the unconditional one alone; neither evaluates the
    /// other half.
    pub scale: f64,
    /// Output channels it acts on.
    pub channels: GuidedChannels,
    /// Original timesteps at which to guide; outside, the scale is 1 (Kynkäänniemi et al.,
    /// "Applying Guidance in a Limited Interval", 2024). `None` guides always.
    pub interval: Option<RangeInclusive<f64>>,
    /// How far guided predictions are scaled back to the deviation of the conditional ones, against
    /// overexposure: 0 is not at all, 1 wholly (Lin et al., "Common Diffusion Noise Schedules and
    /// Sample Steps are Flawed", 2023, equations 15 and 16; 0.7 there).
    pub rescale: f64,
}

impl Guidance {
    /// Guidance of all prediction channels at every step.
    pub fn new(scale: f64) -> Self {
        Self {
            scale,
            channels: GuidedChannels::default(),
            interval: None,
            rescale: 0.0,
        }
    }

    fn scale_at(&self, t: f64) -> f64 {
        match &self.interval {
            Some(interval) if !interval.contains(&t) => 1.0,
            _ => self.scale,
        }
    }
}

/// A conditional network under guidance. Row i of the batch has condition i.
#[derive(Clone, Debug)]
pub struct Guided<D> {
    network: D,
    guidance: Guidance,
}

impl<D> Guided<D> {
    /// Guides `network`.
    pub fn new(network: D, guidance: Guidance) -> Self {
        Self { network, guidance }
    }
}

impl<S: State, D: Conditional<S>> Denoiser<S> for Guided<D> {
    fn predict(&mut self, x: &S, t: &[f64]) -> Result<S> {
        let [batch, channels, ..] = x.dims();
        if t.len() != batch {
            return Err(Error::Count {
                what: "timesteps",
                got: t.len(),
                expected: batch,
            });
        }
        let scales: Vec<f64> = t.iter().map(|&t| self.guidance.scale_at(t)).collect();
        if let Some(scale) = scales.iter().find(|s| !s.is_finite()) {
            return Err(Error::Invalid(format!(
                "guidance scale {scale} is not finite"
            )));
        }
        if !(0.0..=1.0).contains(&self.guidance.rescale) {
            return Err(Error::Invalid(format!(
                "guidance rescale {} is not in [0, 1]",
                self.guidance.rescale
            )));
        }
        let with: Vec<Option<usize>> = (0..batch).map(Some).collect();
        let without = vec![None; batch];
        if scales.iter().all(|s| *s == 1.0) {
            return self.network.predict_rows(x, t, &with);
        }
        if scales.iter().all(|s| *s == 0.0) {
            return self.network.predict_rows(x, t, &without);
        }
        let both = self.network.predict_rows(
            &S::stack(&[x, x])?,
            &[t, t].concat(),
            &[with, without].concat(),
        )?;
        let [rows, outputs, ..] = both.dims();
        if rows != 2 * batch {
            return Err(Error::Count {
                what: "network outputs",
                got: rows,
                expected: 2 * batch,
            });
        }
        let (conditional, unconditional) = (both.rows(0..batch)?, both.rows(batch..rows)?);
        let guided = self.guidance.channels.count(channels, outputs);
        let head = conditional.channels(0..guided)?;
        let mut mixed = guide(&head, &unconditional.channels(0..guided)?, &scales)?;
        if self.guidance.rescale > 0.0 {
            mixed = rescale(&mixed, &head, self.guidance.rescale)?;
        }
        if guided == outputs {
            return Ok(mixed);
        }
        S::join_channels(&[&mixed, &conditional.channels(guided..outputs)?])
    }
}

/// `unconditional + scale * (conditional - unconditional)`, with a scale for each sample.
///
/// # Errors
/// Shapes that differ, or a wrong number of scales.
pub fn guide<S: State>(conditional: &S, unconditional: &S, scales: &[f64]) -> Result<S> {
    let rest: Vec<f64> = scales.iter().map(|s| 1.0 - s).collect();
    S::combine(&[(scales, conditional), (&rest, unconditional)])
}

/// Scales every sample of a guided prediction towards the standard deviation of the conditional
/// one: `strength * guided * deviation(conditional) / deviation(guided) + (1 - strength) * guided`
/// (Lin et al., 2023, equations 15 and 16). A guided prediction without deviation stays.
///
/// # Errors
/// Shapes that differ.
pub fn rescale<S: State>(guided: &S, conditional: &S, strength: f64) -> Result<S> {
    crate::state::same_dims("conditional prediction", conditional, guided)?;
    let mut scaled = guided.clone();
    scaled.rescale(conditional, strength)?;
    Ok(scaled)
}

/// The published combination of a doubled batch's output: the first three channels of both halves
/// become the guided ones, and each half keeps its own other channels.
///
/// # Errors
/// An odd batch.
pub fn published_guidance<S: State>(output: &S, scale: f64) -> Result<S> {
    let [rows, outputs, ..] = output.dims();
    even(rows)?;
    let guided = GuidedChannels::FirstThree.count(outputs, outputs);
    let head = output.channels(0..guided)?;
    let mixed = guide(
        &head.rows(0..rows / 2)?,
        &head.rows(rows / 2..rows)?,
        &[scale],
    )?;
    let mixed = S::stack(&[&mixed, &mixed])?;
    if guided == outputs {
        return Ok(mixed);
    }
    S::join_channels(&[&mixed, &output.channels(guided..outputs)?])
}

fn even(rows: usize) -> Result<()> {
    if rows.is_multiple_of(2) {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "guidance of a batch of {rows}, which has no halves"
    )))
}

/// Guidance exactly as the published code does it, on a batch that the caller has doubled: the
/// second half of the images is ignored and the first repeated, the conditions of all rows
/// (usually none in the second half) are the network's own. For comparisons; the two halves of
/// the result differ in their noise and variance.
#[derive(Clone, Debug)]
pub struct PublishedGuidance<D> {
    network: D,
    scale: f64,
}

impl<D> PublishedGuidance<D> {
    /// Guides `network`, which is called with the whole doubled batch.
    pub fn new(network: D, scale: f64) -> Self {
        Self { network, scale }
    }
}

impl<S: State, D: Denoiser<S>> Denoiser<S> for PublishedGuidance<D> {
    fn predict(&mut self, x: &S, t: &[f64]) -> Result<S> {
        let rows = x.dims()[0];
        even(rows)?;
        let half = x.rows(0..rows / 2)?;
        let output = self.network.predict(&S::stack(&[&half, &half])?, t)?;
        published_guidance(&output, self.scale)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array4;

    use super::*;
    use crate::{from_conditional_fn, from_fn};

    /// Output channel c of a row: 100 * (c + 1) with condition, its own index without.
    fn network(calls: &mut Vec<Vec<Option<usize>>>, outputs: usize) -> impl Conditional + use<'_> {
        from_conditional_fn(
            move |x: &Array4<f32>, _: &[f64], conditions: &[Option<usize>]| {
                calls.push(conditions.to_vec());
                Array4::from_shape_fn((x.dim().0, outputs, 1, 1), |(row, c, ..)| {
                    if conditions[row].is_some() {
                        100.0 * (c + 1) as f32
                    } else {
                        c as f32
                    }
                })
            },
        )
    }

    fn outputs(channels: usize, outputs: usize, guidance: Guidance) -> (Vec<f32>, Vec<usize>) {
        let mut calls = Vec::new();
        let x = Array4::zeros((2, channels, 1, 1));
        let y = Guided::new(network(&mut calls, outputs), guidance)
            .predict(&x, &[10.0, 900.0])
            .unwrap();
        (
            y.into_raw_vec_and_offset().0,
            calls.iter().map(Vec::len).collect(),
        )
    }

    #[test]
    fn guides_all_prediction_channels_and_no_variance() {
        let (y, calls) = outputs(4, 8, Guidance::new(2.0));
        let row = [200.0, 399.0, 598.0, 797.0, 500.0, 600.0, 700.0, 800.0];
        assert_eq!(y, [row, row].concat());
        assert_eq!(calls, [4]);
    }

    #[test]
    fn the_published_quirk_guides_three_channels() {
        let quirk = Guidance {
            channels: GuidedChannels::FirstThree,
            ..Guidance::new(2.0)
        };
        let (y, _) = outputs(4, 8, quirk.clone());
        assert_eq!(y[..4], [200.0, 399.0, 598.0, 400.0]);
        // A grey image with learned variance has its variance guided.
        let (y, _) = outputs(1, 2, quirk);
        assert_eq!(y[..2], [200.0, 399.0]);
    }

    #[test]
    fn scales_zero_and_one_evaluate_one_half() {
        let (y, calls) = outputs(1, 2, Guidance::new(1.0));
        assert_eq!((y, calls), (vec![100.0, 200.0, 100.0, 200.0], vec![2]));
        let (y, calls) = outputs(1, 2, Guidance::new(0.0));
        assert_eq!((y, calls), (vec![0.0, 1.0, 0.0, 1.0], vec![2]));
    }

    #[test]
    fn outside_the_interval_the_condition_alone_counts() {
        let limited = Guidance {
            interval: Some(0.0..=500.0),
            ..Guidance::new(2.0)
        };
        let (y, calls) = outputs(1, 1, limited);
        assert_eq!((y, calls), (vec![200.0, 100.0], vec![4]));
    }

    #[test]
    fn rescaled_guidance_has_the_deviation_of_the_condition() {
        let network = || {
            from_conditional_fn(|x: &Array4<f32>, _: &[f64], rows: &[Option<usize>]| {
                Array4::from_shape_fn((x.dim().0, 2, 2, 2), |(row, c, i, j)| {
                    let conditional = rows[row].is_some();
                    // The second channel is a variance, which nothing may touch.
                    match (c, conditional) {
                        (1, _) => 7.0,
                        (_, true) => (i + 2 * j) as f32,
                        (_, false) => -(i as f32),
                    }
                })
            })
        };
        let x = Array4::zeros((1, 1, 2, 2));
        let guided = |rescale| {
            let guidance = Guidance {
                rescale,
                ..Guidance::new(3.0)
            };
            Guided::new(network(), guidance).predict(&x, &[1.0])
        };
        let deviation = |y: Array4<f32>| {
            let first = y.channels(0..1).unwrap();
            dis_tensor::images::deviation(first.iter().copied())
        };
        let (none, half, whole) = (guided(0.0), guided(0.5), guided(1.0));
        let wanted = deviation(network().predict_rows(&x, &[1.0], &[Some(0)]).unwrap());
        let none = deviation(none.unwrap());
        assert!((deviation(whole.as_ref().unwrap().clone()) - wanted).abs() < 1e-6);
        assert!((deviation(half.unwrap()) - (wanted + none) / 2.0).abs() < 1e-6);
        assert!(none > 2.0 * wanted);
        let variance = whole.unwrap().channels(1..2).unwrap();
        assert!(variance.iter().all(|v| *v == 7.0));
        assert!(guided(1.5).is_err());
    }

    #[test]
    fn published_halves_keep_their_own_other_channels() {
        let mut network = PublishedGuidance::new(
            from_fn(|x: &Array4<f32>, _: &[f64]| {
                assert_eq!(x[[0, 0, 0, 0]], x[[1, 0, 0, 0]]);
                Array4::from_shape_fn((2, 4, 1, 1), |(row, c, ..)| (10 * row + c) as f32)
            }),
            1.5,
        );
        let x = Array4::from_shape_fn((2, 2, 1, 1), |(row, ..)| row as f32);
        let y = network
            .predict(&x, &[1.0, 1.0])
            .unwrap()
            .into_raw_vec_and_offset()
            .0;
        assert_eq!(y, [-5.0, -4.0, -3.0, 3.0, -5.0, -4.0, -3.0, 13.0]);
    }
}
