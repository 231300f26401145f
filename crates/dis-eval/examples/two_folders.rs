//! A metric between two folders of pictures of one size:
//! `cargo run --release -p dis-eval --example two_folders -- samples/,size=32 real/,size=32`
//! Without arguments, held-out digits against those that models are trained on.

use dis_eval::{MeasureOptions, Metric, PixelFeatures, Side, extract, measure, open};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let mut side = |usual: &str| -> Result<Side, Box<dyn std::error::Error>> {
        let spec = args.next().unwrap_or_else(|| usual.into());
        let data = open(&spec.parse()?)?;
        println!("{}", data.describe());
        let features = extract(&PixelFeatures, &*data, 64, &mut |_| {})?;
        Ok(Side::Points(Box::new(features)))
    };
    let (samples, reference) = (side("digits-held-out")?, side("digits-train")?);
    let options = MeasureOptions {
        metrics: vec![Metric::Fid, Metric::Kid, Metric::Dc],
        ..MeasureOptions::default()
    };
    let report = measure(&samples, &reference, None, &options, &mut |_| {});
    for figure in &report.figures {
        println!("{:<10} {:.4}", figure.name, figure.value);
    }
    for left_out in &report.left_out {
        println!("{:<10} left out: {}", left_out.metric, left_out.why);
    }
    Ok(())
}
