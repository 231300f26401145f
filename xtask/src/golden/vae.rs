//! "vae": an autoencoder encodes and decodes.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use dis_tensor::Cpu;
use dis_vae::oracle::{Image, Oracle};
use dis_vae::{Posterior, Vae, VaeConfig, Weights};
use ndarray::{Array4, ArrayView4, Axis};

use super::case::{Case, Rule};
use dis_golden::Tensor;

/// Encodes and decodes: with the fast code, or with the naive one in float64.
struct Runner {
    vae: Vae,
    config: VaeConfig,
    weights: Weights,
    cpu: Option<Cpu>,
}

impl Runner {
    fn each(
        &self,
        images: ArrayView4<'_, f32>,
        f: impl Fn(&Oracle<'_>, &Image) -> dis_vae::Result<Image>,
    ) -> Result<Array4<f32>> {
        let oracle = Oracle::new(&self.config, &self.weights);
        let (batch, c, h, w) = images.dim();
        let mut values = Vec::new();
        let mut shape = [0; 3];
        for image in images.axis_iter(Axis(0)) {
            let image = Image::new([c, h, w], image.iter().map(|&x| f64::from(x)).collect());
            let out = f(&oracle, &image)?;
            shape = [out.channels, out.height, out.width];
            values.extend(out.data.iter().map(|&x| x as f32));
        }
        let [c, h, w] = shape;
        Ok(Array4::from_shape_vec((batch, c, h, w), values)?)
    }

    fn encoder_output(&self, images: ArrayView4<'_, f32>) -> Result<Array4<f32>> {
        match &self.cpu {
            Some(cpu) => Ok(self.vae.encoder_output(cpu, images)?),
            None => self.each(images, |o, x| o.encoder_output(x)),
        }
    }

    fn moments(&self, images: ArrayView4<'_, f32>) -> Result<Array4<f32>> {
        match &self.cpu {
            Some(cpu) => Ok(self.vae.moments(cpu, images)?),
            None => self.each(images, |o, x| o.moments(x)),
        }
    }

    fn decode(&self, latents: ArrayView4<'_, f32>) -> Result<Array4<f32>> {
        match &self.cpu {
            Some(cpu) => Ok(self.vae.decode(cpu, latents)?),
            None => self.each(latents, |o, z| o.decode(z)),
        }
    }
}

fn array(tensor: &Tensor) -> Result<Array4<f32>> {
    let [b, c, h, w] = tensor.shape[..] else {
        anyhow::bail!("shape {:?} is not one of images", tensor.shape)
    };
    Ok(Array4::from_shape_vec((b, c, h, w), tensor.f32())?)
}

fn flat(x: &Array4<f32>) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// "vae". `naive` computes in float64 with plain loops.
pub fn vae(case: &Case, naive: bool) -> Result<()> {
    let rule = Rule::OfLargest(case.tolerance(&["rtol"])?);
    let file: PathBuf = case.manifest.dir.join(case.text("weights")?);
    let weights = Weights::open(&file)?;
    let config = VaeConfig::from_map(case.object("config")?).map_err(anyhow::Error::msg)?;
    if case.key("config_file").is_some() {
        let path = case.manifest.dir.join(case.text("config_file")?);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let stored = VaeConfig::from_json(&text, &path)?;
        ensure!(
            stored == config,
            "{} is not the manifest's config",
            path.display()
        );
        // As users open it.
        let folder = path.parent().context("a file without folder")?;
        let opened = Vae::open(folder)?;
        ensure!(
            *opened.config() == config,
            "{} opens differently",
            folder.display()
        );
    }
    let run = Runner {
        vae: Vae::new(config.clone(), &weights)?,
        config,
        weights,
        cpu: (!naive).then(Cpu::new),
    };

    if let Some(x) = case.find("x") {
        let x = array(x)?;
        let moments = run.moments(x.view())?;
        let posterior = Posterior::from_moments(moments.view());
        case.expect("moments", &flat(&moments), rule)?;
        case.expect("mean", &flat(&posterior.mean), rule)?;
        case.expect("logvar", &flat(&posterior.log_var), rule)?;
        if case.has("encoder_out_before_quant_conv") {
            let name = "encoder_out_before_quant_conv";
            case.expect(name, &flat(&run.encoder_output(x.view())?), rule)?;
        }
        if let Some(noise) = case.find("posterior_noise") {
            let sample = posterior.sample(array(noise)?.view())?;
            case.expect("sample", &flat(&sample), rule)?;
            if case.has("decode_sample") {
                let decoded = run.decode(sample.view())?;
                case.expect("decode_sample", &flat(&decoded), rule)?;
            }
        }
        if case.has("mode") {
            case.expect("mode", &flat(&posterior.mean), rule)?;
        }
        if case.has("decode_mean") {
            let decoded = run.decode(posterior.mean.view())?;
            case.expect("decode_mean", &flat(&decoded), rule)?;
        }
    }
    if let Some(z) = case.find("z") {
        let decoded = run.decode(array(z)?.view())?;
        case.expect("decode_z", &flat(&decoded), rule)?;
    }
    Ok(())
}
