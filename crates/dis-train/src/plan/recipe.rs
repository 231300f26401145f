//! What is trained by default: the whole recipe, and nothing but the recipe.
//!
//! From what is known of the data and how many images can be passed through a model in the time there is, this
//! says which model, diffusion, optimizer and samples. docs/training.md has the measurements behind it.

use dis_data::ImageShape;
use serde_json::{Map, Value, json};

use crate::config::{RunConfig, SampleConfig, TrainConfig};

/// What is known of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Size of every image.
    pub shape: ImageShape,
    /// Images to train on.
    pub count: usize,
    /// Classes that have images; none without classes.
    pub classes: Option<usize>,
    /// Whether the images are latents.
    pub latents: bool,
}

/// A model that may be trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rung {
    /// Most tokens of an image: patches are as small as this allows.
    pub tokens: usize,
    /// Width.
    pub width: usize,
    /// Blocks.
    pub depth: usize,
    /// Images that have to pass through it before it is better than the rung before it.
    pub passes: u64,
}

/// Models from the smallest to the largest.
pub const LADDER: [Rung; 7] = [
    rung(64, 64, 4, 0),
    rung(64, 96, 4, 60_000),
    rung(256, 96, 4, 120_000),
    rung(256, 128, 6, 400_000),
    rung(256, 192, 8, 1_500_000),
    rung(256, 256, 12, 6_000_000),
    rung(256, 384, 16, 20_000_000),
];

const fn rung(tokens: usize, width: usize, depth: usize, passes: u64) -> Rung {
    Rung {
        tokens,
        width,
        depth,
        passes,
    }
}

/// Fewest tokens that an image is worth cutting into.
const FEWEST_TOKENS: usize = 16;
/// Learning rate at width 96; others have it in inverse proportion to their width.
const LR: (f64, f64) = (4e-3, 96.0);
/// Images in a step.
const BATCH: usize = 64;
/// Share of the steps in which the rate rises, and the most of them.
const WARMUP: (f64, u64) = (0.04, 200);
/// Share of the run that the moving average reaches back over.
const EMA_SHARE: f64 = 0.08;
/// What the label table, the positions and the decoder begin as: standard deviations, and whether at zero.
const BEGIN: (f64, f64, bool) = (1.0, 0.02, true);
/// Share of the images that are held out, the fewest images of which any are, and the most that are.
const HELD_OUT: (usize, usize, usize) = (20, 100, 500);
/// Image passes of a run for each image of a grid, and for each sample that a Frechet distance is taken of.
const PASSES_A_SAMPLE: u64 = 1000;
/// Fewest and most images in a grid.
const GRID: (usize, usize) = (16, 64);
/// Fewest and most samples that a distance is taken of.
const FRECHET: (usize, usize) = (32, 256);
/// Sides that pictures of a folder are cropped to, by how long the run may take at least, in seconds.
const SIDES: [(usize, f64); 7] = [
    (8, 0.0),
    (16, 0.0),
    (24, 0.0),
    (28, 0.0),
    (32, 0.0),
    (48, 2.0 * 3600.0),
    (64, 6.0 * 3600.0),
];

/// The side of the patches of a rung: the smallest that divides both sides and leaves no more tokens than the
/// rung has, but enough of them to be a picture.
pub fn patch_size(shape: ImageShape, rung: &Rung) -> usize {
    let tokens = |patch: usize| (shape.height / patch) * (shape.width / patch);
    let divides =
        |patch: &usize| shape.height.is_multiple_of(*patch) && shape.width.is_multiple_of(*patch);
    let whole = (1..=shape.height.min(shape.width)).filter(divides);
    let few = whole.clone().find(|&patch| tokens(patch) <= rung.tokens);
    let enough = few.filter(|&patch| tokens(patch) >= FEWEST_TOKENS);
    // Of a side that is prime, say: more tokens than wanted are better than one.
    let more = || whole.rev().find(|&patch| tokens(patch) >= FEWEST_TOKENS);
    enough.or_else(more).unwrap_or(1)
}

/// The side that pictures are cropped to, of which the shortest has this many pixels a side, for a run that may
/// take so many seconds.
pub fn picture_side(shortest: usize, seconds: f64) -> usize {
    let mut allowed = SIDES
        .iter()
        .filter(|(side, at_least)| *side <= shortest.max(SIDES[0].0) && seconds >= *at_least);
    allowed.next_back().map_or(SIDES[0].0, |(side, _)| *side)
}

/// The configuration of a rung for a run of so many steps. `[data]` is left to others.
pub fn recipe(facts: &Facts, rung: &Rung, steps: u64) -> RunConfig {
    let model: Map<String, Value> = [
        ("patch_size", json!(patch_size(facts.shape, rung))),
        ("embed_dim", json!(rung.width)),
        ("depth", json!(rung.depth)),
        ("drop_path_rate", json!(0.0)),
        // The condition at every norm, not as a token that the reverse scan meets last: docs/results.md.
        ("conditioning", json!("adaln")),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_string(), value))
    .collect();
    let mut config = RunConfig {
        model,
        ..RunConfig::default()
    };
    config.diffusion.noise_schedule = if facts.latents { "linear" } else { "cosine" }.into();
    config.diffusion.prediction = "v".into();
    let (share, fewest, most) = HELD_OUT;
    let lr = learning_rate(rung.width);
    config.train = TrainConfig {
        steps,
        batch_size: BATCH,
        lr,
        min_lr: Some(lr / 100.0),
        warmup_steps: ((steps as f64 * WARMUP.0) as u64).clamp(1, WARMUP.1),
        ema_share: Some(EMA_SHARE),
        label_dropout: 0.1,
        repaired_reverse_step: true,
        label_std: BEGIN.0,
        position_std: BEGIN.1,
        zero_decoder: BEGIN.2,
        held_out: if facts.count < fewest {
            0
        } else {
            (facts.count / share).min(most)
        },
        ..TrainConfig::default()
    };
    let affordable = steps.saturating_mul(BATCH as u64) / PASSES_A_SAMPLE;
    let affordable = usize::try_from(affordable).unwrap_or(usize::MAX);
    let grid = affordable.clamp(GRID.0, GRID.1);
    let rows = facts.classes.map_or(1, |classes| classes.clamp(1, 16));
    config.sample = SampleConfig {
        per_class: match facts.classes {
            Some(_) => (grid / rows).clamp(2, 8),
            None => grid,
        },
        sampler: "dpmpp-2m".into(),
        spacing: "karras".into(),
        steps: 20,
        cfg_scale: 1.5,
        frechet: match affordable {
            few if few < FRECHET.0 => 0,
            enough => enough.min(FRECHET.1),
        },
    };
    config
}

/// The learning rate of a width.
pub fn learning_rate(width: usize) -> f64 {
    let rate = LR.0 * LR.1 / width.max(1) as f64;
    // Two digits, as one writes it.
    let unit = 10f64.powf(rate.log10().floor() - 1.0);
    (rate / unit).round() * unit
}

/// Figures that runs of this recipe came to: the largest number of values of an image, images passed, and what
/// came out.
const EXPECTED: [(usize, u64, &str); 0] = [];

/// What may be expected of so many image passes; none where nothing like it was measured.
pub fn expected(facts: &Facts, passes: u64) -> Option<&'static str> {
    let mut like = EXPECTED
        .iter()
        .filter(|(values, least, _)| facts.shape.len() <= *values && passes >= *least);
    like.next_back().map(|(_, _, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_fit_the_images() {
        let patch = |height, width, tokens| {
            let shape = ImageShape {
                channels: 3,
                height,
                width,
            };
            patch_size(shape, &rung(tokens, 64, 4, 0))
        };
        for (height, width, tokens, wanted) in [
            (32, 32, 64, 4),
            (32, 32, 256, 2),
            (28, 28, 64, 4),
            (28, 28, 256, 2),
            (8, 8, 64, 1),
            (64, 64, 256, 4),
            (64, 32, 256, 4),
            (31, 31, 64, 1),
            (2, 2, 64, 1),
        ] {
            assert_eq!(
                patch(height, width, tokens),
                wanted,
                "{height}x{width}, {tokens}"
            );
        }
    }

    #[test]
    fn pictures_are_not_enlarged_but_for_the_smallest() {
        for (shortest, hours, side) in [
            (5, 1.0, 8),
            (32, 1.0, 32),
            (500, 1.0, 32),
            (500, 9.0, 64),
            (30, 9.0, 28),
        ] {
            assert_eq!(picture_side(shortest, hours * 3600.0), side);
        }
    }

    #[test]
    fn rates_fall_with_width() {
        assert!((learning_rate(96) - 4e-3).abs() < 1e-12);
        assert!((learning_rate(192) - 2e-3).abs() < 1e-12);
        assert!(
            LADDER
                .windows(2)
                .all(|pair| pair[0].passes < pair[1].passes)
        );
    }
}
