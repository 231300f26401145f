//! What the arguments of the published training script, which travel in its `.pt` files, say about
//! a model.
//!
//! They are what somebody typed and not what was built, so they are believed only where they agree
//! with the shapes of the tensors beside them.

use serde_json::{Map, Value};

use crate::config::DisConfig;

/// Pixels of an image for each of its latent, as published.
const LATENT_STRIDE: u64 = 8;

/// Whether the last of a label table's `rows` is the null label. The error, which starts with a
/// comma or is empty, says why the arguments do not tell.
pub(super) fn null_label(
    args: &Map<String, Value>,
    rows: usize,
    config: &DisConfig,
) -> Result<bool, String> {
    let Some(classes) = args.get("num_classes").and_then(Value::as_u64) else {
        return Err(String::new());
    };
    let unlike = |what: String| {
        Err(format!(
            ", and its stored arguments are those of another model ({what}), so their num_classes \
             {classes} is not believed"
        ))
    };
    let number = |key: &str| args.get(key).and_then(Value::as_u64);
    if let Some(name) = args.get("model").and_then(Value::as_str) {
        let published = DisConfig::zoo(name, config.image_size, config.channels);
        match published {
            Ok(published) => {
                let sizes = |c: &DisConfig| (c.embed_dim, c.patch_size, c.blocks());
                if sizes(&published) != sizes(config) {
                    return unlike(format!("model {name}"));
                }
            }
            Err(_) => return unlike(format!("model {name:?}")),
        }
    }
    if let Some(size) = number("image_size") {
        let latent = args.get("latent_space").and_then(Value::as_bool);
        let size = match latent {
            Some(true) => size / LATENT_STRIDE,
            _ => size,
        };
        if config.image_size.side().map(|side| side as u64) != Some(size) {
            return unlike(format!("input of {size}x{size}"));
        }
    }
    let rows = rows as u64;
    match rows.checked_sub(classes) {
        Some(1) => Ok(true),
        Some(0) => Ok(false),
        _ => Err(format!(
            ", and num_classes {classes} of its stored arguments fits neither"
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked(args: Value, rows: usize, config: &DisConfig) -> Result<bool, String> {
        null_label(args.as_object().unwrap(), rows, config)
    }

    #[test]
    fn arguments_are_believed_only_if_they_fit_the_shapes() {
        let config = DisConfig::zoo("DiS-S/2", 32, 4).unwrap();
        let args = |model: &str, size: u64, latent: bool, classes: u64| {
            json!({
                "model": model, "image_size": size, "latent_space": latent, "num_classes": classes,
            })
        };
        let ask = |args: Value| asked(args, 11, &config);
        assert_eq!(ask(args("DiS-S/2", 256, true, 10)), Ok(true));
        assert_eq!(ask(args("DiS-S/2", 32, false, 11)), Ok(false));
        assert_eq!(ask(json!({"num_classes": 10})), Ok(true));
        assert_eq!(ask(json!({})), Err(String::new()));
        let refused = |args: Value, word: &str| {
            let why = asked(args, 11, &config).unwrap_err();
            assert!(why.contains(word), "{why}");
        };
        refused(args("DiS-B/2", 32, false, 10), "model DiS-B/2");
        refused(args("DiS-S/4", 32, false, 10), "model DiS-S/4");
        refused(args("DiT-XL/2", 32, false, 10), "DiT-XL/2");
        refused(args("DiS-S/2", 256, false, 10), "input of 256x256");
        refused(args("DiS-S/2", 32, false, 1000), "fits neither");
    }
}
