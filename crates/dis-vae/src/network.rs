//! Encoder and decoder: residual layers, a middle with attention, and levels of resolution.

use dis_tensor::Cpu;

use crate::attention::Attention;
use crate::config::{Activation, VaeConfig};
use crate::error::{Result, VaeError};
use crate::features::{Conv, Features, Shape, Upsample};
use crate::kernel::Packed;
use crate::norm::GroupNorm;
use crate::weights::Weights;

/// Builds layers from weights that have been checked against the configuration.
struct Builder<'a> {
    weights: &'a Weights,
    config: &'a VaeConfig,
}

impl Builder<'_> {
    fn conv(&self, name: &str, shape: Shape, from: usize, to: usize) -> Result<Conv> {
        let weight = self.weights.read(&format!("{name}.weight"))?;
        let bias = self.weights.read(&format!("{name}.bias"))?;
        Ok(Conv::new(shape, &weight, &bias, [to, from]))
    }

    fn upsample(&self, name: &str, channels: usize) -> Result<Upsample> {
        let weight = self.weights.read(&format!("{name}.weight"))?;
        let bias = self.weights.read(&format!("{name}.bias"))?;
        Ok(Upsample::new(&weight, &bias, [channels, channels]))
    }

    fn norm(&self, name: &str) -> Result<GroupNorm> {
        Ok(GroupNorm {
            weight: self.weights.read(&format!("{name}.weight"))?,
            bias: self.weights.read(&format!("{name}.bias"))?,
            groups: self.config.norm_num_groups,
        })
    }

    fn resnet(&self, name: &str, from: usize, to: usize) -> Result<Residual> {
        let conv = |part: &str, shape, from| self.conv(&format!("{name}.{part}"), shape, from, to);
        Ok(Residual {
            norm1: self.norm(&format!("{name}.norm1"))?,
            conv1: conv("conv1", Shape::Same, from)?,
            norm2: self.norm(&format!("{name}.norm2"))?,
            conv2: conv("conv2", Shape::Same, to)?,
            shortcut: match from == to {
                true => None,
                false => Some(conv("conv_shortcut", Shape::Point, from)?),
            },
            act: self.config.act_fn,
        })
    }

    fn attention(&self, name: &str, channels: usize) -> Result<Attention> {
        let map = |part: &str| {
            let name = format!("{name}.{part}");
            self.conv(&name, Shape::Point, channels, channels)
        };
        Ok(Attention {
            norm: self.norm(&format!("{name}.group_norm"))?,
            q: map("to_q")?,
            k: map("to_k")?,
            v: map("to_v")?,
            out: map("to_out.0")?,
        })
    }

    fn middle(&self, name: &str, channels: usize) -> Result<Vec<Layer>> {
        let resnet = |i: usize| {
            let name = format!("{name}.resnets.{i}");
            Ok::<_, VaeError>(Layer::Residual(self.resnet(&name, channels, channels)?))
        };
        let mut layers = vec![resnet(0)?];
        if self.config.mid_block_add_attention {
            let name = format!("{name}.attentions.0");
            layers.push(Layer::Attention(self.attention(&name, channels)?));
        }
        layers.push(resnet(1)?);
        Ok(layers)
    }

    /// Residual layers of a level, with attention after each if it has it.
    fn level(
        &self,
        name: &str,
        count: usize,
        from: usize,
        to: usize,
        attention: bool,
        layers: &mut Vec<Layer>,
    ) -> Result<()> {
        for j in 0..count {
            let from = if j == 0 { from } else { to };
            let resnet = self.resnet(&format!("{name}.resnets.{j}"), from, to)?;
            layers.push(Layer::Residual(resnet));
            if attention {
                let attention = self.attention(&format!("{name}.attentions.{j}"), to)?;
                layers.push(Layer::Attention(attention));
            }
        }
        Ok(())
    }
}

/// `x + conv2(act(norm2(conv1(act(norm1(x))))))`, with a 1x1 map of x where the channels change.
#[derive(Clone, Debug)]
struct Residual {
    norm1: GroupNorm,
    conv1: Conv,
    norm2: GroupNorm,
    conv2: Conv,
    shortcut: Option<Conv>,
    act: Activation,
}

impl Residual {
    fn apply(&self, cpu: &Cpu, x: Features) -> Features {
        let normed = self.norm1.apply(cpu, &x, Some(self.act));
        let mut hidden = self.conv1.apply(cpu, &normed);
        drop(normed);
        self.norm2.apply_in_place(cpu, &mut hidden, Some(self.act));
        let mut out = match &self.shortcut {
            Some(shortcut) => shortcut.apply(cpu, &x),
            None => x,
        };
        self.conv2.add_to(cpu, &hidden, &mut out);
        out
    }
}

/// A step of the network.
#[derive(Clone, Debug)]
enum Layer {
    Residual(Residual),
    Attention(Attention),
    Conv(Conv),
    Upsample(Upsample),
}

impl Layer {
    fn apply(&self, cpu: &Cpu, mut x: Features) -> Features {
        match self {
            Self::Residual(layer) => layer.apply(cpu, x),
            Self::Conv(conv) => conv.apply(cpu, &x),
            Self::Upsample(layer) => layer.apply(cpu, &x),
            Self::Attention(layer) => {
                layer.apply(cpu, &mut x);
                x
            }
        }
    }

    /// All its numbers, in a fixed order, for a fingerprint.
    fn visit(&self, f: &mut dyn FnMut(&[f32])) {
        let mut packed = |p: &Packed| {
            for rows in [&p.rows, &p.bias] {
                f(dis_tensor::simd::Row::flat(rows));
            }
        };
        match self {
            Self::Conv(conv) => packed(&conv.packed),
            Self::Upsample(layer) => layer.packed().iter().for_each(packed),
            Self::Residual(layer) => {
                let convs = [
                    Some(&layer.conv1),
                    Some(&layer.conv2),
                    layer.shortcut.as_ref(),
                ];
                convs.into_iter().flatten().for_each(|c| packed(&c.packed));
                for norm in [&layer.norm1, &layer.norm2] {
                    f(&norm.weight);
                    f(&norm.bias);
                }
            }
            Self::Attention(layer) => {
                for conv in [&layer.q, &layer.k, &layer.v, &layer.out] {
                    packed(&conv.packed);
                }
                f(&layer.norm.weight);
                f(&layer.norm.bias);
            }
        }
    }
}

/// One half of an autoencoder.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    layers: Vec<Layer>,
    norm_out: GroupNorm,
    conv_out: Conv,
    /// The 1x1 map between encoder and latents, or latents and decoder.
    pub quant: Option<Conv>,
}

impl Network {
    pub fn encoder(weights: &Weights, config: &VaeConfig) -> Result<Self> {
        let build = Builder { weights, config };
        let blocks = &config.block_out_channels;
        let mut channels = blocks[0];
        let conv_in = build.conv("encoder.conv_in", Shape::Same, config.in_channels, channels)?;
        let mut layers = vec![Layer::Conv(conv_in)];
        for (i, &to) in blocks.iter().enumerate() {
            let name = format!("encoder.down_blocks.{i}");
            let count = config.layers_per_block;
            let attention = config.down_attention[i];
            build.level(&name, count, channels, to, attention, &mut layers)?;
            channels = to;
            if i + 1 < blocks.len() {
                let name = format!("{name}.downsamplers.0.conv");
                layers.push(Layer::Conv(build.conv(&name, Shape::Half, to, to)?));
            }
        }
        layers.extend(build.middle("encoder.mid_block", channels)?);
        let moments = 2 * config.latent_channels;
        Ok(Self {
            layers,
            norm_out: build.norm("encoder.conv_norm_out")?,
            conv_out: build.conv("encoder.conv_out", Shape::Same, channels, moments)?,
            quant: match config.use_quant_conv {
                true => Some(build.conv("quant_conv", Shape::Point, moments, moments)?),
                false => None,
            },
        })
    }

    pub fn decoder(weights: &Weights, config: &VaeConfig) -> Result<Self> {
        let build = Builder { weights, config };
        let blocks = &config.block_out_channels;
        let mut channels = blocks[blocks.len() - 1];
        let latent = config.latent_channels;
        let conv_in = build.conv("decoder.conv_in", Shape::Same, latent, channels)?;
        let mut layers = vec![Layer::Conv(conv_in)];
        layers.extend(build.middle("decoder.mid_block", channels)?);
        for (i, &to) in blocks.iter().rev().enumerate() {
            let name = format!("decoder.up_blocks.{i}");
            let count = config.layers_per_block + 1;
            let attention = config.up_attention[i];
            build.level(&name, count, channels, to, attention, &mut layers)?;
            channels = to;
            if i + 1 < blocks.len() {
                let name = format!("{name}.upsamplers.0.conv");
                layers.push(Layer::Upsample(build.upsample(&name, to)?));
            }
        }
        Ok(Self {
            layers,
            norm_out: build.norm("decoder.conv_norm_out")?,
            conv_out: build.conv(
                "decoder.conv_out",
                Shape::Same,
                channels,
                config.out_channels,
            )?,
            quant: match config.use_post_quant_conv {
                true => Some(build.conv("post_quant_conv", Shape::Point, latent, latent)?),
                false => None,
            },
        })
    }

    /// Everything but `quant`. The last activation is SiLU whatever the configuration says, as in
    /// the library.
    pub fn run(&self, cpu: &Cpu, x: Features) -> Features {
        let mut x = x;
        for layer in &self.layers {
            x = layer.apply(cpu, x);
        }
        self.norm_out
            .apply_in_place(cpu, &mut x, Some(Activation::Silu));
        self.conv_out.apply(cpu, &x)
    }

    pub fn visit(&self, f: &mut dyn FnMut(&[f32])) {
        self.layers.iter().for_each(|layer| layer.visit(f));
        f(&self.norm_out.weight);
        f(&self.norm_out.bias);
        let convs = [Some(&self.conv_out), self.quant.as_ref()];
        for conv in convs.into_iter().flatten() {
            f(dis_tensor::simd::Row::flat(&conv.packed.rows));
            f(dis_tensor::simd::Row::flat(&conv.packed.bias));
        }
    }
}
