//! `admissionregistration.k8s.io/v1` MutatingWebhookConfiguration.

use serde_json::Value;

use super::validating_webhook_configuration::{COLUMNS, row};
use super::{rules, webhooks};
use crate::errors::{Errors, Path};
use crate::kind::{Hooks, Kind, Names};
use crate::value::{Fields, objects_in, set_if_unset};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.admissionregistration.v1.MutatingWebhookConfiguration",
    categories: &["api-extensions"],
    generation: true,
    columns: COLUMNS,
    hooks: Hooks { default, row, validate, ..rules::HOOKS },
    ..Kind::cluster("admissionregistration.k8s.io", "v1", NAMES)
};

const NAMES: Names = Names {
    kind: "MutatingWebhookConfiguration",
    list: "MutatingWebhookConfigurationList",
    plural: "mutatingwebhookconfigurations",
    singular: "mutatingwebhookconfiguration",
};

fn default(object: &mut Value) {
    webhooks::default(object);
    let Value::Object(object) = object else { return };
    for webhook in objects_in(object, "webhooks") {
        set_if_unset(webhook, "reinvocationPolicy", "Never");
    }
}

fn validate(object: &Value, errors: &mut Errors) {
    webhooks::validate(object, errors);
    let path = Path::root("webhooks");
    for (index, webhook) in object.list("webhooks").iter().enumerate() {
        let policy = webhook.text("reinvocationPolicy");
        if !policy.is_empty() && !matches!(policy, "IfNeeded" | "Never") {
            let path = path.index(index);
            errors.not_supported(&path.child("reinvocationPolicy"), policy, &["IfNeeded", "Never"]);
        }
    }
}
