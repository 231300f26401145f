//! Every variant of the model: hand-written gradients against float64 finite differences, the CPU
//! against the float64 reference, recomputation and threads bit for bit.

#![allow(clippy::unwrap_used)]

use dis_model::ModelBackend;
use dis_model::{
    AttentionOptions, Condition, ConditionKind, Conditioning, Ctx, DisConfig, DisModel, MixerKind,
    ModelInput, SsmConfig,
};
use dis_scan::Discretization;
use dis_ssm::SkipKind;
use dis_tensor::random::{Purpose, Stream};
use dis_tensor::{Backend, Cpu, NormKind, Reals, Reference};

const BATCH: usize = 3;

fn normals(count: usize, scale: f64, key: u64) -> Vec<f32> {
    let mut stream = Stream::new(11, Purpose::Test, key, 0);
    (0..count)
        .map(|_| (scale * stream.normal()) as f32)
        .collect()
}

/// Weights where nothing is zero or one, so that a mistake cannot hide.
fn weights(model: &DisModel) -> Vec<f32> {
    let mut arena = model.table().initial(3);
    for (i, spec) in model.table().specs().iter().enumerate() {
        let noise = normals(spec.len(), 0.2, 100 + i as u64);
        for (w, n) in arena[spec.offset..spec.offset + spec.len()]
            .iter_mut()
            .zip(noise)
        {
            *w += n;
        }
    }
    arena
}

/// A batch for a configuration.
struct Case {
    model: DisModel,
    weights: Vec<f32>,
    image: Vec<f32>,
    cotangent: Vec<f32>,
    t: Vec<f64>,
    labels: Vec<u32>,
    context: Vec<f32>,
    null: Vec<bool>,
    drop_path: Option<Vec<Vec<f32>>>,
}

impl Case {
    fn new(config: DisConfig) -> Self {
        let model = DisModel::new(config).unwrap();
        let pixels = BATCH * config.image_size.pixels();
        let (dim, tokens) = match config.condition {
            ConditionKind::Context { dim, tokens, .. } => (dim, tokens),
            _ => (0, 0),
        };
        let drop_path = (config.drop_path_rate > 0.0).then(|| {
            let site = |(i, rate): (usize, &f64)| {
                let keep = |b: usize| {
                    if (b + i).is_multiple_of(3) {
                        0.0
                    } else {
                        (1.0 / (1.0 - rate)) as f32
                    }
                };
                if *rate > 0.0 {
                    (0..BATCH).map(keep).collect()
                } else {
                    Vec::new()
                }
            };
            config.drop_rates().iter().enumerate().map(site).collect()
        });
        Self {
            weights: weights(&model),
            image: normals(pixels * config.channels, 1.0, 1),
            cotangent: normals(pixels * config.out_channels(), 1.0, 2),
            t: vec![3.0, 250.5, 999.0],
            labels: vec![1, 2, 0],
            context: normals(BATCH * dim * tokens, 1.0, 3),
            null: vec![false, true, false],
            drop_path,
            model,
        }
    }

    fn input<'a, B: ModelBackend>(&'a self, image: &'a Reals<B>) -> ModelInput<'a, B> {
        let condition = match self.model.config().condition {
            ConditionKind::None => Condition::None,
            ConditionKind::Classes { .. } => Condition::Classes(&self.labels),
            ConditionKind::Context { .. } => Condition::Context {
                embeddings: &self.context,
                null: &self.null,
            },
        };
        ModelInput {
            image,
            t: &self.t,
            condition,
            drop_path: self.drop_path.as_deref(),
        }
    }

    /// Output, gradients of the parameters and of the image.
    fn gradients<B: ModelBackend>(&self, backend: &B, recompute: bool) -> [Vec<f32>; 3] {
        let params = backend.from_f32(&self.weights);
        let image = backend.from_f32(&self.image);
        let (out, saved) = self
            .model
            .forward_saved(
                Ctx::new(backend, &params),
                &self.input::<B>(&image),
                recompute,
            )
            .unwrap();
        let dout = backend.from_f32(&self.cotangent);
        let mut grads = backend.zeros(self.weights.len());
        let mut dimage = backend.zeros(self.image.len());
        self.model
            .backward(
                Ctx::new(backend, &params),
                saved,
                &dout,
                &mut grads,
                Some(&mut dimage),
            )
            .unwrap();
        [out, grads, dimage].map(|x| backend.to_f32(&x))
    }

    /// The scalar whose gradient `gradients` gives, in float64.
    fn loss(&self, params: &[f64], image: &[f64]) -> f64 {
        let backend = Reference::new();
        let upload = |values: &[f64]| {
            let mut buf = backend.zeros(values.len());
            backend.write_f64(&mut buf, 0, values).unwrap();
            buf
        };
        let image = upload(image);
        let out = self
            .model
            .forward(
                Ctx::new(&backend, &upload(params)),
                &self.input::<Reference>(&image),
            )
            .unwrap();
        let mut values = vec![0.0; self.cotangent.len()];
        backend.read_f64(&out, 0, &mut values).unwrap();
        values
            .iter()
            .zip(&self.cotangent)
            .map(|(y, c)| y * f64::from(*c))
            .sum()
    }
}

fn base() -> DisConfig {
    let mut config = DisConfig::new(4, 2, 2, 6, 3);
    config.ssm.d_state = 4;
    config.drop_path_rate = 0.0;
    config
}

/// Name and configuration of every variant with the attention mixer.
fn attention_variants() -> Vec<(&'static str, DisConfig)> {
    let with = |heads, qkv_bias, change: &dyn Fn(&mut DisConfig)| {
        let mut config = base();
        config.mixer = MixerKind::Attention(AttentionOptions {
            heads: Some(heads),
            mlp_ratio: 2,
            qkv_bias,
        });
        change(&mut config);
        config
    };
    let classes = ConditionKind::Classes {
        num_classes: 3,
        null_label: true,
    };
    vec![
        ("attention", with(1, false, &|_| {})),
        (
            "attention, rectangle",
            with(2, false, &|c| c.image_size = [8, 2].into()),
        ),
        (
            "attention, three heads, bias, layer norm",
            with(3, true, &|c| {
                c.norm = NormKind::Layer;
                c.condition = classes;
            }),
        ),
        (
            "attention, adaln, skip add",
            with(2, true, &|c| {
                c.conditioning = Conditioning::AdaLn;
                c.condition = classes;
                c.skip = SkipKind::Add;
            }),
        ),
        (
            "attention, drop path",
            with(2, false, &|c| {
                c.drop_path_rate = 0.5;
                c.depth = 4;
            }),
        ),
    ]
}

/// Both mixers.
fn all_variants() -> Vec<(&'static str, DisConfig)> {
    [variants(), attention_variants()].concat()
}

/// Name and configuration of every variant with the Mamba mixer.
fn variants() -> Vec<(&'static str, DisConfig)> {
    let classes = ConditionKind::Classes {
        num_classes: 3,
        null_label: true,
    };
    let context = ConditionKind::Context {
        dim: 5,
        tokens: 2,
        null_context: true,
    };
    let with = |change: &dyn Fn(&mut DisConfig)| {
        let mut config = base();
        change(&mut config);
        config
    };
    vec![
        ("unconditional", base()),
        ("classes", with(&|c| c.condition = classes)),
        ("context", with(&|c| c.condition = context)),
        ("wide", with(&|c| c.image_size = [4, 6].into())),
        (
            "tall, adaln classes",
            with(&|c| {
                c.image_size = [6, 2].into();
                c.conditioning = Conditioning::AdaLn;
                c.condition = classes;
            }),
        ),
        ("skip add", with(&|c| c.skip = SkipKind::Add)),
        (
            "no skip, layer norm",
            with(&|c| {
                c.skip = SkipKind::None;
                c.norm = NormKind::Layer;
            }),
        ),
        ("adaln", with(&|c| c.conditioning = Conditioning::AdaLn)),
        (
            "adaln classes",
            with(&|c| {
                c.conditioning = Conditioning::AdaLn;
                c.condition = classes;
            }),
        ),
        (
            "adaln context, layer norm",
            with(&|c| {
                c.conditioning = Conditioning::AdaLn;
                c.condition = context;
                c.norm = NormKind::Layer;
            }),
        ),
        (
            "no time mlp, fixed variance",
            with(&|c| {
                c.mlp_time_embed = false;
                c.learn_sigma = false;
            }),
        ),
        (
            "biases, narrow conv, zero-order hold",
            with(&|c| {
                c.ssm = SsmConfig {
                    d_state: 3,
                    d_conv: 3,
                    expand: 1,
                    dt_rank: Some(2),
                    bias: true,
                    conv_bias: false,
                    discretization: Discretization::ZeroOrderHold,
                };
            }),
        ),
        (
            "drop path",
            with(&|c| {
                c.condition = classes;
                c.drop_path_rate = 0.5;
                c.depth = 4;
            }),
        ),
    ]
}

#[test]
fn gradients_equal_finite_differences_in_float64() {
    for (name, config) in all_variants() {
        let case = Case::new(config);
        let [_, grads, dimage] = case.gradients(&Reference::new(), false);
        let params: Vec<f64> = case.weights.iter().map(|&x| f64::from(x)).collect();
        let image: Vec<f64> = case.image.iter().map(|&x| f64::from(x)).collect();
        let h = 1e-5;
        let scale = |g: &[f32]| g.iter().fold(1e-3f64, |m, &x| m.max(f64::from(x).abs()));
        let difference = |set: &dyn Fn(f64) -> f64| (set(h) - set(-h)) / (2.0 * h);
        // A few elements of every parameter: first, middle, last.
        for spec in case.model.table().specs() {
            let range = spec.offset..spec.offset + spec.len();
            let tolerance = 2e-6 * scale(&grads[range.clone()]) + 1e-8 * scale(&grads);
            for i in [range.start, (range.start + range.end) / 2, range.end - 1] {
                let expected = difference(&|h| {
                    let mut moved = params.clone();
                    moved[i] += h;
                    case.loss(&moved, &image)
                });
                let got = f64::from(grads[i]);
                assert!(
                    (got - expected).abs() <= tolerance,
                    "{name}: {} [{}]: {got} against {expected}",
                    spec.name,
                    i - spec.offset
                );
            }
        }
        for i in [0, image.len() / 2, image.len() - 1] {
            let expected = difference(&|h| {
                let mut moved = image.clone();
                moved[i] += h;
                case.loss(&params, &moved)
            });
            let got = f64::from(dimage[i]);
            assert!(
                (got - expected).abs() <= 2e-6 * scale(&dimage),
                "{name}: image[{i}]: {got} against {expected}"
            );
        }
    }
}

/// float32 rounding through a few layers; the golden set's tolerances are the measure.
fn compare(name: &str, got: &[Vec<f32>; 3], expected: &[Vec<f32>; 3]) {
    for (i, (what, rtol)) in [
        ("output", 2e-5),
        ("parameter gradients", 5e-5),
        ("image gradient", 5e-5),
    ]
    .into_iter()
    .enumerate()
    {
        let largest = expected[i].iter().fold(0f32, |m, x| m.max(x.abs()));
        for (g, e) in got[i].iter().zip(&expected[i]) {
            assert!(
                (g - e).abs() <= rtol * largest,
                "{name}: {what}: {g} against {e} (largest {largest})"
            );
        }
    }
}

/// Every variant on the GPU backend, whose kernels the simulator executes: with exact approximate
/// instructions and at both ends of their error, in three orders of blocks and warps, with our own
/// matrix product.
#[cfg(feature = "sim")]
#[test]
fn the_simulated_gpu_agrees_with_the_reference() {
    use dis_kernels::sim::{Approx, Options, Order, Sim};
    use dis_tensor::Cuda;

    let devices = [
        (Approx::Exact, Order::InOrder),
        (Approx::High, Order::Reversed),
        (Approx::Low, Order::Shuffled(1)),
    ]
    .map(|(approx, order)| {
        let options = Options {
            approx,
            order,
            ..Options::default()
        };
        Cuda::new(Sim::new(options)).with_ptx_gemm(true)
    });
    for (i, (name, config)) in all_variants().into_iter().enumerate() {
        let case = Case::new(config);
        let expected = case.gradients(&Reference::new(), false);
        let gpu = &devices[i % devices.len()];
        let got = case.gradients(gpu, false);
        assert_eq!(gpu.failure(), None, "{name}");
        compare(name, &got, &expected);
        assert_eq!(case.gradients(gpu, true), got, "{name}: recompute");
    }
}

#[test]
fn cpu_agrees_with_the_reference_and_recomputing_changes_no_bit() {
    let cpu = Cpu::new();
    for (name, config) in all_variants() {
        let case = Case::new(config);
        let expected = case.gradients(&Reference::new(), false);
        let got = case.gradients(&cpu, false);
        compare(name, &got, &expected);
        assert_eq!(case.gradients(&cpu, true), got, "{name}: recompute");
        assert_eq!(
            case.gradients(&cpu, false),
            got,
            "{name}: again, with used buffers"
        );
        for threads in [1, 3] {
            let other = Cpu::with_threads(threads).unwrap();
            assert_eq!(
                case.gradients(&other, false),
                got,
                "{name}: {threads} threads"
            );
        }
    }
}

#[test]
fn inputs_that_do_not_fit_are_refused() {
    let classes = ConditionKind::Classes {
        num_classes: 3,
        null_label: true,
    };
    let mut config = base();
    config.condition = classes;
    let mut case = Case::new(config);
    let cpu = Cpu::new();
    let params = cpu.from_f32(&case.weights);
    let image = cpu.from_f32(&case.image);
    let message = |case: &Case| {
        case.model
            .forward(Ctx::new(&cpu, &params), &case.input::<Cpu>(&image))
            .unwrap_err()
            .to_string()
    };
    case.labels[1] = 4;
    assert!(message(&case).contains("label 4"));
    case.labels.pop();
    assert!(message(&case).contains("2 labels"));
    case.labels = vec![0, 1, 2];
    case.t[0] = f64::NAN;
    assert!(message(&case).contains("NaN"));
    case.t = vec![1.0];
    assert!(message(&case).contains("3 labels"));
    case.labels = vec![0];
    assert!(message(&case).contains("image batch"));
    (case.t, case.labels) = (vec![1.0; 3], vec![0, 1, 2]);
    let none = ModelInput {
        condition: Condition::None,
        ..case.input::<Cpu>(&image)
    };
    let error = case
        .model
        .forward(Ctx::new(&cpu, &params), &none)
        .unwrap_err();
    assert!(error.to_string().contains("class label"));
}
