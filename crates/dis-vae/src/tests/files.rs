use std::path::Path;

use dis_tensor::Cpu;
use dis_tensor::random::{Purpose, Stream};
use ndarray::Array4;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::{tensors, tiny};
use crate::config::VaeConfig;
use crate::vae::Vae;

type Tensors = Vec<(String, Vec<usize>, Vec<f32>)>;

fn bytes(tensors: &Tensors) -> Vec<u8> {
    let raw: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, _, data)| data.iter().flat_map(|x| x.to_le_bytes()).collect())
        .collect();
    let views = tensors.iter().zip(&raw).map(|((name, shape, _), raw)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), raw).unwrap();
        (name.as_str(), view)
    });
    safetensors::serialize(views, None).unwrap()
}

fn config() -> VaeConfig {
    tiny(&[4, 8])
}

const JSON: &str = r#"{"_class_name": "AutoencoderKL", "block_out_channels": [4, 8],
    "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"], "norm_num_groups": 4,
    "an_unknown_key": 7}"#;

fn folder(dir: &Path, tensors: &Tensors) {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join("config.json"), JSON).unwrap();
    std::fs::write(
        dir.join("diffusion_pytorch_model.safetensors"),
        bytes(tensors),
    )
    .unwrap();
}

fn message(path: &Path) -> String {
    let message = Vae::open(path).unwrap_err().to_string();
    assert!(!message.contains('\n'), "{message}");
    message
}

#[test]
fn folders_pipelines_and_files_open_to_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let tensors = tensors(&config(), 1);
    folder(&dir.path().join("pipeline/vae"), &tensors);
    let opened = Vae::open(&dir.path().join("pipeline")).unwrap();
    assert_eq!(*opened.config(), config());
    let file = dir
        .path()
        .join("pipeline/vae/diffusion_pytorch_model.safetensors");
    for path in [dir.path().join("pipeline/vae"), file] {
        assert_eq!(
            Vae::open(&path).unwrap().fingerprint(),
            opened.fingerprint()
        );
    }
}

#[test]
fn a_file_alone_tells_its_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("my-vae.safetensors");
    let usual = VaeConfig {
        norm_num_groups: 32,
        sample_size: 256,
        ..tiny(&[32, 64])
    };
    std::fs::write(&path, bytes(&tensors(&usual, 1))).unwrap();
    // A configuration of something else beside it is not asked.
    std::fs::write(dir.path().join("config.json"), "{").unwrap();
    assert_eq!(*Vae::open(&path).unwrap().config(), usual);
    std::fs::write(&path, bytes(&tensors(&config(), 1))).unwrap();
    let e = message(&path);
    assert!(
        e.contains("norm_num_groups 32") && e.contains("config.json"),
        "{e}"
    );
}

#[test]
fn older_and_original_names_give_the_same_images() {
    let dir = tempfile::tempdir().unwrap();
    let tensors = tensors(&config(), 1);
    folder(dir.path(), &tensors);
    let base = Vae::open(dir.path()).unwrap();
    let renamed = |rename: &dyn Fn(&str) -> String| -> Tensors {
        let all = tensors.iter().map(|(name, shape, data)| {
            let map = name.contains(".to_") && shape.len() == 2;
            let shape = if map {
                [&shape[..], &[1, 1]].concat()
            } else {
                shape.clone()
            };
            (rename(name), shape, data.clone())
        });
        all.collect()
    };
    let older = renamed(&|name| {
        name.replace("to_q", "query")
            .replace("to_k", "key")
            .replace("to_v", "value")
            .replace("to_out.0", "proj_attn")
    });
    let original = renamed(&|name| {
        let name = name
            .replace("conv_norm_out", "norm_out")
            .replace("mid_block.resnets.0", "mid.block_1")
            .replace("mid_block.resnets.1", "mid.block_2")
            .replace("mid_block.attentions.0.group_norm", "mid.attn_1.norm")
            .replace("mid_block.attentions.0.to_out.0", "mid.attn_1.proj_out")
            .replace("mid_block.attentions.0.to_", "mid.attn_1.")
            .replace("conv_shortcut", "nin_shortcut")
            .replace("downsamplers.0", "downsample")
            .replace("upsamplers.0", "upsample")
            .replace("resnets", "block")
            .replace("down_blocks", "down")
            .replace("up_blocks.0", "up.1")
            .replace("up_blocks.1", "up.0");
        format!("first_stage_model.{name}")
    });
    let mut original = original;
    original.push(("model_ema.decay".into(), vec![1], vec![0.5]));
    original.push(("cond_stage_model.x".into(), vec![1], vec![0.5]));
    for tensors in [older, original] {
        folder(dir.path(), &tensors);
        assert_eq!(
            Vae::open(dir.path()).unwrap().fingerprint(),
            base.fingerprint()
        );
    }
}

#[test]
fn wrong_tensors_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let whole = tensors(&config(), 1);
    let refused = |change: &dyn Fn(&mut Tensors), parts: &[&str]| {
        let mut tensors = whole.clone();
        change(&mut tensors);
        folder(dir.path(), &tensors);
        let e = message(dir.path());
        assert!(parts.iter().all(|p| e.contains(p)), "{e}");
    };
    let name = whole[4].0.clone();
    refused(&|t| drop(t.remove(4)), &[&name, "missing"]);
    refused(&|t| t[4].0 = "decoder.what".into(), &[&name, "missing"]);
    refused(
        &|t| t.push(("decoder.what".into(), vec![0], vec![])),
        &["decoder.what", "not one"],
    );
    refused(&|t| t[4].2[1] = f32::INFINITY, &[&name, "inf at element 1"]);
    let odd = vec![1, whole[4].2.len()];
    refused(
        &|t| t[4].1 = odd.clone(),
        &[&name, &format!("shape {odd:?}"), "needs [4, 4, 3, 3]"],
    );
    refused(
        &|t| {
            t.push((
                "encoder.mid_block.attentions.0.query.bias".into(),
                vec![8],
                vec![0.0; 8],
            ))
        },
        &["second time", "attentions.0"],
    );
}

#[test]
fn missing_files_are_explained() {
    let dir = tempfile::tempdir().unwrap();
    folder(dir.path(), &tensors(&config(), 1));
    for name in ["config.json", "diffusion_pytorch_model.safetensors"] {
        let path = dir.path().join(name);
        let right = std::fs::read(&path).unwrap();
        std::fs::write(&path, "version https://git-lfs.github.com/spec/v1\n").unwrap();
        let message = message(dir.path());
        assert!(
            message.contains(name) && message.contains("git lfs pull"),
            "{message}"
        );
        std::fs::write(&path, right).unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    assert!(message(dir.path()).contains("no config.json"));
    assert!(message(&dir.path().join("none")).contains("none"));
    std::fs::write(dir.path().join("config.json"), JSON).unwrap();
    assert!(message(dir.path()).contains("no diffusion_pytorch_model.safetensors"));
    std::fs::write(dir.path().join("diffusion_pytorch_model.bin"), "x").unwrap();
    assert!(message(dir.path()).contains("pickle"));
}

/// Any damage is a typed error or, where it only changed numbers, a valid result.
#[test]
fn damaged_files_never_panic() {
    let dir = tempfile::tempdir().unwrap();
    folder(dir.path(), &tensors(&config(), 1));
    let files = ["config.json", "diffusion_pytorch_model.safetensors"];
    let whole = files.map(|name| std::fs::read(dir.path().join(name)).unwrap());
    let header = 8 + u64::from_le_bytes(whole[1][..8].try_into().unwrap());
    let cpu = Cpu::with_threads(1).unwrap();
    let mut opened = 0;
    for case in 0..600 {
        let mut r = Stream::new(1, Purpose::Test, case, 0);
        let which = r.below(2) as usize;
        let mut bytes = whole[which].clone();
        let area = if which == 1 && r.below(3) > 0 {
            header
        } else {
            bytes.len() as u64
        };
        match r.below(3) {
            0 => bytes.truncate(r.below(bytes.len() as u64) as usize),
            1 => {
                let at = r.below(area) as usize;
                bytes[at] ^= 1 << r.below(8);
            }
            _ => {
                let (from, to) = (r.below(area) as usize, r.below(area) as usize);
                let n = (r.below(40) as usize).min(bytes.len() - from.max(to));
                bytes.copy_within(from..from + n, to);
            }
        }
        std::fs::write(dir.path().join(files[which]), bytes).unwrap();
        if let Ok(vae) = Vae::open(dir.path()) {
            opened += 1;
            let latent = vae.config().latent_channels;
            vae.decode(&cpu, Array4::zeros((1, latent, 2, 2)).view())
                .unwrap();
        }
        std::fs::write(dir.path().join(files[which]), &whole[which]).unwrap();
    }
    assert!((20..580).contains(&opened), "{opened} of 600 opened");
}
