//! One manifest being checked: access to its parts, comparisons, and the record of both, so that
//! nothing stored goes unused.

use std::cell::RefCell;
use std::collections::BTreeSet;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Map, Value};

use dis_golden::{Manifest, Tensor};

/// How far a result is off, and how far it may be, in the same unit.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// What was compared.
    pub name: String,
    /// How far it is off; infinite if it is not a number or has the wrong size.
    pub error: f64,
    /// How far it may be off.
    pub tolerance: f64,
}

impl Comparison {
    /// Whether it is within tolerance.
    pub fn passed(&self) -> bool {
        self.error <= self.tolerance
    }

    /// Error in tolerances, for finding the worst.
    fn severity(&self) -> f64 {
        match self.error / self.tolerance {
            ratio if ratio.is_nan() => 0.0,
            ratio => ratio,
        }
    }
}

/// How stored and recomputed values are held against each other.
#[derive(Clone, Copy, Debug)]
pub enum Rule {
    /// Largest absolute error against rtol times the largest stored magnitude.
    OfLargest(f64),
    /// Largest relative error of an element; a stored zero must be met exactly.
    OfElement(f64),
    /// Largest absolute error against rtol times a magnitude that is not the tensor's own.
    OfScale {
        /// Relative tolerance.
        rtol: f64,
        /// The magnitude.
        scale: f64,
    },
    /// Largest absolute error.
    Absolute(f64),
}

/// A manifest being checked.
#[derive(Debug)]
pub struct Case {
    /// The manifest.
    pub manifest: Manifest,
    used: RefCell<BTreeSet<String>>,
    comparisons: RefCell<Vec<Comparison>>,
}

impl Case {
    /// Nothing used, nothing compared.
    pub fn new(manifest: Manifest) -> Self {
        Self {
            manifest,
            used: RefCell::default(),
            comparisons: RefCell::default(),
        }
    }

    /// A key of the manifest.
    pub fn key(&self, key: &str) -> Option<&Value> {
        self.manifest.json.get(key).filter(|v| !v.is_null())
    }

    /// A key that must be a text.
    pub fn text(&self, key: &str) -> Result<&str> {
        self.key(key)
            .and_then(Value::as_str)
            .with_context(|| format!("has no text {key:?}"))
    }

    /// A key that must be an object.
    pub fn object(&self, key: &str) -> Result<&Map<String, Value>> {
        self.key(key)
            .and_then(Value::as_object)
            .with_context(|| format!("has no object {key:?}"))
    }

    /// A key that must be a list.
    pub fn list(&self, key: &str) -> Result<&[Value]> {
        let list = self.key(key).and_then(Value::as_array);
        list.map(Vec::as_slice)
            .with_context(|| format!("has no list {key:?}"))
    }

    /// A number of the tolerance, by path, such as `["grads", "rtol"]`.
    pub fn tolerance(&self, path: &[&str]) -> Result<f64> {
        let mut value = self.key("tolerance");
        for step in path {
            value = value.and_then(|v| v.get(step));
        }
        value
            .and_then(Value::as_f64)
            .with_context(|| format!("has no number tolerance.{}", path.join(".")))
    }

    /// The tolerance that the manifest's list gives a tensor of its own.
    pub fn listed_rtol(&self, name: &str) -> Result<f64> {
        let list = self.list("tensors")?;
        let listed = list
            .iter()
            .find(|t| t.get("name").is_some_and(|n| n == name));
        let rtol = listed.and_then(|t| t.get("rtol")).and_then(Value::as_f64);
        rtol.with_context(|| format!("tensor {name:?} has no rtol in the list"))
    }

    /// A stored tensor.
    pub fn tensor(&self, name: &str) -> Result<&Tensor> {
        self.find(name)
            .with_context(|| format!("tensor {name:?} is missing"))
    }

    /// A stored tensor, if it is there.
    pub fn find(&self, name: &str) -> Option<&Tensor> {
        let tensor = self.manifest.tensors.get(name)?;
        self.used.borrow_mut().insert(name.to_string());
        Some(tensor)
    }

    /// Whether a tensor is stored, without using it.
    pub fn has(&self, name: &str) -> bool {
        self.manifest.tensors.contains_key(name)
    }

    /// Names of the stored tensors that start with `prefix`.
    pub fn names(&self, prefix: &str) -> Vec<String> {
        self.manifest
            .tensors
            .keys()
            .filter(|n| n.starts_with(prefix))
            .cloned()
            .collect()
    }

    /// Holds our values against the stored tensor `name`, which must be there.
    pub fn expect(&self, name: &str, ours: &[f64], rule: Rule) -> Result<()> {
        let stored = self.tensor(name)?.f64();
        self.compare(name, ours, &stored, rule);
        Ok(())
    }

    /// As [`Case::expect`], if the tensor is there; whether it is.
    pub fn expect_if_stored(&self, name: &str, ours: &[f64], rule: Rule) -> Result<bool> {
        let stored = self.has(name);
        if stored {
            self.expect(name, ours, rule)?;
        }
        Ok(stored)
    }

    /// Holds our values against stored ones.
    pub fn compare(&self, name: &str, ours: &[f64], stored: &[f64], rule: Rule) {
        let (error, tolerance) = difference(ours, stored, rule);
        self.record(name, error, tolerance);
    }

    /// Holds one value against another that it must equal.
    pub fn equal(&self, name: &str, ours: f64, stored: f64) {
        self.compare(name, &[ours], &[stored], Rule::Absolute(0.0));
    }

    /// Records a comparison made elsewhere.
    pub fn record(&self, name: &str, error: f64, tolerance: f64) {
        let error = if error.is_nan() { f64::INFINITY } else { error };
        self.comparisons.borrow_mut().push(Comparison {
            name: name.into(),
            error,
            tolerance,
        });
    }

    /// What was compared so far.
    pub fn compared(&self) -> Vec<Comparison> {
        self.comparisons.borrow().clone()
    }

    /// Ends the case: fails if something stored was not used, or nothing was compared. The
    /// comparisons, worst first.
    pub fn finish(self) -> Result<Vec<Comparison>> {
        let used = self.used.into_inner();
        let left: Vec<&String> = self
            .manifest
            .tensors
            .keys()
            .filter(|n| !used.contains(*n))
            .collect();
        if let Some(first) = left.first() {
            bail!(
                "{} stored tensors were not used, such as {first:?}",
                left.len()
            );
        }
        let mut comparisons = self.comparisons.into_inner();
        ensure!(!comparisons.is_empty(), "nothing was compared");
        comparisons.sort_by(|a, b| b.severity().total_cmp(&a.severity()));
        Ok(comparisons)
    }
}

/// Error and tolerance under a rule. Errors are relative where tolerances are.
fn difference(ours: &[f64], stored: &[f64], rule: Rule) -> (f64, f64) {
    let tolerance = match rule {
        Rule::OfLargest(t) | Rule::OfElement(t) | Rule::Absolute(t) => t,
        Rule::OfScale { rtol, .. } => rtol,
    };
    if ours.len() != stored.len() {
        return (f64::INFINITY, tolerance);
    }
    let pairs = || ours.iter().zip(stored);
    if ours.iter().any(|x| !x.is_finite()) {
        return (f64::INFINITY, tolerance);
    }
    let worst = |errors: &mut dyn Iterator<Item = f64>| errors.fold(0.0, f64::max);
    let relative = |off: f64, scale: f64| if off == 0.0 { 0.0 } else { off / scale };
    let largest = || worst(&mut pairs().map(|(a, b)| (a - b).abs()));
    let error = match rule {
        Rule::Absolute(_) => largest(),
        Rule::OfElement(_) => worst(&mut pairs().map(|(a, b)| relative((a - b).abs(), b.abs()))),
        Rule::OfScale { scale, .. } => relative(largest(), scale),
        Rule::OfLargest(_) => relative(largest(), worst(&mut stored.iter().map(|b| b.abs()))),
    };
    (error, tolerance)
}

/// A number of a JSON object.
pub fn number(value: &Value, key: &str) -> Result<f64> {
    value
        .get(key)
        .and_then(Value::as_f64)
        .ok_or_else(|| anyhow!("has no number {key:?} in {}", brief(value)))
}

/// A whole number of a JSON object.
pub fn whole(value: &Value, key: &str) -> Result<usize> {
    value
        .get(key)
        .and_then(Value::as_u64)
        .map(|x| x as usize)
        .ok_or_else(|| anyhow!("has no whole number {key:?} in {}", brief(value)))
}

/// A text of a JSON object.
pub fn string<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value
        .get(key)
        .and_then(Value::as_str)
        .ok_or_else(|| anyhow!("has no text {key:?} in {}", brief(value)))
}

/// A truth value of a JSON object.
pub fn flag(value: &Value, key: &str) -> Result<bool> {
    value
        .get(key)
        .and_then(Value::as_bool)
        .ok_or_else(|| anyhow!("has no true or false {key:?} in {}", brief(value)))
}

fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(120) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_measure_what_they_say() {
        let stored = [0.0, 10.0, -1.0];
        let ours = [0.0, 10.5, -1.1];
        assert_eq!(difference(&ours, &stored, Rule::Absolute(1.0)).0, 0.5);
        assert_eq!(difference(&ours, &stored, Rule::OfLargest(1.0)).0, 0.05);
        let element = difference(&ours, &stored, Rule::OfElement(1.0)).0;
        assert!((element - 0.1).abs() < 1e-12);
    }

    #[test]
    fn what_is_not_a_result_never_passes() {
        let infinite = |ours: &[f64], stored: &[f64]| {
            for rule in [
                Rule::Absolute(1e9),
                Rule::OfLargest(1e9),
                Rule::OfElement(1e9),
            ] {
                assert_eq!(difference(ours, stored, rule).0, f64::INFINITY);
            }
        };
        infinite(&[f64::NAN], &[1.0]);
        infinite(&[f64::INFINITY], &[1.0]);
        infinite(&[1.0, 2.0], &[1.0]);
        // A stored zero, or a tensor of zeros, must be met exactly.
        let off = |rule| difference(&[1e-30], &[0.0], rule).0;
        assert_eq!(off(Rule::OfLargest(1.0)), f64::INFINITY);
        assert_eq!(off(Rule::OfElement(1.0)), f64::INFINITY);
        assert_eq!(difference(&[0.0], &[0.0], Rule::OfLargest(0.0)).0, 0.0);
    }
}
