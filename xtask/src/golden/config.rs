//! Model configurations in the words of the manifests. Every key must be known: what is not
//! understood must not be left out.

use anyhow::{Context, Result, bail, ensure};
use dis_model::{ConditionKind, DisConfig, SsmConfig};
use dis_ssm::SkipKind;
use dis_tensor::NormKind;
use serde_json::{Map, Value};

/// Label-drop probability of the published constructor; above 0 there is a null label.
const CLASS_DROPOUT_PROB: f64 = 0.1;

/// A whole configuration.
pub fn model_config(json: &Map<String, Value>) -> Result<DisConfig> {
    for key in ["img_size", "patch_size", "embed_dim", "depth"] {
        ensure!(json.contains_key(key), "the configuration has no {key:?}");
    }
    apply(DisConfig::new(1, 1, 3, 1, 0), json)
}

/// A published entry with a setting: what it is used for.
pub fn zoo_config(name: &str, setting: &Map<String, Value>) -> Result<DisConfig> {
    let size = setting
        .get("img_size")
        .context("the setting has no \"img_size\"")?;
    // The size is set again below; here it only has to fit the patches.
    let base = DisConfig::zoo(name, whole("img_size", size)?, 3)?;
    apply(base, setting)
}

fn apply(mut config: DisConfig, json: &Map<String, Value>) -> Result<DisConfig> {
    let (mut num_classes, mut class_dropout) = (-1, CLASS_DROPOUT_PROB);
    for (key, value) in json {
        match key.as_str() {
            "img_size" => config.image_size = whole(key, value)?.into(),
            "patch_size" => config.patch_size = whole(key, value)?,
            "embed_dim" => config.embed_dim = whole(key, value)?,
            "depth" => config.depth = whole(key, value)?,
            "channels" => config.channels = whole(key, value)?,
            "num_classes" if value.is_null() => {}
            "num_classes" => num_classes = value.as_i64().context("num_classes")?,
            "class_dropout_prob" => class_dropout = value.as_f64().context("class_dropout_prob")?,
            "learn_sigma" => config.learn_sigma = truth(key, value)?,
            "skip" => config.skip = skip(value)?,
            "rms_norm" => {
                config.norm = if truth(key, value)? {
                    NormKind::Rms
                } else {
                    NormKind::Layer
                };
            }
            "mlp_time_embed" => config.mlp_time_embed = truth(key, value)?,
            "drop_path_rate" => config.drop_path_rate = value.as_f64().context("drop_path_rate")?,
            "ssm_cfg" if value.is_null() => {}
            "ssm_cfg" => {
                let map = value.as_object().context("ssm_cfg is not an object")?;
                config.ssm = ssm(config.ssm, map)?;
            }
            // Without effect on values in float32, and a label.
            "fused_add_norm" | "residual_in_fp32" | "seed" => {}
            _ => bail!("configuration key {key:?} is not known"),
        }
    }
    config.condition = match num_classes {
        n if n > 0 => ConditionKind::Classes {
            num_classes: n as usize,
            null_label: class_dropout > 0.0,
        },
        _ => ConditionKind::None,
    };
    Ok(config)
}

fn skip(value: &Value) -> Result<SkipKind> {
    match value {
        Value::Bool(true) => Ok(SkipKind::Concat),
        Value::Bool(false) | Value::Null => Ok(SkipKind::None),
        Value::String(s) if s == "concat" => Ok(SkipKind::Concat),
        Value::String(s) if s == "none" => Ok(SkipKind::None),
        Value::String(s) if s == "add" => Ok(SkipKind::Add),
        _ => bail!("skip {value} is not known"),
    }
}

fn ssm(mut ssm: SsmConfig, json: &Map<String, Value>) -> Result<SsmConfig> {
    for (key, value) in json {
        match key.as_str() {
            "d_state" => ssm.d_state = whole(key, value)?,
            "d_conv" => ssm.d_conv = whole(key, value)?,
            "expand" => ssm.expand = whole(key, value)?,
            "dt_rank" if value == "auto" || value.is_null() => ssm.dt_rank = None,
            "dt_rank" => ssm.dt_rank = Some(whole(key, value)?),
            "bias" => ssm.bias = truth(key, value)?,
            "conv_bias" => ssm.conv_bias = truth(key, value)?,
            _ => bail!("configuration key ssm_cfg.{key:?} is not known"),
        }
    }
    Ok(ssm)
}

fn whole(key: &str, value: &Value) -> Result<usize> {
    let value = value
        .as_u64()
        .with_context(|| format!("{key} {value} is not a whole number"))?;
    Ok(value as usize)
}

fn truth(key: &str, value: &Value) -> Result<bool> {
    value
        .as_bool()
        .with_context(|| format!("{key} {value} is neither true nor false"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<DisConfig> {
        let json: Value = serde_json::from_str(text)?;
        model_config(json.as_object().context("no object")?)
    }

    #[test]
    fn every_key_has_its_effect() {
        let all = r#"{"img_size": 12, "patch_size": 3, "embed_dim": 20, "depth": 5, "channels": 2,
            "num_classes": 6, "learn_sigma": false, "skip": "none", "rms_norm": false,
            "mlp_time_embed": false, "class_dropout_prob": 0.0, "drop_path_rate": 0.25,
            "ssm_cfg": {"d_state": 4, "d_conv": 2, "expand": 3, "dt_rank": 7, "bias": true,
            "conv_bias": false}, "fused_add_norm": false, "residual_in_fp32": true, "seed": 9}"#;
        let c = parse(all).unwrap();
        assert_eq!(
            (c.image_size, c.patch_size, c.embed_dim),
            (12.into(), 3, 20)
        );
        assert_eq!((c.depth, c.channels, c.learn_sigma), (5, 2, false));
        assert_eq!((c.skip, c.norm), (SkipKind::None, NormKind::Layer));
        assert_eq!((c.mlp_time_embed, c.drop_path_rate), (false, 0.25));
        let classes = ConditionKind::Classes {
            num_classes: 6,
            null_label: false,
        };
        assert_eq!(c.condition, classes);
        let s = c.ssm;
        assert_eq!(
            (s.d_state, s.d_conv, s.expand, s.dt_rank),
            (4, 2, 3, Some(7))
        );
        assert!(s.bias && !s.conv_bias);
    }

    #[test]
    fn defaults_are_the_published_constructor_s() {
        let c = parse(r#"{"img_size": 8, "patch_size": 2, "embed_dim": 16, "depth": 4}"#).unwrap();
        assert_eq!(c, DisConfig::new(8, 2, 3, 16, 4));
        let with_null = r#"{"img_size": 8, "patch_size": 2, "embed_dim": 16, "depth": 4,
            "num_classes": 3, "ssm_cfg": null, "skip": false}"#;
        let c = parse(with_null).unwrap();
        assert_eq!(c.null_label(), Some(3));
        assert_eq!(c.skip, SkipKind::None);
    }

    #[test]
    fn unknown_keys_are_refused() {
        let text = r#"{"img_size": 8, "patch_size": 2, "embed_dim": 16, "depth": 4, "x": 1}"#;
        assert!(parse(text).is_err());
        assert!(parse(r#"{"img_size": 8}"#).is_err());
    }
}
