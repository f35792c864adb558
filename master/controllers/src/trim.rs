//! What is left out of the shared caches, and by what objects can be found in them.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateTerminated, ContainerStatus, EphemeralVolumeSource, Node, NodeSystemInfo,
    Pod, PodSpec, Secret, ServiceAccount, Volume,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Resource;
use machinery::{Informer, trim_metadata};

use crate::owner::controller_of;
use crate::replica_set::rank::DELETION_COST;

/// Schemas are most of a definition, and no controller reads them.
pub(crate) fn definition(definition: &mut CustomResourceDefinition) {
    trim_metadata(&mut definition.metadata);
    definition.spec.versions.iter_mut().for_each(|version| version.schema = None);
}

/// Of pods only the annotations that controllers set and rank by, ports, placement and a summary of the status are kept.
pub(crate) fn pod(pod: &mut Pod) {
    trim_metadata(&mut pod.metadata);
    if let Some(annotations) = &mut pod.metadata.annotations {
        annotations.retain(|key, _| crate::job::ANNOTATIONS.contains(&key.as_str()) || key == DELETION_COST);
    }
    if let Some(spec) = &mut pod.spec {
        *spec = PodSpec {
            containers: std::mem::take(&mut spec.containers).into_iter().map(container).collect(),
            init_containers: spec
                .init_containers
                .take()
                .map(|all| all.into_iter().filter(|one| one.restart_policy.is_some()).map(container).collect()),
            node_name: spec.node_name.take(),
            affinity: spec.affinity.take().filter(|_| spec.node_name.is_none()),
            tolerations: spec.tolerations.take(),
            hostname: spec.hostname.take(),
            subdomain: spec.subdomain.take(),
            host_network: spec.host_network,
            restart_policy: spec.restart_policy.take(),
            volumes: spec.volumes.take().map(claims),
            ..PodSpec::default()
        };
    }
    if let Some(status) = &mut pod.status {
        status.ephemeral_container_statuses = None;
        // How and when the containers of a pod ended decides about its Job, and how often those restarted that initialize it.
        let ended = matches!(status.phase.as_deref(), Some("Failed" | "Succeeded"));
        if let Some(statuses) = &mut status.init_container_statuses {
            statuses.retain(|one| ended || one.restart_count > 0);
        }
        let all = status.container_statuses.iter_mut().chain(&mut status.init_container_statuses);
        for one in all.flatten() {
            *one = ContainerStatus {
                name: std::mem::take(&mut one.name),
                ready: one.ready,
                restart_count: one.restart_count,
                state: one.state.take().filter(|_| ended).map(end),
                ..ContainerStatus::default()
            };
        }
    }
}

/// Of a container's end only its code and its time.
fn end(state: ContainerState) -> ContainerState {
    let terminated = state.terminated.map(|ended| ContainerStateTerminated {
        exit_code: ended.exit_code,
        finished_at: ended.finished_at,
        ..ContainerStateTerminated::default()
    });
    ContainerState { terminated, ..ContainerState::default() }
}

/// Of volumes only which claims they are.
fn claims(mut volumes: Vec<Volume>) -> Vec<Volume> {
    volumes.retain(|volume| volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some());
    for volume in &mut volumes {
        volume.ephemeral = volume.ephemeral.take().map(|_| EphemeralVolumeSource::default());
    }
    volumes
}

fn container(container: Container) -> Container {
    Container {
        name: container.name,
        ports: container.ports,
        restart_policy: container.restart_policy,
        ..Container::default()
    }
}

/// `node/NAME`, `owner/UID` or `orphan/NAMESPACE`, and `claim/NAMESPACE/NAME` of each claim.
pub(crate) fn pod_groups(pod: &Pod) -> Vec<String> {
    let mut groups = owner_groups(pod);
    if let Some(node) = crate::pods::node_name(pod) {
        groups.push(node_group(node));
    }
    groups.extend(crate::volume_protection::claim_groups(pod));
    groups
}

fn node_group(node: &str) -> String {
    format!("node/{node}")
}

/// The pods of a node.
pub(crate) fn pods_on(pods: &Informer<Pod>, node: &str) -> Vec<Arc<Pod>> {
    pods.indexed(&node_group(node))
}

/// `owner/UID` of the controller, or `orphan/NAMESPACE`.
pub(crate) fn owner_groups<K: Resource>(object: &K) -> Vec<String> {
    let meta = object.meta();
    vec![match controller_of(meta) {
        Some(owner) => format!("owner/{}", owner.uid),
        None => format!("orphan/{}", meta.namespace.as_deref().unwrap_or_default()),
    }]
}

/// `NAMESPACE/SERVICE`
pub(crate) fn slice_groups(slice: &EndpointSlice) -> Vec<String> {
    let labels = slice.metadata.labels.as_ref();
    let service = labels.and_then(|labels| labels.get(crate::endpoint_slice::SERVICE_NAME));
    let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
    service.map(|service| format!("{namespace}/{service}")).into_iter().collect()
}

pub(crate) fn node(node: &mut Node) {
    trim_metadata(&mut node.metadata);
    if let Some(status) = &mut node.status {
        status.images = None;
        status.volumes_in_use = None;
        status.volumes_attached = None;
        status.config = None;
        // Only which boot of which machine it is.
        status.node_info =
            status.node_info.take().map(|info| NodeSystemInfo { boot_id: info.boot_id, ..NodeSystemInfo::default() });
    }
}

pub(crate) fn service_account(account: &mut ServiceAccount) {
    trim_metadata(&mut account.metadata);
    account.secrets = None;
    account.image_pull_secrets = None;
}

/// Only when the token expires: its secret is not kept in memory.
pub(crate) fn bootstrap_token(secret: &mut Secret) {
    trim_metadata(&mut secret.metadata);
    if let Some(data) = &mut secret.data {
        data.retain(|key, _| key == crate::token_cleaner::EXPIRATION);
    }
}

/// What a Secret with a token holds, but for the token itself: only that there is one.
pub(crate) fn account_token(secret: &mut Secret) {
    trim_metadata(&mut secret.metadata);
    if let Some(token) = secret.data.as_mut().and_then(|data| data.get_mut(crate::secret_token::TOKEN)) {
        token.0.truncate(1);
    }
}
