//! The data of a run: opened after a look at every picture, and the same when it is continued.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dis_model::{Classes, Metadata};
use serde::{Deserialize, Serialize};

use super::train::Observer;
use crate::config::{DataConfig, RunConfig};
use crate::error::{Result, TrainError};
use dis_data::{Check, DataSpec, Dataset, open_checked};

/// What a run does about data that are not as they should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DataPolicy {
    /// Go on without pictures that do not decode, instead of refusing to begin.
    pub skip_bad: bool,
    /// Continue with other data than those of the checkpoint.
    pub accept_changed: bool,
}

/// A change of data that was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataChange {
    /// Steps done with the data as they were.
    pub step: u64,
    /// Their [`Dataset::identity`].
    pub was: String,
    /// That of the data from then on.
    pub now: String,
}

impl DataConfig {
    /// The same data whatever the present directory is; as it is where the specification cannot be
    /// understood.
    pub fn absolute(mut self) -> Self {
        if let Ok(spec) = self.spec.parse::<DataSpec>() {
            self.spec = spec.absolute().to_string();
        }
        self
    }

    /// Data given anew to continue a run: options that are not said are those of the run.
    ///
    /// # Errors
    /// If the specification cannot be understood.
    pub fn given_anew(&mut self, spec: &str) -> Result<()> {
        let given: DataSpec = spec.parse()?;
        let spec = match understand(&self.spec) {
            Some(of_run) => given.with_options_of(&of_run),
            None => given,
        };
        self.spec = spec.to_string();
        Ok(())
    }
}

/// Reads a specification even if its path is gone.
fn understand(spec: &str) -> Option<DataSpec> {
    spec.parse()
        .or_else(|_| format!("folder:{spec}").parse())
        .ok()
}

/// Opens the data that `config` names, and writes into it what a later session needs to open the same:
/// an absolute path, and the pictures that were left out. `stored` is the configuration of the run that
/// is continued.
pub(super) fn open_data(
    config: &mut RunConfig,
    stored: Option<&RunConfig>,
    out: &Path,
    policy: DataPolicy,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<(DataSpec, Arc<dyn Dataset>)> {
    if let Some(stored) = stored {
        let skipped = stored.data.skip.iter();
        let new: Vec<String> = skipped
            .filter(|s| !config.data.skip.contains(s))
            .cloned()
            .collect();
        config.data.skip.extend(new);
    }
    // Where a run is continued with the data it names, whoever reads the message has named none.
    let own = stored.is_some_and(|stored| stored.data.spec == config.data.spec);
    let gone = |error: TrainError| match own {
        true => TrainError::RunDir {
            path: out.join("config.toml"),
            what: format!(
                "the data that it names in [data] cannot be opened: {error}; a path that does not \
                 begin with / is one in the directory where the run was begun; say where the data \
                 are with --data"
            ),
        },
        false => error,
    };
    let spec = config.data.spec.parse::<DataSpec>();
    let spec = spec.map_err(|e| gone(e.into()))?.absolute();
    let mirrored = stored.and_then(|stored| Some(understand(&stored.data.spec)?.flip));
    if mirrored.is_some_and(|flip| flip != spec.flip) && !policy.accept_changed {
        return Err(TrainError::config(format!(
            "the run goes on {}: to change that, add --accept-changed-data",
            if spec.flip {
                "without flip"
            } else {
                "with flip"
            }
        )));
    }
    let check = Check {
        skip: config.data.skip.clone(),
        skip_bad: policy.skip_bad,
        samples: false,
    };
    let mut progress = |done, all| {
        observer.checking(done, all);
        match stop.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    let opened = open_checked(&spec, &check, &mut progress);
    let (data, checked) = opened.map_err(|e| match e {
        e if e.is_io() => gone(e.into()),
        e => e.into(),
    })?;
    if let Some(why) = &checked.no_index {
        observer.warning(&format!(
            "{why}: without an index all pictures are read again at the next start"
        ));
    }
    for bad in &checked.bad {
        observer.warning(&format!("left out: {bad}"));
        config.data.skip.push(bad.file.clone());
    }
    config.data.spec = spec.to_string();
    Ok((spec, data))
}

/// Compares the data of a checkpoint, by its identity, with those at hand. Returns the change if there
/// is one and it is accepted.
pub(super) fn compare(
    checkpoint: &Path,
    was: &str,
    step: u64,
    data: &dyn Dataset,
    accept_changed: bool,
) -> Result<Option<DataChange>> {
    let now = data.identity();
    if was == now || data.identity_by_names().is_some_and(|now| was == now) {
        return Ok(None);
    }
    if accept_changed {
        let was = was.to_owned();
        return Ok(Some(DataChange { step, was, now }));
    }
    let by_names = match was.starts_with("folder ") && was.contains(" sha256=") {
        true => " (by names and sizes of files)",
        false => "",
    };
    Err(TrainError::RunDir {
        path: checkpoint.to_path_buf(),
        what: format!(
            "the data have changed since this checkpoint: they were {was}{by_names}, now they are \
             {now}; to go on with them as they are, add --accept-changed-data"
        ),
    })
}

/// Refuses data whose classes have other numbers than those of the checkpoint: its model would take
/// them for others.
pub(super) fn same_classes(
    checkpoint: &Path,
    metadata: &Metadata,
    data: &dyn Dataset,
) -> Result<()> {
    let refuse = |what: String| TrainError::RunDir {
        path: checkpoint.to_path_buf(),
        what,
    };
    let of_model = Classes::of(metadata).map_err(|e| refuse(e.to_string()))?;
    let of_data = data.class_names();
    let Some(of_model) = of_model.filter(|_| !of_data.is_empty()) else {
        return Ok(());
    };
    let map = Classes::named("the data set", of_data).map_to(&of_model);
    match map.map_err(|e| refuse(e.to_string()))?.is_identity() {
        true => Ok(()),
        false => Err(refuse(format!(
            "the classes of the data, {}, come in another order than those of the checkpoint",
            of_data.join(", ")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use dis_tensor::Cpu;

    use super::*;
    use crate::clock::WallClock;
    use crate::run::{RunDir, Session, Start, Started, train};
    use dis_data::crop::Picture;
    use dis_data::{DataError, grid};

    /// Does something to a file when a run starts, after its pictures were looked at.
    struct Meddler<'a>(&'a dyn Fn());

    impl Observer for Meddler<'_> {
        fn started(&mut self, _: &Started) {
            (self.0)();
        }
    }

    #[test]
    fn a_picture_that_goes_bad_in_a_run_loses_no_steps() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("photos")).unwrap();
        for i in 0..6u8 {
            let bytes = (0..64).map(|j| i.wrapping_mul(31) ^ j).collect();
            let (height, width, channels) = (8, 8, 1);
            let picture = Picture {
                height,
                width,
                channels,
                bytes,
            };
            grid::write_unmarked_png(&path(&format!("photos/{i}.png")), &picture).unwrap();
        }
        let mut config = RunConfig::preset("digits").unwrap();
        config.data.spec = format!("folder:{},size=8,grey", path("photos").display());
        config.model.insert("depth".into(), 2.into());
        config.model.insert("embed_dim".into(), 16.into());
        let batch = &mut config.train;
        (batch.steps, batch.batch_size, batch.sample_every) = (6, 2, 0);
        let cpu = Cpu::new();
        let run = |name: &str, start: Start, meddle: &dyn Fn()| {
            train(
                cpu.clone(),
                config.clone(),
                &path(name),
                start,
                Session::new("any", &WallClock::default()),
                &mut Meddler(meddle),
                &AtomicBool::new(false),
            )
        };
        let bad = path("photos/3.png");
        let whole = std::fs::read(&bad).unwrap();
        let damage = || std::fs::write(&bad, &whole[..40]).unwrap();
        run("same", Start::New, &|| {}).unwrap();
        let error = run("run", Start::New, &damage).unwrap_err();
        assert!(error.to_string().contains("photos/3.png"), "{error}");
        // What was done is kept, and nothing is done before the picture is what it was.
        let (kept, _) = RunDir::open(&path("run")).unwrap();
        assert_eq!(kept.list().unwrap().len(), 1);
        let error = run("run", Start::Resume, &|| {}).unwrap_err();
        assert!(
            matches!(error, TrainError::Data(DataError::Bad { .. })),
            "{error}"
        );
        std::fs::write(&bad, &whole).unwrap();
        run("run", Start::Resume, &|| {}).unwrap();
        let weights = |name: &str| -> Vec<u8> {
            let (dir, _) = RunDir::open(&path(name)).unwrap();
            let (_, newest) = dir.list().unwrap().pop().unwrap();
            std::fs::read(newest.join("weights.safetensors")).unwrap()
        };
        assert!(weights("run") == weights("same"));
    }

    fn config(spec: &str) -> DataConfig {
        DataConfig {
            spec: spec.into(),
            skip: Vec::new(),
        }
    }

    #[test]
    fn options_of_the_run_are_kept() {
        for (run, given, together) in [
            ("gone,size=8,flip", "folder:new", "folder:new,size=8,flip"),
            (
                "folder:gone,size=8,grey",
                "folder:new,size=4",
                "folder:new,size=4,grey",
            ),
            (
                "idx:gone,split=test,unconditional",
                "idx:new",
                "idx:new,split=test,unconditional",
            ),
            ("folder:gone,size=8,flip", "latents:new", "latents:new,flip"),
            ("digits,flip", "digits-train", "digits-train,flip"),
        ] {
            let mut data = config(run);
            data.given_anew(given).unwrap();
            assert_eq!(data.spec, together);
        }
        let error = config("digits").given_anew("nowhere").unwrap_err();
        assert!(error.to_string().contains("nowhere"), "{error}");
    }

    #[test]
    fn paths_are_made_absolute_and_words_are_not_paths() {
        let here = std::env::current_dir().unwrap();
        let absolute = config("folder:photos,size=8").absolute().spec;
        assert_eq!(
            absolute,
            format!("folder:{},size=8", here.join("photos").display())
        );
        for same in ["digits-train,flip", "idx:/x/y,split=test", "nowhere"] {
            assert_eq!(config(same).absolute().spec, same);
        }
    }
}
