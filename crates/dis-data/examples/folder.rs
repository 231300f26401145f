//! Reads a folder of pictures with a class in each subfolder, and one batch of it in training's order.
//! `cargo run -p dis-data --example folder -- photos/,size=32`

use std::sync::Arc;

use dis_data::crop::Picture;
use dis_data::{Loader, LoaderOptions, grid, open};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let made = tempfile::tempdir()?;
    let spec = match std::env::args().nth(1) {
        Some(spec) => spec,
        None => {
            // Two classes of four plain pictures each.
            for (class, level) in [("dark", 40u8), ("light", 200)] {
                std::fs::create_dir(made.path().join(class))?;
                for i in 0..4u8 {
                    let picture = Picture {
                        height: 40,
                        width: 30,
                        channels: 3,
                        bytes: vec![level + 10 * i; 3 * 40 * 30],
                    };
                    grid::write_png(&made.path().join(class).join(format!("{i}.png")), &picture)?;
                }
            }
            format!("{},size=16", made.path().display())
        }
    };
    let data = open(&spec.parse()?)?;
    println!("{}: classes {:?}", data.describe(), data.class_names());
    let batch = 4.min(data.len());
    let mut loader = Loader::new(Arc::clone(&data), LoaderOptions::new(0, batch))?;
    let batch = loader.next_batch()?;
    println!("labels of the first batch: {:?}", batch.labels);
    assert!(batch.images.iter().all(|x| (-1.0..=1.0).contains(x)));
    Ok(())
}
