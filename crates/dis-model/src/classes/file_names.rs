//! Names of classes in file names.

use std::collections::HashMap;

use super::Classes;

/// Most bytes of a class in a file name, of which file systems take 255 in all.
const LONGEST: usize = 100;
/// What some file systems do not allow.
const REFUSED: &str = "/\\:*?\"<>|";
/// File names that Windows keeps for devices, with any ending; COM and LPT with a digit too.
const DEVICES: [&str; 4] = ["CON", "PRN", "AUX", "NUL"];

impl Classes {
    /// For each class a text that is safe in a file name on every system, and differs from those of
    /// the others whatever the case of letters.
    ///
    /// It is the name with `_` for control characters, for any of `/ \ : * ? " < > |`, for dots at
    /// the start, and for dots and blanks at the end; with `_` after a name that Windows keeps for a
    /// device; cut to 100 bytes. Where two agree then, `-` and the class's number follow in both.
    pub fn file_names(&self) -> Vec<String> {
        let mut names: Vec<String> = (0..self.count as u32)
            .map(|class| safe(&self.name(class)))
            .collect();
        if !self.has_names() {
            return names;
        }
        // What is added may meet another name, so it is looked at again.
        loop {
            let mut counts: HashMap<String, usize> = HashMap::new();
            for name in &names {
                *counts.entry(name.to_lowercase()).or_default() += 1;
            }
            if counts.len() == names.len() {
                return names;
            }
            for (class, name) in names.iter_mut().enumerate() {
                if counts.get(&name.to_lowercase()).is_some_and(|&n| n > 1) {
                    *name = format!("{name}-{class}");
                }
            }
        }
    }
}

fn safe(name: &str) -> String {
    let mut end = name.len().min(LONGEST);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let name = &name[..end];
    let first = name.len() - name.trim_start_matches('.').len();
    let last = name.trim_end_matches(['.', ' ']).len();
    let mut safe: String = name
        .char_indices()
        .map(|(at, c)| match c {
            c if c.is_control() || REFUSED.contains(c) => '_',
            _ if at < first || at >= last => '_',
            c => c,
        })
        .collect();
    if safe.is_empty() || is_device(&safe) {
        safe.push('_');
    }
    safe
}

/// Whether Windows keeps a name for a device, whatever its ending.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default();
    let stem = stem.trim_end().to_ascii_uppercase();
    let port = |kind| {
        let number = stem.strip_prefix(kind);
        number.is_some_and(|n| n.len() == 1 && n.bytes().all(|b| b.is_ascii_digit()))
    };
    DEVICES.contains(&stem.as_str()) || port("COM") || port("LPT")
}
