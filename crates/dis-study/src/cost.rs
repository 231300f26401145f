//! What a model costs at other numbers of tokens.

use dis_model::cost::{Cost, attention_macs, ssm_macs};
use dis_model::{AttentionOptions, DisConfig, MixerKind};

use crate::error::Result;

/// Multiply-adds at one number of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CostPoint {
    /// Tokens J.
    pub tokens: u64,
    /// The whole model with the Mamba mixer, exact.
    pub mamba: u64,
    /// The whole model with the attention mixer, exact.
    pub attention: u64,
    /// The paper's form for one state space layer.
    pub mamba_form: u64,
    /// The paper's form for one layer of self-attention.
    pub attention_form: u64,
}

/// The model at images of more and more patches, all else equal.
///
/// # Errors
/// If a model cannot be built.
pub fn cost_by_tokens(config: &DisConfig) -> Result<Vec<CostPoint>> {
    let mut out = Vec::new();
    for side in [4, 8, 16, 32, 64] {
        let mut config = *config;
        config.image_size = (side * config.patch_size).into();
        let mut macs = |mixer| {
            config.mixer = mixer;
            Cost::of(&config, 1).map(|cost| cost.macs.total())
        };
        let (mamba, attention) = (
            macs(MixerKind::Mamba)?,
            macs(MixerKind::Attention(AttentionOptions::default()))?,
        );
        let (tokens, width) = (config.tokens() as u64, config.embed_dim as u64);
        out.push(CostPoint {
            tokens,
            mamba,
            attention,
            mamba_form: ssm_macs(tokens, width, config.ssm.d_state as u64),
            attention_form: attention_macs(tokens, width),
        });
    }
    Ok(out)
}

/// How cost grows: the exponent e of `cost ~ tokens^e` between two points.
pub(super) fn exponent(a: (u64, u64), b: (u64, u64)) -> f64 {
    let ln = |x: u64| (x.max(1) as f64).ln();
    (ln(b.1) - ln(a.1)) / (ln(b.0) - ln(a.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mamba_is_linear_and_attention_is_not() {
        let points = cost_by_tokens(&DisConfig::new(8, 2, 1, 32, 4)).unwrap();
        let [.., a, b] = points[..] else {
            panic!("{points:?}")
        };
        let of = |f: fn(&CostPoint) -> u64| exponent((a.tokens, f(&a)), (b.tokens, f(&b)));
        assert!((of(|p| p.mamba) - 1.0).abs() < 0.01);
        assert!((of(|p| p.mamba_form) - 1.0).abs() < 1e-9);
        assert!(of(|p| p.attention) > 1.8);
        assert!(of(|p| p.attention_form) > 1.9);
    }
}
