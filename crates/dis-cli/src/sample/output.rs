//! Where images go: a grid, a folder of pictures, or an `.npz` file.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use dis_data::crop::Picture;
use dis_data::grid::{self, GridLayout};
use dis_data::{ImageShape, NpzImages};
use dis_model::Classes;
use dis_pipeline::Row;

use crate::places::{extension, parent_exists};

use super::folder::{Folder, refuse_others};
use super::record::Record;
use crate::args::SampleArgs;
use crate::memory;

/// Most bytes of a grid's images, which are held in memory.
const MOST_GRID: usize = 1 << 30;
/// Pixels that images of a grid are high at least.
const LEAST_SIDE: usize = 48;

/// A picture of one image as it is.
const ALONE: GridLayout = GridLayout {
    columns: 1,
    padding: 0,
    scale: 1,
    background: 0,
};

/// What the output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// One picture of all images.
    Grid,
    /// A picture of each.
    Folder,
    /// All in one file.
    Npz,
    /// One picture of all, to be looked at by the program.
    Memory,
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
    /// What pictures say of how they were drawn.
    pub record: Option<&'a Record>,
    /// The number of the only image that is drawn of those that were asked for.
    pub only: Option<usize>,
    /// Side of a pixel in a grid.
    pub scale: Option<usize>,
    /// Whether the rows of a grid have the names of their classes.
    pub captions: bool,
}

impl Contents<'_> {
    fn count(&self) -> usize {
        self.rows.len() * self.each
    }

    /// How images are laid out in a picture: in a grid, or alone as they are.
    fn layout(&self) -> GridLayout {
        if self.only.is_some() {
            return ALONE;
        }
        let layout = GridLayout::new(self.columns);
        match self.scale {
            Some(scale) => GridLayout { scale, ..layout },
            None => layout.enlarged(self.shape, LEAST_SIDE),
        }
    }

    /// The picture of all images.
    fn picture(&self, images: &[u8]) -> Result<Picture> {
        let (layout, captions) = (self.layout(), self.captions());
        Ok(grid::render_with_captions(
            images, self.shape, layout, &captions,
        )?)
    }

    /// What stands before each row of a grid: the classes of its images, and those that they go to.
    fn captions(&self) -> Vec<String> {
        let Some(classes) = self
            .classes
            .filter(|_| self.captions && self.only.is_none())
        else {
            return Vec::new();
        };
        let rows: Vec<&Row> = self
            .rows
            .iter()
            .flat_map(|row| std::iter::repeat_n(row, self.each))
            .collect();
        let caption = |rows: &[&Row]| {
            let mut names: Vec<String> = Vec::new();
            for row in rows {
                let ends = [row.label, row.label_to.map(|(class, _)| class)];
                for name in ends.into_iter().flatten().map(|class| classes.name(class)) {
                    if !names.contains(&name) {
                        names.push(name);
                    }
                }
            }
            names.join(", ")
        };
        rows.chunks(self.columns.max(1)).map(caption).collect()
    }

    /// The text of the picture of one row's image, or of all.
    fn text(&self, row: Option<usize>) -> Result<String> {
        let Some(record) = self.record else {
            return Ok(String::new());
        };
        match self.only.or(row) {
            None => record.text(),
            Some(index) => {
                let at = if self.only.is_some() { 0 } else { index };
                let row = self
                    .rows
                    .get(at)
                    .context("an image that was not asked for")?;
                record.of_image(index, row, self.classes).text()
            }
        }
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
            Self::Grid | Self::Memory => {
                let bytes = count.saturating_mul(contents.shape.len());
                if bytes > MOST_GRID {
                    bail!(
                        "--out {}: a grid of {count} images is too large; use .npz or a directory",
                        out.display()
                    );
                }
                // The picture, and the same as it is encoded.
                let scale = contents.layout().scale as u128;
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
            written: self != Self::Memory,
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
    /// Whether a picture of all goes to a file.
    written: bool,
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
    pub fn add(&mut self, contents: &Contents<'_>, images: &[u8], rows: &[usize]) -> Result<()> {
        match &mut self.kind {
            Kind::Grid(all) => all.extend_from_slice(images),
            Kind::Folder(folder) => {
                let pictures = rows
                    .iter()
                    .flat_map(|row| row * self.each..(row + 1) * self.each);
                for (image, picture) in images.chunks_exact(self.shape.len()).zip(pictures) {
                    let path = folder.path(picture);
                    let image = grid::render(image, self.shape, ALONE)?;
                    let text = contents.text(Some(picture / self.each))?;
                    grid::write_png_with(&path, &image, &text)?;
                }
            }
            Kind::Npz(npz) => npz.append(images)?,
        }
        Ok(())
    }

    /// What there is after `done` of so many rows, where the drawing was ended.
    pub fn stopped(&self, done: usize, rows: usize) -> String {
        let (done, all) = (done * self.each, rows * self.each);
        match &self.kind {
            Kind::Grid(_) => format!("stopped after {done} of {all} images; nothing is written"),
            Kind::Folder(_) | Kind::Npz(_) => format!(
                "stopped after {done} of {all} images in {}; the same command goes on",
                self.out.display()
            ),
        }
    }

    /// Writes what is written at the end, and gives the picture that is not to be written.
    pub fn finish(self, contents: &Contents<'_>) -> Result<Option<Picture>> {
        match self.kind {
            Kind::Grid(images) => {
                let picture = contents.picture(&images)?;
                if !self.written {
                    return Ok(Some(picture));
                }
                grid::write_png_with(&self.out, &picture, &contents.text(None)?)?;
            }
            Kind::Folder(_) => {}
            Kind::Npz(npz) => {
                let labels: Option<Vec<u32>> = contents.rows.iter().map(|row| row.label).collect();
                let names = contents.classes.filter(|classes| classes.has_names());
                let names = names.map(Classes::names).unwrap_or_default();
                npz.finish(labels.as_deref(), &names)?;
            }
        }
        Ok(None)
    }
}
