//! Small functions of the published train script and metric tool.

use anyhow::{Context, Result, bail, ensure};
use dis_data::crop::{self, Picture};
use dis_eval::metrics::{self, Statistics};
use dis_train::schedule::published_learning_rate;
use ndarray::{Array1, Array2};
use serde_json::Value;

use super::case::{Case, Rule, number, string, whole};
use super::tensors::{Data, Tensor};

fn numbers(value: &Value, key: &str) -> Result<Vec<f64>> {
    let list = value
        .get(key)
        .and_then(Value::as_array)
        .with_context(|| format!("no list {key:?}"))?;
    list.iter()
        .map(|x| {
            x.as_f64()
                .with_context(|| format!("{key}: {x} is not a number"))
        })
        .collect()
}

/// "lr_schedule".
pub fn lr_schedule(case: &Case) -> Result<()> {
    let rule = Rule::OfLargest(case.tolerance(&["rtol"])?);
    for (i, entry) in case.list("cases")?.iter().enumerate() {
        let (lr, min_lr) = (number(entry, "lr")?, number(entry, "min_lr")?);
        let (warmup, epochs) = (number(entry, "warmup_epochs")?, number(entry, "epochs")?);
        let ours: Vec<f64> = numbers(entry, "epoch")?
            .into_iter()
            .map(|epoch| published_learning_rate(epoch, lr, min_lr, warmup, epochs))
            .collect();
        case.compare(
            &format!("case {i}"),
            &ours,
            &numbers(entry, "lr_out")?,
            rule,
        );
    }
    Ok(())
}

fn picture(tensor: &Tensor) -> Result<Picture> {
    match (&tensor.data, &tensor.shape[..]) {
        (Data::U8(bytes), &[height, width, channels]) => Ok(Picture {
            height,
            width,
            channels,
            bytes: bytes.clone(),
        }),
        _ => bail!(
            "{} of shape {:?} is no picture",
            tensor.dtype(),
            tensor.shape
        ),
    }
}

/// "center_crop".
pub fn center_crop(case: &Case) -> Result<()> {
    let rule = Rule::Absolute(case.tolerance(&["max_abs"])?);
    for entry in case.list("cases")? {
        let label = string(entry, "case")?;
        let input = picture(case.tensor(&format!("{label}.image"))?)?;
        let sides = (whole(entry, "height")?, whole(entry, "width")?);
        ensure!(
            (input.height, input.width) == sides,
            "{label} is not {sides:?}"
        );
        let name = format!("{label}.out");
        let stored = picture(case.tensor(&name)?)?;
        let ours = crop::center_crop(&input, whole(entry, "image_size")?);
        ensure!(
            (ours.height, ours.width) == (stored.height, stored.width),
            "{label}: a crop of {} x {}, stored as {} x {}",
            ours.height,
            ours.width,
            stored.height,
            stored.width
        );
        let ours: Vec<f64> = ours.bytes.iter().map(|&x| f64::from(x)).collect();
        case.expect(&name, &ours, rule)?;
    }
    Ok(())
}

fn matrix(tensor: &Tensor) -> Result<Array2<f64>> {
    let [rows, columns] = tensor.shape[..] else {
        bail!("shape {:?}", tensor.shape)
    };
    Ok(Array2::from_shape_vec((rows, columns), tensor.f64())?)
}

/// "frechet_distance".
pub fn frechet_distance(case: &Case) -> Result<()> {
    let rtol = case.tolerance(&["rtol"])?;
    for entry in case.list("cases")? {
        let prefix = match entry.get("name").and_then(Value::as_str) {
            Some(name) => name.to_string(),
            None => format!("d{}", whole(entry, "dim")?),
        };
        let statistics = |side: u8| -> Result<Statistics> {
            let mu = Array1::from_vec(case.tensor(&format!("{prefix}.mu{side}"))?.f64());
            let sigma = matrix(case.tensor(&format!("{prefix}.sigma{side}"))?)?;
            if let Some(features) = case.find(&format!("{prefix}.features{side}")) {
                let ours = Statistics::from_features(matrix(features)?.view())?;
                let rule = Rule::OfLargest(rtol);
                let flat = |x: &Array2<f64>| x.iter().copied().collect::<Vec<f64>>();
                case.compare(
                    &format!("{prefix}.mu{side}"),
                    &ours.mu.to_vec(),
                    &mu.to_vec(),
                    rule,
                );
                let name = format!("{prefix}.sigma{side}");
                case.compare(&name, &flat(&ours.sigma), &flat(&sigma), rule);
            }
            Ok(Statistics { mu, sigma })
        };
        let (a, b) = (statistics(1)?, statistics(2)?);
        let distance = metrics::frechet_distance(&a, &b)?;
        // A case of its own name, such as "singular", may have its own tolerance.
        let own = case.tolerance(&[&format!("{prefix}_rtol")]).unwrap_or(rtol);
        let stored = number(entry, "frechet_distance")?;
        let name = |what: &str| format!("{prefix} {what}");
        case.compare(
            &name("frechet_distance"),
            &[distance],
            &[stored],
            Rule::OfElement(own),
        );
        if let Some(stored) = entry.get("via_eigenvalues").and_then(Value::as_f64) {
            case.compare(
                &name("via_eigenvalues"),
                &[distance],
                &[stored],
                Rule::OfElement(rtol),
            );
        }
        if let Some(zero) = entry.get("identical_inputs").and_then(Value::as_f64) {
            // Zero but for rounding on both sides, so measured against the distance itself.
            let same = metrics::frechet_distance(&a, &a)?;
            let rule = Rule::Absolute(rtol * stored.abs());
            case.compare(&name("identical_inputs"), &[same], &[zero], rule);
        }
    }
    Ok(())
}
