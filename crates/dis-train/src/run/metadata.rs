//! What training writes into a checkpoint beside its model.

use dis_data::{Dataset, LatentIndex};
use dis_model::classes::UNOCCUPIED_CLASSES;
use dis_pipeline::DiffusionConfig;
use serde_json::{Value, json};

/// What a checkpoint says beside its model: the diffusion it was trained with, the class names, the
/// classes that no image was of, and the largest raw level of its images.
pub fn extra_metadata(diffusion: &DiffusionConfig, data: &dyn Dataset) -> Vec<(String, Value)> {
    let mut extra = vec![("diffusion".to_string(), json!(diffusion))];
    match data.latents() {
        Some(latents) => extra.extend(latent_metadata(latents)),
        None => extra.push(("max_level".to_string(), json!(data.max_level()))),
    }
    if !data.class_names().is_empty() {
        extra.push(("class_names".to_string(), json!(data.class_names())));
    }
    let unoccupied = data.unoccupied_classes();
    if !unoccupied.is_empty() {
        extra.push((UNOCCUPIED_CLASSES.to_string(), json!(unoccupied)));
    }
    extra
}

/// `latent_scale` and `latent_shift` (one number for all channels where they agree; a shift only
/// where there is one), and the autoencoder's fingerprint: a network saw `(z - shift) * scale`.
fn latent_metadata(latents: &LatentIndex) -> Vec<(String, Value)> {
    let short = |list: &[f64]| match list {
        [first, rest @ ..] if rest.iter().all(|x| x == first) => json!(first),
        _ => json!(list),
    };
    let mut extra = vec![
        ("autoencoder".to_string(), json!(latents.autoencoder)),
        ("latent_scale".to_string(), short(&latents.scale)),
    ];
    if latents.shift.iter().any(|&s| s != 0.0) {
        extra.push(("latent_shift".to_string(), short(&latents.shift)));
    }
    extra
}
