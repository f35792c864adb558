//! What the kinds of dynamic resource allocation have in common (`pkg/apis/resource/validation`).

use std::sync::LazyLock;

use expressions::Ty;
use serde_json::{Value, json};

use crate::custom::expressions::{MARGIN, cost};
use crate::errors::{Errors, Path};
use crate::kinds::storage::csi_node::driver_name;
use crate::meta;
use crate::names::{c_identifier, dns_subdomain};
use crate::value::Fields;

use super::device_rules::MOST_ATTRIBUTES;

pub(super) const MOST_SELECTORS: usize = 32;
pub(super) const MOST_CONFIGURATIONS: usize = 32;
pub(super) const MOST_REQUESTS: usize = 32;
const LONGEST_POOL: usize = 253;
const LONGEST_IDENTIFIER: usize = 32;
const LONGEST_EXPRESSION: usize = 10 * 1024;
/// `CELSelectorExpressionMaxCost`
const MOST_COST: u64 = 1_000_000;
const LONGEST_PARAMETERS: usize = 10 * 1024;
const MOST_BINDING_CONDITIONS: usize = 4;
const UUID_LENGTHS: [usize; 4] = [32, 36, 38, 45];

/// Checks each item of a list. Of one with too many nothing else is said.
pub(super) fn each(
    holder: &Value,
    field: &str,
    most: usize,
    path: &Path<'_>,
    errors: &mut Errors,
    mut check: impl FnMut(&Value, &Path<'_>, &mut Errors),
) {
    let (items, path) = (holder.list(field), path.child(field));
    if items.len() > most {
        return errors.too_many(&path, items.len(), most);
    }
    for (index, item) in items.iter().enumerate() {
        check(item, &path.index(index), errors);
    }
}

/// No two items of a list have the same key.
pub(super) fn unique(holder: &Value, field: &str, path: &Path<'_>, errors: &mut Errors, key: impl Fn(&Value) -> Value) {
    let path = path.child(field);
    let mut seen = Vec::new();
    for (index, item) in holder.list(field).iter().enumerate() {
        let key = key(item);
        if seen.contains(&key) {
            errors.duplicate(&path.index(index), key);
        } else {
            seen.push(key);
        }
    }
}

/// The key of items that have a name.
pub(super) fn by_name(item: &Value) -> Value {
    item.text("name").into()
}

/// Driver, pool and device, by which devices are told apart.
pub(super) fn device_id(holder: &Value) -> [&str; 4] {
    ["driver", "pool", "device", "shareID"].map(|field| holder.text(field))
}

/// `cel` selectors of devices.
pub(super) fn selectors(holder: &Value, path: &Path<'_>, errors: &mut Errors) {
    each(holder, "selectors", MOST_SELECTORS, path, errors, |selector, path, errors| {
        let path = path.child("cel");
        if !selector.has("cel") {
            return errors.required(&path, "");
        }
        let (text, path) = (selector.at("cel").text("expression"), path.child("expression"));
        if text.len() > LONGEST_EXPRESSION {
            return errors.too_long(&path, LONGEST_EXPRESSION);
        }
        match expressions::check(text, &expressions::device()) {
            Err(why) => errors.invalid(&path, text, &format!("compilation failed: {why}")),
            Ok(Ty::Bool | Ty::Dyn) => expensive(text, &path, errors),
            Ok(other) => {
                errors.invalid(&path, text, &format!("must evaluate to bool or the unknown type, not {other}"));
            }
        }
    });
}

/// Judges what a selector may cost, of whatever device.
fn expensive(text: &str, path: &Path<'_>, errors: &mut Errors) {
    static DEVICE: LazyLock<Value> = LazyLock::new(|| {
        let text = |most: u64| json!({ "type": "string", "maxLength": most });
        let map = |values: Value| json!({ "type": "object", "maxProperties": MOST_ATTRIBUTES, "additionalProperties": values });
        let fields = json!({ "driver": text(63), "attributes": map(map(text(64))), "capacity": map(map(json!({}))) });
        json!({ "type": "object", "properties": fields })
    });
    let read = expressions::expression(text);
    if read.is_ok_and(|read| cost(&read, &["device"], &DEVICE) > MOST_COST.saturating_mul(MARGIN)) {
        errors.forbidden(path, "too complex, exceeds cost limit");
    }
}

/// What a driver is told, and no one else understands.
pub(super) fn configuration(holder: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (opaque, path) = (holder.at("opaque"), path.child("opaque"));
    if opaque.is_null() {
        return errors.required(&path, "");
    }
    driver_name(opaque.text("driver"), &path.child("driver"), errors);
    raw(opaque.at("parameters"), LONGEST_PARAMETERS, &path.child("parameters"), errors);
}

/// An object of another's making, of at most so many bytes.
pub(super) fn raw(value: &Value, most: usize, path: &Path<'_>, errors: &mut Errors) {
    if value.is_null() {
        errors.required(path, "");
    } else if value.to_string().len() > most {
        errors.too_long(path, most);
    } else if !value.is_object() {
        errors.invalid(path, "<value omitted>", "must be a valid JSON object");
    }
}

/// Subdomains, with slashes between them.
pub(super) fn pool_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    if name.len() > LONGEST_POOL {
        errors.too_long(path, LONGEST_POOL);
    }
    for part in name.split('/') {
        dns_subdomain(part).iter().for_each(|text| errors.invalid(path, part, text));
    }
}

/// A name of an attribute or capacity, perhaps with the domain of who defines it.
pub(super) fn qualified_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    let mut parts = name.split('/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(name), None, None) => identifier(name, path, errors),
        (Some(domain), Some(name), None) => {
            if domain.is_empty() {
                errors.invalid(path, "", "the domain must not be empty");
            } else {
                driver_name(domain, path, errors);
            }
            if name.is_empty() {
                errors.invalid(path, "", "the name must not be empty");
            } else {
                identifier(name, path, errors);
            }
        }
        // Upstream lets these pass.
        _ => {}
    }
}

/// A name that has a domain.
pub(super) fn fully_qualified_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    qualified_name(name, path, errors);
    if !name.contains('/') {
        let detail = "a fully qualified name must be a domain and a name separated by a slash";
        errors.invalid(path, name, detail);
    }
}

fn identifier(name: &str, path: &Path<'_>, errors: &mut Errors) {
    if name.len() > LONGEST_IDENTIFIER {
        errors.too_long(path, LONGEST_IDENTIFIER);
    }
    c_identifier(name).iter().for_each(|text| errors.invalid(path, name, text));
}

/// A UUID as the API server itself writes them.
pub(super) fn uuid(text: &str, path: &Path<'_>, errors: &mut Errors) {
    if !UUID_LENGTHS.contains(&text.len()) {
        let detail = format!("error validating uid: invalid UUID length: {}", text.len());
        return errors.invalid(path, text, &detail);
    }
    let plain = text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
        });
    if !plain {
        let detail = "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase \
                      hexadecimal characters";
        errors.invalid(path, text, detail);
    }
}

/// `bindingConditions` and `bindingFailureConditions`.
pub(super) fn binding_conditions(holder: &Value, path: &Path<'_>, errors: &mut Errors) {
    const FIELDS: [&str; 2] = ["bindingConditions", "bindingFailureConditions"];
    for field in FIELDS {
        each(holder, field, MOST_BINDING_CONDITIONS, path, errors, |name, path, errors| {
            meta::label_name(name.as_str().unwrap_or_default(), path, errors);
        });
        unique(holder, field, path, errors, Value::clone);
    }
    let [good, bad] = FIELDS.map(|field| holder.list(field));
    let failures = path.child("bindingFailureConditions");
    for (index, name) in bad.iter().enumerate().filter(|(_, name)| good.contains(name)) {
        let detail = "bindingFailureConditions must not overlap with bindingConditions";
        errors.invalid(&failures.index(index), name.clone(), detail);
    }
    if good.is_empty() && !bad.is_empty() {
        let detail = "bindingConditions are required to use bindingFailureConditions";
        errors.invalid(&path.child("bindingConditions"), Value::Null, detail);
    }
    if bad.is_empty() && !good.is_empty() {
        let detail = "bindingFailureConditions are required to use bindingConditions";
        errors.invalid(&failures, Value::Null, detail);
    }
}
