//! Volumes and how containers mount them.

use serde_json::Value;

use super::environment;
use crate::errors::{Errors, Path};
use crate::names::dns_label;
use crate::value::Fields;

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// Checks all volumes; gives back the names of the valid ones.
pub(crate) fn all<'a>(volumes: &'a [Value], path: &Path, errors: &mut Errors) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for (index, volume) in volumes.iter().enumerate() {
        let path = path.index(index);
        let before = errors.len();
        source(volume, &path, errors);
        let name = volume.text("name");
        let at = path.child("name");
        if name.is_empty() {
            errors.required(&at, "");
        } else {
            dns_label(name).iter().for_each(|text| errors.invalid(&at, name, text));
        }
        if names.contains(&name) {
            errors.duplicate(&at, name);
        }
        if errors.len() == before {
            names.push(name);
        }
    }
    names
}

fn source(volume: &Value, path: &Path, errors: &mut Errors) {
    let sources = volume.as_object().into_iter().flatten().filter(|(key, value)| *key != "name" && !value.is_null());
    let mut sources = sources.map(|(key, value)| (key.as_str(), value));
    let Some((kind, source)) = sources.next() else {
        return errors.required(path, "must specify a volume type");
    };
    let at = path.child(kind);
    match kind {
        "emptyDir" => empty_dir(source, &at, errors),
        "hostPath" => host_path(source, &at, errors),
        "configMap" => {
            if source.text("name").is_empty() {
                errors.required(&at.child("name"), "");
            }
            files(source, &at, errors);
        }
        "secret" => {
            if source.text("secretName").is_empty() {
                errors.required(&at.child("secretName"), "");
            }
            files(source, &at, errors);
        }
        "downwardAPI" => {
            mode(source, "defaultMode", &at, errors);
            for item in source.list("items") {
                downward_file(item, &at, errors);
            }
        }
        "projected" => projected(source, &at, errors),
        "persistentVolumeClaim" if source.text("claimName").is_empty() => {
            errors.required(&at.child("claimName"), "");
        }
        "nfs" => {
            for field in ["server", "path"] {
                if source.text(field).is_empty() {
                    errors.required(&at.child(field), "");
                }
            }
        }
        "csi" if source.text("driver").is_empty() => errors.required(&at.child("driver"), ""),
        "image" if source.text("reference").is_empty() => errors.required(&at.child("reference"), ""),
        _ => {}
    }
    for (more, _) in sources {
        errors.forbidden(&path.child(more), "may not specify more than 1 volume type");
    }
}

fn empty_dir(source: &Value, path: &Path, errors: &mut Errors) {
    let negative = source.text("sizeLimit").starts_with('-');
    if negative {
        errors.forbidden(&path.child("sizeLimit"), "SizeLimit field must be a valid resource quantity");
    }
}

pub(crate) fn host_path(source: &Value, path: &Path, errors: &mut Errors) {
    let host = source.text("path");
    if host.is_empty() {
        return errors.required(&path.child("path"), "");
    }
    no_backsteps(host, &path.child("path"), errors);
    let kind = source.text("type");
    if !HOST_PATH_TYPES.contains(&kind) {
        errors.not_supported(&path.child("type"), kind, HOST_PATH_TYPES);
    }
}

fn mode(source: &Value, field: &str, path: &Path, errors: &mut Errors) {
    if let Some(mode) = source.int(field).filter(|mode| !(0..=0o777).contains(mode)) {
        errors.invalid(&path.child(field), mode, MODE);
    }
}

/// `defaultMode` and `items` of a ConfigMap or Secret.
fn files(source: &Value, path: &Path, errors: &mut Errors) {
    mode(source, "defaultMode", path, errors);
    let items = path.child("items");
    for (index, item) in source.list("items").iter().enumerate() {
        key_to_path(item, &items.index(index), errors);
    }
}

fn key_to_path(item: &Value, path: &Path, errors: &mut Errors) {
    for field in ["key", "path"] {
        if item.text(field).is_empty() {
            errors.required(&path.child(field), "");
        }
    }
    not_reserved(item.text("path"), &path.child("path"), errors);
    mode(item, "mode", path, errors);
}

fn downward_file(file: &Value, path: &Path, errors: &mut Errors) {
    if file.text("path").is_empty() {
        errors.required(&path.child("path"), "");
    }
    not_reserved(file.text("path"), &path.child("path"), errors);
    match (file.has("fieldRef"), file.has("resourceFieldRef")) {
        (true, both) => {
            environment::volume_field(file.at("fieldRef"), &path.child("fieldRef"), errors);
            if both {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.invalid(path, "resource", detail);
            }
        }
        (false, true) => {
            let path = path.child("resourceFieldRef");
            environment::resource_reference(file.at("resourceFieldRef"), true, &path, errors);
        }
        (false, false) => errors.required(path, "one of fieldRef and resourceFieldRef is required"),
    }
    mode(file, "mode", path, errors);
}

fn projected(volume: &Value, path: &Path, errors: &mut Errors) {
    mode(volume, "defaultMode", path, errors);
    let mut files: Vec<&str> = Vec::new();
    let sources = path.child("sources");
    for (index, source) in volume.list("sources").iter().enumerate() {
        let at = sources.index(index);
        for kind in ["secret", "configMap"] {
            let Some(from) = source.get(kind).filter(|s| !s.is_null()) else { continue };
            let at = at.child(kind);
            if from.text("name").is_empty() {
                errors.required(&at.child("name"), "");
            }
            let items = at.child("items");
            for (index, item) in from.list("items").iter().enumerate() {
                key_to_path(item, &items.index(index), errors);
                claim(item.text("path"), from.text("name"), &mut files, path, errors);
            }
        }
        for file in source.at("downwardAPI").list("items") {
            downward_file(file, &at.child("downwardAPI"), errors);
            claim(file.text("path"), file.text("path"), &mut files, path, errors);
        }
        if source.has("serviceAccountToken") {
            token(source.at("serviceAccountToken"), path, &at.child("serviceAccountToken"), errors);
        }
        if source.as_object().is_some_and(|kinds| kinds.len() > 1) {
            errors.forbidden(&at, "may not specify more than 1 volume type per source");
        }
    }
}

fn claim<'a>(file: &'a str, blamed: &str, files: &mut Vec<&'a str>, path: &Path, errors: &mut Errors) {
    if file.is_empty() {
        return;
    }
    if files.contains(&file) {
        errors.invalid(path, blamed, "conflicting duplicate paths");
    } else {
        files.push(file);
    }
}

fn token(token: &Value, volume: &Path, path: &Path, errors: &mut Errors) {
    let seconds = token.int("expirationSeconds").unwrap_or(0);
    let at = path.child("expirationSeconds");
    if seconds < 600 {
        errors.invalid(&at, seconds, "may not specify a duration less than 10 minutes");
    }
    if seconds > 1 << 32 {
        errors.invalid(&at, seconds, "may not specify a duration larger than 2^32 seconds");
    }
    let file = token.text("path");
    if file.is_empty() {
        errors.required(&volume.child("path"), "");
    }
    not_reserved(file, &volume.child("path"), errors);
}

/// A relative path that stays below its root.
pub(crate) fn descending(text: &str, path: &Path, errors: &mut Errors) {
    if text.starts_with('/') {
        errors.invalid(path, text, "must be a relative path");
    }
    no_backsteps(text, path, errors);
}

pub(crate) fn no_backsteps(text: &str, path: &Path, errors: &mut Errors) {
    if text.split('/').any(|step| step == "..") {
        errors.invalid(path, text, "must not contain '..'");
    }
}

/// The atomic writer keeps names that begin with two dots for itself.
fn not_reserved(text: &str, path: &Path, errors: &mut Errors) {
    descending(text, path, errors);
    if text.starts_with("..") && !text.starts_with("../") {
        errors.invalid(path, text, "must not start with '..'");
    }
}

/// `volumeMounts` and `volumeDevices` of a container.
pub(crate) fn mounts(container: &Value, volumes: &[&str], path: &Path, errors: &mut Errors) {
    let list = path.child("volumeMounts");
    let mut points = Vec::new();
    for (index, mount) in container.list("volumeMounts").iter().enumerate() {
        let path = list.index(index);
        let (name, point) = (mount.text("name"), mount.text("mountPath"));
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        }
        if !volumes.contains(&name) {
            errors.not_found(&path.child("name"), name);
        }
        if point.is_empty() {
            errors.required(&path.child("mountPath"), "");
        }
        if points.contains(&point) {
            errors.invalid(&path.child("mountPath"), point, "must be unique");
        }
        points.push(point);
        sub_path(mount, &path, &list, errors);
        propagation(mount, container, &list.child("mountPropagation"), errors);
    }
    let list = path.child("volumeDevices");
    for (index, device) in container.list("volumeDevices").iter().enumerate() {
        let path = list.index(index);
        for field in ["name", "devicePath"] {
            if device.text(field).is_empty() {
                errors.required(&path.child(field), "");
            }
        }
        if !volumes.contains(&device.text("name")) {
            errors.not_found(&path.child("name"), device.text("name"));
        }
    }
}

fn sub_path(mount: &Value, path: &Path, list: &Path, errors: &mut Errors) {
    let (plain, expression) = (mount.text("subPath"), mount.text("subPathExpr"));
    if !plain.is_empty() {
        descending(plain, &list.child("subPath"), errors);
    }
    if expression.is_empty() {
        return;
    }
    if !plain.is_empty() {
        let detail = "subPathExpr and subPath are mutually exclusive";
        errors.invalid(&path.child("subPathExpr"), expression, detail);
    }
    descending(expression, &list.child("subPathExpr"), errors);
}

fn propagation(mount: &Value, container: &Value, path: &Path, errors: &mut Errors) {
    const MODES: &[&str] = &["Bidirectional", "HostToContainer", "None"];
    let Some(mode) = mount.at("mountPropagation").as_str() else { return };
    if !MODES.contains(&mode) {
        errors.not_supported(path, mode, MODES);
    }
    if mode == "Bidirectional" && !container.at("securityContext").flag("privileged") {
        errors.forbidden(path, "Bidirectional mount propagation is available only to privileged containers");
    }
}
