//! Weights of a checkpoint for a model that may have another image size and other classes:
//! `--init-from`.
//!
//! A tensor is taken as it is where the model has one of the same name and shape. Two are fitted:
//! the table of positions, whose grid is resized ([`dis_model::positions`]), and the table of
//! classes, whose rows go by the classes' names. What only a condition needs is drawn where the
//! checkpoint lacks it, by the seed of the run, and left out where the model does. Everything else
//! is another architecture and refused.

#[cfg(test)]
mod tests;

use std::fmt;
use std::mem::discriminant;

use dis_model::checkpoint::config_to_json;
use dis_model::classes::{ClassError, Classes};
use dis_model::positions::{Bicubic, PositionResize};
use dis_model::{Checkpoint, Conditioning, DisConfig, DisModel, LABEL_TABLE, Metadata};
use dis_ssm::ParamSpec;
use serde::Serialize;

use crate::error::{Result, TrainError};

const POSITIONS: &str = "pos_embed";
/// Beginnings of the names of tensors that only a condition needs.
const CONDITION: [&str; 4] = [
    LABEL_TABLE,
    "context_embed.",
    "null_context",
    "final_layer.adaLN_modulation.",
];
/// Keys of a configuration that may differ.
const FREE: [&str; 7] = [
    "image_size",
    "num_classes",
    "null_label",
    "context_dim",
    "context_tokens",
    "null_context",
    "drop_path_rate",
];
/// Most names in a line.
const SHOWN: usize = 12;

/// What was taken from a checkpoint and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Transfer {
    /// Tensors that were taken, fitted ones among them.
    pub taken: usize,
    /// Rows and columns of the grid of positions before and after, if they differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub positions: Option<[[usize; 2]; 2]>,
    /// The classes, if there are any before and after and they differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classes: Option<KeptClasses>,
    /// Tensors, and parts of them, that are drawn anew.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drawn: Vec<String>,
    /// Tensors, and parts of them, that the model has no use for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}

/// Which classes of the model have the row of the class of that name in the checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KeptClasses {
    /// Those that do.
    pub kept: Vec<String>,
    /// Those whose row is drawn anew.
    pub drawn: Vec<String>,
    /// Those of the checkpoint that the model does not have.
    pub left_out: Vec<String>,
}

impl fmt::Display for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "took {} tensors", self.taken)?;
        if let Some([[rows, columns], [to_rows, to_columns]]) = self.positions {
            write!(
                f,
                "; position table resized from {rows}x{columns} to {to_rows}x{to_columns}"
            )?;
        }
        if let Some(classes) = &self.classes {
            let (kept, drawn) = (&classes.kept, &classes.drawn);
            let all = kept.len() + drawn.len();
            write!(f, "; classes kept: {} of {all}", kept.len())?;
            if !kept.is_empty() {
                write!(f, " ({})", shown(kept))?;
            }
            for (what, names) in [("drawn", drawn), ("left out", &classes.left_out)] {
                if !names.is_empty() {
                    write!(f, ", {what}: {}", shown(names))?;
                }
            }
        }
        for (what, names) in [("drawn anew", &self.drawn), ("left out", &self.left_out)] {
            if !names.is_empty() {
                write!(f, "; {what}: {}", shown(names))?;
            }
        }
        Ok(())
    }
}

fn shown(names: &[String]) -> String {
    let few = names.iter().take(SHOWN).cloned().collect::<Vec<_>>();
    match names.len() > SHOWN {
        true => format!("{}, ... ({} in all)", few.join(", "), names.len()),
        false => few.join(", "),
    }
}

/// Weights for `model`, whose metadata name its classes, from those of `checkpoint`. What is drawn
/// is what a new run of this seed would begin with.
///
/// # Errors
/// Another architecture: names the tensor and both shapes. Classes of which it is not clear who is
/// who.
pub fn transfer(
    checkpoint: &Checkpoint,
    model: &DisModel,
    metadata: &Metadata,
    seed: u64,
) -> Result<(Vec<f32>, Transfer)> {
    check(&checkpoint.model, model)?;
    let mut weights = model.table().initial(seed);
    let mut report = Transfer::default();
    for to in model.table().specs() {
        let Some(from) = checkpoint.model.table().find(&to.name) else {
            report.drawn.push(to.name.clone());
            continue;
        };
        let values = &checkpoint.weights[from.offset..from.offset + from.len()];
        let out = &mut weights[to.offset..to.offset + to.len()];
        report.taken += 1;
        match to.name.as_str() {
            POSITIONS => {
                let configs = [checkpoint.model.config(), model.config()];
                positions(configs, values, out, &mut report)?;
            }
            LABEL_TABLE => {
                let (Some(from), Some(to)) =
                    (Classes::of(&checkpoint.metadata)?, Classes::of(metadata)?)
                else {
                    return Err(TrainError::config("--init-from: a table without classes"));
                };
                let map = rows(
                    &from.held_by("the checkpoint"),
                    &to.held_by("the model"),
                    &mut report,
                )?;
                classes(
                    map,
                    model.config(),
                    &checkpoint.model,
                    values,
                    out,
                    &mut report,
                );
            }
            _ => out.copy_from_slice(values),
        }
    }
    let left = checkpoint.model.table().specs().iter();
    let left = left.filter(|spec| model.table().find(&spec.name).is_none());
    report.left_out.extend(left.map(|spec| spec.name.clone()));
    Ok((weights, report))
}

fn refuse(error: ClassError) -> TrainError {
    error.compared_for("--init-from").into()
}

fn of_condition(name: &str) -> bool {
    CONDITION.iter().any(|part| name.starts_with(part))
}

/// Refuses another architecture.
fn check(from: &DisModel, to: &DisModel) -> Result<()> {
    // Positions have a row for each token and classes one for each class: of these only the width
    // must agree.
    let fits = |a: &ParamSpec, b: &ParamSpec| match a.name.as_str() {
        POSITIONS | LABEL_TABLE => a.shape.last() == b.shape.last(),
        _ => a.shape == b.shape,
    };
    let refuse = |what: String| {
        let why = differences(from.config(), to.config());
        Err(TrainError::config(format!("--init-from: {what}{why}")))
    };
    for b in to.table().specs() {
        match from.table().find(&b.name) {
            Some(a) if !fits(a, b) => {
                return refuse(format!(
                    "tensor {:?} has shape {:?} in the checkpoint and {:?} in the model",
                    b.name, a.shape, b.shape
                ));
            }
            None if !of_condition(&b.name) => {
                return refuse(format!(
                    "the checkpoint has no tensor {:?}, which has shape {:?} in the model",
                    b.name, b.shape
                ));
            }
            _ => {}
        }
    }
    let unknown = |a: &&ParamSpec| !of_condition(&a.name) && to.table().find(&a.name).is_none();
    match from.table().specs().iter().find(unknown) {
        Some(a) => refuse(format!(
            "the model has no tensor {:?}, which has shape {:?} in the checkpoint",
            a.name, a.shape
        )),
        None => Ok(()),
    }
}

/// The keys that make two architectures of which neither can begin with the weights of the other.
fn differences(from: &DisConfig, to: &DisConfig) -> String {
    let (from, to) = (config_to_json(from), config_to_json(to));
    let mut keys: Vec<&String> = from.keys().chain(to.keys()).collect();
    keys.sort();
    keys.dedup();
    let keys = keys.into_iter().filter(|key| !FREE.contains(&key.as_str()));
    let value = |map: &serde_json::Map<String, serde_json::Value>, key: &str| {
        map.get(key).map_or("unset".into(), ToString::to_string)
    };
    let different = keys.filter(|key| from.get(*key) != to.get(*key));
    let parts: Vec<String> = different
        .map(|key| {
            format!(
                "{key} is {} there and {} here",
                value(&from, key),
                value(&to, key)
            )
        })
        .collect();
    match parts.is_empty() {
        true => String::new(),
        false => format!(": {}", parts.join(", ")),
    }
}

/// Fits the table of positions: condition tokens, the time token, the grid.
fn positions(
    [from, to]: [&DisConfig; 2],
    values: &[f32],
    out: &mut [f32],
    report: &mut Transfer,
) -> Result<()> {
    let width = from.embed_dim;
    let (extra, extra_to) = (from.extra_tokens() * width, to.extra_tokens() * width);
    let (front, grid) = values.split_at(extra);
    let (front_to, grid_to) = out.split_at_mut(extra_to);
    if from.grid() == to.grid() {
        grid_to.copy_from_slice(grid);
    } else {
        let resize = PositionResize::new(from.grid(), to.grid(), 0, Bicubic::Plain)?;
        let grid: Vec<f64> = grid.iter().map(|&x| f64::from(x)).collect();
        let resized = resize.forward(&grid, width)?;
        for (out, value) in grid_to.iter_mut().zip(resized) {
            *out = value as f32;
        }
        report.positions = Some([from.grid(), to.grid()]);
    }
    if to.conditioning != Conditioning::Tokens {
        return Ok(());
    }
    // The time token is the last in front of the grid.
    let (condition, time) = front.split_at(extra.saturating_sub(width));
    let (condition_to, time_to) = front_to.split_at_mut(extra_to.saturating_sub(width));
    time_to.copy_from_slice(time);
    // One token of a class is no token of a text.
    let same_kind = discriminant(&from.condition) == discriminant(&to.condition);
    if same_kind && condition.len() == condition_to.len() {
        condition_to.copy_from_slice(condition);
        return Ok(());
    }
    let part = format!("{POSITIONS} of the condition");
    if !condition_to.is_empty() {
        report.drawn.push(part.clone());
    }
    if !condition.is_empty() {
        report.left_out.push(part);
    }
    Ok(())
}

/// For each class of the model the checkpoint's class of that name.
fn rows(from: &Classes, to: &Classes, report: &mut Transfer) -> Result<Vec<Option<u32>>> {
    // A number says nothing of a name, unless there are as many of both.
    let comparable = from.has_names() == to.has_names() || from.count() == to.count();
    let rows = match comparable {
        true => to.common(from).map_err(refuse)?.classes().to_vec(),
        false => vec![None; to.count()],
    };
    let same = from.count() == to.count();
    if same && rows.iter().zip(0..).all(|(row, class)| *row == Some(class)) {
        return Ok(rows);
    }
    let mut classes = KeptClasses::default();
    for (class, row) in (0..).zip(&rows) {
        match row {
            Some(_) => classes.kept.push(to.name(class)),
            None => classes.drawn.push(to.name(class)),
        }
    }
    let used = |class: &u32| rows.contains(&Some(*class));
    let unused = (0..from.count() as u32).filter(|class| !used(class));
    classes.left_out = unused.map(|class| from.name(class)).collect();
    report.classes = Some(classes);
    Ok(rows)
}

/// Fits the table of classes, whose last row may be that of "no label".
fn classes(
    mut rows: Vec<Option<u32>>,
    to: &DisConfig,
    from: &DisModel,
    values: &[f32],
    out: &mut [f32],
    report: &mut Transfer,
) {
    match (from.config().null_label(), to.null_label()) {
        (None, None) => {}
        (null, Some(_)) => {
            rows.push(null);
            if null.is_none() {
                report.drawn.push("the row of no label".into());
            }
        }
        (Some(_), None) => report.left_out.push("the row of no label".into()),
    }
    let width = to.embed_dim;
    for (out, row) in out.chunks_exact_mut(width).zip(rows) {
        let row = row.map(|row| row as usize * width);
        if let Some(row) = row.and_then(|at| values.get(at..at + width)) {
            out.copy_from_slice(row);
        }
    }
}
