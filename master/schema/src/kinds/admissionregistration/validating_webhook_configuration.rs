//! `admissionregistration.k8s.io/v1` ValidatingWebhookConfiguration.

use jiff::Timestamp;
use serde_json::Value;

use super::{rules, webhooks};
use crate::kind::{Column, Hooks, Kind, Names};
use crate::table;
use crate::value::Fields;

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.admissionregistration.v1.ValidatingWebhookConfiguration",
    categories: &["api-extensions"],
    generation: true,
    columns: COLUMNS,
    hooks: Hooks { default: webhooks::default, row, validate: webhooks::validate, ..rules::HOOKS },
    ..Kind::cluster("admissionregistration.k8s.io", "v1", NAMES)
};

const NAMES: Names = Names {
    kind: "ValidatingWebhookConfiguration",
    list: "ValidatingWebhookConfigurationList",
    plural: "validatingwebhookconfigurations",
    singular: "validatingwebhookconfiguration",
};

pub(super) const COLUMNS: &[Column] =
    &[Column::NAME, Column::integer("Webhooks", "How many webhooks it has"), Column::AGE];

pub(super) fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![table::name(object), object.list("webhooks").len().into(), table::age(object, now)]
}
