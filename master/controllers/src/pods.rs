//! What controllers ask about pods.

use api::pod::is_terminal;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// spec.nodeName unless empty.
#[must_use]
pub fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

/// status.phase
#[must_use]
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// Whether the pod counts as one of its owner's: neither ended nor being deleted.
#[must_use]
pub fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// One of the pod's conditions.
#[must_use]
pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

/// Since when the pod is ready, if it is.
#[must_use]
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|condition| condition.status == "True")?;
    Some(ready.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0))
}

/// Whether the pod is ready.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    ready_since(pod).is_some()
}

/// Whether the pod has been ready for `min_ready_seconds`; `Err` has the seconds that are missing.
///
/// # Errors
/// `Some` seconds until it will be available, `None` when it is not ready.
pub fn available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Result<(), Option<i64>> {
    let since = ready_since(pod).ok_or(None)?;
    let missing = i64::from(min_ready_seconds) - (now.as_second() - since.as_second());
    if min_ready_seconds == 0 || missing <= 0 { Ok(()) } else { Err(Some(missing)) }
}

/// Restarts of all containers but those that initialize the pod.
#[must_use]
pub fn restarts(pod: &Pod) -> i32 {
    sum_of_restarts(pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()))
}

/// Restarts of the containers that initialize the pod.
#[must_use]
pub fn init_restarts(pod: &Pod) -> i32 {
    sum_of_restarts(pod.status.as_ref().and_then(|status| status.init_container_statuses.as_deref()))
}

fn sum_of_restarts(statuses: Option<&[ContainerStatus]>) -> i32 {
    statuses.into_iter().flatten().map(|status| status.restart_count).sum()
}

/// A new pod from a template, with a generated name.
#[must_use]
pub fn from_template(template: &PodTemplateSpec, namespace: &str, name: &str, owner: OwnerReference) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            namespace: Some(namespace.to_owned()),
            generate_name: Some(format!("{name}-")),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}
