//! What clients are shown of custom kinds (`apiextensions-apiserver/pkg/controller/openapi/builder`).

use serde_json::{Map, Value, json};

use crate::kind::Kind;
use crate::value::{Fields, Object, object_in};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
/// What every object has.
const VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const OBJECT: &str = "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
const LIST: &str = "Standard list metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";

/// Adds the definitions of custom kinds. Version 2 has no words for much of what schemas say, and leaves it out.
pub(crate) fn add<'a>(kinds: impl Iterator<Item = &'a Kind>, second: bool, definitions: &mut Object) {
    for kind in kinds {
        let Some(custom) = kind.custom else { continue };
        let preserves = custom.schema.preserve;
        let schema = match (second, preserves) {
            // kubectl would take what is described for everything that there may be.
            (true, true) => json!({ "type": "object" }),
            (true, false) => plain(&custom.raw),
            (false, _) => custom.raw.clone(),
        };
        let mut own = schema.as_object().cloned().unwrap_or_default();
        if !(second && preserves) {
            complete(&mut own);
        }
        own.insert("x-kubernetes-group-version-kind".into(), described(kind, kind.kind));
        definitions.insert(kind.definition.to_owned(), own.into());
        definitions.insert(format!("{}List", kind.definition), list(kind));
    }
}

fn described(kind: &Kind, name: &str) -> Value {
    json!([{ "group": kind.group, "kind": name, "version": kind.version }])
}

/// Adds what every object has.
fn complete(schema: &mut Object) {
    schema.entry("type").or_insert_with(|| "object".into());
    let properties = object_in(schema, "properties");
    properties.insert("apiVersion".into(), json!({ "description": VERSION, "type": "string" }));
    properties.insert("kind".into(), json!({ "description": KIND, "type": "string" }));
    let meta = json!({ "description": OBJECT, "$ref": format!("#/definitions/{META}ObjectMeta") });
    properties.insert("metadata".into(), meta);
}

fn list(kind: &Kind) -> Value {
    let reference = |name: &str| format!("#/definitions/{name}");
    json!({
        "description": format!("{} is a list of {}", kind.list_kind, kind.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": { "description": VERSION, "type": "string" },
            "kind": { "description": KIND, "type": "string" },
            "metadata": { "description": LIST, "$ref": reference(&format!("{META}ListMeta")) },
            "items": {
                "description": format!("List of {}. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md", kind.plural),
                "type": "array",
                "items": { "$ref": reference(kind.definition) },
            },
        },
        "x-kubernetes-group-version-kind": described(kind, kind.list_kind),
    })
}

/// A schema as version 2 can say it (`builder.ToStructuralOpenAPIV2`): no alternatives, no nullable values; what is not
/// pruned is not described.
fn plain(schema: &Value) -> Value {
    let Value::Object(schema) = schema else { return schema.clone() };
    if schema.flag("x-kubernetes-preserve-unknown-fields") {
        let kept = ["description", "type", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"];
        return only(schema, &kept);
    }
    if schema.flag("nullable") {
        return only(schema, &["description"]);
    }
    if schema.flag("x-kubernetes-int-or-string") {
        return only(schema, &["description", "x-kubernetes-int-or-string"]);
    }
    let mut out = Object::new();
    for (name, value) in schema {
        match name.as_str() {
            "allOf" | "anyOf" | "oneOf" | "not" | "nullable" => {}
            "properties" => {
                let inner = value.as_object().into_iter().flatten();
                let inner: Map<String, Value> = inner.map(|(name, value)| (name.clone(), plain(value))).collect();
                out.insert(name.clone(), inner.into());
            }
            "items" | "additionalProperties" => {
                out.insert(name.clone(), plain(value));
            }
            "required" => {
                // What is null may not be required: version 2 knows no null.
                let nullable =
                    |field: &Value| schema.at("properties").at(field.as_str().unwrap_or_default()).flag("nullable");
                let kept: Vec<Value> =
                    value.as_array().into_iter().flatten().filter(|f| !nullable(f)).cloned().collect();
                if !kept.is_empty() {
                    out.insert(name.clone(), kept.into());
                }
            }
            _ => {
                out.insert(name.clone(), value.clone());
            }
        }
    }
    out.into()
}

fn only(schema: &Object, kept: &[&str]) -> Value {
    let kept = schema.iter().filter(|(name, _)| kept.contains(&name.as_str()));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect::<Object>().into()
}
