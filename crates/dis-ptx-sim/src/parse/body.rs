//! The body of an entry: declarations, labels, instructions.

use std::collections::HashMap;

use super::cursor::Cursor;
use super::operand::{Operand, agrees, constant, operand};
use super::{SharedLayout, decode, shared_var};
use crate::ParseError;
use crate::code::{Code, SharedVar, Sreg};
use crate::isa::{File, Inst, Op, PredIn, Slot, Ty, Vector};
use crate::lex::Token;
use crate::module::{Lint, LintKind, Param};

/// A declared register.
struct Register {
    name: String,
    ty: Ty,
    line: u32,
    slot: Option<Slot>,
    read: bool,
    written: bool,
    /// Whether it is part of `%r<8>`.
    ranged: bool,
}

/// `%r<8>`: prefix, line, index of its first register, number of registers.
struct Range {
    prefix: String,
    line: u32,
    first: usize,
    len: usize,
}

pub(crate) struct Body<'b> {
    param_index: &'b HashMap<&'b str, usize>,
    params: &'b [Param],
    offsets: &'b [usize],
    params_read: Vec<bool>,
    layout: SharedLayout,
    shared: Vec<SharedVar>,
    shared_used: Vec<bool>,
    globals: usize,
    registers: Vec<Register>,
    ranges: Vec<Range>,
    scopes: Vec<HashMap<String, usize>>,
    labels: HashMap<String, (u32, u32, bool)>,
    jumps: Vec<(usize, String, u32)>,
    rows: [usize; 3],
    word_consts: HashMap<u32, Slot>,
    wide_consts: HashMap<u64, Slot>,
    sregs: Vec<(Slot, Sreg)>,
    /// Set by the decoder where a float instruction leaves its rounding open.
    pub(crate) unqualified: bool,
}

impl<'b> Body<'b> {
    pub(crate) fn new(
        param_index: &'b HashMap<&'b str, usize>,
        params: &'b [Param],
        offsets: &'b [usize],
        layout: SharedLayout,
        globals: &[SharedVar],
    ) -> Self {
        Self {
            param_index,
            params,
            offsets,
            params_read: vec![false; params.len()],
            layout,
            shared: globals.to_vec(),
            shared_used: vec![false; globals.len()],
            globals: globals.len(),
            registers: Vec::new(),
            ranges: Vec::new(),
            scopes: vec![HashMap::new()],
            labels: HashMap::new(),
            jumps: Vec::new(),
            rows: [0; 3],
            word_consts: HashMap::new(),
            wide_consts: HashMap::new(),
            sregs: Vec::new(),
            unqualified: false,
        }
    }

    /// Reads up to the closing brace.
    pub(crate) fn run(
        &mut self,
        cursor: &mut Cursor<'_>,
        lints: &mut Vec<Lint>,
        code: &mut Code,
        entry_line: u32,
    ) -> Result<(), ParseError> {
        let mut depth = 0;
        loop {
            let line = cursor.line();
            if cursor.accept('}') {
                if depth == 0 {
                    break;
                }
                depth -= 1;
                self.scopes.pop();
            } else if cursor.accept('{') {
                depth += 1;
                self.scopes.push(HashMap::new());
            } else if cursor.peek() == Some(Token::Mark('@')) {
                self.instruction(cursor, lints, code)?;
            } else {
                let Some(Token::Word(word)) = cursor.peek() else {
                    cursor.word("an instruction")?;
                    continue;
                };
                if cursor.peek_second() == Some(Token::Mark(':')) {
                    cursor.advance();
                    cursor.advance();
                    let here = (code.insts.len() as u32, line, false);
                    if self.labels.insert(word.into(), here).is_some() {
                        return Err(cursor.fail_at(line, &format!("a second label `{word}`")));
                    }
                } else if word.starts_with('.') {
                    cursor.advance();
                    self.directive(cursor, word, line)?;
                } else {
                    self.instruction(cursor, lints, code)?;
                }
            }
        }
        self.finish(cursor, lints, code, entry_line)
    }

    fn directive(
        &mut self,
        cursor: &mut Cursor<'_>,
        word: &str,
        line: u32,
    ) -> Result<(), ParseError> {
        match word {
            ".reg" => {
                let ty = cursor.word("a type")?;
                let Some(ty) = ty.strip_prefix('.').and_then(Ty::parse) else {
                    return Err(cursor.fail_at(line, &format!("a register of type `{ty}`")));
                };
                loop {
                    let name = cursor.word("a register")?;
                    if cursor.accept('<') {
                        let len = cursor.int("a number")? as usize;
                        cursor.mark('>')?;
                        if len > 4096 {
                            return Err(cursor.fail_at(line, "more than 4096 registers"));
                        }
                        let first = self.registers.len();
                        self.ranges.push(Range {
                            prefix: name.into(),
                            line,
                            first,
                            len,
                        });
                        for k in 0..len {
                            self.declare(cursor, format!("{name}{k}"), ty, line, true)?;
                        }
                    } else {
                        self.declare(cursor, name.into(), ty, line, false)?;
                    }
                    if !cursor.accept(',') {
                        break;
                    }
                }
                cursor.mark(';')
            }
            ".shared" => {
                let var = shared_var(cursor, &mut self.layout)?;
                if self.shared.iter().any(|v| v.name == var.name) {
                    return Err(cursor.fail_at(line, &format!("a second variable `{}`", var.name)));
                }
                self.shared.push(var);
                self.shared_used.push(false);
                Ok(())
            }
            ".pragma" => cursor.pragma(),
            other => Err(cursor.fail_at(line, &format!("`{other}` is not supported"))),
        }
    }

    fn declare(
        &mut self,
        cursor: &Cursor<'_>,
        name: String,
        ty: Ty,
        line: u32,
        ranged: bool,
    ) -> Result<(), ParseError> {
        let index = self.registers.len();
        let scope = self.scopes.last_mut();
        if scope.and_then(|s| s.insert(name.clone(), index)).is_some() {
            return Err(cursor.fail_at(line, &format!("a second register `{name}`")));
        }
        self.registers.push(Register {
            name,
            ty,
            line,
            slot: None,
            read: false,
            written: false,
            ranged,
        });
        Ok(())
    }

    fn instruction(
        &mut self,
        cursor: &mut Cursor<'_>,
        lints: &mut Vec<Lint>,
        code: &mut Code,
    ) -> Result<(), ParseError> {
        let (line, start) = (cursor.line(), cursor.start());
        let mut guard = None;
        if cursor.accept('@') {
            let negated = cursor.accept('!');
            let name = cursor.word("a predicate")?;
            let slot = self.source(&Operand::Name(name), Ty::Pred);
            let slot = slot.map_err(|m| cursor.fail_at(line, &m))?;
            guard = Some(PredIn { slot, negated });
        }
        let opcode = cursor.word("an instruction")?;
        let mut operands = Vec::new();
        if !cursor.accept(';') {
            loop {
                operands.push(operand(cursor)?);
                if cursor.accept(';') {
                    break;
                }
                cursor.mark(',')?;
            }
        }
        let text = cursor.text_since(start);
        self.unqualified = false;
        let at = code.insts.len();
        let op = decode::decode(self, opcode, &operands, at, line)
            .map_err(|m| cursor.fail_at(line, &format!("{m} in `{text}`")))?;
        if self.unqualified {
            lints.push(Lint {
                kind: LintKind::UnqualifiedFloat,
                file: cursor.file.into(),
                line,
                message: format!("`{text}` without `.rn` may be fused by the assembler"),
            });
        }
        code.insts.push(Inst {
            op,
            guard,
            line,
            text: text.into(),
        });
        Ok(())
    }

    fn finish(
        &mut self,
        cursor: &Cursor<'_>,
        lints: &mut Vec<Lint>,
        code: &mut Code,
        entry_line: u32,
    ) -> Result<(), ParseError> {
        for (at, name, line) in std::mem::take(&mut self.jumps) {
            let Some((target, _, used)) = self.labels.get_mut(&name) else {
                return Err(cursor.fail_at(line, &format!("no label `{name}`")));
            };
            *used = true;
            if *target as usize >= code.insts.len() {
                return Err(cursor.fail_at(line, &format!("nothing follows the label `{name}`")));
            }
            if let Op::Bra { target: t, .. } = &mut code.insts[at].op {
                *t = *target;
            }
        }
        let ends = code
            .insts
            .last()
            .is_some_and(|i| i.guard.is_none() && matches!(i.op, Op::Ret | Op::Bra { .. }));
        if !ends {
            return Err(cursor.fail_at(entry_line, "the entry does not end in `ret` or `bra`"));
        }
        self.lint(cursor.file, lints, code, entry_line);
        code.words = self.rows[File::Word as usize];
        code.wides = self.rows[File::Wide as usize];
        code.preds = self.rows[File::Pred as usize];
        code.word_consts = self.word_consts.iter().map(|(&v, &s)| (s, v)).collect();
        code.wide_consts = self.wide_consts.iter().map(|(&v, &s)| (s, v)).collect();
        code.sregs = std::mem::take(&mut self.sregs);
        let mut index = 0;
        let used = &self.shared_used;
        let globals = self.globals;
        self.shared.retain(|_| {
            index += 1;
            index > globals || used[index - 1]
        });
        code.shared = std::mem::take(&mut self.shared);
        Ok(())
    }

    fn lint(&self, file: &str, lints: &mut Vec<Lint>, code: &Code, entry_line: u32) {
        let mut add = |kind, line, message| {
            lints.push(Lint {
                kind,
                file: file.into(),
                line,
                message,
            });
        };
        for r in &self.registers {
            let kind = LintKind::UnusedRegister;
            match (r.read, r.written) {
                (false, true) => add(kind, r.line, format!("`{}` is written, never read", r.name)),
                (true, false) => add(kind, r.line, format!("`{}` is read, never written", r.name)),
                (false, false) if !r.ranged => add(kind, r.line, format!("`{}` is unused", r.name)),
                _ => {}
            }
        }
        for range in &self.ranges {
            let regs = &self.registers[range.first..range.first + range.len];
            let used = regs
                .iter()
                .rposition(|r| r.read || r.written)
                .map_or(0, |k| k + 1);
            if used < range.len {
                let Range {
                    prefix, line, len, ..
                } = range;
                let message = format!("`{prefix}<{len}>` could be `{prefix}<{used}>`");
                add(LintKind::UnusedRegister, *line, message);
            }
        }
        for (name, &(_, line, used)) in &self.labels {
            if !used {
                add(
                    LintKind::UnusedLabel,
                    line,
                    format!("nothing jumps to `{name}`"),
                );
            }
        }
        for (param, &read) in self.params.iter().zip(&self.params_read) {
            if !read {
                add(
                    LintKind::UnusedParam,
                    entry_line,
                    format!("`{}` is never loaded", param.name),
                );
            }
        }
        for (var, &used) in self.shared.iter().zip(&self.shared_used).skip(self.globals) {
            if !used {
                add(
                    LintKind::UnusedShared,
                    var.line,
                    format!("`{}` is unused", var.name),
                );
            }
        }
        let targets: Vec<u32> = self.labels.values().map(|l| l.0).collect();
        for (k, pair) in code.insts.windows(2).enumerate() {
            let leaves = pair[0].guard.is_none() && matches!(pair[0].op, Op::Ret | Op::Bra { .. });
            if leaves && !targets.contains(&(k as u32 + 1)) {
                let message = format!("`{}` cannot be reached", pair[1].text);
                add(LintKind::Unreachable, pair[1].line, message);
            }
        }
    }

    fn find(&mut self, name: &str) -> Option<usize> {
        self.scopes.iter().rev().find_map(|s| s.get(name).copied())
    }

    fn new_row(&mut self, file: File) -> Result<Slot, String> {
        let row = &mut self.rows[file as usize];
        let slot = Slot::try_from(*row).map_err(|_| "more than 65536 registers".to_string())?;
        *row += 1;
        Ok(slot)
    }

    fn register(
        &mut self,
        name: &str,
        ty: Ty,
        wider: bool,
        write: bool,
    ) -> Result<(Slot, Ty), String> {
        let Some(index) = self.find(name) else {
            return Err(format!("`{name}` is not a register"));
        };
        let reg_ty = self.registers[index].ty;
        if !agrees(reg_ty, ty, wider) {
            return Err(format!("`{name}` is {reg_ty:?}, not {ty:?}"));
        }
        let slot = match self.registers[index].slot {
            Some(slot) => slot,
            None => self.new_row(reg_ty.file())?,
        };
        let register = &mut self.registers[index];
        register.slot = Some(slot);
        register.read |= !write;
        register.written |= write;
        Ok((slot, reg_ty))
    }

    /// The slot of a constant.
    pub(crate) fn word(&mut self, value: u32) -> Result<Slot, String> {
        if let Some(&slot) = self.word_consts.get(&value) {
            return Ok(slot);
        }
        let slot = self.new_row(File::Word)?;
        self.word_consts.insert(value, slot);
        Ok(slot)
    }

    fn wide(&mut self, value: u64) -> Result<Slot, String> {
        if let Some(&slot) = self.wide_consts.get(&value) {
            return Ok(slot);
        }
        let slot = self.new_row(File::Wide)?;
        self.wide_consts.insert(value, slot);
        Ok(slot)
    }

    fn sreg(&mut self, sreg: Sreg) -> Result<Slot, String> {
        if let Some(&(slot, _)) = self.sregs.iter().find(|(_, s)| *s == sreg) {
            return Ok(slot);
        }
        let slot = self.new_row(File::Word)?;
        self.sregs.push((slot, sreg));
        Ok(slot)
    }

    /// Address of a shared variable.
    pub(crate) fn shared_address(&mut self, name: &str) -> Option<u32> {
        let index = self.shared.iter().position(|v| v.name == name)?;
        self.shared_used[index] = true;
        Some(self.shared[index].base)
    }

    /// An operand that is read, and the type of its register.
    pub(crate) fn typed_source(
        &mut self,
        operand: &Operand<'_>,
        ty: Ty,
        wider: bool,
    ) -> Result<(Slot, Ty), String> {
        match operand {
            Operand::Name(name) => {
                if self.find(name).is_none()
                    && let Some(base) = self.shared_address(name)
                {
                    return match ty {
                        Ty::U32 | Ty::B32 | Ty::S32 => Ok((self.word(base)?, ty)),
                        Ty::U64 | Ty::B64 | Ty::S64 => Ok((self.wide(u64::from(base))?, ty)),
                        _ => Err(format!("the address `{name}` where a {ty:?} is wanted")),
                    };
                }
                self.register(name, ty, wider, false)
            }
            Operand::Sreg(sreg) if agrees(Ty::U32, ty, false) => Ok((self.sreg(*sreg)?, Ty::U32)),
            Operand::Number(number) => {
                let value = constant(*number, ty)?;
                let slot = match ty.file() {
                    File::Wide => self.wide(value)?,
                    _ => self.word(value as u32)?,
                };
                Ok((slot, ty))
            }
            _ => Err(format!("an operand that is no {ty:?}")),
        }
    }

    /// An operand that is read.
    pub(crate) fn source(&mut self, operand: &Operand<'_>, ty: Ty) -> Result<Slot, String> {
        Ok(self.typed_source(operand, ty, false)?.0)
    }

    /// A register that is written, and its type.
    pub(crate) fn typed_target(
        &mut self,
        operand: &Operand<'_>,
        ty: Ty,
        wider: bool,
    ) -> Result<(Slot, Ty), String> {
        match operand {
            Operand::Name(name) => self.register(name, ty, wider, true),
            _ => Err("a target that is no register".into()),
        }
    }

    /// A register that is written.
    pub(crate) fn target(&mut self, operand: &Operand<'_>, ty: Ty) -> Result<Slot, String> {
        Ok(self.typed_target(operand, ty, false)?.0)
    }

    /// A predicate that is read, with or without `!`.
    pub(crate) fn predicate(&mut self, operand: &Operand<'_>) -> Result<PredIn, String> {
        match operand {
            Operand::Not(name) => {
                let slot = self.register(name, Ty::Pred, false, false)?.0;
                Ok(PredIn {
                    slot,
                    negated: true,
                })
            }
            _ => Ok(PredIn {
                slot: self.source(operand, Ty::Pred)?,
                negated: false,
            }),
        }
    }

    /// The registers of a load or store.
    pub(crate) fn vector(
        &mut self,
        operand: &Operand<'_>,
        ty: Ty,
        len: usize,
        write: bool,
    ) -> Result<Vector, String> {
        let single = [operand.clone()];
        let parts = match operand {
            Operand::Vector(parts) if len > 1 => &parts[..],
            _ if len == 1 => &single[..],
            _ => return Err(format!("expected {len} registers in braces")),
        };
        if parts.len() != len {
            return Err(format!("{} registers for {len} values", parts.len()));
        }
        let mut vector = Vector {
            slots: [0; 4],
            len: len as u8,
            file: File::Word,
        };
        for (k, part) in parts.iter().enumerate() {
            let (slot, reg) = if write {
                self.typed_target(part, ty, true)?
            } else {
                self.typed_source(part, ty, true)?
            };
            if k > 0 && vector.file != reg.file() {
                return Err("registers of different sizes".into());
            }
            vector.slots[k] = slot;
            vector.file = reg.file();
        }
        Ok(vector)
    }

    /// Remembers a jump; its target is set when the body ends.
    pub(crate) fn jump(&mut self, at: usize, label: &str, line: u32) {
        self.jumps.push((at, label.into(), line));
    }

    /// Offset of a parameter and its size, marking it as read.
    pub(crate) fn param(&mut self, name: &str) -> Option<(usize, usize)> {
        let &index = self.param_index.get(name)?;
        self.params_read[index] = true;
        Some((self.offsets[index], self.params[index].size))
    }
}
