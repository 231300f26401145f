//! Short texts in pictures: letters of eight by eight pixels.

use font8x8::{BASIC_FONTS, GREEK_FONTS, LATIN_FONTS, UnicodeFonts};

/// Pixels of a letter, from one to the next.
const WIDTH: usize = 8;
/// Pixels that a line is high.
pub const HEIGHT: usize = 8;
/// Letters of a text; of longer ones the beginning is shown.
const MOST: usize = 24;

/// Rows of a letter, whose lowest bit is on the left; of one that there is not, a box.
fn rows(letter: char) -> [u8; 8] {
    let found = BASIC_FONTS.get(letter);
    let found = found.or_else(|| LATIN_FONTS.get(letter));
    let found = found.or_else(|| GREEK_FONTS.get(letter));
    found.unwrap_or([0x7e, 0x42, 0x42, 0x42, 0x42, 0x42, 0x7e, 0])
}

/// Pixels to the left of a grid for the longest of the texts, with `padding` on one side.
pub fn margin(texts: &[String], padding: usize) -> usize {
    let longest = texts.iter().map(|text| text.chars().count()).max();
    match longest.unwrap_or(0).min(MOST) {
        0 => 0,
        letters => padding + WIDTH * letters,
    }
}

/// Calls `dot` for every pixel (x, y) of a text.
pub fn letters(text: &str, mut dot: impl FnMut(usize, usize)) {
    for (i, letter) in text.chars().take(MOST).enumerate() {
        for (y, row) in rows(letter).into_iter().enumerate() {
            for x in (0..WIDTH).filter(|x| row >> x & 1 == 1) {
                dot(WIDTH * i + x, y);
            }
        }
    }
}
