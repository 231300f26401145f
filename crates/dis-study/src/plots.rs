//! Plots of a study.

use std::collections::BTreeMap;

use super::cost::CostPoint;
use super::expand::GridAxis;
use super::results::Results;
use dis_eval::plot::Plot;

/// Points of a loss curve.
const BINS: u64 = 40;

/// What a metric is drawn against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Against {
    Steps,
    MultiplyAdds,
}

/// Multiply-adds of training up to a step: a backward pass costs two forward passes.
pub(super) fn training_macs(results: &Results<'_>, variant: usize, step: u64) -> f64 {
    let train = &results.grid.variants[variant].config.train;
    let images = (train.batch_size * train.accumulation) as f64;
    let macs = results.costs[variant]
        .as_ref()
        .map_or(0, |cost| cost.macs.total());
    3.0 * macs as f64 * images * step as f64
}

/// Mean of values at one place, with the smallest and largest.
#[derive(Clone, Copy, Debug, Default)]
struct Spread {
    x: f64,
    sum: f64,
    count: f64,
    low: f64,
    high: f64,
}

impl Spread {
    fn add(&mut self, x: f64, y: f64) {
        (self.low, self.high) = if self.count == 0.0 {
            (y, y)
        } else {
            (self.low.min(y), self.high.max(y))
        };
        self.x += x;
        self.sum += y;
        self.count += 1.0;
    }

    fn mean(&self) -> (f64, f64) {
        (self.x / self.count, self.sum / self.count)
    }
}

/// Adds a line with its band to a plot.
fn add(plot: Plot, name: &str, spreads: &BTreeMap<u64, Spread>, dots: bool) -> Plot {
    let points: Vec<(f64, f64)> = spreads.values().map(Spread::mean).collect();
    let band: Vec<(f64, f64, f64)> = spreads
        .values()
        .map(|s| (s.mean().0, s.low, s.high))
        .collect();
    let plot = if dots {
        plot.dotted_line(name, &points)
    } else {
        plot.line(name, &points)
    };
    plot.band(&band)
}

/// Frechet distance of every case.
pub(super) fn distance(results: &Results<'_>, axis: &GridAxis, against: Against) -> String {
    let x_label = match against {
        Against::Steps => "training steps",
        Against::MultiplyAdds => "multiply-adds of training",
    };
    let mut plot = Plot::new(&axis.name, x_label, "Frechet distance").log_y();
    if against == Against::MultiplyAdds {
        plot = plot.log_x();
    }
    for (name, variants) in &axis.cases {
        let mut spreads: BTreeMap<u64, Spread> = BTreeMap::new();
        for (variant, run) in results.of(variants) {
            for e in &run.evaluations {
                let x = match against {
                    Against::Steps => e.step as f64,
                    Against::MultiplyAdds => training_macs(results, variant, e.step),
                };
                spreads.entry(e.step).or_default().add(x, e.frechet);
            }
        }
        plot = add(plot, name, &spreads, true);
    }
    plot.to_svg()
}

/// Loss of every case, in bins of steps.
pub(super) fn losses(results: &Results<'_>, axis: &GridAxis) -> String {
    let mut plot = Plot::new(&axis.name, "training steps", "loss").log_y();
    for (name, variants) in &axis.cases {
        let mut spreads: BTreeMap<u64, Spread> = BTreeMap::new();
        for (variant, run) in results.of(variants) {
            let width = results.grid.variants[variant]
                .config
                .train
                .steps
                .div_ceil(BINS)
                .max(1);
            let mut bins: BTreeMap<u64, Spread> = BTreeMap::new();
            for &(step, loss) in &run.losses {
                let bin = step.saturating_sub(1) / width;
                bins.entry(bin).or_default().add(step as f64, loss);
            }
            for (bin, own) in bins {
                let (x, y) = own.mean();
                spreads.entry(bin).or_default().add(x, y);
            }
        }
        plot = add(plot, name, &spreads, false);
    }
    plot.to_svg()
}

/// Cost against tokens.
pub(super) fn cost(points: &[CostPoint]) -> String {
    let line = |f: fn(&CostPoint) -> u64| -> Vec<(f64, f64)> {
        points
            .iter()
            .map(|p| (p.tokens as f64, f(p) as f64))
            .collect()
    };
    Plot::new(
        "Cost of a forward pass",
        "tokens",
        "multiply-adds of an image",
    )
    .dotted_line("mamba, whole model", &line(|p| p.mamba))
    .dotted_line("attention, whole model", &line(|p| p.attention))
    .line("state space layer, paper's form", &line(|p| p.mamba_form))
    .line("attention layer, paper's form", &line(|p| p.attention_form))
    .log_x()
    .log_y()
    .to_svg()
}
