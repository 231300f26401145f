//! What a picture says of how it was drawn, so that it can be drawn again.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Command, FromArgMatches, ValueEnum};
use dis_data::drawn_with;
use dis_model::Classes;
use dis_pipeline::{Row, Settings};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::output::Contents;
use crate::args::SampleArgs;

/// How a picture was drawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The version of the program.
    pub version: String,
    /// What results depend on, bit for bit: an instruction set, or a device.
    pub instructions: String,
    /// SHA-256 of the file of the weights.
    pub checkpoint: String,
    /// Options of `dis sample`, each with its value.
    pub options: Vec<String>,
    /// Number of the image among those that the options ask for; none of a grid of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
    /// Its class, for who reads this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Whether it was made from a given image, which is not in here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub given: bool,
}

/// The options that a record may hold: those that decide pixels.
const OPTIONS: [&str; 21] = [
    "--raw",
    "--null-label",
    "--num",
    "--classes",
    "--seed",
    "--sampler",
    "--steps",
    "--spacing",
    "--eta",
    "--cfg",
    "--cfg-interval",
    "--cfg-rescale",
    "--cfg-published",
    "--clip",
    "--clip-quantile",
    "--interpolate",
    "--frames",
    "--precision",
    "--vae-tile",
    "--scale",
    "--captions",
];

impl Record {
    /// Of so many images that the arguments ask for, drawn by these settings.
    pub fn new(
        args: &SampleArgs,
        settings: &Settings,
        images: usize,
        checkpoint: String,
        instructions: String,
    ) -> Self {
        let mut options = Vec::new();
        let mut add = |name: &str, value: &str| options.push(format!("--{name}={value}"));
        let how = &args.how;
        add("num", &images.to_string());
        for list in &args.classes {
            add("classes", list);
        }
        add("seed", &args.seed.to_string());
        add("sampler", &settings.sampler.to_string());
        add("steps", &settings.steps.to_string());
        add("spacing", &settings.spacing.to_string());
        add("eta", &how.eta.to_string());
        if let Some(guidance) = &settings.guidance {
            add("cfg", &guidance.scale.to_string());
        }
        if let Some((low, high)) = how.cfg_interval {
            add("cfg-interval", &format!("{low},{high}"));
        }
        add("cfg-rescale", &how.cfg_rescale.to_string());
        if let Some(quantile) = how.clip_quantile {
            add("clip-quantile", &quantile.to_string());
        }
        if let Some(between) = args.interpolate {
            add("interpolate", word(between).as_str());
            add("frames", &args.frames.to_string());
        }
        if let Some(null_label) = args.null_label {
            add("null-label", &null_label.to_string());
        }
        if let Some(tile) = args.vae_tile {
            add("vae-tile", &tile.to_string());
        }
        if let Some(scale) = args.scale {
            add("scale", &scale.to_string());
        }
        add("precision", word(args.precision).as_str());
        let flags = [
            (args.raw, "--raw"),
            (how.cfg_published || how.published, "--cfg-published"),
            (how.clip, "--clip"),
            (args.captions, "--captions"),
        ];
        let set = flags.iter().filter(|(set, _)| *set);
        options.extend(set.map(|(_, name)| (*name).to_string()));
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            instructions,
            checkpoint,
            options,
            index: None,
            class: None,
            given: args.init_image.is_some(),
        }
    }

    /// Of one of them alone.
    pub fn of_image(&self, index: usize, row: &Row, classes: Option<&Classes>) -> Self {
        let class = row.label.zip(classes);
        Self {
            index: Some(index),
            class: class.map(|(label, classes)| classes.name(label)),
            ..self.clone()
        }
    }

    /// What was drawn, for `--json`.
    ///
    /// # Errors
    /// None but of serde_json.
    pub fn summary(&self, args: &SampleArgs, contents: &Contents<'_>) -> Result<Value> {
        let mut summary = serde_json::to_value(self)?;
        let image = |(i, row): (usize, &Row)| {
            let name = |class: u32| contents.classes.map(|classes| classes.name(class));
            json!({
                "index": contents.only.unwrap_or(i),
                "noise": row.noise,
                "class": row.label.and_then(name),
            })
        };
        let images = contents.rows.iter().enumerate().map(image);
        summary["out"] = json!(args.out);
        summary["shape"] = json!([
            contents.shape.channels,
            contents.shape.height,
            contents.shape.width
        ]);
        summary["images"] = json!(images.collect::<Vec<_>>());
        Ok(summary)
    }

    /// What a picture says.
    ///
    /// # Errors
    /// If it cannot be read, or says nothing or nonsense.
    pub fn read(path: &Path) -> Result<Self> {
        let at = path.display();
        let Some(text) = drawn_with(path)? else {
            bail!(
                "{at}: the picture does not say how it was drawn (dis sample writes that into PNG files)"
            );
        };
        let record: Self = serde_json::from_str(&text)
            .with_context(|| format!("{at}: how it was drawn cannot be read"))?;
        for option in &record.options {
            let name = option
                .split_once('=')
                .map_or(option.as_str(), |(name, _)| name);
            ensure!(
                OPTIONS.contains(&name),
                "{at}: it was drawn with {name}, which this program (version {}, the picture's {}) cannot repeat",
                env!("CARGO_PKG_VERSION"),
                record.version
            );
        }
        ensure!(
            !record.given,
            "{at}: it was made from a given image, which it does not hold; give that to dis sample --init-image"
        );
        Ok(record)
    }

    /// The text for a PNG: JSON in ASCII.
    pub fn text(&self) -> Result<String> {
        let mut text = String::new();
        for c in serde_json::to_string(self)?.chars() {
            match c.is_ascii() {
                true => text.push(c),
                false => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        write!(text, "\\u{unit:04x}")?;
                    }
                }
            }
        }
        Ok(text)
    }

    /// The arguments that it names, and from `given` what decides no pixels: places, devices.
    ///
    /// # Errors
    /// If the options are not such as the command takes.
    pub fn arguments(&self, given: &SampleArgs) -> Result<SampleArgs> {
        let words = std::iter::once("sample").chain(self.options.iter().map(String::as_str));
        let command = SampleArgs::augment_args(Command::new("sample"));
        let parsed = command.try_get_matches_from(words);
        let parsed = parsed.and_then(|parsed| SampleArgs::from_arg_matches(&parsed));
        let options = parsed.map_err(|error| {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            anyhow::anyhow!("how it was drawn: {}", line.trim_start_matches("error: "))
        })?;
        let given = given.clone();
        Ok(SampleArgs {
            checkpoint: given.checkpoint,
            vae: given.vae,
            out: given.out,
            overwrite: given.overwrite,
            trajectory: given.trajectory,
            json: given.json,
            batch_size: given.batch_size,
            device: given.device,
            ..options
        })
    }

    /// Refuses weights other than those that the picture was drawn with.
    ///
    /// # Errors
    /// Naming both.
    pub fn expect(&self, picture: &Path, found: &str, checkpoint: Option<&Path>) -> Result<()> {
        let name = checkpoint.map_or("the bundled model".into(), |path| {
            path.display().to_string()
        });
        let short = |hash: &str| hash.get(..16).unwrap_or(hash).to_string();
        ensure!(
            found == self.checkpoint,
            "{}: drawn with weights of SHA-256 {}..., but those of {name} have {}...; say with --checkpoint where they are",
            picture.display(),
            short(&self.checkpoint),
            short(found)
        );
        Ok(())
    }
}

/// A value as one types it.
fn word(value: impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map_or(String::new(), |value| value.get_name().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str]) -> SampleArgs {
        let command = SampleArgs::augment_args(Command::new("sample"));
        let words = std::iter::once(&"sample").chain(words);
        SampleArgs::from_arg_matches(&command.get_matches_from(words)).unwrap()
    }

    #[test]
    fn a_record_gives_the_arguments_back() {
        let given = args(&[
            "--classes=\"Grün, hell\",3",
            "--classes=a",
            "--seed=18446744073709551615",
            "--sampler=heun",
            "--steps=9",
            "--cfg-rescale=0.1",
            "--cfg-interval=1.5,700",
            "--interpolate=both",
            "--clip",
            "--captions",
            "--precision=bf16",
        ]);
        let settings = Settings {
            guidance: Some(dis_pipeline::Guidance::new(1.0 / 3.0)),
            ..Settings::of(given.how.sampler, given.how.steps, None)
        };
        let record = Record::new(&given, &settings, 20, "ab".into(), "avx2".into());
        let text = record.text().unwrap();
        assert!(text.is_ascii());
        let back: Record = serde_json::from_str(&text).unwrap();
        assert_eq!(back, record);
        let again = back.arguments(&given).unwrap();
        let mut expected = given;
        expected.num = Some(20);
        expected.how.cfg = Some(1.0 / 3.0);
        expected.how.spacing = Some(dis_pipeline::Spacing::Default);
        assert_eq!(format!("{again:?}"), format!("{expected:?}"));
    }

    #[test]
    fn options_of_files_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.png");
        let picture = dis_data::crop::Picture {
            height: 1,
            width: 1,
            channels: 1,
            bytes: vec![0],
        };
        for options in [
            vec!["--out=/etc/passwd"],
            vec!["--checkpoint", "/dev/zero"],
            vec!["x"],
        ] {
            let options = options.iter().map(|x| x.to_string()).collect();
            let record = Record {
                options,
                ..Record::new(&args(&[]), &Settings::default(), 1, "ab".into(), "x".into())
            };
            dis_data::grid::write_png_with(&path, &picture, &record.text().unwrap()).unwrap();
            assert!(Record::read(&path).is_err());
        }
    }
}
