//! The classes that a user names.

use super::{ClassError, Classes, is_number};

impl Classes {
    /// The classes that lists name, in their order. A list is names or numbers with commas between
    /// them.
    ///
    /// The longest name that fits is taken, so names may hold commas; in double quotes stands a name
    /// and nothing else. Numbers count from 0, but where all names are numbers, a number is a name.
    ///
    /// # Errors
    /// If there is no such class, or two of the name, or a quote does not end.
    pub fn choose(&self, lists: &[impl AsRef<str>]) -> Result<Vec<u32>, ClassError> {
        let mut chosen = Vec::new();
        for list in lists {
            let mut rest = Some(list.as_ref());
            while let Some(text) = rest {
                let (class, left) = self.first_of(text)?;
                chosen.push(class);
                rest = left;
            }
        }
        Ok(chosen)
    }

    /// The class that a list begins with, and the rest after its comma.
    fn first_of<'t>(&self, list: &'t str) -> Result<(u32, Option<&'t str>), ClassError> {
        // Names may begin with blanks, but most blanks only follow a comma.
        for text in [list, list.trim_start()] {
            let fits = |name: &&String| {
                text.strip_prefix(name.as_str())
                    .is_some_and(|rest| after(rest).is_some())
            };
            let longest = self.names.iter().filter(fits).max_by_key(|n| n.len());
            if let Some(name) = longest {
                let rest = text.get(name.len()..).and_then(after).flatten();
                return Ok((self.by_name(name)?, rest));
            }
        }
        let text = list.trim_start();
        if let Some(quoted) = text.strip_prefix('"') {
            let broken = |what| ClassError::List {
                text: list.to_owned(),
                what,
            };
            let (name, rest) = quoted
                .split_once('"')
                .ok_or_else(|| broken("a quote that does not end"))?;
            let rest = after(rest).ok_or_else(|| broken("after a quote comes a comma"))?;
            return Ok((self.by_name(name)?, rest));
        }
        let (token, rest) = match text.split_once(',') {
            Some((token, rest)) => (token.trim_end(), Some(rest)),
            None => (text.trim_end(), None),
        };
        let number = token.parse::<usize>().ok().filter(|_| is_number(token));
        let number = number.filter(|&n| n < self.count && !self.names_are_numbers());
        match number {
            Some(class) => Ok((class as u32, rest)),
            None => Err(self.unknown(token)),
        }
    }

    fn by_name(&self, name: &str) -> Result<u32, ClassError> {
        let mut found = (0..self.count).filter(|&c| match self.names.get(c) {
            Some(known) => known == name,
            None => c.to_string() == name,
        });
        match (found.next(), found.next()) {
            (Some(class), None) => Ok(class as u32),
            (Some(first), Some(second)) => Err(ClassError::Twice {
                holder: self.holder.clone(),
                name: name.to_owned(),
                first,
                second,
                advice: "; say which by its number",
            }),
            _ => Err(self.unknown(name)),
        }
    }

    fn unknown(&self, text: &str) -> ClassError {
        ClassError::Unknown {
            text: text.to_owned(),
            names: self.listing(),
        }
    }
}

/// What follows the comma after an item; none if the item goes on.
fn after(rest: &str) -> Option<Option<&str>> {
    let rest = rest.trim_start();
    match rest.strip_prefix(',') {
        Some(more) => Some(Some(more)),
        None => rest.is_empty().then_some(None),
    }
}
