//! What is taken from checkpoints of other images and classes.

use dis_model::ConditionKind;
use dis_model::classes::CLASS_NAMES;
use serde_json::json;

use super::*;

const WIDTH: usize = 8;

fn config(num_classes: usize) -> DisConfig {
    let mut config = DisConfig::new(8, 2, 3, WIDTH, 2);
    if num_classes > 0 {
        config.condition = ConditionKind::Classes {
            num_classes,
            null_label: true,
        };
    }
    config
}

fn metadata(config: DisConfig, names: &[&str]) -> Metadata {
    let mut metadata = Metadata::new(config);
    if !names.is_empty() {
        let names = json!(names);
        metadata.extra.insert(CLASS_NAMES.into(), names);
    }
    metadata
}

/// A checkpoint whose weights all differ.
fn checkpoint(config: DisConfig, names: &[&str]) -> Checkpoint {
    let model = DisModel::new(config).unwrap();
    let mut weights = vec![0.0; model.table().len()];
    for spec in model.table().specs() {
        for i in spec.offset..spec.offset + spec.len() {
            weights[i] = 1.0 + (i as f32 * 0.37).sin();
        }
    }
    Checkpoint {
        weights,
        metadata: metadata(config, names),
        model,
    }
}

/// A model that began with a checkpoint.
struct Begun {
    model: DisModel,
    weights: Vec<f32>,
    report: Transfer,
}

impl Begun {
    fn new(from: &Checkpoint, config: DisConfig, names: &[&str]) -> Result<Self> {
        let model = DisModel::new(config)?;
        let metadata = metadata(config, names);
        let (weights, report) = transfer(from, &model, &metadata, 5)?;
        Ok(Self {
            model,
            weights,
            report,
        })
    }

    /// Rows of a tensor.
    fn rows(&self, name: &str) -> Vec<&[f32]> {
        rows_of(&self.model, &self.weights, name)
    }

    /// Rows that a new run begins with.
    fn drawn(&self, name: &str) -> Vec<Vec<f32>> {
        let initial = self.model.table().initial(5);
        let rows = rows_of(&self.model, &initial, name).into_iter();
        rows.map(<[f32]>::to_vec).collect()
    }

    /// Whether all tensors but these are those of the checkpoint, bit for bit.
    fn kept_all_but(&self, from: &Checkpoint, names: &[&str]) {
        for spec in self.model.table().specs() {
            if !names.contains(&spec.name.as_str()) {
                let kept = rows_of(&from.model, &from.weights, &spec.name);
                assert_eq!(self.rows(&spec.name), kept, "{}", spec.name);
            }
        }
    }
}

fn rows_of<'a>(model: &DisModel, weights: &'a [f32], name: &str) -> Vec<&'a [f32]> {
    let spec = model.table().find(name).unwrap();
    let values = &weights[spec.offset..spec.offset + spec.len()];
    values.chunks_exact(*spec.shape.last().unwrap()).collect()
}

#[test]
fn the_same_architecture_and_classes_keep_every_bit() {
    for (num_classes, names) in [(0, &[][..]), (3, &[]), (3, &["a", "b", "c"]), (3, &["a"])] {
        let from = checkpoint(config(num_classes), names);
        let begun = Begun::new(&from, config(num_classes), names).unwrap();
        assert_eq!(begun.weights, from.weights);
        let tensors = from.model.table().specs().len();
        assert_eq!(begun.report.to_string(), format!("took {tensors} tensors"));
    }
    // Without names on one side as many classes are the same ones.
    let from = checkpoint(config(3), &[]);
    let begun = Begun::new(&from, config(3), &["a", "b", "c"]).unwrap();
    assert_eq!(begun.weights, from.weights);
}

#[test]
fn another_size_resizes_the_grid_and_keeps_the_tokens_before_it() {
    let from = checkpoint(config(3), &[]);
    let mut to = config(3);
    to.image_size = [12, 10].into();
    let begun = Begun::new(&from, to, &[]).unwrap();
    begun.kept_all_but(&from, &[POSITIONS]);
    let old = rows_of(&from.model, &from.weights, POSITIONS);
    let new = begun.rows(POSITIONS);
    assert_eq!(new[..2], old[..2]);
    let table: Vec<f64> = old.concat().iter().map(|&x| f64::from(x)).collect();
    let resize = PositionResize::new([4, 4], [6, 5], 2, Bicubic::Plain).unwrap();
    let expected = resize.forward(&table, WIDTH).unwrap();
    let expected: Vec<f32> = expected.into_iter().map(|x| x as f32).collect();
    assert_eq!(new.concat(), expected);
    let said = begun.report.to_string();
    assert!(
        said.ends_with("; position table resized from 4x4 to 6x5"),
        "{said}"
    );
}

#[test]
fn classes_go_by_name_and_new_ones_are_drawn() {
    let from = checkpoint(config(4), &["cat", "dog", "owl", "fox"]);
    let names = ["hen", "owl", "cat", "ant", "dog"];
    let begun = Begun::new(&from, config(5), &names).unwrap();
    begun.kept_all_but(&from, &[LABEL_TABLE]);
    let old = rows_of(&from.model, &from.weights, LABEL_TABLE);
    let (new, drawn) = (begun.rows(LABEL_TABLE), begun.drawn(LABEL_TABLE));
    let expected = [&drawn[0][..], old[2], old[0], &drawn[3], old[1], old[4]];
    assert_eq!(new, expected);
    assert_ne!(drawn[0], drawn[3]);
    let said = begun.report.to_string();
    let classes = "classes kept: 3 of 5 (owl, cat, dog), drawn: hen, ant, left out: fox";
    assert!(said.contains(classes), "{said}");
    // As many classes in another order are the same ones, each with its row.
    let begun = Begun::new(&from, config(4), &["fox", "dog", "owl", "cat"]).unwrap();
    let expected = [old[3], old[1], old[2], old[0], old[4]];
    assert_eq!(begun.rows(LABEL_TABLE), expected);
}

#[test]
fn names_and_numbers_of_other_classes_have_nothing_in_common() {
    let from = checkpoint(config(7), &[]);
    let begun = Begun::new(&from, config(2), &["cat", "dog"]).unwrap();
    assert_eq!(begun.rows(LABEL_TABLE)[..2], begun.drawn(LABEL_TABLE)[..2]);
    let said = begun.report.to_string();
    assert!(
        said.contains("classes kept: 0 of 2, drawn: cat, dog"),
        "{said}"
    );
    let old = rows_of(&from.model, &from.weights, LABEL_TABLE);
    assert_eq!(begun.rows(LABEL_TABLE)[2], old[7]);
    // Numbers are the names of classes that have no others.
    let begun = Begun::new(&from, config(9), &[]).unwrap();
    assert_eq!(begun.rows(LABEL_TABLE)[..7], old[..7]);
    assert_eq!(begun.report.classes.unwrap().drawn, ["7", "8"]);
}

#[test]
fn a_condition_is_new_or_left_out() {
    let (without, with) = (
        checkpoint(config(0), &[]),
        checkpoint(config(2), &["a", "b"]),
    );
    let parts = [
        POSITIONS,
        LABEL_TABLE,
        "final_layer.adaLN_modulation.1.weight",
        "final_layer.adaLN_modulation.1.bias",
    ];
    let begun = Begun::new(&without, config(2), &["a", "b"]).unwrap();
    begun.kept_all_but(&without, &parts);
    for name in &parts[1..] {
        assert_eq!(begun.rows(name), begun.drawn(name), "{name}");
    }
    let old = rows_of(&without.model, &without.weights, POSITIONS);
    let new = begun.rows(POSITIONS);
    // The token of the class is new and starts at 0; time and the grid are behind it.
    assert_eq!((new[0], &new[1..]), (&[0.0; WIDTH][..], &old[..]));
    let said = begun.report.to_string();
    assert!(
        said.contains("drawn anew: pos_embed of the condition, label_emb"),
        "{said}"
    );

    let begun = Begun::new(&with, config(0), &[]).unwrap();
    begun.kept_all_but(&with, &[POSITIONS]);
    let old = rows_of(&with.model, &with.weights, POSITIONS);
    assert_eq!(begun.rows(POSITIONS), old[1..]);
    assert_eq!(begun.report.left_out.len(), 4);

    let mut unguided = config(2);
    unguided.condition = ConditionKind::Classes {
        num_classes: 2,
        null_label: false,
    };
    let begun = Begun::new(&with, unguided, &["a", "b"]).unwrap();
    assert_eq!(begun.report.left_out, ["the row of no label"]);
    let begun = Begun::new(&checkpoint(unguided, &["a", "b"]), config(2), &["a", "b"]).unwrap();
    assert_eq!(begun.report.drawn, ["the row of no label"]);
    assert_eq!(begun.rows(LABEL_TABLE)[2], begun.drawn(LABEL_TABLE)[2]);
}

#[test]
fn other_architectures_are_refused_by_tensor_and_shapes() {
    let from = checkpoint(config(2), &[]);
    let refused = |change: &dyn Fn(&mut DisConfig), words: &[&str]| {
        let mut to = config(2);
        change(&mut to);
        let message = match Begun::new(&from, to, &[]) {
            Err(error) => error.to_string(),
            Ok(begun) => panic!("{}", begun.report),
        };
        for word in words.iter().chain(&["--init-from"]) {
            assert!(message.contains(word), "no {word:?} in {message}");
        }
    };
    let patch = "\"patch_embed.proj.weight\"";
    let shape = "[8, 3, 2, 2]";
    let of = |key: &str| format!("{key} there and ");
    refused(
        &|c| c.patch_size = 4,
        &[patch, shape, "[8, 3, 4, 4]", &of("patch_size is 2")],
    );
    refused(
        &|c| c.channels = 1,
        &[patch, shape, "[8, 1, 2, 2]", &of("channels is 3")],
    );
    refused(
        &|c| c.channels = 4,
        &[patch, shape, "[8, 4, 2, 2]", &of("channels is 3")],
    );
    refused(
        &|c| c.embed_dim = 16,
        &["\"pos_embed\"", "[1, 18, 8]", "[1, 18, 16]"],
    );
    refused(&|c| c.depth = 4, &["\"in_blocks.1.", &of("depth is 2")]);
    refused(&|c| c.depth = 0, &["\"in_blocks.0.", &of("depth is 2")]);
    refused(
        &|c| c.learn_sigma = false,
        &["\"final_layer.linear.weight\"", "[24, 8]", "[12, 8]"],
    );
    refused(
        &|c| c.conditioning = Conditioning::AdaLn,
        &["adaLN", &of("conditioning is \"tokens\"")],
    );
}

/// Numbers that may be names of other numbers are no classes in common.
#[test]
fn classes_of_which_it_is_not_clear_who_is_who_are_refused() {
    let from = checkpoint(config(2), &["7", "3"]);
    let message = match Begun::new(&from, config(2), &[]) {
        Err(error) => error.to_string(),
        Ok(begun) => panic!("{}", begun.report),
    };
    assert!(
        message.contains("--init-from") && message.contains("\"7\", \"3\""),
        "{message}"
    );
}
