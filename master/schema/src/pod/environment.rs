//! Environment variables, and references to fields of the pod.

use serde_json::Value;

use super::volumes::no_backsteps;
use crate::errors::{Errors, Path};
use crate::names::{config_key, dns_label, dns_subdomain, env_name, qualified_name};
use crate::value::Fields;

/// What an environment variable may refer to.
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// What a file of a volume may refer to.
const VOLUME_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

const CPU_UNITS: &[&str] = &["1", "1m"];
const SIZE_UNITS: &[&str] = &["1", "1E", "1Ei", "1G", "1Gi", "1Ki", "1M", "1Mi", "1P", "1Pi", "1T", "1Ti", "1k"];

const SOURCES: [&str; 5] = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];

/// `env` and `envFrom` of a container.
pub(crate) fn all(container: &Value, path: &Path, errors: &mut Errors) {
    let env = path.child("env");
    for (index, variable) in container.list("env").iter().enumerate() {
        let path = env.index(index);
        let name = variable.text("name");
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            env_name(name).iter().for_each(|text| errors.invalid(&path.child("name"), name, text));
        }
        if variable.has("valueFrom") {
            value_from(variable, &path.child("valueFrom"), errors);
        }
    }
    let from = path.child("envFrom");
    for (index, source) in container.list("envFrom").iter().enumerate() {
        env_from(source, &from, index, errors);
    }
}

fn value_from(variable: &Value, path: &Path, errors: &mut Errors) {
    let source = variable.at("valueFrom");
    field_reference(source.at("fieldRef"), ENV_FIELDS, &path.child("fieldRef"), errors);
    resource_reference(source.at("resourceFieldRef"), false, &path.child("resourceFieldRef"), errors);
    for field in ["configMapKeyRef", "secretKeyRef"] {
        key_reference(source.at(field), &path.child(field), errors);
    }
    file_reference(source.at("fileKeyRef"), &path.child("fileKeyRef"), errors);
    match SOURCES.iter().filter(|field| source.has(field)).count() {
        0 => {
            let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or \
                          `fileKeyRef`";
            errors.invalid(path, "", detail);
        }
        _ if !variable.text("value").is_empty() => {
            errors.invalid(path, "", "may not be specified when `value` is not empty");
        }
        1 => {}
        _ => errors.invalid(path, "", "may not have more than one field specified at a time"),
    }
}

fn env_from(source: &Value, list: &Path, index: usize, errors: &mut Errors) {
    let path = list.index(index);
    let prefix = source.text("prefix");
    if !prefix.is_empty() {
        env_name(prefix).iter().for_each(|text| errors.invalid(&path.child("prefix"), prefix, text));
    }
    let references = ["configMapRef", "secretRef"].into_iter().filter(|field| source.has(field));
    for field in references.clone() {
        named(source.at(field), &path.child(field), errors);
    }
    match references.count() {
        0 => errors.invalid(list, "", "must specify one of: `configMapRef` or `secretRef`"),
        1 => {}
        _ => errors.invalid(list, "", "may not have more than one field specified at a time"),
    }
}

fn named(reference: &Value, path: &Path, errors: &mut Errors) {
    let name = reference.text("name");
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    } else {
        dns_subdomain(name).iter().for_each(|text| errors.invalid(&path.child("name"), name, text));
    }
}

fn key_reference(reference: &Value, path: &Path, errors: &mut Errors) {
    if reference.is_null() {
        return;
    }
    named(reference, path, errors);
    let key = reference.text("key");
    if key.is_empty() {
        errors.required(&path.child("key"), "");
    } else {
        config_key(key).iter().for_each(|text| errors.invalid(&path.child("key"), key, text));
    }
}

fn file_reference(reference: &Value, path: &Path, errors: &mut Errors) {
    if reference.is_null() {
        return;
    }
    for field in ["key", "volumeName", "path"] {
        let path = path.child(field);
        match (field, reference.text(field)) {
            (_, "") => errors.required(&path, ""),
            ("key", key) => env_name(key).iter().for_each(|text| errors.invalid(&path, key, text)),
            ("volumeName", name) => dns_label(name).iter().for_each(|text| errors.invalid(&path, name, text)),
            (_, file) => no_backsteps(file, &path, errors),
        }
    }
}

/// Variables from files come from volumes that the containers of the pod can write (KEP-3721).
pub(crate) fn file_volumes(spec: &Value, path: &Path, errors: &mut Errors) {
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        let path = path.child(list);
        for (index, container) in spec.list(list).iter().enumerate() {
            let path = path.index(index);
            let env = path.child("env");
            for (index, variable) in container.list("env").iter().enumerate() {
                let reference = variable.at("valueFrom").at("fileKeyRef");
                if !reference.is_null() {
                    let path = env.index(index);
                    let path = path.child("valueFrom");
                    file_volume(spec, reference, &path.child("fileKeyRef"), errors);
                }
            }
        }
    }
}

fn file_volume(spec: &Value, reference: &Value, path: &Path, errors: &mut Errors) {
    let name = reference.text("volumeName");
    let path = path.child("volumeName");
    match spec.list("volumes").iter().find(|volume| volume.text("name") == name) {
        None => errors.not_found(&path, name),
        Some(volume) if !volume.has("emptyDir") => {
            errors.invalid(&path, name, "referenced volume must be of type emptyDir");
        }
        Some(_) => {}
    }
}

/// A `fieldRef` of a volume's file.
pub(crate) fn volume_field(reference: &Value, path: &Path, errors: &mut Errors) {
    field_reference(reference, VOLUME_FIELDS, path, errors);
}

fn field_reference(reference: &Value, allowed: &[&str], path: &Path, errors: &mut Errors) {
    if reference.is_null() {
        return;
    }
    for field in ["apiVersion", "fieldPath"] {
        if reference.text(field).is_empty() {
            return errors.required(&path.child(field), "");
        }
    }
    let field = reference.text("fieldPath");
    let at = path.child("fieldPath");
    if let Some((map, key)) = field.strip_suffix("']").and_then(|rest| rest.split_once("['")) {
        let key = match map {
            "metadata.annotations" => key.to_lowercase(),
            "metadata.labels" => key.to_string(),
            _ => return errors.invalid(path, map, "does not support subscript"),
        };
        return qualified_name(&key).iter().for_each(|text| errors.invalid(path, key.as_str(), text));
    }
    if !ENV_FIELDS.contains(&field) && !VOLUME_FIELDS.contains(&field) && field != "spec.hostname" {
        let detail = format!("error converting fieldPath: field label not supported: {field}");
        errors.invalid(&at, field, &detail);
    } else if !allowed.contains(&field) {
        errors.not_supported(&at, field, allowed);
    }
}

/// A `resourceFieldRef`; in a volume, the container must be named.
pub(crate) fn resource_reference(reference: &Value, volume: bool, path: &Path, errors: &mut Errors) {
    if reference.is_null() {
        return;
    }
    let resource = reference.text("resource");
    let huge = resource.starts_with("requests.hugepages-") || resource.starts_with("limits.hugepages-");
    if volume && reference.text("containerName").is_empty() {
        errors.required(&path.child("containerName"), "");
    } else if resource.is_empty() {
        errors.required(&path.child("resource"), "");
    } else if !RESOURCES.contains(&resource) && !huge {
        errors.not_supported(&path.child("resource"), resource, RESOURCES);
    }
    let divisor = reference.text("divisor");
    if matches!(divisor, "" | "0") {
        return;
    }
    let units = if resource.ends_with(".cpu") { CPU_UNITS } else { SIZE_UNITS };
    if !units.contains(&divisor) {
        errors.not_supported(&path.child("divisor"), divisor, units);
    }
}
