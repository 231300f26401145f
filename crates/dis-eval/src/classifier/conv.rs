//! A 3 x 3 convolution, LayerNorm over channels and SiLU, on token matrices (a token is a pixel).
//!
//! Windows are looked up rather than computed: [`Backend::gather`] takes the nine tokens around each
//! output from the table of all tokens, whose last row is zero and stands for what lies outside;
//! then the convolution is one matrix product, and its adjoint is [`Backend::scatter_add`].

use dis_ssm::{Ctx, Init, Linear, Param, ParamTable, TokenBuf};
use dis_tensor::{
    Accum, AddNorm, AddNormBackward, Backend, Layout, Norm, NormGrads, NormKind, Reals, Result,
    Tokens, TokensMut, View,
};

/// Pixels of a window.
const TAPS: usize = 9;
pub(super) const EPS: f64 = 1e-5;

/// Weight and bias of a LayerNorm.
#[derive(Clone, Copy, Debug)]
pub(super) struct NormParams {
    weight: Param,
    bias: Param,
}

impl NormParams {
    pub fn new(table: &mut ParamTable, name: &str, channels: usize) -> Self {
        Self {
            weight: table.add(format!("{name}.weight"), &[channels], Init::Ones),
            bias: table.add(format!("{name}.bias"), &[channels], Init::Zeros),
        }
    }

    fn norm<'a, Bf>(&self, params: &'a Bf) -> Norm<'a, Bf> {
        Norm {
            kind: NormKind::Layer,
            eps: EPS,
            weight: Some(self.weight.view(params)),
            bias: Some(self.bias.view(params)),
            shift_scale: None,
        }
    }
}

/// What [`normed_silu`] leaves for its backward.
pub(super) struct SavedNorm<B: Backend> {
    x: TokenBuf<B>,
    stats: TokenBuf<B>,
    normed: TokenBuf<B>,
}

/// `silu(norm(x))` into `out`, of the shape of `x`.
pub(super) fn normed_silu<B: Backend>(
    ctx: Ctx<'_, B>,
    norm: NormParams,
    x: TokenBuf<B>,
    out: TokensMut<'_, Reals<B>>,
) -> Result<SavedNorm<B>> {
    let Ctx { backend, params } = ctx;
    let [batch, tokens, _] = x.layout.shape();
    let mut stats = TokenBuf::dense(backend, batch, tokens, 2);
    let mut normed = TokenBuf::new(backend, x.layout);
    backend.add_norm(AddNorm {
        residual: None,
        hidden: x.view(),
        hidden_scale: None,
        norm: norm.norm(params),
        sum: None,
        stats: Some(stats.view_mut()),
        out: normed.view_mut(),
    })?;
    backend.silu(normed.view(), out)?;
    Ok(SavedNorm { x, stats, normed })
}

/// Gradient of the `x` of [`normed_silu`]; adds those of its parameters.
pub(super) fn normed_silu_backward<B: Backend>(
    ctx: Ctx<'_, B>,
    norm: NormParams,
    saved: &SavedNorm<B>,
    d_out: View<'_, B>,
    grads: &mut Reals<B>,
) -> Result<TokenBuf<B>> {
    let Ctx { backend, params } = ctx;
    let layout = saved.x.layout;
    let mut d_normed = TokenBuf::new(backend, layout);
    backend.silu_backward(saved.normed.view(), d_out, d_normed.view_mut())?;
    let mut dx = TokenBuf::new(backend, layout);
    let parameters = NormGrads {
        arena: grads,
        weight: Some(norm.weight.offset),
        bias: Some(norm.bias.offset),
    };
    backend.add_norm_backward(AddNormBackward {
        x: saved.x.view(),
        stats: saved.stats.view(),
        norm: norm.norm(params),
        dout: d_normed.view(),
        accum: Accum::Replace,
        dx: dx.view_mut(),
        grads: Some(parameters),
        d_shift_scale: None,
    })?;
    Ok(dx)
}

/// Rows, columns and channels of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MapShape {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
}

impl MapShape {
    pub fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// The tokens of a batch of maps.
    pub fn layout(&self, batch: usize) -> Layout {
        Layout::dense(batch, self.pixels(), self.channels)
    }
}

/// The layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conv {
    linear: Linear,
    norm: NormParams,
    pub from: MapShape,
    pub to: MapShape,
    stride: usize,
}

/// What the forward leaves for the backward.
pub(super) struct SavedConv<B: Backend> {
    windows: TokenBuf<B>,
    ids: B::Buf<u32>,
    norm: SavedNorm<B>,
}

impl Conv {
    pub fn new(
        table: &mut ParamTable,
        name: &str,
        from: MapShape,
        channels: usize,
        stride: usize,
    ) -> Self {
        let inputs = TAPS * from.channels;
        let to = MapShape {
            height: from.height.div_ceil(stride),
            width: from.width.div_ceil(stride),
            channels,
        };
        let init = Init::fan_in(inputs);
        Self {
            linear: Linear::new(table, name, inputs, channels, false, init),
            norm: NormParams::new(table, &format!("{name}.norm"), channels),
            from,
            to,
            stride,
        }
    }

    /// A map of the layer's output with the row of zeros behind it, contents unspecified but that.
    fn table<B: Backend>(backend: &B, shape: MapShape, batch: usize) -> Result<TokenBuf<B>> {
        let len = (batch * shape.pixels() + 1) * shape.channels;
        let mut map = TokenBuf {
            buf: backend.alloc(len),
            layout: shape.layout(batch),
        };
        let last = Layout::vector(shape.channels).at(len - shape.channels);
        backend.fill(TokensMut::new(&mut map.buf, last), 0.0)?;
        Ok(map)
    }

    /// The tokens of images (batch, channels, height, width), as the first layer takes them.
    pub fn input<B: Backend>(
        backend: &B,
        shape: MapShape,
        images: &[f32],
        batch: usize,
    ) -> Result<TokenBuf<B>> {
        let pixels = shape.pixels();
        let mut tokens = vec![0.0; (batch * pixels + 1) * shape.channels];
        for (b, image) in images.chunks_exact(pixels * shape.channels).enumerate() {
            for (c, plane) in image.chunks_exact(pixels).enumerate() {
                for (p, value) in plane.iter().enumerate() {
                    tokens[(b * pixels + p) * shape.channels + c] = *value;
                }
            }
        }
        Ok(TokenBuf::from_f32(backend, shape.layout(batch), &tokens))
    }

    /// Row of the table for each tap of each output.
    fn ids(&self, batch: usize) -> Vec<u32> {
        let (from, to) = (self.from, self.to);
        let outside = (batch * from.pixels()) as u32;
        let mut ids = Vec::with_capacity(batch * to.pixels() * TAPS);
        for b in 0..batch {
            for (y, x) in (0..to.height).flat_map(|y| (0..to.width).map(move |x| (y, x))) {
                for (dy, dx) in (0..3).flat_map(|dy| (0..3).map(move |dx| (dy, dx))) {
                    // One less than the row in an image with a border of one pixel.
                    let row = (y * self.stride + dy).checked_sub(1);
                    let column = (x * self.stride + dx).checked_sub(1);
                    let inside = row
                        .zip(column)
                        .filter(|&(r, c)| r < from.height && c < from.width);
                    ids.push(inside.map_or(outside, |(r, c)| {
                        (b * from.pixels() + r * from.width + c) as u32
                    }));
                }
            }
        }
        ids
    }

    pub fn forward<B: Backend>(
        &self,
        ctx: Ctx<'_, B>,
        input: &TokenBuf<B>,
    ) -> Result<(TokenBuf<B>, SavedConv<B>)> {
        let backend = ctx.backend;
        let batch = input.layout.batch;
        let ids = backend.upload(&self.ids(batch));
        let rows = batch * self.to.pixels();
        let channels = self.from.channels;
        let windows = backend.alloc(rows * TAPS * channels);
        let mut windows = TokenBuf {
            buf: windows,
            layout: Layout::matrix(rows, TAPS * channels),
        };
        let taps = Layout::dense(rows * TAPS, 1, channels);
        backend.gather(
            Tokens::new(&input.buf, self.table_layout(batch)),
            &ids,
            TokensMut::new(&mut windows.buf, taps),
        )?;
        let mut x = TokenBuf::new(backend, self.to.layout(batch));
        self.linear.forward(ctx, windows.view(), x.view_mut())?;
        let mut out = Self::table(backend, self.to, batch)?;
        let norm = normed_silu(ctx, self.norm, x, out.view_mut())?;
        Ok((out, SavedConv { windows, ids, norm }))
    }

    fn table_layout(&self, batch: usize) -> Layout {
        Layout::matrix(batch * self.from.pixels() + 1, self.from.channels)
    }

    /// Adds the gradients of the parameters. The gradient of the input, unless not `wanted`.
    pub fn backward<B: Backend>(
        &self,
        ctx: Ctx<'_, B>,
        saved: SavedConv<B>,
        d_out: View<'_, B>,
        wanted: bool,
        grads: &mut Reals<B>,
    ) -> Result<Option<TokenBuf<B>>> {
        let backend = ctx.backend;
        let batch = d_out.layout.batch;
        let dx = normed_silu_backward(ctx, self.norm, &saved.norm, d_out, grads)?;
        self.linear
            .backward_params(backend, saved.windows.view(), dx.view(), grads)?;
        if !wanted {
            return Ok(None);
        }
        let mut d_windows = TokenBuf::new(backend, saved.windows.layout);
        self.linear
            .backward_input(ctx, dx.view(), Accum::Replace, d_windows.view_mut())?;
        let table = self.table_layout(batch);
        let mut d_input = TokenBuf {
            buf: backend.zeros(table.elements()),
            layout: self.from.layout(batch),
        };
        let taps = Layout::dense(batch * self.to.pixels() * TAPS, 1, self.from.channels);
        backend.scatter_add(
            Tokens::new(&d_windows.buf, taps),
            &saved.ids,
            TokensMut::new(&mut d_input.buf, table),
        )?;
        Ok(Some(d_input))
    }
}
