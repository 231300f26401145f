//! What all commands share: names, help, messages, JSON.

use serde_json::Value;

use crate::common::{dis, fail, names, succeed, words, workplace};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn it_knows_its_name_and_what_is_like_it() {
    let dir = workplace();
    let at = dir.path();
    assert!(succeed(at, &["--version"]).starts_with("dis "));
    let said = text(&dis(at, &["trian"]).stderr);
    let place = |name: &str| said.find(name).unwrap();
    assert!(place("'train'") < place("'train-classifier'"), "{said}");
}

#[test]
fn help_has_groups_and_devices_that_there_are() {
    let dir = workplace();
    let at = dir.path();
    for (command, heading) in [("sample", "Sampler and guidance:"), ("train", "How long:")] {
        let help = succeed(at, &[command, "--help"]);
        assert!(
            help.contains(heading) && help.contains("Messages:"),
            "{help}"
        );
        for (device, built) in [
            ("cuda", cfg!(feature = "cuda")),
            ("sim", cfg!(feature = "sim")),
        ] {
            assert_eq!(
                help.contains(&format!("- {device}:")),
                built,
                "{command} {device}"
            );
        }
    }
    succeed(at, &["man", "pages"]);
    let pages = names(&at.join("pages"));
    assert!(pages.contains(&"dis-sample.1".to_string()), "{pages:?}");
}

#[test]
fn quiet_is_results_and_errors() {
    let dir = workplace();
    let at = dir.path();
    let draw = words("-q sample --num 1 --steps 1");
    let output = dis(at, &draw);
    assert_eq!(text(&output.stderr), "");
    assert_eq!(text(&output.stdout), "1 images in samples.png\n");
    fail(at, &words("sample -q --steps 0"), &["steps"]);
}

#[test]
fn standard_output_may_be_json_alone() {
    let dir = workplace();
    let at = dir.path();
    let parsed =
        |line: &str| -> Value { serde_json::from_str(&succeed(at, &words(line))).unwrap() };
    let drawn = parsed("sample --num 2 --classes 3,5 --steps 1 --seed 4 --json -");
    assert_eq!(drawn["images"][1]["class"], "5");
    assert_eq!(drawn["out"], "samples.png");
    assert!(
        drawn["options"]
            .as_array()
            .unwrap()
            .contains(&"--seed=4".into())
    );
    let trained = parsed("train --config tiny.toml --steps 2 --out run --json -");
    assert_eq!(
        (&trained["step"], &trained["run"]),
        (&2.into(), &"run".into())
    );
    let judged =
        parsed("eval bundled --num 20 --steps 1 --metrics fid --reference digits --json -");
    assert!(judged["results"].is_object() || judged["results"].is_array());
    succeed(at, &words("sample --num 1 --steps 1 --json one.json"));
    assert!(at.join("one.json").is_file());
    fail(at, &words("sample --json absent/x.json"), &["absent"]);
}
