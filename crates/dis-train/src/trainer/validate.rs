//! The loss of images that are not trained on.

use dis_data::Dataset;
use dis_diffusion::{OnDevice, normals};
use dis_model::{Condition, ConditionKind, Ctx, ModelBackend, ModelInput};
use dis_tensor::random::Purpose;
use ndarray::Array4;

use super::Trainer;
use crate::error::{Result, TrainError};

/// Pairs of an image and a time that a loss is the mean of.
const PAIRS: usize = 256;
/// Most times that an image is looked at.
const TIMES: usize = 16;
/// Keys the noise apart from that of metrics, which number their draws from 0.
const STREAM: u64 = u64::MAX - 3;

impl<B: ModelBackend> Trainer<B> {
    /// Mean loss of the moving average on images that are not trained on, at times that are spread evenly
    /// and with the same noise at every call: figures of one run can be compared. It takes nothing from the
    /// random numbers of training.
    ///
    /// # Errors
    /// Images that cannot be read or do not fit the model, a device that failed.
    pub fn validation_loss(&self, data: &dyn Dataset) -> Result<f64> {
        let images = data.len().min(PAIRS);
        let pairs = images * (PAIRS / images.max(1)).clamp(1, TIMES);
        let (mut sum, chunk) = (0.0, self.config.batch_size.clamp(1, PAIRS));
        for start in (0..pairs).step_by(chunk) {
            let numbers: Vec<usize> = (start..(start + chunk).min(pairs)).collect();
            sum += self.loss_of(data, images, &numbers, pairs)? * numbers.len() as f64;
        }
        Ok(sum / pairs.max(1) as f64)
    }

    /// Mean loss of pairs by their numbers.
    fn loss_of(
        &self,
        data: &dyn Dataset,
        images: usize,
        numbers: &[usize],
        pairs: usize,
    ) -> Result<f64> {
        let shape = data.shape();
        let steps = self.diffusion.steps();
        let mut values = vec![0.0; numbers.len() * shape.len()];
        let (mut t, mut labels) = (Vec::new(), Vec::new());
        let chunks = values.chunks_exact_mut(shape.len().max(1));
        for (&number, image) in numbers.iter().zip(chunks) {
            data.read(number % images, false, image)?;
            labels.push(data.label(number % images).unwrap_or(0));
            t.push(((2 * number + 1) * steps / (2 * pairs)).min(steps.saturating_sub(1)));
        }
        let count = numbers.len();
        let dims = (count, shape.channels, shape.height, shape.width);
        let values = Array4::from_shape_vec(dims, values)
            .map_err(|e| TrainError::config(format!("images that are held out: {e}")))?;
        let positions: Vec<u64> = numbers.iter().map(|&number| number as u64).collect();
        let noise = normals(
            self.config.seed,
            Purpose::Metric,
            &positions,
            STREAM,
            [shape.channels, shape.height, shape.width],
        );
        let x_start = OnDevice::new(&self.backend, values);
        let noise = OnDevice::new(&self.backend, noise);
        let x_t = self.diffusion.q_sample(&x_start, &t, &noise)?;
        let classes = matches!(self.model.config().condition, ConditionKind::Classes { .. });
        let input = ModelInput {
            image: x_t.buf(),
            t: &self.diffusion.network_timesteps(&t)?,
            condition: if classes {
                Condition::Classes(&labels)
            } else {
                Condition::None
            },
            drop_path: None,
        };
        let out = self
            .model
            .forward(Ctx::new(&self.backend, &self.ema), &input)?;
        let channels = self.model.config().out_channels();
        let out_dims = [count, channels, shape.height, shape.width];
        let out = OnDevice::from_buf(&self.backend, out, out_dims)?;
        let mut sums = self.backend.zeros(2 * count);
        // The gradient is not needed; it costs next to nothing beside the network.
        self.diffusion
            .training_loss_on(&x_start, &noise, &t, &out, None, (&mut sums, 0))?;
        let terms = self.backend.download(&sums);
        Ok(self.diffusion.loss_of_sums(&terms, None)?.mean)
    }
}
