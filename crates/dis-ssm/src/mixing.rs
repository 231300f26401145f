//! What mixes a block's tokens: the bidirectional Mamba mixer, or self-attention for comparison.

use dis_scan::ScanBackend;
use dis_tensor::{Reals, Result, View, ViewMut};

use crate::attention::{Attention, AttentionConfig, SavedAttention};
use crate::ctx::Ctx;
use crate::mixer::{Mixer, MixerConfig, MixerInit, SavedMixer};
use crate::params::ParamTable;

/// Which, with its widths and options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MixingConfig {
    /// The bidirectional Mamba mixer.
    Mamba(MixerConfig),
    /// Attention and perceptron.
    Attention(AttentionConfig),
}

impl MixingConfig {
    /// Channels in and out.
    pub fn d_model(&self) -> usize {
        match self {
            Self::Mamba(config) => config.d_model,
            Self::Attention(config) => config.d_model,
        }
    }
}

/// The mixer of a block.
#[derive(Clone, Debug)]
pub enum Mixing {
    /// The bidirectional Mamba mixer.
    Mamba(Box<Mixer>),
    /// Attention and perceptron.
    Attention(Box<Attention>),
}

/// What it keeps for the backward.
#[derive(Debug)]
pub(crate) enum SavedMixing<B: ScanBackend> {
    Mamba(SavedMixer<B>),
    Attention(SavedAttention<B>),
}

impl Mixing {
    pub(crate) fn new(
        table: &mut ParamTable,
        prefix: &str,
        config: &MixingConfig,
        init: MixerInit,
        out_scale: f64,
    ) -> Self {
        match *config {
            MixingConfig::Mamba(config) => {
                Self::Mamba(Box::new(Mixer::new(table, prefix, config, init, out_scale)))
            }
            MixingConfig::Attention(config) => {
                Self::Attention(Box::new(Attention::new(table, prefix, config, out_scale)))
            }
        }
    }

    /// Whether it reads the residual stream beside its norm.
    pub(crate) fn reads_sum(&self) -> bool {
        matches!(self, Self::Attention(_))
    }

    /// From the residual stream `sum` and its norm to what is to be added to it.
    pub(crate) fn forward<B: ScanBackend>(
        &self,
        ctx: Ctx<'_, B>,
        sum: View<'_, B>,
        normed: View<'_, B>,
        out: ViewMut<'_, B>,
    ) -> Result<()> {
        match self {
            Self::Mamba(mixer) => mixer.forward(ctx, normed, out),
            Self::Attention(mixer) => mixer.forward(ctx, sum, normed, Some(out)).map(|_| ()),
        }
    }

    /// As [`Mixing::forward`], keeping what the backward needs; without `out` only that.
    pub(crate) fn forward_saved<B: ScanBackend>(
        &self,
        ctx: Ctx<'_, B>,
        sum: View<'_, B>,
        normed: View<'_, B>,
        out: Option<ViewMut<'_, B>>,
    ) -> Result<SavedMixing<B>> {
        Ok(match self {
            Self::Mamba(mixer) => SavedMixing::Mamba(mixer.forward_saved(ctx, normed, out)?),
            Self::Attention(mixer) => SavedMixing::Attention(mixer.forward(ctx, sum, normed, out)?),
        })
    }

    /// From `dout` to `dnormed` (overwritten); what reaches the stream past its norm is added to
    /// `dsum`, parameter gradients to `grads`.
    pub(crate) fn backward<B: ScanBackend>(
        &self,
        ctx: Ctx<'_, B>,
        saved: SavedMixing<B>,
        normed: View<'_, B>,
        dout: View<'_, B>,
        dsum: ViewMut<'_, B>,
        dnormed: ViewMut<'_, B>,
        grads: &mut Reals<B>,
    ) -> Result<()> {
        match (self, saved) {
            (Self::Mamba(mixer), SavedMixing::Mamba(saved)) => {
                mixer.backward(ctx, saved, normed, dout, dnormed, grads)
            }
            (Self::Attention(mixer), SavedMixing::Attention(saved)) => {
                mixer.backward(ctx, saved, normed, dout, dsum, dnormed, grads)
            }
            _ => Err(dis_tensor::TensorError::Invalid {
                op: "block backward",
                what: "what was saved is of another kind of mixer".into(),
            }),
        }
    }
}
