//! Node IPAM: each node gets a range of pod addresses (spec.podCIDR) out of the cluster's.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use machinery::{Change, EventType, Informer, Outcome, Recorder, Retry, WorkQueue, reference};
use serde_json::json;

use crate::context::{Caches, Context};

const NAME: &str = "node-controller";
/// One at a time: two nodes must not get the same range.
const WORKERS: usize = 1;

struct Controller {
    client: Client,
    caches: Caches,
    recorder: Recorder,
    cluster: IpNet,
    services: Option<IpNet>,
    /// Ranges given to nodes whose cached copy may not show it yet.
    given: Arc<Mutex<HashMap<String, IpNet>>>,
}

pub(crate) fn start(context: &mut Context) {
    let Some(cluster) = context.config.cluster_cidr else { return };
    let queue = WorkQueue::new();
    let caches = context.caches.clone();
    let recorder = context.recorder(NAME, "cidrAllocator");
    let given = Arc::<Mutex<HashMap<String, IpNet>>>::default();
    let controller = Controller {
        client: context.client(NAME),
        caches: caches.clone(),
        recorder,
        cluster,
        services: context.config.service_cidr,
        given: given.clone(),
    };
    observe(&caches.nodes, &queue, given);
    context.spawn_workers(NAME, queue, WORKERS, controller, |it, key| async move { it.reconcile(&key).await });
}

fn observe(nodes: &Arc<Informer<Node>>, queue: &Arc<WorkQueue>, given: Arc<Mutex<HashMap<String, IpNet>>>) {
    let (to, all) = (queue.clone(), nodes.clone());
    nodes.on_change(move |change| {
        let name = change.object().metadata.name.as_deref().unwrap_or_default();
        if matches!(change, Change::Deleted(_)) {
            given.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
            // A range is free now: others may wait for one.
            let waiting = all.all().into_iter().filter(|node| cidr_of(node).is_none());
            waiting.for_each(|node| to.add(node.metadata.name.as_deref().unwrap_or_default()));
        } else if cidr_of(change.object()).is_none() {
            to.add(name);
        }
    });
}

fn cidr_of(node: &Node) -> Option<IpNet> {
    node.spec.as_ref()?.pod_cidr.as_ref()?.parse().ok()
}

/// The first free range for a node: /24 of an IPv4 cluster, /64 of an IPv6 one (or all of it, when it is smaller).
pub(crate) fn first_free(cluster: IpNet, services: Option<IpNet>, used: &[IpNet]) -> Option<IpNet> {
    let length = match cluster {
        IpNet::V4(_) => 24.max(cluster.prefix_len()),
        IpNet::V6(_) => 64.max(cluster.prefix_len()),
    };
    let overlaps = |a: &IpNet, b: &IpNet| a.contains(b) || b.contains(a);
    let mut taken: Vec<IpNet> = used.iter().copied().chain(services).filter(|one| overlaps(&cluster, one)).collect();
    taken.sort();
    // Subnets come in order, as the taken ones do: each step skips at least one of them, so this is bounded.
    let mut candidate = IpNet::new(cluster.network(), length).ok()?;
    loop {
        let Some(blocker) = taken.iter().rev().find(|one| overlaps(&candidate, one)) else { return Some(candidate) };
        let last = candidate.broadcast().max(blocker.broadcast());
        candidate = IpNet::new(next_address(last)?, length).ok()?.trunc();
        if !cluster.contains(&candidate) {
            return None;
        }
    }
}

fn next_address(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => u32::from(address).checked_add(1).map(|next| IpAddr::V4(next.into())),
        IpAddr::V6(address) => u128::from(address).checked_add(1).map(|next| IpAddr::V6(next.into())),
    }
}

impl Controller {
    async fn reconcile(&self, name: &str) -> Result<Outcome, Retry<kube::Error>> {
        let Some(node) = self.caches.nodes.get(name).filter(|node| cidr_of(node).is_none()) else {
            return Ok(Outcome::Done);
        };
        let Some(cidr) = self.choose(name) else {
            let message = format!("Node {name} status is now: CIDRNotAvailable");
            self.recorder.event(reference(&*node), EventType::Normal, "CIDRNotAvailable", message);
            tracing::warn!(node = name, cluster = %self.cluster, "no pod address range is free");
            // Looked at again when a node is gone; until then with the back-off.
            return Err(Retry::Stale);
        };
        let patch = json!({
            "metadata": {"resourceVersion": node.metadata.resource_version},
            "spec": {"podCIDR": cidr.to_string(), "podCIDRs": [cidr.to_string()]},
        });
        let api = Api::<Node>::all(self.client.clone());
        match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => Ok(Outcome::Done),
            Err(error) if machinery::is_not_found(&error) => {
                self.given.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
                Ok(Outcome::Done)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn choose(&self, name: &str) -> Option<IpNet> {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cidr) = given.get(name) {
            return Some(*cidr);
        }
        let nodes = self.caches.nodes.all();
        let used: Vec<IpNet> = nodes.iter().filter_map(|node| cidr_of(node)).chain(given.values().copied()).collect();
        let cidr = first_free(self.cluster, self.services, &used)?;
        given.insert(name.to_owned(), cidr);
        Some(cidr)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_are_given_in_order_and_end() {
        let cluster = net("10.244.0.0/22");
        assert_eq!(first_free(cluster, None, &[]), Some(net("10.244.0.0/24")));
        assert_eq!(
            first_free(cluster, None, &[net("10.244.0.0/24"), net("10.244.2.0/24")]),
            Some(net("10.244.1.0/24"))
        );
        assert_eq!(first_free(cluster, Some(net("10.244.0.0/23")), &[]), Some(net("10.244.2.0/24")));
        assert_eq!(first_free(cluster, Some(net("10.244.0.0/16")), &[]), None);
        assert_eq!(first_free(net("fd00::/48"), None, &[net("fd00::/64")]), Some(net("fd00:0:0:1::/64")));
    }

    #[tokio::test]
    async fn a_node_that_waits_has_its_turn_when_another_goes() {
        let (caches, queue) = (Caches::default(), WorkQueue::new());
        observe(&caches.nodes, &queue, Arc::default());
        let node = |name: &str, cidr: Option<&str>| -> Node {
            serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"podCIDR": cidr}})).unwrap()
        };
        caches.nodes.apply(node("has", Some("10.0.0.0/24")));
        caches.nodes.apply(node("waits", None));
        for _ in 0..2 {
            let next = tokio::time::timeout(std::time::Duration::from_secs(10), queue.next()).await.unwrap();
            assert_eq!(next, "waits");
            queue.done(&next);
            caches.nodes.delete("has");
        }
    }

    proptest! {
        #[test]
        fn what_is_given_is_free_inside_and_nothing_is_wasted(given in proptest::collection::btree_set(0u8..16, 0..16)) {
            let cluster = net("10.0.0.0/20");
            let used: Vec<IpNet> = given.iter().map(|third| net(&format!("10.0.{third}.0/24"))).collect();
            let free = (0u8..16).find(|third| !given.contains(third)).map(|third| net(&format!("10.0.{third}.0/24")));
            prop_assert_eq!(first_free(cluster, None, &used), free);
        }
    }
}
