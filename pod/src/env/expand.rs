//! `$(VAR)` references.

use std::collections::BTreeSet;

/// Replaces `$(VAR)` by its value. A reference to nothing stays as it is, and `$$` is a dollar sign (API doc of
/// `EnvVar.value`, `Container.command`, `Container.args`).
pub fn expand(text: &str, mut value: impl FnMut(&str) -> Option<String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = after.strip_prefix('(').and_then(|after| after.split_once(')')) {
            match value(name) {
                Some(value) => expanded.push_str(&value),
                None => expanded.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            expanded.push('$');
            rest = after;
        }
    }
    expanded.push_str(rest);
    expanded
}

/// Variables that a path needs and that have no value. The text is upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("missing value for {0}")]
pub struct MissingValue(String);

/// The same for a `subPathExpr`, where each variable must have a value (`ExpandContainerVolumeMounts`).
///
/// # Errors
/// Variables that are not set, or empty.
pub fn expand_known(text: &str, value: impl Fn(&str) -> Option<String>) -> Result<String, MissingValue> {
    let mut missing = BTreeSet::new();
    let expanded = expand(text, |name| {
        let found = value(name).filter(|value| !value.is_empty());
        if found.is_none() {
            missing.insert(name.to_owned());
        }
        found
    });
    if missing.is_empty() {
        return Ok(expanded);
    }
    Err(MissingValue(missing.into_iter().collect::<Vec<_>>().join(", ")))
}
