use std::path::Path;

use super::*;
use crate::{Dataset, ImageShape};
use crate::{LoaderOptions, digits, load_batch, open};

const SHAPE: ImageShape = ImageShape {
    channels: 2,
    height: 1,
    width: 3,
};

/// Latents of the first `count` digits: means count up, variances are 4.
fn encode(folder: &Path, count: usize, mirrored: bool) -> LatentIndex {
    let data = digits().unwrap();
    let all: Vec<usize> = (0..count).collect();
    let data = data.subset("some digits", &all).unwrap();
    let scales = [vec![2.0, 0.5], vec![0.0, 1.0]];
    let mut index = LatentIndex::new(&data, SHAPE, scales, "print".into(), 4, mirrored);
    for i in 0..index.shard_count() {
        let images = index.shard_images(i);
        let numbers = |offset: f32| -> Vec<f32> {
            let values = images.start * 6..images.end * 6;
            values.map(|v| v as f32 + offset).collect()
        };
        let log_var = vec![4.0f32.ln(); images.len() * 6];
        let shard = Shard {
            mean: numbers(0.0),
            log_var: log_var.clone(),
            mirrored: mirrored.then(|| (numbers(1000.0), log_var)),
            labels: images.clone().map(|i| data.label(i).unwrap()).collect(),
        };
        index.append(folder, &shard).unwrap();
        assert!(index.shard_is_whole(folder, i));
        assert_eq!(
            read_shard(&LatentIndex::shard_path(folder, i)).unwrap(),
            shard
        );
    }
    index
}

fn spec(folder: &Path, options: &str) -> crate::DataSpec {
    format!("latents:{}{options}", folder.display())
        .parse()
        .unwrap()
}

#[test]
fn what_was_written_is_read_scaled() {
    let dir = tempfile::tempdir().unwrap();
    let index = encode(dir.path(), 10, true);
    let data = open(&spec(dir.path(), ",flip")).unwrap();
    assert_eq!(
        (data.len(), data.shape(), data.num_classes()),
        (10, SHAPE, Some(10))
    );
    assert_eq!(data.latents(), Some(&index));
    let all = digits().unwrap();
    for i in 0..10 {
        let sample = data.sample(i, false).unwrap();
        assert_eq!(sample.label, all.label(i));
        let v = (6 * i) as f32;
        let scaled = [
            2.0 * v,
            2.0 * v + 2.0,
            2.0 * v + 4.0,
            0.5 * v + 1.0,
            0.5 * v + 1.5,
            0.5 * v + 2.0,
        ];
        assert_eq!(sample.image, scaled);
        assert_eq!(data.sample(i, true).unwrap().image[0], scaled[0] + 2000.0);
    }
    assert!(data.sample(10, false).is_err());
    // A folder of latents needs no prefix.
    let bare = dir.path().display().to_string().parse().unwrap();
    assert_eq!(open(&bare).unwrap().identity(), data.identity());
    let unlabelled = open(&spec(dir.path(), ",unconditional")).unwrap();
    assert_eq!(unlabelled.num_classes(), None);
    assert_ne!(unlabelled.identity(), data.identity());
}

#[test]
fn draws_have_the_stored_spread_and_follow_their_key() {
    let dir = tempfile::tempdir().unwrap();
    encode(dir.path(), 10, false);
    let data = open(&spec(dir.path(), "")).unwrap();
    let draw = |i: usize, key: u64| {
        let mut out = vec![0.0; 6];
        data.read_keyed(i, false, key, &mut out).unwrap();
        out
    };
    assert_eq!(draw(3, 1), draw(3, 1));
    assert_ne!(draw(3, 1), draw(3, 2));
    let mean = data.sample(3, false).unwrap().image;
    let (mut sum, mut squares) = ([0.0; 2], [0.0; 2]);
    let n = 4000;
    for key in 0..n {
        for (i, x) in draw(3, key).into_iter().enumerate() {
            let off = f64::from(x - mean[i]);
            sum[i / 3] += off;
            squares[i / 3] += off * off;
        }
    }
    let n = 3.0 * n as f64;
    // Standard deviation 2, times the scale of each channel.
    for (channel, deviation) in [4.0, 1.0].into_iter().enumerate() {
        assert!((sum[channel] / n).abs() < 5.0 * deviation / n.sqrt());
        let variance = squares[channel] / n / (deviation * deviation);
        assert!(
            (variance - 1.0).abs() < 5.0 * (2.0 / n).sqrt(),
            "{variance}"
        );
    }
}

#[test]
fn each_epoch_draws_anew_and_a_step_alone_gives_the_same() {
    let dir = tempfile::tempdir().unwrap();
    encode(dir.path(), 10, false);
    let data = open(&spec(dir.path(), "")).unwrap();
    let options = LoaderOptions::new(3, 10);
    let (first, second) = (
        load_batch(&*data, &options, 0).unwrap(),
        load_batch(&*data, &options, 1).unwrap(),
    );
    assert_eq!(first, load_batch(&*data, &options, 0).unwrap());
    let of = |batch: &crate::Batch, index: usize| {
        let at = batch.indices().position(|i| i == index).unwrap();
        batch.images[at * 6..at * 6 + 6].to_vec()
    };
    for i in 0..10 {
        assert_ne!(of(&first, i), of(&second, i));
    }
    let other = load_batch(&*data, &LoaderOptions::new(4, 10), 0).unwrap();
    assert_ne!(of(&first, 0), of(&other, 0));
}

#[test]
fn what_is_not_whole_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    let refused = |options: &str, part: &str| {
        let e = open(&spec(folder, options)).err().unwrap().to_string();
        assert!(e.contains(part) && !e.contains('\n'), "{e}");
    };
    refused("", "dis encode");
    let index = encode(folder, 10, false);
    refused(",flip", "--flip");
    let save = |change: &dyn Fn(&mut LatentIndex)| {
        let mut changed = index.clone();
        change(&mut changed);
        changed.save(folder).unwrap();
    };
    save(&|i| drop(i.shards.pop()));
    refused("", "2 of 3 shards");
    save(&|i| i.count = 11);
    refused("", "latents-00002");
    save(&|i| i.channels = 0);
    refused("", "0x1x3");
    save(&|i| i.scale[1] = 0.0);
    refused("", "zero");
    save(&|i| i.mirrored = true);
    refused("", "mean_mirrored");
    save(&|i| i.class_names.truncate(2));
    refused("", "label 2 of image 2");
    save(&|i| i.format = "x".into());
    refused("", "format");
    std::fs::write(folder.join(INDEX), "{}").unwrap();
    refused("", "not an index");
    save(&|_| ());
    let path = LatentIndex::shard_path(folder, 1);
    let whole = std::fs::read(&path).unwrap();
    for cut in [0, 7, 100, whole.len() - 1] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        refused("", "latents-00001");
        assert!(!index.shard_is_whole(folder, 1));
    }
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a";
    std::fs::write(&path, pointer).unwrap();
    refused("", "git lfs pull");
    std::fs::write(folder.join(INDEX), pointer).unwrap();
    refused("", "git lfs pull");
    save(&|_| ());
    std::fs::remove_file(&path).unwrap();
    refused("", "latents-00001");
}
