//! ServiceAccount: every pod runs as one that exists, and finds its token where clients look for it.

use serde_json::{Value, json};

use crate::{Context, Operation, Plugin, Refusal, Request, items, pods, text};

const DEFAULT_ACCOUNT: &str = "default";
const VOLUME_PREFIX: &str = "kube-api-access-";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// An hour and a little: the little marks it as asked for by this plugin, so that the issuer may extend it.
const TOKEN_LIFETIME_SECONDS: i64 = 3607;
const PROJECTED_MODE: i64 = 0o644;

pub struct ServiceAccount;

impl Plugin for ServiceAccount {
    fn admit(&self, context: &Context, request: &Request<'_>, pod: &mut Value) -> Result<(), Refusal> {
        if !is_pod_create(request) {
            return Ok(());
        }
        if pods::is_mirror(pod) {
            return self.validate(context, request, Some(pod));
        }
        if text(pod, "/spec/serviceAccountName").is_empty() {
            pod["spec"]["serviceAccountName"] = json!(DEFAULT_ACCOUNT);
        }
        // The deprecated name says the same.
        pod["spec"]["serviceAccount"] = pod["spec"]["serviceAccountName"].clone();
        let account = account_of(context, request, pod)?;
        if automount(pod, &account) {
            mount_token(pod);
        }
        let secrets: Vec<Value> = items(&account, "/imagePullSecrets").cloned().collect();
        if items(pod, "/spec/imagePullSecrets").next().is_none() && !secrets.is_empty() {
            pod["spec"]["imagePullSecrets"] = secrets.into();
        }
        Ok(())
    }

    fn validate(&self, context: &Context, request: &Request<'_>, object: Option<&Value>) -> Result<(), Refusal> {
        let Some(pod) = object.filter(|_| is_pod_create(request)) else { return Ok(()) };
        if !pods::is_mirror(pod) {
            return account_of(context, request, pod).map(drop);
        }
        let why = if !text(pod, "/spec/serviceAccountName").is_empty() {
            "a mirror pod may not reference service accounts"
        } else if pods::references_secrets(pod) {
            "a mirror pod may not reference secrets"
        } else if items(pod, "/spec/volumes").any(|volume| pods::projects(volume, "/serviceAccountToken")) {
            "a mirror pod may not use ServiceAccountToken volume projections"
        } else {
            return Ok(());
        };
        Err(request.forbidden(Some(pod), why))
    }
}

/// See [`crate::Chain::is_too_early`].
pub fn is_too_early(context: &Context, request: &Request<'_>, pod: &Value) -> bool {
    is_pod_create(request)
        && !pods::is_mirror(pod)
        && matches!(text(pod, "/spec/serviceAccountName"), "" | DEFAULT_ACCOUNT)
        && context.lookup.get("", "namespaces", "", request.namespace).is_some()
        && context.lookup.get("", "serviceaccounts", request.namespace, DEFAULT_ACCOUNT).is_none()
}

fn is_pod_create(request: &Request<'_>) -> bool {
    request.is("", "pods", "") && request.operation == Operation::Create
}

fn account_of(context: &Context, request: &Request<'_>, pod: &Value) -> Result<Value, Refusal> {
    let (namespace, name) = (request.namespace, text(pod, "/spec/serviceAccountName"));
    context.lookup.get("", "serviceaccounts", namespace, name).ok_or_else(|| {
        let why = format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
        request.forbidden(Some(pod), &why)
    })
}

/// The pod's wish goes before the account's; without either the token is mounted.
fn automount(pod: &Value, account: &Value) -> bool {
    let wish = |object: &Value, pointer: &str| object.pointer(pointer).and_then(Value::as_bool);
    wish(pod, "/spec/automountServiceAccountToken")
        .or_else(|| wish(account, "/automountServiceAccountToken"))
        .unwrap_or(true)
}

fn mount_token(pod: &mut Value) {
    let existing = items(pod, "/spec/volumes").map(|volume| text(volume, "/name"));
    let existing = existing.into_iter().find(|name| name.starts_with(VOLUME_PREFIX)).map(str::to_owned);
    let volume = existing.clone().unwrap_or_else(|| format!("{VOLUME_PREFIX}{}", crate::random_suffix()));
    let mut is_mounted = false;
    for containers in ["initContainers", "containers"] {
        for container in pod["spec"][containers].as_array_mut().into_iter().flatten() {
            is_mounted |= mount(container, &volume);
        }
    }
    if is_mounted && existing.is_none() {
        push(&mut pod["spec"]["volumes"], token_volume(&volume));
    }
}

/// Mounts the volume unless the container has something at that path already.
fn mount(container: &mut Value, volume: &str) -> bool {
    if items(container, "/volumeMounts").any(|mount| text(mount, "/mountPath") == MOUNT_PATH) {
        return false;
    }
    push(&mut container["volumeMounts"], json!({ "name": volume, "readOnly": true, "mountPath": MOUNT_PATH }));
    true
}

fn token_volume(name: &str) -> Value {
    json!({
        "name": name,
        "projected": {
            "defaultMode": PROJECTED_MODE,
            "sources": [
                { "serviceAccountToken": { "expirationSeconds": TOKEN_LIFETIME_SECONDS, "path": "token" } },
                { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
                { "downwardAPI": { "items": [{
                    "path": "namespace",
                    "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" },
                }] } },
            ],
        },
    })
}

fn push(list: &mut Value, item: Value) {
    match list.as_array_mut() {
        Some(list) => list.push(item),
        None => *list = json!([item]),
    }
}

#[cfg(test)]
mod tests;
