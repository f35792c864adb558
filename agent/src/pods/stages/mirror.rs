//! The API object that shows a static pod (pkg/kubelet/pod/mirror_client.go).

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::api::PostParams;

use super::teardown::delete_now;
use super::{Job, Outcome, StageError};
use crate::client::watch::describe;

/// Creates it.
///
/// # Errors
/// What the server said.
pub async fn create(job: &Job, node_uid: &str) -> Result<Outcome, StageError> {
    let pod = job.pod()?;
    let client = job.context.client.clone();
    let api: Api<Pod> = Api::namespaced(client, pod.metadata.namespace.as_deref().unwrap_or_default());
    let mirror = mirror(pod, &job.context.config.node_name, node_uid);
    match api.create(&PostParams::default(), &mirror).await {
        Ok(created) => Ok(Outcome::Mirror(Some(Arc::new(created)))),
        Err(error) => Err(StageError::new("FailedCreateMirror", describe(&error))),
    }
}

/// Deletes what is in its place; the next plan makes it anew.
///
/// # Errors
/// What the server said.
pub async fn delete(job: &Job, uid: &str) -> Result<Outcome, StageError> {
    let meta = &job.pod()?.metadata;
    let (namespace, name) = (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
    let deleted = delete_now(&job.context.client, namespace, name, Some(uid)).await;
    deleted.map_err(|error| StageError::new("FailedDeleteMirror", describe(&error)))?;
    Ok(Outcome::Mirror(None))
}

/// As the static pod, but owned by the node, and marked.
fn mirror(pod: &Pod, node_name: &str, node_uid: &str) -> Pod {
    let mut mirror = Pod { status: None, ..pod.clone() };
    let meta = &mut mirror.metadata;
    meta.uid = None;
    let annotations = meta.annotations.get_or_insert_default();
    let hash = annotations.get(api::pod::HASH_ANNOTATION).cloned().unwrap_or_default();
    annotations.insert(api::pod::MIRROR_ANNOTATION.to_owned(), hash);
    meta.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node_name.to_owned(),
        uid: node_uid.to_owned(),
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    mirror
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_is_marked_and_owned() {
        let pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "uid": "u", "annotations": {"kubernetes.io/config.hash": "h", "a": "b"}},
            "spec": {"containers": []}, "status": {"phase": "Pending"}
        }))
        .unwrap();
        let mirror = serde_json::to_value(mirror(&pod, "n", "nu")).unwrap();
        let expected = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "p",
                "annotations": {"kubernetes.io/config.hash": "h", "kubernetes.io/config.mirror": "h", "a": "b"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "nu", "controller": true}]
            },
            "spec": {"containers": []}
        });
        assert_eq!(mirror, expected);
    }
}
