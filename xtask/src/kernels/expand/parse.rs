//! Sources as they are read: macros, repetitions, conditions, calls and lines of PTX.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Body, Item, MAX_DEPTH, Macro, Place, Plain, Result};

/// The files of a source while they are read.
pub(super) struct Source<'a> {
    pub read: &'a dyn Fn(&str) -> std::result::Result<String, String>,
    pub included: Vec<String>,
    pub macros: BTreeMap<String, Macro>,
}

/// What an unclosed `.macro`, `.for` or `.if` has gathered.
struct Open {
    place: Place,
    kind: Kind,
    /// What is before `.else`, once that was read.
    then: Option<Body>,
    body: Body,
}

enum Kind {
    Macro {
        name: String,
        parameters: Vec<String>,
    },
    For {
        name: String,
        over: String,
    },
    If {
        condition: String,
    },
}

impl Source<'_> {
    /// The lines of a file outside its macros.
    pub fn parse(&mut self, file: &str, text: &str) -> Result<Body> {
        let file: Rc<str> = file.into();
        let mut top = Body::new();
        let mut open: Vec<Open> = Vec::new();
        for (number, raw) in (1..).zip(text.lines()) {
            let place = Place {
                file: file.clone(),
                line: number,
            };
            let line = raw.trim();
            if line.starts_with("///") {
                continue;
            }
            let code = line.split("//").next().unwrap_or_default().trim_end();
            let (word, rest) = code.split_once(char::is_whitespace).unwrap_or((code, ""));
            let rest = rest.trim();
            let kind = beginning(&place, word, rest, open.is_empty())?;
            if let Some(kind) = kind {
                if open.len() == MAX_DEPTH {
                    return place.error(format!("more than {MAX_DEPTH} levels inside one another"));
                }
                open.push(Open {
                    place,
                    kind,
                    then: None,
                    body: Body::new(),
                });
                continue;
            }
            match (word, rest) {
                (".else", "") => match open.last_mut() {
                    Some(Open {
                        kind: Kind::If { .. },
                        then: then @ None,
                        body,
                        ..
                    }) => *then = Some(std::mem::take(body)),
                    _ => return place.error("`.else` without its `.if`"),
                },
                (".end", "") => {
                    let Some(closed) = open.pop() else {
                        return place.error("`.end` without its beginning");
                    };
                    if let Some(item) = self.close(closed)? {
                        open.last_mut().map_or(&mut top, |o| &mut o.body).push(item);
                    }
                }
                (".include", name) => {
                    if !open.is_empty() {
                        return place
                            .error("`.include` stands outside of `.macro`, `.for` and `.if`");
                    }
                    self.include(&place, name)?;
                }
                _ => {
                    let item = match call(code) {
                        Some((name, arguments)) => Item::Call { name, arguments },
                        None => Item::Plain(plain(raw, depth(&open))),
                    };
                    open.last_mut()
                        .map_or(&mut top, |o| &mut o.body)
                        .push((place, item));
                }
            }
        }
        match open.pop() {
            Some(open) => open.place.error("no `.end` follows"),
            None => Ok(top),
        }
    }

    /// What a closed beginning is; nothing for a macro, which is remembered.
    fn close(&mut self, open: Open) -> Result<Option<(Place, Item)>> {
        let Open {
            place,
            kind,
            then,
            body,
        } = open;
        let item = match kind {
            Kind::Macro { name, parameters } => {
                if self.macros.contains_key(&name) {
                    return place.error(format!("a macro `{name}` is there already"));
                }
                self.macros.insert(name, Macro { parameters, body });
                return Ok(None);
            }
            Kind::For { name, over } => Item::For { name, over, body },
            Kind::If { condition } => {
                let (then, otherwise) = match then {
                    Some(then) => (then, body),
                    None => (body, Body::new()),
                };
                Item::If {
                    condition,
                    then,
                    otherwise,
                }
            }
        };
        Ok(Some((place, item)))
    }

    fn include(&mut self, place: &Place, quoted: &str) -> Result<()> {
        let name = quoted.strip_prefix('"').and_then(|q| q.strip_suffix('"'));
        let Some(name) = name.filter(|n| !n.is_empty() && !n.contains(['/', '\\'])) else {
            return place.error("`.include \"FILE\"` with a file of the same folder was expected");
        };
        if self.included.iter().any(|i| i == name) {
            return Ok(());
        }
        self.included.push(name.into());
        let text = (self.read)(name).or_else(|why| place.error(why))?;
        let folder = place.file.rsplit_once('/').map_or("", |(folder, _)| folder);
        let path = if folder.is_empty() {
            name.to_string()
        } else {
            format!("{folder}/{name}")
        };
        let body = self.parse(&path, &text)?;
        let blank = |item: &Item| match item {
            Item::Plain(plain) => plain.code.trim().is_empty(),
            _ => false,
        };
        match body.iter().find(|(_, item)| !blank(item)) {
            Some((place, _)) => place.error("a file that is included has macros and comments only"),
            None => Ok(()),
        }
    }
}

/// What begins with this line, if something does.
fn beginning(place: &Place, word: &str, rest: &str, outside: bool) -> Result<Option<Kind>> {
    Ok(Some(match word {
        ".macro" if !outside => {
            return place.error("a macro begins outside of `.macro`, `.for` and `.if`");
        }
        ".macro" => {
            let Some((name, parameters)) = call(rest) else {
                return place.error("`.macro NAME(parameter, parameter)` was expected");
            };
            let is_bad =
                |i: &usize| !is_name(&parameters[*i]) || parameters[..*i].contains(&parameters[*i]);
            if let Some(bad) = (0..parameters.len()).find(is_bad) {
                return place.error(format!(
                    "`{}` is no name of another parameter",
                    parameters[bad]
                ));
            }
            Kind::Macro { name, parameters }
        }
        ".for" => {
            let parts = rest.split_once(" in ").map(|(n, o)| (n.trim(), o.trim()));
            let Some((name, over)) = parts.filter(|(n, _)| is_name(n)) else {
                return place.error("`.for NAME in A..B` or `.for NAME in x y` was expected");
            };
            Kind::For {
                name: name.into(),
                over: over.into(),
            }
        }
        ".if" => Kind::If {
            condition: rest.into(),
        },
        _ => return Ok(None),
    }))
}

/// Levels of `.for` and `.if`.
fn depth(open: &[Open]) -> usize {
    open.iter()
        .filter(|o| !matches!(o.kind, Kind::Macro { .. }))
        .count()
}

/// A line without the indentation of its repetitions and conditions.
fn plain(raw: &str, depth: usize) -> Plain {
    let raw = raw.trim_end();
    let indentation = raw.len() - raw.trim_start_matches(' ').len();
    let raw = &raw[indentation.min(4 * depth)..];
    match raw.split_once("//") {
        Some((code, comment)) => Plain {
            code: code.into(),
            comment: Some((code.chars().count(), format!("//{comment}"))),
        },
        None => Plain {
            code: raw.into(),
            comment: None,
        },
    }
}

fn is_name(text: &str) -> bool {
    text.chars()
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The parts of `NAME(a, b)`.
fn call(code: &str) -> Option<(String, Vec<String>)> {
    let (name, rest) = code.split_once('(')?;
    let inside = rest.strip_suffix(')')?;
    is_name(name).then(|| (name.to_string(), list(inside)))
}

/// The texts between commas outside of brackets.
fn list(text: &str) -> Vec<String> {
    if text.trim().is_empty() {
        return Vec::new();
    }
    let (mut parts, mut level, mut start) = (Vec::new(), 0_i32, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' | '{' => level += 1,
            ')' | ']' | '}' => level -= 1,
            ',' if level == 0 => {
                parts.push(text[start..at].trim().to_string());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim().to_string());
    parts
}
