//! What both kinds of webhook configurations share.

use expressions::Declared;
use serde_json::Value;

use super::rules;
use crate::custom::definition::client_config;
use crate::errors::{Errors, Path};
use crate::meta;
use crate::value::{Fields, objects_in, set_if_unset};

const REVIEWS: [&str; 2] = ["v1", "v1beta1"];

pub(super) fn default(object: &mut Value) {
    let Value::Object(object) = object else { return };
    for webhook in objects_in(object, "webhooks") {
        set_if_unset(webhook, "failurePolicy", "Fail");
        set_if_unset(webhook, "timeoutSeconds", 10);
        rules::default(webhook, &["rules"]);
        if let Some(Value::Object(service)) = webhook.get_mut("clientConfig").and_then(|c| c.get_mut("service")) {
            set_if_unset(service, "port", 443);
        }
    }
}

pub(super) fn validate(object: &Value, errors: &mut Errors) {
    let path = Path::root("webhooks");
    let webhooks = object.list("webhooks");
    for (index, webhook) in webhooks.iter().enumerate() {
        let path = path.index(index);
        one(webhook, &path, errors);
        if webhooks.iter().take(index).any(|earlier| earlier.at("name") == webhook.at("name")) {
            errors.duplicate(&path.child("name"), webhook.text("name"));
        }
    }
}

fn one(webhook: &Value, path: &Path<'_>, errors: &mut Errors) {
    let name = webhook.text("name");
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    } else {
        crate::names::dns_subdomain(name).iter().for_each(|why| errors.invalid(&path.child("name"), name, why));
        if name.split('.').count() < 3 {
            let detail = "should be a domain with at least three segments separated by dots";
            errors.invalid(&path.child("name"), name, detail);
        }
    }
    let list = path.child("rules");
    for (index, rule) in webhook.list("rules").iter().enumerate() {
        rules::rule(rule, &list.index(index), errors);
    }
    rules::word(webhook, "failurePolicy", &["Fail", "Ignore"], path, errors);
    rules::word(webhook, "matchPolicy", &["Equivalent", "Exact"], path, errors);
    if webhook.text("sideEffects").is_empty() {
        errors.required(&path.child("sideEffects"), "must specify one of None, NoneOnDryRun");
    }
    rules::word(webhook, "sideEffects", &["None", "NoneOnDryRun"], path, errors);
    if let Some(seconds) = webhook.int("timeoutSeconds").filter(|seconds| !(1..=30).contains(seconds)) {
        let detail = "the timeout value must be between 1 and 30 seconds";
        errors.invalid(&path.child("timeoutSeconds"), seconds, detail);
    }
    for selector in ["namespaceSelector", "objectSelector"] {
        meta::label_selector(webhook.at(selector), &path.child(selector), errors);
    }
    client_config(webhook.at("clientConfig"), &path.child("clientConfig"), errors);
    reviews(webhook, &path.child("admissionReviewVersions"), errors);
    rules::conditions(webhook, &expressions::admission(Declared::default()), path, errors);
}

fn reviews(webhook: &Value, path: &Path<'_>, errors: &mut Errors) {
    let versions = webhook.list("admissionReviewVersions");
    if versions.is_empty() {
        return errors.required(path, "must specify one of v1, v1beta1");
    }
    for (index, version) in versions.iter().enumerate() {
        if versions.iter().take(index).any(|earlier| earlier == version) {
            errors.invalid(&path.index(index), version.clone(), "duplicate version");
        }
    }
    if !versions.iter().filter_map(Value::as_str).any(|version| REVIEWS.contains(&version)) {
        let detail = "must include at least one of v1, v1beta1";
        errors.invalid(path, webhook.at("admissionReviewVersions").clone(), detail);
    }
}
