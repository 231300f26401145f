//! Where images go: a grid, a folder of pictures, or an `.npz` file.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use dis_data::{ImageShape, NpzImages, grid};
use dis_model::Classes;
use dis_pipeline::Row;

use crate::places::{extension, parent_exists};

use super::folder::{Folder, refuse_others};
use crate::args::SampleArgs;
use crate::memory;

/// Most bytes of a grid's images, which are held in memory.
const MOST_GRID: usize = 1 << 30;
/// Pixels that images of a grid are high at least.
const LEAST_SIDE: usize = 48;

/// What the output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// One picture of all images.
    Grid,
    /// A picture of each.
    Folder,
    /// All in one file.
    Npz,
}

/// What an output is made of.
pub struct Contents<'a> {
    /// Size of an image.
    pub shape: ImageShape,
    /// What is drawn.
    pub rows: &'a [Row],
    /// Images that a row makes.
    pub each: usize,
    /// Images in a row of a grid.
    pub columns: usize,
    /// Classes whose names become part of those of pictures.
    pub classes: Option<&'a Classes>,
    /// Everything that decides the images, a line each.
    pub settings: &'a str,
}

impl Contents<'_> {
    fn count(&self) -> usize {
        self.rows.len() * self.each
    }

    fn grid(&self) -> grid::GridLayout {
        grid::GridLayout::new(self.columns).enlarged(self.shape, LEAST_SIDE)
    }

    /// Names of the pictures in a folder: each has its number and its class.
    fn names(&self) -> Vec<String> {
        let classes = self.classes.map(Classes::file_names).unwrap_or_default();
        let name = |number: usize, row: &Row| {
            let class = row.label.and_then(|class| classes.get(class as usize));
            let class = class
                .map(|name| format!("-class{name}"))
                .unwrap_or_default();
            format!("{number:06}{class}.png")
        };
        let rows = self
            .rows
            .iter()
            .flat_map(|row| std::iter::repeat_n(row, self.each));
        rows.enumerate().map(|(i, row)| name(i, row)).collect()
    }
}

impl Target {
    /// Decides before anything is computed whether the output can be written.
    pub fn of(out: &Path, overwrite: bool) -> Result<Self> {
        let target = match extension(out).as_str() {
            "png" if !out.is_dir() => Self::Grid,
            "npz" if !out.is_dir() => Self::Npz,
            other if !other.is_empty() && !out.is_dir() => bail!(
                "--out {}: cannot write .{other}; use .png, .npz or a directory",
                out.display()
            ),
            _ => {
                std::fs::create_dir_all(out)
                    .with_context(|| format!("cannot create {}", out.display()))?;
                if !overwrite {
                    refuse_others(out)?;
                }
                return Ok(Self::Folder);
            }
        };
        parent_exists(out)?;
        Ok(target)
    }

    /// Begins the output, or continues an `.npz` file or a folder.
    pub fn open(self, args: &SampleArgs, contents: &Contents<'_>) -> Result<Sink> {
        let (out, count) = (args.out.as_path(), contents.count());
        let kind = match self {
            Self::Grid => {
                let bytes = count.saturating_mul(contents.shape.len());
                if bytes > MOST_GRID {
                    bail!(
                        "--out {}: a grid of {count} images is too large; use .npz or a directory",
                        out.display()
                    );
                }
                // The picture, and the same as it is encoded.
                let scale = contents.grid().scale as u128;
                let picture = bytes as u128 * scale * scale;
                memory::check("a grid of the images of --num", count, 3 * picture)?;
                Kind::Grid(Vec::with_capacity(bytes))
            }
            Self::Folder => {
                let names = contents.names();
                let folder = Folder::open(out, names, contents.settings, args.overwrite)?;
                Kind::Folder(folder)
            }
            Self::Npz if args.invert => {
                bail!("--out {}: --invert makes pictures only", out.display())
            }
            Self::Npz => {
                if args.overwrite {
                    NpzImages::discard(out)?;
                }
                let settings = contents.settings;
                Kind::Npz(NpzImages::open(out, contents.shape, count, settings)?)
            }
        };
        Ok(Sink {
            out: out.to_path_buf(),
            shape: contents.shape,
            each: contents.each,
            kind,
        })
    }
}

enum Kind {
    Grid(Vec<u8>),
    Folder(Folder),
    Npz(NpzImages),
}

/// An output that takes images as they come.
pub struct Sink {
    out: PathBuf,
    shape: ImageShape,
    /// Images of a row.
    each: usize,
    kind: Kind,
}

impl Sink {
    /// Numbers of the rows, of so many, whose images are not there yet.
    pub fn missing(&self, rows: usize) -> Vec<usize> {
        match &self.kind {
            Kind::Grid(_) => (0..rows).collect(),
            Kind::Folder(folder) => {
                let has = |row: &usize| {
                    (row * self.each..(row + 1) * self.each).all(|picture| folder.has(picture))
                };
                (0..rows).filter(|row| !has(row)).collect()
            }
            Kind::Npz(images) => (images.done()..rows).collect(),
        }
    }

    /// Takes the images of the rows with these numbers.
    pub fn add(&mut self, images: &[u8], rows: &[usize]) -> Result<()> {
        match &mut self.kind {
            Kind::Grid(all) => all.extend_from_slice(images),
            Kind::Folder(folder) => {
                let layout = grid::GridLayout {
                    padding: 0,
                    ..grid::GridLayout::new(1)
                };
                let pictures = rows
                    .iter()
                    .flat_map(|row| row * self.each..(row + 1) * self.each);
                for (image, picture) in images.chunks_exact(self.shape.len()).zip(pictures) {
                    let path = folder.path(picture);
                    grid::write_png(&path, &grid::render(image, self.shape, layout)?)?;
                }
            }
            Kind::Npz(npz) => npz.append(images)?,
        }
        Ok(())
    }

    /// Writes what is written at the end.
    pub fn finish(self, contents: &Contents<'_>) -> Result<()> {
        match self.kind {
            Kind::Grid(images) => {
                let picture = grid::render(&images, self.shape, contents.grid())?;
                grid::write_png(&self.out, &picture)?;
            }
            Kind::Folder(_) => {}
            Kind::Npz(npz) => {
                let labels: Option<Vec<u32>> = contents.rows.iter().map(|row| row.label).collect();
                let names = contents.classes.filter(|classes| classes.has_names());
                let names = names.map(Classes::names).unwrap_or_default();
                npz.finish(labels.as_deref(), &names)?;
            }
        }
        Ok(())
    }
}
