//! `v1` LimitRange.

use api::quantity::Quantity;
use jiff::Timestamp;
use serde_json::Value;

use crate::errors::{Errors, Path};
use crate::kind::{Column, Hooks, Kind, Names};
use crate::names::qualified_name;
use crate::table;
use crate::value::{Fields, Object, object_in, objects_in};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.core.v1.LimitRange",
    short_names: &["limits"],
    columns: &[Column::NAME, Column { kind: "date", ..Column::text("Created At", "When the object was created") }],
    hooks: Hooks { default, row, validate, revalidate: true, ..Hooks::PLAIN },
    ..Kind::namespaced("", "v1", NAMES)
};

const NAMES: Names =
    Names { kind: "LimitRange", list: "LimitRangeList", plural: "limitranges", singular: "limitrange" };

const TYPES: [&str; 3] = ["Pod", "Container", "PersistentVolumeClaim"];
const LISTS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

/// Of containers, what is not said follows from what is (`SetDefaults_LimitRangeItem`).
fn default(object: &mut Value) {
    let Value::Object(range) = object else { return };
    for item in objects_in(object_in(range, "spec"), "limits") {
        if item.text("type") != "Container" {
            continue;
        }
        for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
            fill(item, from, to);
        }
    }
}

fn fill(item: &mut Object, from: &str, to: &str) {
    let given: Vec<(String, Value)> = item.entries(from).map(|(name, value)| (name.clone(), value.clone())).collect();
    if given.is_empty() {
        return;
    }
    let target = object_in(item, to);
    for (name, value) in given {
        target.entry(name).or_insert(value);
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    table::name_and_created(object, now)
}

fn validate(object: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let path = path.child("limits");
    let mut kinds = Vec::new();
    for (index, item) in object.at("spec").list("limits").iter().enumerate() {
        let path = path.index(index);
        let kind = item.text("type");
        type_name(kind, &path.child("type"), errors);
        if kinds.contains(&kind) {
            errors.duplicate(&path.child("type"), kind);
        }
        kinds.push(kind);
        names(item, kind, &path, errors);
        if kind == "PersistentVolumeClaim" && !["min", "max"].iter().any(|list| item.at(list).has("storage")) {
            let detail = "either minimum or maximum storage value is required, but neither was provided";
            errors.required(&path.child("limits"), detail);
        }
        amounts(item, kind, &path, errors);
    }
}

fn type_name(kind: &str, path: &Path, errors: &mut Errors) {
    let complaints = qualified_name(kind);
    complaints.iter().for_each(|text| errors.invalid(path, kind, text));
    if complaints.is_empty() && !kind.contains('/') && !TYPES.contains(&kind) {
        errors.invalid(path, kind, "must be a standard limit type or fully qualified");
    }
}

fn names(item: &Value, kind: &str, path: &Path, errors: &mut Errors) {
    for list in LISTS {
        let at = path.child(list);
        if kind == "Pod" && matches!(list, "default" | "defaultRequest") {
            if item.entries(list).next().is_some() {
                errors.forbidden(&at, "may not be specified when `type` is 'Pod'");
            }
            continue;
        }
        for (name, _) in item.entries(list) {
            qualified_name(name).iter().for_each(|text| errors.invalid(&at.key(name), name.as_str(), text));
        }
    }
}

/// What contradicts itself about one resource.
fn amounts(item: &Value, kind: &str, path: &Path, errors: &mut Errors) {
    let mut resources: Vec<&String> = LISTS.iter().flat_map(|list| item.entries(list)).map(|(name, _)| name).collect();
    resources.sort();
    resources.dedup();
    for name in resources {
        let amount = |list: &str| -> Option<(Quantity, &str)> {
            let of_pods = kind == "Pod" && matches!(list, "default" | "defaultRequest");
            let text = item.at(list).at(name).as_str().filter(|_| !of_pods)?;
            Some((text.parse().ok()?, text))
        };
        // (list that is wrong, smaller, larger, their names)
        let orders = [
            ("min", "min", "max", ("min value", "is greater than max value")),
            ("defaultRequest", "min", "defaultRequest", ("min value", "is greater than default request value")),
            ("defaultRequest", "defaultRequest", "max", ("default request value", "is greater than max value")),
            (
                "defaultRequest",
                "defaultRequest",
                "default",
                ("default request value", "is greater than default limit value"),
            ),
            ("default", "min", "default", ("min value", "is greater than default value")),
            ("default", "default", "max", ("default value", "is greater than max value")),
        ];
        for (blamed, small, large, (what, than)) in orders {
            if let (Some((low, low_text)), Some((high, high_text))) = (amount(small), amount(large))
                && low > high
            {
                // Upstream shows the minimum or the maximum where a default is wrong.
                let shown = match (blamed, small) {
                    ("default", "min") => low_text,
                    ("default", _) => high_text,
                    _ => item.at(blamed).text(name),
                };
                let detail = format!("{what} {low_text} {than} {high_text}");
                errors.invalid(&path.child(blamed).key(name), shown, &detail);
            }
        }
        ratio(name, (amount("maxLimitRequestRatio"), amount("min"), amount("max")), path, errors);
    }
}

type Amount<'a> = Option<(Quantity, &'a str)>;

#[allow(clippy::cast_precision_loss)] // upstream divides floats, too
fn ratio(name: &str, (ratio, min, max): (Amount, Amount, Amount), path: &Path, errors: &mut Errors) {
    let Some((ratio, text)) = ratio else { return };
    let path = path.child("maxLimitRequestRatio");
    if ratio.milli_value() < 1_000 {
        errors.invalid(&path.key(name), text, &format!("ratio {text} is less than 1"));
    }
    if let (Some((min, _)), Some((max, _))) = (min, max) {
        let most = max.milli_value() as f64 / min.milli_value() as f64;
        if ratio.milli_value() as f64 / 1_000.0 > most {
            let detail = format!("ratio {text} is greater than max/min = {most:.6}");
            errors.invalid(&path.key(name), text, &detail);
        }
    }
}
