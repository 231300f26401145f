//! The metrics that two sides allow.

use std::collections::BTreeSet;
use std::str::FromStr;

use dis_model::Classes;
use dis_tensor::random::{Purpose, Stream};
use ndarray::{Array2, ArrayView2, Axis};
use serde::Serialize;

use super::features::Features;
use super::report::{Figure, LeftOut, Report};
use super::statistics::SavedStatistics;
use crate::error::{EvalError, Result};
use crate::metrics::{
    BallOptions, Balls, Bootstrap, CopyRule, DensityCoverage, Drawn, Interval, KernelOptions,
    MetricError, PrecisionRecall, Statistics, balls, density_coverage, frechet_distance,
    inception_score, kernel_distance, mean, precision_recall, softmax,
};

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// Frechet distance of features.
    Fid,
    /// Frechet distance of spatial features.
    Sfid,
    /// Inception score.
    Is,
    /// Kernel distance.
    Kid,
    /// Precision and recall.
    Pr,
    /// Density and coverage.
    Dc,
    /// Share of samples classified as asked.
    Labels,
    /// Share of copies of reference images.
    Copies,
}

impl Metric {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 8] = [
        Self::Fid,
        Self::Sfid,
        Self::Is,
        Self::Kid,
        Self::Pr,
        Self::Dc,
        Self::Labels,
        Self::Copies,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fid => "fid",
            Self::Sfid => "sfid",
            Self::Is => "is",
            Self::Kid => "kid",
            Self::Pr => "pr",
            Self::Dc => "dc",
            Self::Labels => "labels",
            Self::Copies => "copies",
        }
    }
}

impl FromStr for Metric {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let found = Self::ALL.into_iter().find(|m| m.name() == text.trim());
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("no metric {text:?}; there are {names}")
        })
    }
}

/// One of the two things that are compared.
#[derive(Clone, Debug)]
pub enum Side {
    /// Features of images that are there.
    Points(Box<Features>),
    /// Statistics only.
    Statistics(Box<SavedStatistics>),
}

/// How metrics are measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MeasureOptions {
    /// What is measured, in any order.
    pub metrics: Vec<Metric>,
    /// Intervals.
    pub bootstrap: Bootstrap,
    /// Splits of the Inception score.
    pub splits: usize,
    /// Subsets of the kernel distance.
    pub kernel: KernelOptions,
    /// Balls of precision, recall, density and coverage.
    pub balls: BallOptions,
}

impl Default for MeasureOptions {
    fn default() -> Self {
        Self {
            metrics: Metric::ALL.to_vec(),
            bootstrap: Bootstrap::default(),
            splits: 10,
            kernel: KernelOptions::default(),
            balls: BallOptions::default(),
        }
    }
}

/// Keys the order of samples in splits apart from other draws.
const SPLITS: u64 = 1 << 41;
/// A share of copies above this is warned of: real images that were held out have about 0.01.
const MANY_COPIES: f64 = 0.1;

/// What a metric comes to: its figures, or why it is left out.
type Outcome = std::result::Result<Vec<Figure>, String>;

/// Measures `samples` against `reference`. `pixels` are those of both, (n, values) in [0, 1], for
/// copies. `progress` is called with the name of each metric before it is measured.
///
/// A metric that the two sides do not allow is left out, with the reason; the others are measured.
pub fn measure(
    samples: &Side,
    reference: &Side,
    pixels: Option<(ArrayView2<'_, f32>, ArrayView2<'_, f32>)>,
    options: &MeasureOptions,
    progress: &mut dyn FnMut(Metric),
) -> Report {
    let mut report = Report::default();
    let mut metrics = options.metrics.clone();
    metrics.sort_unstable();
    metrics.dedup();
    let all_balls = metrics.contains(&Metric::Pr) && metrics.contains(&Metric::Dc);
    let mut shared = None;
    for metric in metrics {
        progress(metric);
        let outcome = match metric {
            Metric::Fid => frechet(samples, reference, false, options, &mut report),
            Metric::Sfid => frechet(samples, reference, true, options, &mut report),
            Metric::Is => inception(samples, options),
            Metric::Kid => kernel(samples, reference, options),
            Metric::Pr | Metric::Dc => both(samples, reference).and_then(|(x, y)| {
                if all_balls && shared.is_none() {
                    let found = balls(y.features.view(), x.features.view(), options.balls);
                    shared = found.ok();
                }
                match metric {
                    Metric::Pr => fidelity(x, y, shared.as_ref(), options),
                    _ => density(x, y, shared.as_ref(), options, &mut report),
                }
            }),
            Metric::Labels => labels(samples, options),
            Metric::Copies => copies(pixels, options, &mut report),
        };
        match outcome {
            Ok(figures) => report.figures.extend(figures),
            Err(why) => report.left_out.push(LeftOut {
                metric: metric.name(),
                why,
            }),
        }
    }
    report
}

fn points(side: &Side) -> Option<&Features> {
    match side {
        Side::Points(features) => Some(features),
        Side::Statistics(_) => None,
    }
}

/// Both sets of points, or why there are not.
fn both<'a>(
    samples: &'a Side,
    reference: &'a Side,
) -> std::result::Result<(&'a Features, &'a Features), String> {
    points(samples)
        .zip(points(reference))
        .ok_or_else(|| "needs images on both sides, and one has statistics only".into())
}

/// An interval where values can lie at all.
fn within(interval: Option<Interval>, least: f64, most: f64) -> Option<Interval> {
    interval.map(|i| i.within(least, most))
}

/// Points or statistics of one side.
enum Given<'a> {
    Points(ArrayView2<'a, f32>),
    Statistics(&'a Statistics),
}

impl<'a> Given<'a> {
    fn of(side: &'a Side, spatial: bool) -> Option<Self> {
        match (side, spatial) {
            (Side::Points(f), false) => Some(Self::Points(f.features.view())),
            (Side::Points(f), true) => f.spatial.as_ref().map(|s| Self::Points(s.view())),
            (Side::Statistics(s), false) => Some(Self::Statistics(&s.features)),
            (Side::Statistics(s), true) => s.spatial.as_ref().map(Self::Statistics),
        }
    }

    /// Its statistics; `name` is that of the side.
    fn statistics(&self, name: &'static str) -> std::result::Result<Statistics, MetricError> {
        match self {
            Self::Points(points) => Statistics::from_points(*points).map_err(|e| e.of(name)),
            Self::Statistics(statistics) => Ok((*statistics).clone()),
        }
    }

    /// The statistics of a draw; those of a side without points stay.
    fn drawn(
        &self,
        bootstrap: &Bootstrap,
        drawn: Drawn,
        resample: usize,
        whole: &Statistics,
    ) -> std::result::Result<Statistics, MetricError> {
        match self {
            Self::Points(points) => {
                let counts = bootstrap.counts(drawn, points.nrows(), resample);
                Statistics::from_counted(*points, &counts)
            }
            Self::Statistics(_) => Ok(whole.clone()),
        }
    }
}

const SIDES: (&str, &str) = ("samples", "reference images");

fn frechet(
    samples: &Side,
    reference: &Side,
    spatial: bool,
    options: &MeasureOptions,
    report: &mut Report,
) -> Outcome {
    let metric = if spatial { "sfid" } else { "fid" };
    if let Some(why) = [samples, reference]
        .into_iter()
        .filter_map(points)
        .find_map(|side| side.no_covariance.clone().filter(|_| !spatial))
    {
        return Err(why);
    }
    let given = Given::of(samples, spatial).zip(Given::of(reference, spatial));
    let Some((x, y)) = given else {
        return Err(
            "needs spatial features on both sides: a classifier's, or --onnx-spatial".into(),
        );
    };
    let a = x.statistics(SIDES.0).map_err(text)?;
    let b = y.statistics(SIDES.1).map_err(text)?;
    let value = frechet_distance(&a, &b).map_err(text)?;
    for (name, side) in [(SIDES.0, &x), (SIDES.1, &y)] {
        if let Given::Points(p) = side
            && p.nrows() <= p.ncols()
        {
            report.warnings.push(format!(
                "{metric}: {} {name} for {} features: their covariance is singular and the distance \
                 is biased; more than ten times as many are wanted",
                p.nrows(),
                p.ncols()
            ));
        }
    }
    let bootstrap = &options.bootstrap;
    let draw = |resample: usize| -> std::result::Result<f64, MetricError> {
        frechet_distance(
            &x.drawn(bootstrap, Drawn::Samples, resample, &a)?,
            &y.drawn(bootstrap, Drawn::Reference, resample, &b)?,
        )
    };
    let nothing_to_draw = matches!((&x, &y), (Given::Statistics(_), Given::Statistics(_)));
    let interval = match nothing_to_draw {
        true => None,
        false => bootstrap.interval(value, draw).unwrap_or_else(|e| {
            let warning = format!("{metric}: no interval, since a set that was drawn failed: {e}");
            report.warnings.push(warning);
            None
        }),
    };
    Ok(vec![Figure {
        interval: within(interval, 0.0, f64::INFINITY),
        ..Figure::new(metric, "down", value)
    }])
}

fn text(error: MetricError) -> String {
    error.to_string()
}

fn inception(samples: &Side, options: &MeasureOptions) -> Outcome {
    let Some(logits) = points(samples).and_then(|p| p.logits.as_ref()) else {
        return Err("needs logits of the samples: a classifier's, or --onnx-logits".into());
    };
    let probabilities = softmax(logits.view());
    let n = probabilities.nrows();
    // Samples come class by class; splits must not.
    let order = Stream::new(options.bootstrap.seed, Purpose::Metric, SPLITS, 0).permutation(n);
    let order: Vec<usize> = order.into_iter().map(|i| i as usize).collect();
    let shuffled = probabilities.select(Axis(0), &order);
    let score = inception_score(shuffled.view(), options.splits).map_err(text)?;
    let draw = |resample: usize| -> std::result::Result<f64, MetricError> {
        let counts = options.bootstrap.counts(Drawn::Samples, n, resample);
        // As drawn: in no order, by walking the shuffled rows.
        let mut rows: Vec<usize> = (0..n)
            .flat_map(|i| std::iter::repeat_n(i, counts[i] as usize))
            .collect();
        let mix = Stream::new(
            options.bootstrap.seed,
            Purpose::Metric,
            SPLITS,
            1 + resample as u64,
        )
        .permutation(n);
        rows = mix.iter().map(|&i| rows[i as usize]).collect();
        Ok(inception_score(shuffled.select(Axis(0), &rows).view(), options.splits)?.mean)
    };
    let interval = options.bootstrap.interval(score.mean, draw).map_err(text)?;
    Ok(vec![Figure {
        interval: within(interval, 1.0, logits.ncols() as f64),
        std: Some(score.std),
        ..Figure::new("is", "up", score.mean)
    }])
}

fn kernel(samples: &Side, reference: &Side, options: &MeasureOptions) -> Outcome {
    let (x, y) = both(samples, reference)?;
    let kid =
        kernel_distance(y.features.view(), x.features.view(), options.kernel).map_err(text)?;
    Ok(vec![Figure {
        std: Some(kid.std),
        note: Some(format!("{} subsets of {}", kid.subsets, kid.size)),
        ..Figure::new("kid", "down", kid.mean)
    }])
}

/// A figure that is the mean of what each point contributes, at most `most`.
fn mean_figure(
    name: &'static str,
    values: &[f64],
    drawn: Drawn,
    most: f64,
    options: &MeasureOptions,
) -> Figure {
    Figure {
        interval: within(options.bootstrap.of_mean(drawn, values), 0.0, most),
        ..Figure::new(name, "up", mean(values))
    }
}

fn fidelity(
    samples: &Features,
    reference: &Features,
    known: Option<&Balls>,
    options: &MeasureOptions,
) -> Outcome {
    let alone;
    let PrecisionRecall { precision, recall } = match known {
        Some(balls) => &balls.fidelity,
        None => {
            let (x, y) = (samples.features.view(), reference.features.view());
            alone = precision_recall(y, x, options.balls.precision_k).map_err(text)?;
            &alone
        }
    };
    Ok(vec![
        mean_figure("precision", precision, Drawn::Samples, 1.0, options),
        mean_figure("recall", recall, Drawn::Reference, 1.0, options),
    ])
}

fn density(
    samples: &Features,
    reference: &Features,
    known: Option<&Balls>,
    options: &MeasureOptions,
    report: &mut Report,
) -> Outcome {
    let k = options.balls.density_k;
    let alone;
    let DensityCoverage {
        density,
        coverage,
        empty,
    } = match known {
        Some(balls) => &balls.density,
        None => {
            let (x, y) = (samples.features.view(), reference.features.view());
            alone = density_coverage(y, x, k).map_err(text)?;
            &alone
        }
    };
    if *empty > 0 {
        report.warnings.push(format!(
            "dc: {empty} of {} reference images have {k} others with the same features: their balls \
             hold nothing, and density and coverage count them as missed",
            coverage.len()
        ));
    }
    Ok(vec![
        mean_figure("density", density, Drawn::Samples, f64::INFINITY, options),
        mean_figure("coverage", coverage, Drawn::Reference, 1.0, options),
    ])
}

/// Share of the samples whose most likely class has the name of their own.
fn labels(samples: &Side, options: &MeasureOptions) -> Outcome {
    let known = points(samples).and_then(|p| Some((p, p.logits.as_ref()?, p.labels.as_ref()?)));
    let Some((points, logits, labels)) = known else {
        return Err("needs logits of the samples, and the class that each was asked for".into());
    };
    let network = match points.logit_names.len() == logits.ncols() {
        true => Classes::named("the network", &points.logit_names),
        false => Classes::numbered("the network", logits.ncols()),
    };
    let seen: BTreeSet<u32> = labels.iter().copied().collect();
    let unseen = (0..points.class_names.len() as u32).filter(|class| !seen.contains(class));
    let asked = Classes::named("SAMPLES", &points.class_names).without_images(unseen);
    let map = match asked.map_to(&network) {
        Ok(map) => map,
        Err(differ) => return Err(differ.to_string()),
    };
    let labels: Option<Vec<u32>> = labels.iter().map(|&label| map.get(label)).collect();
    let Some(labels) = labels else {
        return Err("a sample has a class that the network does not have".into());
    };
    if !logits.iter().all(|v| v.is_finite()) {
        return Err("a logit of a sample is not finite".into());
    }
    let right: Vec<f64> = logits
        .rows()
        .into_iter()
        .zip(labels)
        .map(|(row, label)| {
            let (label, asked) = (label as usize, row[label as usize]);
            // Of classes that are equally likely the first counts, as usual: a network that cannot
            // tell any apart is right about one of them.
            let mut others = row.iter().enumerate();
            let beaten = others.any(|(i, v)| *v > asked || (*v == asked && i < label));
            f64::from(u8::from(!beaten))
        })
        .collect();
    Ok(vec![mean_figure(
        "labels",
        &right,
        Drawn::Samples,
        1.0,
        options,
    )])
}

fn copies(
    pixels: Option<(ArrayView2<'_, f32>, ArrayView2<'_, f32>)>,
    options: &MeasureOptions,
    report: &mut Report,
) -> Outcome {
    let Some((samples, reference)) = pixels else {
        return Err("needs the images of both sides, of one size and not too many to hold".into());
    };
    let rule = CopyRule::of(reference).map_err(text)?;
    let copied = rule.copies(reference, samples).map_err(text)?;
    let near: Vec<f64> = copied
        .into_iter()
        .map(|copy| f64::from(u8::from(copy)))
        .collect();
    let share = mean(&near);
    if share > MANY_COPIES {
        report.warnings.push(format!(
            "{:.1} % of the samples are copies of reference images: nearer to one than 99 % of \
             these are to each other",
            100.0 * share
        ));
    }
    if rule.twins > 0 {
        report.warnings.push(format!(
            "copies: {} of {} reference images are equal to another, so that the 1 % quantile of their \
             distances is 0; the threshold is that of images that differ, and equal ones always count",
            rule.twins,
            reference.nrows()
        ));
    }
    Ok(vec![Figure {
        better: "down",
        note: Some(format!("nearer than {:.4}", rule.threshold)),
        ..mean_figure("copies", &near, Drawn::Samples, 1.0, options)
    }])
}

impl SavedStatistics {
    /// The statistics of features.
    ///
    /// # Errors
    /// If there are fewer than two points, or too many features for a covariance.
    pub fn of(features: &Features) -> Result<Self> {
        if let Some(why) = &features.no_covariance {
            return Err(EvalError::config(why.clone()));
        }
        let of = |points: &Array2<f32>| Statistics::from_points(points.view());
        Ok(Self {
            features: of(&features.features)?,
            spatial: features.spatial.as_ref().map(of).transpose()?,
        })
    }
}
