//! `flowcontrol.apiserver.k8s.io/v1` FlowSchema: kept and validated; this server's own limits do not follow it.

use jiff::Timestamp;
use serde_json::Value;

use crate::errors::{Errors, Path};
use crate::kind::{Column, Hooks, Kind, Names, Subresource};
use crate::table;
use crate::value::{Fields, object_in};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.flowcontrol.v1.FlowSchema",
    subresources: &[Subresource::status("flowcontrol.apiserver.k8s.io", "v1", "FlowSchema")],
    generation: true,
    unconditional_update: false,
    columns: COLUMNS,
    hooks: Hooks { default, row, validate, revalidate: true, ..Hooks::PLAIN },
    ..Kind::cluster("flowcontrol.apiserver.k8s.io", "v1", NAMES)
};

const NAMES: Names =
    Names { kind: "FlowSchema", list: "FlowSchemaList", plural: "flowschemas", singular: "flowschema" };

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("PriorityLevel", "Where requests of this schema go"),
    Column::integer("MatchingPrecedence", "Which of several schemas counts: the lowest"),
    Column::text("DistinguisherMethod", "What flows are told apart by"),
    Column::AGE,
    Column::text("MissingPL", "Whether there is no such priority level"),
];

/// The highest `matchingPrecedence` (`FlowSchemaMaxMatchingPrecedence`).
const LAST: i64 = 10_000;

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = object.at("spec");
    let dangling = object.at("status").list("conditions").iter().find(|c| c.text("type") == "Dangling");
    vec![
        table::name(object),
        spec.at("priorityLevelConfiguration").at("name").clone(),
        spec.at("matchingPrecedence").clone(),
        table::or_none(spec.at("distinguisherMethod").text("type")),
        table::age(object, now),
        table::or(dangling.map_or("", |c| c.text("status")), "?"),
    ]
}

fn default(object: &mut Value) {
    let Value::Object(object) = object else { return };
    let spec = object_in(object, "spec");
    if spec.int("matchingPrecedence").unwrap_or(0) == 0 {
        spec.insert("matchingPrecedence".into(), 1_000.into());
    }
}

fn validate(object: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::root("spec"), object.at("spec"));
    let name = object.at("metadata").text("name");
    match spec.int("matchingPrecedence").unwrap_or(0) {
        ..=0 => {
            let shown = spec.at("matchingPrecedence").clone();
            errors.invalid(&path.child("matchingPrecedence"), shown, "must be a positive value");
        }
        1 if name != "exempt" => {
            let detail = "only the schema named 'exempt' may have matchingPrecedence 1";
            errors.invalid(&path.child("matchingPrecedence"), 1, detail);
        }
        number if number > LAST => {
            let detail = format!("must not be greater than {LAST}");
            errors.invalid(&path.child("matchingPrecedence"), number, &detail);
        }
        _ => {}
    }
    let method = spec.at("distinguisherMethod");
    if !method.is_null() && !matches!(method.text("type"), "ByNamespace" | "ByUser") {
        let holder = path.child("distinguisherMethod");
        errors.not_supported(&holder.child("type"), method.text("type"), &["ByNamespace", "ByUser"]);
    }
    if spec.at("priorityLevelConfiguration").text("name").is_empty() {
        let holder = path.child("priorityLevelConfiguration");
        errors.required(&holder.child("name"), "must reference a priority level");
    }
    let rules = path.child("rules");
    for (index, rule) in spec.list("rules").iter().enumerate() {
        one(rule, &rules.index(index), errors);
    }
}

fn one(rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    if rule.list("subjects").is_empty() {
        errors.required(&path.child("subjects"), "subjects must contain at least one value");
    }
    let subjects = path.child("subjects");
    for (index, subject) in rule.list("subjects").iter().enumerate() {
        let kind = subject.text("kind");
        if !matches!(kind, "Group" | "ServiceAccount" | "User") {
            let place = subjects.index(index);
            errors.not_supported(&place.child("kind"), kind, &["Group", "ServiceAccount", "User"]);
        }
    }
    if rule.list("resourceRules").is_empty() && rule.list("nonResourceRules").is_empty() {
        errors.required(path, "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    for (list, fields) in [
        ("resourceRules", &["verbs", "apiGroups", "resources"][..]),
        ("nonResourceRules", &["verbs", "nonResourceURLs"][..]),
    ] {
        let place = path.child(list);
        for (index, inner) in rule.list(list).iter().enumerate() {
            for field in fields.iter().filter(|field| inner.list(field).is_empty()) {
                let detail = format!("{field} must contain at least one value");
                errors.required(&place.index(index).child(field), &detail);
            }
        }
    }
}
