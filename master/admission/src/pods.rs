//! What several plugins ask of a pod.

use serde_json::Value;

use crate::items;

pub const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

pub fn is_mirror(pod: &Value) -> bool {
    pod.pointer("/metadata/annotations").is_some_and(|annotations| annotations.get(MIRROR_ANNOTATION).is_some())
}

pub fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["/spec/initContainers", "/spec/containers", "/spec/ephemeralContainers"]
        .into_iter()
        .flat_map(|list| items(pod, list))
}

/// Whether the pod names any Secret (`podutil.VisitPodSecretNames`).
pub fn references_secrets(pod: &Value) -> bool {
    const VOLUMES: [&str; 8] = [
        "/secret",
        "/csi/nodePublishSecretRef",
        "/cephfs/secretRef",
        "/rbd/secretRef",
        "/iscsi/secretRef",
        "/flexVolume/secretRef",
        "/cinder/secretRef",
        "/azureFile/secretName",
    ];
    items(pod, "/spec/imagePullSecrets").next().is_some()
        || references(pod, "/secretRef", "/valueFrom/secretKeyRef")
        || items(pod, "/spec/volumes")
            .any(|volume| VOLUMES.iter().any(|source| is_set(volume, source)) || projects(volume, "/secret"))
}

/// Whether the pod names any ConfigMap (`podutil.VisitPodConfigmapNames`).
pub fn references_config_maps(pod: &Value) -> bool {
    references(pod, "/configMapRef", "/valueFrom/configMapKeyRef")
        || items(pod, "/spec/volumes").any(|volume| is_set(volume, "/configMap") || projects(volume, "/configMap"))
}

/// Whether a projected volume has a source of that kind.
pub fn projects(volume: &Value, source: &str) -> bool {
    items(volume, "/projected/sources").any(|projected| is_set(projected, source))
}

pub fn is_set(object: &Value, pointer: &str) -> bool {
    object.pointer(pointer).is_some_and(|value| !value.is_null())
}

fn references(pod: &Value, from: &str, key: &str) -> bool {
    containers(pod).any(|container| {
        items(container, "/envFrom").any(|source| is_set(source, from))
            || items(container, "/env").any(|variable| is_set(variable, key))
    })
}
