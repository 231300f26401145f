//! Small changes of a text, by kind.

/// One line changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What kind of change.
    pub kind: &'static str,
    /// Line, from 1.
    pub line: u32,
    /// The instruction, without its comment.
    pub before: String,
    /// What it becomes; nothing if it is dropped.
    pub after: String,
    /// The whole line, with its comment.
    pub source: String,
    /// The entry it is in.
    pub entry: String,
}

impl Change {
    /// The text with the line changed.
    pub fn apply(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len() + 16);
        for (number, line) in (1u32..).zip(text.lines()) {
            out += if number == self.line {
                &self.after
            } else {
                line
            };
            out.push('\n');
        }
        out
    }
}

/// An instruction as text: guard, opcode, operands.
struct Inst<'a> {
    guard: Option<&'a str>,
    opcode: &'a str,
    operands: Vec<&'a str>,
}

impl<'a> Inst<'a> {
    /// Of a line that holds exactly one instruction.
    fn parse(code: &'a str) -> Option<Self> {
        let body = code.strip_suffix(';')?;
        if body.contains([';', ':']) && !body.contains("L1::") {
            return None;
        }
        let (guard, body) = match body.strip_prefix('@') {
            Some(rest) => {
                let (guard, rest) = rest.split_once(char::is_whitespace)?;
                (Some(guard), rest.trim_start())
            }
            None => (None, body),
        };
        let (opcode, rest) = body.split_once(char::is_whitespace).unwrap_or((body, ""));
        if opcode.starts_with('.') {
            return None;
        }
        Some(Self {
            guard,
            opcode,
            operands: split(rest),
        })
    }

    fn text(&self, opcode: &str, operands: &[&str]) -> String {
        let guard = self.guard.map_or(String::new(), |g| format!("@{g} "));
        format!("{guard}{opcode} {};", operands.join(", "))
    }

    fn with(&self, index: usize, operand: &str) -> String {
        let mut operands = self.operands.clone();
        operands[index] = operand;
        self.text(self.opcode, &operands)
    }

    fn swapped(&self, a: usize, b: usize) -> String {
        let mut operands = self.operands.clone();
        operands.swap(a, b);
        self.text(self.opcode, &operands)
    }
}

/// Operands between commas outside of brackets and braces.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    if !text[start..].trim().is_empty() {
        parts.push(text[start..].trim());
    }
    parts
}

/// All changes of the lines given, in the order of the text.
pub fn changes(text: &str, lines: &[u32]) -> Vec<Change> {
    let mut out = Vec::new();
    let mut entry = "";
    for (line, content) in (1u32..).zip(text.lines()) {
        if let Some((_, rest)) = content.split_once(".entry ") {
            entry = rest.split(['(', ' ']).next().unwrap_or_default();
        }
        let code = content.split("//").next().unwrap_or_default().trim();
        let Some(inst) = Inst::parse(code).filter(|_| lines.binary_search(&line).is_ok()) else {
            continue;
        };
        let mut add = |kind, after: String| {
            out.push(Change {
                kind,
                line,
                before: code.into(),
                after,
                source: content.trim().into(),
                entry: entry.into(),
            });
        };
        constants(&inst, &mut add);
        signs(&inst, &mut add);
        offsets(&inst, &mut add);
        if inst.opcode.starts_with("bar.") {
            add("barrier", String::new());
        }
        swaps(&inst, &mut add);
        bounds(&inst, &mut add);
        guards(&inst, &mut add);
        lanes(&inst, &mut add);
        drops(&inst, &mut add);
    }
    out
}

/// A float constant a quarter off, an integer one off by one.
fn constants(inst: &Inst<'_>, add: &mut impl FnMut(&'static str, String)) {
    for (k, operand) in inst.operands.iter().enumerate() {
        if let Some(hex) = operand.strip_prefix("0f") {
            let Ok(bits) = u32::from_str_radix(hex, 16) else {
                continue;
            };
            let value = f32::from_bits(bits);
            let other = match value {
                0.0 => 0.1,
                v if v.is_finite() => v * 1.25,
                _ => 1.0,
            };
            add(
                "constant",
                inst.with(k, &format!("0f{:08X}", other.to_bits())),
            );
        } else if k > 0
            && !inst.opcode.starts_with("shfl")
            && let Ok(value) = operand.parse::<u32>()
        {
            add("integer", inst.with(k, &(value + 1).to_string()));
        }
    }
}

/// Sums become differences, and the other way round.
fn signs(inst: &Inst<'_>, add: &mut impl FnMut(&'static str, String)) {
    for (from, to) in [
        ("add.rn", "sub.rn"),
        ("sub.rn", "add.rn"),
        ("neg.f32", "mov.f32"),
    ] {
        if let Some(rest) = inst.opcode.strip_prefix(from) {
            add("sign", inst.text(&format!("{to}{rest}"), &inst.operands));
        }
    }
    if inst.opcode.starts_with("fma.rn") && inst.operands.len() == 4 {
        // a b + c becomes a b - c where c is a constant-free register: by way of a product.
        let [d, a, b, _] = inst.operands[..] else {
            return;
        };
        let product = inst.opcode.replace("fma", "mul");
        add("addend", inst.text(&product, &[d, a, b]));
    }
}

/// An address one element further.
fn offsets(inst: &Inst<'_>, add: &mut impl FnMut(&'static str, String)) {
    if !(inst.opcode.starts_with("ld.") || inst.opcode.starts_with("st."))
        || inst.opcode.starts_with("ld.param")
    {
        return;
    }
    let element = if inst.opcode.contains("64") { 8 } else { 4 };
    let step = element
        * if inst.opcode.contains(".v4") {
            4
        } else if inst.opcode.contains(".v2") {
            2
        } else {
            1
        };
    for (k, operand) in inst.operands.iter().enumerate() {
        let Some(inner) = operand.strip_prefix('[').and_then(|o| o.strip_suffix(']')) else {
            continue;
        };
        let (base, offset) = inner.split_once('+').unwrap_or((inner, "0"));
        let Ok(offset) = offset.trim().parse::<i64>() else {
            continue;
        };
        let moved = offset + step;
        add(
            "offset",
            inst.with(k, &format!("[{}+{moved}]", base.trim())),
        );
    }
}

/// Two operands exchanged where that matters.
fn swaps(inst: &Inst<'_>, add: &mut impl FnMut(&'static str, String)) {
    let name = inst.opcode.split('.').next().unwrap_or_default();
    match (name, inst.operands.len()) {
        ("sub" | "div" | "selp" | "rem", 3..) if inst.operands[1] != inst.operands[2] => {
            add("swap", inst.swapped(1, 2));
        }
        ("fma" | "mad", 4) if inst.operands[2] != inst.operands[3] => {
            add("swap", inst.swapped(2, 3));
        }
        _ => {}
    }
}

/// Bounds off by one, conditions turned round.
fn bounds(inst: &Inst<'_>, add: &mut impl FnMut(&'static str, String)) {
    let Some(rest) = inst.opcode.strip_prefix("setp.") else {
        return;
    };
    let (cmp, rest) = rest.split_once('.').unwrap_or((rest, ""));
    let other = match cmp {
        "lt" => "le",
        "le" => "lt",
        "gt" => "ge",
        "ge" => "gt",
        "eq" => "ne",
        "ne" => "eq",
        _ => return,
    };
    add(
        "bound",
        inst.text(&format!("setp.{other}.{rest}"), &inst.operands),
    );
}

/// A guard turned round.
fn guards(inst: &Inst<'_>, add: &mut impl FnMut(&'static str, String)) {
    let Some(guard) = inst.guard else {
        return;
    };
    let other = guard
        .strip_prefix('!')
        .map_or(format!("!{guard}"), String::from);
    add(
        "guard",
        format!("@{other} {} {};", inst.opcode, inst.operands.join(", ")),
    );
}

/// A shuffle from another lane; the lesser in place of the greater.
fn lanes(inst: &Inst<'_>, add: &mut impl FnMut(&'static str, String)) {
    if inst.opcode.starts_with("shfl") && inst.operands.len() == 5 {
        if let Ok(distance) = inst.operands[2].parse::<u32>() {
            let other = if distance > 1 { distance / 2 } else { 2 };
            add("lane", inst.with(2, &other.to_string()));
        } else {
            add("lane", inst.with(2, "1"));
        }
    }
    for (from, to) in [("min.", "max."), ("max.", "min.")] {
        if let Some(rest) = inst.opcode.strip_prefix(from) {
            add("extreme", inst.text(&format!("{to}{rest}"), &inst.operands));
        }
    }
}

/// A store or a step of a pointer that does not happen.
fn drops(inst: &Inst<'_>, add: &mut impl FnMut(&'static str, String)) {
    let stores = inst.opcode.starts_with("st.");
    let steps = inst.operands.len() > 1
        && inst.operands[0] == inst.operands[1]
        && (inst.opcode.starts_with("add.") || inst.opcode.starts_with("sub."));
    if stores || steps {
        add("drop", String::new());
    }
}

#[cfg(test)]
mod tests {
    use super::{Change, changes};

    const TEXT: &str = "\
.reg .f32 %a;
LOOP:
    @%p fma.rn.f32 %d, %a, 0f3f800000, %c; // comment
    ld.global.v4.f32 {%a, %b, %c, %d}, [%rd+16];
    setp.lt.u32 %p, %i, 31;
    bar.sync 0;
    st.global.f32 [%x], %d;
    add.u64 %x, %x, %step;
    shfl.sync.bfly.b32 %a, %b, 16, 31, -1;
";

    #[test]
    fn each_line_is_changed_in_its_ways() {
        let all = changes(TEXT, &[3, 4, 5, 6, 7, 8, 9]);
        let of = |line: u32| -> Vec<(&str, &str)> {
            all.iter()
                .filter(|c| c.line == line)
                .map(|c| (c.kind, c.after.as_str()))
                .collect()
        };
        assert_eq!(
            of(3),
            [
                ("constant", "@%p fma.rn.f32 %d, %a, 0f3FA00000, %c;"),
                ("addend", "@%p mul.rn.f32 %d, %a, 0f3f800000;"),
                ("swap", "@%p fma.rn.f32 %d, %a, %c, 0f3f800000;"),
                ("guard", "@!%p fma.rn.f32 %d, %a, 0f3f800000, %c;"),
            ]
        );
        assert_eq!(
            of(4),
            [("offset", "ld.global.v4.f32 {%a, %b, %c, %d}, [%rd+32];")]
        );
        assert_eq!(
            of(5),
            [
                ("integer", "setp.lt.u32 %p, %i, 32;"),
                ("bound", "setp.le.u32 %p, %i, 31;"),
            ]
        );
        assert_eq!(of(6), [("barrier", "")]);
        assert_eq!(
            of(7),
            [("offset", "st.global.f32 [%x+4], %d;"), ("drop", "")]
        );
        assert_eq!(of(8), [("drop", "")]);
        assert_eq!(of(9), [("lane", "shfl.sync.bfly.b32 %a, %b, 8, 31, -1;")]);
        assert!(changes(TEXT, &[1, 2]).is_empty());
    }

    #[test]
    fn a_change_replaces_its_line() {
        let after = "x;".to_string();
        let change = Change {
            kind: "drop",
            line: 2,
            before: "b;".into(),
            after,
            source: "b; // c".into(),
            entry: String::new(),
        };
        assert_eq!(change.apply("a;\nb; // c\nd;\n"), "a;\nx;\nd;\n");
    }
}
