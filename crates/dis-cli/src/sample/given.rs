//! Images that the user gives: for image to image, inpainting and inversion.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use dis_data::{DataKind, DataSpec, Dataset, ImageShape, read_picture};
use dis_model::{Classes, DisConfig, ImageSize};
use dis_pipeline::Task;
use dis_tensor::Cpu;
use image::{ImageDecoder, ImageReader};
use ndarray::Array4;

use crate::args::SampleArgs;
use crate::decode::Decoder;
use crate::note;

/// Most given images: they are all held in memory.
const MOST: usize = 4096;

/// Images of the size that the model, or the autoencoder before it, takes.
pub enum Given {
    /// One picture.
    Picture(Vec<f32>),
    /// A data set.
    Data(Arc<dyn Dataset>),
}

/// What `--init-image` names.
pub fn open(args: &SampleArgs, shape: ImageShape) -> Result<Option<Given>> {
    let Some(text) = &args.init_image else {
        return Ok(None);
    };
    let grey = shape.channels == 1;
    let path = Path::new(text);
    if path.is_file() && !dis_data::is_data_file(path) {
        if let Some(dropped) = dropped(path, shape) {
            note!("--init-image {text}: {dropped}");
        }
        return Ok(Some(Given::Picture(read_picture(path, shape)?)));
    }
    let mut spec: DataSpec = text.parse().context("--init-image")?;
    if matches!(spec.kind, DataKind::Folder(_)) {
        spec.size = spec.size.or(Some(shape.into()));
        spec.grey = grey;
    }
    let data = dis_data::open(&spec)?;
    ensure!(
        data.shape() == shape,
        "--init-image {text}: images of {}, but this takes {shape}",
        data.shape()
    );
    Ok(Some(Given::Data(data)))
}

/// What of a picture is lost where a model draws images of another size, or in grey.
fn dropped(path: &Path, shape: ImageShape) -> Option<String> {
    // What cannot be read is refused by who reads all of it.
    let reader = ImageReader::open(path).ok()?.with_guessed_format().ok()?;
    let decoder = reader.into_decoder().ok()?;
    let (width, height) = decoder.dimensions();
    let size = (width as usize, height as usize) != (shape.width, shape.height);
    let colour = decoder.color_type().has_color() && shape.channels == 1;
    let to = format!("{}x{}", shape.width, shape.height);
    match (size, colour) {
        (false, false) => None,
        (true, false) => Some(format!("cropped and scaled from {width}x{height} to {to}")),
        (false, true) => Some("made grey, as the model draws".into()),
        (true, true) => Some(format!(
            "cropped and scaled from {width}x{height} to {to}, and made grey, as the model draws"
        )),
    }
}

impl Given {
    /// How many there are.
    pub fn count(&self) -> usize {
        match self {
            Self::Picture(_) => 1,
            Self::Data(data) => data.len().min(MOST),
        }
    }

    /// The model's classes of the first `count` of them, by name; none where a picture has none.
    pub fn labels(&self, count: usize, model: &Classes) -> Result<Vec<Option<u32>>> {
        let Self::Data(data) = self else {
            return Ok(vec![None; count]);
        };
        let map = Classes::named("--init-image", data.class_names())
            .without_images(data.unoccupied_classes())
            .map_to(model)
            .context("--invert: say with --classes what the images are")?;
        let class = |i| data.label(i).and_then(|label| map.get(label));
        Ok((0..count).map(class).collect())
    }

    /// What to do with the first `count` of them, in the space that the model works in.
    pub fn task(
        &self,
        count: usize,
        args: &SampleArgs,
        strength: f64,
        config: &DisConfig,
        decoder: Option<&Decoder>,
        cpu: &Cpu,
    ) -> Result<Task> {
        // All are read before the first is worked on, so that a broken one is found at once.
        let read = |i: usize| match self {
            Self::Picture(picture) => Ok(picture.clone()),
            Self::Data(data) => data.sample(i, false).map(|sample| sample.image),
        };
        let mut pictures = (0..count).map(read).collect::<Result<Vec<_>, _>>()?;
        if let Some(decoder) = decoder {
            for picture in &mut pictures {
                *picture = decoder.encode(cpu, std::mem::take(picture))?;
            }
        }
        let images = pictures.concat();
        let [channels, height, width] = config.image_shape();
        let images = Array4::from_shape_vec((count, channels, height, width), images)?;
        if args.invert {
            let refine = args.refine;
            return Ok(Task::Reconstruct { images, refine });
        }
        let repaint = match &args.mask {
            Some(path) => Some(mask(path, config.image_size, decoder)?),
            None => None,
        };
        Ok(Task::Change {
            images,
            strength,
            repaint,
        })
    }
}

/// 1 where a picture is white. A latent is painted anew if any of its pixels is.
fn mask(path: &Path, size: ImageSize, decoder: Option<&Decoder>) -> Result<Array4<f32>> {
    let ImageSize { height, width } = size;
    let factor = decoder.map_or(1, |decoder| decoder.shape().width / width);
    let pixels = read_picture(path, [1, height * factor, width * factor].into())?;
    let mut mask = Array4::zeros((1, 1, height, width));
    for (i, pixel) in pixels.iter().enumerate() {
        let (y, x) = (i / (width * factor), i % (width * factor));
        let cell: &mut f32 = &mut mask[[0, 0, y / factor, x / factor]];
        *cell = cell.max((pixel + 1.0) / 2.0);
    }
    ensure!(
        mask.iter().any(|&m| m > 0.0),
        "--mask {}: nothing is white, so nothing would be painted",
        path.display()
    );
    Ok(mask)
}

/// Images and their reconstructions, one beside the other.
pub fn alternate(originals: &[u8], images: &[u8], shape: ImageShape) -> Vec<u8> {
    let pairs = originals
        .chunks_exact(shape.len())
        .zip(images.chunks_exact(shape.len()));
    pairs.flat_map(|(a, b)| [a, b].concat()).collect()
}

/// Says how far reconstructions are from their images.
pub fn report(originals: &[u8], images: &[u8], shape: ImageShape) {
    let squares = |a: &[u8], b: &[u8]| -> f64 {
        let pairs = a.iter().zip(b);
        pairs
            .map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2))
            .sum()
    };
    let pairs = originals
        .chunks_exact(shape.len())
        .zip(images.chunks_exact(shape.len()));
    for (a, b) in pairs {
        let rms = (squares(a, b) / shape.len() as f64).sqrt();
        note!("reconstruction: root mean square error {rms:.2} of 255");
    }
}
