//! Progress on the terminal; where stderr is none, a line every so often.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dis_data::{Check, Checked, DataSpec, Dataset, open_checked};
use dis_study::StudyObserver;
use dis_train::run::{Observer, Standing, Started};
use dis_train::{StepReport, in_words};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::say::is_quiet;
use crate::{note, warning};

/// A line is due after this long, or with each tenth of the work if [`SHORTEST`] has passed.
const LONGEST: Duration = Duration::from_secs(30);
/// Lines are this far apart at least.
const SHORTEST: Duration = Duration::from_secs(1);

/// A bar on a terminal, lines elsewhere.
#[derive(Debug)]
pub struct Bar {
    bar: ProgressBar,
    /// Where there is no terminal.
    lines: Option<Mutex<Lines>>,
}

/// When lines of progress are due.
#[derive(Debug)]
struct Lines {
    what: &'static str,
    begun: Instant,
    last: Instant,
    tenth: u64,
    message: String,
    /// Whether the message says how long it took.
    timed: bool,
}

impl Lines {
    fn new(what: &'static str, now: Instant) -> Self {
        Self {
            what,
            begun: now,
            last: now,
            tenth: 0,
            message: String::new(),
            timed: false,
        }
    }

    /// Where the work begins, of which a part may have been done before.
    fn start(&mut self, done: u64, of: u64, now: Instant) {
        self.tenth = tenths(done, of);
        (self.begun, self.last) = (now, now);
    }

    /// The line to write, if one is due.
    fn due(&mut self, done: u64, of: u64, now: Instant) -> Option<String> {
        let (tenth, since) = (tenths(done, of), now.duration_since(self.last));
        let due = since >= LONGEST || (since >= SHORTEST && tenth > self.tenth);
        if !due || done >= of {
            return None;
        }
        (self.tenth, self.last) = (tenth, now);
        let percent = 100.0 * done as f64 / of.max(1) as f64;
        let after = match self.timed {
            true => String::new(),
            false => format!(", after {} s", now.duration_since(self.begun).as_secs()),
        };
        let message = match self.message.as_str() {
            "" => String::new(),
            text => format!(", {text}"),
        };
        Some(format!(
            "{}: {done} of {of} ({percent:.0} %){message}{after}",
            self.what
        ))
    }
}

fn tenths(done: u64, of: u64) -> u64 {
    let tenths = u128::from(done) * 10 / u128::from(of.max(1));
    u64::try_from(tenths).unwrap_or(u64::MAX)
}

impl Bar {
    /// A bar with this template, which is `what` in lines. A template that does not parse gives a plain
    /// bar.
    fn new(what: &'static str, len: u64, template: &str) -> Self {
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ");
        let bar = ProgressBar::new(len).with_style(style);
        if is_quiet() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        let lines = bar
            .is_hidden()
            .then(|| Mutex::new(Lines::new(what, Instant::now())));
        Self { bar, lines }
    }

    fn with_lines<T>(&self, f: impl FnOnce(&mut Lines) -> T) -> Option<T> {
        let lines = self.lines.as_ref()?;
        Some(f(&mut lines.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    fn tell(&self) {
        let (done, of) = (self.bar.position(), self.bar.length().unwrap_or(0));
        let line = self.with_lines(|lines| lines.due(done, of, Instant::now()));
        if let Some(Some(line)) = line {
            note!("{line}");
        }
    }

    /// So much of the work more is done.
    pub fn inc(&self, more: u64) {
        self.bar.inc(more);
        self.tell();
    }

    /// So much of the work is done.
    pub fn set_position(&self, done: u64) {
        self.bar.set_position(done);
        self.tell();
    }

    /// The work is `of`, and `done` was done before.
    pub fn start(&self, done: u64, of: u64) {
        self.bar.set_length(of);
        self.bar.set_position(done);
        self.bar.reset_eta();
        self.with_lines(|lines| lines.start(done, of, Instant::now()));
    }

    /// What is to be said beside the progress.
    pub fn set_message(&self, text: impl Into<Cow<'static, str>>) {
        let text = text.into();
        self.with_lines(|lines| lines.message = text.to_string());
        self.bar.set_message(text);
    }

    /// What is to be said beside the progress, with the time that it took.
    fn set_timed_message(&self, text: String) {
        self.with_lines(|lines| lines.timed = true);
        self.set_message(text);
    }

    /// Whether nobody sees it.
    fn is_hidden(&self) -> bool {
        self.lines.is_some()
    }

    /// Writes a line, above the bar where there is one.
    fn say(&self, text: &str) {
        match self.is_hidden() {
            true => note!("{text}"),
            false => self.bar.println(text),
        }
    }

    /// Takes it away.
    pub fn finish_and_clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// For sampling: counts image steps.
pub fn sampling() -> Bar {
    Bar::new(
        "sampling, image steps",
        1,
        "sampling [{bar:30}] {percent}%  {per_sec} image steps  {eta} left",
    )
}

/// For encoding images.
pub fn encoding(images: u64) -> Bar {
    Bar::new(
        "encoding, images",
        images,
        "encoding [{bar:30}] {pos}/{len}  {per_sec}  {eta} left",
    )
}

/// For decoding latents.
pub fn decoding(images: u64) -> Bar {
    Bar::new(
        "decoding, images",
        images,
        "decoding [{bar:30}] {pos}/{len}  {per_sec}  {eta} left",
    )
}

/// For training a classifier.
pub fn classifier(steps: u64) -> Bar {
    Bar::new(
        "training, steps",
        steps,
        "[{bar:30}] {pos}/{len}  {per_sec}  {msg}  {eta} left",
    )
}

/// For running images through a feature network.
pub fn features(images: u64) -> Bar {
    Bar::new(
        "features, images",
        images,
        "features [{bar:30}] {pos}/{len}  {per_sec}  {eta} left",
    )
}

/// For metrics, of which each takes its own time.
pub fn measuring(metrics: u64) -> Bar {
    Bar::new("measuring, metrics", metrics, "measuring {msg} {spinner}")
}

/// For likelihoods: counts image steps.
pub fn likelihood(image_steps: u64) -> Bar {
    Bar::new(
        "bits per dimension, image steps",
        image_steps,
        "bits per dimension [{bar:30}] {percent}%  {per_sec} image steps  {eta} left",
    )
}

/// A text above the bar, or on a line of its own.
fn say(bar: Option<&Bar>, text: &str) {
    match bar {
        Some(bar) => bar.say(text),
        None => note!("{text}"),
    }
}

/// A warning above the bar, or on a line of its own.
fn warn(bar: Option<&Bar>, text: &str) {
    match bar.filter(|bar| !bar.is_hidden()) {
        Some(bar) => bar.say(&format!("warning: {text}")),
        None => warning!("{text}"),
    }
}

/// For looking at pictures before they are used. Nothing is shown where nothing is due.
#[derive(Debug, Default)]
pub struct Checking {
    bar: Option<Bar>,
}

impl Checking {
    /// So many pictures are done of so many.
    pub fn at(&mut self, done: usize, all: usize) {
        let bar = self.bar.get_or_insert_with(|| {
            Bar::new(
                "checking, files",
                all as u64,
                "checking files [{bar:30}] {pos}/{len}  {per_sec}  {eta} left",
            )
        });
        bar.set_position(done as u64);
        if done >= all {
            self.finish();
        }
    }

    /// Takes the bar away.
    pub fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// Opens data after a look at every file, with a bar; warns of pictures that are left out.
///
/// # Errors
/// As [`open_checked`].
pub fn checked(spec: &DataSpec, check: &Check) -> dis_data::Result<(Arc<dyn Dataset>, Checked)> {
    let mut bar = Checking::default();
    let opened = open_checked(spec, check, &mut |done, all| {
        bar.at(done, all);
        ControlFlow::Continue(())
    });
    bar.finish();
    let (data, checked) = opened?;
    for bad in &checked.bad {
        warning!("left out: {bad}");
    }
    if let Some(why) = &checked.no_index {
        warning!("{why}: without an index all files are read again the next time");
    }
    Ok((data, checked))
}

/// For training.
#[derive(Debug, Default)]
pub struct Training {
    checking: Checking,
    bar: Option<Bar>,
    /// Of the last step.
    said: String,
}

/// A step in words: `96.4 images/s, loss 0.1234, lr 1.50e-3, 2 min 5 s elapsed, 8 min left`.
fn described(report: &StepReport, standing: &Standing) -> String {
    format!(
        "{:.1} images/s, loss {:.4}, lr {:.2e}, {} elapsed, {} left",
        standing.images_per_second,
        standing.mean_loss,
        report.lr,
        in_words(standing.seconds),
        in_words(standing.left)
    )
}

impl Training {
    /// Takes the bar away.
    pub fn finish(&mut self) {
        self.checking.finish();
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Observer for Training {
    fn checking(&mut self, done: usize, all: usize) {
        self.checking.at(done, all);
    }

    fn started(&mut self, start: &Started) {
        let mib = |bytes: u64| bytes as f64 / (1 << 20) as f64;
        let memory = &start.memory;
        note!("data: {}", start.data);
        note!(
            "model: {} parameters; training needs about {:.0} MiB ({:.0} weights and optimizer, \
             {:.0} activations, or {:.0} with --recompute)",
            start.parameters,
            mib(memory.whole_training(false)),
            mib(memory.weights + memory.optimizer),
            mib(memory.training),
            mib(memory.training_recompute),
        );
        if let Some(from) = &start.from {
            note!("weights: from {from}");
        }
        if start.step > 0 {
            note!("continuing after step {} of {}", start.step, start.steps);
        }
        let bar = Bar::new(
            "training, steps",
            start.steps,
            "[{bar:20}] {pos}/{len}  {msg}",
        );
        bar.start(start.step, start.steps);
        self.bar = Some(bar);
    }

    fn step(&mut self, report: &StepReport, standing: &Standing) {
        if let Some(bar) = &self.bar {
            self.said = described(report, standing);
            bar.set_timed_message(self.said.clone());
            bar.bar.set_length(standing.steps);
            bar.set_position(report.step);
        }
    }

    fn drawing(&mut self, share: f64) {
        if let Some(bar) = &self.bar {
            bar.set_timed_message(match share < 1.0 {
                true => format!("{}, drawing samples: {:.0} %", self.said, 100.0 * share),
                false => self.said.clone(),
            });
            bar.tell();
        }
    }

    fn message(&mut self, text: &str) {
        if let Some(bar) = self.bar.as_ref().filter(|bar| !bar.is_hidden()) {
            bar.say(text);
        }
    }

    fn warning(&mut self, text: &str) {
        warn(self.bar.as_ref(), text);
    }
}

/// For studies: one bar over all steps of all runs.
#[derive(Debug, Default)]
pub struct Study {
    checking: Checking,
    bar: Option<Bar>,
    name: String,
}

impl Study {
    /// Takes the bar away.
    pub fn finish(&mut self) {
        self.checking.finish();
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl StudyObserver for Study {
    fn checking(&mut self, done: usize, all: usize) {
        self.checking.at(done, all);
    }

    fn run(&mut self, name: &str, number: usize, runs: usize) {
        self.name = format!("{number}/{runs} {name}");
        if self.bar.as_ref().is_none_or(Bar::is_hidden) {
            note!("run {}", self.name);
        }
    }

    fn step(&mut self, done: u64, total: u64, loss: f64) {
        let bar = self.bar.get_or_insert_with(|| {
            let template = "[{bar:30}] {percent}%  {msg}  {eta} left";
            let bar = Bar::new("study, steps of all runs", total, template);
            bar.start(done, total);
            bar
        });
        bar.set_message(format!("run {}  loss {loss:.4}", self.name));
        bar.set_position(done);
    }

    fn message(&mut self, text: &str) {
        say(self.bar.as_ref(), &format!("run {}: {text}", self.name));
    }

    fn warning(&mut self, text: &str) {
        warn(self.bar.as_ref(), &format!("run {}: {text}", self.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_says_its_own_speed() {
        let report = StepReport {
            step: 135,
            loss: 0.5,
            mse: None,
            vb: None,
            grad_norm: 1.0,
            lr: 5e-4,
            skipped: false,
        };
        let standing = Standing {
            steps: 50_000,
            mean_loss: 0.25,
            images_per_second: 14.25,
            seconds: 571.0,
            left: 5400.0,
        };
        let said = described(&report, &standing);
        let wanted = "14.2 images/s, loss 0.2500, lr 5.00e-4, 9 min 31 s elapsed, 1 h 30 min left";
        assert_eq!(said, wanted);
        let mut lines = Lines::new("training, steps", Instant::now());
        (lines.message, lines.timed) = (said, true);
        let line = lines.due(135, 50_000, Instant::now() + Duration::from_secs(31));
        assert_eq!(
            line.unwrap(),
            format!("training, steps: 135 of 50000 (0 %), {wanted}")
        );
    }

    #[test]
    fn lines_are_few_and_far_between() {
        let begun = Instant::now();
        let at = |seconds: f64| begun + Duration::from_secs_f64(seconds);
        let mut lines = Lines::new("training, steps", begun);
        lines.start(20, 200, begun);
        lines.message = "loss 0.5".into();
        // Less than a tenth more, or too soon.
        assert_eq!(lines.due(39, 200, at(2.0)), None);
        assert_eq!(lines.due(90, 200, at(0.5)), None);
        let line = lines.due(90, 200, at(2.5)).unwrap();
        assert_eq!(
            line,
            "training, steps: 90 of 200 (45 %), loss 0.5, after 2 s"
        );
        assert_eq!(lines.due(91, 200, at(30.0)), None);
        assert!(lines.due(91, 200, at(32.5)).is_some());
        // The end has lines of its own.
        assert_eq!(lines.due(200, 200, at(300.0)), None);
        // Fast work of any length writes no more than a line a second, slow work one in thirty.
        let mut lines = Lines::new("x", begun);
        let count =
            (0..10_000u64).filter(|&i| lines.due(i, 10_000, at(i as f64 / 2000.0)).is_some());
        assert_eq!(count.count(), 4);
    }
}
