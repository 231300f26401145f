//! From a text to decoded entries.

mod arith;
mod body;
mod cursor;
mod data;
mod decode;
mod operand;

use std::collections::HashMap;

use crate::ParseError;
use crate::code::SharedVar;
use crate::isa::Ty;
use crate::lex::lex;
use crate::module::{Entry, Lint, LintKind, Param};
use body::Body;
use cursor::Cursor;

/// What a text holds.
pub(crate) struct Parsed {
    pub(crate) entries: Vec<Entry>,
    pub(crate) lints: Vec<Lint>,
    pub(crate) version: (u32, u32),
    pub(crate) target: String,
}

/// Where shared variables go. The simulator leaves a gap between them, and places each at an
/// address with the alignment it asks for and no more.
#[derive(Debug, Clone)]
pub(crate) struct SharedLayout {
    next: u32,
}

/// Variables whose size comes with the launch all start here.
const DYNAMIC_BASE: u32 = 0x0010_0000;
const SHARED_GAP: u32 = 256;

impl SharedLayout {
    fn new() -> Self {
        Self { next: 1024 }
    }

    fn place(&mut self, size: Option<u32>, align: u32) -> u32 {
        let step = (2 * align).max(256);
        let at = |from: u32| from.next_multiple_of(step) + align % step;
        match size {
            None => at(DYNAMIC_BASE),
            Some(size) => {
                let base = at(self.next);
                self.next = base + size + SHARED_GAP;
                base
            }
        }
    }
}

pub(crate) fn parse(file: &str, text: &str) -> Result<Parsed, ParseError> {
    let tokens = lex(file, text)?;
    let mut cursor = Cursor::new(file, text, &tokens);
    let mut parsed = Parsed {
        entries: Vec::new(),
        lints: Vec::new(),
        version: (0, 0),
        target: String::new(),
    };
    let mut layout = SharedLayout::new();
    let mut globals: Vec<SharedVar> = Vec::new();
    let (mut version_line, mut target_line) = (0, 0);
    while !cursor.at_end() {
        let line = cursor.line();
        let mut word = cursor.word("a directive")?;
        let linkage = matches!(word, ".visible" | ".extern" | ".weak");
        let external = word == ".extern";
        if linkage {
            word = cursor.word("a directive")?;
        }
        match word {
            ".version" if !linkage => {
                parsed.version = cursor.version()?;
                version_line = line;
            }
            ".target" if !linkage => {
                parsed.target = cursor.word("a target")?.into();
                target_line = line;
            }
            ".address_size" if !linkage => {
                if cursor.int("64")? != 64 {
                    return Err(cursor.fail_at(line, "only addresses of 64 bits"));
                }
            }
            ".shared" => {
                let var = shared_var(&mut cursor, &mut layout)?;
                if external != var.size.is_none() {
                    let text = "`.extern` and only `.extern` goes with a size left open";
                    return Err(cursor.fail_at(line, text));
                }
                globals.push(var);
            }
            ".entry" if !external => {
                let entry = entry(&mut cursor, line, &layout, &globals, &mut parsed.lints)?;
                if parsed.entries.iter().any(|e| e.name == entry.name) {
                    return Err(cursor.fail_at(line, &format!("a second entry `{}`", entry.name)));
                }
                parsed.entries.push(entry);
            }
            other => return Err(cursor.fail_at(line, &format!("`{other}` is not supported"))),
        }
    }
    if version_line == 0 || target_line == 0 {
        return Err(cursor.fail_at(1, "a text starts with `.version` and `.target`"));
    }
    header_lints(file, text, &mut parsed, version_line, target_line);
    parsed.lints.sort_by_key(|l| l.line);
    Ok(parsed)
}

/// A text says what it is, and why it needs more than the least version and target.
fn header_lints(file: &str, text: &str, parsed: &mut Parsed, version_line: u32, target_line: u32) {
    let mut lint = |kind, line, message: String| {
        parsed.lints.push(Lint {
            kind,
            file: file.into(),
            line,
            message,
        });
    };
    if !text.trim_start().starts_with("//") && !text.trim_start().starts_with("/*") {
        lint(
            LintKind::MissingHeader,
            1,
            "no comment says what the text is".into(),
        );
    }
    let explained = |line: u32| {
        text.lines()
            .nth(line as usize - 1)
            .is_some_and(|l| l.contains("//"))
    };
    if parsed.version > (7, 0) && !explained(version_line) {
        let (major, minor) = parsed.version;
        let message = format!("no comment on the line says why it needs version {major}.{minor}");
        lint(LintKind::UnexplainedVersion, version_line, message);
    }
    if parsed.target != "sm_80" && !explained(target_line) {
        let message = format!("no comment on the line says why it needs {}", parsed.target);
        lint(LintKind::UnexplainedVersion, target_line, message);
    }
}

/// After `.shared`: `.align 16 .b8 name[64];`
fn shared_var(cursor: &mut Cursor<'_>, layout: &mut SharedLayout) -> Result<SharedVar, ParseError> {
    let line = cursor.line();
    let (align, ty, name, count) = cursor.variable()?;
    cursor.mark(';')?;
    let size = match count {
        None => Some(ty.bytes() as u32),
        Some(None) => None,
        Some(Some(n)) => match u32::try_from(n * ty.bytes() as u64) {
            Ok(size) if size < 1 << 19 => Some(size),
            _ => return Err(cursor.fail_at(line, "a shared variable that fits no device")),
        },
    };
    let base = layout.place(size, align as u32);
    Ok(SharedVar {
        name: name.into(),
        base,
        size,
        align: align as u32,
        line,
    })
}

/// After `.entry`.
fn entry(
    cursor: &mut Cursor<'_>,
    line: u32,
    layout: &SharedLayout,
    globals: &[SharedVar],
    lints: &mut Vec<Lint>,
) -> Result<Entry, ParseError> {
    let name = cursor.word("the name of the entry")?;
    let mut params: Vec<Param> = Vec::new();
    let mut offsets = Vec::new();
    let mut bytes = 0usize;
    if cursor.accept('(') && !cursor.accept(')') {
        loop {
            let at = cursor.line();
            if cursor.word("`.param`")? != ".param" {
                return Err(cursor.fail_at(at, "expected `.param`"));
            }
            let (align, ty, name, count) = cursor.variable()?;
            let size = match count {
                None => ty.bytes(),
                Some(Some(n)) if n > 0 && n < 4096 => n as usize * ty.bytes(),
                _ => return Err(cursor.fail_at(at, "a parameter needs a size")),
            };
            if params.iter().any(|p| p.name == name) {
                return Err(cursor.fail_at(at, &format!("a second parameter `{name}`")));
            }
            bytes = bytes.next_multiple_of(align);
            offsets.push(bytes);
            bytes += size;
            params.push(Param {
                name: name.into(),
                size,
                align,
            });
            if cursor.accept(')') {
                break;
            }
            cursor.mark(',')?;
        }
    }
    if bytes > 4096 {
        return Err(cursor.fail_at(line, "more than 4096 bytes of parameters"));
    }
    let mut entry = Entry {
        name: name.into(),
        params,
        maxntid: None,
        reqntid: None,
        minnctapersm: None,
        maxnreg: None,
        static_shared: 0,
        dynamic_shared: false,
        line,
        code: crate::code::Code::default(),
    };
    while !cursor.accept('{') {
        let at = cursor.line();
        match cursor.word("a directive or `{`")? {
            ".maxntid" => entry.maxntid = Some(cursor.triple()?),
            ".reqntid" => entry.reqntid = Some(cursor.triple()?),
            ".minnctapersm" => entry.minnctapersm = Some(cursor.int("a number")? as u32),
            ".maxnreg" => entry.maxnreg = Some(cursor.int("a number")? as u32),
            ".pragma" => cursor.pragma()?,
            other => return Err(cursor.fail_at(at, &format!("`{other}` is not supported"))),
        }
    }
    if entry.maxntid.is_none() && entry.reqntid.is_none() {
        lints.push(Lint {
            kind: LintKind::MissingMaxntid,
            file: cursor.file.into(),
            line,
            message: format!("`{name}` has no `.maxntid`, so nothing bounds its registers"),
        });
    }
    let names: HashMap<&str, usize> = entry
        .params
        .iter()
        .enumerate()
        .map(|(i, p)| (p.name.as_str(), i))
        .collect();
    let mut body = Body::new(&names, &entry.params, &offsets, layout.clone(), globals);
    body.run(cursor, lints, &mut entry.code, line)?;
    entry.code.param_offsets = offsets;
    entry.code.param_bytes = bytes;
    entry.static_shared = packed(&entry.code.shared);
    entry.dynamic_shared = entry.code.shared.iter().any(|v| v.size.is_none());
    Ok(entry)
}

/// Bytes that the assembler would give to the variables.
fn packed(vars: &[SharedVar]) -> usize {
    let mut end = 0u32;
    for var in vars {
        if let Some(size) = var.size {
            end = end.next_multiple_of(var.align) + size;
        }
    }
    end as usize
}

/// Types that variables may have.
fn variable_type(name: &str) -> Option<Ty> {
    let ty = Ty::parse(name.strip_prefix('.')?)?;
    (ty != Ty::Pred).then_some(ty)
}
