//! What the machine has, so that a size that a user gives is refused before memory is taken for it: an
//! allocation that fails ends the process.

/// More memory than there is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: needs about {} of memory, but this machine has {}", bytes(*needed), bytes(u128::from(*available)))]
pub struct MemoryError {
    /// What asks for it, such as an option with its value.
    pub what: String,
    /// Bytes that it takes.
    pub needed: u128,
    /// Bytes that there are.
    pub available: u64,
}

/// Bytes of memory that this process can have: the machine's, or those of its control group where that
/// has fewer. `None` where the system does not say in a file.
pub fn physical_memory() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| total(&text));
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max")
        .ok()
        .and_then(|text| text.trim().parse().ok());
    machine.into_iter().chain(group).min()
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kib.checked_mul(1 << 10)
}

/// Refuses what takes more memory than there is; where that is not known, what no machine has.
///
/// # Errors
/// Naming `what` with both numbers.
pub fn require_memory(what: impl Into<String>, needed: u128) -> Result<(), MemoryError> {
    let available = physical_memory().unwrap_or(1 << 46);
    if needed <= u128::from(available) {
        return Ok(());
    }
    Err(MemoryError {
        what: what.into(),
        needed,
        available,
    })
}

/// Bytes for people.
fn bytes(n: u128) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    match value {
        v if v >= 1e6 => format!("{v:.1e} {}", units[unit]),
        v => format!("{v:.1} {}", units[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_is_refused_with_both_numbers() {
        require_memory("x", 1 << 10).unwrap();
        let error = require_memory("--batch-size 7", 1 << 80).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("--batch-size 7: needs about 1.1e9 PiB"),
            "{text}"
        );
        assert!(text.contains("this machine has"), "{text}");
    }

    #[test]
    fn totals_are_read_and_written() {
        let text = "MemFree: 5 kB\nMemTotal:       16384 kB\n";
        assert_eq!(total(text), Some(16 << 20));
        assert_eq!(total("MemTotal: many"), None);
        assert_eq!(
            [1 << 10, 3 << 29, 1 << 46].map(bytes),
            ["1.0 KiB", "1.5 GiB", "64.0 TiB"]
        );
    }
}
