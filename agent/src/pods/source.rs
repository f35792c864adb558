//! Pods bound to this node, followed at the API server. What is known stays while the server is away.

use std::sync::Arc;

use api::PodUid;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;

use crate::client::watch::{Change, Collection, follow_map};

/// Follows the pods with this `spec.nodeName`.
#[must_use]
pub fn follow(client: kube::Client, node_name: &str) -> mpsc::Receiver<Change<Arc<Pod>>> {
    let collection = Collection::of::<Pod>(None).fields(&format!("spec.nodeName={node_name}"));
    follow_map(client, collection, |pod| Arc::new(trim(pod)))
}

/// Who wrote which field is of no use here, and is the largest part of many objects; the decoder's lists have room for
/// more than they hold. What comes from the API server cannot call itself static.
#[must_use]
pub fn trim(mut pod: Pod) -> Pod {
    pod.metadata.managed_fields = None;
    if let Some(spec) = &mut pod.spec {
        spec.containers.shrink_to_fit();
        spec.init_containers.iter_mut().for_each(Vec::shrink_to_fit);
        spec.volumes.iter_mut().for_each(Vec::shrink_to_fit);
    }
    if let Some(status) = &mut pod.status {
        let lists = [&mut status.container_statuses, &mut status.init_container_statuses];
        lists.into_iter().flatten().for_each(Vec::shrink_to_fit);
        status.conditions.iter_mut().for_each(Vec::shrink_to_fit);
    }
    if api::pod::is_static(&pod) && !api::pod::is_mirror(&pod) {
        pod.metadata.annotations.iter_mut().for_each(|all| drop(all.remove(api::pod::SOURCE_ANNOTATION)));
    }
    pod
}

/// `metadata.uid`.
#[must_use]
pub fn uid(pod: &Pod) -> PodUid {
    PodUid::new(pod.metadata.uid.as_deref().unwrap_or_default())
}
