//! What samples are compared by.

use std::io::Read;

use dis_ssm::Ctx;
use dis_tensor::{Cpu, Reals};
use ndarray::Array2;
use sha2::{Digest, Sha256};

use crate::classifier::Classifier;
use crate::error::{EvalError, Result};
use dis_data::{Dataset, ImageShape};

/// What a network says of a batch of images, each part image by image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FeatureBatch {
    /// The features.
    pub features: Vec<f32>,
    /// Logits of classes.
    pub logits: Option<Vec<f32>>,
    /// Features that still say where in the image they are from.
    pub spatial: Option<Vec<f32>>,
}

/// Something that turns images into features.
pub trait FeatureNetwork {
    /// A short name, such as `pixels`.
    fn name(&self) -> String;

    /// A line that changes when the features do.
    fn identity(&self) -> String;

    /// Refuses images that it cannot take.
    ///
    /// # Errors
    /// With the reason.
    fn check(&self, shape: ImageShape) -> Result<()>;

    /// Names of the classes that its logits are of; empty where it has none.
    fn class_names(&self) -> &[String] {
        &[]
    }

    /// Why no covariance of the features of these images can be had; none if one can.
    fn no_covariance(&self, _shape: ImageShape) -> Option<String> {
        None
    }

    /// Features of `images`, (batch, channels, height, width) in [-1, 1].
    ///
    /// # Errors
    /// What the network fails with.
    fn run(&self, images: &[f32], shape: ImageShape) -> Result<FeatureBatch>;
}

impl<T: FeatureNetwork + ?Sized> FeatureNetwork for &T {
    fn name(&self) -> String {
        (**self).name()
    }

    fn identity(&self) -> String {
        (**self).identity()
    }

    fn check(&self, shape: ImageShape) -> Result<()> {
        (**self).check(shape)
    }

    fn class_names(&self) -> &[String] {
        (**self).class_names()
    }

    fn no_covariance(&self, shape: ImageShape) -> Option<String> {
        (**self).no_covariance(shape)
    }

    fn run(&self, images: &[f32], shape: ImageShape) -> Result<FeatureBatch> {
        (**self).run(images, shape)
    }
}

/// Images that a network sees at a time.
const BATCH: usize = 100;
/// Most values of an image whose pixels are features: their covariance has the square of this.
const MOST_PIXELS: usize = 4096;

/// Pixels in [0, 1], channel by channel.
#[derive(Clone, Copy, Debug)]
pub struct PixelFeatures;

impl FeatureNetwork for PixelFeatures {
    fn name(&self) -> String {
        "pixels".into()
    }

    fn identity(&self) -> String {
        "pixels in [0, 1]".into()
    }

    fn check(&self, _: ImageShape) -> Result<()> {
        Ok(())
    }

    fn no_covariance(&self, shape: ImageShape) -> Option<String> {
        (shape.len() > MOST_PIXELS).then(|| {
            format!(
                "pixels of {shape} are {} features, more than the {MOST_PIXELS} that a covariance \
                 is made of; use features of a network",
                shape.len()
            )
        })
    }

    fn run(&self, images: &[f32], _: ImageShape) -> Result<FeatureBatch> {
        Ok(FeatureBatch {
            features: images.iter().map(|v| unit(*v)).collect(),
            ..FeatureBatch::default()
        })
    }
}

/// [-1, 1] as [0, 1].
fn unit(value: f32) -> f32 {
    value.mul_add(0.5, 0.5)
}

/// The hidden layer, logits and last map of a classifier.
#[derive(Debug)]
pub struct ClassifierFeatures<'a> {
    classifier: &'a Classifier,
    cpu: &'a Cpu,
    params: Reals<Cpu>,
    identity: String,
}

impl<'a> ClassifierFeatures<'a> {
    /// A classifier, ready to run.
    ///
    /// # Errors
    /// If it has no bytes.
    pub fn new(classifier: &'a Classifier, cpu: &'a Cpu) -> Result<Self> {
        let hash = sha256_hex(classifier.to_bytes()?.as_slice())
            .map_err(|e| EvalError::config(format!("classifier: {e}")))?;
        Ok(Self {
            classifier,
            cpu,
            params: classifier.upload(cpu),
            identity: format!("classifier sha256={hash}"),
        })
    }
}

impl FeatureNetwork for ClassifierFeatures<'_> {
    fn name(&self) -> String {
        "classifier".into()
    }

    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn check(&self, shape: ImageShape) -> Result<()> {
        let takes = self.classifier.net.config().shape();
        if takes == shape {
            return Ok(());
        }
        Err(EvalError::config(format!(
            "the classifier takes images of {takes}, not of {shape}"
        )))
    }

    fn class_names(&self) -> &[String] {
        &self.classifier.info.class_names
    }

    fn run(&self, images: &[f32], _: ImageShape) -> Result<FeatureBatch> {
        let out = self
            .classifier
            .run(Ctx::new(self.cpu, &self.params), images)?;
        Ok(FeatureBatch {
            features: out.features,
            logits: Some(out.logits),
            spatial: Some(out.spatial),
        })
    }
}

/// Features of many images.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// (n, features).
    pub features: Array2<f32>,
    /// (n, classes).
    pub logits: Option<Array2<f32>>,
    /// (n, spatial features).
    pub spatial: Option<Array2<f32>>,
    /// What each image is said to be: a class of the images, not of the network.
    pub labels: Option<Vec<u32>>,
    /// Names of the classes of the images.
    pub class_names: Vec<String>,
    /// Names of the classes that the logits are of; empty where the network has none.
    pub logit_names: Vec<String>,
    /// Of the images as they were read, and their labels.
    pub sha256: String,
    /// [`FeatureNetwork::no_covariance`] of the network and the images.
    pub no_covariance: Option<String>,
}

/// Features of all images of a data set, `batch` at a time. `progress` is called with the number of
/// images of each batch.
///
/// # Errors
/// Images that the network cannot take or that cannot be read.
pub fn extract(
    network: &dyn FeatureNetwork,
    data: &dyn Dataset,
    batch: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<Features> {
    let shape = data.shape();
    network.check(shape)?;
    let mut all = FeatureBatch::default();
    let mut hash = Sha256::new();
    let mut images = Vec::new();
    for start in (0..data.len()).step_by(batch.max(1)) {
        let end = start.saturating_add(batch.max(1)).min(data.len());
        images.resize((end - start) * shape.len(), 0.0);
        for (i, image) in (start..end).zip(images.chunks_exact_mut(shape.len().max(1))) {
            data.read(i, false, image)?;
        }
        images.iter().for_each(|v| hash.update(v.to_le_bytes()));
        let out = network.run(&images, shape)?;
        all.features.extend(out.features);
        join(&mut all.logits, out.logits);
        join(&mut all.spatial, out.spatial);
        progress(end - start);
    }
    let labels: Option<Vec<u32>> = match data.num_classes() {
        Some(_) => (0..data.len()).map(|i| data.label(i)).collect(),
        None => None,
    };
    for label in labels.iter().flatten() {
        hash.update(label.to_le_bytes());
    }
    let n = data.len();
    Ok(Features {
        features: matrix(n, all.features)?,
        logits: all.logits.map(|v| matrix(n, v)).transpose()?,
        spatial: all.spatial.map(|v| matrix(n, v)).transpose()?,
        labels,
        class_names: data.class_names().to_vec(),
        logit_names: network.class_names().to_vec(),
        sha256: hex(hash),
        no_covariance: network.no_covariance(shape),
    })
}

fn join(all: &mut Option<Vec<f32>>, part: Option<Vec<f32>>) {
    match (all.as_mut(), part) {
        (Some(all), Some(part)) => all.extend(part),
        (None, part) => *all = part,
        (Some(_), None) => {}
    }
}

fn matrix(n: usize, values: Vec<f32>) -> Result<Array2<f32>> {
    let found = values.len();
    Array2::from_shape_vec((n, found / n.max(1)), values)
        .map_err(|_| EvalError::config(format!("{found} features of {n} images")))
}

/// Features of images, (n, channels, height, width) one after another: (n, features).
///
/// # Errors
/// What the network fails with.
pub fn points(
    network: &dyn FeatureNetwork,
    images: &[f32],
    shape: ImageShape,
) -> Result<Array2<f32>> {
    let size = shape.len().max(1);
    let mut features = Vec::new();
    for batch in images.chunks(BATCH * size) {
        features.extend(network.run(batch, shape)?.features);
    }
    matrix(images.len() / size, features)
}

/// Pixels of all images in [0, 1], (n, values of an image): what copies are told by.
///
/// # Errors
/// If an image cannot be read.
pub fn pixel_points(data: &dyn Dataset) -> Result<Array2<f32>> {
    let width = data.shape().len();
    let mut points = Array2::zeros((data.len(), width));
    let mut image = vec![0.0; width];
    for (i, mut row) in points.rows_mut().into_iter().enumerate() {
        data.read(i, false, &mut image)?;
        row.iter_mut().zip(&image).for_each(|(p, v)| *p = unit(*v));
    }
    Ok(points)
}

/// The SHA-256 of all that can be read, in lower-case hexadecimal.
///
/// # Errors
/// If reading fails.
pub fn sha256_hex(mut source: impl Read) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match source.read(&mut buffer)? {
            0 => return Ok(hex(hash)),
            n => hash.update(&buffer[..n]),
        }
    }
}

fn hex(hash: Sha256) -> String {
    let bytes = hash.finalize();
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
