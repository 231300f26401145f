//! What lies in a folder of pictures: which files are pictures, which class they are of, and what is
//! left out.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::outputs::Outputs;
use super::{DataError, Result, picture};

/// Files or folders that a message names.
const SHOWN: usize = 3;

/// The pictures of a folder in their order, and what is left out.
#[derive(Debug)]
pub(super) struct Tree {
    /// Pictures.
    pub(super) files: Vec<PathBuf>,
    /// The class of each; none if no folder is a class.
    pub(super) labels: Option<Vec<u32>>,
    /// Names of the classes.
    pub(super) class_names: Vec<String>,
    /// The rest.
    pub(super) left_out: LeftOut,
}

/// What is found in a folder and not read, with paths relative to it once all is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// Files that are no pictures.
    others: Vec<PathBuf>,
    /// Folders too deep to be read without the option, with the number of their pictures.
    deeper: Vec<(PathBuf, usize)>,
    /// What this program wrote.
    outputs: Outputs,
}

/// What lies in a folder, hidden files left out, by name.
#[derive(Debug, Default)]
struct Listing {
    images: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    left_out: LeftOut,
}

/// Finds the pictures of a folder: directly inside (no classes) or in folders inside, one folder a
/// class; with `recursive` also in the folders within those. What this program wrote is left out;
/// `drawn` tells its pictures. Where they are `samples`, they stay, and others beside them are refused.
///
/// # Errors
/// If a folder cannot be read, there are no pictures, or both pictures and class folders, or a class
/// folder has no pictures, or two have the same name.
pub(super) fn find(
    dir: &Path,
    recursive: bool,
    unconditional: bool,
    samples: bool,
    drawn: &(dyn Fn(&Path) -> bool + Sync),
) -> Result<Tree> {
    let mut root = list(dir)?;
    let mut classes = Vec::with_capacity(root.folders.len());
    for folder in std::mem::take(&mut root.folders) {
        let mut class = list(&folder)?;
        let mut seen = BTreeSet::new();
        first_visit(&folder, &mut seen);
        for deeper in std::mem::take(&mut class.folders) {
            match recursive {
                true => gather(&deeper, &mut seen, &mut class)?,
                false => count(&deeper, &mut seen, &mut class.left_out),
            }
        }
        classes.push((folder, class));
    }
    if let Some(mixture) = leave_out_drawn(&mut root, &mut classes, drawn)
        && samples
    {
        return Err(DataError::format(dir, mixture));
    }
    let (mut files, mut left_out) = (root.images, root.left_out);
    // A folder with no pictures but what this program wrote is no class.
    classes.retain(|(folder, class)| {
        // A folder that one of its commands holds, or held, may not have got further yet.
        let held = folder.join(".lock").is_file();
        let own = class.images.is_empty() && class.left_out.is_only_own(held);
        if own {
            left_out.append(class.left_out.clone());
        }
        !own
    });
    let mut labels = None;
    let mut class_names = Vec::new();
    // Without classes, deep and flat pictures may lie beside each other.
    let together = recursive && unconditional;
    let first_class = classes.iter().find(|(_, c)| !c.images.is_empty());
    if let (Some((class, _)), Some(image), false) = (first_class, files.first(), together) {
        return Err(DataError::Mixed {
            path: dir.to_path_buf(),
            image: name_of(image),
            class: name_of(class),
        });
    }
    if first_class.is_some() {
        let (mut of_class, mut names) = (Vec::new(), BTreeSet::new());
        for (label, (folder, class)) in classes.into_iter().enumerate() {
            if class.images.is_empty() && !together {
                return Err(no_images(&folder, class.left_out));
            }
            of_class.extend(std::iter::repeat_n(label as u32, class.images.len()));
            let name = name_of(&folder);
            if !names.insert(name.clone()) {
                let what = format!("has two class folders whose names read {name:?}; rename one");
                return Err(DataError::format(dir, what));
            }
            class_names.push(name);
            left_out.append(class.left_out);
            files.extend(class.images);
        }
        labels = Some(of_class);
    } else {
        for (_, class) in classes {
            left_out.append(class.left_out);
        }
    }
    if files.is_empty() {
        return Err(no_images(dir, left_out));
    }
    if unconditional {
        labels = None;
        class_names.clear();
    }
    relative(left_out.others.iter_mut(), dir);
    relative(left_out.deeper.iter_mut().map(|(path, _)| path), dir);
    Ok(Tree {
        files,
        labels,
        class_names,
        left_out,
    })
}

/// Leaves out pictures that this program drew, unless there are no others: then they are what is
/// wanted. Where there are both, says so.
fn leave_out_drawn(
    root: &mut Listing,
    classes: &mut [(PathBuf, Listing)],
    drawn: &(dyn Fn(&Path) -> bool + Sync),
) -> Option<String> {
    let listings = std::iter::once(root).chain(classes.iter_mut().map(|(_, class)| class));
    let mut found: Vec<(&mut Listing, Vec<bool>)> = listings
        .map(|listing| {
            let drawn = listing.images.par_iter().map(|path| drawn(path)).collect();
            (listing, drawn)
        })
        .collect();
    let all: usize = found.iter().map(|(_, drawn)| drawn.len()).sum();
    let own = found.iter().flat_map(|(_, drawn)| drawn);
    let own = own.filter(|d| **d).count();
    if own == all {
        return None;
    }
    for (listing, drawn) in &mut found {
        listing.left_out.outputs.drawn += drawn.iter().filter(|d| **d).count();
        let mut drawn = drawn.iter();
        listing.images.retain(|_| drawn.next() == Some(&false));
    }
    let other = found.iter().find_map(|(listing, _)| listing.images.first());
    (own > 0).then(|| {
        format!(
            "{own} of {all} pictures were drawn by dis, others such as {} were not: figures would be \
             of a mixture; move those that are not to be judged elsewhere",
            other.map(|path| name_of(path)).unwrap_or_default()
        )
    })
}

fn no_images(dir: &Path, mut left_out: LeftOut) -> DataError {
    relative(left_out.others.iter_mut(), dir);
    DataError::NoImages {
        path: dir.to_path_buf(),
        found: left_out.instead(),
    }
}

fn relative<'a>(paths: impl Iterator<Item = &'a mut PathBuf>, dir: &Path) {
    for path in paths {
        if let Ok(relative) = path.strip_prefix(dir) {
            *path = relative.to_path_buf();
        }
    }
}

/// What a folder holds itself.
fn list(dir: &Path) -> Result<Listing> {
    let mut listing = Listing::default();
    for entry in std::fs::read_dir(dir).map_err(DataError::io(dir, "read folder"))? {
        let path = entry.map_err(DataError::io(dir, "read folder"))?.path();
        if name_of(&path).starts_with('.') {
            continue;
        }
        // Follows links, as people link picture collections together.
        if path.is_dir() {
            match Outputs::of_folder(&path) {
                Some(own) => listing.left_out.outputs.add(own),
                None => listing.folders.push(path),
            }
        } else if picture::is_meant(&path) {
            listing.images.push(path);
        } else {
            listing.left_out.others.push(path);
        }
    }
    // By bytes of the names, so that every platform and locale gives the same order.
    for paths in [
        &mut listing.images,
        &mut listing.folders,
        &mut listing.left_out.others,
    ] {
        paths.sort_by(|a, b| bytes_of(a).cmp(bytes_of(b)));
    }
    Ok(listing)
}

/// Whether a folder, by its true path, is new. Links can make a folder lie within itself.
fn first_visit(dir: &Path, seen: &mut BTreeSet<PathBuf>) -> bool {
    std::fs::canonicalize(dir).is_ok_and(|path| seen.insert(path))
}

/// Adds the pictures of a folder and of those within it, each folder once.
fn gather(dir: &Path, seen: &mut BTreeSet<PathBuf>, to: &mut Listing) -> Result<()> {
    if !first_visit(dir, seen) {
        return Ok(());
    }
    let found = list(dir)?;
    to.images.extend(found.images);
    to.left_out.append(found.left_out);
    found
        .folders
        .iter()
        .try_for_each(|folder| gather(folder, seen, to))
}

/// Counts the pictures of a folder and of those within it. What cannot be read is not counted, since
/// it is left out anyway.
fn count(dir: &Path, seen: &mut BTreeSet<PathBuf>, to: &mut LeftOut) {
    if !first_visit(dir, seen) {
        return;
    }
    let Ok(found) = list(dir) else { return };
    to.outputs.add(found.left_out.outputs);
    if !found.images.is_empty() {
        to.deeper.push((dir.to_path_buf(), found.images.len()));
    }
    for folder in &found.folders {
        count(folder, seen, to);
    }
}

fn bytes_of(path: &Path) -> &[u8] {
    path.file_name().unwrap_or_default().as_encoded_bytes()
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

impl LeftOut {
    fn append(&mut self, other: Self) {
        self.others.extend(other.others);
        self.deeper.extend(other.deeper);
        self.outputs.add(other.outputs);
    }

    /// Whether there are outputs of this program, or a folder is `held` by it, and no pictures of others.
    fn is_only_own(&self, held: bool) -> bool {
        (held || !self.outputs.is_empty()) && self.deeper.is_empty()
    }

    /// Files that are no pictures.
    pub(super) fn other_count(&self) -> usize {
        self.others.len()
    }

    /// What this program wrote.
    pub(super) fn outputs(&self) -> Outputs {
        self.outputs
    }

    /// Pictures in folders that are too deep.
    fn deep_pictures(&self) -> usize {
        self.deeper.iter().map(|(_, n)| n).sum()
    }

    /// The folders that are too deep, the first by name.
    fn deep_folders(&self) -> String {
        let first = self.deeper.iter().take(1).map(|(path, _)| path);
        let first = first.map(|path| path.display().to_string());
        let first: String = first.collect();
        match self.deeper.len() {
            0 | 1 => first,
            2 => format!("{first} and 1 other folder"),
            n => format!("{first} and {} other folders", n - 1),
        }
    }

    fn other_files(&self) -> Option<String> {
        let names = self.others.iter().take(SHOWN);
        let mut names: Vec<String> = names.map(|path| path.display().to_string()).collect();
        if self.others.len() > SHOWN {
            names.push("...".into());
        }
        let files = match self.others.len() {
            0 => return None,
            1 => "1 file".to_owned(),
            n => format!("{n} files"),
        };
        Some(format!(
            "{files} could not be read as pictures: {}",
            names.join(", ")
        ))
    }

    /// For an error: what there is in place of pictures, and where those are.
    fn instead(&self) -> String {
        let mut text = String::new();
        if let Some(others) = self.other_files() {
            text = format!("; {others}");
        }
        if self.deeper.is_empty() {
            return text;
        }
        let mut parents: Vec<&Path> = Vec::new();
        for parent in self.deeper.iter().filter_map(|(path, _)| path.parent()) {
            if !parents.contains(&parent) {
                parents.push(parent);
            }
        }
        let all = parents.len();
        let parents = parents.iter().take(SHOWN);
        let parents: Vec<String> = parents.map(|path| path.display().to_string()).collect();
        let more = if all > SHOWN { " or another" } else { "" };
        format!(
            "{text}; {} pictures were found in {}: give {}{more}, or the option recursive",
            self.deep_pictures(),
            self.deep_folders(),
            parents.join(" or ")
        )
    }
}

/// As the end of a description; empty if nothing is left out.
impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.deeper.is_empty() {
            write!(
                f,
                ", {} pictures in {} left out (the option recursive reads them)",
                self.deep_pictures(),
                self.deep_folders()
            )?;
        }
        if let Some(others) = self.other_files() {
            write!(f, ", {others}")?;
        }
        match self.outputs.is_empty() {
            true => Ok(()),
            false => write!(f, "; {}", self.outputs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn find(dir: &Path, recursive: bool, unconditional: bool) -> Result<Tree> {
        super::find(dir, recursive, unconditional, false, &|_| false)
    }

    fn pictures(dir: &Path, files: &[&str]) {
        for file in files {
            let path = dir.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            // Known by its first bytes, so any name will do.
            let png = image::GrayImage::new(2, 2);
            png.save_with_format(path, image::ImageFormat::Png).unwrap();
        }
    }

    fn names(dir: &Path, tree: &Tree) -> Vec<String> {
        let files = tree.files.iter().map(|f| f.strip_prefix(dir).unwrap());
        files.map(|f| f.display().to_string()).collect()
    }

    #[test]
    fn deeper_pictures_are_counted_and_read_where_asked() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        let files = ["a/0.png", "a/more/1", "a/more/deep/2.png", "b/0.png"];
        pictures(dir, &files);
        let tree = find(dir, false, false).unwrap();
        assert_eq!(names(dir, &tree), ["a/0.png", "b/0.png"]);
        let text =
            ", 2 pictures in a/more and 1 other folder left out (the option recursive reads them)";
        assert_eq!(tree.left_out.to_string(), text);
        let tree = find(dir, true, false).unwrap();
        assert_eq!(names(dir, &tree), files);
        assert_eq!(tree.labels.as_deref(), Some(&[0, 0, 0, 1][..]));
        assert_eq!(
            (tree.class_names.as_slice(), tree.left_out.to_string()),
            (&["a".to_owned(), "b".into()][..], String::new())
        );
        // A folder whose pictures all lie deeper is a class only with the option.
        pictures(dir, &["c/deep/0.png"]);
        let e = find(dir, false, false).unwrap_err().to_string();
        assert!(
            e.contains("/c: no images") && e.contains("1 pictures were found in"),
            "{e}"
        );
        assert_eq!(find(dir, true, false).unwrap().class_names.len(), 3);
        // Flat pictures beside them have no class.
        pictures(dir, &["0.png"]);
        assert!(matches!(
            find(dir, true, false),
            Err(DataError::Mixed { .. })
        ));
        let tree = find(dir, true, true).unwrap();
        assert_eq!((tree.files.len(), tree.labels), (6, None));
    }

    #[test]
    fn pictures_too_deep_for_any_class_are_pointed_to() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        pictures(
            dir,
            &["train/cat/0.png", "train/dog/0.png", "train/dog/1.png"],
        );
        let e = find(dir, false, false).unwrap_err().to_string();
        let train = dir.join("train").display().to_string();
        let found = format!(
            "; 3 pictures were found in {train}/cat and 1 other folder: give {train}, or the option recursive"
        );
        assert!(e.ends_with(&found), "{e}");
        pictures(dir, &["val/cat/0.png"]);
        let e = find(dir, false, false).unwrap_err().to_string();
        assert!(e.contains(&format!("give {train} or ")), "{e}");
        assert_eq!(
            find(dir, true, false).unwrap().class_names,
            ["train", "val"]
        );
    }

    #[cfg(unix)]
    #[test]
    fn links_that_lead_back_end() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        pictures(dir, &["a/0.png", "a/b/1.png"]);
        for link in ["a/up", "a/b/up", "a/b/top"] {
            std::os::unix::fs::symlink(dir, dir.join(link)).unwrap();
        }
        let tree = find(dir, true, false).unwrap();
        // The links show the whole folder once more, and what was seen is not seen again.
        assert_eq!(names(dir, &tree), ["a/0.png", "a/b/1.png"]);
        assert!(find(dir, false, false).unwrap().left_out.deep_pictures() >= 1);
    }

    #[cfg(unix)]
    #[test]
    fn odd_names_are_read_and_confusable_classes_refused() {
        use std::os::unix::ffi::OsStrExt;
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        let odd = |bytes: &[u8]| dir.join(std::ffi::OsStr::from_bytes(bytes));
        pictures(dir, &["x.png/0.JPG"]);
        pictures(&odd(b"caf\xe9"), &["0.png"]);
        let tree = find(dir, false, false).unwrap();
        assert_eq!(tree.class_names, ["caf\u{fffd}", "x.png"]);
        pictures(&odd(b"caf\xe8"), &["0.png"]);
        let e = find(dir, false, false).unwrap_err().to_string();
        assert!(e.contains("rename one"), "{e}");
    }
}
