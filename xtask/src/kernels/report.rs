//! What the assembler says each entry uses, and the table of it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Text;

/// An entry on a target.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Row {
    /// Text it is in, without `.ptx`.
    pub text: String,
    pub entry: String,
    pub sm: u32,
    pub registers: u32,
    /// Bytes of shared memory of fixed size.
    pub shared: u32,
    pub barriers: u32,
    pub stack: u32,
    pub spill_stores: u32,
    pub spill_loads: u32,
    /// Warnings and what else was said, none where all is well.
    pub remarks: Vec<String>,
}

/// The number before a phrase, as in `0 bytes spill stores`.
fn before(line: &str, phrase: &str) -> Option<u32> {
    let at = line.find(phrase)?;
    line[..at].split_whitespace().next_back()?.parse().ok()
}

/// Reads what `ptxas --verbose` says.
pub fn parse_usage(said: &str, text: &str, sm: u32) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut remarks = Vec::new();
    for line in said.lines() {
        if let Some(rest) = line.split("Compiling entry function '").nth(1) {
            let entry = rest.split('\'').next().unwrap_or_default().to_string();
            rows.push(Row {
                text: text.into(),
                entry,
                sm,
                ..Row::default()
            });
        } else if line.contains("warning") || line.contains("error") {
            remarks.push(line.trim().to_string());
        } else if let Some(row) = rows.last_mut() {
            if let Some(bytes) = before(line, " bytes stack frame") {
                row.stack = bytes;
                row.spill_stores = before(line, " bytes spill stores").unwrap_or(0);
                row.spill_loads = before(line, " bytes spill loads").unwrap_or(0);
            }
            if let Some(registers) = before(line, " registers") {
                row.registers = registers;
                row.barriers = before(line, " barriers").unwrap_or(0);
                row.shared = before(line, " bytes smem").unwrap_or(0);
            }
        }
    }
    if let Some(row) = rows.last_mut() {
        row.remarks = remarks;
    }
    rows
}

/// What a multiprocessor holds.
struct Limits {
    threads: u32,
    blocks: u32,
    shared: u32,
}

/// CUDA C++ Programming Guide 12.9, table "Technical Specifications per Compute Capability"; each
/// block takes 1 KiB of shared memory more than it asks for.
fn limits(sm: u32) -> Limits {
    match sm {
        80 => Limits {
            threads: 2048,
            blocks: 32,
            shared: 164 * 1024,
        },
        90 | 100 => Limits {
            threads: 2048,
            blocks: 32,
            shared: 228 * 1024,
        },
        86 => Limits {
            threads: 1536,
            blocks: 16,
            shared: 100 * 1024,
        },
        _ => Limits {
            threads: 1536,
            blocks: 24,
            shared: 100 * 1024,
        },
    }
}

/// Warps of an entry that a multiprocessor holds at once, by registers and fixed shared memory.
pub fn resident_warps(row: &Row, threads: u32) -> u32 {
    let limits = limits(row.sm);
    let warps = threads.div_ceil(32);
    // Registers are given out to a warp by the 256.
    let registers = (row.registers * 32).next_multiple_of(256).max(256) * warps;
    let blocks = (65_536 / registers)
        .min(limits.threads / (32 * warps))
        .min(limits.blocks)
        .min(limits.shared / (row.shared + 1024));
    blocks * warps
}

/// Text, entry, most threads of a block, rows by target.
type Entry = (String, String, Option<u32>, BTreeMap<u32, Row>);

/// Rows by entry, in the order of texts.
pub struct Table {
    pub entries: Vec<Entry>,
    targets: Vec<u32>,
}

impl Table {
    pub fn new(texts: &[Text], rows: Vec<Row>, targets: &[u32]) -> Self {
        let mut entries = Vec::new();
        for text in texts {
            for entry in text.module.entries() {
                let threads = entry.maxntid.or(entry.reqntid).map(|t| t.iter().product());
                let mine = rows
                    .iter()
                    .filter(|r| r.text == text.name && r.entry == entry.name)
                    .map(|r| (r.sm, r.clone()))
                    .collect();
                entries.push((text.name.clone(), entry.name.clone(), threads, mine));
            }
        }
        Self {
            entries,
            targets: targets.to_vec(),
        }
    }

    pub fn print(&self) {
        let wide = self.entries.iter().map(|e| e.1.len()).max().unwrap_or(5);
        let heads: String = self
            .targets
            .iter()
            .map(|sm| format!(" {:>8}", format!("sm_{sm}")))
            .collect();
        println!("registers a thread / resident warps of a multiprocessor");
        println!(
            "{:wide$} {:>7} {:>6} {:>6}{heads}",
            "entry", "threads", "smem", "spills"
        );
        let mut text = "";
        for (name, entry, threads, rows) in &self.entries {
            if text != name {
                println!("-- {name}.ptx");
                text = name;
            }
            let shared = rows.values().map(|r| r.shared).max().unwrap_or(0);
            let spills: u32 = rows
                .values()
                .map(|r| r.spill_stores + r.spill_loads + r.stack)
                .sum();
            let cells: String = self
                .targets
                .iter()
                .map(|sm| match (rows.get(sm), threads) {
                    (Some(row), Some(threads)) => {
                        format!(
                            " {:>8}",
                            format!("{}/{}", row.registers, resident_warps(row, *threads))
                        )
                    }
                    (Some(row), None) => format!(" {:>8}", row.registers),
                    (None, _) => format!(" {:>8}", "-"),
                })
                .collect();
            let threads = threads.map_or("-".into(), |t| t.to_string());
            println!("{entry:wide$} {threads:>7} {shared:>6} {spills:>6}{cells}");
        }
    }

    /// Prints spills, warnings and entries that the assembler did not report; whether there are none.
    pub fn errors(&self) -> bool {
        let mut ok = true;
        for (text, entry, _, rows) in &self.entries {
            for sm in &self.targets {
                let Some(row) = rows.get(sm) else {
                    println!("error: {text}.ptx: the assembler said nothing of {entry} on sm_{sm}");
                    ok = false;
                    continue;
                };
                if row.stack + row.spill_stores + row.spill_loads > 0 {
                    let Row {
                        stack,
                        spill_stores,
                        spill_loads,
                        ..
                    } = row;
                    println!(
                        "error: {text}.ptx: {entry} on sm_{sm} spills: {stack} bytes of stack, \
                         {spill_stores} stored, {spill_loads} loaded"
                    );
                    ok = false;
                }
                for remark in &row.remarks {
                    println!("error: {text}.ptx on sm_{sm}: {remark}");
                    ok = false;
                }
            }
        }
        ok
    }

    pub fn json(&self, ptxas: &str) -> Value {
        let entries: Vec<Value> = self
            .entries
            .iter()
            .map(|(text, entry, threads, rows)| {
                let rows: serde_json::Map<String, Value> = rows
                    .iter()
                    .map(|(sm, r)| {
                        let warps = threads.map(|t| resident_warps(r, t));
                        let value = json!({
                            "registers": r.registers, "shared": r.shared, "barriers": r.barriers,
                            "stack": r.stack, "spill_stores": r.spill_stores,
                            "spill_loads": r.spill_loads, "resident_warps": warps,
                        });
                        (format!("sm_{sm}"), value)
                    })
                    .collect();
                json!({ "text": text, "entry": entry, "threads": threads, "targets": rows })
            })
            .collect();
        json!({ "ptxas": ptxas, "entries": entries })
    }
}

#[cfg(test)]
mod tests {
    use super::{Row, parse_usage, resident_warps};

    const SAID: &str = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'first' for 'sm_80'
ptxas info    : Function properties for first
    8 bytes stack frame, 16 bytes spill stores, 24 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 2048 bytes smem, 464 bytes cmem[0]
ptxas info    : Compile time = 15.370 ms
ptxas info    : Compiling entry function 'second' for 'sm_80'
ptxas info    : Function properties for second
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 255 registers, used 0 barriers
ptxas warning : Registers are spilled to local memory
";

    #[test]
    fn what_the_assembler_says_is_read() {
        let rows = parse_usage(SAID, "text", 80);
        let first = Row {
            text: "text".into(),
            entry: "first".into(),
            sm: 80,
            registers: 40,
            shared: 2048,
            barriers: 1,
            stack: 8,
            spill_stores: 16,
            spill_loads: 24,
            remarks: Vec::new(),
        };
        assert_eq!(rows[0], first);
        assert_eq!(
            (rows[1].registers, rows[1].shared, rows[1].stack),
            (255, 0, 0)
        );
        assert_eq!(rows[1].remarks.len(), 1);
        assert_eq!(rows.len(), 2);
    }

    #[test]
    fn resident_warps_are_bounded_by_each_resource() {
        let row = |sm, registers, shared| Row {
            sm,
            registers,
            shared,
            ..Row::default()
        };
        assert_eq!(resident_warps(&row(80, 32, 0), 256), 64);
        assert_eq!(resident_warps(&row(80, 64, 0), 256), 32);
        assert_eq!(resident_warps(&row(80, 65, 0), 256), 24);
        assert_eq!(resident_warps(&row(86, 32, 0), 256), 48);
        assert_eq!(resident_warps(&row(80, 32, 48 * 1024), 128), 12);
        assert_eq!(resident_warps(&row(80, 32, 0), 32), 32);
    }
}
