//! Devices as drivers list them.

use serde_json::Value;

use super::policy_rules::request_policy;
use super::rules::{binding_conditions, each, qualified_name, unique};
use crate::errors::{Errors, Path};
use crate::meta;
use crate::names::{dns_label, dns_subdomain, label_value};
use crate::pod::resources::is_native;
use crate::pod::scheduling::node_selector;
use crate::value::Fields;

pub(super) const MOST_ATTRIBUTES: usize = 32;
const MOST_ATTRIBUTE_VALUES: usize = 48;
const LONGEST_ATTRIBUTE: usize = 64;
const MOST_TAINTS: usize = 16;
const MOST_CONSUMPTIONS: usize = 2;
const MOST_COUNTERS: usize = 32;
/// Values of attributes that are one, and those that are several.
const SINGLE: [&str; 4] = ["bool", "int", "string", "version"];
const SEVERAL: [&str; 4] = ["bools", "ints", "strings", "versions"];
const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];
const SEMVER: &str = "must be a string compatible with semver.org spec 2.0.0";

/// One device of a slice; `chosen_singly`: each says itself which nodes can use it.
pub(super) fn device(device: &Value, chosen_singly: bool, path: &Path<'_>, errors: &mut Errors) {
    let (name, place) = (device.text("name"), path.child("name"));
    dns_label(name).iter().for_each(|text| errors.invalid(&place, name, text));
    attributes(device, path, errors);
    let place = path.child("capacity");
    for (name, capacity) in device.entries("capacity") {
        qualified_name(name, &place, errors);
        let (place, policy) = (place.key(name), capacity.at("requestPolicy"));
        let place = place.child("requestPolicy");
        if policy.is_null() {
            continue;
        }
        if device.flag("allowMultipleAllocations") {
            request_policy(capacity.text("value"), policy, &place, errors);
        } else {
            errors.forbidden(&place, "allowMultipleAllocations must be true");
        }
    }
    each(device, "taints", MOST_TAINTS, path, errors, taint);
    each(device, "consumesCounters", MOST_CONSUMPTIONS, path, errors, |consumption, path, errors| {
        counter_name(consumption.text("counterSet"), &path.child("counterSet"), errors);
        counters(consumption, path, errors);
    });
    unique(device, "consumesCounters", path, errors, |consumption| consumption.text("counterSet").into());
    nodes(device, chosen_singly, path, errors);
    binding_conditions(device, path, errors);
    mappings(device, &path.child("nodeAllocatableResourceMappings"), errors);
}

fn attributes(device: &Value, path: &Path<'_>, errors: &mut Errors) {
    let total = device.entries("attributes").count() + device.entries("capacity").count();
    if total > MOST_ATTRIBUTES {
        let detail = format!("the total number of attributes and capacities must not exceed {MOST_ATTRIBUTES}");
        errors.invalid(path, total, &detail);
    }
    let values = |attribute: &Value| SEVERAL.iter().map(|field| attribute.list(field).len()).sum::<usize>().max(1);
    let total: usize = device.entries("attributes").map(|(_, attribute)| values(attribute)).sum();
    if total > MOST_ATTRIBUTE_VALUES {
        let detail = format!("the total number of attribute values must not exceed {MOST_ATTRIBUTE_VALUES}");
        errors.invalid(path, total, &detail);
    }
    let path = path.child("attributes");
    for (name, value) in device.entries("attributes") {
        qualified_name(name, &path, errors);
        attribute(value, &path.key(name), errors);
    }
}

fn attribute(attribute: &Value, path: &Path<'_>, errors: &mut Errors) {
    let texts = |field| attribute.list(field).iter().map(|value| value.as_str().unwrap_or_default());
    if let Some(text) = attribute.at("string").as_str() {
        string(text, &path.child("string"), errors);
    }
    if let Some(text) = attribute.at("version").as_str() {
        version(text, &path.child("version"), errors);
    }
    for field in SEVERAL.into_iter().filter(|field| attribute.has(field) && attribute.list(field).is_empty()) {
        errors.invalid(&path.child(field), attribute.at(field).clone(), "must not be empty if specified");
    }
    texts("strings").enumerate().for_each(|(at, text)| string(text, &path.child("strings").index(at), errors));
    texts("versions").enumerate().for_each(|(at, text)| version(text, &path.child("versions").index(at), errors));
    match SINGLE.iter().chain(&SEVERAL).filter(|field| attribute.has(field)).count() {
        0 => errors.invalid(path, "", "exactly one value must be specified"),
        1 => {}
        _ => errors.invalid(path, attribute.clone(), "exactly one value must be specified"),
    }
}

fn string(text: &str, path: &Path<'_>, errors: &mut Errors) {
    if text.len() > LONGEST_ATTRIBUTE {
        errors.too_long(path, LONGEST_ATTRIBUTE);
    }
}

fn version(text: &str, path: &Path<'_>, errors: &mut Errors) {
    if !is_semver(text) {
        errors.invalid(path, text, SEMVER);
    }
    string(text, path, errors);
}

/// Whether a text is a version by semver.org: `1.2.3-pre.4+build.5`.
fn is_semver(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let number = |part: &str| digits(part) && (part == "0" || !part.starts_with('0'));
    let word = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (release, pre) = rest.split_once('-').map_or((rest, None), |(release, pre)| (release, Some(pre)));
    let before = |part: &str| word(part) && (!digits(part) || number(part));
    release.split('.').count() == 3
        && release.split('.').all(number)
        && pre.is_none_or(|pre| pre.split('.').all(before))
        && build.is_none_or(|build| build.split('.').all(word))
}

/// Counters that devices share, or use up.
pub(super) fn counters(holder: &Value, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("counters");
    let count = holder.entries("counters").count();
    if count == 0 {
        errors.required(&path, "");
    } else if count > MOST_COUNTERS {
        errors.too_many(&path, count, MOST_COUNTERS);
    } else {
        for (name, _) in holder.entries("counters") {
            dns_label(name).iter().for_each(|text| errors.invalid(&path, name.as_str(), text));
        }
    }
}

pub(super) fn counter_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    dns_label(name).iter().for_each(|text| errors.invalid(path, name, text));
}

/// Which nodes can use the device.
fn nodes(device: &Value, chosen_singly: bool, path: &Path<'_>, errors: &mut Errors) {
    const EXACTLY_ONE: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when \
                               `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    let fields = ["nodeName", "nodeSelector", "allNodes"];
    if !chosen_singly {
        if fields.iter().any(|field| device.has(field)) {
            let detail = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is \
                          set to true in the ResourceSlice spec";
            errors.invalid(path, Value::Null, detail);
        }
        return;
    }
    if let Some(name) = device.at("nodeName").as_str() {
        node_name(name, "must not be empty", &path.child("nodeName"), errors);
    }
    if device.has("nodeSelector") {
        node_selector(device.at("nodeSelector"), &path.child("nodeSelector"), errors);
    }
    only_true(device, "allNodes", path, errors);
    let set = set_fields(device, &fields);
    match set.len() {
        0 => errors.required(path, EXACTLY_ONE),
        1 => {}
        _ => errors.invalid(path, format!("{{{}}}", set.join(", ")), EXACTLY_ONE),
    }
}

/// Of fields that choose nodes those that do, quoted.
pub(super) fn set_fields(holder: &Value, fields: &[&str]) -> Vec<String> {
    let chooses = |field: &&&str| match holder.at(field) {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::String(name) => !name.is_empty(),
        _ => true,
    };
    fields.iter().filter(chooses).map(|field| format!("`{field}`")).collect()
}

pub(super) fn only_true(holder: &Value, field: &str, path: &Path<'_>, errors: &mut Errors) {
    if holder.at(field).as_bool() == Some(false) {
        errors.invalid(&path.child(field), false, "must be either unset or set to true");
    }
}

pub(super) fn node_name(name: &str, if_empty: &str, path: &Path<'_>, errors: &mut Errors) {
    if name.is_empty() {
        return errors.invalid(path, name, if_empty);
    }
    dns_subdomain(name).iter().for_each(|text| errors.invalid(path, name, text));
}

/// What of the node's own resources a device takes.
fn mappings(device: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (name, mapping) in device.entries("nodeAllocatableResourceMappings") {
        let path = path.key(name);
        if name.contains('/') && !is_native(name) {
            errors.invalid(&path, name.as_str(), "must be a node allocatable resource name");
        }
        let (multiplier, key) = (mapping.at("allocationMultiplier"), mapping.at("capacityKey").as_str());
        if multiplier.is_null() && key.is_none() {
            errors.invalid(&path, "", "at least one of allocationMultiplier or capacityKey must be set");
        }
        let positive = |text: &str| {
            text.parse::<api::quantity::Quantity>().is_ok_and(|number| !number.is_negative() && !number.is_zero())
        };
        if let Some(text) = multiplier.as_str().filter(|text| !positive(text)) {
            errors.invalid(&path.child("allocationMultiplier"), text, "must be positive");
        }
        match key {
            Some("") => errors.invalid(&path.child("capacityKey"), "", "capacityKey must not be an empty string"),
            Some(key) if !device.at("capacity").has(key) => errors.not_found(&path.child("capacityKey"), key),
            _ => {}
        }
    }
}

fn taint(taint: &Value, path: &Path<'_>, errors: &mut Errors) {
    meta::label_name(taint.text("key"), &path.child("key"), errors);
    let value = taint.text("value");
    label_value(value).iter().for_each(|text| errors.invalid(&path.child("value"), value, text));
    match taint.text("effect") {
        "" => errors.required(&path.child("effect"), ""),
        effect if EFFECTS.contains(&effect) => {}
        other => errors.not_supported(&path.child("effect"), other, &EFFECTS),
    }
}

/// A toleration of such taints.
pub(super) fn toleration(toleration: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (key, value, effect) = (toleration.text("key"), toleration.text("value"), toleration.text("effect"));
    if !key.is_empty() {
        meta::label_name(key, &path.child("key"), errors);
    }
    let place = path.child("value");
    match toleration.text("operator") {
        "Exists" if !value.is_empty() => errors.invalid(&place, value, "must be empty for operator `Exists`"),
        "Exists" => {}
        "Equal" => label_value(value).iter().for_each(|text| errors.invalid(&place, value, text)),
        "" => errors.required(&path.child("operator"), ""),
        other => errors.not_supported(&path.child("operator"), other, &["Equal", "Exists"]),
    }
    if !effect.is_empty() && !EFFECTS.contains(&effect) {
        errors.not_supported(&path.child("effect"), effect, &EFFECTS);
    }
}

#[cfg(test)]
mod tests {
    use super::is_semver;

    #[test]
    fn versions_are_those_of_semver() {
        for good in ["0.0.0", "1.2.3", "1.2.3-alpha.1", "1.2.3-0a.b-c+build.007", "1.2.3+x"] {
            assert!(is_semver(good), "{good}");
        }
        for bad in ["", "1", "1.2", "01.2.3", "1.2.3.4", "1.2.3-", "1.2.3-01", "1.2.3+", "1.2.3+a+b", "v1.2.3"] {
            assert!(!is_semver(bad), "{bad}");
        }
    }
}
