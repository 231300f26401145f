//! The tables and the plot of docs/samplers.md.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use dis_diffusion::{Options, Plan, SamplerSpec, Spacing, Variance};
use ndarray::Array4;

use crate::exact::{Method, PIXELS, planned};
use crate::{DETERMINISTIC, HEUN, RANDOM, STEPS, deviation_error, errors, orders, path_error, rms};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

/// Replaces what stands between the marks of a name.
fn replace(text: &str, name: &str, with: &str) -> String {
    let (begin, end) = (
        format!("<!-- {name} -->\n"),
        format!("<!-- end of {name} -->"),
    );
    let (head, rest) = text.split_once(&begin).unwrap();
    let (_, tail) = rest.split_once(&end).unwrap();
    format!("{head}{begin}{with}{end}{tail}")
}

type Row = (String, f64, [f64; 5]);

fn rows(methods: &[(Method, f64)], error: fn(Method, usize) -> f64) -> Vec<Row> {
    methods
        .iter()
        .map(|(method, order)| (method.label(), *order, errors(*method, error)))
        .collect()
}

fn order_table(rows: &[Row]) -> String {
    let mut out = String::from("| sampler |");
    for steps in STEPS {
        write!(out, " {steps} |").unwrap();
    }
    out += " order 20 to 40 | order 40 to 80 | theory |\n|---|";
    out += &"---:|".repeat(STEPS.len() + 3);
    out += "\n";
    for (label, order, errors) in rows {
        write!(out, "| `{label}` |").unwrap();
        for error in errors {
            write!(out, " {error:.1e} |").unwrap();
        }
        let observed = orders(errors);
        writeln!(out, " {:.2} | {:.2} | {order} |", observed[2], observed[3]).unwrap();
    }
    out
}

/// Errors of real plans, from noise to image on the linear schedule.
fn practical_table() -> String {
    let start = Array4::from_shape_fn((4, 1, 1, PIXELS), |(row, _, _, _)| {
        [-1.3, -0.4, 0.7, 1.8][row]
    });
    let options = Options {
        variance: Variance::FixedSmall,
        ..Options::default()
    };
    let mut out = String::from("| sampler | spacing |");
    for steps in STEPS {
        write!(out, " {steps} |").unwrap();
    }
    out += "\n|---|---|";
    out += &"---:|".repeat(STEPS.len());
    out += "\n";
    for name in SamplerSpec::NAMES {
        let spec: SamplerSpec = name.parse().unwrap();
        if spec.is_stochastic() {
            continue;
        }
        for spacing in ["leading", "linspace", "trailing", "karras", "log-snr"] {
            write!(out, "| `{name}` | {spacing} |").unwrap();
            for calls in STEPS {
                let spacing: Spacing = spacing.parse().unwrap();
                // Equal numbers of network calls, the measure of cost.
                let steps = if spec == SamplerSpec::Heun {
                    calls.div_ceil(2)
                } else {
                    calls
                };
                let plan: Plan = spec.plan(&options, steps, spacing).unwrap();
                let (ours, exact) = planned(&plan, &start);
                let error = rms(ours.iter().zip(&exact).map(|(a, b)| a - b));
                write!(out, " {error:.1e} |").unwrap();
            }
            out += "\n";
        }
    }
    out
}

const COLOURS: [&str; 12] = [
    "#1f77b4", "#aec7e8", "#2ca02c", "#ff7f0e", "#ffbb78", "#d62728", "#ff9896", "#9467bd",
    "#8c564b", "#c49c94", "#e377c2", "#111111",
];

/// Errors against steps, both logarithmic.
fn plot(rows: &[Row]) -> String {
    let (left, top, width, height) = (70.0, 20.0, 430.0, 400.0);
    let x = |steps: f64| left + width * (steps / 5.0).log2() / 4.0;
    let (high, low) = (1.0f64, -7.5f64);
    let y = |error: f64| top + height * (high - error.log10()) / (high - low);
    let mut out = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 680 480\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"680\" height=\"480\" fill=\"white\"/>\n",
    );
    for steps in STEPS {
        let at = x(steps as f64);
        writeln!(
            out,
            "<path d=\"M{at:.1} {top}V{:.1}\" stroke=\"#ddd\"/><text x=\"{at:.1}\" y=\"{:.1}\" \
             text-anchor=\"middle\">{steps}</text>",
            top + height,
            top + height + 18.0
        )
        .unwrap();
    }
    for power in -7..=1 {
        let at = y(10f64.powi(power));
        writeln!(
            out,
            "<path d=\"M{left} {at:.1}H{:.1}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" \
             text-anchor=\"end\">1e{power}</text>",
            left + width,
            left - 8.0,
            at + 4.0
        )
        .unwrap();
    }
    writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">steps</text>\n\
         <text transform=\"translate(18 {:.1}) rotate(-90)\" text-anchor=\"middle\">\
         root mean square error</text>",
        left + width / 2.0,
        top + height + 38.0,
        top + height / 2.0
    )
    .unwrap();
    for (i, ((label, order, errors), colour)) in rows.iter().zip(COLOURS).enumerate() {
        let points: Vec<String> = STEPS
            .iter()
            .zip(errors)
            .map(|(steps, e)| format!("{:.1},{:.1}", x(*steps as f64), y(*e)))
            .collect();
        // Samplers that coincide stay visible through each other's gaps.
        let dash = ["none", "6 3", "2 2"][i % 3];
        let key = top + 14.0 + 20.0 * i as f64;
        writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" \
             stroke-dasharray=\"{dash}\"/>\n\
             <path d=\"M515 {:.1}h24\" stroke=\"{colour}\" stroke-width=\"2\" \
             stroke-dasharray=\"{dash}\"/>\
             <text x=\"545\" y=\"{key:.1}\">{label} ({order})</text>",
            points.join(" "),
            key - 4.0
        )
        .unwrap();
    }
    out + "</svg>\n"
}

/// With `DIS_WRITE=1` they are written instead.
#[test]
fn tables_and_plot_are_those_of_the_code() {
    let path = docs().join("samplers.md");
    let old = std::fs::read_to_string(&path).unwrap();
    let mut deterministic = rows(&DETERMINISTIC, path_error);
    deterministic.extend(rows(&[HEUN], path_error));
    let random = rows(&RANDOM, deviation_error);
    let text = replace(&old, "orders", &order_table(&deterministic));
    let text = replace(&text, "moments", &order_table(&random));
    let text = replace(&text, "practical", &practical_table());
    let (plot, plotted) = (docs().join("samplers.svg"), plot(&deterministic));
    if std::env::var_os("DIS_WRITE").is_some() {
        std::fs::write(path, text).unwrap();
        std::fs::write(plot, plotted).unwrap();
        return;
    }
    let again = "run this test with DIS_WRITE=1 to write it anew";
    assert!(text == old, "docs/samplers.md is out of date: {again}");
    let old = std::fs::read_to_string(plot).unwrap();
    assert!(plotted == old, "docs/samplers.svg is out of date: {again}");
}
