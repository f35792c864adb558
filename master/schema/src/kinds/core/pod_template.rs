//! `v1` PodTemplate.

use jiff::Timestamp;
use serde_json::Value;

use crate::errors::{Errors, Path};
use crate::kind::{Column, Hooks, Kind, Names, Part};
use crate::pod::{validate, warnings as pod_warnings};
use crate::table;
use crate::value::Fields;
use crate::warnings::Warnings;

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.core.v1.PodTemplate",
    generation: true,
    returns_deleted_object: true,
    columns: COLUMNS,
    hooks: Hooks { row, validate, revalidate: true, warnings, ..Hooks::PLAIN },
    ..Kind::namespaced("", "v1", NAMES)
};

const NAMES: Names =
    Names { kind: "PodTemplate", list: "PodTemplateList", plural: "podtemplates", singular: "podtemplate" };

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Containers", "Names of the template's containers"),
    Column::text("Images", "Images of the template's containers"),
    Column::text("Pod Labels", "Labels of the pods"),
];

fn row(object: &Value, _: Timestamp) -> Vec<Value> {
    let template = object.at("template");
    let [names, images] = table::containers(template);
    vec![table::name(object), names, images, table::labels(template.at("metadata").at("labels"))]
}

fn validate(object: &Value, errors: &mut Errors) {
    validate::template(object.at("template"), &Path::root("template"), errors);
}

fn warnings(part: Part, object: &Value, old: Option<&Value>, warnings: &mut Warnings) {
    if pod_warnings::is_due(part, object, old) {
        pod_warnings::template(object.at("template"), &Path::root("template"), warnings);
    }
}
