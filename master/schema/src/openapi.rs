//! OpenAPI documents: v2 as a whole, v3 one a group and version. Built on request from `data/openapi.json.gz` and from
//! the registry; nothing of it stays in memory.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;

use serde_json::{Value, json};

use crate::custom::add_openapi;
use crate::kind::Kind;
use crate::registry::Registry;
use crate::value::{Fields as _, Object, object_in};

mod gnostic;
mod paths;

static DATA: &[u8] = include_bytes!("../data/openapi.json.gz");
const V2: &str = "#/definitions/";
const V3: &str = "#/components/schemas/";

/// Why a document cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum OpenApiError {
    #[error("decompress the OpenAPI definitions")]
    Decompress(#[from] std::io::Error),
    #[error("parse the OpenAPI definitions")]
    Parse(#[from] serde_json::Error),
}

/// Which document's form a path item takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    V2,
    V3,
}

impl Form {
    fn prefix(self) -> &'static str {
        match self {
            Form::V2 => V2,
            Form::V3 => V3,
        }
    }

    fn reference(self, definition: &str) -> Value {
        json!({ "$ref": format!("{}{definition}", self.prefix()) })
    }
}

/// One entry of `/openapi/v3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct V3Path {
    /// `api/v1`, `apis/apps/v1`
    pub path: String,
    /// Changes whenever the document does: clients keep documents by it.
    pub hash: String,
}

/// Everything `/openapi/v3` lists.
pub fn v3_paths(registry: &Registry) -> Vec<V3Path> {
    let entry =
        |(group, version): (&str, &str)| V3Path { path: root(group, version), hash: hash(registry, group, version) };
    registry.group_versions().into_iter().map(entry).collect()
}

/// `api/v1` or `apis/GROUP/VERSION`.
fn root(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn hash(registry: &Registry, group: &str, version: &str) -> String {
    let mut hasher = DefaultHasher::new();
    DATA.hash(&mut hasher);
    env!("CARGO_PKG_VERSION").hash(&mut hasher);
    for kind in registry.resources(group, version) {
        (kind.plural, kind.definition, kind.verbs).hash(&mut hasher);
        kind.subresources.iter().for_each(|s| (s.name, s.verbs).hash(&mut hasher));
        kind.custom.inspect(|custom| custom.shown().to_string().hash(&mut hasher));
    }
    format!("{:016X}", hasher.finish())
}

/// The v3 document of one group and version, as JSON; `None` where there is no such version.
pub fn v3(registry: &Registry, group: &str, version: &str) -> Result<Option<Vec<u8>>, OpenApiError> {
    let kinds: Vec<&Kind> = registry.resources(group, version).collect();
    if kinds.is_empty() {
        return Ok(None);
    }
    let definitions = definitions(&kinds, Form::V3)?;
    let paths = paths::all(&kinds, Form::V3);
    let mut wanted = BTreeSet::new();
    references(&paths, V3, &mut wanted);
    wanted.extend(kinds.iter().map(|k| k.definition.to_string()));
    let schemas: Object =
        closure(&definitions, wanted).into_iter().map(|(name, schema)| (name, third_form(schema))).collect();
    let document = json!({
        "openapi": "3.0.0",
        "info": { "title": "Kubernetes", "version": VERSION },
        "paths": paths,
        "components": { "schemas": schemas },
    });
    Ok(Some(serde_json::to_vec(&document)?))
}

/// The v2 document, as JSON, together with what other servers have ([`v2_closure`]).
pub fn v2(registry: &Registry, others: &[&Value]) -> Result<Vec<u8>, OpenApiError> {
    Ok(serde_json::to_vec(&v2_document(registry, others)?)?)
}

/// The same as protobuf.
pub fn v2_protobuf(registry: &Registry, others: &[&Value]) -> Result<Vec<u8>, OpenApiError> {
    Ok(gnostic::document(&v2_document(registry, others)?))
}

/// Of `definitions` those that `paths` refer to, and what these refer to.
pub fn v2_closure(definitions: &Object, paths: &Value) -> Object {
    let mut wanted = BTreeSet::new();
    references(paths, V2, &mut wanted);
    closure(definitions, wanted)
}

fn v2_document(registry: &Registry, others: &[&Value]) -> Result<Object, OpenApiError> {
    let kinds: Vec<&Kind> = registry.kinds().filter(|k| !k.plural.is_empty()).collect();
    let mut document = Object::new();
    document.insert("swagger".to_owned(), "2.0".into());
    document.insert("info".to_owned(), json!({ "title": "Kubernetes", "version": VERSION }));
    document.insert("paths".to_owned(), paths::all(&kinds, Form::V2));
    document.insert("definitions".to_owned(), definitions(&kinds, Form::V2)?.into());
    for other in others {
        add_all(&mut document, "paths", other);
        add_all(&mut document, "definitions", other);
    }
    Ok(document)
}

/// Adds what is not there: types that several servers share are the same.
fn add_all(document: &mut Object, field: &str, other: &Value) {
    let own = object_in(document, field);
    for (name, value) in other.entries(field) {
        own.entry(name.as_str()).or_insert_with(|| value.clone());
    }
}

/// The release whose definitions these are.
const VERSION: &str = "v1.36.0";

fn definitions(kinds: &[&Kind], form: Form) -> Result<Object, OpenApiError> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(DATA).read_to_string(&mut text)?;
    let mut definitions = serde_json::from_str(&text)?;
    add_openapi(kinds.iter().copied(), form == Form::V2, &mut definitions);
    Ok(definitions)
}

/// The named definitions and all that they refer to.
fn closure(definitions: &Object, wanted: BTreeSet<String>) -> Object {
    let mut out = Object::new();
    let mut queue: Vec<String> = wanted.into_iter().collect();
    while let Some(name) = queue.pop() {
        if out.contains_key(&name) {
            continue;
        }
        let Some(schema) = definitions.get(&name) else { continue };
        let mut more = BTreeSet::new();
        references(schema, V2, &mut more);
        queue.extend(more);
        out.insert(name, schema.clone());
    }
    out
}

fn references(value: &Value, prefix: &str, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value.as_str().and_then(|text| text.strip_prefix(prefix)) {
                    Some(name) if key == "$ref" => {
                        out.insert(name.to_string());
                    }
                    _ => references(value, prefix, out),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, prefix, out)),
        _ => {}
    }
}

/// A schema of v2 as v3 writes it: other places for definitions, and nothing beside a reference but in `allOf`.
fn third_form(schema: Value) -> Value {
    match schema {
        Value::Object(map) => {
            let mut out: Object = map.into_iter().map(|(key, value)| (key, third_form(value))).collect();
            let target = out.get("$ref").and_then(Value::as_str).and_then(|t| t.strip_prefix(V2)).map(str::to_string);
            if let Some(name) = target {
                out.remove("$ref");
                let reference = Form::V3.reference(&name);
                if out.is_empty() {
                    return reference;
                }
                out.insert("allOf".into(), json!([reference]));
            }
            Value::Object(out)
        }
        Value::Array(list) => Value::Array(list.into_iter().map(third_form).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(group: &str, version: &str) -> Value {
        serde_json::from_slice(&v3(Registry::builtin(), group, version).unwrap().unwrap()).unwrap()
    }

    #[test]
    fn every_version_has_a_document_in_which_every_reference_resolves() {
        for (group, version) in Registry::builtin().group_versions() {
            let document = document(group, version);
            let schemas = document["components"]["schemas"].as_object().unwrap();
            let mut wanted = BTreeSet::new();
            references(&document, V3, &mut wanted);
            let missing: Vec<&String> = wanted.iter().filter(|name| !schemas.contains_key(*name)).collect();
            assert!(missing.is_empty(), "{group}/{version}: {missing:?}");
        }
        assert!(v3(Registry::builtin(), "apps", "v9").unwrap().is_none());
    }

    #[test]
    fn kubectl_finds_kinds_merge_keys_and_field_validation() {
        let document = document("apps", "v1");
        let item = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
        assert_eq!(
            item["patch"]["x-kubernetes-group-version-kind"],
            json!({ "group": "apps", "version": "v1", "kind": "Deployment" })
        );
        let named = |p: &Value| p["name"] == "fieldValidation";
        assert!(item["patch"]["parameters"].as_array().unwrap().iter().any(named));
        assert!(item["get"].get("parameters").is_none(), "nothing is listed where nothing is to be said");
        let spec = &document["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"];
        assert_eq!(spec["properties"]["containers"]["x-kubernetes-patch-merge-key"], "name");
    }

    #[test]
    fn the_second_version_is_whole() {
        let document: Value = serde_json::from_slice(&v2(Registry::builtin(), &[]).unwrap()).unwrap();
        let definitions = document["definitions"].as_object().unwrap();
        let mut wanted = BTreeSet::new();
        references(&document, V2, &mut wanted);
        assert!(wanted.iter().all(|name| definitions.contains_key(name)));
        assert!(definitions["io.k8s.api.core.v1.Pod"]["description"].is_string());
    }

    #[test]
    fn hashes_are_stable_and_differ() {
        let paths = v3_paths(Registry::builtin());
        assert_eq!(paths, v3_paths(Registry::builtin()));
        let hashes: BTreeSet<&String> = paths.iter().map(|p| &p.hash).collect();
        assert_eq!(hashes.len(), paths.len());
    }
}
