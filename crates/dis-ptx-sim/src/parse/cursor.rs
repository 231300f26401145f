//! A place in the sequence of tokens.

use super::variable_type;
use crate::ParseError;
use crate::isa::Ty;
use crate::lex::{Spanned, Token};

/// Alignment, type, name, and the size between brackets: none, left open, or a number.
pub(crate) type Variable<'a> = (usize, Ty, &'a str, Option<Option<u64>>);

pub(crate) struct Cursor<'a> {
    pub(crate) file: &'a str,
    text: &'a str,
    tokens: &'a [Spanned<'a>],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(file: &'a str, text: &'a str, tokens: &'a [Spanned<'a>]) -> Self {
        Self {
            file,
            text,
            tokens,
            at: 0,
        }
    }

    pub(crate) fn at_end(&self) -> bool {
        self.at >= self.tokens.len()
    }

    /// Line of the next token, of the last one at the end.
    pub(crate) fn line(&self) -> u32 {
        self.tokens
            .get(self.at)
            .or(self.tokens.last())
            .map_or(1, |t| t.line)
    }

    pub(crate) fn fail_at(&self, line: u32, message: &str) -> ParseError {
        ParseError {
            file: self.file.into(),
            line,
            message: message.into(),
        }
    }

    fn expected(&self, what: &str) -> ParseError {
        let found = match self.tokens.get(self.at) {
            Some(t) => format!("expected {what}, found `{}`", &self.text[t.start..t.end]),
            None => format!("expected {what}, found the end of the text"),
        };
        self.fail_at(self.line(), &found)
    }

    pub(crate) fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).map(|t| t.token)
    }

    pub(crate) fn peek_second(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at + 1).map(|t| t.token)
    }

    pub(crate) fn advance(&mut self) {
        self.at += 1;
    }

    /// Byte offset of the next token.
    pub(crate) fn start(&self) -> usize {
        self.tokens
            .get(self.at)
            .map_or(self.text.len(), |t| t.start)
    }

    /// The text from a byte offset to the end of the last token read, white space squeezed.
    pub(crate) fn text_since(&self, start: usize) -> String {
        let end = self.tokens[self.at.saturating_sub(1)].end;
        self.text[start..end.max(start)]
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    }

    pub(crate) fn accept(&mut self, mark: char) -> bool {
        let found = self.peek() == Some(Token::Mark(mark));
        self.at += usize::from(found);
        found
    }

    pub(crate) fn mark(&mut self, mark: char) -> Result<(), ParseError> {
        if self.accept(mark) {
            Ok(())
        } else {
            Err(self.expected(&format!("`{mark}`")))
        }
    }

    pub(crate) fn word(&mut self, what: &str) -> Result<&'a str, ParseError> {
        match self.peek() {
            Some(Token::Word(word)) => {
                self.at += 1;
                Ok(word)
            }
            _ => Err(self.expected(what)),
        }
    }

    pub(crate) fn int(&mut self, what: &str) -> Result<u64, ParseError> {
        match self.peek() {
            Some(Token::Int(value)) => {
                self.at += 1;
                Ok(value)
            }
            _ => Err(self.expected(what)),
        }
    }

    pub(crate) fn version(&mut self) -> Result<(u32, u32), ParseError> {
        match self.peek() {
            Some(Token::Decimal(value)) => {
                self.at += 1;
                Ok((value as u32, (value * 10.0).round() as u32 % 10))
            }
            _ => Err(self.expected("a version")),
        }
    }

    /// One to three numbers with commas between.
    pub(crate) fn triple(&mut self) -> Result<[u32; 3], ParseError> {
        let mut out = [1; 3];
        for (k, value) in out.iter_mut().enumerate() {
            if k > 0 && !self.accept(',') {
                break;
            }
            *value = self.int("a number")? as u32;
        }
        Ok(out)
    }

    pub(crate) fn pragma(&mut self) -> Result<(), ParseError> {
        match self.peek() {
            Some(Token::Text(_)) => self.at += 1,
            _ => return Err(self.expected("a string")),
        }
        self.mark(';')
    }

    /// `.align 16 .b8 name[64]`, the alignment and the brackets optional.
    pub(crate) fn variable(&mut self) -> Result<Variable<'a>, ParseError> {
        let line = self.line();
        let mut word = self.word("a type")?;
        let mut align = None;
        if word == ".align" {
            let value = self.int("an alignment")?;
            if !value.is_power_of_two() || value > 128 {
                return Err(self.fail_at(line, "an alignment is a power of two up to 128"));
            }
            align = Some(value as usize);
            word = self.word("a type")?;
        }
        let Some(ty) = variable_type(word) else {
            return Err(self.fail_at(line, &format!("a variable of type `{word}`")));
        };
        let name = self.word("a name")?;
        let mut count = None;
        if self.accept('[') {
            let open = self.accept(']');
            count = Some(None);
            if !open {
                count = Some(Some(self.int("a size")?));
                self.mark(']')?;
            }
        }
        Ok((align.unwrap_or(ty.bytes()).max(1), ty, name, count))
    }
}
