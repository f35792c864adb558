//! How much of a device's capacity a request may have.

use api::quantity::Quantity;
use serde_json::Value;

use super::rules::{each, unique};
use crate::errors::{Errors, Path};
use crate::value::Fields;

const MOST_VALUES: usize = 10;

fn number(holder: &Value, field: &str) -> Option<Quantity> {
    holder.at(field).as_str().and_then(|text| text.parse().ok())
}

/// `requestPolicy` of a capacity of this size.
pub(super) fn request_policy(capacity: &str, policy: &Value, path: &Path<'_>, errors: &mut Errors) {
    let Ok(capacity) = capacity.parse::<Quantity>() else { return };
    let (values, range) = (!policy.list("validValues").is_empty(), policy.has("validRange"));
    let usual = number(policy, "default");
    match (values, range, usual) {
        (true, true, _) => {
            let detail = r#"exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time"#;
            errors.forbidden(path, detail);
        }
        (true, false, None) => errors.required(&path.child("default"), "required when validValues is defined"),
        (false, true, None) => errors.required(&path.child("default"), "required when validRange is defined"),
        (true, false, Some(usual)) => valid_values(policy, &usual, &capacity, path, errors),
        (false, true, Some(usual)) => {
            valid_range(policy.at("validRange"), &usual, &capacity, &path.child("validRange"), errors);
        }
        (false, false, _) => {}
    }
}

fn valid_values(policy: &Value, usual: &Quantity, capacity: &Quantity, path: &Path<'_>, errors: &mut Errors) {
    let place = path.child("validValues");
    let values: Vec<Quantity> =
        policy.list("validValues").iter().filter_map(|value| value.as_str()?.parse().ok()).collect();
    for (index, (before, value)) in values.iter().zip(values.iter().skip(1)).enumerate() {
        if before > value {
            errors.invalid(&place.index(index + 1), value.to_string(), "values must be sorted in ascending order");
        }
    }
    each(policy, "validValues", MOST_VALUES, path, errors, |value, path, errors| {
        let text = value.as_str().unwrap_or_default();
        if text.parse::<Quantity>().is_ok_and(|value| value > *capacity) {
            errors.invalid(path, text, &format!("option is larger than capacity value: {capacity}"));
        }
    });
    let key = |value: &Value| value.as_str().and_then(|text| text.parse::<Quantity>().ok());
    unique(policy, "validValues", path, errors, |value| key(value).map_or(0, |value| value.value()).to_string().into());
    if !values.contains(usual) {
        let detail = "default value is not valid according to the requestPolicy";
        errors.invalid(&place, usual.to_string(), detail);
    }
}

fn valid_range(range: &Value, usual: &Quantity, capacity: &Quantity, path: &Path<'_>, errors: &mut Errors) {
    let Some(min) = number(range, "min") else {
        return errors.required(&path.child("min"), "required when validRange is defined");
    };
    let mut wrong = |field: &str, value: &Quantity, detail: String| {
        errors.invalid(&path.child(field), value.to_string(), &detail);
    };
    if min > *capacity {
        wrong("min", &min, format!("min is larger than capacity value: {capacity}"));
    }
    if *usual < min {
        wrong("min", usual, format!("default is less than min: {min}"));
    }
    let max = number(range, "max");
    if let Some(max) = &max {
        if min > *max {
            wrong("max", &min, format!("min is larger than max: {max}"));
        }
        if max > capacity {
            wrong("max", max, format!("max is larger than capacity value: {capacity}"));
        }
        if usual > max {
            wrong("max", usual, format!("default is more than max: {max}"));
        }
    }
    let Some(step) = number(range, "step") else { return };
    let added = min.plus(&step);
    if added > *capacity {
        wrong("step", &step, format!("one step {added} is larger than capacity value: {capacity}"));
    }
    for value in [Some(usual), max.as_ref()].into_iter().flatten() {
        let distance = value.value().saturating_sub(min.value());
        if distance.checked_rem(step.value()).is_none_or(|rest| rest != 0) {
            wrong("step", value, format!("value is not a multiple of a given step ({step}) from ({min})"));
        }
    }
}
