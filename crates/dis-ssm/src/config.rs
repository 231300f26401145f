//! Widths, options and initialisation of a mixer.

use dis_scan::Discretization;
use dis_tensor::Layout;

/// Widths and options of a mixer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MixerConfig {
    /// Channels in and out.
    pub d_model: usize,
    /// Channels inside.
    pub d_inner: usize,
    /// States of each channel.
    pub d_state: usize,
    /// Width of the convolution, 2 to 4.
    pub d_conv: usize,
    /// Rank of the step's projection.
    pub dt_rank: usize,
    /// Whether in_proj and out_proj have a bias.
    pub bias: bool,
    /// Whether the convolutions have a bias.
    pub conv_bias: bool,
    /// Discretisation of B.
    pub discretization: Discretization,
}

impl MixerConfig {
    /// Mamba's defaults: expansion 2, 16 states, convolution of 4, rank `ceil(d_model / 16)`.
    pub fn new(d_model: usize) -> Self {
        Self {
            d_model,
            d_inner: 2 * d_model,
            d_state: 16,
            d_conv: 4,
            dt_rank: d_model.div_ceil(16),
            bias: false,
            conv_bias: true,
            discretization: Discretization::Mamba,
        }
    }

    /// Columns of x_proj's output: dt, B, C.
    pub fn x_proj_width(&self) -> usize {
        self.dt_rank + 2 * self.d_state
    }

    /// How (dt, B, C) lie in memory: rows padded and shifted so that B, and with 16 states C too,
    /// start at a multiple of 16.
    pub(crate) fn x_proj_layout(&self, batch: usize, tokens: usize) -> Layout {
        let start = self.dt_rank.next_multiple_of(16) - self.dt_rank;
        let width = self.x_proj_width();
        Layout::padded(batch, tokens, width, (start + width).next_multiple_of(16)).at(start)
    }
}

/// Choices at initialisation where the published code has an oversight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MixerInit {
    /// Draw `dt_proj_b.bias` like `dt_proj.bias`. The published code zeroes it (the flag that
    /// protects the forward bias is missing), so that the reverse direction starts with steps near
    /// 0.69 instead of 0.001 to 0.1.
    pub repaired_reverse_step: bool,
}
