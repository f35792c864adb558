//! `networking.k8s.io/v1` IngressClass.

use jiff::Timestamp;
use serde_json::Value;

use crate::errors::{Errors, Path};
use crate::kind::{Column, Hooks, Kind, Names, Part};
use crate::value::{Fields, object_in, set_if_unset};
use crate::{meta, table};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.networking.v1.IngressClass",
    generation: true,
    columns: COLUMNS,
    hooks: Hooks { default, row, validate, validate_update, ..Hooks::PLAIN },
    ..Kind::cluster("networking.k8s.io", "v1", NAMES)
};

const NAMES: Names =
    Names { kind: "IngressClass", list: "IngressClassList", plural: "ingressclasses", singular: "ingressclass" };

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Controller", "Who serves the class"),
    Column::text("Parameters", "What the controller is told"),
    Column::AGE,
];

const DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";
const LONGEST_CONTROLLER: usize = 250;

fn default(object: &mut Value) {
    if let Value::Object(class) = object
        && class.at("spec").has("parameters")
    {
        set_if_unset(object_in(object_in(class, "spec"), "parameters"), "scope", "Cluster");
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut name = object.at("metadata").text("name").to_owned();
    if object.at("metadata").at("annotations").text(DEFAULT_CLASS) == "true" {
        name += " (default)";
    }
    let parameters = object.at("spec").at("parameters");
    let shown = match parameters.text("apiGroup") {
        _ if parameters.is_null() => "<none>".to_owned(),
        "" => format!("{}/{}", parameters.text("kind"), parameters.text("name")),
        group => format!("{}.{group}/{}", parameters.text("kind"), parameters.text("name")),
    };
    vec![name.into(), object.at("spec").text("controller").into(), shown.into(), table::age(object, now)]
}

fn validate(object: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let (spec, at) = (object.at("spec"), path.child("controller"));
    let controller = spec.text("controller");
    if controller.len() > LONGEST_CONTROLLER {
        errors.too_long(&at, LONGEST_CONTROLLER);
    }
    match controller.split_once('/') {
        _ if controller.is_empty() => errors.required(&at, ""),
        Some((domain, rest)) if !domain.is_empty() && !rest.is_empty() => {}
        _ => errors.invalid(&at, controller, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
    }
    let (parameters, at) = (spec.at("parameters"), path.child("parameters"));
    if parameters.is_null() {
        return;
    }
    for field in ["kind", "name"].into_iter().filter(|field| parameters.text(field).is_empty()) {
        errors.required(&at.child(field), "");
    }
    match (parameters.text("scope"), parameters.text("namespace").is_empty()) {
        ("", _) => errors.required(&at.child("scope"), ""),
        ("Namespace", true) => {
            errors.required(&at.child("namespace"), "`parameters.scope` is set to 'Namespace'");
        }
        ("Cluster", false) => {
            errors.forbidden(&at.child("namespace"), "`parameters.scope` is set to 'Cluster'");
        }
        ("Namespace" | "Cluster", _) => {}
        (other, _) => errors.not_supported(&at.child("scope"), other, &["Cluster", "Namespace"]),
    }
}

fn validate_update(_part: Part, object: &Value, old: &Value, errors: &mut Errors) {
    validate(object, errors);
    let path = Path::root("spec");
    let controller = |object: &Value| object.at("spec").at("controller").clone();
    meta::immutable(&controller(object), &controller(old), &path.child("controller"), errors);
}
