//! Words, numbers and marks of a text.

use crate::ParseError;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Token<'a> {
    /// Names, opcodes with their modifiers, directives, registers.
    Word(&'a str),
    Int(u64),
    /// `0f` and eight hexadecimal digits.
    F32(u32),
    /// `0d` and sixteen hexadecimal digits.
    F64(u64),
    /// A decimal number with a point or an exponent.
    Decimal(f64),
    Text(&'a str),
    Mark(char),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Spanned<'a> {
    pub(crate) token: Token<'a>,
    pub(crate) line: u32,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

fn word_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$' | b'%' | b'.')
}

/// Splits a text; comments and white space are dropped.
pub(crate) fn lex<'a>(file: &str, text: &'a str) -> Result<Vec<Spanned<'a>>, ParseError> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(text.len() / 4);
    let (mut at, mut line) = (0, 1u32);
    let fail = |line, message: String| ParseError {
        file: file.into(),
        line,
        message,
    };
    while at < bytes.len() {
        let b = bytes[at];
        if b == b'\n' {
            line += 1;
            at += 1;
        } else if b.is_ascii_whitespace() {
            at += 1;
        } else if bytes[at..].starts_with(b"//") {
            at += bytes[at..]
                .iter()
                .position(|&b| b == b'\n')
                .unwrap_or(bytes.len() - at);
        } else if bytes[at..].starts_with(b"/*") {
            let Some(length) = text[at..].find("*/") else {
                return Err(fail(line, "a comment without an end".into()));
            };
            line += bytes[at..at + length]
                .iter()
                .filter(|&&b| b == b'\n')
                .count() as u32;
            at += length + 2;
        } else if b == b'"' {
            let Some(length) = text[at + 1..].find(['"', '\n']) else {
                return Err(fail(line, "a string without an end".into()));
            };
            let (start, end) = (at, at + length + 2);
            out.push(Spanned {
                token: Token::Text(&text[at + 1..end - 1]),
                line,
                start,
                end,
            });
            at = end;
        } else if b.is_ascii_digit() {
            let start = at;
            while at < bytes.len() && number_goes_on(bytes, start, at) {
                at += 1;
            }
            let token = number(&text[start..at])
                .ok_or_else(|| fail(line, format!("`{}` is not a number", &text[start..at])))?;
            out.push(Spanned {
                token,
                line,
                start,
                end: at,
            });
        } else if word_byte(b) {
            let start = at;
            loop {
                if at < bytes.len() && word_byte(bytes[at]) {
                    at += 1;
                } else if bytes[at..].starts_with(b"::") {
                    at += 2;
                } else {
                    break;
                }
            }
            out.push(Spanned {
                token: Token::Word(&text[start..at]),
                line,
                start,
                end: at,
            });
        } else if b.is_ascii_punctuation() {
            let token = Token::Mark(b as char);
            out.push(Spanned {
                token,
                line,
                start: at,
                end: at + 1,
            });
            at += 1;
        } else {
            return Err(fail(line, "a character that PTX does not have".into()));
        }
    }
    Ok(out)
}

/// A sign continues a number only after the `e` of a decimal one.
fn number_goes_on(bytes: &[u8], start: usize, at: usize) -> bool {
    let b = bytes[at];
    if b.is_ascii_alphanumeric() || b == b'.' {
        return true;
    }
    let prefixed = bytes[start] == b'0'
        && bytes
            .get(start + 1)
            .is_some_and(|b| matches!(b, b'x' | b'X' | b'f' | b'F' | b'd' | b'D'));
    matches!(b, b'+' | b'-') && !prefixed && matches!(bytes[at - 1], b'e' | b'E')
}

fn number(text: &str) -> Option<Token<'_>> {
    let lower = text.to_ascii_lowercase();
    if let Some(hex) = lower.strip_prefix("0x") {
        return u64::from_str_radix(hex.trim_end_matches('u'), 16)
            .ok()
            .map(Token::Int);
    }
    if let Some(hex) = lower.strip_prefix("0f") {
        return (hex.len() == 8).then(|| u32::from_str_radix(hex, 16).ok().map(Token::F32))?;
    }
    if let Some(hex) = lower.strip_prefix("0d") {
        return (hex.len() == 16).then(|| u64::from_str_radix(hex, 16).ok().map(Token::F64))?;
    }
    if let Some(bits) = lower.strip_prefix("0b") {
        return u64::from_str_radix(bits.trim_end_matches('u'), 2)
            .ok()
            .map(Token::Int);
    }
    if lower.contains(['.', 'e']) {
        return lower.parse().ok().map(Token::Decimal);
    }
    let digits = lower.trim_end_matches('u');
    if digits.len() > 1 && digits.starts_with('0') {
        return u64::from_str_radix(&digits[1..], 8).ok().map(Token::Int);
    }
    digits.parse().ok().map(Token::Int)
}
