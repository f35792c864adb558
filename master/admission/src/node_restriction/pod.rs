//! What a node may do with pods, and for which of them it may ask for tokens.

use auth::{Attributes, UserInfo};
use serde_json::Value;

use crate::{Context, Operation, Refusal, Request, items, pods, text};

pub fn check(context: &Context, request: &Request<'_>, object: Option<&Value>, node: &str) -> Result<(), Refusal> {
    match request.subresource {
        "" => main(context, request, object, node),
        "status" => status(request, object, node),
        "eviction" => eviction(context, request, object, node),
        other => {
            let why = format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed");
            Err(request.forbidden(object, &why))
        }
    }
}

fn main(context: &Context, request: &Request<'_>, object: Option<&Value>, node: &str) -> Result<(), Refusal> {
    match (request.operation, object) {
        (Operation::Create, Some(pod)) => create(context, request, pod, node),
        (Operation::Delete, _) => {
            let pod = existing(context, request, request.name)?;
            if text(&pod, "/spec/nodeName") == node {
                return Ok(());
            }
            let why = format!("node {node:?} can only delete pods with spec.nodeName set to itself");
            Err(request.forbidden(object, &why))
        }
        _ => {
            let operation = request.operation.as_str();
            let why =
                format!("unexpected operation {operation:?}, node {node:?} can only create and delete mirror pods");
            Err(request.forbidden(object, &why))
        }
    }
}

/// Mirror pods only, of its own, that refer to no other object.
fn create(context: &Context, request: &Request<'_>, pod: &Value, node: &str) -> Result<(), Refusal> {
    let refuse = |why: String| Err(request.forbidden(Some(pod), &why));
    if !pods::is_mirror(pod) {
        let annotation = pods::MIRROR_ANNOTATION;
        return refuse(format!(
            "pod does not have {annotation:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    if text(pod, "/spec/nodeName") != node {
        return refuse(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    owner(context, request, pod, node)?;
    let reference = if !text(pod, "/spec/serviceAccountName").is_empty() {
        "a service account"
    } else if pods::references_secrets(pod) {
        "secrets"
    } else if pods::references_config_maps(pod) {
        "configmaps"
    } else if items(pod, "/spec/volumes").any(|volume| pods::projects(volume, "/clusterTrustBundle")) {
        "clustertrustbundles"
    } else if items(pod, "/spec/volumes").any(|volume| pods::is_set(volume, "/persistentVolumeClaim")) {
        "persistentvolumeclaims"
    } else {
        return Ok(());
    };
    refuse(format!("node {node:?} can not create pods that reference {reference}"))
}

fn owner(context: &Context, request: &Request<'_>, pod: &Value, node: &str) -> Result<(), Refusal> {
    let refuse = |why: String| Err(request.forbidden(Some(pod), &why));
    let mut owners = items(pod, "/metadata/ownerReferences");
    let to_itself = || format!("node {node:?} can only create pods with an owner reference set to itself");
    let (Some(owner), more) = (owners.next(), owners.next()) else { return refuse(to_itself()) };
    if more.is_some() {
        return refuse(format!("node {node:?} can only create pods with a single owner reference set to itself"));
    }
    let names_node = (text(owner, "/apiVersion"), text(owner, "/kind"), text(owner, "/name")) == ("v1", "Node", node);
    if !names_node {
        return refuse(to_itself());
    }
    if owner["controller"].as_bool() != Some(true) {
        return refuse(format!("node {node:?} can only create pods with a controller owner reference set to itself"));
    }
    if owner["blockOwnerDeletion"].as_bool() == Some(true) {
        return refuse(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    let stored = context.lookup.get("", "nodes", "", node).ok_or_else(|| Refusal::not_found("", "nodes", node))?;
    let (wanted, uid) = (text(owner, "/uid"), text(&stored, "/metadata/uid"));
    if wanted != uid {
        return refuse(format!("node {node} UID mismatch: expected {wanted} got {uid}"));
    }
    Ok(())
}

fn status(request: &Request<'_>, object: Option<&Value>, node: &str) -> Result<(), Refusal> {
    let (Operation::Update, Some(old), Some(new)) = (request.operation, request.old, object) else {
        return Err(request.forbidden(object, &format!("unexpected operation {:?}", request.operation.as_str())));
    };
    let why = if text(old, "/spec/nodeName") != node {
        format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself")
    } else if labels(old) != labels(new) {
        format!("node {node:?} cannot update labels through pod status")
    } else if old.pointer("/status/resourceClaimStatuses") != new.pointer("/status/resourceClaimStatuses") {
        format!("node {node:?} cannot update resource claim statues")
    } else if old.pointer("/status/extendedResourceClaimStatus") != new.pointer("/status/extendedResourceClaimStatus") {
        format!("node {node:?} cannot update extended resource claim status")
    } else {
        return Ok(());
    };
    Err(request.forbidden(object, &why))
}

fn labels(pod: &Value) -> Option<&Value> {
    pod.pointer("/metadata/labels").filter(|labels| labels.as_object().is_some_and(|labels| !labels.is_empty()))
}

fn eviction(context: &Context, request: &Request<'_>, object: Option<&Value>, node: &str) -> Result<(), Refusal> {
    if request.operation != Operation::Create {
        return Err(request.forbidden(object, &format!("unexpected operation {}", request.operation.as_str())));
    }
    let named = object.map(|eviction| text(eviction, "/metadata/name")).unwrap_or_default();
    let name = if request.name.is_empty() { named } else { request.name };
    if name.is_empty() {
        return Err(request.forbidden(object, "could not determine pod from request data"));
    }
    if text(&existing(context, request, name)?, "/spec/nodeName") == node {
        return Ok(());
    }
    Err(request.forbidden(object, &format!("node {node} can only evict pods with spec.nodeName set to itself")))
}

fn existing(context: &Context, request: &Request<'_>, name: &str) -> Result<Value, Refusal> {
    let pod = context.lookup.get("", "pods", request.namespace, name);
    pod.ok_or_else(|| Refusal::not_found("", "pods", name))
}

/// A node may have tokens of its pods' ServiceAccounts, bound to those pods, for audiences that those pods mount.
pub fn check_token_request(
    context: &Context,
    request: &Request<'_>,
    object: Option<&Value>,
    node: &str,
) -> Result<(), Refusal> {
    let is_token = request.operation == Operation::Create && request.subresource == "token";
    let Some(token_request) = object.filter(|_| is_token) else { return Ok(()) };
    let refuse = |why: &str| Err(request.forbidden(object, why));
    let bound = |field: &str| text(token_request, &format!("/spec/boundObjectRef/{field}"));
    if (bound("apiVersion"), bound("kind")) != ("v1", "Pod") || bound("name").is_empty() {
        return refuse("node requested token not bound to a pod");
    }
    let uid = bound("uid");
    if uid.is_empty() {
        return refuse("node requested token with a pod binding without a uid");
    }
    let pod = existing(context, request, bound("name"))?;
    if uid != text(&pod, "/metadata/uid") {
        return refuse(&format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        ));
    }
    if text(&pod, "/spec/nodeName") != node {
        return refuse("node requested token bound to a pod scheduled on a different node");
    }
    audience(context, request, token_request, &pod).or_else(|why| refuse(&why))
}

fn audience(context: &Context, request: &Request<'_>, token_request: &Value, pod: &Value) -> Result<(), String> {
    let mut audiences = items(token_request, "/spec/audiences").filter_map(Value::as_str);
    let audience = audiences.next().unwrap_or_default();
    if audiences.next().is_some() {
        return Err("node may only request 0 or 1 audiences".to_owned());
    }
    let mounts_it = items(pod, "/spec/volumes").flat_map(|volume| items(volume, "/projected/sources")).any(|source| {
        pods::is_set(source, "/serviceAccountToken") && text(source, "/serviceAccountToken/audience") == audience
    });
    if mounts_it || may_request(context, request.user, audience, request) {
        return Ok(());
    }
    Err(format!(
        "audience {audience:?} not found in pod spec volume, {} is not authorized to request tokens for this audience",
        request.user.username
    ))
}

/// KEP-4412: an administrator may allow nodes further audiences by RBAC.
fn may_request(context: &Context, user: &UserInfo, audience: &str, request: &Request<'_>) -> bool {
    let attributes = Attributes {
        resource: audience,
        namespace: request.namespace,
        name: request.name,
        ..Attributes::of(user, "request-serviceaccounts-token-audience")
    };
    context.authorizer.authorize(&attributes).allowed()
}
