//! `…/scale`: the number of replicas of a workload as an `autoscaling/v1` Scale.

use std::sync::Arc;

use http::{Response, StatusCode};
use schema::{FieldError, Kind, Part, Registry};
use serde_json::{Value, json};

use crate::body::{self, Body};
use crate::objects::{self, Change, Patch};
use crate::problem::{Problem, Result};
use crate::road::Call;
use crate::server::Core;

const VERSION: &str = "autoscaling/v1";

pub(super) async fn answer(core: &Arc<Core>, call: &mut Call, body: Body) -> Result<Response<Body>> {
    let json = match call.verb {
        "get" => objects::find(core, call)?.json().clone(),
        "update" => {
            let dry_run = call.query.dry_run("UpdateOptions")?;
            let asked = super::body_of(call, VERSION, "Scale", body).await?;
            change(core, call, dry_run, &|_| Ok(asked.clone())).await?
        }
        "patch" => {
            let dry_run = call.query.dry_run("PatchOptions")?;
            let patch = Patch::parse(&call.head.headers, &body::read(body).await?)?;
            let kind = scale_kind()?;
            change(core, call, dry_run, &|scale| patch.apply(kind, scale)).await?
        }
        _ => return Err(Problem::method_not_allowed()),
    };
    Ok(body::json(StatusCode::OK, &scale_of(&objects::stored(call.kind, &json)?)))
}

fn scale_kind() -> Result<&'static Kind> {
    Registry::builtin().by_kind(VERSION, "Scale").ok_or_else(|| Problem::internal("no kind Scale"))
}

/// Sets the replicas to what `make` makes of the Scale.
async fn change(
    core: &Core,
    call: &Call,
    dry_run: bool,
    make: &(dyn Fn(&Value) -> Result<Value> + Send + Sync),
) -> Result<bytes::Bytes> {
    let name = call.path.name.as_str();
    let make = |old: &Value| {
        let scale = make(&scale_of(old))?;
        let replicas = scale.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
        if replicas < 0 {
            let message = format!("Invalid value: {replicas}: must be greater than or equal to 0");
            let error = FieldError { reason: "FieldValueInvalid", field: "spec.replicas".into(), message };
            return Err(Problem::invalid_field("autoscaling", "Scale", name, error));
        }
        let said = scale.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        if said != name {
            return Err(Problem::bad_request(format!(
                "the name of the object ({said}) does not match the name on the URL ({name})"
            )));
        }
        let mut new = old.clone();
        new["spec"]["replicas"] = replicas.into();
        new["metadata"]["resourceVersion"] =
            scale.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
        Ok(new)
    };
    objects::modify(core, call, Change { part: Part::Main, make: &make, dry_run, unconditional: true }).await
}

fn scale_of(object: &Value) -> Value {
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            metadata[field] = value.clone();
        }
    }
    let mut spec = json!({});
    if let Some(replicas) = object["spec"].get("replicas").filter(|replicas| **replicas != 0) {
        spec["replicas"] = replicas.clone();
    }
    let mut status = json!({ "replicas": object.pointer("/status/replicas").cloned().unwrap_or_else(|| 0.into()) });
    let selector = selector_text(&object["spec"]["selector"]);
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    json!({ "kind": "Scale", "apiVersion": VERSION, "metadata": metadata, "spec": spec, "status": status })
}

/// A LabelSelector as a query would say it, requirements in the order of their keys.
fn selector_text(selector: &Value) -> String {
    let mut terms: Vec<(String, String)> = Vec::new();
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        terms.push((key.clone(), format!("{key}={}", value.as_str().unwrap_or_default())));
    }
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = expression["key"].as_str().unwrap_or_default();
        let mut values: Vec<&str> =
            expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        terms.push((key.to_owned(), match expression["operator"].as_str().unwrap_or_default() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        }));
    }
    terms.sort();
    terms.into_iter().map(|(_, term)| term).collect::<Vec<_>>().join(",")
}
