//! The language of the kernels' sources, `kernels/ptx/NAME.ptx.in`: PTX with macros and repetitions.
//!
//! | line | means |
//! | --- | --- |
//! | `.macro NAME(a, b)` … `.end` | what a call gives; it sees its parameters and nothing of the caller |
//! | `NAME(x, y)` | a call; its arguments are text |
//! | `.for i in 0..16` … `.end` | the lines between, for each whole number from 0 to 15 |
//! | `.for m in u delta` … `.end` | the same for each text between spaces; one argument can be such a list |
//! | `.if X == Y` … `.else` … `.end` | one of both; `==` and `!=` compare text, `<` and `<=` whole numbers |
//! | `.include "FILE"` | the macros of a file beside this one, once |
//! | `/// …` | a comment of the source, not written |
//! | anything else | itself |
//!
//! Everywhere, `$name` stands for a parameter or a repetition's value, and `$(…)` for the value of an
//! expression of whole numbers with `+ - * / %` and parentheses, or for the text of a single name. Lines
//! inside `.for` and `.if` may be indented by four more, which the expansion takes away.
//!
//! A macro that leads to itself is an error; so is an expansion that becomes too large. Errors name file
//! and line, those of the calls that led there included.

mod expression;
mod parse;

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use expression::evaluate;
use parse::Source;

/// Most repetitions, conditions and calls inside one another.
const MAX_DEPTH: usize = 32;
/// Most lines, calls and repetitions that an expansion goes through.
const MAX_STEPS: usize = 1_000_000;
/// Most bytes of a line or an argument.
const MAX_LINE: usize = 4096;
/// Most bytes of an expansion.
const MAX_BYTES: usize = 8 << 20;

/// What is wrong with a source, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

impl std::error::Error for Error {}

type Result<T> = std::result::Result<T, Error>;
/// What names stand for.
type Scope = BTreeMap<String, String>;

/// A line's place.
#[derive(Debug, Clone)]
struct Place {
    file: Rc<str>,
    line: usize,
}

impl Place {
    fn error<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(Error {
            file: self.file.to_string(),
            line: self.line,
            message: message.into(),
        })
    }
}

/// A line of PTX: code, and the comment behind it with the column where it starts.
#[derive(Debug)]
struct Plain {
    code: String,
    comment: Option<(usize, String)>,
}

#[derive(Debug)]
enum Item {
    Plain(Plain),
    Call {
        name: String,
        arguments: Vec<String>,
    },
    For {
        name: String,
        over: String,
        body: Body,
    },
    If {
        condition: String,
        then: Body,
        otherwise: Body,
    },
}

type Body = Vec<(Place, Item)>;

struct Macro {
    parameters: Vec<String>,
    body: Body,
}

/// Expands a source. `read` gives the text of a file beside it, or says why there is none.
pub fn expand(
    file: &str,
    text: &str,
    read: &dyn Fn(&str) -> std::result::Result<String, String>,
) -> Result<String> {
    let mut source = Source {
        read,
        included: Vec::new(),
        macros: BTreeMap::new(),
    };
    let body = source.parse(file, text)?;
    let mut expansion = Expansion {
        macros: &source.macros,
        active: Vec::new(),
        steps: 0,
        out: String::with_capacity(2 * text.len()),
    };
    expansion.body(&body, &Scope::new(), 0)?;
    Ok(expansion.out)
}

/// An expansion while it grows.
struct Expansion<'a> {
    macros: &'a BTreeMap<String, Macro>,
    /// Macros that led here.
    active: Vec<&'a str>,
    steps: usize,
    out: String,
}

impl<'a> Expansion<'a> {
    fn body(&mut self, body: &'a Body, scope: &Scope, depth: usize) -> Result<()> {
        for (place, item) in body {
            self.item(place, item, scope, depth)?;
        }
        Ok(())
    }

    fn step(&mut self, place: &Place) -> Result<()> {
        self.steps += 1;
        if self.steps > MAX_STEPS || self.out.len() > MAX_BYTES {
            return place.error(format!(
                "the expansion is larger than {MAX_STEPS} lines or {MAX_BYTES} bytes"
            ));
        }
        Ok(())
    }

    fn item(&mut self, place: &Place, item: &'a Item, scope: &Scope, depth: usize) -> Result<()> {
        self.step(place)?;
        if depth > MAX_DEPTH {
            return place.error(format!("more than {MAX_DEPTH} levels inside one another"));
        }
        match item {
            Item::Plain(plain) => self.plain(place, plain, scope),
            Item::Call { name, arguments } => self.call(place, name, arguments, scope, depth),
            Item::For { name, over, body } => {
                if scope.contains_key(name) {
                    return place.error(format!("`{name}` stands for something already"));
                }
                let mut scope = scope.clone();
                let over = substitute(place, over, &scope)?;
                if let Some((first, end)) = over.split_once("..") {
                    for i in evaluate(place, first, &scope)?..evaluate(place, end, &scope)? {
                        self.step(place)?;
                        scope.insert(name.clone(), i.to_string());
                        self.body(body, &scope, depth + 1)?;
                    }
                } else {
                    for text in over.split_whitespace() {
                        self.step(place)?;
                        scope.insert(name.clone(), text.into());
                        self.body(body, &scope, depth + 1)?;
                    }
                }
                Ok(())
            }
            Item::If {
                condition,
                then,
                otherwise,
            } => {
                let holds = holds(place, &substitute(place, condition, scope)?)?;
                self.body(if holds { then } else { otherwise }, scope, depth + 1)
            }
        }
    }

    fn plain(&mut self, place: &Place, plain: &Plain, scope: &Scope) -> Result<()> {
        let code = substitute(place, &plain.code, scope)?;
        let mut line = code;
        if let Some((column, comment)) = &plain.comment {
            if !line.trim().is_empty() {
                line.truncate(line.trim_end().len());
                line.push(' ');
                line.extend(std::iter::repeat_n(
                    ' ',
                    column.saturating_sub(line.chars().count()),
                ));
            }
            line += &substitute(place, comment, scope)?;
        }
        // One blank line is enough, and none at the beginning.
        if !line.is_empty() || !(self.out.is_empty() || self.out.ends_with("\n\n")) {
            self.out += &line;
            self.out.push('\n');
        }
        Ok(())
    }

    fn call(
        &mut self,
        place: &Place,
        name: &'a str,
        arguments: &[String],
        scope: &Scope,
        depth: usize,
    ) -> Result<()> {
        let macros = self.macros;
        let Some(Macro { parameters, body }) = macros.get(name) else {
            return place.error(format!("no macro is called `{name}`"));
        };
        if self.active.contains(&name) {
            return place.error(format!("the macro `{name}` leads to itself"));
        }
        if parameters.len() != arguments.len() {
            return place.error(format!(
                "`{name}` takes ({}), not {} arguments",
                parameters.join(", "),
                arguments.len()
            ));
        }
        let mut inner = Scope::new();
        for (parameter, argument) in parameters.iter().zip(arguments) {
            inner.insert(parameter.clone(), substitute(place, argument, scope)?);
        }
        self.active.push(name);
        let done = self.body(body, &inner, depth + 1);
        self.active.pop();
        done.map_err(|error| Error {
            message: format!("{}; called at {}:{}", error.message, place.file, place.line),
            ..error
        })
    }
}

/// The text with its names and expressions replaced.
fn substitute(place: &Place, text: &str, scope: &Scope) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out += before;
        if let Some(inside) = after.strip_prefix('(') {
            let Some(end) = closing(inside) else {
                return place.error("`$(` without its `)`");
            };
            let expression = inside[..end].trim();
            match scope.get(expression) {
                Some(value) => out += value,
                None => out += &evaluate(place, expression, scope)?.to_string(),
            }
            rest = &inside[end + 1..];
        } else {
            let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let end = after.find(|c| !is_part(c)).unwrap_or(after.len());
            let name = &after[..end];
            match scope.get(name) {
                Some(value) => out += value,
                None => return place.error(format!("`${name}` stands for nothing here")),
            }
            rest = &after[end..];
        }
    }
    out += rest;
    if out.len() > MAX_LINE {
        return place.error(format!("a line or argument of more than {MAX_LINE} bytes"));
    }
    Ok(out)
}

/// Where the parenthesis closes that was open before this text.
fn closing(text: &str) -> Option<usize> {
    let mut level = 1;
    for (at, c) in text.char_indices() {
        match c {
            '(' => level += 1,
            ')' => level -= 1,
            _ => {}
        }
        if level == 0 {
            return Some(at);
        }
    }
    None
}

fn holds(place: &Place, condition: &str) -> Result<bool> {
    let nothing = Scope::new();
    for operator in ["==", "!=", "<=", "<"] {
        let Some((left, right)) = condition.split_once(operator) else {
            continue;
        };
        let (left, right) = (left.trim(), right.trim());
        return Ok(match operator {
            "==" => left == right,
            "!=" => left != right,
            "<=" => evaluate(place, left, &nothing)? <= evaluate(place, right, &nothing)?,
            _ => evaluate(place, left, &nothing)? < evaluate(place, right, &nothing)?,
        });
    }
    place.error("a condition has one of `==`, `!=`, `<`, `<=`")
}

#[cfg(test)]
mod tests {
    use super::expand;

    fn read(name: &str) -> Result<String, String> {
        match name {
            "shared.inc" => {
                Ok("/// Twice.\n.macro twice(x)\n    add.s32 $x, $x, $x;\n.end\n".into())
            }
            "lines.inc" => Ok("ret;\n".into()),
            _ => Err(format!("cannot read {name}")),
        }
    }

    fn of(text: &str) -> Result<String, String> {
        expand("ptx/k.ptx.in", text, &read).map_err(|error| error.to_string())
    }

    fn lines(text: &str) -> Vec<String> {
        of(text).unwrap().lines().map(str::to_string).collect()
    }

    #[test]
    fn repetitions_and_expressions() {
        let text = ".for i in 0..2\n    .for m in u delta\n        mov.b32 %$m$i, %$(m)_$(2*i + 3 - 1);\n    .end\n.end\n";
        assert_eq!(
            lines(text),
            [
                "mov.b32 %u0, %u_2;",
                "mov.b32 %delta0, %delta_2;",
                "mov.b32 %u1, %u_4;",
                "mov.b32 %delta1, %delta_4;"
            ]
        );
        assert_eq!(lines("$(7 / 2 * (1 - -3) % 5)\n"), ["2"]);
        assert!(lines(".for i in 4..4\nx;\n.end\n").is_empty());
    }

    #[test]
    fn macros_take_text_and_give_lines() {
        let text = "/// Of the source.\n.macro load(r, from)\n    ld.f32  %$r, [$from];   // of $r\n.end\n\n\n\
                    load(a, %p+$(4*4))\nload({%b, %c}, %q)      // not written\n";
        assert_eq!(
            lines(text),
            [
                "    ld.f32  %a, [%p+16];    // of a",
                "    ld.f32  %{%b, %c}, [%q]; // of {%b, %c}"
            ]
        );
    }

    #[test]
    fn conditions_compare_text_and_numbers() {
        let text =
            ".for i in 0..3\n.if $i == 1\none\n.else\n.if 1 < $i\nmore\n.end\nother\n.end\n.end\n";
        assert_eq!(lines(text), ["other", "one", "more", "other"]);
    }

    #[test]
    fn a_list_is_one_argument() {
        let text =
            ".macro zero(registers)\n.for r in $registers\nmov %$r, 0;\n.end\n.end\nzero(a b)\n";
        assert_eq!(lines(text), ["mov %a, 0;", "mov %b, 0;"]);
    }

    #[test]
    fn included_macros_are_there_once() {
        let text = ".include \"shared.inc\"\n.include \"shared.inc\"\ntwice(%x)\n";
        assert_eq!(lines(text), ["    add.s32 %x, %x, %x;"]);
    }

    #[test]
    fn blank_lines_and_comments_stay_readable() {
        let text = "\n// a\n\n\n.macro m()\n.end\n\nx;        // why\n";
        assert_eq!(of(text).unwrap(), "// a\n\nx;        // why\n");
    }

    #[test]
    fn errors_name_file_and_line() {
        for (text, error) in [
            (
                "x;\nsoftplu(%x)\n",
                "ptx/k.ptx.in:2: no macro is called `softplu`",
            ),
            (
                ".macro m(a)\n.end\nm()\n",
                "ptx/k.ptx.in:3: `m` takes (a), not 0 arguments",
            ),
            ("$i\n", "ptx/k.ptx.in:1: `$i` stands for nothing here"),
            (
                "$(i + 1)\n",
                "ptx/k.ptx.in:1: `i + 1` is no expression of whole numbers that has a value",
            ),
            (
                "$(1 / 0)\n",
                "ptx/k.ptx.in:1: `1 / 0` is no expression of whole numbers that has a value",
            ),
            (
                "$(9223372036854775807 + 1)\n",
                "ptx/k.ptx.in:1: `9223372036854775807 + 1` is no",
            ),
            ("$(1\n", "ptx/k.ptx.in:1: `$(` without its `)`"),
            (
                "\n.for i in 0..2\nx;\n",
                "ptx/k.ptx.in:2: no `.end` follows",
            ),
            (
                ".for i in 0..2\n.for i in 0..2\n.end\n.end\n",
                "ptx/k.ptx.in:2: `i` stands for something already",
            ),
            (".for 0..2\n.end\n", "ptx/k.ptx.in:1: `.for NAME in"),
            (".end\n", "ptx/k.ptx.in:1: `.end` without its beginning"),
            (".if 1\n.end\n", "ptx/k.ptx.in:1: a condition has one of"),
            (".else\n", "ptx/k.ptx.in:1: `.else` without its `.if`"),
            (
                ".macro m\n.end\n",
                "ptx/k.ptx.in:1: `.macro NAME(parameter, parameter)` was expected",
            ),
            (
                ".macro m(a, a)\n.end\n",
                "ptx/k.ptx.in:1: `a` is no name of another parameter",
            ),
            (
                ".macro m()\n.end\n.macro m()\n.end\n",
                "ptx/k.ptx.in:3: a macro `m` is there already",
            ),
            (
                ".include \"none.inc\"\n",
                "ptx/k.ptx.in:1: cannot read none.inc",
            ),
            (
                ".include \"../shared.inc\"\n",
                "ptx/k.ptx.in:1: `.include \"FILE\"` with a file of the same folder",
            ),
            (
                ".include \"lines.inc\"\n",
                "ptx/lines.inc:1: a file that is included has macros",
            ),
        ] {
            let found = of(text).unwrap_err();
            assert!(found.starts_with(error), "{text}: {found}");
        }
    }

    #[test]
    fn an_error_inside_a_macro_says_who_called() {
        let text = ".macro inner()\n$x\n.end\n.macro outer()\ninner()\n.end\nouter()\n";
        assert_eq!(
            of(text).unwrap_err(),
            "ptx/k.ptx.in:2: `$x` stands for nothing here; called at ptx/k.ptx.in:5; called at ptx/k.ptx.in:7"
        );
    }

    #[test]
    fn recursion_and_size_are_bounded() {
        let text = ".macro a()\nb()\n.end\n.macro b()\na()\n.end\na()\n";
        assert!(
            of(text)
                .unwrap_err()
                .contains("the macro `a` leads to itself")
        );
        let text = ".for i in 0..2000\n.for j in 0..2000\n.end\n.end\n";
        assert!(of(text).unwrap_err().contains("the expansion is larger"));
        let text = format!(".for i in 0..900000\n{}\n.end\n", "x".repeat(1000));
        assert!(of(&text).unwrap_err().contains("the expansion is larger"));
        let text = format!("{}x;\n{}", ".if 0 < 1\n".repeat(40), ".end\n".repeat(40));
        assert!(of(&text).unwrap_err().contains("levels inside one another"));
        let doubled = (0..30).map(|k| format!(".macro m{k}(x)\nm{}($x$x)\n.end\n", k + 1));
        let text = doubled.collect::<String>() + ".macro m30(x)\n.end\nm0(x)\n";
        assert!(of(&text).unwrap_err().contains("of more than 4096 bytes"));
        let text = format!("$({}1)\n", "(".repeat(100_000));
        assert!(of(&text).is_err());
    }
}
