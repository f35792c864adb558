//! `v1` Secret.

use jiff::Timestamp;
use serde_json::Value;

use super::config_map::{MOST, decoded_len, frozen};
use super::key_pair;
use crate::errors::{Errors, Path};
use crate::kind::{Column, FieldLabel, Hooks, Kind, Names, Part};
use crate::meta;
use crate::names::config_key;
use crate::table;
use crate::value::{Fields, object_in, put, set_if_unset};
use crate::warnings::Warnings;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.core.v1.Secret",
    fields: &[FieldLabel::text("type", "/type")],
    columns: COLUMNS,
    hooks: Hooks {
        default,
        row,
        prepare_create: merge_string_data,
        prepare_update: |_, object, old| {
            merge_string_data(object);
            keep_type(object, old);
        },
        validate,
        validate_update,
        warnings,
        ..Hooks::PLAIN
    },
    ..Kind::namespaced("", "v1", NAMES)
};

const NAMES: Names = Names { kind: "Secret", list: "SecretList", plural: "secrets", singular: "secret" };

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Type", "What the secret is for"),
    Column { kind: "string", ..Column::integer("Data", "Number of keys") },
    Column::AGE,
];

fn default(object: &mut Value) {
    if let Value::Object(object) = object {
        set_if_unset(object, "type", "Opaque");
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let keys = object.entries("data").count();
    vec![table::name(object), object.text("type").into(), keys.into(), table::age(object, now)]
}

/// `stringData` is for writing only: it becomes `data`.
fn merge_string_data(object: &mut Value) {
    let Value::Object(secret) = object else { return };
    if let Some(Value::Object(texts)) = secret.remove("stringData") {
        let data = object_in(secret, "data");
        for (key, text) in texts {
            data.insert(key, STANDARD.encode(text.as_str().unwrap_or_default()).into());
        }
    }
}

/// An update that names no type means the one there is.
fn keep_type(object: &mut Value, old: &Value) {
    if object.text("type").is_empty() {
        put(object, "type", old.at("type").clone());
    }
}

fn validate(object: &Value, errors: &mut Errors) {
    let path = Path::root("data");
    let mut size = 0;
    for (key, value) in object.entries("data") {
        config_key(key).iter().for_each(|text| errors.invalid(&path.key(key), key.as_str(), text));
        size += decoded_len(value.as_str().unwrap_or_default());
    }
    if size > MOST {
        errors.too_long(&path, MOST);
    }
    keys_of_type(object, &path, errors);
}

/// What the well-known types must hold.
fn keys_of_type(object: &Value, path: &Path, errors: &mut Errors) {
    let data = object.at("data");
    let mut required = |keys: &[&str]| keys.iter().for_each(|key| errors.required(&path.key(key), ""));
    let missing = |key: &&str| !data.has(key);
    match object.text("type") {
        "kubernetes.io/service-account-token" => {
            let name = "kubernetes.io/service-account.name";
            if object.at("metadata").at("annotations").text(name).is_empty() {
                let metadata = Path::root("metadata");
                errors.required(&metadata.child("annotations").key(name), "");
            }
        }
        "kubernetes.io/dockercfg" => docker_config(data, ".dockercfg", path, errors),
        "kubernetes.io/dockerconfigjson" => docker_config(data, ".dockerconfigjson", path, errors),
        "kubernetes.io/basic-auth" if ["username", "password"].iter().all(missing) => {
            required(&["username", "password"]);
        }
        "kubernetes.io/ssh-auth" if data.text("ssh-privatekey").is_empty() => required(&["ssh-privatekey"]),
        "kubernetes.io/tls" => {
            let absent: Vec<&str> = ["tls.crt", "tls.key"].into_iter().filter(missing).collect();
            required(&absent);
        }
        _ => {}
    }
}

fn docker_config(data: &Value, key: &str, path: &Path, errors: &mut Errors) {
    let Some(text) = data.at(key).as_str() else { return errors.required(&path.key(key), "") };
    let parsed = STANDARD.decode(text).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    if !parsed.is_some_and(|value| value.is_object()) {
        errors.invalid(&path.key(key), "<secret contents redacted>", "must be a JSON object");
    }
}

fn validate_update(_part: Part, object: &Value, old: &Value, errors: &mut Errors) {
    meta::immutable(object.at("type"), old.at("type"), &Path::root("type"), errors);
    frozen(object, old, &["data"], errors);
    validate(object, errors);
}

/// Of a TLS secret whose key is not that of its certificate.
fn warnings(_part: Part, object: &Value, _old: Option<&Value>, warnings: &mut Warnings) {
    if object.text("type") != "kubernetes.io/tls" {
        return;
    }
    let decoded = |key: &str| STANDARD.decode(object.at("data").text(key)).unwrap_or_default();
    if let Some(problem) = key_pair::problem(&decoded("tls.crt"), &decoded("tls.key")) {
        warnings.say(problem);
    }
}
