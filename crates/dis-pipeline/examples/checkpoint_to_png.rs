//! A checkpoint to a picture: three images of every class, a class in each row.
//! `cargo run --release -p dis-pipeline --example checkpoint_to_png -- model.safetensors out.png`

use dis_data::{ImageShape, grid};
use dis_pipeline::{Cpu, Pipeline, Settings};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let bundled = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../dis-cli/assets/digits.safetensors"
    );
    let checkpoint = args.next().unwrap_or_else(|| bundled.into());
    let out = args
        .next()
        .map_or_else(|| std::env::temp_dir().join("digits.png"), Into::into);

    let pipeline = Pipeline::open(&checkpoint, Cpu::new())?;
    let settings = Settings::of(Some("unipc-2".parse()?), Some(10), None);
    let classes = pipeline
        .classes()?
        .map_or(1, |classes| classes.occupied().len());
    let images = pipeline.draw(3 * classes, &[], &settings)?;

    let (count, channels, height, width) = images.dim();
    let shape = ImageShape::from([channels, height, width]);
    let bytes = grid::to_bytes(&images.into_raw_vec_and_offset().0);
    let layout = grid::GridLayout::new(3).enlarged(shape, 32);
    grid::write_png(&out, &grid::render(&bytes, shape, layout)?)?;
    println!("{count} images of {classes} classes in {}", out.display());
    Ok(())
}
