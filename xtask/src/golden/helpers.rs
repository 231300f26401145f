//! Small functions of the published train script and metric tool.

use anyhow::{Context, Result, bail, ensure};
use dis_data::crop::{self, Picture};
use dis_eval::metrics::{self, Statistics};
use dis_train::schedule::published_learning_rate;
use ndarray::{Array1, Array2};
use serde_json::Value;

use super::case::{Case, Rule, number, string, whole};
use dis_golden::{Data, Tensor, shape_of};

fn numbers(value: &Value, key: &str) -> Result<Vec<f64>> {
    list_of(value, key)?
        .iter()
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

/// Grey pictures may come without a dimension of their own for the channel.
fn picture(tensor: &Tensor) -> Result<Picture> {
    let (height, width, channels) = match tensor.shape[..] {
        [height, width] => (height, width, 1),
        [height, width, channels] => (height, width, channels),
        _ => bail!("shape {:?} is not that of a picture", tensor.shape),
    };
    match &tensor.data {
        Data::U8(bytes) => Ok(Picture {
            height,
            width,
            channels,
            bytes: bytes.clone(),
        }),
        _ => bail!("a picture of {}", tensor.dtype()),
    }
}

fn levels(picture: &Picture) -> Vec<f64> {
    picture.bytes.iter().map(|&x| f64::from(x)).collect()
}

/// Our crop of a case, held against the size of the stored one.
fn cropped(case: &Case, label: &str, entry: &Value, stored: &Picture) -> Result<Picture> {
    let input = picture(case.tensor(&format!("{label}.image"))?)?;
    let sides = (whole(entry, "height")?, whole(entry, "width")?);
    ensure!(
        (input.height, input.width) == sides,
        "{label} is not {sides:?}"
    );
    let size = whole(entry, "image_size")?;
    let ours = crop::center_crop(&input, size, size);
    ensure!(
        (ours.height, ours.width) == (stored.height, stored.width),
        "{label}: a crop of {} x {}, stored as {} x {}",
        ours.height,
        ours.width,
        stored.height,
        stored.width
    );
    Ok(ours)
}

/// "center_crop".
pub fn center_crop(case: &Case) -> Result<()> {
    let rule = Rule::Absolute(case.tolerance(&["max_abs"])?);
    for entry in case.list("cases")? {
        let label = string(entry, "case")?;
        let name = format!("{label}.out");
        let stored = picture(case.tensor(&name)?)?;
        let ours = cropped(case, label, entry, &stored)?;
        case.expect(&name, &levels(&ours), rule)?;
    }
    Ok(())
}

/// Versions of Pillow in "pillow_crop": the one that crops follow, and those that resize columns
/// first always.
const FOLLOWED: &str = "out_13_";
const COLUMNS_FIRST: [&str; 2] = ["out_11_", "out_12_"];

/// "pillow_crop": every byte as the followed version. What other versions make is compared as far as
/// the case says how much that differs.
pub fn pillow_crop(case: &Case) -> Result<()> {
    let rule = Rule::Absolute(case.tolerance(&["max_abs"])?);
    for entry in case.list("cases")? {
        let label = string(entry, "label")?;
        let mut rows_came_first = false;
        for step in list_of(entry, "resizes")? {
            let ([w, h], [to_w, to_h]) = (pair(step, "from_wh")?, pair(step, "to_wh")?);
            let ours = crop::rows_first((h, w), (to_h, to_w));
            let stored = step.get("vertical_first_in_13").and_then(Value::as_bool);
            ensure!(
                stored.is_none_or(|stored| stored == ours),
                "{label}: {w}x{h} to {to_w}x{to_h}: rows first is {ours}"
            );
            rows_came_first |= ours;
        }
        for name in case.names(&format!("{label}.out")) {
            let stored = picture(case.tensor(&name)?)?;
            let ours = levels(&cropped(case, label, entry, &stored)?);
            let version = name.rsplit('.').next().unwrap_or_default();
            let columns_first = COLUMNS_FIRST.iter().any(|v| version.starts_with(v));
            ensure!(
                columns_first || version.starts_with(FOLLOWED),
                "{name}: not a version that is known"
            );
            if !columns_first || !rows_came_first {
                case.expect(&name, &ours, rule)?;
                continue;
            }
            let off = ours.iter().zip(levels(&stored)).map(|(a, b)| (a - b).abs());
            let off: Vec<f64> = off.filter(|&off| off > 0.0).collect();
            for (key, ours) in [
                ("differing_values", off.len() as f64),
                (
                    "largest_difference",
                    off.iter().copied().fold(0.0, f64::max),
                ),
            ] {
                if let Some(stored) = entry.get(key).and_then(Value::as_f64) {
                    case.compare(&format!("{name} {key}"), &[ours], &[stored], rule);
                }
            }
        }
    }
    Ok(())
}

fn list_of<'a>(entry: &'a Value, key: &str) -> Result<&'a [Value]> {
    let list = entry.get(key).and_then(Value::as_array);
    list.map(Vec::as_slice)
        .with_context(|| format!("no list {key:?}"))
}

/// Two whole numbers.
fn pair(entry: &Value, key: &str) -> Result<[usize; 2]> {
    entry
        .get(key)
        .and_then(shape_of)
        .and_then(|list| list.try_into().ok())
        .with_context(|| format!("no pair {key:?}"))
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
