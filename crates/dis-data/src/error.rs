//! The one error type of data sets and loaders.

use std::path::{Path, PathBuf};

use super::index::BadFile;
use dis_files::{FileError, sniff};

/// What can be wrong with a data set. Every message is one line and names the file or the setting.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// Another process writes to the same place.
    #[error(transparent)]
    Lock(#[from] dis_files::LockError),
    /// A file that cannot be read or written, or is none of a known format.
    #[error(transparent)]
    File(#[from] FileError),
    /// A data specification that cannot be understood.
    #[error("data specification {spec:?}: {what}")]
    Spec {
        /// The text as given.
        spec: String,
        /// What is wrong with it.
        what: String,
    },
    /// A file ends before its content does.
    #[error("{}: truncated: {what} need {needed} bytes but only {found} are there", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The part that is cut off.
        what: &'static str,
        /// Bytes that the part takes.
        needed: u64,
        /// Bytes that are left for it.
        found: u64,
    },
    /// Images and labels do not belong together.
    #[error(
        "{} has {image_count} images but {} has {label_count} labels",
        images.display(),
        labels.display()
    )]
    CountMismatch {
        /// File of the images.
        images: PathBuf,
        /// Images in it.
        image_count: usize,
        /// File of the labels.
        labels: PathBuf,
        /// Labels in it.
        label_count: usize,
    },
    /// A label that no class has.
    #[error("{}: label {label} of image {index} is not below the {classes} classes", path.display())]
    Label {
        /// The file.
        path: PathBuf,
        /// Position of the image in the file.
        index: usize,
        /// The label found.
        label: usize,
        /// Number of classes.
        classes: usize,
    },
    /// An image that does not decode.
    #[error("{}: cannot decode image: {}", path.display(), one_line(cause))]
    Decode {
        /// The file.
        path: PathBuf,
        /// The decoder's reason.
        cause: image::ImageError,
    },
    /// Files that cannot be used, found before they were needed.
    #[error("{}: {}; {hint}", path.display(), say_bad(bad, *of, what))]
    Bad {
        /// The folder.
        path: PathBuf,
        /// What the files are, in the plural.
        what: &'static str,
        /// All of them.
        bad: Vec<BadFile>,
        /// Files looked at.
        of: usize,
        /// What can be done.
        hint: &'static str,
    },
    /// Whoever was told of the progress wanted no more.
    #[error("stopped while the files were checked; what is known of them is kept")]
    Stopped,
    /// A folder without a single readable image.
    #[error(
        "{}: no images: expected png, jpeg, webp, bmp, tiff or gif files, or folders of them{found}",
        path.display()
    )]
    NoImages {
        /// The folder.
        path: PathBuf,
        /// What is there instead, and where pictures are; empty or beginning with a semicolon.
        found: String,
    },
    /// Images beside folders of images: it is unclear whether there are classes.
    #[error(
        "{}: mixed: image {image:?} lies beside class folder {class:?}; keep either only images \
         (no classes) or only class folders",
        path.display()
    )]
    Mixed {
        /// The folder.
        path: PathBuf,
        /// One of the images.
        image: String,
        /// One of the folders.
        class: String,
    },
    /// Nothing at a path has the shape of a known data set.
    #[error("{}: {what} not found", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
        /// What was looked for.
        what: String,
    },
    /// A path at which nothing lies.
    #[error("{}: no such {what}{hint}", shown(path))]
    NoSuch {
        /// The path.
        path: PathBuf,
        /// A file, a folder, or either.
        what: &'static str,
        /// What else was possible; empty or beginning with a comma.
        hint: &'static str,
    },
    /// An image number past the end.
    #[error("image {index} was asked for, but the data set has {len}")]
    Index {
        /// The number asked for.
        index: usize,
        /// Images in the data set.
        len: usize,
    },
    /// A setting or buffer that cannot work.
    #[error("{what}")]
    Invalid {
        /// What is wrong, naming the setting and its value.
        what: String,
    },
    /// A loader's thread ended without saying why; only a panic inside a data set can do this.
    #[error("a data loading thread stopped unexpectedly before step {step}")]
    LoaderStopped {
        /// The step that was waited for.
        step: u64,
    },
}

/// A path on one line, whatever somebody typed.
fn shown(path: &Path) -> String {
    let text = path.display().to_string();
    match text.contains(char::is_control) {
        true => text.escape_debug().to_string(),
        false => text,
    }
}

/// A decoder's reason without its line breaks.
fn one_line(cause: &image::ImageError) -> String {
    let text = cause.to_string();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Bad files that a message names.
const NAMED: usize = 10;

fn say_bad(bad: &[BadFile], of: usize, what: &str) -> String {
    let named: Vec<String> = bad.iter().take(NAMED).map(ToString::to_string).collect();
    let more = match bad.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!("; and {more} more (dis data names all)"),
    };
    let verb = if bad.len() == 1 { "is" } else { "are" };
    let count = bad.len();
    format!(
        "{count} of {of} {what} {verb} bad: {}{more}",
        named.join("; ")
    )
}

impl DataError {
    /// A file that, by its first bytes, is not what is wanted.
    pub(crate) fn kind(path: &Path, head: &[u8], wanted: &'static str) -> Self {
        let (path, found) = (path.to_path_buf(), sniff(head));
        Self::File(FileError::Kind {
            path,
            found,
            wanted,
        })
    }

    /// Attaches a path and what was tried to an operating system error.
    pub(crate) fn io(
        path: &Path,
        action: &'static str,
    ) -> impl Fn(std::io::Error) -> DataError + use<> {
        let at = FileError::io(path, action);
        move |cause| at(cause).into()
    }

    /// A file that is not of the format that its name or place promises.
    pub(crate) fn format(path: &Path, what: impl Into<String>) -> Self {
        FileError::format(path, what).into()
    }

    /// Whether the operating system refused a file operation.
    pub fn is_io(&self) -> bool {
        matches!(self, Self::File(FileError::Io { .. }))
    }
}

/// Result of data set operations.
pub type Result<T> = std::result::Result<T, DataError>;
