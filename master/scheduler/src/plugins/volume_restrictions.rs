//! Claims that one pod at a time may use (ReadWriteOncePod, KEP-2485).

use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use crate::pod::PodInfo;
use crate::view::View;

/// Whether a claim of the pod may be used by one pod only, and another that has a node uses it.
#[must_use]
pub fn has_claim_of_another(pod: &PodInfo, view: View<'_>) -> bool {
    let is_single =
        |name: &&String| view.volumes().claim(&format!("{}/{name}", pod.namespace)).is_some_and(is_for_one_pod);
    let single: Vec<&String> = pod.claims.iter().filter(is_single).collect();
    if single.is_empty() {
        return false;
    }
    let uses = |other: &PodInfo| {
        other.uid != pod.uid
            && other.namespace == pod.namespace
            && other.claims.iter().any(|claim| single.contains(&claim))
    };
    view.nodes().any(|(_, node)| node.pods.values().any(|other| uses(other)))
}

fn is_for_one_pod(claim: &PersistentVolumeClaim) -> bool {
    let modes = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_ref());
    modes.into_iter().flatten().any(|mode| mode == "ReadWriteOncePod")
}
