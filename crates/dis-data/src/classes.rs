//! Which classes of a data set have images. Files number their classes, and numbers may begin at 1
//! or leave gaps; a model is then never trained on some of its classes.

use super::Dataset;

/// Runs of classes that a message shows.
const SHOWN: usize = 8;

/// A line on the classes without images, such as "998 of 1000 classes have no image: 1 to 998";
/// nothing if every class has one.
pub fn describe_unoccupied(data: &dyn Dataset) -> Option<String> {
    let missing = data.unoccupied_classes();
    let names = data.class_names();
    let name = |class: u32| names.get(class as usize).map_or("?", String::as_str);
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &class in &missing {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == class => *last = class,
            _ => runs.push((class, class)),
        }
    }
    let shown = runs
        .iter()
        .take(SHOWN)
        .map(|&(first, last)| match last - first {
            0 => name(first).to_owned(),
            1 => format!("{}, {}", name(first), name(last)),
            _ => format!("{} to {}", name(first), name(last)),
        });
    let shown = shown.collect::<Vec<_>>().join(", ");
    let more = if runs.len() > SHOWN { ", ..." } else { "" };
    let have = if missing.len() == 1 { "has" } else { "have" };
    let (missing, all) = (missing.len(), names.len());
    (missing > 0).then(|| format!("{missing} of {all} classes {have} no image: {shown}{more}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ImageShape, MemoryDataset};

    fn said(labels: &[u32], classes: u32) -> Option<String> {
        let shape = ImageShape::from([1, 1, 1]);
        let names = (0..classes).map(|c| c.to_string()).collect();
        let (pixels, labels) = (vec![0; labels.len()], Some(labels.to_vec()));
        let data = MemoryDataset::new("x", shape, 255, pixels, labels, names).unwrap();
        let counts = data.class_counts();
        assert_eq!(counts.iter().sum::<usize>(), data.len());
        let empty = counts.iter().filter(|&&n| n == 0).count();
        assert_eq!(empty, data.unoccupied_classes().len());
        describe_unoccupied(&data)
    }

    #[test]
    fn classes_without_images_are_named() {
        let text = |labels: &[u32], classes| said(labels, classes).unwrap();
        assert_eq!(said(&[2, 0, 1, 1], 3), None);
        assert_eq!(text(&[1, 2, 3], 4), "1 of 4 classes has no image: 0");
        assert_eq!(
            text(&[0, 999], 1000),
            "998 of 1000 classes have no image: 1 to 998"
        );
        assert_eq!(
            text(&[1, 4], 7),
            "5 of 7 classes have no image: 0, 2, 3, 5, 6"
        );
        let many: Vec<u32> = (0..20).map(|i| 2 * i + 1).collect();
        assert!(text(&many, 40).ends_with(": 0, 2, 4, 6, 8, 10, 12, 14, ..."));
        let data = crate::digits().unwrap().without_labels();
        assert_eq!(describe_unoccupied(&data), None);
        assert!(data.class_counts().is_empty());
    }
}
