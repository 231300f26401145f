//! Names of classes, matched and chosen.

use serde_json::json;

use super::*;
use crate::config::DisConfig;

fn named(holder: &str, names: &[&str]) -> Classes {
    let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
    Classes::named(holder, &names)
}

fn text<T: std::fmt::Debug, E: std::fmt::Display + std::fmt::Debug>(
    result: Result<T, E>,
) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn classes_are_matched_by_name() {
    let train = named("the training data", &["apple", "leaf", "stone"]);
    let test = named("the test data", &["leaf", "stone"]);
    let map = test.map_to(&train).unwrap();
    assert_eq!(map.classes(), [Some(1), Some(2)]);
    assert!(!map.is_identity());
    assert!(train.map_to(&train.clone()).unwrap().is_identity());
    let order = named("x", &["stone", "apple", "leaf"]);
    let map = order.map_to(&train).unwrap();
    assert_eq!(map.classes(), [Some(2), Some(0), Some(1)]);
    // The other way round a class is missing.
    let error = text(train.map_to(&test));
    for word in [
        "class names differ",
        "the training data has \"apple\", \"leaf\", \"stone\"",
        "the test data has \"leaf\", \"stone\", and no \"apple\"",
    ] {
        assert!(error.contains(word), "{error}");
    }
    let common = train.common(&test).unwrap();
    assert_eq!(common.classes(), [None, Some(0), Some(1)]);
    // Folder names sort as texts.
    let folder = named("the folder", &["1", "10", "2"]);
    let other = named("the other", &["10", "2"]);
    let map = other.map_to(&folder).unwrap();
    assert_eq!(map.classes(), [Some(1), Some(2)]);
}

#[test]
fn without_names_numbers_are_compared_and_counted() {
    let digits = named("the digits", &["0", "1", "2"]);
    assert!(!digits.has_names());
    let words = named("the words", &["a", "b", "c"]);
    assert!(digits.map_to(&words).unwrap().is_identity());
    assert!(words.map_to(&digits).unwrap().is_identity());
    let two = Classes::numbered("the file", 2);
    assert!(two.map_to(&words).unwrap().is_identity());
    let four = Classes::numbered("the file", 4);
    let error = text(four.map_to(&words));
    assert!(
        error.contains("the file has 4 (0 to 3), the words 3 (\"a\""),
        "{error}"
    );
    assert!(text(four.map_to(&digits)).contains("numbers of classes differ"));
    // Three names are not the first three of four numbers.
    assert!(text(words.map_to(&four)).contains("the words has 3"));
    // Numbers that may be the names or their places.
    let folder = named("the folder", &["1", "10", "2"]);
    for error in [text(digits.map_to(&folder)), text(folder.map_to(&digits))] {
        assert!(
            error.contains("not clear") && error.contains("\"10\""),
            "{error}"
        );
    }
}

#[test]
fn names_that_stand_twice_tell_nothing() {
    let twice = named("the model", &["cat", "dog", "cat"]);
    assert!(twice.map_to(&twice.clone()).unwrap().is_identity());
    let one = named("the data", &["cat", "dog"]);
    let error = text(one.map_to(&twice));
    assert!(
        error.contains("classes 0 and 2 are both named \"cat\""),
        "{error}"
    );
    let error = text(twice.choose(&["cat"]));
    assert!(error.contains("by its number"), "{error}");
    assert_eq!(twice.choose(&["2,dog"]).unwrap(), [2, 1]);
    let numbers = named("the model", &["7", "7"]);
    assert_eq!(numbers.choose(&["1"]).unwrap(), [1]);
}

#[test]
fn lists_are_read_with_the_names_at_hand() {
    let pets = named("the model", &["cat", "cat, tabby", "dog", " odd", "\"q\""]);
    for (list, classes) in [
        ("cat, tabby", vec![1]),
        ("cat,dog", vec![0, 2]),
        ("cat, dog", vec![0, 2]),
        ("dog,cat, tabby,cat", vec![2, 1, 0]),
        ("\"cat, tabby\", \"cat\" ,dog", vec![1, 0, 2]),
        ("0,2 , 1", vec![0, 2, 1]),
        (" odd, odd", vec![3, 3]),
        ("\"q\",cat", vec![4, 0]),
    ] {
        assert_eq!(pets.choose(&[list]).unwrap(), classes, "{list}");
    }
    assert_eq!(pets.choose(&["cat, tabby", "dog"]).unwrap(), [1, 2]);
    for (list, words) in [
        (
            "cat, tab",
            "no class \"tab\"; classes are \"cat\", \"cat, tabby\", \"dog\"",
        ),
        ("\"cat", "does not end"),
        ("\"cat\" dog", "comes a comma"),
        ("\"0\"", "no class \"0\""),
        ("dog,", "no class \"\""),
        ("", "no class \"\""),
        ("5", "no class \"5\""),
        ("-1", "no class \"-1\""),
        ("+1", "no class \"+1\""),
        ("99999999999999999999", "no class"),
    ] {
        let error = text(pets.choose(&[list]));
        assert!(error.contains(words), "{list}: {error}");
    }
}

#[test]
fn where_names_are_numbers_a_number_is_a_name() {
    let folders = named("the model", &["1", "10", "2"]);
    assert_eq!(folders.choose(&["10,1"]).unwrap(), [1, 0]);
    let error = text(folders.choose(&["0"]));
    assert!(
        error.contains("no class \"0\"; classes are \"1\", \"10\", \"2\""),
        "{error}"
    );
    let plain = Classes::numbered("the model", 10);
    assert_eq!(plain.choose(&["\"3\",9"]).unwrap(), [3, 9]);
    assert!(text(plain.choose(&["10"])).contains("classes are 0 to 9"));
}

#[test]
fn file_names_are_safe_and_differ() {
    let all = |names: &[&str]| named("x", names).file_names();
    assert_eq!(all(&["1", "10", "2"]), ["1", "10", "2"]);
    assert_eq!(Classes::numbered("x", 2).file_names(), ["0", "1"]);
    assert_eq!(
        all(&[
            "cat, tabby",
            "../../etc",
            "a\nb",
            "..",
            "end. ",
            "",
            "COM1",
            "nul.txt",
            "Éa"
        ]),
        [
            "cat, tabby",
            "___.._etc",
            "a_b",
            "__",
            "end__",
            "_",
            "COM1_",
            "nul.txt_",
            "Éa"
        ]
    );
    assert_eq!(all(&["Cat", "cat", "dog"]), ["Cat-0", "cat-1", "dog"]);
    assert_eq!(all(&["a/b", "a_b"]), ["a_b-0", "a_b-1"]);
    // What is added meets a name that was there.
    assert_eq!(all(&["A", "a", "a-1"]), ["A-0", "a-1-1", "a-1-2"]);
    let long = "é".repeat(300);
    let names = all(&[&long, &format!("{long}x")]);
    assert!(names.iter().all(|n| n.len() <= 110) && names[0] != names[1]);
}

#[test]
fn metadata_say_names_and_which_classes_have_images() {
    let mut metadata = Metadata::new(DisConfig::zoo("DiS-S/2", 8, 1).unwrap());
    assert_eq!(Classes::of(&metadata).unwrap(), None);
    metadata.model.condition = ConditionKind::Classes {
        num_classes: 4,
        null_label: true,
    };
    let classes = |metadata: &Metadata| Classes::of(metadata).map(Option::unwrap);
    assert_eq!(classes(&metadata).unwrap().occupied(), [0, 1, 2, 3]);
    let set = |metadata: &mut Metadata, key: &str, value| {
        metadata.extra.insert(key.to_owned(), value);
    };
    set(&mut metadata, CLASS_NAMES, json!(["a", "b", "c"]));
    set(&mut metadata, UNOCCUPIED_CLASSES, json!([1]));
    let known = classes(&metadata).unwrap();
    assert_eq!(
        known.occupied(),
        [0, 2],
        "the fourth has no name: the data had none"
    );
    assert_eq!(known.names(), ["a", "b", "c", "3"]);
    assert_eq!(known.listing(), "\"a\", \"b\", \"c\", ... (4 in all)");
    // Classes that have no image need no partner.
    let other = named("the classifier", &["a", "c"]);
    assert_eq!(known.map_to(&other).unwrap().get(2), Some(1));
    set(&mut metadata, UNOCCUPIED_CLASSES, json!([0, 1, 2]));
    assert_eq!(classes(&metadata).unwrap().occupied(), [0, 1, 2, 3]);
    for (key, value, word) in [
        (CLASS_NAMES, json!(["a", 1]), "class_names"),
        (
            CLASS_NAMES,
            json!(["a", "b", "c", "d", "e"]),
            "5 names for 4",
        ),
        (UNOCCUPIED_CLASSES, json!([4]), "4 among 4"),
        (UNOCCUPIED_CLASSES, json!(-1), "unoccupied_classes"),
    ] {
        let mut bad = metadata.clone();
        set(&mut bad, key, value);
        let error = text(classes(&bad));
        assert!(error.contains(word), "{error}");
    }
}
