//! Single steps, bound terms and training losses on a stored network output against the published
//! code's, for all variance and prediction kinds.

use crate::{array, relative_error};
use dis_diffusion::{ddim_reverse_step, ddim_step, p_sample};
use dis_golden::Golden;
use ndarray::Array4;
use serde_json::Value;

struct Case<'a> {
    golden: &'a Golden,
    manifest: &'a Value,
    checked: Vec<String>,
}

impl Case<'_> {
    fn name(&self, tensor: &str) -> String {
        format!("{}.{tensor}", self.manifest["label"].as_str().unwrap())
    }

    fn input(&self, tensor: &str) -> Array4<f32> {
        array(self.golden, &self.name(&format!("in.{tensor}")))
    }

    fn check(&mut self, tensor: &str, got: &[f64]) {
        let expected = self.golden.f64(&self.name(tensor)).1;
        let base = self.golden.manifest["tolerance"]["rtol"].as_f64().unwrap();
        let measured = self.manifest["float32_reference_rel_above_1e-6"][tensor].as_f64();
        let tolerance = base.max(10.0 * measured.unwrap_or(0.0));
        let error = relative_error(got, &expected);
        assert!(
            error <= tolerance,
            "{}: {error:e} > {tolerance:e}",
            self.name(tensor)
        );
        self.checked.push(self.name(tensor));
    }

    fn check_array(&mut self, tensor: &str, got: &Array4<f32>) {
        let got: Vec<f64> = got.iter().map(|x| f64::from(*x)).collect();
        self.check(tensor, &got);
    }

    /// A value per sample that the golden file holds for every element.
    fn check_spread(&mut self, tensor: &str, per_sample: &[f64], like: &Array4<f32>) {
        let each = like.len() / per_sample.len();
        let got: Vec<f64> = per_sample
            .iter()
            .flat_map(|x| std::iter::repeat_n(*x, each))
            .collect();
        self.check(tensor, &got);
    }
}

#[test]
fn published_single_steps() {
    let golden = Golden::open("diffusion_steps");
    let mut checked = Vec::new();
    for manifest in golden.manifest["cases"].as_array().unwrap() {
        let mut case = Case {
            golden: &golden,
            manifest,
            checked: Vec::new(),
        };
        run(&mut case);
        checked.append(&mut case.checked);
    }
    for tensor in golden.manifest["tensors"].as_array().unwrap() {
        let name = tensor["name"].as_str().unwrap();
        assert!(
            name.contains(".in.") || checked.iter().any(|c| c == name),
            "{name} not checked"
        );
    }
}

fn run(case: &mut Case<'_>) {
    let diffusion = crate::diffusion(case.manifest);
    assert_eq!(
        case.manifest["num_timesteps"].as_u64().unwrap() as usize,
        diffusion.steps()
    );
    let t = case.golden.indices(&case.name("in.t")).1;
    let x_start = case.input("x_start");
    let noise = case.input("noise");
    let output = case.input("model_output");
    let draw = case.input("step_noise");
    let x_t = case.input("x_t");

    case.check("model_timesteps", &diffusion.network_timesteps(&t).unwrap());
    case.check_array("x_t", &diffusion.q_sample(&x_start, &t, &noise).unwrap());
    let q = diffusion.q_mean_variance(&x_start, &t).unwrap();
    case.check_array("q_mean", &q.mean);
    case.check_spread("q_variance", &q.variance, &x_start);
    case.check_spread("q_log_variance", &q.log_variance, &x_start);
    let posterior = diffusion.q_posterior(&x_start, &x_t, &t).unwrap();
    case.check_array("post_mean", &posterior.mean);
    case.check_spread("post_variance", &posterior.variance, &x_start);
    case.check_spread("post_log_variance", &posterior.log_variance, &x_start);
    case.check("prior_bpd", &diffusion.prior_bits(x_start.view()));

    for clip in [false, true] {
        let name = |tensor: &str| format!("{tensor}_clip{}", u8::from(clip));
        let p = diffusion.p_mean_variance(&x_t, &output, &t, clip).unwrap();
        case.check_array(&name("p_mean"), &p.mean);
        case.check_array(&name("p_log_variance"), &p.log_variance_array().unwrap());
        case.check_array(&name("p_pred_xstart"), &p.pred_xstart);
        case.check_array(&name("p_variance"), &p.variance_array().unwrap());

        let step = p_sample(&diffusion, &x_t, &output, &t, &draw, clip).unwrap();
        case.check_array(&name("p_sample"), &step.sample);
        for eta in [0.0, 0.7, 1.0] {
            let step = ddim_step(&diffusion, &x_t, &output, &t, Some(&draw), eta, clip).unwrap();
            case.check_array(&name(&format!("ddim_eta{eta:.1}")), &step.sample);
        }
        let step = ddim_reverse_step(&diffusion, &x_t, &output, &t, clip).unwrap();
        case.check_array(&name("ddim_reverse"), &step.sample);
        let bound = diffusion
            .bound_terms(x_start.view(), x_t.view(), &t, output.view(), clip)
            .unwrap();
        case.check(&name("vb_bpd"), &bound.bits);
    }

    let (loss, _) = diffusion
        .training_loss(x_start.view(), noise.view(), &t, output.view(), None)
        .unwrap();
    case.check("train_loss", &loss.total);
    if let Some(mse) = &loss.mse {
        case.check("train_mse", mse);
        if let Some(vb) = &loss.vb {
            case.check("train_vb", vb);
        }
    }
}
