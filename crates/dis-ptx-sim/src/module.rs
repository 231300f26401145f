//! Decoded texts.

use crate::ParseError;

/// A parameter of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param {
    /// Name.
    pub name: String,
    /// Size in bytes.
    pub size: usize,
    /// Alignment in bytes.
    pub align: usize,
}

/// A kernel.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Name.
    pub name: String,
    /// Parameters in order.
    pub params: Vec<Param>,
    /// `.maxntid`.
    pub maxntid: Option<[u32; 3]>,
    /// Bytes of statically sized shared variables.
    pub static_shared: usize,
    /// Line of `.entry`.
    pub line: u32,
}

/// A decoded text.
#[derive(Debug, Clone)]
pub struct Module {
    /// Name of the file.
    pub file: String,
    entries: Vec<Entry>,
}

/// Kind of a [`Lint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LintKind {
    /// `add`, `sub` or `mul` of floats without `.rn`: the assembler may fuse them.
    UnqualifiedFloat,
    /// A register that is never read, or a range larger than what is used.
    UnusedRegister,
    /// A label that nothing jumps to.
    UnusedLabel,
    /// A parameter that is never loaded.
    UnusedParam,
    /// An entry without `.maxntid`.
    MissingMaxntid,
}

/// A weakness of a text that is no error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lint {
    /// Kind.
    pub kind: LintKind,
    /// File.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// What is wrong.
    pub message: String,
}

impl Module {
    /// Decodes a text; `file` names it in messages.
    pub fn parse(file: &str, text: &str) -> Result<Self, ParseError> {
        let _ = text;
        Err(ParseError {
            file: file.into(),
            line: 1,
            message: "the parser is not there yet".into(),
        })
    }

    /// Entries in the order of the text.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// The entry of that name.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|e| e.name == name)
    }

    /// Weaknesses of the text.
    pub fn lint(&self) -> Vec<Lint> {
        Vec::new()
    }
}
