//! Classes and their names: who is who in two holders of them, which one a user means, how many
//! images each gets.
//!
//! A class is a row of a table, so its number means something to one holder only: a checkpoint, a
//! data set, a classifier. [`Classes`] is what a holder says of its classes, and [`Classes::map_to`]
//! is the one way from the numbers of one to those of another.

mod choose;
mod division;
mod file_names;
mod matching;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde_json::Value;

use crate::checkpoint::Metadata;
use crate::config::ConditionKind;

pub use division::Division;
pub use matching::ClassMap;

/// Metadata key of the names of the classes, a list of strings.
pub const CLASS_NAMES: &str = "class_names";
/// Metadata key of the classes that the training data had no image of, a list of numbers.
pub const UNOCCUPIED_CLASSES: &str = "unoccupied_classes";
/// Most names in a message.
const SHOWN: usize = 12;

/// What is wrong with classes, or with what is asked of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClassError {
    /// A class that another holder does not have.
    #[error("class names differ: {from} has {from_names}; {to} has {to_names}, and no {missing}")]
    Differ {
        /// Whose classes are looked for.
        from: String,
        /// Their names, shortened.
        from_names: String,
        /// Among whose they are looked for.
        to: String,
        /// Their names, shortened.
        to_names: String,
        /// The first that is not found.
        missing: String,
    },
    /// Two holders without names, or one with and one without, of different numbers of classes.
    #[error(
        "numbers of classes differ: {from} has {from_count} ({from_names}), {to} {to_count} \
         ({to_names})"
    )]
    Count {
        /// Whose classes are looked for.
        from: String,
        /// How many there are.
        from_count: usize,
        /// Their names, shortened.
        from_names: String,
        /// Among whose they are looked for.
        to: String,
        /// How many there are.
        to_count: usize,
        /// Their names, shortened.
        to_names: String,
    },
    /// Numbers on one side that may be names or places among the names of the other.
    #[error(
        "class names differ: {numbered} has numbers, {numbers}, and it is not clear whether these \
         are the names of {named}, {names}, or their places"
    )]
    Unclear {
        /// The holder of numbers.
        numbered: String,
        /// Its numbers, shortened.
        numbers: String,
        /// The holder of names that are numbers.
        named: String,
        /// Its names, shortened.
        names: String,
    },
    /// A name that more than one class has.
    #[error("{holder}: classes {first} and {second} are both named {name:?}{advice}")]
    Twice {
        /// Whose classes they are.
        holder: String,
        /// The name.
        name: String,
        /// One class.
        first: usize,
        /// Another.
        second: usize,
        /// What to do about it.
        advice: &'static str,
    },
    /// A class that there is not.
    #[error("no class {text:?}; classes are {names}")]
    Unknown {
        /// What was asked for.
        text: String,
        /// What there is, shortened.
        names: String,
    },
    /// A list that cannot be read.
    #[error("{text:?}: {what}")]
    List {
        /// The list.
        text: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Metadata that do not say what classes there are.
    #[error("checkpoint metadata {key:?}: {what}")]
    Metadata {
        /// The key.
        key: &'static str,
        /// What is wrong with its value.
        what: String,
    },
}

/// The classes of a checkpoint, a data set or a classifier: how many, their names, and which of
/// them have images.
///
/// Names that are the numbers from 0 in order say no more than the numbers, as do numbers that
/// stand twice: such holders count as having none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes {
    holder: String,
    count: usize,
    /// Fewer than `count` where the last classes have no name; empty without names.
    names: Vec<String>,
    unoccupied: BTreeSet<u32>,
}

impl Classes {
    /// `count` classes without names. `holder` says whose they are, as in `the model`.
    pub fn numbered(holder: impl Into<String>, count: usize) -> Self {
        Self {
            holder: holder.into(),
            count,
            names: Vec::new(),
            unoccupied: BTreeSet::new(),
        }
    }

    /// Classes of these names, in the order of their numbers.
    pub fn named(holder: impl Into<String>, names: &[String]) -> Self {
        let in_order = names.iter().enumerate().all(|(i, n)| *n == i.to_string());
        let numbers = names.iter().all(|n| is_number(n));
        let mut seen = BTreeSet::new();
        let twice = numbers && !names.iter().all(|n| seen.insert(n));
        Self {
            names: match in_order || twice {
                true => Vec::new(),
                false => names.to_vec(),
            },
            ..Self::numbered(holder, names.len())
        }
    }

    /// The classes that a checkpoint describes; none for a model without classes.
    ///
    /// # Errors
    /// If names are no list of at most as many strings as there are classes, or unoccupied classes
    /// no list of numbers below their count.
    pub fn of(metadata: &Metadata) -> crate::Result<Option<Self>> {
        let ConditionKind::Classes { num_classes, .. } = metadata.model.condition else {
            return Ok(None);
        };
        let names: Vec<String> = list(metadata, CLASS_NAMES, Value::as_str)?
            .into_iter()
            .map(str::to_owned)
            .collect();
        if names.len() > num_classes {
            return Err(ClassError::Metadata {
                key: CLASS_NAMES,
                what: format!("{} names for {num_classes} classes", names.len()),
            }
            .into());
        }
        let mut classes = Self::named("the model", &names);
        // A model made for more classes than its data had never saw the others.
        if !names.is_empty() {
            classes.unoccupied = (names.len()..num_classes).map(|c| c as u32).collect();
        }
        classes.count = num_classes;
        for class in list(metadata, UNOCCUPIED_CLASSES, Value::as_u64)? {
            let known = u32::try_from(class).ok();
            let Some(known) = known.filter(|&c| (c as usize) < num_classes) else {
                return Err(ClassError::Metadata {
                    key: UNOCCUPIED_CLASSES,
                    what: format!("{class} among {num_classes} classes"),
                }
                .into());
            };
            classes.unoccupied.insert(known);
        }
        Ok(Some(classes))
    }

    /// The same, said that some of them have no images.
    #[must_use]
    pub fn without_images(mut self, classes: impl IntoIterator<Item = u32>) -> Self {
        self.unoccupied.extend(classes);
        self
    }

    /// Under another description of whose they are.
    #[must_use]
    pub fn held_by(self, holder: impl Into<String>) -> Self {
        Self {
            holder: holder.into(),
            ..self
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whose they are.
    pub fn holder(&self) -> &str {
        &self.holder
    }

    /// Whether they have names.
    pub fn has_names(&self) -> bool {
        !self.names.is_empty()
    }

    /// Name of a class: its number where it has none.
    pub fn name(&self, class: u32) -> String {
        let name = self.names.get(class as usize);
        name.cloned().unwrap_or_else(|| class.to_string())
    }

    /// Names of all classes, as [`Classes::name`] says them.
    pub fn names(&self) -> Vec<String> {
        (0..self.count as u32).map(|c| self.name(c)).collect()
    }

    /// Whether no image of a class was trained on.
    pub fn is_unoccupied(&self, class: u32) -> bool {
        self.unoccupied.contains(&class)
    }

    /// The classes to draw where none is asked for: those that have images, or all if that is said
    /// of none.
    pub fn occupied(&self) -> Vec<u32> {
        let all = 0..self.count as u32;
        match all.clone().filter(|c| !self.is_unoccupied(*c)).collect() {
            occupied if !Vec::is_empty(&occupied) => occupied,
            _ => all.collect(),
        }
    }

    /// Names in quotes, for messages: a dozen at most. Numbers as a range.
    pub fn listing(&self) -> String {
        match self.count {
            0 => return "none".into(),
            1 if !self.has_names() => return "0".into(),
            n if !self.has_names() => return format!("0 to {}", n - 1),
            _ => {}
        }
        let shown = self.names.iter().take(SHOWN).map(|n| format!("{n:?}"));
        let shown = shown.collect::<Vec<_>>().join(", ");
        match self.count > SHOWN.min(self.names.len()) {
            true => format!("{shown}, ... ({} in all)", self.count),
            false => shown,
        }
    }

    /// A class for messages: its name in quotes, or its number.
    pub fn quoted(&self, class: u32) -> String {
        match self.names.get(class as usize) {
            Some(name) => format!("{name:?}"),
            None => class.to_string(),
        }
    }

    /// Whether all names are numbers, so that a number is a name and nothing else.
    fn names_are_numbers(&self) -> bool {
        self.has_names() && self.names.iter().all(|n| is_number(n))
    }

    /// The first name that stands twice.
    fn twice(&self, advice: &'static str) -> Option<ClassError> {
        let mut seen = std::collections::HashMap::new();
        self.names.iter().enumerate().find_map(|(second, name)| {
            let first = seen.insert(name, second)?;
            Some(ClassError::Twice {
                holder: self.holder.clone(),
                name: name.clone(),
                first,
                second,
                advice,
            })
        })
    }
}

/// Whether a text is a number without a sign.
fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// The list under a key; empty where there is none.
fn list<'a, T>(
    metadata: &'a Metadata,
    key: &'static str,
    read: impl Fn(&'a Value) -> Option<T>,
) -> Result<Vec<T>, ClassError> {
    let Some(value) = metadata.extra.get(key) else {
        return Ok(Vec::new());
    };
    let items = value.as_array().map(|items| items.iter().map(read));
    let items = items.and_then(Iterator::collect::<Option<Vec<T>>>);
    items.ok_or_else(|| ClassError::Metadata {
        key,
        what: "is no list of the kind that belongs there".into(),
    })
}
