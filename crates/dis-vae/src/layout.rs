//! Which tensors an autoencoder has, and what shapes say about its configuration.

use std::path::Path;

use crate::config::{Activation, VaeConfig};
use crate::error::{Result, VaeError};
use crate::weights::Weights;

/// Collects names and shapes.
struct List(Vec<(String, Vec<usize>)>);

impl List {
    fn map(&mut self, name: &str, weight: Vec<usize>) {
        let out = weight[0];
        self.0.push((format!("{name}.weight"), weight));
        self.0.push((format!("{name}.bias"), vec![out]));
    }

    fn conv3(&mut self, name: &str, from: usize, to: usize) {
        self.map(name, vec![to, from, 3, 3]);
    }

    fn resnet(&mut self, name: &str, from: usize, to: usize) {
        self.map(&format!("{name}.norm1"), vec![from]);
        self.conv3(&format!("{name}.conv1"), from, to);
        self.map(&format!("{name}.norm2"), vec![to]);
        self.conv3(&format!("{name}.conv2"), to, to);
        if from != to {
            self.map(&format!("{name}.conv_shortcut"), vec![to, from, 1, 1]);
        }
    }

    fn attention(&mut self, name: &str, channels: usize) {
        self.map(&format!("{name}.group_norm"), vec![channels]);
        for map in ["to_q", "to_k", "to_v", "to_out.0"] {
            self.map(&format!("{name}.{map}"), vec![channels, channels]);
        }
    }

    fn middle(&mut self, name: &str, channels: usize, attention: bool) {
        self.resnet(&format!("{name}.resnets.0"), channels, channels);
        if attention {
            self.attention(&format!("{name}.attentions.0"), channels);
        }
        self.resnet(&format!("{name}.resnets.1"), channels, channels);
    }
}

impl VaeConfig {
    /// Names and shapes of all tensors, in the order of the computation.
    pub fn parameters(&self) -> Vec<(String, Vec<usize>)> {
        let mut list = List(Vec::new());
        let blocks = &self.block_out_channels;
        let (finest, coarsest) = (blocks[0], blocks[blocks.len() - 1]);
        let mut channels = finest;
        list.conv3("encoder.conv_in", self.in_channels, finest);
        for (i, &to) in blocks.iter().enumerate() {
            let name = format!("encoder.down_blocks.{i}");
            for j in 0..self.layers_per_block {
                list.resnet(&format!("{name}.resnets.{j}"), channels, to);
                if self.down_attention[i] {
                    list.attention(&format!("{name}.attentions.{j}"), to);
                }
                channels = to;
            }
            if i + 1 < blocks.len() {
                list.conv3(&format!("{name}.downsamplers.0.conv"), to, to);
            }
        }
        let moments = 2 * self.latent_channels;
        list.middle("encoder.mid_block", coarsest, self.mid_block_add_attention);
        list.map("encoder.conv_norm_out", vec![coarsest]);
        list.conv3("encoder.conv_out", coarsest, moments);
        if self.use_quant_conv {
            list.map("quant_conv", vec![moments, moments, 1, 1]);
        }
        if self.use_post_quant_conv {
            let latent = self.latent_channels;
            list.map("post_quant_conv", vec![latent, latent, 1, 1]);
        }
        list.conv3("decoder.conv_in", self.latent_channels, coarsest);
        list.middle("decoder.mid_block", coarsest, self.mid_block_add_attention);
        for (i, &to) in blocks.iter().rev().enumerate() {
            let name = format!("decoder.up_blocks.{i}");
            for j in 0..self.layers_per_block + 1 {
                list.resnet(&format!("{name}.resnets.{j}"), channels, to);
                if self.up_attention[i] {
                    list.attention(&format!("{name}.attentions.{j}"), to);
                }
                channels = to;
            }
            if i + 1 < blocks.len() {
                list.conv3(&format!("{name}.upsamplers.0.conv"), to, to);
            }
        }
        list.map("decoder.conv_norm_out", vec![finest]);
        list.conv3("decoder.conv_out", finest, self.out_channels);
        list.0
    }
}

/// The configuration that the shapes of a file without `config.json` say. What they cannot say is
/// as in Stable Diffusion: 32 groups, SiLU, a scaling factor of 0.18215.
pub(crate) fn infer_config(weights: &Weights, origin: &Path) -> Result<VaeConfig> {
    let dimension = |name: &str, axis: usize| -> Result<usize> {
        let shape = weights.shape(name).unwrap_or_default();
        match shape.get(axis) {
            Some(&n) if n > 0 => Ok(n),
            _ => Err(weights.error(name, "is missing, so this is no AutoencoderKL")),
        }
    };
    let has = |name: String| weights.shape(&name).is_some();
    let mut blocks = Vec::new();
    loop {
        let name = format!(
            "encoder.down_blocks.{}.resnets.0.conv1.weight",
            blocks.len()
        );
        if !blocks.is_empty() && weights.shape(&name).is_none() {
            break;
        }
        blocks.push(dimension(&name, 0)?);
    }
    let layers = (0..)
        .take_while(|j| has(format!("encoder.down_blocks.0.resnets.{j}.conv1.weight")))
        .count();
    let attention = |side: &str| -> Vec<bool> {
        (0..blocks.len())
            .map(|i| has(format!("{side}_blocks.{i}.attentions.0.to_q.weight")))
            .collect()
    };
    let config = VaeConfig {
        in_channels: dimension("encoder.conv_in.weight", 1)?,
        out_channels: dimension("decoder.conv_out.weight", 0)?,
        latent_channels: dimension("decoder.conv_in.weight", 1)?,
        layers_per_block: layers,
        norm_num_groups: 32,
        act_fn: Activation::Silu,
        down_attention: attention("encoder.down"),
        up_attention: attention("decoder.up"),
        mid_block_add_attention: has("encoder.mid_block.attentions.0.to_q.weight".into()),
        use_quant_conv: has("quant_conv.weight".into()),
        use_post_quant_conv: has("post_quant_conv.weight".into()),
        block_out_channels: blocks,
        ..VaeConfig::default()
    };
    config.check().map_err(|what| VaeError::Config {
        path: origin.to_path_buf(),
        what: format!("{what}; without a config.json the usual settings are assumed"),
    })?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_diffusions_autoencoder_has_its_83_million_parameters() {
        let parameters = VaeConfig::default().parameters();
        let count: usize = parameters
            .iter()
            .map(|(_, shape)| shape.iter().product::<usize>())
            .sum();
        assert_eq!(count, 83_653_863);
        assert_eq!(parameters.len(), 248);
    }

    #[test]
    fn shapes_tell_the_configuration() {
        for config in [
            VaeConfig {
                block_out_channels: vec![32, 64],
                layers_per_block: 1,
                latent_channels: 3,
                in_channels: 1,
                down_attention: vec![false, true],
                up_attention: vec![true, false],
                use_quant_conv: false,
                ..VaeConfig::default()
            },
            VaeConfig {
                block_out_channels: vec![64],
                layers_per_block: 3,
                down_attention: vec![false],
                up_attention: vec![false],
                mid_block_add_attention: false,
                use_post_quant_conv: false,
                ..VaeConfig::default()
            },
        ] {
            let tensors = config.parameters().into_iter().map(|(name, shape)| {
                let n = shape.iter().product();
                (name, shape, vec![0.0; n])
            });
            let weights = Weights::from_tensors(tensors).unwrap();
            assert_eq!(infer_config(&weights, Path::new("x")).unwrap(), config);
            weights.check(&config.parameters()).unwrap();
        }
    }
}
