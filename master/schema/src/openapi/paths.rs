//! The paths of a document: what can be done with each resource.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::{Form, root};
use crate::kind::{Kind, Subresource};
use crate::value::{Object, put};

const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
const PATCH_TYPES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// One operation of a path item.
struct Operation<'a> {
    method: &'static str,
    /// `x-kubernetes-action`
    action: &'static str,
    /// (group, version, kind) of what it is about
    kind: (&'a str, &'a str, &'a str),
    /// Definitions of the body and of the answer.
    body: Option<&'a str>,
    answer: Cow<'a, str>,
}

pub(super) fn all(kinds: &[&Kind], form: Form) -> Value {
    let mut paths = Object::new();
    for kind in kinds {
        let root = format!("/{}", root(kind.group, kind.version));
        let scoped = if kind.namespaced { format!("{root}/namespaces/{{namespace}}") } else { root.clone() };
        let collection = format!("{scoped}/{}", kind.plural);
        let item = format!("{collection}/{{name}}");
        paths.insert(collection.clone(), path_item(&collection, collection_operations(kind), form));
        let operations = item_operations(kind);
        if !operations.is_empty() {
            paths.insert(item.clone(), path_item(&item, operations, form));
        }
        for subresource in kind.subresources {
            let path = format!("{item}/{}", subresource.name);
            let value = path_item(&path, subresource_operations(kind, subresource), form);
            paths.insert(path, value);
        }
        if kind.namespaced && kind.verbs.contains(&"list") {
            let path = format!("{root}/{}", kind.plural);
            let list = collection_operations(kind).into_iter().filter(|o| o.method == "get").collect();
            paths.insert(path.clone(), path_item(&path, list, form));
        }
    }
    Value::Object(paths)
}

fn about(kind: &Kind) -> (&str, &str, &str) {
    (kind.group, kind.version, kind.kind)
}

fn collection_operations(kind: &Kind) -> Vec<Operation<'_>> {
    // Upstream's naming: the item's definition with `List` behind.
    let list = format!("{}List", kind.definition);
    let all = [
        ("list", "get", "list", None, Cow::Owned(list)),
        ("create", "post", "post", Some(kind.definition), kind.definition.into()),
        ("deletecollection", "delete", "deletecollection", Some(DELETE_OPTIONS), STATUS.into()),
    ];
    operations(kind, &all)
}

fn item_operations(kind: &Kind) -> Vec<Operation<'_>> {
    let all = [
        ("get", "get", "get", None, kind.definition.into()),
        ("update", "put", "put", Some(kind.definition), kind.definition.into()),
        ("patch", "patch", "patch", Some(PATCH), kind.definition.into()),
        ("delete", "delete", "delete", Some(DELETE_OPTIONS), STATUS.into()),
    ];
    operations(kind, &all)
}

/// (verb, method, action, body, answer)
type Row<'a> = (&'static str, &'static str, &'static str, Option<&'a str>, Cow<'a, str>);

fn operations<'a>(kind: &'a Kind, rows: &[Row<'a>]) -> Vec<Operation<'a>> {
    rows.iter()
        .filter(|(verb, ..)| kind.verbs.contains(verb))
        .map(|(_, method, action, body, answer)| Operation {
            method,
            action,
            kind: about(kind),
            body: *body,
            answer: answer.clone(),
        })
        .collect()
}

fn subresource_operations<'a>(kind: &'a Kind, subresource: &'a Subresource) -> Vec<Operation<'a>> {
    let definition = match (subresource.kind, subresource.name) {
        ("Scale", _) => "io.k8s.api.autoscaling.v1.Scale",
        ("Eviction", _) => "io.k8s.api.policy.v1.Eviction",
        ("TokenRequest", _) => "io.k8s.api.authentication.v1.TokenRequest",
        ("Binding", _) => "io.k8s.api.core.v1.Binding",
        (same, "status" | "approval" | "finalize" | "resize" | "ephemeralcontainers") if same == kind.kind => {
            kind.definition
        }
        _ => "",
    };
    let connect = definition.is_empty();
    let about = (subresource.group, subresource.version, subresource.kind);
    let row = |verb: &&str| -> Option<Operation<'a>> {
        let (method, action, body) = match *verb {
            "get" => ("get", "get", None),
            "update" => ("put", "put", Some(definition)),
            "patch" => ("patch", "patch", Some(PATCH)),
            "create" => ("post", "post", Some(definition)),
            "delete" => ("delete", "delete", None),
            _ => return None,
        };
        let action = if connect && subresource.name != "log" { "connect" } else { action };
        let body = body.filter(|_| !connect);
        Some(Operation { method, action, kind: about, body, answer: definition.into() })
    };
    subresource.verbs.iter().filter_map(row).collect()
}

fn path_item(path: &str, operations: Vec<Operation>, form: Form) -> Value {
    let mut item = Object::new();
    let in_path = ["name", "namespace"].into_iter().filter(|name| path.contains(&format!("{{{name}}}")));
    let parameters: Vec<Value> = in_path.map(|name| parameter(name, "path", "string", form)).collect();
    // Go's clients read the document and write it again, and an empty list is none to them.
    if !parameters.is_empty() {
        item.insert("parameters".into(), parameters.into());
    }
    for operation in operations {
        item.insert(operation.method.into(), operation_object(path, &operation, form));
    }
    Value::Object(item)
}

fn parameter(name: &str, place: &str, kind: &str, form: Form) -> Value {
    let mut parameter = json!({ "name": name, "in": place });
    match form {
        Form::V2 => put(&mut parameter, "type", kind.into()),
        Form::V3 => put(&mut parameter, "schema", json!({ "type": kind })),
    }
    if place == "path" {
        put(&mut parameter, "required", true.into());
    }
    parameter
}

fn operation_object(path: &str, operation: &Operation, form: Form) -> Value {
    let (group, version, kind) = operation.kind;
    let mut parameters: Vec<Value> =
        query(operation.action).iter().map(|(name, kind)| parameter(name, "query", kind, form)).collect();
    let media = if operation.method == "patch" { &PATCH_TYPES[..] } else { &["application/json"] };
    let mut out = json!({
        "operationId": operation_id(path, operation),
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": { "group": group, "version": version, "kind": kind },
        "responses": { "200": answer(&operation.answer, form) },
    });
    if let Some(body) = operation.body {
        match form {
            Form::V2 => {
                let schema = form.reference(body);
                parameters.push(json!({ "name": "body", "in": "body", "required": true, "schema": schema }));
                put(&mut out, "consumes", json!(media));
            }
            Form::V3 => {
                let content: Object =
                    media.iter().map(|m| ((*m).to_string(), json!({ "schema": form.reference(body) }))).collect();
                put(&mut out, "requestBody", json!({ "content": content }));
            }
        }
    }
    if !parameters.is_empty() {
        put(&mut out, "parameters", parameters.into());
    }
    out
}

fn answer(definition: &str, form: Form) -> Value {
    match (definition, form) {
        ("", _) => json!({ "description": "OK" }),
        (name, Form::V2) => json!({ "description": "OK", "schema": form.reference(name) }),
        (name, Form::V3) => {
            json!({ "description": "OK", "content": { "application/json": { "schema": form.reference(name) } } })
        }
    }
}

/// The query parameters of an action.
fn query(action: &str) -> &'static [(&'static str, &'static str)] {
    match action {
        "list" => &[
            ("allowWatchBookmarks", "boolean"),
            ("continue", "string"),
            ("fieldSelector", "string"),
            ("labelSelector", "string"),
            ("limit", "integer"),
            ("resourceVersion", "string"),
            ("resourceVersionMatch", "string"),
            ("sendInitialEvents", "boolean"),
            ("timeoutSeconds", "integer"),
            ("watch", "boolean"),
        ],
        "post" | "put" => &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")],
        "patch" => {
            &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), ("force", "boolean")]
        }
        "delete" | "deletecollection" => {
            &[("dryRun", "string"), ("gracePeriodSeconds", "integer"), ("propagationPolicy", "string")]
        }
        _ => &[],
    }
}

/// Unique in a document: the method and the path, in camel case.
fn operation_id(path: &str, operation: &Operation) -> String {
    let mut id = operation.method.to_string();
    for word in path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        let (first, rest) = word.split_at(1);
        id.push_str(&first.to_uppercase());
        id.push_str(rest);
    }
    id
}
