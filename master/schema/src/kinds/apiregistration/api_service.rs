//! `apiregistration.k8s.io/v1` APIService: who serves a version of a group, this server or another behind a Service
//! (`kube-aggregator/pkg/registry/apiservice`).

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::errors::{Errors, Path};
use crate::kind::{Column, Hooks, Kind, NameRule, Names, Part, Subresource};
use crate::names::{dns_1035_label, dns_subdomain, port_number};
use crate::table;
use crate::value::{Fields, object_in, put, set_if_unset};

pub static KIND: Kind = Kind {
    definition: "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.APIService",
    categories: &["api-extensions"],
    subresources: &[Subresource::status("apiregistration.k8s.io", "v1", NAMES.kind)],
    names: NameRule::PathSegment,
    unconditional_update: false,
    columns: &[
        Column::NAME,
        Column::text("Service", "The Service whose server has this version of the group"),
        Column::text("Available", "Whether that server can be asked"),
        Column::AGE,
    ],
    hooks: Hooks { default, prepare_create, prepare_update, validate, validate_update, row, ..Hooks::PLAIN },
    ..Kind::cluster("apiregistration.k8s.io", "v1", NAMES)
};

const NAMES: Names =
    Names { kind: "APIService", list: "APIServiceList", plural: "apiservices", singular: "apiservice" };

/// What a condition may be.
const STATES: [&str; 3] = ["True", "False", "Unknown"];

fn default(object: &mut Value) {
    if let Some(Value::Object(service)) = object.pointer_mut("/spec/service") {
        set_if_unset(service, "port", 443);
    }
}

/// What this server has itself is available from the start.
fn prepare_create(object: &mut Value) {
    if !object.at("spec").at("service").is_null() {
        return;
    }
    let condition = json!({
        "type": "Available", "status": "True", "reason": "Local", "message": "Local APIServices are always available",
        "lastTransitionTime": object.at("metadata").at("creationTimestamp"),
    });
    if let Value::Object(object) = object {
        object_in(object, "status").insert("conditions".into(), json!([condition]));
    }
}

/// A write of the status takes no metadata.
fn prepare_update(part: Part, object: &mut Value, old: &Value) {
    let Some(metadata) = object.get_mut("metadata").filter(|_| part == Part::Status) else { return };
    for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
        put(metadata, field, old.at("metadata").at(field).clone());
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let service = object.at("spec").at("service");
    let shown = match service {
        Value::Null => "Local".to_owned(),
        service => format!("{}/{}", service.text("namespace"), service.text("name")),
    };
    let conditions = object.at("status").list("conditions");
    let available = match conditions.iter().find(|condition| condition.text("type") == "Available") {
        None => "Unknown".to_owned(),
        Some(condition) => match (condition.text("status"), condition.text("reason")) {
            (status @ "True", _) | (status, "") => status.to_owned(),
            (status, reason) => format!("{status} ({reason})"),
        },
    };
    vec![table::name(object), shown.into(), available.into(), table::age(object, now)]
}

fn validate(object: &Value, errors: &mut Errors) {
    let spec = object.at("spec");
    named(object.at("metadata").text("name"), spec, errors);
    let root = Path::root("spec");
    priority(spec, &root, ("groupPriorityMinimum", 20_000), errors);
    priority(spec, &root, ("versionPriority", 1_000), errors);
    let (bundle, insecure) = (spec.text("caBundle"), spec.flag("insecureSkipTLSVerify"));
    let unverified = root.child("insecureSkipTLSVerify");
    let service = spec.at("service");
    if service.is_null() {
        if !bundle.is_empty() {
            let path = root.child("caBundle");
            errors.invalid(&path, format!("{} bytes", length(bundle)), "local APIServices may not have a caBundle");
        }
        if insecure {
            errors.invalid(&unverified, true, "local APIServices may not have insecureSkipTLSVerify");
        }
        return;
    }
    let path = root.child("service");
    for field in ["namespace", "name"].into_iter().filter(|field| service.text(field).is_empty()) {
        errors.required(&path.child(field), "");
    }
    let port = service.int("port").unwrap_or_default();
    if let Some(text) = port_number(port) {
        errors.invalid(&path.child("port"), port, &format!("port is not valid: {text}"));
    }
    if insecure && !bundle.is_empty() {
        errors.invalid(&unverified, true, "may not be true if caBundle is present");
    }
}

/// Group and version, and the name that is made of them.
fn named(name: &str, spec: &Value, errors: &mut Errors) {
    let (group, version) = (spec.text("group"), spec.text("version"));
    let wanted = format!("{version}.{group}");
    if name != wanted {
        let metadata = Path::root("metadata");
        let detail = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
        errors.invalid(&metadata.child("name"), name, &detail);
    }
    let root = Path::root("spec");
    let path = root.child("group");
    if group.is_empty() {
        if version != "v1" {
            errors.required(&path, "only v1 may have an empty group and it better be legacy kube");
        }
    } else {
        dns_subdomain(group).iter().for_each(|text| errors.invalid(&path, group, text));
    }
    let path = root.child("version");
    dns_1035_label(version).iter().for_each(|text| errors.invalid(&path, version, text));
}

fn priority(spec: &Value, root: &Path<'_>, (field, most): (&str, i64), errors: &mut Errors) {
    let value = spec.int(field).unwrap_or_default();
    if !(1..=most).contains(&value) {
        errors.invalid(&root.child(field), value, &format!("must be positive and less than {most}"));
    }
}

/// How many bytes base64 stands for.
fn length(base64: &str) -> usize {
    base64.trim_end_matches('=').len() * 3 / 4
}

fn validate_update(part: Part, object: &Value, _: &Value, errors: &mut Errors) {
    if part != Part::Status {
        return validate(object, errors);
    }
    let status = Path::root("status");
    let path = status.child("conditions");
    for (index, condition) in object.at("status").list("conditions").iter().enumerate() {
        let state = condition.text("status");
        if !STATES.contains(&state) {
            errors.not_supported(&path.index(index).child("status"), state, &STATES);
        }
    }
}
