//! The oracle: the autoencoder in float64, as plain loops over (channels, height, width), written
//! from the formulas. It shares nothing with the fast code but the reading of weights. Slow.

use dis_tensor::random::{Purpose, Stream};

use crate::config::{Activation, VaeConfig};
use crate::error::Result;
use crate::weights::Weights;

/// An image, (channels, height, width).
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Channels.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Values.
    pub data: Vec<f64>,
}

impl Image {
    /// From values in the order (channels, height, width).
    ///
    /// # Panics
    /// If there are more or fewer values than that.
    pub fn new([channels, height, width]: [usize; 3], data: Vec<f64>) -> Self {
        assert_eq!(data.len(), channels * height * width);
        Self {
            channels,
            height,
            width,
            data,
        }
    }

    fn from_fn(shape: [usize; 3], mut f: impl FnMut(usize, usize, usize) -> f64) -> Self {
        let mut data = Vec::with_capacity(shape.iter().product());
        for c in 0..shape[0] {
            for y in 0..shape[1] {
                for x in 0..shape[2] {
                    data.push(f(c, y, x));
                }
            }
        }
        Self::new(shape, data)
    }

    fn shape(&self) -> [usize; 3] {
        [self.channels, self.height, self.width]
    }

    /// One value.
    pub fn at(&self, c: usize, y: usize, x: usize) -> f64 {
        self.data[(c * self.height + y) * self.width + x]
    }

    /// Zero outside.
    fn padded(&self, c: usize, y: isize, x: isize) -> f64 {
        let inside = |i: isize, n: usize| (0..n as isize).contains(&i);
        if inside(y, self.height) && inside(x, self.width) {
            self.at(c, y as usize, x as usize)
        } else {
            0.0
        }
    }
}

/// Convolution with a square filter: `out(y, x) = sum w(ky, kx) in(stride y + ky - pad, ...)`.
pub fn convolve(
    image: &Image,
    weight: &[f64],
    bias: &[f64],
    side: usize,
    stride: usize,
    pad: isize,
    [height, width]: [usize; 2],
) -> Image {
    let channels = image.channels;
    Image::from_fn([bias.len(), height, width], |o, y, x| {
        let mut sum = bias[o];
        for c in 0..channels {
            for ky in 0..side {
                for kx in 0..side {
                    let (sy, sx) = (
                        (stride * y + ky) as isize - pad,
                        (stride * x + kx) as isize - pad,
                    );
                    let w = weight[((o * channels + c) * side + ky) * side + kx];
                    sum += w * image.padded(c, sy, sx);
                }
            }
        }
        sum
    })
}

/// Normalisation of groups of channels over all pixels, then weight and bias per channel.
pub fn group_norm(image: &Image, groups: usize, weight: &[f64], bias: &[f64]) -> Image {
    let size = image.channels / groups * image.height * image.width;
    let stats: Vec<(f64, f64)> = image
        .data
        .chunks(size)
        .map(|group| {
            let mean = group.iter().sum::<f64>() / size as f64;
            let variance = group.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / size as f64;
            (mean, (variance + 1e-6).sqrt())
        })
        .collect();
    Image::from_fn(image.shape(), |c, y, x| {
        let (mean, deviation) = stats[c * groups / image.channels];
        (image.at(c, y, x) - mean) / deviation * weight[c] + bias[c]
    })
}

/// The activation.
pub fn activate(act: Activation, x: f64) -> f64 {
    match act {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Relu => x.max(0.0),
        Activation::Gelu => x * 0.5 * (1.0 + libm::erf(x / 2f64.sqrt())),
        Activation::Mish => x * (x.exp().ln_1p()).tanh(),
    }
}

/// The autoencoder, reading each weight when it needs it.
#[derive(Debug)]
pub struct Oracle<'a> {
    config: &'a VaeConfig,
    weights: &'a Weights,
    rounding: bool,
}

impl<'a> Oracle<'a> {
    /// Of weights that fit a configuration.
    pub fn new(config: &'a VaeConfig, weights: &'a Weights) -> Self {
        Self {
            config,
            weights,
            rounding: false,
        }
    }

    /// Moves the result of every layer by up to a float32 rounding of its largest value, either
    /// way. How far this moves the output tells how well conditioned the network is, and so what
    /// any float32 code may be expected to reach.
    #[must_use]
    pub fn rounding(self) -> Self {
        Self {
            rounding: true,
            ..self
        }
    }

    fn layer(&self, mut image: Image) -> Image {
        if self.rounding {
            let largest = image.data.iter().fold(0.0f64, |a, x| a.max(x.abs()));
            let unit = largest * f64::from(f32::EPSILON);
            let mut stream = Stream::new(image.data.len() as u64, Purpose::Test, 0, 0);
            for x in &mut image.data {
                *x += unit * (2.0 * stream.uniform() - 1.0);
            }
        }
        image
    }

    fn read(&self, name: &str) -> Result<Vec<f64>> {
        Ok(self
            .weights
            .read(name)?
            .into_iter()
            .map(f64::from)
            .collect())
    }

    fn both(&self, name: &str) -> Result<(Vec<f64>, Vec<f64>)> {
        let weight = self.read(&format!("{name}.weight"))?;
        Ok((weight, self.read(&format!("{name}.bias"))?))
    }

    fn conv3(&self, name: &str, x: &Image) -> Result<Image> {
        let (w, b) = self.both(name)?;
        Ok(self.layer(convolve(x, &w, &b, 3, 1, 1, [x.height, x.width])))
    }

    fn conv1(&self, name: &str, x: &Image) -> Result<Image> {
        let (w, b) = self.both(name)?;
        Ok(self.layer(convolve(x, &w, &b, 1, 1, 0, [x.height, x.width])))
    }

    fn norm(&self, name: &str, x: &Image) -> Result<Image> {
        let (w, b) = self.both(name)?;
        Ok(self.layer(group_norm(x, self.config.norm_num_groups, &w, &b)))
    }

    fn norm_act(&self, name: &str, x: &Image, act: Activation) -> Result<Image> {
        let mut x = self.norm(name, x)?;
        for v in &mut x.data {
            *v = activate(act, *v);
        }
        Ok(self.layer(x))
    }

    fn resnet(&self, name: &str, x: &Image) -> Result<Image> {
        let act = self.config.act_fn;
        let h = self.norm_act(&format!("{name}.norm1"), x, act)?;
        let h = self.conv3(&format!("{name}.conv1"), &h)?;
        let h = self.norm_act(&format!("{name}.norm2"), &h, act)?;
        let mut h = self.conv3(&format!("{name}.conv2"), &h)?;
        let shortcut = if h.channels == x.channels {
            x.clone()
        } else {
            self.conv1(&format!("{name}.conv_shortcut"), x)?
        };
        for (h, x) in h.data.iter_mut().zip(shortcut.data) {
            *h += x;
        }
        Ok(h)
    }

    fn attention(&self, name: &str, x: &Image) -> Result<Image> {
        let n = self.norm(&format!("{name}.group_norm"), x)?;
        let q = self.conv1(&format!("{name}.to_q"), &n)?;
        let k = self.conv1(&format!("{name}.to_k"), &n)?;
        let v = self.conv1(&format!("{name}.to_v"), &n)?;
        let (pixels, channels) = (x.height * x.width, x.channels);
        let mut mixed = n;
        for i in 0..pixels {
            let score = |j: usize| {
                let dot: f64 = (0..channels)
                    .map(|c| q.data[c * pixels + i] * k.data[c * pixels + j])
                    .sum();
                dot / (channels as f64).sqrt()
            };
            let scores: Vec<f64> = (0..pixels).map(score).collect();
            let largest = scores.iter().fold(f64::MIN, |a, &b| a.max(b));
            let powers: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
            let sum: f64 = powers.iter().sum();
            for c in 0..channels {
                let value = |(j, p): (usize, &f64)| p * v.data[c * pixels + j];
                mixed.data[c * pixels + i] =
                    powers.iter().enumerate().map(value).sum::<f64>() / sum;
            }
        }
        let mut out = self.conv1(&format!("{name}.to_out.0"), &mixed)?;
        for (out, x) in out.data.iter_mut().zip(&x.data) {
            *out += x;
        }
        Ok(out)
    }

    fn level(&self, name: &str, count: usize, attention: bool, mut x: Image) -> Result<Image> {
        for j in 0..count {
            x = self.resnet(&format!("{name}.resnets.{j}"), &x)?;
            if attention {
                x = self.attention(&format!("{name}.attentions.{j}"), &x)?;
            }
        }
        Ok(x)
    }

    fn middle(&self, name: &str, x: &Image) -> Result<Image> {
        let mut x = self.resnet(&format!("{name}.resnets.0"), x)?;
        if self.config.mid_block_add_attention {
            x = self.attention(&format!("{name}.attentions.0"), &x)?;
        }
        self.resnet(&format!("{name}.resnets.1"), &x)
    }

    /// What the encoder gives, before the 1x1 map.
    ///
    /// # Errors
    /// If a tensor cannot be read.
    pub fn encoder_output(&self, image: &Image) -> Result<Image> {
        let mut x = self.conv3("encoder.conv_in", image)?;
        let levels = self.config.block_out_channels.len();
        for i in 0..levels {
            let name = format!("encoder.down_blocks.{i}");
            let attention = self.config.down_attention[i];
            x = self.level(&name, self.config.layers_per_block, attention, x)?;
            if i + 1 < levels {
                let (w, b) = self.both(&format!("{name}.downsamplers.0.conv"))?;
                x = convolve(&x, &w, &b, 3, 2, 0, [x.height / 2, x.width / 2]);
            }
        }
        x = self.middle("encoder.mid_block", &x)?;
        x = self.norm_act("encoder.conv_norm_out", &x, Activation::Silu)?;
        self.conv3("encoder.conv_out", &x)
    }

    /// Means and unclamped log variances of an image.
    ///
    /// # Errors
    /// If a tensor cannot be read.
    pub fn moments(&self, image: &Image) -> Result<Image> {
        let x = self.encoder_output(image)?;
        match self.config.use_quant_conv {
            true => self.conv1("quant_conv", &x),
            false => Ok(x),
        }
    }

    /// The image of a latent.
    ///
    /// # Errors
    /// If a tensor cannot be read.
    pub fn decode(&self, latent: &Image) -> Result<Image> {
        let mut x = latent.clone();
        if self.config.use_post_quant_conv {
            x = self.conv1("post_quant_conv", &x)?;
        }
        x = self.conv3("decoder.conv_in", &x)?;
        x = self.middle("decoder.mid_block", &x)?;
        let levels = self.config.block_out_channels.len();
        for i in 0..levels {
            let name = format!("decoder.up_blocks.{i}");
            let attention = self.config.up_attention[i];
            x = self.level(&name, self.config.layers_per_block + 1, attention, x)?;
            if i + 1 < levels {
                let doubled = [x.channels, 2 * x.height, 2 * x.width];
                x = Image::from_fn(doubled, |c, row, column| x.at(c, row / 2, column / 2));
                x = self.conv3(&format!("{name}.upsamplers.0.conv"), &x)?;
            }
        }
        x = self.norm_act("decoder.conv_norm_out", &x, Activation::Silu)?;
        self.conv3("decoder.conv_out", &x)
    }
}
