//! The annotations that AppArmor profiles had before there were fields: of a new pod they become fields (KEP-24, version skew).

use serde_json::{Value, json};

use super::security;
use crate::errors::{Errors, Path};
use crate::value::{Fields, Object, objects_in};

const PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";
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
fn profile(annotation: &str) -> Option<Value> {
    let profile = match annotation {
        "unconfined" => json!({ "type": "Unconfined" }),
        "runtime/default" => json!({ "type": "RuntimeDefault" }),
        other => json!({ "type": "Localhost", "localhostProfile": other.strip_prefix(LOCALHOST)? }),
    };
    let mut errors = Errors::default();
    security::app_armor(&profile, &Path::root("appArmorProfile"), &mut errors);
    errors.is_empty().then_some(profile)
}
