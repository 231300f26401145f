//! Images where a backend computes, against images in arrays; and what a device is asked to do during
//! a sampling run.

#![allow(clippy::unwrap_used)]

use dis_diffusion::{
    Error, Guidance, Guided, Limit, OnDevice, Options, Plan, SamplerSpec, SeededNoise, Spacing,
    State, Variance, normals, sample,
};
use dis_model::ModelBackend;
use dis_model::{ConditionKind, DisConfig, DisModel};
use dis_pipeline::ModelDenoiser;
use dis_tensor::random::{Purpose, Stream};
use dis_tensor::{Cpu, Reals};
use ndarray::Array4;
use proptest::prelude::*;

fn draw(seed: u64, batch: usize, image: [usize; 3]) -> Array4<f32> {
    let samples: Vec<u64> = (0..batch as u64).collect();
    normals(seed, Purpose::Test, &samples, 0, image)
}

fn bits(x: &Array4<f32>) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// Does everything that a state can do; each result with its dimensions.
fn everything<S: State>(put: impl Fn(Array4<f32>) -> S, seed: u64, image: [usize; 3]) -> Vec<S> {
    const BATCH: usize = 3;
    let of = |k: u64| put(draw(seed + k, BATCH, image));
    let (x, y, z) = (of(0), of(1), of(2));
    let mut numbers = Stream::new(seed, Purpose::Test, 9, 0);
    let list: Vec<f64> = (0..BATCH).map(|_| numbers.normal()).collect();
    let channels = image[0];
    let middle = channels / 2;
    let mut limited = x.clone();
    limited.clamp(-0.5, 0.3).unwrap();
    let mut noised = x.clone();
    let offsets = [0.1, f64::NEG_INFINITY, -2.0];
    noised.add_noise(&y, &z, &list, &offsets).unwrap();
    let mut bounded = S::combine(&[(&[3.0], &x)]).unwrap();
    bounded.threshold(0.8, 2.5).unwrap();
    let mut scaled = x.clone();
    scaled.rescale(&y, 0.6).unwrap();
    let mut weight = z.clone();
    weight.clamp(0.0, 1.0).unwrap();
    let (left, right) = (
        x.channels(0..middle).unwrap(),
        x.channels(middle..channels).unwrap(),
    );
    let (top, rest) = (x.rows(0..1).unwrap(), y.rows(1..BATCH).unwrap());
    vec![
        S::combine(&[(&list, &x)]).unwrap(),
        S::combine(&[(&list, &x), (&[0.7], &y), (&list, &z)]).unwrap(),
        S::join_channels(&[&right, &left]).unwrap(),
        S::join_channels(&[&left, &left, &right]).unwrap(),
        S::stack(&[&top, &rest, &top]).unwrap(),
        x.mix(&y, &weight).unwrap(),
        limited,
        noised,
        bounded,
        scaled,
        left,
        right,
        top,
        rest,
        // Changed copies must have left it alone.
        x,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn on_the_cpu_the_bits_are_those_of_arrays(
        seed in 0u64..1 << 40, channels in 1usize..7, height in 1usize..6, width in 1usize..6,
    ) {
        let (image, cpu) = ([channels, height, width], Cpu::with_threads(1).unwrap());
        let arrays = everything(|x| x, seed, image);
        let device = everything(|x| OnDevice::new(&cpu, x), seed, image);
        for (array, device) in arrays.iter().zip(&device) {
            assert_eq!(array.shape(), device.dims());
            assert_eq!(bits(array), bits(&device.fetch().unwrap()));
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let cpu = Cpu::with_threads(1).unwrap();
    let x = OnDevice::new(&cpu, Array4::zeros((2, 3, 2, 2)));
    let other = OnDevice::new(&cpu, Array4::zeros((2, 2, 3, 2)));
    assert!(OnDevice::<Cpu>::combine(&[]).is_err());
    assert!(OnDevice::combine(&[(&[1.0], &x), (&[1.0], &other)]).is_err());
    assert!(OnDevice::combine(&[(&[1.0; 3], &x)]).is_err());
    assert!(x.channels(2..4).is_err() && x.rows(1..3).is_err());
    assert!(OnDevice::join_channels(&[&x, &other]).is_err());
    assert!(OnDevice::<Cpu>::stack(&[]).is_err());
    assert!(x.mix(&other, &x).is_err());
    let short = OnDevice::from_buf(&cpu, dis_tensor::Backend::zeros(&cpu, 5), [1, 2, 3, 1]);
    assert!(matches!(short, Err(Error::Shape { .. })));
    let mut nan = Array4::zeros((1, 1, 1, 2));
    assert!(OnDevice::new(&cpu, nan.clone()).is_finite().unwrap());
    nan[[0, 0, 0, 1]] = f32::NAN;
    assert!(!OnDevice::new(&cpu, nan).is_finite().unwrap());
}

/// A network of random weights with classes and a null label.
struct Tiny {
    model: DisModel,
    weights: Vec<f32>,
}

const LABELS: [u32; 2] = [2, 0];

impl Tiny {
    fn new() -> Self {
        let mut config = DisConfig::new(4, 2, 1, 6, 3);
        config.drop_path_rate = 0.0;
        config.condition = ConditionKind::Classes {
            num_classes: 3,
            null_label: true,
        };
        let model = DisModel::new(config).unwrap();
        let mut weights = model.table().initial(3);
        let mut noise = Stream::new(4, Purpose::Test, 0, 0);
        weights
            .iter_mut()
            .for_each(|w| *w += (0.1 * noise.normal()) as f32);
        Self { model, weights }
    }

    fn plan(&self, sampler: &str, steps: usize) -> Plan {
        let options = Options {
            variance: Variance::LearnedRange,
            ..Options::default()
        };
        let sampler: SamplerSpec = sampler.parse().unwrap();
        let plan = sampler.plan(&options, steps, Spacing::Default).unwrap();
        let (ratio, max) = (0.9, 2.0);
        plan.with_limit(Some(Limit::Dynamic { ratio, max }))
    }

    fn guidance() -> Guidance {
        Guidance {
            rescale: 0.5,
            ..Guidance::new(1.5)
        }
    }

    fn noise() -> SeededNoise {
        SeededNoise::new(7, 0..LABELS.len() as u64)
    }

    /// A guided run on a device.
    fn run<B: ModelBackend>(&self, backend: &B, plan: &Plan, recorded: bool) -> OnDevice<B> {
        self.run_with(backend, &backend.from_f32(&self.weights), plan, recorded)
    }

    fn run_with<B: ModelBackend>(
        &self,
        backend: &B,
        params: &Reals<B>,
        plan: &Plan,
        recorded: bool,
    ) -> OnDevice<B> {
        let network = ModelDenoiser::new(backend, &self.model, params, &LABELS).recorded(recorded);
        let mut network = Guided::new(network, Self::guidance());
        let mut noise = Self::noise();
        let start = OnDevice::new(backend, noise.start([1, 4, 4]));
        sample(plan, &mut network, &mut noise, start, |_| {}).unwrap()
    }

    /// The same with images in arrays.
    fn run_in_arrays(&self, backend: &Cpu, plan: &Plan) -> Array4<f32> {
        let params = dis_tensor::Backend::from_f32(backend, &self.weights);
        let network = ModelDenoiser::new(backend, &self.model, &params, &LABELS);
        let mut network = Guided::new(network, Self::guidance());
        let mut noise = Self::noise();
        let start = noise.start([1, 4, 4]);
        sample(plan, &mut network, &mut noise, start, |_| {}).unwrap()
    }
}

const SAMPLERS: [&str; 7] = [
    "ddim",
    "ancestral",
    "dpmpp-2m",
    "dpmpp-2m-sde",
    "unipc-3",
    "heun",
    "euler-a",
];

#[test]
fn whole_runs_on_the_cpu_have_the_bits_of_arrays() {
    let (tiny, cpu) = (Tiny::new(), Cpu::with_threads(1).unwrap());
    for sampler in SAMPLERS {
        let plan = tiny.plan(sampler, 6);
        let device = tiny.run(&cpu, &plan, true).fetch().unwrap();
        assert_eq!(
            bits(&tiny.run_in_arrays(&cpu, &plan)),
            bits(&device),
            "{sampler}"
        );
    }
}

#[cfg(feature = "sim")]
mod simulated {
    use super::*;
    use dis_kernels::sim::{Sim, Traffic};
    use dis_tensor::{Backend, Cuda, Precision};

    fn gpu() -> Cuda<Sim> {
        Cuda::new(Sim::new(dis_kernels::sim::Options::default()))
    }

    fn traffic(tiny: &Tiny, sampler: &str, steps: usize, recorded: bool) -> (Traffic, Vec<u32>) {
        let gpu = gpu();
        let image = tiny.run(&gpu, &tiny.plan(sampler, steps), recorded);
        let traffic = gpu.driver().traffic();
        (traffic, bits(&image.fetch().unwrap()))
    }

    /// The only thing that a run waits for is the image at its end, however many steps it has.
    #[test]
    fn no_step_waits_for_the_device() {
        let tiny = Tiny::new();
        for sampler in SAMPLERS {
            for (steps, recorded) in [(2, true), (5, true), (5, false)] {
                let (traffic, _) = traffic(&tiny, sampler, steps, recorded);
                assert_eq!(
                    traffic.downloads, 1,
                    "{sampler}, {steps} steps: {traffic:?}"
                );
                assert_eq!(traffic.synchronisations, 0, "{sampler}");
            }
        }
    }

    #[test]
    fn what_is_recorded_gives_the_same_bits() {
        let tiny = Tiny::new();
        for sampler in ["ddim", "unipc-3"] {
            let (with, image) = traffic(&tiny, sampler, 6, true);
            let (without, same) = traffic(&tiny, sampler, 6, false);
            assert_eq!(image, same, "{sampler}");
            // The first step runs as it is, all others are repetitions.
            assert_eq!(with.replays, 5, "{sampler}");
            assert_eq!(without.replays, 0, "{sampler}");
            assert!(2 * with.launches < without.launches, "{with:?} {without:?}");
        }
    }

    #[test]
    fn a_repeated_run_allocates_nothing() {
        let tiny = Tiny::new();
        let gpu = gpu();
        let plan = tiny.plan("ddim", 3);
        tiny.run(&gpu, &plan, false);
        let before = gpu.driver().traffic().allocations;
        tiny.run(&gpu, &plan, false);
        assert_eq!(gpu.driver().traffic().allocations, before);
    }

    /// With products of bfloat16, weights rounded before or at every product, recorded or not: the same
    /// bits, nothing allocated by a later run, and nothing waited for but the image.
    #[test]
    fn bfloat16_is_recorded_too() {
        let tiny = Tiny::new();
        let plan = tiny.plan("ddim", 4);
        let full = bits(&tiny.run(&gpu(), &plan, true).fetch().unwrap());
        let mut images = Vec::new();
        for ptx_gemm in [false, true] {
            let gpu = gpu()
                .with_precision(Precision::Bfloat16)
                .with_ptx_gemm(ptx_gemm);
            let plain = gpu.from_f32(&tiny.weights);
            let mut ready = gpu.from_f32(&tiny.weights);
            gpu.prepare_weights(&mut ready, tiny.model.table().products())
                .unwrap();
            let mut each = Vec::new();
            for (params, recorded) in [
                (&plain, false),
                (&plain, true),
                (&ready, false),
                (&ready, true),
            ] {
                let before = gpu.driver().traffic();
                let image = tiny.run_with(&gpu, params, &plan, recorded);
                let after = gpu.driver().traffic();
                // The image at the end.
                assert_eq!(after.downloads - before.downloads, 1);
                assert_eq!(after.synchronisations, before.synchronisations);
                assert_eq!(after.replays - before.replays, if recorded { 3 } else { 0 });
                each.push(bits(&image.fetch().unwrap()));
            }
            assert!(each.iter().all(|image| *image == each[0]), "{ptx_gemm}");
            let before = gpu.driver().traffic().allocations;
            tiny.run_with(&gpu, &ready, &plan, false);
            assert_eq!(gpu.driver().traffic().allocations, before);
            images.push(each.swap_remove(0));
        }
        // Both kinds of product are rounded, and add in an order of their own.
        assert!(images.iter().all(|image| *image != full));
    }

    /// Everything a state does, on the GPU: the same bits where no exponential is involved.
    #[test]
    fn states_agree_with_arrays() {
        let gpu = gpu();
        for (seed, image) in [(1, [3, 5, 7]), (2, [1, 1, 1]), (3, [4, 16, 17])] {
            let arrays = everything(|x| x, seed, image);
            let device = everything(|x| OnDevice::new(&gpu, x), seed, image);
            for (k, (array, device)) in arrays.iter().zip(&device).enumerate() {
                let device = device.fetch().unwrap();
                assert_eq!(array.shape(), device.shape());
                if k != 7 {
                    assert_eq!(bits(array), bits(&device), "result {k}");
                    continue;
                }
                let largest = array.iter().fold(0.0f32, |m, x| m.max(x.abs()));
                for (a, b) in array.iter().zip(&device) {
                    // Two units in the last place of the exponential, and roundings.
                    assert!((a - b).abs() <= 4e-7 * largest, "{a} and {b} of {largest}");
                }
            }
        }
    }
}
