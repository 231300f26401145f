//! Damage, by seed.

/// Numbers that lengths, counts and offsets go wrong at.
const NUMBERS: [u64; 16] = [
    0,
    1,
    2,
    7,
    8,
    0x7F,
    0xFF,
    0x100,
    0x7FFF,
    0xFFFF,
    0x1_0000,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFF,
    0x7FFF_FFFF_FFFF_FFFF,
    u64::MAX,
];

/// Half of all places are within this many bytes of either end, where headers and directories are.
const EDGE: usize = 4096;

/// A source of damage.
pub struct Mutator {
    state: u64,
}

impl Mutator {
    /// The same seed gives the same damage.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn place(&mut self, len: usize) -> usize {
        let edge = len.min(EDGE);
        match self.below(4) {
            0 => self.below(edge),
            1 => len - 1 - self.below(edge),
            _ => self.below(len),
        }
    }

    fn number(&mut self, len: usize) -> u64 {
        match self.below(4) {
            0 => len as u64 + self.next() % 3 - 1,
            1 => self.next() >> self.below(64),
            _ => NUMBERS[self.below(NUMBERS.len())],
        }
    }

    /// A damaged copy.
    pub fn damage(&mut self, seed: &[u8]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=self.below(4) {
            if bytes.is_empty() {
                break;
            }
            self.damage_once(&mut bytes);
        }
        bytes
    }

    fn damage_once(&mut self, bytes: &mut Vec<u8>) {
        let at = self.place(bytes.len());
        let left = bytes.len() - at;
        match self.below(12) {
            // Flipped bits.
            0..=2 => bytes[at] ^= 1 << self.below(8),
            // Another byte.
            3 => bytes[at] = self.next() as u8,
            // A number in binary, either order of bytes.
            4..=6 => {
                let width = [1, 2, 4, 8][self.below(4)].min(left);
                let number = self.number(bytes.len());
                let (little, big) = (number.to_le_bytes(), number.to_be_bytes());
                let field = if self.below(2) == 0 {
                    &little[..width]
                } else {
                    &big[8 - width..]
                };
                bytes[at..at + width].copy_from_slice(field);
            }
            // A number in decimal.
            7..=8 => {
                let digits = |b: &u8| b.is_ascii_digit();
                let Some(start) = bytes[at..].iter().position(digits).map(|i| at + i) else {
                    return;
                };
                let len = bytes[start..].iter().take_while(|b| digits(b)).count();
                let number = self.number(bytes.len()).to_string();
                let same_length = self.below(2) == 0;
                let number =
                    &number.as_bytes()[..number.len().min(if same_length { len } else { 20 })];
                let end = start + if same_length { number.len() } else { len };
                bytes.splice(start..end, number.iter().copied());
            }
            // The rest cut off.
            9 => bytes.truncate(at),
            // A piece missing.
            10 => {
                let end = at + self.below(left.min(64)) + 1;
                bytes.drain(at..end.min(bytes.len()));
            }
            // A piece of it somewhere else.
            _ => {
                let piece = bytes[at..at + left.min(1 + self.below(64))].to_vec();
                let to = self.place(bytes.len());
                bytes.splice(to..to, piece);
            }
        }
    }
}
