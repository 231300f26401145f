//! What weights begin as.

use dis_ssm::MixerInit;

/// Choices at initialisation. The default is what the published code does; what it costs small
/// models is in docs/results.md.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModelInit {
    /// Of the Mamba mixers.
    pub mixer: MixerInit,
    /// Standard deviation of the label table. Labels meet time embeddings and positions of about
    /// unit size, beside which the published 0.02 is hardly seen in a short training.
    pub label_std: f64,
    /// Standard deviation of the positions; 0 as published.
    pub position_std: f64,
    /// Whether the decoder begins at zero, so that the first prediction is 0.
    pub zero_decoder: bool,
}

impl Default for ModelInit {
    fn default() -> Self {
        Self {
            mixer: MixerInit::default(),
            label_std: 0.02,
            position_std: 0.0,
            zero_decoder: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ConditionKind, DisConfig, DisModel};

    #[test]
    fn choices_touch_their_weights_alone() {
        let mut config = DisConfig::new(4, 2, 1, 8, 2);
        config.condition = ConditionKind::Classes {
            num_classes: 3,
            null_label: true,
        };
        let published = DisModel::new(config).unwrap();
        let init = ModelInit {
            label_std: 1.0,
            position_std: 0.5,
            zero_decoder: true,
            ..ModelInit::default()
        };
        let chosen = DisModel::with_init(config, &init).unwrap();
        let (before, after) = (published.table().initial(3), chosen.table().initial(3));
        for spec in chosen.table().specs() {
            let range = spec.offset..spec.offset + spec.len();
            let (before, after) = (&before[range.clone()], &after[range]);
            match spec.name.as_str() {
                crate::LABEL_TABLE => {
                    for (b, a) in before.iter().zip(after) {
                        assert!((a - 50.0 * b).abs() <= 1e-6 * a.abs(), "{b} {a}");
                    }
                }
                "pos_embed" => {
                    assert!(before.iter().all(|b| b.to_bits() == 0));
                    let squares: f32 = after.iter().map(|a| a * a).sum();
                    let std = (squares / after.len() as f32).sqrt();
                    assert!((0.3..0.7).contains(&std), "{std}");
                }
                "final_layer.linear.weight" => assert!(after.iter().all(|a| *a == 0.0)),
                name => assert_eq!(before, after, "{name}"),
            }
        }
    }
}
