//! Writes coloured shapes of 32 x 32 pixels to train on, a folder for each shape and colour:
//! `cargo run -p dis-data --example shapes -- shapes/ 200`, then `dis train --data shapes/ --for 20m`.

use std::path::{Path, PathBuf};

use dis_data::crop::Picture;
use dis_data::grid::write_unmarked_png;
use dis_tensor::random::{Purpose, Stream};

const SIDE: usize = 32;
/// Points of a pixel, along each side.
const FINE: usize = 4;

type Inside = fn(f64, f64) -> bool;

/// Whether a point is inside a shape that reaches from -1 to 1.
const SHAPES: [(&str, Inside); 4] = [
    ("circle", |x, y| x * x + y * y < 1.0),
    ("square", |x, y| x.abs().max(y.abs()) < 0.85),
    ("triangle", |x, y| y < 0.8 && y > 2.0 * x.abs() - 1.0),
    ("cross", |x, y| {
        x.abs().min(y.abs()) < 0.35 && x.abs().max(y.abs()) < 1.0
    }),
];

const COLOURS: [(&str, [f64; 3]); 4] = [
    ("red", [220.0, 50.0, 40.0]),
    ("green", [60.0, 180.0, 70.0]),
    ("blue", [50.0, 90.0, 220.0]),
    ("yellow", [235.0, 205.0, 60.0]),
];

/// One shape at a place, of a size and on a shade of grey that its number decides.
fn draw(inside: Inside, colour: [f64; 3], number: u64) -> Picture {
    let mut random = Stream::new(0, Purpose::Test, number, 0);
    let mut between = |low: f64, high: f64| low + (high - low) * random.uniform();
    let radius = between(7.0, 12.0);
    let room = SIDE as f64 - 2.0 * radius;
    let (left, top) = (radius + between(0.0, room), radius + between(0.0, room));
    let ground = between(20.0, 60.0);
    let shade = between(0.9, 1.05);
    let mut bytes = Vec::new();
    for pixel in 0..SIDE * SIDE {
        let covered = (0..FINE * FINE).filter(|point| {
            let at = |pixel: usize, point: usize| pixel as f64 + (point as f64 + 0.5) / FINE as f64;
            let x = (at(pixel % SIDE, point % FINE) - left) / radius;
            let y = (at(pixel / SIDE, point / FINE) - top) / radius;
            inside(x, y)
        });
        let share = covered.count() as f64 / (FINE * FINE) as f64;
        bytes.extend(colour.map(|c| (ground + share * (shade * c - ground)) as u8));
    }
    Picture {
        height: SIDE,
        width: SIDE,
        channels: 3,
        bytes,
    }
}

/// Writes `count` shapes, the kinds in turn.
fn write(out: &Path, count: usize) -> Result<(), Box<dyn std::error::Error>> {
    let kinds = SHAPES
        .iter()
        .flat_map(|shape| COLOURS.iter().map(move |colour| (shape, colour)));
    let kinds: Vec<_> = kinds.collect();
    for (i, ((shape, inside), (name, colour))) in kinds.iter().cycle().take(count).enumerate() {
        let folder = out.join(format!("{name} {shape}"));
        std::fs::create_dir_all(&folder)?;
        let picture = draw(*inside, *colour, i as u64);
        write_unmarked_png(&folder.join(format!("{i:04}.png")), &picture)?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let count = |text: String| text.parse::<usize>();
    match (args.next(), args.next().map(count).transpose()?) {
        (Some(out), found) => write(&PathBuf::from(out), found.unwrap_or(200)),
        // Run without arguments, as tests do, it shows that it works.
        (None, _) => {
            let dir = tempfile::tempdir()?;
            write(dir.path(), 20)?;
            let data = dis_data::open(&format!("folder:{},size=8", dir.path().display()).parse()?)?;
            println!("{}", data.describe());
            Ok(())
        }
    }
}
