//! Names of tensors: those of the diffusers library are canonical; older ones of the same library
//! and those of the original latent diffusion code are translated.

/// Translates all names of a file. What is not known stays as it is.
pub(crate) fn canonical_names<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Vec<String> {
    // In a whole checkpoint of the original code the autoencoder is one part of several.
    const PART: &str = "first_stage_model.";
    let part = if names.clone().any(|n| n.starts_with(PART)) {
        PART
    } else {
        ""
    };
    let own = |n: &'a str| n.strip_prefix(part).unwrap_or(n);
    let original = names.clone().any(|n| own(n).contains(".mid.block_1."));
    let levels = names.clone().filter_map(|n| level_of(own(n))).max();
    names
        .map(|name| {
            let name = own(name);
            if original {
                from_original(name, levels.unwrap_or(0)).unwrap_or_else(|| name.to_string())
            } else {
                from_older(name)
            }
        })
        .collect()
}

/// Whether a tensor of a file is none of the autoencoder's: other parts of a whole checkpoint, and
/// what only training needs.
pub(crate) fn is_foreign(name: &str) -> bool {
    ["model.", "cond_stage_model.", "model_ema.", "loss."]
        .iter()
        .any(|part| name.starts_with(part))
        || SCHEDULE.contains(&name)
}

/// Tables of the noise schedule, which a whole checkpoint of the original code holds too.
const SCHEDULE: [&str; 14] = [
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
    "logvar",
    "scale_factor",
];

/// Maps of attention under their older names in the diffusers library.
fn from_older(name: &str) -> String {
    if !name.contains(".attentions.") {
        return name.to_string();
    }
    name.replace(".query.", ".to_q.")
        .replace(".key.", ".to_k.")
        .replace(".value.", ".to_v.")
        .replace(".proj_attn.", ".to_out.0.")
}

/// The decoder level of a name of the original code.
fn level_of(name: &str) -> Option<usize> {
    name.strip_prefix("decoder.up.")?
        .split('.')
        .next()?
        .parse()
        .ok()
}

/// A name of the original latent diffusion code, whose decoder levels count from the finest.
fn from_original(name: &str, last_level: usize) -> Option<String> {
    let parts: Vec<&str> = name.split('.').collect();
    let (&side, rest) = parts.split_first()?;
    if !matches!(side, "encoder" | "decoder") {
        return None;
    }
    let attention = |rest: &[&str]| -> Option<String> {
        let [map, leaf] = rest else { return None };
        let map = match *map {
            "norm" => "group_norm",
            "q" => "to_q",
            "k" => "to_k",
            "v" => "to_v",
            "proj_out" => "to_out.0",
            _ => return None,
        };
        Some(format!("{map}.{leaf}"))
    };
    let layer =
        |rest: &[&str]| -> String { rest.join(".").replace("nin_shortcut", "conv_shortcut") };
    Some(match rest {
        ["norm_out", leaf] => format!("{side}.conv_norm_out.{leaf}"),
        ["mid", "block_1", rest @ ..] => format!("{side}.mid_block.resnets.0.{}", layer(rest)),
        ["mid", "block_2", rest @ ..] => format!("{side}.mid_block.resnets.1.{}", layer(rest)),
        ["mid", "attn_1", rest @ ..] => {
            format!("{side}.mid_block.attentions.0.{}", attention(rest)?)
        }
        [way @ ("down" | "up"), level, rest @ ..] => {
            let level: usize = level.parse().ok()?;
            let level = match *way {
                "up" => last_level.checked_sub(level)?,
                _ => level,
            };
            let tail = match rest {
                ["block", j, rest @ ..] => format!("resnets.{j}.{}", layer(rest)),
                ["attn", j, rest @ ..] => format!("attentions.{j}.{}", attention(rest)?),
                ["downsample", "conv", leaf] => format!("downsamplers.0.conv.{leaf}"),
                ["upsample", "conv", leaf] => format!("upsamplers.0.conv.{leaf}"),
                _ => return None,
            };
            format!("{side}.{way}_blocks.{level}.{tail}")
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_and_original_names_are_translated() {
        let older = [
            (
                "encoder.mid_block.attentions.0.query.weight",
                "encoder.mid_block.attentions.0.to_q.weight",
            ),
            (
                "decoder.mid_block.attentions.0.proj_attn.bias",
                "decoder.mid_block.attentions.0.to_out.0.bias",
            ),
            ("quant_conv.weight", "quant_conv.weight"),
        ];
        let found = canonical_names(older.iter().map(|p| p.0));
        assert!(
            found.iter().zip(older).all(|(a, (_, b))| a == b),
            "{found:?}"
        );

        let original = [
            (
                "encoder.mid.block_1.norm1.weight",
                "encoder.mid_block.resnets.0.norm1.weight",
            ),
            (
                "encoder.mid.attn_1.proj_out.weight",
                "encoder.mid_block.attentions.0.to_out.0.weight",
            ),
            (
                "encoder.down.2.block.0.nin_shortcut.bias",
                "encoder.down_blocks.2.resnets.0.conv_shortcut.bias",
            ),
            (
                "encoder.down.0.downsample.conv.weight",
                "encoder.down_blocks.0.downsamplers.0.conv.weight",
            ),
            (
                "decoder.up.3.block.1.conv2.weight",
                "decoder.up_blocks.0.resnets.1.conv2.weight",
            ),
            (
                "decoder.up.1.upsample.conv.bias",
                "decoder.up_blocks.2.upsamplers.0.conv.bias",
            ),
            (
                "decoder.up.0.attn.1.norm.bias",
                "decoder.up_blocks.3.attentions.1.group_norm.bias",
            ),
            ("decoder.norm_out.bias", "decoder.conv_norm_out.bias"),
            ("decoder.conv_out.bias", "decoder.conv_out.bias"),
            ("post_quant_conv.bias", "post_quant_conv.bias"),
        ];
        let found = canonical_names(original.iter().map(|p| p.0));
        assert!(
            found.iter().zip(original).all(|(a, (_, b))| a == b),
            "{found:?}"
        );
        let whole: Vec<String> = original
            .iter()
            .map(|p| format!("first_stage_model.{}", p.0))
            .collect();
        let again = canonical_names(whole.iter().map(String::as_str));
        assert_eq!(found, again);
    }

    #[test]
    fn odd_names_pass_through() {
        let odd = [
            "",
            ".",
            "decoder.up.9.block",
            "encoder.mid.block_1.",
            "decoder.up.x.y",
            "a.mid.block_1.b",
        ];
        assert_eq!(canonical_names(odd.into_iter()).len(), odd.len());
    }
}
