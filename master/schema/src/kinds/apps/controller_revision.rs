//! `apps/v1` ControllerRevision.

use jiff::Timestamp;
use serde_json::Value;

use crate::errors::{Errors, Path};
use crate::kind::{Column, Hooks, Kind, Names, Part};
use crate::meta;
use crate::table;
use crate::value::Fields;

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.apps.v1.ControllerRevision",

    columns: COLUMNS,
    hooks: Hooks { row, validate, validate_update, ..Hooks::PLAIN },
    ..Kind::namespaced("apps", "v1", NAMES)
};

const NAMES: Names = Names {
    kind: "ControllerRevision",
    list: "ControllerRevisionList",
    plural: "controllerrevisions",
    singular: "controllerrevision",
};

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Controller", "What the revision belongs to"),
    Column { kind: "string", ..Column::integer("Revision", "Number of the revision") },
    Column::AGE,
];

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let owner = object.at("metadata").list("ownerReferences").iter().find(|o| o.flag("controller"));
    let controller = owner.map(|o| {
        let kind = o.text("kind").to_lowercase();
        match o.text("apiVersion").split_once('/') {
            Some((group, _)) => format!("{kind}.{group}/{}", o.text("name")),
            None => format!("{kind}/{}", o.text("name")),
        }
    });
    vec![
        table::name(object),
        table::or_none(&controller.unwrap_or_default()),
        table::count(object, "revision"),
        table::age(object, now),
    ]
}

fn validate(object: &Value, errors: &mut Errors) {
    revision(object, errors);
    match object.at("data") {
        Value::Object(_) => {}
        Value::Null => errors.required(&Path::root("data"), "data is mandatory"),
        _ => errors.required(&Path::root("data"), "data must be a valid JSON object"),
    }
}

fn revision(object: &Value, errors: &mut Errors) {
    if let Some(number) = object.int("revision").filter(|number| *number < 0) {
        errors.invalid(&Path::root("revision"), number, "must be greater than or equal to 0");
    }
}

fn validate_update(_part: Part, object: &Value, old: &Value, errors: &mut Errors) {
    revision(object, errors);
    meta::immutable(object.at("data"), old.at("data"), &Path::root("data"), errors);
}
