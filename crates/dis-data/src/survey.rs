//! What a data set holds, for people who have not trained on it yet.

use super::index::{Check, Checked, Progress};
use super::latents::compare_shards;
use super::{DataKind, DataSpec, Dataset, FolderDataset, ImageSize, Outputs, Result, open};

/// What a data set holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Survey {
    /// Good images.
    pub images: usize,
    /// Names of the classes, and how many images each has: none for those that are not occupied.
    pub classes: Vec<(String, usize)>,
    /// [`Dataset::identity`]; of a folder whose pictures are not cropped yet, that without a size.
    pub identity: String,
    /// What was looked at. Bad files are named here, and sizes of a folder's pictures.
    pub checked: Checked,
    /// Files of a folder that are no pictures by their names.
    pub others: usize,
    /// What this program wrote into a folder of pictures, which is no data.
    pub outputs: Outputs,
    /// A line for people.
    pub description: String,
}

/// Looks at everything that a specification names. Bad files are no error, unless nothing else is there.
/// A folder needs no `size`.
///
/// # Errors
/// As [`super::open_checked`], but for bad files.
pub fn survey(spec: &DataSpec, progress: Progress<'_>) -> Result<Survey> {
    match &spec.kind {
        DataKind::Folder(path) => {
            let cropped = spec.size.is_some();
            let options = DataSpec {
                size: spec.size.or(Some(ImageSize::from(1))),
                ..spec.clone()
            };
            let check = Check {
                skip_bad: true,
                ..Check::default()
            };
            let options = options.folder_options()?;
            let (data, checked) = FolderDataset::open_checked(path, &options, &check, progress)?;
            let left_out = data.left_out();
            let (others, outputs) = (left_out.other_count(), left_out.outputs());
            let (identity, description) = match cropped {
                true => (data.identity(), data.describe()),
                false => (data.identity_uncropped(), data.describe_as("pictures")),
            };
            Ok(Survey {
                identity,
                description,
                others,
                outputs,
                ..Survey::of(&data, checked)
            })
        }
        DataKind::Latents(path) => {
            let data = open(spec)?;
            let (_, checked) = compare_shards(path, progress)?;
            Ok(Survey::of(&*data, checked))
        }
        _ => Ok(Survey::of(&*open(spec)?, Checked::default())),
    }
}

impl Survey {
    fn of(data: &dyn Dataset, checked: Checked) -> Self {
        Self {
            images: data.len(),
            classes: data
                .class_names()
                .iter()
                .cloned()
                .zip(data.class_counts())
                .collect(),
            identity: data.identity(),
            description: data.describe(),
            checked,
            ..Self::default()
        }
    }
}
