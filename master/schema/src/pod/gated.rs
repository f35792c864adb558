//! A pod that scheduling gates hold back is not scheduled yet: where it may run can still be narrowed (KEP-3838).

use serde_json::Value;

use super::scheduling;
use crate::errors::{Errors, Path};
use crate::value::{Fields, is_zero, put, same};

const SPEC: Path<'static> = Path::root("spec");

/// Judges what narrows, and sets it back to what it was.
pub(super) fn narrow(munged: &mut Value, before: &Value, errors: &mut Errors) {
    node_selector(munged, before, errors);
    let path = SPEC.child("affinity");
    let (new, old) = (munged.at("affinity").at("nodeAffinity"), before.at("affinity").at("nodeAffinity"));
    if same(new, old) {
        return;
    }
    scheduling::affinity(munged.at("affinity"), &path, errors);
    node_affinity(new, old, &path.child("nodeAffinity"), errors);
    let mut affinity = munged.at("affinity").clone();
    if !affinity.is_object() {
        affinity = Value::Object(serde_json::Map::new());
    }
    put(&mut affinity, "nodeAffinity", old.clone());
    let is_gone = is_zero(&affinity) && !before.has("affinity");
    put(munged, "affinity", if is_gone { Value::Null } else { affinity });
}

/// `validateNodeSelectorMutation`
fn node_selector(munged: &mut Value, before: &Value, errors: &mut Errors) {
    let new = munged.at("nodeSelector");
    if !before.entries("nodeSelector").all(|(name, value)| new.at(name) == value) {
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.invalid(&SPEC.child("nodeSelector"), new.clone(), detail);
    }
    put(munged, "nodeSelector", before.at("nodeSelector").clone());
}

/// `validateNodeAffinityMutation`: terms stay, and get requirements at their ends.
fn node_affinity(new: &Value, old: &Value, path: &Path, errors: &mut Errors) {
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let (new, old) = (new.at(required).list("nodeSelectorTerms"), old.at(required).list("nodeSelectorTerms"));
    let path = path.child(required);
    let path = path.child("nodeSelectorTerms");
    if !old.is_empty() && old.len() != new.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errors.invalid(&path, new.to_vec(), detail);
        return;
    }
    for (index, (new, old)) in new.iter().zip(old).enumerate() {
        if !has_only_additions(new, old) {
            let detail = "only additions are allowed (no mutations or deletions)";
            errors.invalid(&path.index(index), new.clone(), detail);
        }
    }
}

fn has_only_additions(new: &Value, old: &Value) -> bool {
    let lists = ["matchExpressions", "matchFields"];
    // A term that says nothing selects nothing, and would select more.
    let says_nothing = |term: &Value| lists.iter().all(|list| term.list(list).is_empty());
    let begins_with = |list: &&str| {
        let (new, old) = (new.list(list), old.list(list));
        new.len() >= old.len() && new.iter().zip(old).all(|(new, old)| same(new, old))
    };
    (!says_nothing(old) || says_nothing(new)) && lists.iter().all(begins_with)
}
