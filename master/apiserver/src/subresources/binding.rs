//! `pods/NAME/binding`: a pod gets its node (`pkg/registry/core/pod/storage.BindingREST`).

use std::sync::Arc;

use http::Response;
use jiff::Timestamp;
use schema::{FieldError, Kind, Part, Registry};
use serde_json::{Value, json};

use super::{admit, body_of, created, set_condition};
use crate::body::Body;
use crate::objects::{self, Change};
use crate::problem::{Problem, Result};
use crate::road::Call;
use crate::server::Core;

pub(super) async fn answer(core: &Arc<Core>, call: &mut Call, body: Body) -> Result<Response<Body>> {
    let dry_run = call.query.dry_run("CreateOptions")?;
    let binding = body_of(call, "v1", "Binding", body).await?;
    bind(core, call, binding, dry_run).await
}

/// `POST …/bindings`, the older way: the pod is named by the body.
pub(crate) async fn bind_from_collection(
    core: &Arc<Core>,
    call: &mut Call,
    binding: Value,
    dry_run: bool,
) -> Result<Response<Body>> {
    let pods: &'static Kind =
        Registry::builtin().kind("", "v1", "pods").ok_or_else(|| Problem::internal("no kind Pod"))?;
    call.kind = pods;
    call.path.name = binding["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    call.path.resource = "pods".into();
    call.path.subresource = "binding".into();
    bind(core, call, binding, dry_run).await
}

async fn bind(core: &Arc<Core>, call: &Call, mut binding: Value, dry_run: bool) -> Result<Response<Body>> {
    check(&call.path.name, &binding)?;
    admit(core, call, ("", "v1", "Binding"), &mut binding, dry_run).await?;
    let make = |pod: &Value| bound(call.kind, &call.path.name, pod, &binding);
    // Nobody owns the node of a pod.
    let change = Change { part: Part::Other("binding"), make: &make, dry_run, unconditional: true, manager: None };
    objects::modify(core, call, change).await?;
    created(call)
}

/// `ValidatePodBinding`.
fn check(pod: &str, binding: &Value) -> Result<()> {
    let refuse = |field: &str, reason: &'static str, message: String| {
        let error = FieldError { reason, field: field.into(), message };
        Err(Problem::invalid_field("", "Binding", pod, error))
    };
    let said = binding["metadata"]["name"].as_str().unwrap_or_default();
    if !said.is_empty() && said != pod {
        let message = format!("name in URL does not match name in Binding object: {said}");
        return Err(Problem::bad_request(message));
    }
    match binding["target"]["kind"].as_str().unwrap_or_default() {
        "" | "Node" => {}
        other => {
            let message = format!("Unsupported value: {other:?}: supported values: \"Node\", \"<empty>\"");
            return refuse("target.kind", "FieldValueNotSupported", message);
        }
    }
    if binding["target"]["name"].as_str().unwrap_or_default().is_empty() {
        return refuse("target.name", "FieldValueRequired", "Required value".into());
    }
    Ok(())
}

/// The pod on its node.
fn bound(kind: &Kind, name: &str, pod: &Value, binding: &Value) -> Result<Value> {
    let conflict = |why: String| Err(auth::Refusal::conflict(kind.group, "pods/binding", name, &why).into());
    for (field, what) in [("uid", "UID"), ("resourceVersion", "ResourceVersion")] {
        let said = |object: &Value| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let (wanted, own) = (said(binding), said(pod));
        if !wanted.is_empty() && wanted != own {
            let why = format!("{what} in precondition: {wanted}, {what} in object meta: {own}");
            return conflict(format!("Precondition failed: {why}"));
        }
    }
    if pod["metadata"].get("deletionTimestamp").is_some() {
        return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if !node.is_empty() {
        return conflict(format!("pod {name} is already assigned to node \"{node}\""));
    }
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        return conflict(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let mut new = pod.clone();
    schema::bind_pod(&mut new, binding);
    // What it was nominated for has happened (KEP-5278).
    if let Some(status) = new["status"].as_object_mut() {
        status.remove("nominatedNodeName");
    }
    scheduled(&mut new);
    Ok(new)
}

fn scheduled(pod: &mut Value) {
    let now = format!("{:.0}", Timestamp::now());
    let condition = json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now,
    });
    set_condition(pod, condition);
}
