//! The header of a `.npy` array (NumPy's `lib/format.py`, versions 1.0 to 3.0).

use std::io::{self, Read};

use crate::element::ElementType;

/// What a header says of the array behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NpyHeader {
    /// Element type, such as `|u1` or `<i8`.
    pub descr: String,
    /// Whether the first index runs fastest.
    pub fortran_order: bool,
    /// Lengths.
    pub shape: Vec<usize>,
}

const MAGIC: &[u8] = b"\x93NUMPY";
/// NumPy aligns what follows the header to this.
const ALIGN: usize = 64;
/// Longest header that is read; NumPy's take a few hundred bytes.
const LONGEST: usize = 1 << 16;

impl NpyHeader {
    /// A header of an array in C order. Floats that NumPy does not have are whole numbers of their
    /// bits to it.
    pub fn new(element: ElementType, shape: &[usize]) -> Self {
        Self {
            descr: descr(element).into(),
            fortran_order: false,
            shape: shape.to_vec(),
        }
    }

    /// The bytes before the data, as NumPy writes them.
    pub fn to_bytes(&self) -> Vec<u8> {
        let lengths: Vec<String> = self.shape.iter().map(usize::to_string).collect();
        let comma = if lengths.len() == 1 { "," } else { "" };
        let order = if self.fortran_order { "True" } else { "False" };
        let mut text = format!(
            "{{'descr': '{}', 'fortran_order': {order}, 'shape': ({}{comma}), }}",
            self.descr,
            lengths.join(", ")
        );
        let unpadded = MAGIC.len() + 4 + text.len() + 1;
        text.extend(std::iter::repeat_n(
            ' ',
            unpadded.next_multiple_of(ALIGN) - unpadded,
        ));
        text.push('\n');
        let mut bytes = [MAGIC, &[1, 0]].concat();
        // Shapes of this crate's arrays take far less than 65,536 characters.
        bytes.extend((text.len() as u16).to_le_bytes());
        bytes.extend(text.as_bytes());
        bytes
    }

    /// Reads the beginning of an array; the data follow.
    ///
    /// # Errors
    /// If reading fails, or with kind `InvalidData` if this is no array or its header is not
    /// understood.
    pub fn read(source: &mut impl Read) -> io::Result<Self> {
        let mut start = [0; MAGIC.len() + 2];
        source.read_exact(&mut start).map_err(cut)?;
        let (magic, version) = start.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(invalid(
                "is not a NumPy array: it does not begin with \\x93NUMPY",
            ));
        }
        let mut length = [0; 4];
        let width = match version[0] {
            1 => 2,
            2 | 3 => 4,
            other => {
                let what = format!("has a header of version {other}, not 1 to 3");
                return Err(invalid(what));
            }
        };
        source.read_exact(&mut length[..width]).map_err(cut)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > LONGEST {
            return Err(invalid(format!(
                "has a header of {length} bytes, which is not read"
            )));
        }
        let mut text = vec![0; length];
        source.read_exact(&mut text).map_err(cut)?;
        let text = String::from_utf8(text).map_err(|_| invalid("its header is not text"))?;
        Self::from_dict(&text).ok_or_else(|| {
            let few: String = text.chars().take(80).collect();
            invalid(format!("its header is not understood: {few:?}"))
        })
    }

    /// A header of `count` texts of up to `longest` characters, four bytes each: NumPy's `<U`.
    pub fn texts(count: usize, longest: usize) -> Self {
        Self {
            descr: format!("<U{longest}"),
            fortran_order: false,
            shape: vec![count],
        }
    }

    /// An array of texts as one of numbers: their characters are the last dimension. Others as they
    /// are.
    pub(crate) fn texts_as_numbers(self) -> Self {
        let length = self.descr.strip_prefix("<U").and_then(|n| n.parse().ok());
        match length {
            Some(length) => Self {
                descr: "<u4".into(),
                shape: self.shape.into_iter().chain([length]).collect(),
                ..self
            },
            None => self,
        }
    }

    /// Type of the elements, and whether their most significant byte comes first; `None` for types
    /// that are no plain numbers.
    pub fn element(&self) -> Option<(ElementType, bool)> {
        let (order, code) = self.descr.split_at_checked(1)?;
        let found = DESCR.iter().find(|(_, descr)| &descr[1..] == code);
        let (element, _) = found?;
        match order {
            "<" | "|" => Some((*element, false)),
            ">" => Some((*element, true)),
            "=" => Some((*element, cfg!(target_endian = "big"))),
            _ => None,
        }
    }

    /// Python's text of a dictionary with exactly these three keys.
    fn from_dict(text: &str) -> Option<Self> {
        let mut rest = text.trim().strip_prefix('{')?;
        let (mut descr, mut order, mut shape) = (None, None, None);
        loop {
            rest = rest.trim_start();
            if let Some(end) = rest.strip_prefix('}') {
                let whole = end.trim().is_empty();
                return whole.then_some(Self {
                    descr: descr?,
                    fortran_order: order?,
                    shape: shape?,
                });
            }
            let (key, after) = quoted(rest)?;
            rest = after.trim_start().strip_prefix(':')?.trim_start();
            match key {
                "descr" => {
                    let (value, after) = quoted(rest)?;
                    (descr, rest) = (Some(value.to_string()), after);
                }
                "fortran_order" => {
                    let word = rest.find([',', '}'])?;
                    order = Some(match rest[..word].trim() {
                        "True" => true,
                        "False" => false,
                        _ => return None,
                    });
                    rest = &rest[word..];
                }
                "shape" => {
                    let (inside, after) = rest.strip_prefix('(')?.split_once(')')?;
                    let lengths = inside.split(',').map(str::trim).filter(|x| !x.is_empty());
                    // Python 2 wrote 3L.
                    let lengths = lengths.map(|x| x.trim_end_matches('L').parse().ok());
                    (shape, rest) = (Some(lengths.collect::<Option<Vec<usize>>>()?), after);
                }
                _ => return None,
            }
            rest = rest.trim_start();
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
    }
}

/// NumPy's names of the types.
const DESCR: [(ElementType, &str); 12] = [
    (ElementType::Bool, "|b1"),
    (ElementType::U8, "|u1"),
    (ElementType::I8, "|i1"),
    (ElementType::U16, "<u2"),
    (ElementType::I16, "<i2"),
    (ElementType::F16, "<f2"),
    (ElementType::U32, "<u4"),
    (ElementType::I32, "<i4"),
    (ElementType::F32, "<f4"),
    (ElementType::U64, "<u8"),
    (ElementType::I64, "<i8"),
    (ElementType::F64, "<f8"),
];

/// NumPy's name of a type.
fn descr(element: ElementType) -> &'static str {
    let found = DESCR.iter().find(|(known, _)| *known == element);
    match (found, element.size()) {
        (Some((_, descr)), _) => descr,
        (None, 2) => "<u2",
        _ => "|u1",
    }
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

fn cut(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => invalid("its header is cut off"),
        _ => error,
    }
}

/// A word in either kind of quotes, and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    text[1..].split_once(quote)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(bytes: &[u8]) -> io::Result<(NpyHeader, usize)> {
        let mut rest = bytes;
        let header = NpyHeader::read(&mut rest)?;
        Ok((header, bytes.len() - rest.len()))
    }

    proptest! {
        #[test]
        fn headers_come_back(shape in prop::collection::vec(0usize..1 << 40, 0..5), fortran_order: bool) {
            let header = NpyHeader { descr: "<i8".into(), fortran_order, shape };
            let mut bytes = header.to_bytes();
            prop_assert_eq!(bytes.len() % ALIGN, 0);
            let end = bytes.len();
            bytes.extend([1, 2, 3]);
            prop_assert_eq!(parse(&bytes).unwrap(), (header, end));
        }
    }

    #[test]
    fn numpys_own_bytes_are_written_and_read() {
        // numpy.save of zeros((2, 3), uint8): 128 bytes with the padding.
        let text = "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }";
        let mut numpy = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        numpy.extend(format!("{text:<117}\n").as_bytes());
        let header = NpyHeader {
            descr: "|u1".into(),
            fortran_order: false,
            shape: vec![2, 3],
        };
        assert_eq!(parse(&numpy).unwrap(), (header.clone(), 128));
        assert_eq!(header.to_bytes(), numpy);
    }

    #[test]
    fn other_texts_are_refused() {
        let text = |text: &str| {
            let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
            bytes.extend((text.len() as u16).to_le_bytes());
            bytes.extend(text.as_bytes());
            parse(&bytes)
        };
        assert!(text("{'shape': (3L,), \"descr\": \"<f4\", 'fortran_order':True}").is_ok());
        for other in [
            "",
            "{",
            "{}",
            "{'descr': '<f4', 'fortran_order': False}",
            "{'descr': '<f4', 'fortran_order': 0, 'shape': ()}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1,",
            "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': ()}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': ()} x",
            "{'other': '<f4', 'fortran_order': False, 'shape': ()}",
        ] {
            assert!(text(other).is_err(), "{other}");
        }
        assert!(parse(b"\x93NUMPY\x04\x00\x00\x00").is_err());
        assert!(parse(b"\x93NUMPY\x01\x00\xff\xff{").is_err());
        assert!(parse(b"PK").is_err());
    }
}
