//! Whether a pod, or a template of one, can be: upstream's `ValidatePod`, `ValidatePodTemplateSpec`, `ValidatePodSpec`.

use serde_json::Value;

use super::containers::{self, Scope};
use super::{app_armor, environment, resources, scheduling, security, volumes};
use crate::errors::{Errors, Path};
use crate::meta;
use crate::names::{between, dns_label, dns_subdomain};
use crate::value::Fields;

/// A pod about to be created.
pub(crate) fn new_pod(pod: &Value, errors: &mut Errors) {
    self::pod(pod, errors);
    app_armor::fields_match(pod, &Path::root("spec"), errors);
}

/// A pod about to be created, or changed in a subresource.
pub(crate) fn pod(pod: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let spec = pod.at("spec");
    app_armor::validate(pod, &Path::root("metadata"), errors);
    pod_spec(spec, true, &path, errors);
    for list in ["containers", "initContainers"] {
        let path = path.child(list);
        for (index, container) in spec.list(list).iter().enumerate() {
            let image = container.text("image");
            if image.trim() != image {
                let detail = "must not have leading or trailing whitespace";
                errors.invalid(&path.index(index).child("image"), image, detail);
            }
        }
    }
}

/// A template at `path`.
pub(crate) fn template(template: &Value, path: &Path, errors: &mut Errors) {
    let metadata = template.at("metadata");
    let meta_path = path.child("metadata");
    meta::labels(metadata.at("labels"), &path.child("labels"), errors);
    meta::annotations(metadata.at("annotations"), &path.child("annotations"), errors);
    for name in metadata.list("finalizers").iter().filter_map(Value::as_str) {
        meta::label_name(name, &meta_path.child("finalizers"), errors);
    }
    let spec_path = path.child("spec");
    let spec = template.at("spec");
    // Upstream leaves the metadata out of the path.
    app_armor::validate(template, path, errors);
    app_armor::fields_match(template, &spec_path, errors);
    pod_spec(spec, false, &spec_path, errors);
    if !spec.list("ephemeralContainers").is_empty() {
        errors.forbidden(&spec_path.child("ephemeralContainers"), "ephemeral containers not allowed in pod template");
    }
}

fn pod_spec(spec: &Value, is_pod: bool, path: &Path, errors: &mut Errors) {
    if !spec.has("terminationGracePeriodSeconds") {
        errors.required(&path.child("terminationGracePeriodSeconds"), "");
    }
    let volumes = volumes::all(spec.list("volumes"), &path.child("volumes"), errors);
    let scope = Scope { spec, volumes, is_pod };
    containers::all(&scope, path, errors);
    resources::pod_level(spec, &path.child("resources"), errors);
    enumerations(spec, path, errors);
    meta::labels(spec.at("nodeSelector"), &path.child("nodeSelector"), errors);
    security::pod(spec, &path.child("securityContext"), errors);
    scheduling::affinity(spec.at("affinity"), &path.child("affinity"), errors);
    dns_config(spec, &path.child("dnsConfig"), errors);
    gates(spec, path, errors);
    scheduling::spread(spec, &path.child("topologySpreadConstraints"), errors);
    security::own_users(spec, path, errors);
    names(spec, path, errors);
    if let Some(deadline) = spec.int("activeDeadlineSeconds").filter(|d| !(1..=i64::from(i32::MAX)).contains(d)) {
        errors.invalid(&path.child("activeDeadlineSeconds"), deadline, &between(1, i64::from(i32::MAX)));
    }
    tolerations(spec, &path.child("tolerations"), errors);
    host_aliases(spec, &path.child("hostAliases"), errors);
    resources::overhead(spec.at("overhead"), &path.child("overhead"), errors);
    operating_system(spec, path, errors);
    environment::file_volumes(spec, path, errors);
}

pub(crate) fn tolerations(spec: &Value, path: &Path, errors: &mut Errors) {
    scheduling::tolerations(spec.list("tolerations"), path, errors);
}

/// Fields that take one of a few words.
fn enumerations(spec: &Value, path: &Path, errors: &mut Errors) {
    const WORDS: [(&str, bool, &[&str]); 3] = [
        ("restartPolicy", true, &["Always", "OnFailure", "Never"]),
        ("dnsPolicy", true, &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]),
        ("preemptionPolicy", false, &["PreemptLowerPriority", "Never"]),
    ];
    for (field, required, words) in WORDS {
        let value = spec.text(field);
        if value.is_empty() && required {
            errors.required(&path.child(field), "");
        } else if spec.has(field) && !words.contains(&value) {
            errors.not_supported(&path.child(field), value, words);
        }
    }
}

/// Fields that hold names.
fn names(spec: &Value, path: &Path, errors: &mut Errors) {
    for field in ["serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName"] {
        let name = spec.text(field);
        if !name.is_empty() {
            dns_subdomain(name).iter().for_each(|text| errors.invalid(&path.child(field), name, text));
        }
    }
    for field in ["hostname", "subdomain"] {
        let name = spec.text(field);
        if !name.is_empty() {
            dns_label(name).iter().for_each(|text| errors.invalid(&path.child(field), name, text));
        }
    }
    let path = path.child("hostnameOverride");
    let Some(name) = spec.at("hostnameOverride").as_str() else { return };
    for (set, field) in
        [(spec.flag("setHostnameAsFQDN"), "setHostnameAsFQDN"), (spec.flag("hostNetwork"), "hostNetwork")]
    {
        if set {
            errors.forbidden(&path, &format!("may not be specified when {field} is true"));
        }
    }
    if name.len() > 64 {
        errors.too_long(&path, 64);
    }
    dns_subdomain(name).iter().for_each(|text| errors.invalid(&path, name, text));
}

fn dns_config(spec: &Value, path: &Path, errors: &mut Errors) {
    let config = spec.at("dnsConfig");
    if spec.text("dnsPolicy") == "None" {
        if config.is_null() {
            return errors.required(path, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        if config.list("nameservers").is_empty() {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            return errors.required(&path.child("nameservers"), detail);
        }
    }
    let servers = path.child("nameservers");
    if config.list("nameservers").len() > 3 {
        errors.invalid(&servers, config.at("nameservers").clone(), "must not have more than 3 nameservers");
    }
    for (index, server) in config.list("nameservers").iter().filter_map(Value::as_str).enumerate() {
        ip(server, &servers.index(index), errors);
    }
    searches(config, &path.child("searches"), errors);
    for (index, option) in config.list("options").iter().enumerate() {
        if option.text("name").is_empty() {
            errors.required(&path.child("options").index(index), "must not be empty");
        }
    }
}

fn searches(config: &Value, path: &Path, errors: &mut Errors) {
    let searches: Vec<&str> = config.list("searches").iter().filter_map(Value::as_str).collect();
    if searches.len() > 32 {
        errors.invalid(path, config.at("searches").clone(), "must not have more than 32 search paths");
    }
    if searches.join(" ").len() > 2_048 {
        let detail = "must not have more than 2048 characters (including spaces) in the search list";
        errors.invalid(path, config.at("searches").clone(), detail);
    }
    for (index, search) in searches.into_iter().enumerate().filter(|(_, search)| *search != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        // Underscores are allowed here (KEP-4427).
        let plain = search.replace('_', "a");
        dns_subdomain(&plain).iter().for_each(|text| errors.invalid(&path.index(index), search, text));
    }
}

/// Readiness and scheduling gates.
fn gates(spec: &Value, path: &Path, errors: &mut Errors) {
    let readiness = path.child("readinessGates");
    for (index, gate) in spec.list("readinessGates").iter().enumerate() {
        meta::label_name(gate.text("conditionType"), &readiness.index(index).child("conditionType"), errors);
    }
    let scheduling = path.child("schedulingGates");
    let mut seen = Vec::new();
    for (index, gate) in spec.list("schedulingGates").iter().enumerate() {
        let name = gate.text("name");
        meta::label_name(name, &scheduling.index(index), errors);
        if seen.contains(&name) {
            errors.duplicate(&scheduling.index(index), name);
        }
        seen.push(name);
    }
    if !seen.is_empty() && !spec.text("nodeName").is_empty() {
        errors.forbidden(&path.child("nodeName"), "cannot be set until all schedulingGates have been cleared");
    }
}

fn host_aliases(spec: &Value, path: &Path, errors: &mut Errors) {
    for (index, alias) in spec.list("hostAliases").iter().enumerate() {
        let path = path.index(index);
        ip(alias.text("ip"), &path.child("ip"), errors);
        let path = path.child("hostnames");
        for (index, name) in alias.list("hostnames").iter().filter_map(Value::as_str).enumerate() {
            dns_subdomain(name).iter().for_each(|text| errors.invalid(&path.index(index), name, text));
        }
    }
}

fn operating_system(spec: &Value, path: &Path, errors: &mut Errors) {
    if !spec.has("os") {
        return;
    }
    let path = path.child("os");
    match spec.at("os").text("name") {
        "" => errors.required(&path.child("name"), "cannot be empty"),
        "linux" | "windows" => {}
        other => errors.not_supported(&path, other, &["linux", "windows"]),
    }
}

/// An address as older fields take it.
pub(crate) fn ip(text: &str, path: &Path, errors: &mut Errors) {
    if text.parse::<std::net::IpAddr>().is_err() {
        errors.invalid(path, text, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
    }
}
