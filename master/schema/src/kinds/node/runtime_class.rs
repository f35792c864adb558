//! `node.k8s.io/v1` RuntimeClass.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::errors::{Errors, Path};
use crate::kind::{Column, Hooks, Kind, Names, Part};
use crate::names::dns_label;
use crate::pod::{node_labels, resources, validate};
use crate::value::Fields;
use crate::warnings::Warnings;
use crate::{meta, table};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.node.v1.RuntimeClass",
    create_on_update: true,
    unconditional_update: false,
    columns: &[Column::NAME, Column::text("Handler", "What the runtime calls it"), Column::AGE],
    hooks: Hooks { row, validate, validate_update, warnings, ..Hooks::PLAIN },
    ..Kind::cluster("node.k8s.io", "v1", NAMES)
};

const NAMES: Names =
    Names { kind: "RuntimeClass", list: "RuntimeClassList", plural: "runtimeclasses", singular: "runtimeclass" };

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![table::name(object), object.text("handler").into(), table::age(object, now)]
}

fn validate(object: &Value, errors: &mut Errors) {
    let (path, handler) = (Path::root("handler"), object.text("handler"));
    if handler.is_empty() {
        errors.required(&path, "");
    } else {
        dns_label(handler).iter().for_each(|text| errors.invalid(&path, handler, text));
    }
    let fixed = json!({ "limits": object.at("overhead").at("podFixed") });
    resources::container(&fixed, &Path::root("overhead"), errors);
    let (path, scheduling) = (Path::root("scheduling"), object.at("scheduling"));
    meta::labels(scheduling.at("nodeSelector"), &path.child("nodeSelector"), errors);
    let path = path.child("tolerations");
    validate::tolerations(scheduling, &path, errors);
    let key = |toleration: &Value| ["key", "operator", "value", "effect"].map(|field| toleration.at(field).clone());
    let mut seen = Vec::new();
    for (index, toleration) in scheduling.list("tolerations").iter().enumerate() {
        if seen.contains(&key(toleration)) {
            errors.duplicate(&path.index(index), toleration.clone());
        }
        seen.push(key(toleration));
    }
}

fn validate_update(_part: Part, object: &Value, old: &Value, errors: &mut Errors) {
    validate(object, errors);
    meta::immutable(object.at("handler"), old.at("handler"), &Path::root("handler"), errors);
}

fn warnings(_part: Part, object: &Value, _old: Option<&Value>, warnings: &mut Warnings) {
    for (label, _) in object.at("scheduling").entries("nodeSelector") {
        if let Some(text) = node_labels::deprecated(label) {
            warnings.of(&Path::root("scheduling").child("nodeSelector"), text);
        }
    }
}
