//! What a quota's status should say.

use std::collections::BTreeMap;

use api::quantity::Quantity;
use api::quota;
use api::resources::ResourceList;
use serde_json::{Map, Value, json};

/// The resources that a quota counts, with the names that are about each.
pub(super) fn counted(quota: &Value) -> BTreeMap<(String, String), Vec<String>> {
    let mut counted: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for (name, _) in quota.pointer("/spec/hard").and_then(Value::as_object).into_iter().flatten() {
        let (group, resource) = quota::counts(name);
        counted.entry((group.to_owned(), resource.to_owned())).or_default().push(name.clone());
    }
    counted
}

/// The status of a quota; `objects` are those of its namespace, by resource. `None` where it is so already.
pub(super) fn status(quota: &Value, objects: &BTreeMap<(String, String), Vec<Value>>) -> Option<Value> {
    let mut used = ResourceList::new();
    for ((group, resource), names) in counted(quota) {
        names.iter().for_each(|name| {
            used.insert(name.clone(), Quantity::ZERO);
        });
        let all = objects.get(&(group.clone(), resource.clone())).map(Vec::as_slice).unwrap_or_default();
        for object in all.iter().filter(|object| quota::is_in_scope(quota, (&group, &resource), object)) {
            for (name, amount) in quota::usage(&group, &resource, object) {
                if let Some(sum) = used.get_mut(&name).filter(|_| names.contains(&name)) {
                    *sum = sum.plus(&amount);
                }
            }
        }
    }
    let used: Map<String, Value> =
        used.iter().map(|(name, amount)| (name.clone(), amount.to_string().into())).collect();
    let status = json!({ "hard": quota.pointer("/spec/hard"), "used": used });
    let same = |field: &str| as_amounts(status.get(field)) == as_amounts(quota.pointer(&format!("/status/{field}")));
    if same("hard") && same("used") { None } else { Some(status) }
}

/// Whether less is used by a new status than the quota says so far.
pub(super) fn lowers(status: &Value, quota: &Value) -> bool {
    let (new, old) = (as_amounts(status.get("used")), as_amounts(quota.pointer("/status/used")));
    new.iter().any(|(name, amount)| old.get(name).is_some_and(|old| amount < old))
}

fn as_amounts(list: Option<&Value>) -> BTreeMap<&str, Option<Quantity>> {
    let entries = list.and_then(Value::as_object).into_iter().flatten();
    entries.map(|(name, amount)| (name.as_str(), amount.as_str().and_then(|text| text.parse().ok()))).collect()
}
