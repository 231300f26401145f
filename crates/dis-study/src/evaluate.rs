//! Judges a checkpoint by samples: Frechet distance of features, agreement of their class with the
//! nearest real images, coverage.

use dis_diffusion::Guidance;
use dis_model::classes::Division;
use dis_model::{ClassError, Classes, ModelBackend};
use dis_tensor::machine::require_memory;
use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};

use super::config::Evaluate;
use crate::error::{Result, StudyError};
use dis_data::{Dataset, ImageShape, grid};
use dis_eval::metrics::{Statistics, coverage, frechet_distance, knn_accuracy};
use dis_eval::{FeatureNetwork, PixelFeatures, points};
use dis_pipeline::{Pipeline, Row, Settings, Task, unwatched};

/// Rows of a picture of samples.
const ROWS: usize = 6;
/// Columns where there are no classes.
const COLUMNS: usize = 10;

/// Figures of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// Steps trained.
    pub step: u64,
    /// Frechet distance of the features of samples and reference.
    pub frechet: f64,
    /// Fraction of samples whose nearest real images have the class asked for; none without
    /// classes.
    pub agreement: Option<f64>,
    /// Fraction of real images with a sample among their nearest neighbours.
    pub coverage: f64,
    /// How it was measured.
    pub settings: Evaluate,
    /// [`FeatureNetwork::identity`] of what made the features.
    #[serde(default = "pixels")]
    pub network: String,
}

/// What evaluations without a network were measured with.
fn pixels() -> String {
    PixelFeatures.identity()
}

/// A reference, and how samples are drawn to be compared with it.
pub struct Judge<'a> {
    settings: Evaluate,
    network: &'a dyn FeatureNetwork,
    shape: ImageShape,
    /// (reference images, features)
    points: Array2<f32>,
    labels: Option<Vec<u32>>,
    /// Of the reference.
    classes: Classes,
    statistics: Statistics,
}

/// What samples of a checkpoint come to.
pub struct Judged {
    /// The figures.
    pub figures: Evaluation,
    /// Some of the samples, in [-1, 1], for [`Judge::picture`].
    pub samples: Vec<f32>,
    /// Classes that samples were drawn of; none without classes.
    pub classes: Option<usize>,
    /// What makes figures doubtful, or is missing.
    pub warnings: Vec<String>,
}

impl<'a> Judge<'a> {
    /// Reads the reference, to be compared by the features of `network`.
    ///
    /// # Errors
    /// If it cannot be read, has fewer than two images, or images that the network does not take.
    pub fn new(
        settings: &Evaluate,
        data: &dyn Dataset,
        network: &'a dyn FeatureNetwork,
    ) -> Result<Self> {
        let shape = data.shape();
        network.check(shape)?;
        if let Some(why) = network.no_covariance(shape) {
            return Err(StudyError::config(format!("evaluate.features: {why}")));
        }
        let count = data.len().min(settings.reference_limit);
        let mut images = vec![0.0; count * shape.len()];
        let mut labels = Vec::with_capacity(count);
        for (i, out) in images.chunks_exact_mut(shape.len().max(1)).enumerate() {
            // Evenly over the whole: data sets are often sorted.
            let index = (i as u128 * data.len() as u128 / count.max(1) as u128) as usize;
            data.read(index, false, out)?;
            labels.extend(data.label(index));
        }
        let points = clipped_points(network, &images, shape)?;
        Ok(Self {
            settings: settings.clone(),
            network,
            statistics: Statistics::from_points(points.view())?,
            labels: (labels.len() == count).then_some(labels),
            classes: Classes::named("evaluate.reference", data.class_names())
                .without_images(data.unoccupied_classes()),
            shape,
            points,
        })
    }

    /// Draws samples from a model, of its classes in turn, and judges them.
    ///
    /// # Errors
    /// If the model is for other images, or cannot be sampled.
    pub fn judge<B: ModelBackend>(&self, pipeline: &Pipeline<B>, step: u64) -> Result<Judged> {
        let e = &self.settings;
        let makes = ImageShape::from(pipeline.model().config().image_shape());
        if makes != self.shape {
            return Err(StudyError::config(format!(
                "evaluate.reference has images of {}, but the model makes {makes}",
                self.shape
            )));
        }
        let bytes = e.samples as u128 * 4 * self.shape.len() as u128;
        require_memory(format!("evaluate.samples {}", e.samples), 3 * bytes)?;
        let classes = pipeline.classes()?;
        let drawn = classes.as_ref().map(Classes::occupied);
        let columns = drawn.as_ref().map(Vec::len);
        let division = Division::new(e.samples, columns.unwrap_or(0));
        let label = |i| Some(drawn.as_ref()?[division.in_turn(i)]);
        let rows: Vec<Row> = (0..e.samples)
            .map(|i| Row::new(i as u64, label(i)))
            .collect();
        let labels: Vec<u32> = rows.iter().filter_map(|row| row.label).collect();
        let settings = Settings {
            sampler: e.sampler.parse()?,
            steps: e.steps,
            spacing: e.spacing.parse()?,
            guidance: Some(Guidance::new(e.cfg_scale)),
            seed: e.seed,
            ..Settings::default()
        };
        let plan = pipeline.plan(&settings)?;
        let artist = pipeline.artist(&plan, &settings);
        let images = artist.draw_all(&rows, &Task::Generate, e.batch_size, &mut unwatched)?;
        let values = images.as_slice().unwrap_or_default();
        let shown = picture_columns(columns) * ROWS * self.shape.len();
        let samples = values[..values.len().min(shown)].to_vec();
        let points = clipped_points(self.network, values, self.shape)?;
        let real = self.points.view();
        let mut warnings = Vec::new();
        if let Some(classes) = columns.filter(|&classes| classes > e.samples) {
            warnings.push(format!(
                "evaluate.samples: {} images are of {} of the model's {classes} classes only",
                e.samples, e.samples
            ));
        }
        let known = classes.as_ref().map(|classes| self.labels_of(classes));
        let agreement = match known {
            Some(Ok(Some(known))) => Some(knn_accuracy(
                real,
                &known,
                points.view(),
                &labels,
                e.neighbours,
            )?),
            Some(Err(differ)) => {
                warnings.push(format!("no agreement of classes: {differ}"));
                None
            }
            _ => None,
        };
        let figures = Evaluation {
            step,
            frechet: self.distance(points.view())?,
            agreement,
            coverage: coverage(real, points.view(), e.neighbours)?,
            settings: e.clone(),
            network: self.network.identity(),
        };
        Ok(Judged {
            figures,
            samples,
            classes: columns,
            warnings,
        })
    }

    /// Classes of the reference images in the numbers of a model; none where they have no classes.
    fn labels_of(&self, model: &Classes) -> std::result::Result<Option<Vec<u32>>, ClassError> {
        let Some(labels) = &self.labels else {
            return Ok(None);
        };
        let map = self.classes.map_to(model)?;
        Ok(labels.iter().map(|&label| map.get(label)).collect())
    }

    fn distance(&self, points: ArrayView2<'_, f32>) -> Result<f64> {
        let own = Statistics::from_points(points)?;
        Ok(frechet_distance(&own, &self.statistics)?)
    }

    /// A picture of samples, classes in columns.
    ///
    /// # Errors
    /// If it cannot be encoded.
    pub fn picture(
        &self,
        samples: &[f32],
        classes: Option<usize>,
    ) -> Result<dis_data::crop::Picture> {
        let (images, shape) = grid::preview(samples, self.shape);
        let layout = grid::GridLayout::new(picture_columns(classes)).enlarged(shape, 24);
        Ok(grid::render(&images, shape, layout)?)
    }
}

/// Columns of a picture of samples of so many classes.
fn picture_columns(classes: Option<usize>) -> usize {
    // More classes than a page is wide say no more than a page.
    classes.map_or(COLUMNS, |n| n.clamp(1, 16))
}

/// Features of images in [-1, 1], clipped to it as they are when stored: (images, features).
fn clipped_points(
    network: &dyn FeatureNetwork,
    images: &[f32],
    shape: ImageShape,
) -> Result<Array2<f32>> {
    let clipped: Vec<f32> = images.iter().map(|v| v.clamp(-1.0, 1.0)).collect();
    Ok(points(network, &clipped, shape)?)
}
