//! A look at a run: a grid of samples, a loss of images that are held out, a distance to the data.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use dis_diffusion::Guidance;
use dis_model::classes::Division;
use dis_model::{Classes, ModelBackend};
use dis_pipeline::{Artist, Row, Settings, Task};

use super::metrics::{Distance, Look};
use super::reference::{Reference, SmallPictures};
use super::steps::Run;
use super::train::Observer;
use crate::error::Result;
use dis_data::grid;

/// Classes in a grid of samples.
pub(super) const PAGE: usize = 16;
/// Images drawn at a time.
const CHUNK: usize = 64;
/// Samples that are compared by the features that a caller gives, where the configuration names no number.
const COMPARED: usize = 128;
/// Noises of grids are numbered from 0, those of samples that are compared from here.
const FIRST_NOISE: u64 = 1 << 32;
/// Pixels that an image in a grid is high at least.
const HIGH: usize = 64;

/// Samples of a look.
struct Drawn {
    grid: Vec<f32>,
    compared: Vec<f32>,
}

impl<B: ModelBackend> Run<'_, B> {
    /// Draws from the moving average and judges it. None where it was asked to stop.
    pub(super) fn look(
        &mut self,
        observer: &mut dyn Observer,
        stop: &AtomicBool,
    ) -> Result<Option<Look>> {
        let mut look = Look::default();
        let classes = self.classes()?;
        match self.draw(&classes, observer, stop) {
            Ok(None) => return Ok(None),
            Ok(Some(drawn)) => {
                look.grid = Some(self.write_grid(&classes, &drawn.grid, observer)?);
                look.frechet = self.distance(&drawn.compared)?;
            }
            // Weights may recover from what a sampler does not.
            Err(error) if error.is_divergence() => {
                let step = self.trainer.steps_done();
                observer.warning(&format!("step {step}: no samples: {error}"));
            }
            Err(error) => return Err(error),
        }
        if let Some(data) = &self.held_out {
            look.validation_loss = Some(self.trainer.validation_loss(&**data)?);
        }
        Ok(Some(look))
    }

    /// Image passes of training that take about as long as a look: a network's call takes a third of one.
    pub(super) fn look_passes(&self) -> f64 {
        let sample = &self.config.sample;
        let classes = self.data.num_classes().unwrap_or(1).clamp(1, PAGE);
        let images = (classes as f64) * sample.per_class as f64 + sample.frechet as f64;
        let guided = self.trainer.model().config().null_label().is_some();
        let calls = sample.steps as f64 * if guided { 2.0 } else { 1.0 };
        images * calls / 3.0
    }

    /// Classes that are drawn; none without classes.
    fn classes(&self) -> Result<Vec<u32>> {
        Ok(match Classes::of(&self.metadata)? {
            Some(classes) => classes.occupied(),
            None => (0..self.data.num_classes().unwrap_or(0) as u32).collect(),
        })
    }

    /// Names of the rows of a grid, where each is a class.
    fn row_names(&self) -> Result<Vec<String>> {
        let Some(classes) = Classes::of(&self.metadata)? else {
            return Ok(Vec::new());
        };
        let occupied = classes.occupied();
        Ok(shown(&occupied)
            .iter()
            .map(|&class| classes.name(class))
            .collect())
    }

    /// The grid's images, classes in rows, always from the same noise, and those that are compared.
    fn draw(
        &self,
        classes: &[u32],
        observer: &mut dyn Observer,
        stop: &AtomicBool,
    ) -> Result<Option<Drawn>> {
        let sample = &self.config.sample;
        let shown = shown(classes);
        let grid = Row::divided(shown.len().max(1) * sample.per_class, shown);
        let count = match (sample.frechet, self.features) {
            (0, Some(_)) => COMPARED,
            (count, _) => count,
        };
        let division = Division::new(count, classes.len());
        let compared = (0..count).map(|i| {
            let class = (!classes.is_empty()).then(|| classes.get(division.in_turn(i)).copied());
            Row::new(FIRST_NOISE + i as u64, class.flatten())
        });
        let rows: Vec<Row> = grid.iter().copied().chain(compared).collect();
        let settings = Settings {
            sampler: sample.sampler.parse()?,
            spacing: sample.spacing.parse()?,
            steps: sample.steps,
            ..Settings::default()
        };
        let trainer = &self.trainer;
        let guided = trainer.model().config().null_label().is_some();
        let artist = Artist {
            backend: trainer.backend(),
            model: trainer.model(),
            params: trainer.ema(),
            plan: &settings.plan(&self.metadata)?,
            seed: self.config.train.seed,
            guidance: Guidance::new(if guided { sample.cfg_scale } else { 1.0 }),
        };
        let (all, mut images) = (rows.len().max(1) as f64, Vec::new());
        for (i, chunk) in rows.chunks(CHUNK).enumerate() {
            let drawn = artist.draw(chunk, &Task::Generate, &mut |at| {
                let part = at.iteration as f64 / at.iterations.max(1) as f64;
                observer.drawing(((i * CHUNK) as f64 + part * chunk.len() as f64) / all);
                match stop.load(Ordering::Relaxed) {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            });
            match drawn {
                Ok(drawn) => images.extend(drawn),
                Err(error) => {
                    observer.drawing(1.0);
                    return if error.is_ended() {
                        Ok(None)
                    } else {
                        Err(error.into())
                    };
                }
            }
        }
        observer.drawing(1.0);
        let compared = images.split_off(grid.len() * self.data.shape().len());
        Ok(Some(Drawn {
            grid: images,
            compared,
        }))
    }

    /// Writes the grid; returns its name in the run.
    fn write_grid(
        &self,
        classes: &[u32],
        images: &[f32],
        observer: &mut dyn Observer,
    ) -> Result<String> {
        let (images, shape) = grid::preview(images, self.data.shape());
        let columns = self.config.sample.per_class.max(1);
        let layout = grid::GridLayout::new(columns).enlarged(shape, HIGH);
        let names = self.row_names()?;
        let picture = grid::render_with_captions(&images, shape, layout, &names)?;
        let name = format!("step-{:08}.png", self.trainer.steps_done());
        let path = self.dir.samples().join(&name);
        grid::write_png(&path, &picture)?;
        // More than a page of classes says no more than a page.
        let omitted = match classes.len() - shown(classes).len() {
            0 => String::new(),
            _ => format!(" (the first {PAGE} of {} classes)", classes.len()),
        };
        observer.message(&format!("samples: {}{omitted}", path.display()));
        Ok(format!("samples/{name}"))
    }

    /// The distance of samples to the data; none where there are none.
    fn distance(&self, samples: &[f32]) -> Result<Option<Distance>> {
        if samples.len() < 2 * self.data.shape().len() || self.data.len() < 2 {
            return Ok(None);
        }
        let network = self.features.unwrap_or(&SmallPictures);
        // Made anew each time: it takes less than a step does, and would otherwise stay in memory.
        Ok(Some(
            Reference::new(&*self.data, network)?.distance(samples)?,
        ))
    }
}

fn shown(classes: &[u32]) -> &[u32] {
    &classes[..classes.len().min(PAGE)]
}
