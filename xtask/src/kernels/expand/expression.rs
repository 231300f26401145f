//! Expressions of whole numbers.

use super::{MAX_DEPTH, Place, Result, Scope};

/// The value of an expression of whole numbers.
pub(super) fn evaluate(place: &Place, text: &str, scope: &Scope) -> Result<i64> {
    let mut reader = Expression {
        place,
        text,
        rest: text.trim_start(),
        scope,
    };
    let value = reader.sum(0)?;
    if reader.rest.is_empty() {
        Ok(value)
    } else {
        reader.error()
    }
}

struct Expression<'a> {
    place: &'a Place,
    text: &'a str,
    rest: &'a str,
    scope: &'a Scope,
}

impl Expression<'_> {
    fn error<T>(&self) -> Result<T> {
        self.place.error(format!(
            "`{}` is no expression of whole numbers that has a value",
            self.text.trim()
        ))
    }

    fn take(&mut self, symbols: &str) -> Option<char> {
        let c = self.rest.chars().next().filter(|c| symbols.contains(*c))?;
        self.rest = self.rest[1..].trim_start();
        Some(c)
    }

    fn sum(&mut self, depth: usize) -> Result<i64> {
        let mut value = self.product(depth)?;
        while let Some(operator) = self.take("+-") {
            let other = self.product(depth)?;
            let result = if operator == '+' {
                value.checked_add(other)
            } else {
                value.checked_sub(other)
            };
            value = result.map_or_else(|| self.error(), Ok)?;
        }
        Ok(value)
    }

    fn product(&mut self, depth: usize) -> Result<i64> {
        let mut value = self.atom(depth)?;
        while let Some(operator) = self.take("*/%") {
            let other = self.atom(depth)?;
            let result = match operator {
                '*' => value.checked_mul(other),
                '/' => value.checked_div(other),
                _ => value.checked_rem(other),
            };
            value = result.map_or_else(|| self.error(), Ok)?;
        }
        Ok(value)
    }

    fn atom(&mut self, depth: usize) -> Result<i64> {
        if depth > MAX_DEPTH {
            return self.error();
        }
        if self.take("(").is_some() {
            let value = self.sum(depth + 1)?;
            return match self.take(")") {
                Some(_) => Ok(value),
                None => self.error(),
            };
        }
        if self.take("-").is_some() {
            let value = self.atom(depth + 1)?;
            return value.checked_neg().map_or_else(|| self.error(), Ok);
        }
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        let number = self.scope.get(word).map_or(word, String::as_str);
        number.parse().or_else(|_| self.error())
    }
}
