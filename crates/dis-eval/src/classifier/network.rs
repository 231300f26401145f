//! The network: convolutions until the map is small, a hidden layer, a head.

use dis_ssm::{Ctx, Init, Linear, ParamTable, TokenBuf};
use dis_tensor::{Accum, Backend, Layout, Reals, Tokens, View};
use serde::{Deserialize, Serialize};

use super::conv::{Conv, MapShape, NormParams, SavedConv, SavedNorm};
use super::conv::{normed_silu, normed_silu_backward};
use crate::error::{EvalError, Result};
use dis_data::ImageShape;

/// Maps are halved until they are no larger than this.
const SMALLEST: usize = 4;
/// There are at least this many convolutions.
const LEAST_LAYERS: usize = 3;
/// Largest side of images.
const LARGEST: usize = 512;
/// Channels of the last map that are spatial features; the evaluator of ADM takes 7 of 768.
const SPATIAL: usize = 16;

/// What decides the parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifierConfig {
    /// 1 or 3.
    pub channels: usize,
    /// Rows of an image.
    pub height: usize,
    /// Columns of an image.
    pub width: usize,
    /// Classes.
    pub classes: usize,
    /// Channels after the first convolution; twice as many after the others.
    pub base: usize,
    /// Width of the hidden layer: the features.
    pub features: usize,
}

impl ClassifierConfig {
    /// The usual network for images of a size.
    pub fn new(shape: ImageShape, classes: usize) -> Self {
        Self {
            channels: shape.channels,
            height: shape.height,
            width: shape.width,
            classes,
            base: 32,
            features: 128,
        }
    }

    /// Size of the images.
    pub fn shape(&self) -> ImageShape {
        ImageShape::from([self.channels, self.height, self.width])
    }

    fn check(&self) -> Result<()> {
        let refuse = |what: String| Err(EvalError::config(format!("classifier: {what}")));
        let side = self.height.max(self.width);
        if !matches!(self.channels, 1 | 3) || self.height.min(self.width) == 0 || side > LARGEST {
            return refuse(format!(
                "images of {} cannot be classified (1 or 3 channels, sides to {LARGEST})",
                self.shape()
            ));
        }
        if !(2..=100_000).contains(&self.classes) {
            return refuse(format!("{} classes; it takes at least 2", self.classes));
        }
        if !(1..=1024).contains(&self.base) || !(1..=4096).contains(&self.features) {
            return refuse(format!(
                "{} channels and {} features are out of range",
                self.base, self.features
            ));
        }
        Ok(())
    }
}

/// A network without weights.
#[derive(Debug)]
pub struct ClassifierNet {
    config: ClassifierConfig,
    table: ParamTable,
    convs: Vec<Conv>,
    hidden: Linear,
    hidden_norm: NormParams,
    head: Linear,
}

/// What a forward leaves for the backward.
pub struct SavedClassifier<B: Backend> {
    convs: Vec<SavedConv<B>>,
    /// The last map.
    map: TokenBuf<B>,
    hidden: SavedNorm<B>,
    features: TokenBuf<B>,
}

/// Where the last map, the features and the logits of a batch are.
pub struct Activations<B: Backend> {
    /// (batch, 1, classes).
    pub logits: TokenBuf<B>,
    /// What else there is.
    pub saved: SavedClassifier<B>,
}

impl ClassifierNet {
    /// Lays the network out.
    ///
    /// # Errors
    /// A configuration that cannot be built.
    pub fn new(config: ClassifierConfig) -> Result<Self> {
        config.check()?;
        let mut table = ParamTable::new();
        let mut map = MapShape {
            height: config.height,
            width: config.width,
            channels: config.channels,
        };
        let mut convs = Vec::new();
        let side = |map: MapShape| map.height.max(map.width);
        while convs.len() < LEAST_LAYERS || side(map) > SMALLEST {
            let first = convs.is_empty();
            // The first layer sees few channels, so it may keep small images whole.
            let halve = side(map) > if first { 4 * SMALLEST } else { SMALLEST };
            let channels = if first { config.base } else { 2 * config.base };
            let name = format!("convs.{}", convs.len());
            let conv = Conv::new(&mut table, &name, map, channels, 1 + usize::from(halve));
            map = conv.to;
            convs.push(conv);
        }
        let inputs = map.pixels() * map.channels;
        let (width, classes) = (config.features, config.classes);
        let init = Init::fan_in;
        let hidden = Linear::new(&mut table, "hidden", inputs, width, false, init(inputs));
        let hidden_norm = NormParams::new(&mut table, "hidden.norm", width);
        let head = Linear::new(&mut table, "head", width, classes, true, init(width));
        Ok(Self {
            config,
            table,
            convs,
            hidden,
            hidden_norm,
            head,
        })
    }

    /// What it was made from.
    pub fn config(&self) -> &ClassifierConfig {
        &self.config
    }

    /// Its parameters by name.
    pub fn table(&self) -> &ParamTable {
        &self.table
    }

    /// The last map, as one row an image.
    fn flat<B: Backend>(map: &TokenBuf<B>) -> View<'_, B> {
        let [batch, tokens, channels] = map.layout.shape();
        Tokens::new(&map.buf, Layout::dense(batch, 1, tokens * channels))
    }

    /// Runs it on `images` (batch, channels, height, width) in [-1, 1].
    ///
    /// # Errors
    /// If `images` are not whole, or an operation fails.
    pub fn forward<B: Backend>(&self, ctx: Ctx<'_, B>, images: &[f32]) -> Result<Activations<B>> {
        let backend = ctx.backend;
        let shape = self.config.shape();
        let batch = images.len() / shape.len();
        if batch * shape.len() != images.len() || batch == 0 {
            return Err(EvalError::config(format!(
                "classifier: {} values are no images of {shape}",
                images.len()
            )));
        }
        let first = MapShape {
            height: shape.height,
            width: shape.width,
            channels: shape.channels,
        };
        let mut map = Conv::input(backend, first, images, batch)?;
        let mut convs = Vec::with_capacity(self.convs.len());
        for conv in &self.convs {
            let (out, saved) = conv.forward(ctx, &map)?;
            convs.push(saved);
            map = out;
        }
        let width = self.config.features;
        let mut x = TokenBuf::dense(backend, batch, 1, width);
        self.hidden.forward(ctx, Self::flat(&map), x.view_mut())?;
        let mut features = TokenBuf::dense(backend, batch, 1, width);
        let hidden = normed_silu(ctx, self.hidden_norm, x, features.view_mut())?;
        let mut logits = TokenBuf::dense(backend, batch, 1, self.config.classes);
        self.head.forward(ctx, features.view(), logits.view_mut())?;
        let saved = SavedClassifier {
            convs,
            map,
            hidden,
            features,
        };
        Ok(Activations { logits, saved })
    }

    /// Adds the gradients of a loss whose gradient with respect to the logits is `d_logits`
    /// (batch, 1, classes).
    ///
    /// # Errors
    /// If an operation fails.
    pub fn backward<B: Backend>(
        &self,
        ctx: Ctx<'_, B>,
        saved: SavedClassifier<B>,
        d_logits: View<'_, B>,
        grads: &mut Reals<B>,
    ) -> Result<()> {
        let backend = ctx.backend;
        let features = &saved.features;
        self.head
            .backward_params(backend, features.view(), d_logits, grads)?;
        let mut d_features = TokenBuf::new(backend, features.layout);
        self.head
            .backward_input(ctx, d_logits, Accum::Replace, d_features.view_mut())?;
        let norm = self.hidden_norm;
        let dx = normed_silu_backward(ctx, norm, &saved.hidden, d_features.view(), grads)?;
        let flat = Self::flat(&saved.map);
        self.hidden
            .backward_params(backend, flat, dx.view(), grads)?;
        let mut d_map = TokenBuf::new(backend, saved.map.layout);
        let d_flat = dis_tensor::TokensMut::new(&mut d_map.buf, flat.layout);
        self.hidden
            .backward_input(ctx, dx.view(), Accum::Replace, d_flat)?;
        for (i, (conv, saved)) in self.convs.iter().zip(saved.convs).enumerate().rev() {
            let d_input = conv.backward(ctx, saved, d_map.view(), i > 0, grads)?;
            match d_input {
                Some(d_input) => d_map = d_input,
                None => break,
            }
        }
        Ok(())
    }
}

impl<B: Backend> Activations<B> {
    /// The hidden layer, (batch, features) one after the other.
    pub fn features(&self, backend: &B) -> Vec<f32> {
        backend.to_f32(&self.saved.features.buf)
    }

    /// The logits, (batch, classes) one after the other.
    pub fn logits(&self, backend: &B) -> Vec<f32> {
        backend.to_f32(&self.logits.buf)
    }

    /// The first channels of every pixel of the last map, image by image.
    pub fn spatial(&self, backend: &B) -> Vec<f32> {
        let layout = self.saved.map.layout;
        let values = backend.to_f32(&self.saved.map.buf);
        let pixels = values[..layout.elements()].chunks_exact(layout.channels.max(1));
        pixels
            .flat_map(|pixel| pixel.iter().take(SPATIAL).copied())
            .collect()
    }
}
