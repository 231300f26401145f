//! Valid files of every format, and what reads them.

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use dis_data::{
    DataSpec, Dataset, FolderDataset, FolderOptions, ImageShape, LatentDataset, LatentIndex,
    NpzImages, Shard, digits, open_cifar10, open_idx, read_npz, read_shard,
};
use dis_files::torch::TorchFile;
use dis_files::zip::ZipWriter;
use dis_files::{ElementType, NpyHeader};
use dis_model::checkpoint::{Entry, InferHints, WeightFile, config_from_json, read_tensors};
use dis_model::{Checkpoint, ConditionKind, DisConfig, DisModel, Metadata};
use dis_train::config::RunConfig;
use flate2::Compression;
use flate2::write::GzEncoder;
use image::{ExtendedColorType, ImageEncoder, RgbImage};
use tempfile::TempDir;

/// Memory of any reader: buffers, and the description of a small model.
const READER: usize = 128 << 10;

/// What reads files of a format.
pub trait Reader {
    /// Reads all there is.
    fn read(&self, bytes: &[u8]) -> Result<(), String>;

    /// Most memory for a file of this length: eight times its bytes and what any reader needs.
    fn most_memory(&self, len: usize) -> usize {
        READER + 8 * len
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn file(path: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn small() -> Checkpoint {
    let mut config = DisConfig::new(8, 4, 1, 8, 2);
    config.condition = ConditionKind::Classes {
        num_classes: 3,
        null_label: true,
    };
    let model = DisModel::new(config).unwrap();
    Checkpoint {
        weights: model.table().initial(1),
        model,
        metadata: Metadata::new(config),
    }
}

pub fn torch_seeds() -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let ours = dir.path().join("x.pt");
    small().save_torch(&ours).unwrap();
    vec![
        file("../dis-files/tests/data/types.pt"),
        file("../dis-files/tests/data/protocol4.pt"),
        file("../../tests/golden/checkpoint_tiny.pt"),
        fs::read(&ours).unwrap(),
    ]
}

/// PyTorch files: every tensor of every entry, and the model if it is one.
pub struct Torch;

impl Reader for Torch {
    fn read(&self, bytes: &[u8]) -> Result<(), String> {
        let origin = Path::new("x");
        let mut torch = TorchFile::new(Cursor::new(bytes), origin).map_err(text)?;
        let _ = torch.values("args");
        for (name, _) in torch.entries() {
            for tensor in torch.tensors(&name).map_err(text)? {
                torch.read(&tensor).map_err(text)?;
            }
        }
        match WeightFile::new(Cursor::new(bytes), origin, &Entry::Auto) {
            // A valid file that holds no model, as some of the seeds.
            Err(_) => Ok(()),
            Ok(file) if !file.tensors().iter().any(|t| t.name == "pos_embed") => Ok(()),
            Ok(file) => Checkpoint::read(file, &hints()).map(|_| ()).map_err(text),
        }
    }

    /// Descriptions of tensors are larger in memory than in a file of tiny tensors.
    fn most_memory(&self, len: usize) -> usize {
        READER + 16 * len
    }
}

fn hints() -> InferHints {
    InferHints {
        null_label: Some(true),
        ..InferHints::default()
    }
}

pub fn safetensors_seeds() -> Vec<Vec<u8>> {
    let ours = small();
    let bare = dis_model::checkpoint::serialize_arena(ours.model.table(), &ours.weights, None);
    vec![
        ours.to_bytes().unwrap(),
        bare.unwrap(),
        file("../../tests/golden/causal_conv1d.safetensors"),
    ]
}

/// Safetensors: all tensors, and the model if it is one.
pub struct Safetensors;

impl Reader for Safetensors {
    fn read(&self, bytes: &[u8]) -> Result<(), String> {
        let (_, tensors) = read_tensors(bytes, Path::new("x")).map_err(text)?;
        if !tensors.iter().any(|t| t.name == "pos_embed") {
            return Ok(());
        }
        drop(tensors);
        Checkpoint::from_bytes(bytes, Path::new("x"), &hints())
            .map(|_| ())
            .map_err(text)
    }
}

pub fn picture_seeds() -> Vec<Vec<u8>> {
    let picture = RgbImage::from_fn(23, 17, |x, y| {
        image::Rgb([x as u8 * 11, y as u8 * 15, (x * y) as u8])
    });
    let mut seeds = Vec::new();
    let encode = |color: ExtendedColorType, bytes: &[u8]| {
        let mut out = Vec::new();
        image::codecs::png::PngEncoder::new(&mut out)
            .write_image(bytes, 23, 17, color)
            .unwrap();
        out
    };
    let grey: Vec<u8> = picture.pixels().map(|p| p.0[0]).collect();
    let deep: Vec<u8> = grey.iter().flat_map(|&g| [g, 255 - g]).collect();
    seeds.push(encode(ExtendedColorType::Rgb8, &picture));
    seeds.push(encode(ExtendedColorType::L8, &grey));
    seeds.push(encode(ExtendedColorType::L16, &deep));
    let mut jpeg = Vec::new();
    image::codecs::jpeg::JpegEncoder::new(&mut jpeg)
        .write_image(&picture, 23, 17, ExtendedColorType::Rgb8)
        .unwrap();
    seeds.push(jpeg);
    seeds
}

/// PNG and JPEG through a folder of pictures.
pub struct Pictures(TempDir);

impl Pictures {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

impl Reader for Pictures {
    fn read(&self, bytes: &[u8]) -> Result<(), String> {
        fs::write(self.0.path().join("x.png"), bytes).unwrap();
        let folder = FolderDataset::open(self.0.path(), &FolderOptions::new(8)).map_err(text)?;
        folder.sample(0, true).map(|_| ()).map_err(text)
    }

    /// Compressed pictures of one colour really are a thousand times larger than their files, and
    /// decoding and cropping make a few copies.
    fn most_memory(&self, len: usize) -> usize {
        16 * READER + 8 * 2048 * len
    }
}

fn idx_images() -> Vec<u8> {
    let mut images = vec![0, 0, 8, 3, 0, 0, 0, 5, 0, 0, 0, 4, 0, 0, 0, 3];
    images.extend(0..60);
    images
}

const IDX_LABELS: [u8; 13] = [0, 0, 8, 1, 0, 0, 0, 5, 3, 1, 4, 1, 5];

/// Two files in one, so that damage can be in both: the first two bytes say how long the former is.
fn joined(first: &[u8], second: &[u8]) -> Vec<u8> {
    [&(first.len() as u16).to_le_bytes(), first, second].concat()
}

fn parted(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.split_first_chunk() {
        Some((len, rest)) => rest.split_at(rest.len().min(u16::from_le_bytes(*len).into())),
        None => (&[], &[]),
    }
}

pub fn idx_seeds() -> Vec<Vec<u8>> {
    vec![joined(&idx_images(), &IDX_LABELS)]
}

pub fn idx_gz_seeds() -> Vec<Vec<u8>> {
    let gz = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    vec![joined(&gz(&idx_images()), &gz(&IDX_LABELS))]
}

/// MNIST's format.
pub struct Idx {
    dir: TempDir,
    images: PathBuf,
    labels: PathBuf,
    gz: bool,
}

impl Idx {
    pub fn new(gz: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let end = if gz { ".gz" } else { "" };
        Self {
            images: dir.path().join(format!("train-images-idx3-ubyte{end}")),
            labels: dir.path().join(format!("train-labels-idx1-ubyte{end}")),
            dir,
            gz,
        }
    }
}

impl Reader for Idx {
    fn read(&self, bytes: &[u8]) -> Result<(), String> {
        let (images, labels) = parted(bytes);
        fs::write(&self.images, images).unwrap();
        fs::write(&self.labels, labels).unwrap();
        let data = open_idx(self.dir.path(), None).map_err(text)?;
        data.sample(data.len() - 1, false).map(|_| ()).map_err(text)
    }

    fn most_memory(&self, len: usize) -> usize {
        let inflated = if self.gz { 1032 } else { 1 };
        READER + 16 * inflated * len
    }
}

pub fn cifar_seeds() -> Vec<Vec<u8>> {
    let mut records = vec![7; 2 * 3073];
    records[3073] = 9;
    vec![records]
}

/// CIFAR-10's binary format.
pub struct Cifar(TempDir);

impl Cifar {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

impl Reader for Cifar {
    fn read(&self, bytes: &[u8]) -> Result<(), String> {
        fs::write(self.0.path().join("data_batch_1.bin"), bytes).unwrap();
        let data = open_cifar10(self.0.path(), None).map_err(text)?;
        data.sample(data.len() - 1, false).map(|_| ()).map_err(text)
    }
}

/// A folder of latents of five digits: its index and its shard.
pub fn npz_seeds() -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let seed = |name: &str, channels: usize, labels: Option<&[u32]>| {
        let path = dir.path().join(name);
        let shape = ImageShape::from([channels, 4, 3]);
        let mut images = NpzImages::open(&path, shape, 5, "").unwrap();
        let bytes: Vec<u8> = (0..5 * shape.len()).map(|i| i as u8).collect();
        images.append(&bytes).unwrap();
        images
            .finish(labels, &["a", "b", "\u{e9}", "dd"].map(String::from))
            .unwrap();
        fs::read(&path).unwrap()
    };
    vec![
        seed("grey.npz", 1, None),
        seed("colour.npz", 3, Some(&[0, 3, 1, 1, 2])),
        deflated_npz(),
    ]
}

/// As `numpy.savez_compressed` writes, in Fortran order.
fn deflated_npz() -> Vec<u8> {
    let header = NpyHeader {
        fortran_order: true,
        ..NpyHeader::new(ElementType::U8, &[6, 4, 5, 3])
    };
    let data: Vec<u8> = (0..6 * 60).map(|i| (i * i % 251) as u8).collect();
    let mut zip = ZipWriter::new(Vec::new());
    zip.add_deflated("arr_0.npy", &[header.to_bytes(), data].concat())
        .unwrap();
    zip.finish().unwrap()
}

/// Images in an `.npz` file.
pub struct Npz;

impl Reader for Npz {
    fn read(&self, bytes: &[u8]) -> Result<(), String> {
        let data = read_npz(Cursor::new(bytes), Path::new("x.npz")).map_err(text)?;
        data.sample(data.len() - 1, true).map(|_| ()).map_err(text)
    }
}

pub fn latents_seeds() -> Vec<Vec<u8>> {
    let data = digits().unwrap().subset("five", &[0, 1, 2, 3, 4]).unwrap();
    let latent = ImageShape::from([2, 1, 3]);
    let build = |mirrored: bool| {
        let dir = tempfile::tempdir().unwrap();
        let scales = [vec![2.0, 0.5], vec![0.0, 1.0]];
        let mut index = LatentIndex::new(&data, latent, scales, "print".into(), 5, mirrored);
        let values = vec![0.5; 5 * latent.len()];
        let shard = Shard {
            mean: values.clone(),
            log_var: values.clone(),
            mirrored: mirrored.then(|| (values.clone(), values)),
            labels: (0..5).map(|i| data.label(i).unwrap()).collect(),
        };
        index.append(dir.path(), &shard).unwrap();
        joined(
            &fs::read(dir.path().join("latents.json")).unwrap(),
            &fs::read(LatentIndex::shard_path(dir.path(), 0)).unwrap(),
        )
    };
    vec![build(false), build(true)]
}

/// Folders of latents.
pub struct Latents(TempDir);

impl Latents {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

impl Reader for Latents {
    fn read(&self, bytes: &[u8]) -> Result<(), String> {
        let (index, shard) = parted(bytes);
        let path = LatentIndex::shard_path(self.0.path(), 0);
        fs::write(self.0.path().join("latents.json"), index).unwrap();
        fs::write(&path, shard).unwrap();
        let whole = read_shard(&path).map(|_| ()).map_err(text);
        let data = LatentDataset::open(self.0.path(), false).map_err(text)?;
        data.sample(data.len() - 1, false).map_err(text)?;
        whole
    }
}

/// Kinds of texts, told apart by the last two bits of their first byte, so that damage there changes
/// the kind.
const KINDS: [u8; 4] = *b"TMJS";

pub fn config_seeds() -> Vec<Vec<u8>> {
    let config = small().metadata;
    let json = serde_json::Value::Object(dis_model::checkpoint::config_to_json(&config.model));
    let preset = |name| RunConfig::preset(name).unwrap().to_toml().unwrap();
    [
        (b'T', preset("digits")),
        (b'T', preset("small")),
        (b'J', json.to_string()),
        (b'M', config.to_json()),
        (b'S', "folder:pictures/,size=32,flip".into()),
        (b'S', "idx:mnist,split=test,unconditional".into()),
    ]
    .into_iter()
    .map(|(kind, text)| [&[kind], text.as_bytes()].concat())
    .collect()
}

/// Run configurations, model configurations, metadata and data specifications.
pub struct Config;

impl Reader for Config {
    fn read(&self, bytes: &[u8]) -> Result<(), String> {
        let (&kind, rest) = bytes.split_first().ok_or("no text")?;
        let content = std::str::from_utf8(rest).map_err(text)?;
        match KINDS[kind as usize % 4] {
            b'T' => {
                let config = RunConfig::parse(content, "x.toml").map_err(|e| one_line(&e))?;
                config.diffusion.options().map(|_| ()).map_err(text)
            }
            b'J' => {
                let map = serde_json::from_str(content).map_err(text)?;
                config_from_json(&map).map(|_| ())
            }
            b'M' => Metadata::from_json(content).map(|_| ()),
            _ => content.parse::<DataSpec>().map(|_| ()).map_err(text),
        }
    }

    /// Parsed TOML and JSON are trees of values, each larger than its text.
    fn most_memory(&self, len: usize) -> usize {
        READER + 256 * len
    }
}

/// The TOML library draws a picture of the place, in lines; the command shows it as one line.
fn one_line(error: &dyn std::fmt::Display) -> String {
    error.to_string().replace('\n', " ")
}
