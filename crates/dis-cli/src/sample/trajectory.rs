//! How images come out of the noise: `--trajectory`.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use dis_data::{ImageShape, grid};
use ndarray::{Array4, s};

use crate::places::{extension, parent_exists};

/// Moments in a strip.
const MOMENTS: usize = 10;
/// Images in a strip.
const ROWS: usize = 8;
/// Images in an animation.
const ANIMATED: usize = 64;
/// Moments of an animation.
const FRAMES: usize = 100;
/// Latents take long to decode, so fewer are shown.
const FEW: usize = 4;
/// Milliseconds of a frame, and of the last one.
const DELAY: (u16, u16) = (60, 2000);

/// Keeps some moments of the first batch.
pub struct Recorder {
    path: PathBuf,
    animated: bool,
    rows: usize,
    step: usize,
    frames: Vec<Vec<f32>>,
}

impl Recorder {
    /// What `--trajectory` asks for.
    pub fn open(path: Option<&Path>, latent: bool) -> Result<Option<Self>> {
        let Some(path) = path else { return Ok(None) };
        let animated = match extension(path).as_str() {
            "png" => false,
            "apng" => true,
            _ => bail!(
                "--trajectory {}: use .png for a strip or .apng for an animation",
                path.display()
            ),
        };
        parent_exists(path)?;
        let rows = match (latent, animated) {
            (true, _) => FEW,
            (false, true) => ANIMATED,
            (false, false) => ROWS,
        };
        Ok(Some(Self {
            path: path.to_path_buf(),
            animated,
            rows,
            step: 0,
            frames: Vec::new(),
        }))
    }

    /// Called after every of `steps` steps; keeps evenly spread ones, the last among them.
    pub fn record(
        &mut self,
        sample: impl FnOnce() -> Result<Array4<f32>>,
        steps: usize,
    ) -> Result<()> {
        let most = if self.animated { FRAMES } else { MOMENTS }.min(steps.max(1));
        let before = self.step * most / steps.max(1);
        self.step += 1;
        if self.step * most / steps.max(1) > before {
            let sample = sample()?;
            let rows = self.rows.min(sample.dim().0);
            let shown = sample.slice(s![..rows, .., .., ..]);
            self.frames.push(shown.iter().copied().collect());
        }
        Ok(())
    }

    /// Writes the file. `pictures` turns what the model works on into bytes.
    pub fn write(
        self,
        pictures: impl Fn(Vec<f32>) -> Result<Vec<u8>>,
        shape: ImageShape,
    ) -> Result<()> {
        let frames: Result<Vec<Vec<u8>>> = self.frames.into_iter().map(pictures).collect();
        let frames = frames?;
        let layout = |columns| grid::GridLayout::new(columns).enlarged(shape, 48);
        if self.animated {
            let render = |frame: &Vec<u8>| {
                let count = frame.len() / shape.len();
                grid::render(frame, shape, layout(count.isqrt().max(1)))
            };
            let frames: Result<Vec<_>, _> = frames.iter().map(render).collect();
            grid::write_apng(&self.path, &frames?, DELAY)?;
            return Ok(());
        }
        // A row of the strip is one image over time.
        let rows = frames.first().map_or(0, Vec::len) / shape.len();
        let mut strip = Vec::new();
        for row in 0..rows {
            for frame in &frames {
                strip.extend_from_slice(&frame[row * shape.len()..(row + 1) * shape.len()]);
            }
        }
        grid::write_png(
            &self.path,
            &grid::render(&strip, shape, layout(frames.len()))?,
        )?;
        Ok(())
    }
}
