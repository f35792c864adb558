//! The annotations that AppArmor profiles had before there were fields: of a new pod they become fields (KEP-24, version skew), and then stay.

use serde_json::{Value, json};

use super::security;
use crate::errors::{Errors, Path, quote};
use crate::value::{Fields, Object, objects_in};

pub(super) const PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";
const LOCALHOST: &str = "localhost/";
const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Puts the profile of each annotation into the container that it names, unless that or its pod has one that says it.
pub(crate) fn from_annotations(pod: &mut Value) {
    let annotations = pod.at("metadata").at("annotations").clone();
    let is_named = |key: &String| key.starts_with(PREFIX);
    if pod.at("spec").at("os").text("name") == "windows"
        || !annotations.as_object().is_some_and(|all| all.keys().any(is_named))
    {
        return;
    }
    let Some(Value::Object(spec)) = pod.get_mut("spec") else { return };
    let of_pod = spec.at("securityContext").at("appArmorProfile").clone();
    for list in LISTS {
        objects_in(spec, list).for_each(|container| into_field(container, &annotations, &of_pod));
    }
}

fn into_field(container: &mut Object, annotations: &Value, of_pod: &Value) {
    let key = format!("{PREFIX}{}", container.text("name"));
    let Some(profile) = annotations.at(&key).as_str().and_then(profile) else { return };
    if profile == *of_pod || !container.at("securityContext").at("appArmorProfile").is_null() {
        return;
    }
    let context = container.entry("securityContext").or_insert(Value::Null);
    if context.is_null() {
        *context = json!({});
    }
    if let Value::Object(context) = context {
        context.insert("appArmorProfile".into(), profile);
    }
}

/// What an annotation says; `None` for one that says nothing, or nothing valid, which validation tells.
pub(super) fn profile(annotation: &str) -> Option<Value> {
    let profile = match annotation {
        "unconfined" => json!({ "type": "Unconfined" }),
        "runtime/default" => json!({ "type": "RuntimeDefault" }),
        other => json!({ "type": "Localhost", "localhostProfile": other.strip_prefix(LOCALHOST)? }),
    };
    let mut errors = Errors::default();
    security::app_armor(&profile, &Path::root("appArmorProfile"), &mut errors);
    errors.is_empty().then_some(profile)
}

/// Annotations of a pod or a template, whose metadata and spec lie at these paths: they name containers that there are and profiles.
pub(crate) fn validate(object: &Value, metadata: &Path, errors: &mut Errors) {
    let path = metadata.child("annotations");
    let containers = || LISTS.into_iter().flat_map(|list| object.at("spec").list(list));
    for (key, annotation) in object.at("metadata").entries("annotations") {
        let Some(name) = key.strip_prefix(PREFIX) else { continue };
        let annotation = annotation.as_str().unwrap_or_default();
        if !containers().any(|container| container.text("name") == name) {
            errors.invalid(&path.key(key), name, "container not found");
        }
        if !matches!(annotation, "" | "unconfined" | "runtime/default") && !annotation.starts_with(LOCALHOST) {
            errors.invalid(
                &path.key(key),
                annotation,
                &format!("invalid AppArmor profile name: {}", quote(annotation)),
            );
        }
    }
}

/// They say what the fields of the spec, at `path`, say. Of pods that are there that is not asked: they may be older than this rule.
pub(crate) fn fields_match(object: &Value, path: &Path, errors: &mut Errors) {
    if object.at("spec").at("os").text("name") == "windows" {
        return;
    }
    let (spec, annotations) = (object.at("spec"), object.at("metadata").at("annotations"));
    for list in LISTS {
        let path = path.child(list);
        for (index, container) in spec.list(list).iter().enumerate() {
            let Some(said) = annotations.at(&format!("{PREFIX}{}", container.text("name"))).as_str() else { continue };
            let at = |holder: &Value| holder.at("securityContext").at("appArmorProfile").clone();
            let profile = Some(at(container)).filter(|own| !own.is_null()).unwrap_or_else(|| at(spec));
            let path = path.index(index);
            let context = path.child("securityContext");
            let field = context.child("appArmorProfile");
            let (matches, same) = match profile.text("type") {
                "Unconfined" => (said == "unconfined", true),
                "RuntimeDefault" => (said == "runtime/default", true),
                "Localhost" => {
                    let file = said.strip_prefix(LOCALHOST);
                    (file.is_some(), file == profile.at("localhostProfile").as_str())
                }
                _ => continue,
            };
            if !matches {
                errors.forbidden(&field.child("type"), "apparmor type in annotation and field must match");
            } else if !same {
                errors
                    .forbidden(&field.child("localhostProfile"), "apparmor profile in annotation and field must match");
            }
        }
    }
}

/// Annotations of a pod that is there stay as they are.
pub(crate) fn keep(new: &Value, old: &Value, errors: &mut Errors) {
    let metadata = Path::root("metadata");
    let path = metadata.child("annotations");
    let (new, old) = (new.at("metadata"), old.at("metadata"));
    let of = |metadata: &Value, key: &str| metadata.at("annotations").at(key).clone();
    for (key, before) in old.entries("annotations").filter(|(key, _)| key.starts_with(PREFIX)) {
        if of(new, key) != *before {
            errors.forbidden(&path.key(key), "may not remove or update AppArmor annotations");
        }
    }
    for (key, _) in new.entries("annotations").filter(|(key, _)| key.starts_with(PREFIX)) {
        if of(old, key).is_null() {
            errors.forbidden(&path.key(key), "may not add AppArmor annotations");
        }
    }
}
