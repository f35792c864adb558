//! Subresources: parts of an object that are written apart, actions on it, and what is passed on to nodes.

mod binding;
mod budget;
mod eviction;
mod kubelet;
mod links;
mod pages;
mod scale;
mod target;
mod token;
mod websocket;

use std::sync::Arc;

use admission::{Operation, Request};
use http::Response;
use schema::{FieldValidation, Kind, Part, Registry};
use serde_json::Value;

use crate::body::{self, Body};
use crate::objects;
use crate::problem::{Problem, Result};
use crate::road::Call;
use crate::server::Core;
use crate::webhooks::{self, Attributes, Wishes};

pub(crate) use binding::bind_from_collection;
pub(crate) use kubelet::Kubelets;
pub(crate) use scale::scaled;

pub(crate) async fn answer(core: &Arc<Core>, call: &mut Call, body: Body) -> Result<Response<Body>> {
    let Some(subresource) = call.kind.subresource(&call.path.subresource) else { return Ok(body::no_such_path()) };
    match (call.kind.plural, subresource.name) {
        (_, "status") => objects::answer_part(core, call, body, Part::Status).await,
        (_, "scale") => scale::answer(core, call, body).await,
        ("pods", "binding") => binding::answer(core, call, body).await,
        ("pods", "eviction") => eviction::answer(core, call, body).await,
        ("serviceaccounts", "token") => token::answer(core, call, body).await,
        ("pods", "log" | "exec" | "attach" | "portforward" | "proxy") | ("nodes" | "services", "proxy") => {
            kubelet::answer(core, call, body).await
        }
        // Bodies of all others are the whole object.
        (_, name) => objects::answer_part(core, call, body, Part::Other(name)).await,
    }
}

/// Reads a body that is of another kind than the object.
async fn body_of(call: &mut Call, version: &str, kind: &str, body: Body) -> Result<Value> {
    let bytes = body::read(body).await?;
    let kind: &'static Kind = Registry::builtin()
        .by_kind(version, kind)
        .ok_or_else(|| Problem::internal(&format!("no kind {kind} in {version}")))?;
    let validation = call.query.field_validation("CreateOptions").unwrap_or(FieldValidation::Warn);
    objects::decode(kind, &call.head.headers, &bytes, validation, &mut call.warnings)
}

/// Lets admission judge, and change, the body of a create of a subresource, which is of a kind of its own.
async fn admit(core: &Core, call: &Call, body: (&str, &str, &str), object: &mut Value, dry_run: bool) -> Result<()> {
    let (namespace, name) = (call.path.namespace.as_str(), call.path.name.as_str());
    let (kind, subresource, operation) = (call.kind, call.path.subresource.as_str(), Operation::Create);
    let (user, body) = (call.user.as_ref(), Some(body));
    let (group, resource) = (kind.group, kind.plural);
    let request = Request { user, operation, group, resource, subresource, namespace, name, old: None };
    let wishes = Wishes::Query(&call.query);
    let asked = Attributes { user, operation, kind, subresource, body, namespace, name, old: None, wishes, dry_run };
    call.tell(webhooks::mutate(core, &request, &asked, object).await?);
    core.admission.validate(&request, Some(object))?;
    call.tell(webhooks::validate(core, &asked, Some(object)).await?);
    Ok(())
}

/// Puts a condition into `status.conditions`, in the place of the one of its type.
fn set_condition(object: &mut Value, condition: Value) {
    let conditions = &mut object["status"]["conditions"];
    match conditions.as_array_mut() {
        Some(list) => {
            list.retain(|one| one["type"] != condition["type"]);
            list.push(condition);
        }
        None => *conditions = serde_json::json!([condition]),
    }
}

/// 201 without an object.
fn created(call: &Call) -> Result<Response<Body>> {
    let status = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201,
    });
    body::value(call.accept.format, http::StatusCode::CREATED, &status)
}
