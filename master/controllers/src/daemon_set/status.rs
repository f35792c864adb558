//! The counts of a DaemonSet's status. Pure.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::DaemonSetStatus;
use k8s_openapi::api::core::v1::Pod;

use super::plan::{Facts, eligible};
use super::{by_node, pod};
use crate::pods;

/// Counts by node: of several pods on one node the oldest stands for it.
pub(super) fn status(facts: &Facts<'_>) -> DaemonSetStatus {
    let tolerations = pod::tolerations(facts.set);
    let by_node = by_node(facts.pods);
    let mut counts = Counts::default();
    for node in facts.nodes {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let mut present: Vec<&Arc<Pod>> = by_node.get(name).cloned().unwrap_or_default();
        present.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        if !eligible(facts.set, &tolerations, node).run {
            counts.misscheduled += i32::from(!present.is_empty());
            continue;
        }
        counts.desired += 1;
        present.sort_by_key(|pod| pod.metadata.creation_timestamp.clone());
        let Some(oldest) = present.first() else { continue };
        counts.scheduled += 1;
        counts.ready += i32::from(pods::is_ready(oldest));
        counts.available += i32::from(pods::available(oldest, facts.min_ready(), facts.now).is_ok());
        counts.updated += i32::from(pod::hash_of_pod(oldest) == facts.hash);
    }
    let before = facts.set.status.as_ref();
    let some = |count: i32| Some(count).filter(|count| *count != 0);
    DaemonSetStatus {
        desired_number_scheduled: counts.desired,
        current_number_scheduled: counts.scheduled,
        number_misscheduled: counts.misscheduled,
        number_ready: counts.ready,
        number_available: some(counts.available),
        number_unavailable: some(counts.desired - counts.available),
        updated_number_scheduled: some(counts.updated),
        observed_generation: facts.set.metadata.generation,
        collision_count: before.and_then(|status| status.collision_count),
        conditions: before.and_then(|status| status.conditions.clone()),
    }
}

#[derive(Default)]
struct Counts {
    desired: i32,
    scheduled: i32,
    misscheduled: i32,
    ready: i32,
    available: i32,
    updated: i32,
}
