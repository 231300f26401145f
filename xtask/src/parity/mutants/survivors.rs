//! Changes that may survive, and why.

use super::operators::Change;

/// Text, part of the instruction before the change, kind of change, reason.
const EXPLAINED: &[(&str, &str, &str, &str)] = &[];

/// Why a change may survive.
pub fn why(text: &str, change: &Change) -> Option<&'static str> {
    EXPLAINED
        .iter()
        .find(|(t, before, kind, _)| {
            *t == text && change.before.contains(before) && *kind == change.kind
        })
        .map(|(.., reason)| *reason)
}
