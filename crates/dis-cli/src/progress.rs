//! Progress on the terminal; silent where stderr is none.

use std::time::Duration;

use dis_study::StudyObserver;
use dis_train::StepReport;
use dis_train::run::{Observer, Started};
use indicatif::{ProgressBar, ProgressStyle};

/// A bar with this template; a template that does not parse gives a plain bar.
fn bar(len: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ");
    let bar = ProgressBar::new(len).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// For sampling: counts image steps.
pub fn sampling() -> ProgressBar {
    bar(
        1,
        "sampling [{bar:30}] {percent}%  {per_sec} image steps  {eta} left",
    )
}

/// For encoding images.
pub fn encoding(images: u64) -> ProgressBar {
    bar(
        images,
        "encoding [{bar:30}] {pos}/{len}  {per_sec}  {eta} left",
    )
}

/// For decoding latents.
pub fn decoding(images: u64) -> ProgressBar {
    bar(
        images,
        "decoding [{bar:30}] {pos}/{len}  {per_sec}  {eta} left",
    )
}

/// For training a classifier.
pub fn classifier(steps: u64) -> ProgressBar {
    bar(
        steps,
        "[{bar:30}] {pos}/{len}  {per_sec}  {msg}  {eta} left",
    )
}

/// For running images through a feature network.
pub fn features(images: u64) -> ProgressBar {
    bar(
        images,
        "features [{bar:30}] {pos}/{len}  {per_sec}  {eta} left",
    )
}

/// For metrics, which do not know how long they take.
pub fn measuring() -> ProgressBar {
    bar(1, "measuring {msg} {spinner}")
}

/// For likelihoods: counts image steps.
pub fn likelihood(image_steps: u64) -> ProgressBar {
    bar(
        image_steps,
        "bits per dimension [{bar:30}] {percent}%  {per_sec} image steps  {eta} left",
    )
}

/// For training.
#[derive(Debug, Default)]
pub struct Training {
    bar: Option<ProgressBar>,
}

impl Training {
    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) if !bar.is_hidden() => bar.println(text),
            _ => eprintln!("{text}"),
        }
    }

    /// Takes the bar away.
    pub fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Observer for Training {
    fn started(&mut self, start: &Started) {
        let mib = |bytes: u64| bytes as f64 / (1 << 20) as f64;
        let memory = &start.memory;
        eprintln!("data: {}", start.data);
        eprintln!(
            "model: {} parameters; training needs about {:.0} MiB ({:.0} weights and optimizer, \
             {:.0} activations, or {:.0} with --recompute)",
            start.parameters,
            mib(memory.weights + memory.optimizer + memory.training),
            mib(memory.weights + memory.optimizer),
            mib(memory.training),
            mib(memory.training_recompute),
        );
        if start.step > 0 {
            eprintln!("continuing after step {} of {}", start.step, start.steps);
        }
        let bar = bar(
            start.steps,
            "[{bar:30}] {pos}/{len}  {per_sec}  {msg}  {eta} left",
        );
        bar.set_position(start.step);
        bar.reset_eta();
        self.bar = Some(bar);
    }

    fn step(&mut self, report: &StepReport, mean_loss: f64) {
        if let Some(bar) = &self.bar {
            bar.set_position(report.step);
            bar.set_message(format!("loss {mean_loss:.4}"));
        }
    }

    fn message(&mut self, text: &str) {
        if self.bar.as_ref().is_some_and(|bar| !bar.is_hidden()) {
            self.say(text);
        }
    }

    fn warning(&mut self, text: &str) {
        self.say(&format!("warning: {text}"));
    }
}

/// For studies: one bar over all steps of all runs.
#[derive(Debug, Default)]
pub struct Study {
    bar: Option<ProgressBar>,
    name: String,
}

impl Study {
    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) if !bar.is_hidden() => bar.println(text),
            _ => eprintln!("{text}"),
        }
    }

    /// Takes the bar away.
    pub fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl StudyObserver for Study {
    fn run(&mut self, name: &str, number: usize, runs: usize) {
        self.name = format!("{number}/{runs} {name}");
        if self.bar.as_ref().is_none_or(ProgressBar::is_hidden) {
            eprintln!("run {}", self.name);
        }
    }

    fn step(&mut self, done: u64, total: u64, loss: f64) {
        let bar = self.bar.get_or_insert_with(|| {
            let bar = bar(total, "[{bar:30}] {percent}%  {msg}  {eta} left");
            bar.set_position(done);
            bar.reset_eta();
            bar
        });
        bar.set_position(done);
        bar.set_message(format!("run {}  loss {loss:.4}", self.name));
    }

    fn message(&mut self, text: &str) {
        self.say(&format!("run {}: {text}", self.name));
    }

    fn warning(&mut self, text: &str) {
        self.say(&format!("warning: run {}: {text}", self.name));
    }
}
