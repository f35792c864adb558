//! Which pods of a ReplicaSet are deleted first (the ReplicaSet API documentation, "Scaling down"; KEPs 2185 and 2255).

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::pods;

/// Lower goes first.
pub(crate) const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

struct Ranked {
    pod: Arc<Pod>,
    /// How many related pods share the node.
    neighbours: usize,
}

/// The `count` pods to delete, in order.
pub(crate) fn to_delete(active: &[Arc<Pod>], related: &[Arc<Pod>], count: usize, now: Timestamp) -> Vec<Arc<Pod>> {
    if count >= active.len() {
        return active.to_vec();
    }
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for name in related.iter().filter_map(|pod| pods::node_name(pod)) {
        *on_node.entry(name).or_default() += 1;
    }
    let neighbours = |pod: &Pod| pods::node_name(pod).and_then(|name| on_node.get(name)).copied().unwrap_or(0);
    let mut ranked: Vec<Ranked> =
        active.iter().map(|pod| Ranked { neighbours: neighbours(pod), pod: pod.clone() }).collect();
    ranked.sort_by(|a, b| compare(a, b, now));
    ranked.into_iter().take(count).map(|one| one.pod).collect()
}

fn compare(a: &Ranked, b: &Ranked, now: Timestamp) -> Ordering {
    let plain = |one: &Ranked| {
        let phase = match pods::phase(&one.pod) {
            "Pending" => 0,
            "Unknown" => 1,
            _ => 2,
        };
        (
            pods::node_name(&one.pod).is_some(),
            phase,
            pods::is_ready(&one.pod),
            deletion_cost(&one.pod),
            Reverse(one.neighbours),
        )
    };
    let ready = |one: &Ranked| pods::ready_since(&one.pod).map(|since| magnitude(since, now));
    let created = |one: &Ranked| one.pod.metadata.creation_timestamp.as_ref().map(|time| magnitude(time.0, now));
    plain(a)
        .cmp(&plain(b))
        .then_with(|| ready(a).cmp(&ready(b)))
        .then_with(|| pods::restarts(&b.pod).cmp(&pods::restarts(&a.pod)))
        .then_with(|| created(a).cmp(&created(b)))
        .then_with(|| a.pod.metadata.uid.cmp(&b.pod.metadata.uid))
}

/// Ages are compared by their order of magnitude, so that not always the newest pods of a burst go.
fn magnitude(since: Timestamp, now: Timestamp) -> u32 {
    let nanoseconds = now.as_nanosecond().saturating_sub(since.as_nanosecond()).max(1);
    nanoseconds.ilog2()
}

fn deletion_cost(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(DELETION_COST)).and_then(|cost| cost.parse().ok()).unwrap_or(0)
}
