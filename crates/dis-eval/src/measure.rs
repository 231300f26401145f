//! The metrics that two sides allow.

use std::str::FromStr;

use dis_model::Classes;
use dis_tensor::random::{Purpose, Stream};
use ndarray::{Array2, ArrayView2, Axis};
use serde::Serialize;

use super::features::Features;
use super::report::{Figure, LeftOut, Report};
use super::statistics::SavedStatistics;
use crate::error::Result;
use crate::metrics::{
    BallOptions, Bootstrap, Drawn, KernelOptions, MetricError, Statistics, balls, copy_threshold,
    frechet_distance, inception_score, kernel_distance, mean, nearest_distances, softmax,
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
    /// Which.
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

/// What a metric comes to.
enum Outcome {
    Figures(Vec<Figure>),
    LeftOut(String),
}

/// Measures `samples` against `reference`. `pixels` are those of both, (n, values) in [0, 1], for
/// copies. `progress` is called with the name of each metric before it is measured.
///
/// What a side does not allow is left out and said so.
///
/// # Errors
/// Sides of different features, too few points, values that are not finite.
pub fn measure(
    samples: &Side,
    reference: &Side,
    pixels: Option<(ArrayView2<'_, f32>, ArrayView2<'_, f32>)>,
    options: &MeasureOptions,
    progress: &mut dyn FnMut(Metric),
) -> Result<Report> {
    let mut report = Report::default();
    let mut metrics = options.metrics.clone();
    metrics.sort_unstable();
    metrics.dedup();
    for metric in metrics {
        progress(metric);
        let outcome = match metric {
            Metric::Fid => frechet(samples, reference, false, options, &mut report)?,
            Metric::Sfid => frechet(samples, reference, true, options, &mut report)?,
            Metric::Is => inception(samples, options)?,
            Metric::Kid => kernel(samples, reference, options)?,
            Metric::Pr | Metric::Dc => fidelity(samples, reference, metric, options)?,
            Metric::Labels => labels(samples, options)?,
            Metric::Copies => copies(pixels, options, &mut report)?,
        };
        match outcome {
            Outcome::Figures(figures) => report.figures.extend(figures),
            Outcome::LeftOut(why) => report.left_out.push(LeftOut {
                metric: metric.name(),
                why,
            }),
        }
    }
    Ok(report)
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
) -> std::result::Result<(&'a Features, &'a Features), Outcome> {
    points(samples).zip(points(reference)).ok_or_else(|| {
        Outcome::LeftOut("needs images on both sides, and one has statistics only".into())
    })
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

    fn statistics(&self) -> std::result::Result<Statistics, MetricError> {
        match self {
            Self::Points(points) => Statistics::from_points(*points),
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

fn frechet(
    samples: &Side,
    reference: &Side,
    spatial: bool,
    options: &MeasureOptions,
    report: &mut Report,
) -> Result<Outcome> {
    let given = Given::of(samples, spatial).zip(Given::of(reference, spatial));
    let Some((x, y)) = given else {
        return Ok(Outcome::LeftOut(
            "needs spatial features on both sides: a classifier's, or --onnx-spatial".into(),
        ));
    };
    let (a, b) = (x.statistics()?, y.statistics()?);
    let value = frechet_distance(&a, &b)?;
    for (name, side) in [("samples", &x), ("reference images", &y)] {
        if let Given::Points(p) = side
            && p.nrows() <= p.ncols()
        {
            report.warnings.push(format!(
                "{}: {} {name} for {} features: their covariance is singular and the distance is \
                 biased; more than ten times as many are wanted",
                if spatial { "sfid" } else { "fid" },
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
        false => bootstrap.interval(value, draw)?,
    };
    Ok(Outcome::Figures(vec![Figure {
        interval,
        ..Figure::new(if spatial { "sfid" } else { "fid" }, "down", value)
    }]))
}

fn inception(samples: &Side, options: &MeasureOptions) -> Result<Outcome> {
    let Some(logits) = points(samples).and_then(|p| p.logits.as_ref()) else {
        return Ok(Outcome::LeftOut(
            "needs logits of the samples: a classifier's, or --onnx-logits".into(),
        ));
    };
    let probabilities = softmax(logits.view());
    let n = probabilities.nrows();
    // Samples come class by class; splits must not.
    let order = Stream::new(options.bootstrap.seed, Purpose::Metric, SPLITS, 0).permutation(n);
    let order: Vec<usize> = order.into_iter().map(|i| i as usize).collect();
    let shuffled = probabilities.select(Axis(0), &order);
    let score = inception_score(shuffled.view(), options.splits)?;
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
    Ok(Outcome::Figures(vec![Figure {
        interval: options.bootstrap.interval(score.mean, draw)?,
        std: Some(score.std),
        ..Figure::new("is", "up", score.mean)
    }]))
}

fn kernel(samples: &Side, reference: &Side, options: &MeasureOptions) -> Result<Outcome> {
    let (x, y) = match both(samples, reference) {
        Ok(both) => both,
        Err(left_out) => return Ok(left_out),
    };
    let kid = kernel_distance(y.features.view(), x.features.view(), options.kernel)?;
    Ok(Outcome::Figures(vec![Figure {
        std: Some(kid.std),
        note: Some(format!("{} subsets of {}", kid.subsets, kid.size)),
        ..Figure::new("kid", "down", kid.mean)
    }]))
}

fn fidelity(
    samples: &Side,
    reference: &Side,
    metric: Metric,
    options: &MeasureOptions,
) -> Result<Outcome> {
    let (x, y) = match both(samples, reference) {
        Ok(both) => both,
        Err(left_out) => return Ok(left_out),
    };
    let found = balls(y.features.view(), x.features.view(), options.balls)?;
    let figure = |name, values: &[f64], drawn| Figure {
        interval: options.bootstrap.of_mean(drawn, values),
        ..Figure::new(name, "up", mean(values))
    };
    Ok(Outcome::Figures(match metric {
        Metric::Pr => vec![
            figure("precision", &found.precision, Drawn::Samples),
            figure("recall", &found.recall, Drawn::Reference),
        ],
        _ => vec![
            figure("density", &found.density, Drawn::Samples),
            figure("coverage", &found.coverage, Drawn::Reference),
        ],
    }))
}

/// Share of the samples whose most likely class has the name of their own.
fn labels(samples: &Side, options: &MeasureOptions) -> Result<Outcome> {
    let known = points(samples).and_then(|p| Some((p, p.logits.as_ref()?, p.labels.as_ref()?)));
    let Some((points, logits, labels)) = known else {
        return Ok(Outcome::LeftOut(
            "needs logits of the samples, and the class that each was asked for".into(),
        ));
    };
    let network = match points.logit_names.len() == logits.ncols() {
        true => Classes::named("the network", &points.logit_names),
        false => Classes::numbered("the network", logits.ncols()),
    };
    let map = match Classes::named("SAMPLES", &points.class_names).map_to(&network) {
        Ok(map) => map,
        Err(differ) => return Ok(Outcome::LeftOut(differ.to_string())),
    };
    let labels: Option<Vec<u32>> = labels.iter().map(|&label| map.get(label)).collect();
    let Some(labels) = labels else {
        return Ok(Outcome::LeftOut(
            "a sample has a class that the network does not have".into(),
        ));
    };
    let right: Vec<f64> = logits
        .rows()
        .into_iter()
        .zip(labels)
        .map(|(row, label)| {
            let asked = row[label as usize];
            let beaten = row.iter().any(|v| *v > asked);
            f64::from(u8::from(!beaten))
        })
        .collect();
    Ok(Outcome::Figures(vec![Figure {
        interval: options.bootstrap.of_mean(Drawn::Samples, &right),
        ..Figure::new("labels", "up", mean(&right))
    }]))
}

fn copies(
    pixels: Option<(ArrayView2<'_, f32>, ArrayView2<'_, f32>)>,
    options: &MeasureOptions,
    report: &mut Report,
) -> Result<Outcome> {
    let Some((samples, reference)) = pixels else {
        return Ok(Outcome::LeftOut(
            "needs the images of both sides, of one size and not too many to hold".into(),
        ));
    };
    let threshold = copy_threshold(reference)?;
    let near: Vec<f64> = nearest_distances(reference, samples)?
        .into_iter()
        .map(|d| f64::from(u8::from(d < threshold)))
        .collect();
    let share = mean(&near);
    if share > MANY_COPIES {
        report.warnings.push(format!(
            "{:.1} % of the samples are copies of reference images: nearer to one than 99 % of \
             these are to each other",
            100.0 * share
        ));
    }
    Ok(Outcome::Figures(vec![Figure {
        interval: options.bootstrap.of_mean(Drawn::Samples, &near),
        note: Some(format!("nearer than {threshold:.4}")),
        ..Figure::new("copies", "down", share)
    }]))
}

impl SavedStatistics {
    /// The statistics of features.
    ///
    /// # Errors
    /// If there are fewer than two points.
    pub fn of(features: &Features) -> Result<Self> {
        let of = |points: &Array2<f32>| Statistics::from_points(points.view());
        Ok(Self {
            features: of(&features.features)?,
            spatial: features.spatial.as_ref().map(of).transpose()?,
        })
    }
}
