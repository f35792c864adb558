//! `autoscaling/v1` HorizontalPodAutoscaler: a view of those of v2, which are what is stored. What v1 has no fields for is in
//! annotations (`pkg/apis/autoscaling/v1/conversion.go`).

use serde_json::Value;

use super::conversion::{SPECS_ANNOTATIONS, STATUS_ANNOTATIONS, from_v2, to_v2};
use super::horizontal_pod_autoscaler as v2;
use crate::kind::{Hooks, Kind, Part, Storage, Subresource};
use crate::value::{Fields, object_in, put, set_if_unset};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler",
    short_names: &["hpa"],
    categories: &["all"],
    subresources: &[Subresource::status("autoscaling", "v1", "HorizontalPodAutoscaler")],
    storage: Storage { group: "autoscaling", version: "v2", plural: v2::NAMES.plural },
    columns: v2::COLUMNS,
    hooks: Hooks {
        default,
        prepare_create: |object| take_annotations(object, &Value::Null, &STATUS_ANNOTATIONS),
        prepare_update,
        row: |object, now| v2::row(&to_v2(object.clone()), now),
        validate: |object, errors| (v2::KIND.hooks.validate)(&to_v2(object.clone()), errors),
        validate_update: |part, object, old, errors| {
            (v2::KIND.hooks.validate_update)(part, &to_v2(object.clone()), &to_v2(old.clone()), errors);
        },
        to_storage: to_v2,
        from_storage: from_v2,
        ..Hooks::PLAIN
    },
    ..Kind::namespaced("autoscaling", "v1", v2::NAMES)
};

fn default(object: &mut Value) {
    if let Value::Object(object) = object {
        set_if_unset(object_in(object, "spec"), "minReplicas", 1);
    }
}

/// A write of one part of the object leaves the annotations that stand for the other part as they are.
fn prepare_update(part: Part, object: &mut Value, old: &Value) {
    match part {
        Part::Main => take_annotations(object, old, &STATUS_ANNOTATIONS),
        _ => take_annotations(object, old, &SPECS_ANNOTATIONS),
    }
}

fn take_annotations(object: &mut Value, from: &Value, names: &[&str]) {
    let annotations = from.at("metadata").at("annotations");
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let mut own = metadata.remove("annotations").unwrap_or_else(|| Value::Object(Default::default()));
    for name in names {
        put(&mut own, name, annotations.at(name).clone());
    }
    if own.as_object().is_some_and(|own| !own.is_empty()) {
        metadata.insert("annotations".into(), own);
    }
}
