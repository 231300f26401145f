//! Where images go: a grid, a folder of pictures, or an `.npz` file.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use dis_data::{ImageShape, NpzImages, grid};
use dis_model::Classes;
use dis_pipeline::Row;

use crate::args::SampleArgs;

/// Most bytes of a grid, which is held in memory.
const MOST_GRID: usize = 1 << 30;

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

impl Target {
    /// Decides before anything is computed whether the output can be written.
    pub fn of(out: &Path) -> Result<Self> {
        let target = match out.extension().and_then(|e| e.to_str()) {
            Some("png") if !out.is_dir() => Self::Grid,
            Some("npz") if !out.is_dir() => Self::Npz,
            Some(other) if !out.is_dir() => bail!(
                "--out {}: cannot write .{other}; use .png, .npz or a directory",
                out.display()
            ),
            _ => {
                std::fs::create_dir_all(out)
                    .with_context(|| format!("cannot create {}", out.display()))?;
                return Ok(Self::Folder);
            }
        };
        parent_exists(out)?;
        Ok(target)
    }

    /// Begins, or continues an `.npz` file. Names of `classes` become part of those of pictures.
    pub fn open(
        self,
        out: &Path,
        shape: ImageShape,
        count: usize,
        args: &SampleArgs,
        classes: Option<&Classes>,
        settings: &str,
    ) -> Result<Sink> {
        let kind = match self {
            Self::Grid => {
                let bytes = count.saturating_mul(shape.len());
                if bytes > MOST_GRID {
                    bail!(
                        "--out {}: a grid of {count} images is too large; use .npz or a directory",
                        out.display()
                    );
                }
                Kind::Grid(Vec::with_capacity(bytes))
            }
            Self::Folder => Kind::Folder {
                next: 0,
                names: classes.map(Classes::file_names).unwrap_or_default(),
            },
            Self::Npz if args.invert => {
                bail!("--out {}: --invert makes pictures only", out.display())
            }
            Self::Npz => Kind::Npz(NpzImages::open(
                out,
                shape,
                count,
                args.batch_size,
                settings,
            )?),
        };
        Ok(Sink {
            out: out.to_path_buf(),
            shape,
            kind,
        })
    }
}

/// Refuses a file in a directory that is not there.
pub fn parent_exists(file: &Path) -> Result<()> {
    let parent = file.parent().filter(|p| !p.as_os_str().is_empty());
    if let Some(parent) = parent.filter(|p| !p.is_dir()) {
        bail!("{}: there is no such directory", parent.display());
    }
    Ok(())
}

enum Kind {
    Grid(Vec<u8>),
    /// With the number of the next image, and what file names call each class.
    Folder {
        next: usize,
        names: Vec<String>,
    },
    Npz(NpzImages),
}

/// An output that takes images as they come.
pub struct Sink {
    out: PathBuf,
    shape: ImageShape,
    kind: Kind,
}

impl Sink {
    /// Images that are there already.
    pub fn done(&self) -> usize {
        match &self.kind {
            Kind::Npz(images) => images.done(),
            _ => 0,
        }
    }

    /// Takes the images of a batch: one for each row, or as many for each.
    pub fn add(&mut self, images: &[u8], rows: &[Row]) -> Result<()> {
        match &mut self.kind {
            Kind::Grid(all) => all.extend_from_slice(images),
            Kind::Folder { next, names } => {
                let layout = grid::GridLayout {
                    padding: 0,
                    ..grid::GridLayout::new(1)
                };
                let each = images.len() / self.shape.len() / rows.len().max(1);
                for (i, image) in images.chunks_exact(self.shape.len()).enumerate() {
                    let label = rows.get(i / each.max(1)).and_then(|row| row.label);
                    let name = label.and_then(|class| names.get(class as usize));
                    let class = name.map(|name| format!("-class{name}")).unwrap_or_default();
                    let path = self.out.join(format!("{next:06}{class}.png"));
                    grid::write_png(&path, &grid::render(image, self.shape, layout)?)?;
                    *next += 1;
                }
            }
            Kind::Npz(npz) => npz.append(images)?,
        }
        Ok(())
    }

    /// Writes what is written at the end.
    pub fn finish(self, columns: usize, rows: &[Row]) -> Result<()> {
        match self.kind {
            Kind::Grid(images) => {
                let layout = grid::GridLayout::new(columns).enlarged(self.shape, 48);
                let picture = grid::render(&images, self.shape, layout)?;
                grid::write_png(&self.out, &picture)?;
            }
            Kind::Folder { .. } => {}
            Kind::Npz(npz) => {
                let labels: Option<Vec<u32>> = rows.iter().map(|row| row.label).collect();
                npz.finish(labels.as_deref())?;
            }
        }
        Ok(())
    }
}
