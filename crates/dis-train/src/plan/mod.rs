//! What to train on some data in some time: models are timed on this machine, the recipe says the rest.

mod measure;
pub mod recipe;

use std::fmt;

use dis_data::Dataset;
use dis_model::cost::Cost;
use dis_model::{DisConfig, ModelBackend};

use crate::budget::{Budget, in_words};
use crate::config::RunConfig;
use crate::error::Result;
use crate::partial::Partial;
use crate::run::check_memory;
use crate::schedule::Decay;
use measure::{Timed, time_step};
use recipe::{Facts, LADDER, Rung, expected, recipe};

/// How long a planned run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// As many steps as this time allows.
    Time(Budget),
    /// So many steps.
    Steps(u64),
}

/// What is asked for.
pub struct Ask<'a> {
    /// How long.
    pub length: Length,
    /// What a file or preset says.
    pub said: &'a Partial,
    /// What is changed on top of that.
    pub change: &'a (dyn Fn(&mut RunConfig) + Sync),
}

/// A plan: a configuration, and what it was made from.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The configuration, resolved, without its data.
    pub config: RunConfig,
    model: DisConfig,
    length: Length,
    /// Models that were timed, and for how long in all.
    timed: (usize, f64),
    /// Of a step of the model.
    seconds: f64,
    facts: Facts,
}

/// Share of the time that goes for steps; the rest is for checkpoints and samples.
const FOR_STEPS: f64 = 0.93;
/// Steps of a new run of which nothing is known yet but that it has some.
const SOME_STEPS: u64 = 1000;
/// Seconds between checkpoints.
const CHECKPOINT: f64 = 60.0;
/// Seconds between lines of metrics, and lines of a run with a time.
const LOG: (f64, f64) = (2.0, 1000.0);

impl Facts {
    /// Of a data set.
    pub fn of(data: &dyn Dataset) -> Self {
        let occupied = data
            .class_counts()
            .iter()
            .filter(|&&count| count > 0)
            .count();
        Self {
            shape: data.shape(),
            count: data.len(),
            classes: data.num_classes().map(|_| occupied),
            latents: data.latents().is_some(),
        }
    }
}

/// A model that was timed.
struct Candidate {
    rung: Rung,
    config: RunConfig,
    model: DisConfig,
    /// Of a step.
    seconds: f64,
}

/// Makes a plan for training on `data`: the largest model through which enough images pass in the time.
///
/// # Errors
/// What was said and does not fit the data, what a step fails with.
pub fn plan<B: ModelBackend>(backend: &B, data: &dyn Dataset, ask: &Ask<'_>) -> Result<Plan> {
    let facts = Facts::of(data);
    let settle = |rung: &Rung, steps: u64| -> Result<(RunConfig, DisConfig)> {
        let mut config = ask
            .said
            .over(&base(ask.said, recipe(&facts, rung, steps)))?;
        (ask.change)(&mut config);
        match ask.length {
            Length::Time(budget) => {
                (config.train.budget, config.train.steps) = (Some(budget), steps)
            }
            Length::Steps(steps) => (config.train.budget, config.train.steps) = (None, steps),
        }
        let model = config.resolve(data)?;
        Ok((config, model))
    };
    let mut best: Option<Candidate> = None;
    let (mut models, mut spent, mut last_macs) = (0, 0.0, 0.0);
    for rung in &LADDER {
        let (config, model) = settle(rung, SOME_STEPS)?;
        if best.as_ref().is_some_and(|best| best.model == model) {
            continue;
        }
        let images = images_per_step(&config);
        let cost = Cost::of(&model, 1)?.macs.total() as f64;
        if let Some(best) = &best {
            // What is larger takes longer in proportion, or nearly: hopeless ones are not tried.
            let guess = best.seconds * cost / f64::max(last_macs, 1.0) * images as f64
                / images_per_step(&best.config) as f64;
            let hopeful = passes(ask.length, 0.7 * guess, images) >= rung.passes;
            let fits = check_memory(backend.on_host(), &config, &model, facts.shape).is_ok();
            if !hopeful || !fits {
                break;
            }
        }
        let Timed { seconds, took } = time_step(backend, &config, &model, data)?;
        (models, spent) = (models + 1, spent + took);
        if best.is_some() && passes(ask.length, seconds, images) < rung.passes {
            break;
        }
        last_macs = cost;
        best = Some(Candidate {
            rung: *rung,
            config,
            model,
            seconds,
        });
    }
    let Some(best) = best else {
        return Err(crate::TrainError::config("there is no model to plan with"));
    };
    let images = images_per_step(&best.config);
    let steps = (passes(ask.length, best.seconds, images) / images).max(1);
    let (mut config, model) = settle(&best.rung, steps)?;
    let every = |seconds: f64| ((seconds / best.seconds).round() as u64).clamp(1, steps);
    let mut unless_said = |key: &str, value: u64, set: fn(&mut RunConfig, u64)| {
        if !ask.said.says("train", key) {
            set(&mut config, value);
        }
    };
    unless_said("checkpoint_every", every(CHECKPOINT), |config, n| {
        config.train.checkpoint_every = n;
    });
    let seconds = steps as f64 * best.seconds;
    unless_said(
        "log_every",
        every(LOG.0.max(seconds / LOG.1)),
        |config, n| {
            config.train.log_every = n;
        },
    );
    // Grids come by the clock before that.
    unless_said("sample_every", steps, |config, n| {
        config.train.sample_every = n
    });
    (ask.change)(&mut config);
    config.train.steps = steps;
    Ok(Plan {
        config,
        model,
        length: ask.length,
        timed: (models, spent),
        seconds: best.seconds,
        facts,
    })
}

/// A recipe without what would contradict what was said.
fn base(said: &Partial, mut recipe: RunConfig) -> RunConfig {
    if said.says("model", "zoo") {
        for key in [
            "patch_size",
            "embed_dim",
            "depth",
            "drop_path_rate",
            "conditioning",
        ] {
            recipe.model.remove(key);
        }
    }
    if let Some(width) = said
        .config()
        .ok()
        .and_then(|c| c.model.get("embed_dim")?.as_u64())
    {
        recipe.train.lr = recipe::learning_rate(usize::try_from(width).unwrap_or(usize::MAX));
        recipe.train.min_lr = Some(recipe.train.lr / 100.0);
    }
    if said.says("train", "ema_decay") {
        recipe.train.ema_share = None;
    }
    if said.says("train", "lr") && !said.says("train", "min_lr") {
        recipe.train.min_lr = None;
    }
    recipe
}

fn images_per_step(config: &RunConfig) -> u64 {
    (config.train.batch_size as u64)
        .saturating_mul(config.train.accumulation as u64)
        .max(1)
}

/// Images that pass through a model whose steps of `images` take `seconds`.
fn passes(length: Length, seconds: f64, images: u64) -> u64 {
    let steps = match length {
        Length::Time(budget) => (FOR_STEPS * budget.seconds() / seconds.max(1e-9)) as u64,
        Length::Steps(steps) => steps,
    };
    steps.saturating_mul(images)
}

impl Plan {
    /// Seconds that training is expected to take.
    pub fn expected_seconds(&self) -> f64 {
        match self.length {
            Length::Time(budget) => budget.seconds(),
            Length::Steps(steps) => steps as f64 * self.seconds / FOR_STEPS,
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (config, train, model) = (&self.config, &self.config.train, &self.model);
        let (models, spent) = self.timed;
        let images = images_per_step(config);
        let passes = train.steps.saturating_mul(images);
        let cost = Cost::of(model, 1).map_err(|_| fmt::Error)?;
        let what = match self.length {
            Length::Time(budget) => in_words(budget.seconds()),
            Length::Steps(steps) => format!("{steps} steps"),
        };
        let tried = match models {
            1 => "one model".to_string(),
            n => format!("{n} models"),
        };
        writeln!(
            f,
            "plan for {what}, after timing {tried} on this machine for {spent:.1} s:"
        )?;
        let mut line = |name: &str, text: String| writeln!(f, "  {name:<15}{text}");
        line(
            "model",
            format!(
                "{} tokens ({} and patches of {}), width {}, {} blocks: {} parameters",
                cost.tokens,
                self.facts.shape,
                model.patch_size,
                model.embed_dim,
                model.depth,
                cost.parameters
            ),
        )?;
        let diffusion = &config.diffusion;
        line(
            "diffusion",
            format!(
                "predicts {}, {} schedule, loss {}",
                diffusion.prediction, diffusion.noise_schedule, diffusion.loss
            ),
        )?;
        let after = match train.decay {
            Decay::Cosine => format!("half a cosine down to {:e}", train.lowest_lr()),
            Decay::Constant => "constant".into(),
        };
        line(
            "learning rate",
            format!(
                "{:e} after {} steps of warm-up, then {after}",
                train.lr, train.warmup_steps
            ),
        )?;
        line(
            "average",
            match train.ema_share {
                Some(share) => format!(
                    "of the weights over the last {:.0} % of the run",
                    100.0 * share
                ),
                None => format!("of the weights, decay {}", train.ema_decay),
            },
        )?;
        line(
            "steps",
            format!(
                "{} of {images} images ({:.0} images/s): each of {} images {:.0} times",
                train.steps,
                images as f64 / self.seconds.max(1e-9),
                self.facts.count.saturating_sub(train.held_out),
                passes as f64 / self.facts.count.saturating_sub(train.held_out).max(1) as f64
            ),
        )?;
        if train.held_out > 0 {
            line(
                "held out",
                format!(
                    "{} images, for a loss of what is not trained on",
                    train.held_out
                ),
            )?;
        }
        let kept = match self.length {
            Length::Time(_) => "; steps follow the speed of the machine",
            Length::Steps(_) => "",
        };
        line(
            "ends",
            format!("in {}{kept}", in_words(self.expected_seconds())),
        )?;
        match expected(&self.facts, passes) {
            Some(text) => line("expect", text.to_string()),
            None => Ok(()),
        }
    }
}
