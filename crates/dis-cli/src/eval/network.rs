//! The network whose features are compared.

use anyhow::Result;
#[cfg(not(feature = "onnx"))]
use anyhow::bail;
use dis_data::ImageShape;
use dis_eval::classifier::Classifier;
use dis_eval::{ClassifierFeatures, FeatureNetwork, PixelFeatures};
use dis_tensor::Cpu;

use super::args::{EvalArgs, FeatureSpec};

/// A network that was read.
pub enum Network {
    /// None.
    Pixels,
    /// A classifier of ours.
    Classifier(Box<Classifier>),
    /// Any other.
    #[cfg(feature = "onnx")]
    Onnx(Box<super::onnx::OnnxFeatures>),
}

impl Network {
    /// What `--features` names.
    pub fn open(args: &EvalArgs) -> Result<Self> {
        Ok(match &args.features {
            FeatureSpec::Pixels => Self::Pixels,
            FeatureSpec::Classifier(path) => Self::Classifier(Box::new(Classifier::load(path)?)),
            #[cfg(feature = "onnx")]
            FeatureSpec::Onnx(path) => {
                Self::Onnx(Box::new(super::onnx::OnnxFeatures::open(path, args)?))
            }
            #[cfg(not(feature = "onnx"))]
            FeatureSpec::Onnx(_) => {
                bail!("--features onnx: this build reads no ONNX files (cargo feature `onnx`)")
            }
        })
    }

    /// The only size of images that it takes.
    pub fn shape(&self) -> Option<ImageShape> {
        match self {
            Self::Classifier(classifier) => Some(classifier.net.config().shape()),
            _ => None,
        }
    }

    /// It, ready to run.
    pub fn build<'a>(
        &'a self,
        _args: &EvalArgs,
        cpu: &'a Cpu,
    ) -> Result<Box<dyn FeatureNetwork + 'a>> {
        Ok(match self {
            Self::Pixels => Box::new(PixelFeatures),
            Self::Classifier(classifier) => Box::new(ClassifierFeatures::new(classifier, cpu)?),
            #[cfg(feature = "onnx")]
            Self::Onnx(onnx) => Box::new(onnx.as_ref()),
        })
    }
}
