//! `v1` Event: what both event APIs store.

use jiff::Timestamp;
use serde_json::Value;

use crate::kind::{Column, Dependents, FieldLabel, Hooks, Kind, Names};
use crate::table;
use crate::value::Fields;

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.core.v1.Event",
    short_names: &["ev"],
    create_on_update: true,
    fields: FIELDS,
    dependents: Dependents::None,
    columns: COLUMNS,
    hooks: Hooks {
        row,
        validate: super::event_rules::validate,
        validate_update: super::event_rules::validate_update,
        ..Hooks::PLAIN
    },
    ..Kind::namespaced("", "v1", NAMES)
};

const NAMES: Names = Names { kind: "Event", list: "EventList", plural: "events", singular: "event" };

const FIELDS: &[FieldLabel] = &[
    FieldLabel::text("involvedObject.kind", "/involvedObject/kind"),
    FieldLabel::text("involvedObject.namespace", "/involvedObject/namespace"),
    FieldLabel::text("involvedObject.name", "/involvedObject/name"),
    FieldLabel::text("involvedObject.uid", "/involvedObject/uid"),
    FieldLabel::text("involvedObject.apiVersion", "/involvedObject/apiVersion"),
    FieldLabel::text("involvedObject.resourceVersion", "/involvedObject/resourceVersion"),
    FieldLabel::text("involvedObject.fieldPath", "/involvedObject/fieldPath"),
    FieldLabel::text("reason", "/reason"),
    FieldLabel::text("reportingComponent", "/reportingComponent"),
    FieldLabel { otherwise: Some("/reportingComponent"), ..FieldLabel::text("source", "/source/component") },
    FieldLabel::text("type", "/type"),
];

pub(crate) const COLUMNS: &[Column] = &[
    Column::text("Last Seen", "When the event was last seen"),
    Column::text("Type", "Normal or Warning"),
    Column::text("Reason", "Why it happened, for machines"),
    Column::text("Object", "What it happened to"),
    Column::wide("Subobject", "Part of the object"),
    Column::wide("Source", "Who reports it"),
    Column::text("Message", "What happened, for people"),
    Column::wide("First Seen", "When the event was first seen"),
    Column::wide("Count", "How often it was seen"),
    Column { priority: crate::kind::Priority::Wide, ..Column::NAME },
];

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let ago = |time: &Value| table::since(Some(time), now);
    let first = if object.has("firstTimestamp") { object.at("firstTimestamp") } else { object.at("eventTime") };
    let series = object.at("series");
    let (last, count) = if series.is_null() {
        let last = if object.has("lastTimestamp") { object.at("lastTimestamp") } else { first };
        (last, object.int("count").unwrap_or(0).max(1))
    } else {
        (series.at("lastObservedTime"), series.int("count").unwrap_or(0))
    };
    let involved = object.at("involvedObject");
    let kind = involved.text("kind").to_lowercase();
    let target = match involved.text("name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    vec![
        ago(last).into(),
        object.text("type").into(),
        object.text("reason").into(),
        target.into(),
        involved.text("fieldPath").into(),
        source(object).into(),
        object.text("message").trim().into(),
        ago(first).into(),
        count.into(),
        table::name(object),
    ]
}

fn source(object: &Value) -> String {
    let first = |a: &str, b: &str| if a.is_empty() { b.to_string() } else { a.to_string() };
    let source = object.at("source");
    let component = first(source.text("component"), object.text("reportingComponent"));
    match first(source.text("host"), object.text("reportingInstance")) {
        instance if instance.is_empty() => component,
        instance => format!("{component}, {instance}"),
    }
}
