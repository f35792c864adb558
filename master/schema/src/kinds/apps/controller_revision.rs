//! `apps/v1` ControllerRevision.

use jiff::Timestamp;
use serde_json::Value;

use crate::kind::{Column, Hooks, Kind, Names};
use crate::table;
use crate::value::Fields;

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.apps.v1.ControllerRevision",

    columns: COLUMNS,
    hooks: Hooks { row, ..Hooks::PLAIN },
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
