use dis_tensor::Cpu;
use ndarray::{Array4, s};
use proptest::prelude::*;

use super::{error, image, normals, tiny, tolerance, weights};
use crate::config::{Activation, VaeConfig};
use crate::oracle::Oracle;
use crate::posterior::Posterior;
use crate::vae::Vae;

fn batch(seed: u64, shape: (usize, usize, usize, usize)) -> Array4<f32> {
    let data = normals(seed, shape.0 * shape.1 * shape.2 * shape.3);
    Array4::from_shape_vec(shape, data).unwrap()
}

prop_compose! {
    fn configs()(
        widths in prop::collection::vec(1usize..6, 1..4), layers in 1usize..3,
        latent in 1usize..6, images in 1usize..4, flags in any::<[bool; 6]>(), act in 0usize..4,
    ) -> VaeConfig {
        let blocks: Vec<usize> = widths.iter().map(|w| 4 * w).collect();
        let levels = blocks.len();
        VaeConfig {
            layers_per_block: layers,
            latent_channels: latent,
            in_channels: images,
            out_channels: images,
            act_fn: [Activation::Silu, Activation::Relu, Activation::Gelu, Activation::Mish][act],
            mid_block_add_attention: flags[0],
            use_quant_conv: flags[1],
            use_post_quant_conv: flags[2],
            down_attention: (0..levels).map(|i| flags[3] && i > 0).collect(),
            up_attention: (0..levels).map(|i| flags[4] && i == 0).collect(),
            shift_factor: flags[5].then_some(0.1),
            ..tiny(&blocks)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(25))]
    #[test]
    fn whole_autoencoders_match_the_oracle(
        config in configs(), h in 1usize..4, w in 1usize..4, extra in any::<[bool; 2]>(),
        seed in any::<u64>(),
    ) {
        let factor = config.reduction();
        let odd = |on: bool| usize::from(on && factor > 1);
        let (height, width) = (h * factor + odd(extra[0]), w * factor + odd(extra[1]));
        let weights = weights(&config, seed);
        let vae = Vae::new(config.clone(), &weights).unwrap();
        let oracle = Oracle::new(&config, &weights);
        let rounded = Oracle::new(&config, &weights).rounding();
        let cpu = Cpu::with_threads(2).unwrap();

        let x = batch(seed, (1, config.in_channels, height, width));
        let moments = vae.moments(&cpu, x.view()).unwrap();
        let input = image([config.in_channels, height, width], x.as_slice().unwrap());
        let naive = oracle.moments(&input).unwrap();
        prop_assert_eq!(moments.dim(), (1, 2 * config.latent_channels, h, w));
        let limit = tolerance(&naive, &rounded.moments(&input).unwrap());
        prop_assert!(error(moments.as_slice().unwrap(), &naive.data) < limit);

        let z = batch(seed ^ 1, (1, config.latent_channels, h, w));
        let decoded = vae.decode(&cpu, z.view()).unwrap();
        let latent = image([config.latent_channels, h, w], z.as_slice().unwrap());
        let naive = oracle.decode(&latent).unwrap();
        prop_assert_eq!(decoded.dim(), (1, config.out_channels, h * factor, w * factor));
        let limit = tolerance(&naive, &rounded.decode(&latent).unwrap());
        prop_assert!(error(decoded.as_slice().unwrap(), &naive.data) < limit);
    }
}

#[test]
fn bits_do_not_depend_on_threads_or_on_the_rest_of_the_batch() {
    let config = VaeConfig {
        up_attention: vec![true, false],
        ..tiny(&[20, 36])
    };
    let vae = Vae::new(config.clone(), &weights(&config, 5)).unwrap();
    // Small images are spread over threads, large ones share them.
    for (count, side) in [(5, 16), (2, 90)] {
        let z = batch(7, (count, 4, side, side));
        let x = batch(8, (count, 3, 2 * side, 2 * side));
        let run = |threads: usize| {
            let cpu = Cpu::with_threads(threads).unwrap();
            let encoded = vae.encode(&cpu, x.view()).unwrap();
            (vae.decode(&cpu, z.view()).unwrap(), encoded)
        };
        let one = run(1);
        for threads in [2, 3, 7] {
            assert_eq!(run(threads), one, "{threads} threads");
        }
        let cpu = Cpu::with_threads(3).unwrap();
        for i in 0..count {
            let alone = vae.decode(&cpu, z.slice(s![i..i + 1, .., .., ..])).unwrap();
            assert_eq!(alone, one.0.slice(s![i..i + 1, .., .., ..]));
        }
    }
}

#[test]
fn posteriors_clamp_and_sample() {
    let moments = Array4::from_shape_vec((1, 4, 1, 1), vec![1.0, -2.0, -50.0, 50.0]).unwrap();
    let posterior = Posterior::from_moments(moments.view());
    assert_eq!(posterior.mean.as_slice().unwrap(), [1.0, -2.0]);
    assert_eq!(posterior.log_var.as_slice().unwrap(), [-30.0, 20.0]);
    let noise = Array4::from_shape_vec((1, 2, 1, 1), vec![1e6, 2.0]).unwrap();
    let sample = posterior.sample(noise.view()).unwrap();
    assert_eq!(sample[[0, 0, 0, 0]], 1.0 + (-15.0f32).exp() * 1e6);
    assert_eq!(sample[[0, 1, 0, 0]], -2.0 + 10.0f32.exp() * 2.0);
    assert!(posterior.sample(moments.view()).is_err());
}

#[test]
fn what_does_not_fit_is_refused() {
    let config = tiny(&[4, 8]);
    let vae = Vae::new(config.clone(), &weights(&config, 1)).unwrap();
    let cpu = Cpu::new();
    let refused = |e: crate::VaeError, part: &str| {
        assert!(e.to_string().contains(part), "{e}");
    };
    let encode = |shape| vae.encode(&cpu, Array4::zeros(shape).view()).unwrap_err();
    refused(encode((1, 1, 8, 8)), "1 x 8 x 8");
    refused(encode((1, 3, 1, 8)), "at least 2");
    let decode = |shape| vae.decode(&cpu, Array4::zeros(shape).view()).unwrap_err();
    refused(decode((1, 3, 8, 8)), "3 x 8 x 8");
    refused(decode((2, 4, 0, 8)), "at least one pixel");
    // No images are no error.
    assert_eq!(
        vae.decode(&cpu, Array4::zeros((0, 4, 2, 2)).view())
            .unwrap()
            .dim(),
        (0, 3, 4, 4)
    );
}

#[test]
fn fingerprints_see_weights_and_configuration() {
    let config = tiny(&[4, 8]);
    let print = |config: &VaeConfig, seed| {
        Vae::new(config.clone(), &weights(config, seed))
            .unwrap()
            .fingerprint()
    };
    let base = print(&config, 1);
    assert_eq!(base, print(&config, 1));
    assert_ne!(base, print(&config, 2));
    let scaled = VaeConfig {
        scaling_factor: 1.0,
        ..config
    };
    assert_ne!(base, print(&scaled, 1));
}
