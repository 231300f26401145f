//! The committed budget: registers and shared memory of each entry on each target.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, bail};

use super::report::Table;

/// Registers of a thread, and bytes of shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Use {
    registers: u32,
    shared: u32,
}

/// What each entry uses on each target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// Version of the assembler it was made with.
    pub ptxas: String,
    entries: BTreeMap<String, BTreeMap<u32, Use>>,
}

/// Where the committed budget and the kernels part.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference {
    /// Whether the kernels use more than the budget has, or the budget lacks them.
    pub exceeds: bool,
    text: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

const HEAD: &str = "\
# Registers of a thread and bytes of fixed shared memory of each kernel, as the assembler gives
# them. `cargo xtask kernels --write-budget` writes this file; `--check` fails where it differs.
";

impl Budget {
    /// What the kernels use now.
    pub fn of(ptxas: &str, table: &Table) -> Self {
        let mut entries = BTreeMap::new();
        for (_, entry, _, rows) in &table.entries {
            let uses = rows
                .iter()
                .map(|(&sm, r)| {
                    (
                        sm,
                        Use {
                            registers: r.registers,
                            shared: r.shared,
                        },
                    )
                })
                .collect();
            entries.insert(entry.clone(), uses);
        }
        Self {
            ptxas: ptxas.into(),
            entries,
        }
    }

    /// The file's contents: TOML, sorted, one line a target.
    pub fn to_text(&self) -> String {
        let mut text = format!("{HEAD}\nptxas = \"{}\"\n", self.ptxas);
        for (entry, uses) in &self.entries {
            text += &format!("\n[{entry}]\n");
            for (sm, Use { registers, shared }) in uses {
                text += &format!("sm_{sm} = {{ registers = {registers}, shared = {shared} }}\n");
            }
        }
        text
    }

    pub fn parse(text: &str) -> Result<Self> {
        let table: toml::Table = text.parse()?;
        let mut ptxas = None;
        let mut entries = BTreeMap::new();
        for (key, value) in table {
            if key == "ptxas" {
                ptxas = value.as_str().map(String::from);
                continue;
            }
            let uses = value
                .as_table()
                .with_context(|| format!("`{key}` is no table"))?;
            let mut mine = BTreeMap::new();
            for (target, value) in uses {
                let number = |name: &str| {
                    let value = value.get(name).and_then(toml::Value::as_integer);
                    let value = value.and_then(|v| u32::try_from(v).ok());
                    value.with_context(|| format!("{key}.{target} has no `{name}`"))
                };
                let Some(Ok(sm)) = target.strip_prefix("sm_").map(str::parse) else {
                    bail!("`{target}` is no target");
                };
                let used = Use {
                    registers: number("registers")?,
                    shared: number("shared")?,
                };
                mine.insert(sm, used);
            }
            entries.insert(key, mine);
        }
        Ok(Self {
            ptxas: ptxas.context("`ptxas` is missing")?,
            entries,
        })
    }

    /// Where the kernels differ from this budget, on the targets given.
    pub fn compare(&self, now: &Self, targets: &[u32]) -> Vec<Difference> {
        let mut out = Vec::new();
        let mut tell = |exceeds, text| out.push(Difference { exceeds, text });
        for (entry, uses) in &now.entries {
            let Some(budget) = self.entries.get(entry) else {
                tell(true, format!("{entry} has none"));
                continue;
            };
            for sm in targets {
                match (budget.get(sm), uses.get(sm)) {
                    (Some(b), Some(u)) if b != u => {
                        let exceeds = u.registers > b.registers || u.shared > b.shared;
                        let (verb, Use { registers, shared }) = ("uses", u);
                        tell(
                            exceeds,
                            format!(
                                "{entry} on sm_{sm} {verb} {registers} registers and {shared} bytes, \
                             the budget has {} and {}",
                                b.registers, b.shared
                            ),
                        );
                    }
                    (None, Some(_)) => tell(true, format!("{entry} has none for sm_{sm}")),
                    _ => {}
                }
            }
        }
        for entry in self
            .entries
            .keys()
            .filter(|e| !now.entries.contains_key(*e))
        {
            tell(false, format!("{entry} is gone"));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::Budget;

    const TEXT: &str = "ptxas = \"12.9.86\"\n\n[a]\nsm_80 = { registers = 40, shared = 0 }\nsm_90 = \
        { registers = 42, shared = 16 }\n\n[b]\nsm_80 = { registers = 10, shared = 0 }\n";

    #[test]
    fn a_budget_is_read_as_it_was_written() {
        let budget = Budget::parse(TEXT).unwrap();
        assert_eq!(Budget::parse(&budget.to_text()).unwrap(), budget);
        assert!(budget.to_text().ends_with(&TEXT[17..]));
    }

    #[test]
    fn drift_is_told_and_excess_is_worse() {
        let budget = Budget::parse(TEXT).unwrap();
        assert_eq!(budget.compare(&budget, &[80, 90]), []);
        let now = Budget::parse(&TEXT.replace("registers = 40", "registers = 39")).unwrap();
        let drift = budget.compare(&now, &[80, 90]);
        assert_eq!((drift.len(), drift[0].exceeds), (1, false));
        let drift = now.compare(&budget, &[80, 90]);
        assert_eq!((drift.len(), drift[0].exceeds), (1, true));
        assert_eq!(now.compare(&budget, &[90]), []);
        let renamed = Budget::parse(&TEXT.replace("[b]", "[c]")).unwrap();
        let drift = budget.compare(&renamed, &[80]);
        assert_eq!(
            drift.iter().map(|d| d.exceeds).collect::<Vec<_>>(),
            [true, false]
        );
    }

    #[test]
    fn a_broken_budget_is_an_error() {
        for (from, to) in [
            ("ptxas", "other"),
            ("sm_80", "gfx9"),
            ("registers = 40, ", ""),
        ] {
            assert!(
                Budget::parse(&TEXT.replacen(from, to, 1)).is_err(),
                "{from}"
            );
        }
    }
}
