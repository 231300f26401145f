//! REPORT.md: tables, plots and pictures of a study.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use dis_files::{FileError, write_atomic};

use super::config::{Evaluate, StudyConfig};
use super::cost::{CostPoint, cost_by_tokens, exponent};
use super::execute::Failure;
use super::expand::{Grid, GridAxis};
use super::plots::{self, Against};
use super::results::{Figure, Results};
use super::statistics::{Summary, verdict};
use crate::error::{Result, StudyError};

/// A report that was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// Its file.
    pub path: PathBuf,
    /// Runs that it leaves out since their files cannot be read.
    pub damaged: Vec<Failure>,
}

/// Writes the report of what is finished to `out`.
///
/// # Errors
/// If a run was judged with other settings, or the report cannot be written.
pub fn write_report(study: &StudyConfig, grid: &Grid, out: &Path) -> Result<Written> {
    let results = Results::read(grid, &study.evaluate, out)?;
    // Of what all have in common the first that can be run is an example.
    let first = grid.variants.iter().position(|v| v.model.is_ok());
    for folder in ["plots", "samples"] {
        let folder = out.join(folder);
        fs::create_dir_all(&folder).map_err(FileError::io(&folder, "create it"))?;
    }
    let mut report = Report {
        study,
        results,
        out,
        first: first.unwrap_or(0),
        text: String::new(),
    };
    report.write()?;
    let path = out.join("REPORT.md");
    write_atomic(&path, report.text.as_bytes())?;
    Ok(Written {
        path,
        damaged: report.results.damaged,
    })
}

struct Report<'a> {
    study: &'a StudyConfig,
    results: Results<'a>,
    out: &'a Path,
    /// The variant that is shown in full.
    first: usize,
    text: String,
}

/// What images are compared by.
fn compared_by(evaluate: &Evaluate) -> String {
    match &evaluate.features {
        Some(features) if features != "pixels" => format!("the features of `{features}`"),
        _ => "the pixels in [0, 1]".into(),
    }
}

/// `1234567` as `1.23 M`.
fn short(n: u64) -> String {
    let x = n as f64;
    match n {
        0..1_000 => n.to_string(),
        1_000..1_000_000 => format!("{:.1} k", x / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} M", x / 1e6),
        _ => format!("{:.2} G", x / 1e9),
    }
}

/// One number for all, or from the smallest to the largest.
fn range(values: impl Iterator<Item = u64> + Clone) -> String {
    match (values.clone().min(), values.max()) {
        (Some(low), Some(high)) if low == high => short(low),
        (Some(low), Some(high)) => format!("{} to {}", short(low), short(high)),
        _ => String::new(),
    }
}

fn cell(summary: Option<Summary>, digits: usize, factor: f64) -> String {
    summary.map_or("-".into(), |s| {
        let scaled = Summary {
            mean: factor * s.mean,
            half: s.half.map(|h| factor * h),
            ..s
        };
        scaled.text(digits)
    })
}

impl Report<'_> {
    fn write(&mut self) -> Result<()> {
        self.setup();
        self.without_result();
        self.claims();
        let axes = &self.results.grid.axes;
        for i in 0..axes.len() {
            self.axis(i)?;
        }
        self.cost()?;
        self.settings()
    }

    fn line(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn file(&self, name: &str, content: &str) -> Result<()> {
        write_atomic(&self.out.join(name), content.as_bytes())?;
        Ok(())
    }

    fn setup(&mut self) {
        let e = &self.study.evaluate;
        let (done, all) = self.results.counts();
        let base = &self.results.grid.variants[self.first].config;
        let compared = compared_by(e);
        let text = format!(
            "# {}\n\n## What was run\n\n\
             {done} of {all} runs: {} configurations with {} seeds each, on `{}`.\n\
             Every {} steps {} images ({} in {} steps, {} spacing, guidance {}) from the moving average of the \
             weights are compared with\nat most {} of `{}`.\n\n\
             - Frechet: distance of {compared}; smaller is better.\n\
             - Class: share of images whose {} nearest real images, by {compared}, have the class asked for.\n\
             - Coverage: share of real images with a sample nearer than their {}th real neighbour, by the same.\n\
             - Loss: mean over the last tenth of the training.\n\
             - Multiply-adds: of a forward pass of one image.\n\n\
             Figures are means over the seeds with 95 % intervals by Student's t. Bands in plots reach from the \
             smallest to the largest seed.\n",
            self.study.title,
            self.results.grid.variants.len(),
            self.study.seeds.len(),
            base.data.spec,
            e.every,
            e.samples,
            e.sampler,
            e.steps,
            e.spacing,
            e.cfg_scale,
            e.reference_limit,
            e.reference.as_ref().unwrap_or(&base.data.spec),
            e.neighbours,
            e.neighbours,
        );
        self.line(&text);
    }

    /// Runs that diverged or failed, and with what.
    fn without_result(&mut self) {
        let grid = self.results.grid;
        let mut lines = Vec::new();
        for (variant, endings) in grid.variants.iter().zip(&self.results.endings) {
            for (seed, ending) in grid.seeds.iter().zip(endings) {
                if let Some(ending) = ending {
                    let how = if ending.diverged {
                        "diverged"
                    } else {
                        "failed"
                    };
                    let what = ending.what.replace('|', "\\|");
                    lines.push(format!("| {} | {seed} | {how} | {what} |", variant.name));
                }
            }
        }
        if lines.is_empty() {
            return;
        }
        self.line("## Runs without a result\n");
        self.line("They are in no figure below.\n");
        self.line("| variant | seed | | with |\n|---|---:|---|---|");
        for line in lines {
            self.line(&line);
        }
        self.line("");
    }

    /// Each claim beside what was measured.
    fn claims(&mut self) {
        let claims: Vec<GridAxis> = self
            .results
            .grid
            .axes
            .iter()
            .filter(|axis| axis.best_first.len() > 1)
            .cloned()
            .collect();
        self.line("## Claims\n");
        if claims.is_empty() {
            self.line("None is made.\n");
            return;
        }
        self.line(
            "A difference is the second case's Frechet distance less the first's, seed by seed; the claim \
             says that it is positive. The verdict is undecided where the interval holds zero.\n",
        );
        self.line("| axis | claim | better, worse | difference | verdict |");
        self.line("|---|---|---|---:|---|");
        for axis in claims {
            let find = |name: &String| axis.cases.iter().find(|(case, _)| case == name);
            let mut pairs: Vec<(&String, &String)> =
                axis.best_first.iter().zip(&axis.best_first[1..]).collect();
            if let ([first, .., last], true) = (&axis.best_first[..], pairs.len() > 1) {
                pairs.push((first, last));
            }
            for (better, worse) in pairs {
                let (Some((_, a)), Some((_, b))) = (find(better), find(worse)) else {
                    continue;
                };
                let difference = self.results.differences(a, b);
                let verdict = difference.map_or("not run".to_string(), |d| verdict(&d).to_string());
                let line = format!(
                    "| {} | {} | {better}, {worse} | {} | {verdict} |",
                    axis.name,
                    axis.claim.as_deref().unwrap_or(""),
                    cell(difference, 3, 1.0),
                );
                self.line(&line);
            }
        }
        self.line("");
    }

    fn axis(&mut self, index: usize) -> Result<()> {
        let axis = self.results.grid.axes[index].clone();
        let name = &axis.name;
        self.line(&format!("## Axis: {name}\n"));
        self.line(
            "| case | runs | parameters | tokens | multiply-adds | Frechet | class % | coverage % | loss |",
        );
        self.line("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
        for (case, variants) in &axis.cases {
            let costs = variants
                .iter()
                .filter_map(|&v| self.results.costs[v].as_ref());
            let runs = match self.results.diverged(variants) {
                0 => self.results.of(variants).count().to_string(),
                n => format!("{}, {n} diverged", self.results.of(variants).count()),
            };
            let figure = |figure, digits, factor| {
                cell(self.results.summary(variants, figure), digits, factor)
            };
            let line = format!(
                "| {case} | {runs} | {} | {} | {} | {} | {} | {} | {} |",
                range(costs.clone().map(|c| c.parameters)),
                range(costs.clone().map(|c| c.tokens)),
                range(costs.map(|c| c.macs.total())),
                figure(Figure::Frechet, 3, 1.0),
                figure(Figure::Agreement, 1, 100.0),
                figure(Figure::Coverage, 1, 100.0),
                figure(Figure::Loss, 4, 1.0),
            );
            self.line(&line);
        }
        self.line("");
        let plots = [
            (
                "steps",
                plots::distance(&self.results, &axis, Against::Steps),
            ),
            (
                "cost",
                plots::distance(&self.results, &axis, Against::MultiplyAdds),
            ),
            ("loss", plots::losses(&self.results, &axis)),
        ];
        for (kind, svg) in plots {
            let path = format!("plots/axis-{}-{kind}.svg", index + 1);
            self.file(&path, &svg)?;
            self.line(&format!("![{name}: {kind}]({path})"));
        }
        self.line(&format!("\n### Samples: {name}\n"));
        for (case, variants) in &axis.cases {
            let Some((variant, run)) = self.results.of(variants).next() else {
                continue;
            };
            let path = format!("samples/{}.png", self.results.grid.variants[variant].name);
            match fs::read(&run.picture).map_err(FileError::io(&run.picture, "read it")) {
                Ok(bytes) => {
                    write_atomic(&self.out.join(&path), &bytes)?;
                    self.line(&format!("{case}:\n\n![samples: {case}]({path})\n"));
                }
                Err(error) => self.line(&format!("{case}: no picture: {error}\n")),
            }
        }
        Ok(())
    }

    fn cost(&mut self) -> Result<()> {
        let points = match &self.results.grid.variants[self.first].model {
            Ok(model) => cost_by_tokens(model)?,
            Err(_) => Vec::new(),
        };
        self.line("## Cost against tokens\n");
        self.line(
            "Multiply-adds of a forward pass of the base model at larger and larger images, exact, with either \
             mixer; and the paper's forms for one layer.\n",
        );
        self.line(
            "| tokens | mamba | attention | 3J(2D)N + J(2D)N^2 | 4JD^2 + 2J^2D |\n|---:|---:|---:|---:|---:|",
        );
        for p in &points {
            let line = format!(
                "| {} | {} | {} | {} | {} |",
                p.tokens,
                short(p.mamba),
                short(p.attention),
                short(p.mamba_form),
                short(p.attention_form)
            );
            self.line(&line);
        }
        if let [.., a, b] = points[..] {
            let of = |f: fn(&CostPoint) -> u64| exponent((a.tokens, f(&a)), (b.tokens, f(&b)));
            let line = format!(
                "\nBetween the last two sizes cost grows as tokens to the power {:.2} with mamba, {:.2} with \
                 attention.\n",
                of(|p| p.mamba),
                of(|p| p.attention)
            );
            self.line(&line);
        }
        self.file("plots/cost.svg", &plots::cost(&points))?;
        self.line("![cost against tokens](plots/cost.svg)\n");
        Ok(())
    }

    /// The base in full, then what each variant changes.
    fn settings(&mut self) -> Result<()> {
        let variants = &self.results.grid.variants;
        let base = variants[self.first].config.to_toml()?;
        let mut text = format!(
            "## Settings\n\nThe configuration of `{}`, defaults included; a run's own is in its `config.toml`.\n\n\
             ```toml\n{base}```\n",
            variants[self.first].name
        );
        if variants.len() > 1 {
            text.push_str("\nThe others differ in:\n\n");
        }
        for (_, variant) in (variants.iter().enumerate()).filter(|(i, _)| *i != self.first) {
            let own = variant.config.to_toml()?;
            let lines: Vec<&str> = own
                .lines()
                .filter(|line| !base.lines().any(|b| b == *line))
                .collect();
            writeln!(text, "- `{}`: `{}`", variant.name, lines.join("`, `"))
                .map_err(|e| StudyError::config(e.to_string()))?;
        }
        self.line(&text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [999, 1_500, 2_345_678, 3_000_000_000].map(short),
            ["999", "1.5 k", "2.35 M", "3.00 G"]
        );
        assert_eq!(range([5, 5].into_iter()), "5");
        assert_eq!(range([5, 7].into_iter()), "5 to 7");
    }
}
