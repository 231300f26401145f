//! Comparisons of digits, and likelihoods of a small model.

use std::sync::Arc;

use dis_diffusion::{GaussianDiffusion, Options, SeededNoise};
use dis_model::classes::ClassMap;
use dis_model::{Classes, ConditionKind, DisConfig, DisModel};
use dis_pipeline::ModelDenoiser;
use dis_tensor::{Backend, Cpu};
use ndarray::Array4;

use super::*;
use crate::metrics::Bootstrap;
use dis_data::{Dataset, ImageShape, MemoryDataset, Subset, digits, digits_split};

fn side(data: &dyn Dataset) -> (Side, ndarray::Array2<f32>) {
    let features = extract(&PixelFeatures, data, 100, &mut |_| {}).unwrap();
    (
        Side::Points(Box::new(features)),
        pixel_points(data).unwrap(),
    )
}

fn options(metrics: &[Metric]) -> MeasureOptions {
    MeasureOptions {
        metrics: metrics.to_vec(),
        bootstrap: Bootstrap {
            resamples: 20,
            ..Bootstrap::default()
        },
        ..MeasureOptions::default()
    }
}

#[test]
fn halves_of_real_digits_are_close_and_training_images_are_copies() {
    let all: Arc<dyn Dataset> = Arc::new(digits().unwrap());
    let (a, b) = Subset::split(&all, 898, 1).unwrap();
    let ((first, x), (second, y)) = (side(&a), side(&b));
    let options = options(&Metric::ALL);
    let views = Some((x.view(), y.view()));
    let mut seen = Vec::new();
    let report = measure(&first, &second, views, &options, &mut |m| seen.push(m));
    assert_eq!(seen, Metric::ALL);
    println!("{report}");
    let value = |name: &str| report.value(name).unwrap();
    assert!(value("fid") < 0.12 && value("kid").abs() < 0.01);
    assert!(value("precision") > 0.8 && value("recall") > 0.8);
    assert!(value("coverage") > 0.9 && (value("density") - 1.0).abs() < 0.1);
    assert!(value("copies") < 0.05 && report.warnings.is_empty());
    let fid = report.figure("fid").unwrap();
    let interval = fid.interval.unwrap();
    assert!(interval.low < fid.value && fid.value < interval.high);
    // Halving the points again adds bias.
    assert!(interval.bias > 0.0);
    let out: Vec<&str> = report.left_out.iter().map(|l| l.metric).collect();
    assert_eq!(out, ["sfid", "is", "labels"]);

    let views = Some((y.view(), y.view()));
    let report = measure(&second, &second, views, &options, &mut |_| {});
    assert_eq!(report.value("copies"), Some(1.0));
    assert!(report.warnings[0].contains("copies"), "{report}");
}

#[test]
fn saved_statistics_give_the_same_distance_and_leave_the_rest_out() {
    let (train, held) = digits_split(0).unwrap();
    let ((a, _), (b, _)) = (side(&train), side(&held));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("held.npz");
    let Side::Points(features) = &b else { panic!() };
    SavedStatistics::of(features).unwrap().save(&path).unwrap();
    assert!(SavedStatistics::is_file(&path).unwrap());
    let saved = Side::Statistics(Box::new(SavedStatistics::load(&path).unwrap()));
    let options = options(&[Metric::Kid, Metric::Fid, Metric::Pr, Metric::Copies]);
    let with = |reference: &Side| measure(&a, reference, None, &options, &mut |_| {});
    let (points, statistics) = (with(&b), with(&saved));
    assert_eq!(points.value("fid"), statistics.value("fid"));
    let out: Vec<&str> = statistics.left_out.iter().map(|l| l.metric).collect();
    assert_eq!(out, ["kid", "pr", "copies"]);
    // With statistics on both sides there is nothing to draw from.
    let both = measure(&saved, &saved, None, &options, &mut |_| {});
    assert_eq!(both.figure("fid").unwrap().interval, None);
    assert!(both.value("fid").unwrap().abs() < 1e-6);
}

#[test]
fn reports_are_the_same_for_any_number_of_threads() {
    let (_, held) = digits_split(0).unwrap();
    let (train, _) = digits_split(0).unwrap();
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(|| {
            let ((a, x), (b, y)) = (side(&held), side(&train));
            let pixels = Some((x.view(), y.view()));
            let options = options(&Metric::ALL);
            measure(&a, &b, pixels, &options, &mut |_| {})
        })
    };
    let one = serde_json::to_string(&with(1)).unwrap();
    assert_eq!(one, serde_json::to_string(&with(3)).unwrap());
}

#[test]
fn few_images_are_warned_of() {
    let all: Arc<dyn Dataset> = Arc::new(digits().unwrap());
    let few = Subset::draw(Arc::clone(&all), 30, 0).unwrap();
    let ((a, _), (b, _)) = (side(&few), side(&*all));
    let only = options(&[Metric::Fid]);
    let report = measure(&a, &b, None, &only, &mut |_| {});
    assert!(
        report.warnings[0].contains("30 samples for 64 features"),
        "{report}"
    );
}

/// Default metrics of few images: what can be had is there, the rest says what it lacks on which side.
#[test]
fn what_few_images_do_not_allow_is_left_out() {
    let all: Arc<dyn Dataset> = Arc::new(digits().unwrap());
    let few = |n: usize| Subset::draw(Arc::clone(&all), n, 0).unwrap();
    let run = |samples: usize, reference: usize| {
        let ((a, x), (b, y)) = (side(&few(samples)), side(&few(reference)));
        let mut options = options(&Metric::ALL);
        options.bootstrap.resamples = 3;
        measure(&a, &b, Some((x.view(), y.view())), &options, &mut |_| {})
    };
    let names = |report: &Report| -> Vec<&str> { report.figures.iter().map(|f| f.name).collect() };
    let why = |report: &Report, metric: &str| -> String {
        let found = report.left_out.iter().find(|l| l.metric == metric);
        found.unwrap().why.clone()
    };
    let three = run(3, 50);
    assert_eq!(names(&three), ["fid", "kid", "copies"]);
    assert!(why(&three, "pr").contains("at least 4 samples, not 3"));
    assert!(why(&three, "dc").contains("at least 4 samples, not 3"));
    let one = run(1, 50);
    assert_eq!(names(&one), ["copies"]);
    assert!(why(&one, "fid").contains("at least 2 samples, not 1"));
    assert!(why(&one, "kid").contains("at least 2 samples, not 1"));
    // The other side can be the small one.
    let reference = run(50, 5);
    assert_eq!(
        names(&reference),
        ["fid", "kid", "precision", "recall", "copies"]
    );
    assert!(why(&reference, "dc").contains("at least 6 reference images, not 5"));
    let single = run(50, 1);
    assert!(names(&single).is_empty());
    assert!(why(&single, "fid").contains("at least 2 reference images, not 1"));
    assert!(why(&single, "copies").contains("at least 2 reference images, not 1"));
}

/// Features and logits as given, with pixels equal to the features.
fn given(features: ndarray::Array2<f32>, logits: ndarray::Array2<f32>) -> Side {
    Side::Points(Box::new(Features {
        labels: Some((0..features.nrows()).map(|i| i as u32 % 4).collect()),
        spatial: Some(features.clone()),
        features,
        logits: Some(logits),
        sha256: String::new(),
        class_names: ["0", "1", "2", "3"].map(String::from).to_vec(),
        logit_names: Vec::new(),
        no_covariance: None,
    }))
}

#[test]
fn every_metric_takes_constant_images_and_duplicates() {
    use ndarray::Array2;
    let constant = Array2::from_elem((40, 6), 0.3f32);
    let even = Array2::zeros((40, 4));
    let side = given(constant.clone(), even);
    let pixels = Some((constant.view(), constant.view()));
    let report = measure(&side, &side, pixels, &options(&Metric::ALL), &mut |_| {});
    assert!(report.left_out.is_empty(), "{report}");
    let value = |name: &str| report.value(name).unwrap();
    assert_eq!((value("fid"), value("sfid"), value("is")), (0.0, 0.0, 1.0));
    assert!(value("kid").abs() < 1e-9);
    assert_eq!((value("precision"), value("recall")), (1.0, 1.0));
    assert_eq!((value("density"), value("coverage")), (0.0, 0.0));
    // Classes that cannot be told apart: the first is named, a quarter of the labels.
    assert_eq!((value("labels"), value("copies")), (0.25, 1.0));
    for part in [
        "40 of 40 reference images have 5",
        "are copies",
        "40 of 40 reference images are",
    ] {
        assert!(
            report.warnings.iter().any(|w| w.contains(part)),
            "{part}: {report}"
        );
    }

    // Every point three times: nothing is negative, nothing above its most, intervals included.
    let twins = Array2::from_shape_fn((60, 6), |(i, j)| ((i / 3 * 7 + j * 5) % 61) as f32 / 61.0);
    let logits = Array2::from_shape_fn((60, 4), |(i, j)| if i % 4 == j { 9.0 } else { 0.0 });
    let side = given(twins.clone(), logits);
    let pixels = Some((twins.view(), twins.view()));
    let report = measure(&side, &side, pixels, &options(&Metric::ALL), &mut |_| {});
    assert!(report.left_out.is_empty(), "{report}");
    for figure in report.figures.iter().filter(|f| f.name != "kid") {
        let low = figure.interval.unwrap().low;
        assert!(figure.value >= 0.0 && low >= 0.0, "{report}");
    }
    let value = |name: &str| report.value(name).unwrap();
    assert!(value("fid") < 1e-9 && value("sfid") < 1e-9);
    let ones = ["precision", "recall", "coverage", "labels", "copies"];
    assert_eq!(ones.map(value), [1.0; 5], "{report}");
    let copies = report.figure("copies").unwrap();
    assert_eq!(copies.interval.unwrap().high, 1.0);
}

#[test]
fn what_is_not_finite_is_left_out_alone() {
    use ndarray::Array2;
    let points = Array2::from_shape_fn((20, 3), |(i, j)| (i * 3 + j) as f32);
    let mut logits = Array2::zeros((20, 4));
    logits[[5, 1]] = f32::NAN;
    let side = given(points.clone(), logits);
    let pixels = Some((points.view(), points.view()));
    let report = measure(&side, &side, pixels, &options(&Metric::ALL), &mut |_| {});
    let out: Vec<&str> = report.left_out.iter().map(|l| l.metric).collect();
    assert_eq!(out, ["is", "labels"], "{report}");
    let mut broken = points.clone();
    broken[[7, 0]] = f32::INFINITY;
    let broken = given(broken, Array2::zeros((20, 4)));
    let report = measure(&broken, &side, pixels, &options(&Metric::ALL), &mut |_| {});
    let out: Vec<&str> = report.left_out.iter().map(|l| l.metric).collect();
    assert_eq!(out, ["fid", "sfid", "kid", "pr", "dc"], "{report}");
    assert!(report.left_out[0].why.contains("samples: number 7"));
}

#[test]
fn large_images_have_too_many_pixels_for_a_covariance_only() {
    let shape = ImageShape::from([3, 64, 64]);
    let bytes = (0..4 * shape.len()).map(|i| (i % 251) as u8).collect();
    let data = MemoryDataset::new("x", shape, 255, bytes, None, vec![]).unwrap();
    let (a, x) = side(&data);
    let only = options(&[Metric::Fid, Metric::Copies]);
    let report = measure(&a, &a, Some((x.view(), x.view())), &only, &mut |_| {});
    assert_eq!(report.value("copies"), Some(1.0));
    assert!(
        report.left_out[0].why.contains("12288 features"),
        "{report}"
    );
    let Side::Points(features) = &a else { panic!() };
    let e = SavedStatistics::of(features).unwrap_err();
    assert!(e.to_string().contains("12288 features"), "{e}");
    assert!("fidd".parse::<Metric>().unwrap_err().contains("copies"));
}

/// Raw levels of a digit.
fn levels(data: &dyn Dataset, index: usize) -> Vec<u8> {
    let image = data.sample(index, false).unwrap().image;
    image
        .iter()
        .map(|v| ((v + 1.0) * 8.0).round() as u8)
        .collect()
}

#[test]
fn bits_are_means_of_the_bound_whatever_the_batch() {
    let mut config = DisConfig::zoo("DiS-S/2", 8, 1).unwrap();
    (config.patch_size, config.embed_dim, config.depth) = (4, 16, 2);
    config.condition = ConditionKind::Classes {
        num_classes: 10,
        null_label: true,
    };
    let model = DisModel::new(config).unwrap();
    let cpu = Cpu::with_threads(2).unwrap();
    let params = cpu.from_f32(&model.table().initial(3));
    let diffusion = GaussianDiffusion::new(&Options {
        respacing: "7".parse().unwrap(),
        ..Options::default()
    })
    .unwrap();
    let all: Arc<dyn Dataset> = Arc::new(digits().unwrap());
    let few = Subset::draw(all, 5, 0).unwrap();
    let run = |data: &dyn Dataset, map: Option<&ClassMap>, batch_size: usize| {
        let options = BitsOptions {
            batch_size,
            seed: 9,
            clip: true,
            bootstrap: Bootstrap::default(),
        };
        let mut calls = 0;
        let mut progress = |n: usize| calls += n;
        let report = bits_per_dim(
            &cpu,
            &model,
            &params,
            &diffusion,
            data,
            map,
            &options,
            &mut progress,
        );
        assert_eq!(calls, 5 * 7);
        report.unwrap()
    };
    let report = run(&few, None, 2);
    assert_eq!(report, run(&few, None, 5));
    // The same images, whose classes have the numbers of another order of the same names.
    let raw: Vec<u8> = (0..5).flat_map(|i| levels(&few, i)).collect();
    let turned: Vec<u32> = (0..5).map(|i| 9 - few.label(i).unwrap()).collect();
    let names: Vec<String> = (0..10).map(|c| format!("n{}", 9 - c)).collect();
    let map = Classes::named("x", &names).map_to(&Classes::named(
        "y",
        &(0..10).map(|c| format!("n{c}")).collect::<Vec<_>>(),
    ));
    let data = MemoryDataset::new("turned", few.shape(), 16, raw, Some(turned), names).unwrap();
    assert_eq!(report, run(&data, Some(&map.unwrap()), 5));
    assert_ne!(report, run(&data, None, 5));
    let images: Vec<f32> = (0..5)
        .flat_map(|i| few.sample(i, false).unwrap().image)
        .collect();
    let labels: Vec<u32> = (0..5).map(|i| few.label(i).unwrap()).collect();
    let images = Array4::from_shape_vec((5, 1, 8, 8), images).unwrap();
    let mut network = ModelDenoiser::new(&cpu, &model, &params, &labels);
    let mut noise = SeededNoise::new(9, 0..5);
    let bound = diffusion
        .bits_per_dim(&mut network, &images, &mut noise, true)
        .unwrap();
    let mean = |values: &[f64]| values.iter().sum::<f64>() / 5.0;
    assert!((report.total - mean(&bound.total)).abs() < 1e-12);
    assert!((report.prior - mean(&bound.prior)).abs() < 1e-12);
    let parts = report.prior + report.diffusion + report.decoder;
    assert!((report.total - parts).abs() < 1e-9);
    // Column 6 is the last iteration, which makes the image.
    let last: Vec<f64> = bound.vb.column(6).to_vec();
    assert!((report.decoder - mean(&last)).abs() < 1e-12);
    assert!(
        report
            .terms
            .windows(2)
            .all(|w| w[0].timestep < w[1].timestep)
    );
}
