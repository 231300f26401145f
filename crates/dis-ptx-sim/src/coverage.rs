//! Which lines of a text were executed.

/// A line that holds instructions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineCoverage {
    /// Line, from 1.
    pub line: u32,
    /// How often warps executed it; the least where a line has several instructions.
    pub hits: u64,
    /// Entry it belongs to.
    pub entry: String,
    /// First instruction of the line.
    pub instruction: String,
}

/// Coverage of one text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Coverage {
    /// File.
    pub file: String,
    /// Lines with instructions, ascending.
    pub lines: Vec<LineCoverage>,
}

impl Coverage {
    /// Lines that no warp executed.
    pub fn uncovered(&self) -> impl Iterator<Item = &LineCoverage> {
        self.lines.iter().filter(|l| l.hits == 0)
    }

    /// Share of the lines that some warp executed, 1 where there are none.
    pub fn fraction(&self) -> f64 {
        if self.lines.is_empty() {
            return 1.0;
        }
        1.0 - self.uncovered().count() as f64 / self.lines.len() as f64
    }

    /// Adds the hits of another run of the same text.
    pub fn merge(&mut self, other: &Self) {
        if self.lines.is_empty() {
            *self = other.clone();
            return;
        }
        for (mine, theirs) in self.lines.iter_mut().zip(&other.lines) {
            mine.hits += theirs.hits;
        }
    }
}
