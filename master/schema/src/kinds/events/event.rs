//! `events.k8s.io/v1` Event: a view of core events, which are what is stored.

use serde_json::Value;

use crate::kind::{Dependents, FieldLabel, Hooks, Kind, Names, Storage};
use crate::kinds::core::event;
use crate::value::Object;

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.events.v1.Event",
    short_names: &["ev"],
    create_on_update: true,
    storage: Storage { group: "", version: "v1", plural: "events" },
    fields: FIELDS,
    dependents: Dependents::None,
    columns: event::COLUMNS,
    hooks: Hooks {
        row: |object, now| (event::KIND.hooks.row)(&to_core(object.clone()), now),
        validate: |object, errors| (event::KIND.hooks.validate)(&to_core(object.clone()), errors),
        validate_update: |part, object, old, errors| {
            (event::KIND.hooks.validate_update)(part, &to_core(object.clone()), &to_core(old.clone()), errors);
        },
        to_storage: to_core,
        from_storage: from_core,
        ..Hooks::PLAIN
    },
    ..Kind::namespaced("events.k8s.io", "v1", NAMES)
};

const NAMES: Names = Names { kind: "Event", list: "EventList", plural: "events", singular: "event" };

const FIELDS: &[FieldLabel] = &[
    FieldLabel::text("regarding.kind", "/regarding/kind"),
    FieldLabel::text("regarding.namespace", "/regarding/namespace"),
    FieldLabel::text("regarding.name", "/regarding/name"),
    FieldLabel::text("regarding.uid", "/regarding/uid"),
    FieldLabel::text("regarding.apiVersion", "/regarding/apiVersion"),
    FieldLabel::text("regarding.resourceVersion", "/regarding/resourceVersion"),
    FieldLabel::text("regarding.fieldPath", "/regarding/fieldPath"),
    FieldLabel::text("reason", "/reason"),
    FieldLabel::text("reportingController", "/reportingController"),
    FieldLabel::text("type", "/type"),
];

/// (here, in core)
const RENAMED: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

fn to_core(object: Value) -> Value {
    convert(object, "v1", |(here, core)| (here, core))
}

fn from_core(object: Value) -> Value {
    convert(object, "events.k8s.io/v1", |(here, core)| (core, here))
}

fn convert(
    object: Value,
    api_version: &str,
    direction: fn((&'static str, &'static str)) -> (&'static str, &'static str),
) -> Value {
    let Value::Object(fields) = object else { return object };
    let rename = |key: String| match RENAMED.into_iter().map(direction).find(|(from, _)| *from == key) {
        Some((_, to)) => to.to_string(),
        None => key,
    };
    let mut out: Object = fields.into_iter().map(|(key, value)| (rename(key), value)).collect();
    out.insert("apiVersion".into(), api_version.into());
    Value::Object(out)
}
