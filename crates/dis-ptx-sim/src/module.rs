//! Decoded texts.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::ParseError;
use crate::code::Code;
use crate::parse::{self, Parsed};

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
    /// `.maxntid`: most threads of a block.
    pub maxntid: Option<[u32; 3]>,
    /// `.reqntid`: the only size a block may have.
    pub reqntid: Option<[u32; 3]>,
    /// `.minnctapersm`: blocks that should fit on a multiprocessor at once.
    pub minnctapersm: Option<u32>,
    /// `.maxnreg`: most registers of a thread.
    pub maxnreg: Option<u32>,
    /// Bytes of shared variables of a fixed size.
    pub static_shared: usize,
    /// Whether a shared variable's size comes with the launch.
    pub dynamic_shared: bool,
    /// Line of `.entry`, from 1.
    pub line: u32,
    pub(crate) code: Code,
}

/// A decoded text.
#[derive(Debug, Clone)]
pub struct Module {
    /// Name of the file, as given.
    pub file: String,
    /// `.version`.
    pub version: (u32, u32),
    /// `.target`.
    pub target: String,
    entries: Vec<Entry>,
    lints: Vec<Lint>,
    /// Distinguishes texts; clones share it.
    pub(crate) id: u64,
}

/// Kind of a [`Lint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LintKind {
    /// `add`, `sub` or `mul` of floats without `.rn`: the assembler may fuse them.
    UnqualifiedFloat,
    /// A register that is never read or never written, or a range larger than what is used.
    UnusedRegister,
    /// A label that nothing jumps to.
    UnusedLabel,
    /// A parameter that is never loaded.
    UnusedParam,
    /// A shared variable that nothing uses.
    UnusedShared,
    /// An instruction that no path leads to.
    Unreachable,
    /// An entry without `.maxntid` or `.reqntid`.
    MissingMaxntid,
    /// A text without a comment at its head.
    MissingHeader,
    /// A version above 7.0 or a target other than sm_80 without a comment on its line.
    UnexplainedVersion,
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

impl std::fmt::Display for Lint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}:{}: {:?}: {}",
            self.file, self.line, self.kind, self.message
        )
    }
}

impl Module {
    /// Decodes a text; `file` names it in messages.
    ///
    /// # Errors
    /// If the text is not of the supported subset; the error names the line.
    pub fn parse(file: &str, text: &str) -> Result<Self, ParseError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let Parsed {
            entries,
            lints,
            version,
            target,
        } = parse::parse(file, text)?;
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            file: file.into(),
            version,
            target,
            entries,
            lints,
            id,
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

    /// Weaknesses of the text, by line.
    pub fn lint(&self) -> Vec<Lint> {
        self.lints.clone()
    }
}
