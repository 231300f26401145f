//! From the class numbers of one holder to those of another.

use std::collections::HashMap;

use super::{ClassError, Classes, is_number};

/// For each class of one holder the class of another that has its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassMap {
    to: Vec<Option<u32>>,
}

impl ClassMap {
    /// The other holder's class; none where it has no such class.
    pub fn get(&self, class: u32) -> Option<u32> {
        self.to.get(class as usize).copied().flatten()
    }

    /// The other holder's classes, in the order of this one's.
    pub fn classes(&self) -> &[Option<u32>] {
        &self.to
    }

    /// Whether every class keeps its number.
    pub fn is_identity(&self) -> bool {
        let mut classes = self.to.iter().enumerate();
        classes.all(|(class, to)| *to == Some(class as u32))
    }

    fn numbers(count: usize, known: usize) -> Self {
        let class = |c: usize| (c < known).then_some(c as u32);
        Self {
            to: (0..count).map(class).collect(),
        }
    }
}

impl Classes {
    /// Maps every class to the class of `to` that has its name. Where one side has no names,
    /// numbers are compared: `to` must have as many classes as there are names, or at least as many
    /// as there are numbers. Classes without images need no partner.
    ///
    /// # Errors
    /// If `to` lacks a class, if names stand twice, or if one side has numbers where the names of
    /// the other are other numbers.
    pub fn map_to(&self, to: &Self) -> Result<ClassMap, ClassError> {
        let map = self.common(to)?;
        let missing = |&c: &u32| map.get(c).is_none() && !self.is_unoccupied(c);
        let Some(missing) = (0..self.count as u32).find(missing) else {
            return Ok(map);
        };
        Err(if self.has_names() && to.has_names() {
            ClassError::Differ {
                from: self.holder.clone(),
                from_names: self.listing(),
                to: to.holder.clone(),
                to_names: to.listing(),
                missing: self.quoted(missing),
            }
        } else {
            ClassError::Count {
                from: self.holder.clone(),
                from_count: self.count,
                from_names: self.listing(),
                to: to.holder.clone(),
                to_count: to.count,
                to_names: to.listing(),
            }
        })
    }

    /// As [`Classes::map_to`], with none for classes that `to` does not have: what two holders have
    /// in common.
    ///
    /// # Errors
    /// If names stand twice, or if one side has numbers where the names of the other are other
    /// numbers.
    pub fn common(&self, to: &Self) -> Result<ClassMap, ClassError> {
        let by_number = ClassMap::numbers(self.count, to.count);
        if self.names == to.names {
            return Ok(by_number);
        }
        let named = |classes: &Self| -> HashMap<String, u32> {
            let names = classes.names.iter().cloned();
            names.zip(0..).collect()
        };
        let by_name = |known: HashMap<String, u32>| ClassMap {
            to: (0..self.count as u32)
                .map(|class| known.get(&self.name(class)).copied())
                .collect(),
        };
        // A holder of names knows how many classes there are; numbers of images may end before the last.
        let by_number = match self.has_names() && !to.has_names() && self.count != to.count {
            true => ClassMap::numbers(self.count, 0),
            false => by_number,
        };
        let (numbered, other) = match (self.has_names(), to.has_names()) {
            (true, true) => {
                for side in [self, to] {
                    if let Some(error) = side.twice("; names must tell classes apart") {
                        return Err(error);
                    }
                }
                return Ok(by_name(named(to)));
            }
            (false, _) => (self, to),
            (true, false) => (to, self),
        };
        // Images with numbers may come from a holder of these very names, whose places the numbers
        // are, or from one where the numbers are the names.
        if other.names.iter().all(|n| is_number(n)) {
            let places = 0..numbered.count.min(other.count) as u32;
            let differs = |c: u32| other.name(c) != c.to_string();
            if numbered.count > other.count || places.clone().any(differs) {
                return Err(ClassError::Unclear {
                    numbered: numbered.holder.clone(),
                    numbers: numbered.listing(),
                    named: other.holder.clone(),
                    names: other.listing(),
                });
            }
        }
        Ok(by_number)
    }
}
