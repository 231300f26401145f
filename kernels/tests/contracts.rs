//! Every contract against the text that it launches.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use dis_kernels::contract::Args;
use dis_kernels::{contracts, ptx};
use dis_ptx_sim::Module;

#[test]
fn parameters_are_those_of_the_texts() {
    for info in contracts() {
        let module = Module::parse(info.file.name, info.file.text).unwrap();
        let entry = module
            .entry(info.entry)
            .unwrap_or_else(|| panic!("{} is not in {}", info.entry, info.file.name));
        let declared: Vec<_> = entry
            .params
            .iter()
            .map(|p| (p.name.as_str(), p.size))
            .collect();
        let params = (info.params)();
        let expected: Vec<_> = params
            .iter()
            .map(|p| (p.name.as_str(), p.kind.size()))
            .collect();
        assert_eq!(declared, expected, "{}", info.entry);
    }
}

#[test]
fn parameters_have_the_types_of_the_texts() {
    for info in contracts() {
        let start = info
            .file
            .text
            .find(&format!(".entry {}(", info.entry))
            .unwrap();
        let list = info.file.text[start..].split(')').next().unwrap();
        let types: Vec<&str> = list
            .split(".param .")
            .skip(1)
            .map(|p| p.split_whitespace().next().unwrap())
            .collect();
        let expected: Vec<String> = (info.params)()
            .iter()
            .map(|p| format!("{:?}", p.kind).to_lowercase())
            .collect();
        assert_eq!(types, expected, "{}", info.entry);
    }
}

/// The arguments of a launch lie on the stack, in room for the longest list.
#[test]
fn the_longest_list_has_room() {
    let longest = contracts().iter().map(|info| (info.params)().len()).max();
    assert_eq!(longest, Some(Args::MOST));
}

#[test]
fn every_entry_has_a_contract() {
    let known: BTreeSet<_> = contracts()
        .iter()
        .map(|c| (c.file.name, c.entry.to_owned()))
        .collect();
    for file in ptx::FILES {
        let module = Module::parse(file.name, file.text).unwrap();
        for entry in module.entries() {
            assert!(
                known.contains(&(file.name, entry.name.clone())),
                "{} of {} has no contract",
                entry.name,
                file.name
            );
        }
    }
}
