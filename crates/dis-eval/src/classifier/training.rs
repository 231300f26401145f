//! Training a classifier.

use std::sync::Arc;

use dis_model::classes::ClassMap;
use dis_model::{Classes, Ctx};
use dis_ssm::TokenBuf;
use dis_tensor::{AdamState, AdamW, Backend, Layout, Reals, TokensMut};
use serde::{Deserialize, Serialize};

use super::file::{Classifier, ClassifierInfo};
use super::network::{ClassifierConfig, ClassifierNet};
use crate::error::{EvalError, Result};
use dis_data::{Dataset, Loader, LoaderOptions};

/// How a classifier is trained.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifierOptions {
    /// Updates.
    pub steps: u64,
    /// Images in an update.
    pub batch_size: usize,
    /// Learning rate after a warm-up of a twentieth of the steps; then half a cosine down to 0.
    pub lr: f64,
    /// AdamW's decoupled weight decay.
    pub weight_decay: f64,
    /// Mirror half of the images.
    pub flip: bool,
    /// Seed of weights and order.
    pub seed: u64,
}

impl Default for ClassifierOptions {
    fn default() -> Self {
        Self {
            steps: 1500,
            batch_size: 64,
            lr: 3e-3,
            weight_decay: 0.05,
            flip: false,
            seed: 0,
        }
    }
}

/// Images of a pass that only looks.
const TEST_BATCH: usize = 256;

/// Trains on `data`, then measures on `test`, whose classes may be some of those of `data`: they are
/// matched by name. `progress` is called after each step with its number,
/// from 1, and its loss.
///
/// # Errors
/// Data without classes, test data of another size or with other classes, a loss that is not finite.
pub fn train_classifier<B: Backend>(
    backend: &B,
    data: Arc<dyn Dataset>,
    test: &dyn Dataset,
    options: ClassifierOptions,
    progress: &mut dyn FnMut(u64, f64),
) -> Result<Classifier> {
    let refuse = |what: String| EvalError::config(format!("classifier: {what}"));
    let classes = data
        .num_classes()
        .ok_or_else(|| refuse(format!("{}: the images have no classes", data.describe())))?;
    if test.shape() != data.shape() || test.num_classes().is_none() {
        return Err(refuse(format!(
            "the test data ({}) do not fit the training data ({})",
            test.describe(),
            data.describe()
        )));
    }
    let known = Classes::named("the training data", data.class_names());
    let map = Classes::named("the test data", test.class_names())
        .without_images(test.unoccupied_classes())
        .map_to(&known)
        .map_err(|e| e.compared_for("classifier"))?;
    if options.steps == 0 || !(options.lr > 0.0 && options.lr <= 10.0) {
        return Err(refuse(format!(
            "{} steps at a learning rate of {}",
            options.steps, options.lr
        )));
    }
    let net = ClassifierNet::new(ClassifierConfig::new(data.shape(), classes))?;
    let loader = LoaderOptions {
        flip: options.flip,
        ..LoaderOptions::new(options.seed, options.batch_size)
    };
    let mut loader = Loader::new(Arc::clone(&data), loader)?;
    let mut state = State::new(backend, &net, options.seed);
    for step in 0..options.steps {
        let batch = loader.next_batch()?;
        let labels = batch.labels.as_deref().unwrap_or_default();
        let (warmup, end) = (options.steps / 20, options.steps);
        let at = (step + 1) as f64;
        let lr =
            dis_tensor::published_learning_rate(at, options.lr, 0.0, warmup as f64, end as f64);
        let loss = state.step(backend, &net, &batch.images, labels, lr, options)?;
        if !loss.is_finite() {
            return Err(refuse(format!(
                "the loss of step {} is not finite; try a lower learning rate",
                step + 1
            )));
        }
        progress(step + 1, loss);
    }
    let mut classifier = Classifier {
        params: backend.to_f32(&state.params),
        info: ClassifierInfo {
            config: net.config().clone(),
            class_names: data.class_names().to_vec(),
            test_accuracy: 0.0,
            test_images: test.len(),
            data: data.identity(),
            test_data: test.identity(),
            training: options,
        },
        net,
    };
    // Short enough to come back from its text to the bit.
    let accuracy = accuracy(backend, &classifier, test, &map)?;
    classifier.info.test_accuracy = (1e6 * accuracy).round() / 1e6;
    Ok(classifier)
}

/// Share of `data` whose largest logit is that of its label, which `map` takes to the classifier's.
fn accuracy<B: Backend>(
    backend: &B,
    classifier: &Classifier,
    data: &dyn Dataset,
    map: &ClassMap,
) -> Result<f64> {
    let params = classifier.upload(backend);
    let shape = data.shape();
    let classes = classifier.net.config().classes;
    let mut right = 0usize;
    for start in (0..data.len()).step_by(TEST_BATCH) {
        let end = (start + TEST_BATCH).min(data.len());
        let mut images = vec![0.0; (end - start) * shape.len()];
        for (i, image) in (start..end).zip(images.chunks_exact_mut(shape.len())) {
            data.read(i, false, image)?;
        }
        let out = classifier
            .net
            .forward(Ctx::new(backend, &params), &images)?;
        let logits = out.logits(backend);
        let found = logits.chunks_exact(classes).map(largest);
        right += (start..end)
            .zip(found)
            .filter(|&(i, class)| {
                let asked = data.label(i).and_then(|label| map.get(label));
                asked == Some(class as u32)
            })
            .count();
    }
    Ok(right as f64 / data.len().max(1) as f64)
}

/// Index of the largest value; the first of equal ones.
pub(crate) fn largest(values: &[f32]) -> usize {
    let mut best = 0;
    for (i, v) in values.iter().enumerate() {
        if *v > values[best] {
            best = i;
        }
    }
    best
}

/// Mean cross entropy of logits (n, classes) and its gradient, in float64.
///
/// # Errors
/// If there is not one label an image, or a label is no class.
pub(super) fn cross_entropy(
    logits: &[f32],
    classes: usize,
    labels: &[u32],
) -> Result<(f64, Vec<f32>)> {
    let wrong = labels.len() * classes != logits.len();
    if let Some(label) = labels.iter().find(|&&l| wrong || l as usize >= classes) {
        return Err(EvalError::config(format!(
            "classifier: label {label} among {} labels for {} logits of {classes} classes",
            labels.len(),
            logits.len()
        )));
    }
    let count = labels.len().max(1) as f64;
    let mut loss = 0.0;
    let mut gradient = Vec::with_capacity(logits.len());
    for (row, &label) in logits.chunks_exact(classes).zip(labels) {
        let most = f64::from(row[largest(row)]);
        let sum: f64 = row.iter().map(|v| (f64::from(*v) - most).exp()).sum();
        loss -= f64::from(row[label as usize]) - most - sum.ln();
        gradient.extend(row.iter().enumerate().map(|(class, v)| {
            let hit = f64::from(u8::from(class == label as usize));
            (((f64::from(*v) - most).exp() / sum - hit) / count) as f32
        }));
    }
    Ok((loss / count, gradient))
}

/// The arenas of a training.
struct State<B: Backend> {
    params: Reals<B>,
    grads: Reals<B>,
    m: Reals<B>,
    v: Reals<B>,
    /// Not asked for, but part of the optimizer's pass.
    ema: Reals<B>,
    norm: Reals<B>,
    updates: u64,
}

impl<B: Backend> State<B> {
    fn new(backend: &B, net: &ClassifierNet, seed: u64) -> Self {
        let start = net.table().initial(seed);
        let zeros = || backend.zeros(start.len());
        Self {
            params: backend.from_f32(&start),
            grads: zeros(),
            m: zeros(),
            v: zeros(),
            ema: zeros(),
            norm: backend.zeros(1),
            updates: 0,
        }
    }

    fn step(
        &mut self,
        backend: &B,
        net: &ClassifierNet,
        images: &[f32],
        labels: &[u32],
        lr: f64,
        options: ClassifierOptions,
    ) -> Result<f64> {
        let classes = net.config().classes;
        let out = net.forward(Ctx::new(backend, &self.params), images)?;
        let (loss, gradient) = cross_entropy(&out.logits(backend), classes, labels)?;
        let layout = Layout::dense(labels.len(), 1, classes);
        let d_logits = TokenBuf::<B>::from_f32(backend, layout, &gradient);
        let all = Layout::vector(net.table().len());
        backend.fill(TokensMut::new(&mut self.grads, all), 0.0)?;
        net.backward(
            Ctx::new(backend, &self.params),
            out.saved,
            d_logits.view(),
            &mut self.grads,
        )?;
        backend.global_norm(&self.grads, &mut self.norm)?;
        self.updates += 1;
        let state = AdamState {
            params: &mut self.params,
            grads: &self.grads,
            m: &mut self.m,
            v: &mut self.v,
            ema: &mut self.ema,
            grad_norm: &self.norm,
        };
        let step = AdamW {
            lr,
            beta1: 0.9,
            beta2: 0.99,
            eps: 1e-8,
            weight_decay: options.weight_decay,
            step: self.updates,
            grad_scale: 1.0,
            max_grad_norm: Some(1.0),
            ema_decay: 0.0,
        };
        backend.adamw(state, step)?;
        Ok(loss)
    }
}
