//! Owners that an object names twice (`endpoints/handlers.dedupOwnerReferencesAndAddWarning`).

use std::collections::HashSet;

use serde_json::Value;

use super::meta;

const FOUND: &str = ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may \
                     reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: ";
const FOUND_AFTER: &str = ".metadata.ownerReferences contains duplicate entries after mutating admission happens; API server \
                           dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your \
                           requests; duplicate UID(s) observed: ";

/// When it is looked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    AsSent,
    AfterAdmission,
}

/// Leaves each owner once; the answer is what the client must be told.
pub(super) fn once(object: &mut Value, stage: Stage) -> Option<String> {
    let references = object.get("metadata")?.get("ownerReferences")?.as_array()?;
    let (mut kept, mut again): (Vec<&Value>, Vec<&str>) = (Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    for reference in references {
        let uid = reference.get("uid").and_then(Value::as_str).unwrap_or_default();
        // To compare with all of them takes long, and only matters where the UID is the same.
        match !seen.insert(uid) && kept.contains(&reference) {
            true => again.push(uid),
            false => kept.push(reference),
        }
    }
    if again.is_empty() {
        return None;
    }
    let found = if stage == Stage::AsSent { FOUND } else { FOUND_AFTER };
    let told = format!("{found}{}", again.join(", "));
    let kept: Vec<Value> = kept.into_iter().cloned().collect();
    meta::set(object, "ownerReferences", kept);
    Some(told)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Stage, once};

    #[test]
    fn an_owner_is_kept_once_and_where_it_was_first() {
        let owner = |uid: &str, name: &str| json!({ "apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid });
        let owners = [owner("1", "a"), owner("2", "b"), owner("1", "a"), owner("1", "c"), owner("2", "b")];
        let mut object = json!({ "metadata": { "ownerReferences": owners } });
        let told = once(&mut object, Stage::AsSent).unwrap();
        assert!(told.ends_with("duplicate UID(s) observed: 1, 2"), "{told}");
        let kept = json!([owner("1", "a"), owner("2", "b"), owner("1", "c")]);
        assert_eq!(object["metadata"]["ownerReferences"], kept);
        assert_eq!(once(&mut object, Stage::AfterAdmission), None);
        assert_eq!(once(&mut json!({}), Stage::AsSent), None);
    }
}
