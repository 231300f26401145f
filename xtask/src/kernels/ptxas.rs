//! The assembler: where it is, what it says.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};

use super::report::{Row, parse_usage};

/// An assembler that runs.
pub struct Ptxas {
    pub path: PathBuf,
    /// As `12.9.86`.
    pub version: String,
}

impl Ptxas {
    /// Looks in DIS_PTXAS, the target folder, CUDA_HOME, CUDA_PATH, PATH, /usr/local/cuda. One that
    /// DIS_PTXAS names must be there; others that do not run are passed over.
    pub fn find(target: &Path) -> Result<Option<Self>> {
        if let Some(named) = std::env::var_os("DIS_PTXAS") {
            let found = Self::open(Path::new(&named));
            return found
                .map(Some)
                .with_context(|| format!("DIS_PTXAS is {}", named.display()));
        }
        let mut places = vec![target.join("ptxas/ptxas"), target.join("ptxas")];
        for variable in ["CUDA_HOME", "CUDA_PATH"] {
            places.extend(std::env::var_os(variable).map(|v| Path::new(&v).join("bin/ptxas")));
        }
        if let Some(path) = std::env::var_os("PATH") {
            places.extend(std::env::split_paths(&path).map(|dir| dir.join("ptxas")));
        }
        places.push("/usr/local/cuda/bin/ptxas".into());
        for place in places.iter().filter(|p| p.is_file()) {
            match Self::open(place) {
                Ok(found) => return Ok(Some(found)),
                Err(error) => println!("passed over: {error:#}"),
            }
        }
        Ok(None)
    }

    fn open(path: &Path) -> Result<Self> {
        let output = Command::new(path).arg("--version").output();
        let output = output.with_context(|| format!("cannot run {}", path.display()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text
            .split_whitespace()
            .find_map(|word| {
                word.strip_prefix('V')
                    .filter(|v| v.starts_with(char::is_numeric))
            })
            .with_context(|| format!("{} does not tell its version", path.display()))?;
        Ok(Self {
            path: path.into(),
            version: version.into(),
        })
    }

    /// Those of the targets that this assembler knows.
    pub fn supported(&self, targets: &[u32]) -> Result<Vec<u32>> {
        let output = Command::new(&self.path).arg("--help").output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let known = |sm: &&u32| text.contains(&format!("'sm_{sm}'"));
        Ok(targets.iter().filter(known).copied().collect())
    }

    fn run(&self, text: &Path, sm: u32, cubin: &Path) -> Result<Output> {
        Command::new(&self.path)
            .arg(format!("-arch=sm_{sm}"))
            .args(["--verbose", "--warning-as-error", "--warn-on-spills"])
            .args(["--warn-on-local-memory-usage", "--output-file"])
            .arg(cubin)
            .arg(text)
            .output()
            .with_context(|| format!("cannot run {}", self.path.display()))
    }

    /// Assembles a text; one row for each entry.
    pub fn assemble(&self, path: &Path, name: &str, sm: u32, cubin: &Path) -> Result<Vec<Row>> {
        let output = self.run(path, sm, cubin)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            bail!("{name}.ptx for sm_{sm}:\n{}", said.trim());
        }
        Ok(parse_usage(&said, name, sm))
    }

    /// Whether a text assembles, warnings or not.
    pub fn accepts(&self, path: &Path, sm: u32, cubin: &Path) -> Result<bool> {
        let output = Command::new(&self.path)
            .arg(format!("-arch=sm_{sm}"))
            .arg("--output-file")
            .arg(cubin)
            .arg(path)
            .output()?;
        Ok(output.status.success())
    }
}
