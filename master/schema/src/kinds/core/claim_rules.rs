//! What PersistentVolumes, PersistentVolumeClaims and templates of claims have in common.

use api::quantity::Quantity;
use serde_json::{Value, json};

use crate::errors::{Errors, Path};
use crate::names::{dns_label, dns_subdomain};
use crate::pod::resources;
use crate::value::{Fields, same};
use crate::warnings::Warnings;
use crate::{meta, table};

/// The class by annotation, which counts before the field.
pub(super) const CLASS: &str = "volume.beta.kubernetes.io/storage-class";
pub(super) const USE_CLASS: &str = "deprecated since v1.8; use \"storageClassName\" attribute instead";
pub(super) const MOUNT_OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";
pub(super) const USE_MOUNT_OPTIONS: &str = "deprecated since v1.31; use \"mountOptions\" attribute instead";
pub(super) const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
pub(super) const VOLUME_MODES: &[&str] = &["Block", "Filesystem"];
pub(super) const POSITIVE: &str = "must be greater than zero";

/// `RWO,ROX`, as kubectl writes access modes.
pub(super) fn shown_modes(modes: &[Value]) -> Value {
    const SHORT: [(&str, &str); 4] =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let found = SHORT.iter().filter(|(mode, _)| modes.iter().any(|m| m == mode)).map(|(_, short)| *short);
    found.collect::<Vec<_>>().join(",").into()
}

/// The storage class that an object belongs to.
pub(super) fn class(object: &Value) -> &str {
    let named = object.at("metadata").at("annotations").text(CLASS);
    if named.is_empty() { object.at("spec").text("storageClassName") } else { named }
}

pub(super) fn or_unset(value: &Value) -> Value {
    table::or(value.as_str().unwrap_or_default(), "<unset>")
}

pub(super) fn access_modes(spec: &Value, path: &Path, errors: &mut Errors) {
    let path = path.child("accessModes");
    let modes: Vec<&str> = spec.list("accessModes").iter().filter_map(Value::as_str).collect();
    for mode in modes.iter().filter(|mode| !ACCESS_MODES.contains(mode)) {
        errors.not_supported(&path, *mode, ACCESS_MODES);
    }
    let others = modes.iter().any(|mode| *mode != "ReadWriteOncePod" && ACCESS_MODES.contains(mode));
    if others && modes.contains(&"ReadWriteOncePod") {
        errors.forbidden(&path, "may not use ReadWriteOncePod with other access modes");
    }
}

pub(super) fn volume_mode(spec: &Value, path: &Path, errors: &mut Errors) {
    if let Some(mode) = spec.at("volumeMode").as_str().filter(|mode| !VOLUME_MODES.contains(mode)) {
        errors.not_supported(&path.child("volumeMode"), mode, VOLUME_MODES);
    }
}

pub(super) fn class_name(name: &str, path: &Path, errors: &mut Errors) {
    if !name.is_empty() {
        dns_subdomain(name).iter().for_each(|text| errors.invalid(path, name, text));
    }
}

/// Upstream's `ValidatePersistentVolumeClaimSpec`.
pub(crate) fn claim_spec(spec: &Value, path: &Path, errors: &mut Errors) {
    if spec.list("accessModes").is_empty() {
        errors.required(&path.child("accessModes"), "at least 1 access mode is required");
    }
    if spec.has("selector") {
        meta::label_selector(spec.at("selector"), &path.child("selector"), errors);
    }
    access_modes(spec, path, errors);
    let resources = path.child("resources");
    match spec.at("resources").at("requests").at("storage").as_str() {
        None => errors.required(&resources.key("storage"), ""),
        Some(text) if !is_positive(text) => errors.invalid(&resources.key("storage"), text, POSITIVE),
        Some(_) => {}
    }
    class_name(spec.text("storageClassName"), &path.child("storageClassName"), errors);
    volume_mode(spec, path, errors);
    data_sources(spec, path, errors);
    class_name(spec.text("volumeAttributesClassName"), &path.child("volumeAttributesClassName"), errors);
}

pub(super) fn is_positive(text: &str) -> bool {
    text.parse::<Quantity>().is_ok_and(|quantity| quantity > Quantity::default())
}

fn data_sources(spec: &Value, path: &Path, errors: &mut Errors) {
    for field in ["dataSource", "dataSourceRef"] {
        let source = spec.at(field);
        if !source.is_null() {
            data_source(source, &path.child(field), errors);
        }
    }
    let (source, reference) = (spec.at("dataSource"), spec.at("dataSourceRef"));
    if source.is_null() || reference.is_null() {
        return;
    }
    let named = path.child("dataSource").to_string();
    if !reference.text("namespace").is_empty() {
        errors.invalid(path, named, "may not be specified when dataSourceRef.namespace is specified");
    } else if ["apiGroup", "kind", "name"].iter().any(|field| !same(source.at(field), reference.at(field))) {
        errors.invalid(path, named, "must match dataSourceRef");
    }
}

fn data_source(source: &Value, path: &Path, errors: &mut Errors) {
    for field in ["name", "kind"] {
        if source.text(field).is_empty() {
            errors.required(&path.child(field), "");
        }
    }
    let (group, kind) = (source.text("apiGroup"), source.text("kind"));
    if group.is_empty() && kind != "PersistentVolumeClaim" {
        let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.invalid(path, kind, detail);
    }
    if !group.is_empty() {
        dns_subdomain(group).iter().for_each(|text| errors.invalid(&path.child("apiGroup"), group, text));
    }
    let namespace = source.text("namespace");
    if !namespace.is_empty() {
        dns_label(namespace).iter().for_each(|text| errors.invalid(&path.child("namespace"), namespace, text));
    }
}

/// The two spellings of where a claim's data comes from follow each other (`NormalizeDataSources`).
pub(super) fn normalize(spec: &mut Value) {
    let copied = |from: &Value| {
        let mut to = json!({ "kind": from.at("kind"), "name": from.at("name") });
        if from.has("apiGroup") {
            crate::value::put(&mut to, "apiGroup", from.at("apiGroup").clone());
        }
        to
    };
    let (source, reference) = (spec.at("dataSource"), spec.at("dataSourceRef"));
    let (field, value) = match (source.is_null(), reference.is_null()) {
        (false, true) => ("dataSourceRef", copied(source)),
        (true, false) if reference.text("namespace").is_empty() => ("dataSource", copied(reference)),
        _ => return,
    };
    crate::value::put(spec, field, value);
}

/// Of the spec of a claim, or of a template of one (upstream's `GetWarningsForPersistentVolumeClaimSpec`).
pub(crate) fn warn_of_spec(spec: &Value, path: &Path, warnings: &mut Warnings) {
    let path = path.child("resources");
    for field in ["requests", "limits"] {
        resources::fractional(spec.at("resources").at(field), "storage", &path.child(field), warnings);
    }
}
