//! Names of tensors as wrappers leave them: `torch.compile`, data parallelism, training frameworks
//! and averages put words before every name, one behind the other.

use super::entry::Entry;

/// A parameter that every model of this kind has; what stands before it is a prefix.
const MARK: &str = "patch_embed.proj.weight";

/// Prefixes that are taken off where the mark is not there: tensors of something else.
const WRAPPERS: [&str; 4] = ["module.", "_orig_mod.", "model.", "ema_model."];

/// The weights of one model among the names of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Set {
    /// What stands before each of its names; empty, or with a dot at its end.
    pub prefix: String,
    /// Whether it is a moving average.
    pub average: bool,
}

/// The models among the names of a dictionary; one of everything if the names are not those of a
/// model.
pub(super) fn sets(names: &[&str]) -> Vec<Set> {
    let prefixes = names.iter().filter_map(|name| name.strip_suffix(MARK));
    let prefixes = prefixes.filter(|p| p.is_empty() || p.ends_with('.'));
    let mut sets: Vec<Set> = prefixes.map(set).collect();
    sets.sort_by(|a, b| a.prefix.cmp(&b.prefix));
    sets.dedup();
    if sets.is_empty() {
        sets.push(set(common(names)));
    }
    sets
}

fn set(prefix: &str) -> Set {
    let average = |word: &str| matches!(word, "ema" | "ema_model" | "model_ema" | "averaged");
    Set {
        prefix: prefix.to_string(),
        average: prefix.split('.').any(average),
    }
}

/// Wrappers that all names have.
fn common<'a>(names: &[&'a str]) -> &'a str {
    let Some(first) = names.first() else {
        return "";
    };
    let mut len = 0;
    while let Some(more) = WRAPPERS.iter().find(|wrapper| {
        let has = |name: &str| {
            name.get(len..)
                .is_some_and(|rest| rest.starts_with(**wrapper))
        };
        names.iter().all(|name| has(name))
    }) {
        len += more.len();
    }
    first.get(..len).unwrap_or_default()
}

/// The set that `entry` means. The error says which there are.
pub(super) fn choose<'a>(sets: &'a [Set], entry: &Entry) -> Result<&'a Set, String> {
    if let ([only], Entry::Auto | Entry::Ema | Entry::Raw) = (sets, entry) {
        return Ok(only);
    }
    let averaged = sets.iter().any(|set| set.average);
    let wanted = |set: &&Set| match entry {
        Entry::Auto => set.average == averaged,
        Entry::Ema => set.average,
        Entry::Raw => !set.average,
        Entry::Named(name) => set.prefix.trim_end_matches('.') == name,
    };
    let found: Vec<&Set> = sets.iter().filter(wanted).collect();
    if let [only] = found[..] {
        return Ok(only);
    }
    let list: Vec<String> = sets.iter().map(|set| format!("{:?}", set.prefix)).collect();
    Err(match found.is_empty() {
        true => format!(
            "no names belong to {entry}; models are under {}",
            list.join(", ")
        ),
        false => format!(
            "it is unclear which model is meant; there are some under {}",
            list.join(", ")
        ),
    })
}

/// The name of a parameter of `set`, which is one of `sets`; `None` if it belongs to something else.
pub(super) fn own<'a>(name: &'a str, set: &Set, sets: &[Set]) -> Option<&'a str> {
    // A name belongs to the longest prefix that it has.
    let others = sets.iter().filter(|s| s.prefix.len() > set.prefix.len());
    if others.into_iter().any(|s| name.starts_with(&s.prefix)) {
        return None;
    }
    name.strip_prefix(set.prefix.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(prefixes: &[&str], others: &[&str]) -> Vec<String> {
        let parameters = [MARK, "norm_f.weight"];
        let own = prefixes
            .iter()
            .flat_map(|p| parameters.map(|n| format!("{p}{n}")));
        own.chain(others.iter().map(ToString::to_string)).collect()
    }

    /// The prefix that is chosen, and the names that are left.
    fn chosen(names: &[String], entry: &Entry) -> Result<(String, Vec<String>), String> {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let sets = sets(&names);
        let set = choose(&sets, entry)?;
        let own = names.iter().filter_map(|name| own(name, set, &sets));
        Ok((set.prefix.clone(), own.map(str::to_string).collect()))
    }

    #[test]
    fn prefixes_of_wrappers_are_taken_off() {
        for prefix in [
            "",
            "module.",
            "_orig_mod.",
            "model.",
            "ema_model.",
            "module._orig_mod.",
            "_orig_mod.module.module.",
            "model.diffusion_model.",
        ] {
            let (found, left) = chosen(&names(&[prefix], &[]), &Entry::Auto).unwrap();
            assert_eq!((found.as_str(), &left), (prefix, &names(&[""], &[])));
        }
        // Something else is left alone but for what all its names share.
        let other = ["module.weight", "module.bias"].map(str::to_string);
        let (found, left) = chosen(&other, &Entry::Auto).unwrap();
        assert_eq!((found.as_str(), left.len()), ("module.", 2));
        let other = ["module.weight", "bias"].map(str::to_string);
        assert_eq!(chosen(&other, &Entry::Auto).unwrap().0, "");
        assert_eq!(chosen(&[], &Entry::Auto).unwrap().0, "");
    }

    #[test]
    fn what_stands_beside_a_model_is_left_out() {
        let averaged = names(&["module."], &["n_averaged"]);
        let (_, left) = chosen(&averaged, &Entry::Auto).unwrap();
        assert_eq!(left, names(&[""], &[]));
        let two = names(&["model.", "ema_model."], &["loss.weight", "initted"]);
        for (entry, prefix) in [
            (Entry::Auto, "ema_model."),
            (Entry::Ema, "ema_model."),
            (Entry::Raw, "model."),
            (Entry::Named("model".into()), "model."),
        ] {
            let (found, left) = chosen(&two, &entry).unwrap();
            assert_eq!((found.as_str(), left), (prefix, names(&[""], &[])));
        }
        let nested = names(&["model.", "model.ema."], &[]);
        let (found, left) = chosen(&nested, &Entry::Raw).unwrap();
        assert_eq!((found.as_str(), left), ("model.", names(&[""], &[])));
        // Beside names without a prefix everything counts: it may be a mistake.
        let (_, left) = chosen(&names(&[""], &["extra"]), &Entry::Auto).unwrap();
        assert_eq!(left.len(), 3);
    }

    #[test]
    fn unclear_choices_are_refused() {
        let two = names(&["a.", "b."], &[]);
        let message = chosen(&two, &Entry::Auto).unwrap_err();
        assert!(
            message.contains("unclear") && message.contains("\"a.\""),
            "{message}"
        );
        let message = chosen(&two, &Entry::Ema).unwrap_err();
        assert!(message.contains("moving average"), "{message}");
        assert!(chosen(&two, &Entry::Named("c".into())).is_err());
    }
}
