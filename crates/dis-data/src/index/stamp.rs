//! What the file system says of a file without reading it.

use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A file that was changed less than this before it was read might be changed once more within one
/// tick of a coarse clock, with the same times.
const TICK_NS: i64 = 50_000_000;
/// The same on file systems that keep whole seconds (FAT: every other one).
const COARSE_TICK_NS: i64 = 2_000_000_000;

/// Size and times of a file; times in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    /// Bytes.
    pub size: u64,
    /// When the content was last written, or what a copying program set it to.
    pub modified_ns: i64,
    /// When the file or its name was last changed, which no program can set; 0 where it is not known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub changed_ns: i64,
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

impl Stamp {
    /// Of a file as it is.
    ///
    /// # Errors
    /// If the file system has none.
    pub fn of(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        Ok(Self {
            size: metadata.len(),
            modified_ns: nanoseconds(metadata.modified()?),
            changed_ns: changed_ns(&metadata),
        })
    }

    /// Whether a file that was read at `read_ns` with this stamp has another one if it was changed
    /// since.
    pub fn tells_changes_since(&self, read_ns: i64) -> bool {
        let last = match self.changed_ns {
            0 => self.modified_ns,
            changed => changed,
        };
        let tick = if last % 1_000_000_000 == 0 {
            COARSE_TICK_NS
        } else {
            TICK_NS
        };
        last.saturating_add(tick) <= read_ns
    }
}

#[cfg(unix)]
fn changed_ns(metadata: &std::fs::Metadata) -> i64 {
    use std::os::unix::fs::MetadataExt;
    let seconds = metadata.ctime().saturating_mul(1_000_000_000);
    seconds.saturating_add(metadata.ctime_nsec())
}

#[cfg(not(unix))]
fn changed_ns(_: &std::fs::Metadata) -> i64 {
    0
}

/// Now, in nanoseconds since 1970.
pub(super) fn now_ns() -> i64 {
    nanoseconds(SystemTime::now())
}

fn nanoseconds(time: SystemTime) -> i64 {
    let clamp = |ns: u128| i64::try_from(ns).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => clamp(after.as_nanos()),
        Err(before) => -clamp(before.duration().as_nanos()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_were_at_rest_are_trusted() {
        let second = 1_000_000_000;
        let stamp = |modified_ns, changed_ns| Stamp {
            size: 1,
            modified_ns,
            changed_ns,
        };
        // A fine clock needs a moment, a coarse one two seconds.
        let fine = stamp(5, 7 * second + 1);
        assert!(!fine.tells_changes_since(7 * second + 2));
        assert!(fine.tells_changes_since(7 * second + 1 + TICK_NS));
        let coarse = stamp(7 * second, 0);
        assert!(!coarse.tells_changes_since(7 * second + TICK_NS));
        assert!(coarse.tells_changes_since(9 * second));
        // A time that lies ahead is never trusted.
        assert!(!stamp(i64::MAX, 0).tells_changes_since(now_ns()));
    }

    #[test]
    fn a_file_of_equal_size_in_place_of_another_has_another_stamp() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&a, "one").unwrap();
        let old = Stamp::of(&a).unwrap();
        assert_eq!(Stamp::of(&a).unwrap(), old);
        std::thread::sleep(std::time::Duration::from_millis(60));
        std::fs::write(&b, "two").unwrap();
        std::fs::rename(&b, &a).unwrap();
        assert_ne!(Stamp::of(&a).unwrap(), old);
    }
}
