//! The header of a `.npy` array (NumPy's `lib/format.py`, versions 1.0 to 3.0).

/// What a header says of the array behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
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

impl Header {
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

    /// Parses the beginning of an array; the data follow at the place that comes back.
    pub fn parse(bytes: &[u8]) -> Result<(Self, usize), String> {
        let cut = || "its header is cut off".to_string();
        let rest = bytes
            .strip_prefix(MAGIC)
            .ok_or("is not a NumPy array: it does not begin with \\x93NUMPY")?;
        let (version, rest) = rest.split_at_checked(2).ok_or_else(cut)?;
        let (length, rest) = match version[0] {
            1 => {
                let (n, rest) = rest.split_first_chunk::<2>().ok_or_else(cut)?;
                (usize::from(u16::from_le_bytes(*n)), rest)
            }
            2 | 3 => {
                let (n, rest) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
                (u32::from_le_bytes(*n) as usize, rest)
            }
            other => return Err(format!("has a header of version {other}, not 1 to 3")),
        };
        let text = rest.get(..length).ok_or_else(cut)?;
        let text = std::str::from_utf8(text).map_err(|_| "its header is not text")?;
        let header = Self::from_dict(text).ok_or_else(|| {
            let few: String = text.chars().take(80).collect();
            format!("its header is not understood: {few:?}")
        })?;
        Ok((header, bytes.len() - rest.len() + length))
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

/// A word in either kind of quotes, and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    text[1..].split_once(quote)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn headers_come_back(shape in prop::collection::vec(0usize..1 << 40, 0..5), fortran_order: bool) {
            let header = Header { descr: "<i8".into(), fortran_order, shape };
            let mut bytes = header.to_bytes();
            prop_assert_eq!(bytes.len() % ALIGN, 0);
            let end = bytes.len();
            bytes.extend([1, 2, 3]);
            prop_assert_eq!(Header::parse(&bytes), Ok((header, end)));
        }
    }

    #[test]
    fn numpys_own_bytes_are_written_and_read() {
        // numpy.save of zeros((2, 3), uint8): 128 bytes with the padding.
        let text = "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }";
        let mut numpy = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        numpy.extend(format!("{text:<117}\n").as_bytes());
        let header = Header {
            descr: "|u1".into(),
            fortran_order: false,
            shape: vec![2, 3],
        };
        assert_eq!(Header::parse(&numpy), Ok((header.clone(), 128)));
        assert_eq!(header.to_bytes(), numpy);
    }

    #[test]
    fn other_texts_are_refused() {
        let parse = |text: &str| {
            let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
            bytes.extend((text.len() as u16).to_le_bytes());
            bytes.extend(text.as_bytes());
            Header::parse(&bytes)
        };
        assert!(parse("{'shape': (3L,), \"descr\": \"<f4\", 'fortran_order':True}").is_ok());
        for text in [
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
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(Header::parse(b"\x93NUMPY\x04\x00\x00\x00").is_err());
        assert!(Header::parse(b"\x93NUMPY\x01\x00\xff\xff{").is_err());
        assert!(Header::parse(b"PK").is_err());
    }
}
