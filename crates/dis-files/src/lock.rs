//! Advisory locks: of two processes that would write to one place, the second is told who holds it.
//!
//! The lock is the operating system's, on an open file. It ends with the process, however this
//! ends, so a lock is never stale: what `kill -9` leaves behind is a file that nobody holds.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Name of the lock of a directory, in it.
const DIR_LOCK: &str = ".lock";

/// Longest description of a holder that is read.
const LONGEST: u64 = 1024;

/// Why a lock was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another process, or another part of this one, has it.
    #[error("{}: in use by {holder}; wait until it is done, or choose another place", path.display())]
    Held {
        /// The directory or file that is locked.
        path: PathBuf,
        /// Who it is: what it does, its process, machine and since when; "another process" where
        /// that cannot be read.
        holder: String,
    },
    /// The lock's file cannot be made or opened.
    #[error("{}: cannot lock it: {source}", path.display())]
    Io {
        /// The lock's file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// A lock on a file that serves for nothing else. It is held until this is dropped or the process
/// ends. The file stays, empty: removing it would let a third process lock a file that the second
/// has open but that has no name any more.
#[derive(Debug)]
pub struct LockFile {
    file: File,
    effective: bool,
}

impl LockFile {
    /// Takes the lock, or says who has it; never waits. `what` says what it is taken for, such as
    /// `dis train`; process, machine and time are added.
    ///
    /// # Errors
    /// [`LockError::Held`] if it is taken, [`LockError::Io`] if the file cannot be made or opened.
    pub fn acquire(path: &Path, what: &str) -> Result<Self, LockError> {
        Self::acquire_for(path, path, what)
    }

    fn acquire_for(path: &Path, subject: &Path, what: &str) -> Result<Self, LockError> {
        let failed = |source| LockError::Io {
            path: path.to_path_buf(),
            source,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        let effective = match file.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held {
                    path: subject.to_path_buf(),
                    holder: holder(&mut file),
                });
            }
            // Some network file systems have no locks, and work is not refused for that.
            Err(TryLockError::Error(_)) => false,
        };
        if effective {
            // For people only: without it the lock holds just as well.
            let _ = describe(&mut file, what);
        }
        Ok(Self { file, effective })
    }

    /// Whether the file system has locks; where it does not, this lock keeps nobody out.
    pub fn is_effective(&self) -> bool {
        self.effective
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        if self.effective {
            // The lock ends with the file; nobody is to be named who is gone.
            let _ = self.file.set_len(0);
            let _ = self.file.unlock();
        }
    }
}

/// A lock on a directory: a [`LockFile`] named `.lock` in it.
///
/// ```
/// use dis_files::{DirLock, LockError};
///
/// let dir = tempfile::tempdir()?;
/// let lock = DirLock::acquire(dir.path(), "dis train")?;
/// let Err(LockError::Held { holder, .. }) = DirLock::acquire(dir.path(), "dis train") else {
///     panic!("taken twice");
/// };
/// assert!(holder.starts_with(&format!("dis train (process {}", std::process::id())));
/// drop(lock);
/// DirLock::acquire(dir.path(), "dis sample")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct DirLock(LockFile);

impl DirLock {
    /// Takes the lock of a directory, which is made if it is not there. See [`LockFile::acquire`].
    ///
    /// # Errors
    /// [`LockError::Held`] if it is taken, [`LockError::Io`] if the directory or the file in it
    /// cannot be made or opened.
    pub fn acquire(dir: &Path, what: &str) -> Result<Self, LockError> {
        fs::create_dir_all(dir).map_err(|source| LockError::Io {
            path: dir.to_path_buf(),
            source,
        })?;
        LockFile::acquire_for(&Self::path(dir), dir, what).map(Self)
    }

    /// The lock's file in a directory.
    pub fn path(dir: &Path) -> PathBuf {
        dir.join(DIR_LOCK)
    }

    /// As [`LockFile::is_effective`].
    pub fn is_effective(&self) -> bool {
        self.0.is_effective()
    }
}

/// Writes who holds the lock.
fn describe(file: &mut File, what: &str) -> io::Result<()> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let since = utc(since.map_or(0, |d| d.as_secs()));
    let host = host().map(|h| format!(" on {h}")).unwrap_or_default();
    let text = format!(
        "{what} (process {}{host}, since {since})",
        std::process::id()
    );
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(text.as_bytes())?;
    file.flush()
}

/// What the holder wrote. Some systems do not let others read a locked file.
fn holder(file: &mut File) -> String {
    let mut bytes = Vec::new();
    let read = file.take(LONGEST).read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    let text: String = text.trim().chars().filter(|c| !c.is_control()).collect();
    match read {
        Ok(_) if !text.is_empty() => text,
        _ => "another process".into(),
    }
}

/// Name of this machine, where it is known without asking for more than the standard library.
fn host() -> Option<String> {
    let known = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let known = known.or_else(|| std::env::var("HOSTNAME").ok());
    let known = known.or_else(|| std::env::var("COMPUTERNAME").ok());
    known
        .map(|h| h.trim().to_string())
        .filter(|h| !h.is_empty())
}

/// Seconds since 1970 as date and time of day in UTC.
fn utc(seconds: u64) -> String {
    let (mut days, second) = (seconds / 86_400, seconds % 86_400);
    let leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    let mut year = 1970;
    // Times beyond the year 9999 come from a clock that is wrong.
    while days >= 365 + u64::from(leap(year)) && year < 9999 {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!(
        "{year}-{month:02}-{:02} {hour:02}:{minute:02} UTC",
        days + 1
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.lock");
        let first = LockFile::acquire(&path, "dis train --out run").unwrap();
        assert!(first.is_effective());
        let message = LockFile::acquire(&path, "other").unwrap_err().to_string();
        let process = format!("dis train --out run (process {}", std::process::id());
        assert!(
            message.contains(&process) && message.contains("UTC"),
            "{message}"
        );
        drop(first);
        // What a process left that was killed: a file with its name that nobody holds.
        fs::write(&path, "dis train (process 1, since 1970-01-01 00:00 UTC)").unwrap();
        let again = LockFile::acquire(&path, "dis sample").unwrap();
        let message = LockFile::acquire(&path, "other").unwrap_err().to_string();
        assert!(message.contains("dis sample (process"), "{message}");
        drop(again);
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn places_that_cannot_be_locked_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let message = DirLock::acquire(&file.join("x"), "dis")
            .unwrap_err()
            .to_string();
        assert!(message.contains("cannot lock it"), "{message}");
        let made = dir.path().join("a/b");
        let lock = DirLock::acquire(&made, "dis").unwrap();
        assert!(lock.is_effective() && DirLock::path(&made).is_file());
    }

    #[test]
    fn times_are_dates() {
        assert_eq!(utc(0), "1970-01-01 00:00 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(utc(1_735_689_599), "2024-12-31 23:59 UTC");
        assert_eq!(utc(4_102_444_800), "2100-01-01 00:00 UTC");
    }
}
