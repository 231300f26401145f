//! The dictionary of a `.pt` file that has the weights.

use std::io::{Read, Seek};

use dis_files::torch::TorchFile;

use super::entry::Entry;
use super::names::sets;

/// Where weights usually are, in the order of preference, averaged ones first.
const EMA: [&str; 3] = ["ema", "ema_state_dict", "model_ema"];
const RAW: [&str; 4] = ["model", "state_dict", "model_state_dict", "module"];
/// Dictionaries within dictionaries that are gone into.
const DEEPEST: usize = 4;

/// Whether the dictionary at a path of a `.pt` file is a moving average.
pub(super) fn is_average(path: &str) -> bool {
    path.split('/').any(|key| EMA.contains(&key))
}

/// The dictionary of a `.pt` file that has the weights. The error says which there are.
pub(super) fn dictionary<R: Read + Seek>(
    file: &TorchFile<R>,
    entry: &Entry,
) -> Result<String, String> {
    let known = match entry {
        Entry::Auto => [&EMA[..], &RAW[..]].concat(),
        Entry::Ema => EMA.to_vec(),
        Entry::Raw => RAW.to_vec(),
        Entry::Named(name) => vec![name.as_str()],
    };
    let find = |names: &[&str]| names.iter().find_map(|name| descend(file, name));
    if let Some(found) = find(&known) {
        return Ok(found);
    }
    let at_root = file.count("") > 0;
    if matches!(entry, Entry::Auto | Entry::Raw) && at_root {
        return Ok(String::new());
    }
    // An average beside the weights, told by its names only.
    if *entry == Entry::Ema
        && let Some(path) = find(&RAW).or(at_root.then(String::new))
        && sets(&file.names(&path)).iter().any(|set| set.average)
    {
        return Ok(path);
    }
    let entries = file.entries();
    if let (Entry::Auto, [(only, _)]) = (entry, &entries[..]) {
        return Ok(only.clone());
    }
    let list: Vec<String> = entries
        .iter()
        .take(12)
        .map(|(name, n)| format!("{name:?} ({n})"))
        .collect();
    let list = match (list.is_empty(), file.count("")) {
        (true, 0) => "no entry of the file holds tensors by name".to_string(),
        (true, n) => format!("the file has {n} tensors and no entries"),
        _ => format!("entries with tensors are {}", list.join(", ")),
    };
    Err(match entry {
        Entry::Auto => format!("it is unclear where the weights are; {list}"),
        Entry::Ema => format!("there is no moving average (ema); {list}"),
        Entry::Raw => format!("there are no weights (model, state_dict); {list}"),
        Entry::Named(name) => format!("there are no tensors in entry {name:?}; {list}"),
    })
}

/// The dictionary itself if tensors are in it, or the one in it that usually has them.
fn descend<R: Read + Seek>(file: &TorchFile<R>, name: &str) -> Option<String> {
    let mut path = name.to_string();
    for _ in 0..DEEPEST {
        if file.count(&path) > 0 {
            return Some(path);
        }
        let inner = RAW.iter().map(|key| format!("{path}/{key}"));
        path = inner.into_iter().find(|path| file.contains(path))?;
    }
    None
}
