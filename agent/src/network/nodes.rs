//! Nodes, followed: this node's pod network becomes the conflist, the others' become routes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use netns::{Netlink, Route};
use serde::Deserialize;
use tokio::sync::{Notify, watch};

use super::{Cluster, NetworkInputs, conflist};
use crate::client::watch::{Change, Collection, Trimmed, describe, encode, follow};
use crate::config::Config;

const NODES: &str = "/api/v1/nodes";
/// Links flap and administrators flush: routes are compared with the kernel's this often although no Node changed.
const RESYNC: Duration = Duration::from_secs(300);

/// The part of a Node that matters here.
#[derive(Debug, Clone, Deserialize)]
struct NodeSeen {
    metadata: Meta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    name: String,
    #[serde(default)]
    resource_version: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Option<Vec<String>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Status {
    addresses: Option<Vec<Address>>,
    conditions: Option<Vec<Condition>>,
}

#[derive(Debug, Clone, Deserialize)]
struct Condition {
    status: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Address {
    #[serde(rename = "type")]
    type_: String,
    address: String,
}

impl NodeSeen {
    /// The node lifecycle controller has not heard of the node and says that nothing is known of it.
    fn is_doubted(&self) -> bool {
        self.status.conditions.iter().flatten().any(|condition| condition.status == "Unknown")
    }
}

impl Trimmed for NodeSeen {
    fn resource_version(&self) -> &str {
        &self.metadata.resource_version
    }
}

/// What is kept of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Peer {
    pod_cidrs: Vec<IpNet>,
    internal_ips: Vec<IpAddr>,
}

impl From<NodeSeen> for Peer {
    fn from(node: NodeSeen) -> Self {
        let listed = node.spec.pod_cidrs.filter(|cidrs| !cidrs.is_empty());
        let cidrs = listed.unwrap_or_else(|| node.spec.pod_cidr.into_iter().collect());
        let addresses = node.status.addresses.unwrap_or_default();
        Self {
            pod_cidrs: cidrs.iter().filter_map(|cidr| cidr.parse().ok()).collect(),
            internal_ips: addresses
                .iter()
                .filter(|a| a.type_ == "InternalIP")
                .filter_map(|a| a.address.parse().ok())
                .collect(),
        }
    }
}

pub(super) struct Follower {
    config: Arc<Config>,
    client: kube::Client,
    changed: Arc<Notify>,
    doubted: Arc<Notify>,
    cluster: watch::Sender<Cluster>,
    peers: BTreeMap<String, Peer>,
}

impl Follower {
    pub(super) fn new(inputs: NetworkInputs, cluster: watch::Sender<Cluster>) -> Self {
        let NetworkInputs { config, client, changed, doubted, .. } = inputs;
        Self { config, client, changed, doubted, cluster, peers: BTreeMap::new() }
    }

    pub(super) async fn run(mut self) {
        // A stock cluster lets a node see itself only: that is enough for a pod network, though not for routes.
        let itself = Collection {
            path: NODES.into(),
            query: format!("fieldSelector=metadata.name%3D{}", encode(&self.config.node.node_name)),
        };
        let mut own = follow::<NodeSeen>(self.client.clone(), itself);
        let mut all = follow::<NodeSeen>(self.client.clone(), Collection::all(NODES));
        loop {
            // Cancel-safe: recv() loses nothing when dropped, and a dropped sleep is begun anew.
            let changed = tokio::select! {
                change = own.recv() => match change {
                    Some(change) => self.absorb_own(change),
                    None => return,
                },
                change = all.recv() => match change {
                    Some(change) => self.absorb(change),
                    None => return,
                },
                () = tokio::time::sleep(RESYNC) => !self.peers.is_empty(),
            };
            if changed {
                self.apply().await;
            }
        }
    }

    /// Says whether this node's own network or addresses changed.
    fn absorb_own(&mut self, change: Change<NodeSeen>) -> bool {
        match change {
            Change::Replaced(nodes) => nodes.into_iter().any(|node| self.absorb_own(Change::Applied(node))),
            Change::Applied(node) => {
                if node.is_doubted() {
                    self.doubted.notify_one();
                }
                self.absorb(Change::Applied(node))
            }
            deleted @ Change::Deleted(_) => self.absorb(deleted),
        }
    }

    /// Says whether anything that matters changed: status heartbeats do not.
    fn absorb(&mut self, change: Change<NodeSeen>) -> bool {
        match change {
            Change::Replaced(nodes) => {
                let peers = nodes.into_iter().map(|node| (node.metadata.name.clone(), node.into())).collect();
                let changed = self.peers != peers;
                self.peers = peers;
                changed
            }
            Change::Applied(node) => {
                let name = node.metadata.name.clone();
                let peer = Peer::from(node);
                let changed = self.peers.get(&name) != Some(&peer);
                self.peers.insert(name, peer);
                changed
            }
            Change::Deleted(node) => self.peers.remove(&node.metadata.name).is_some(),
        }
    }

    async fn apply(&self) {
        let own = self.peers.get(&self.config.node.node_name).cloned().unwrap_or_default();
        if !own.pod_cidrs.is_empty() {
            self.write_conflist(&own.pod_cidrs);
        }
        if let Err(error) = self.sync_routes().await {
            tracing::warn!(error = %describe(&error), "routes to other nodes are incomplete");
        }
        let cluster = Cluster {
            pod_cidrs: self.peers.values().flat_map(|peer| peer.pod_cidrs.clone()).collect(),
            own_pod_cidrs: own.pod_cidrs,
            node_ips: self.peers.values().flat_map(|peer| peer.internal_ips.clone()).collect(),
        };
        self.cluster.send_if_modified(|known| {
            let changed = *known != cluster;
            *known = cluster;
            changed
        });
    }

    fn write_conflist(&self, pod_cidrs: &[IpNet]) {
        let settings = &self.config.node;
        let document = conflist::document(pod_cidrs, &settings.data_dir);
        match conflist::write(&settings.cni_conf_dir, &document) {
            Ok(true) => {
                tracing::info!(?pod_cidrs, "pod network configured");
                self.changed.notify_one();
            }
            Ok(false) => {}
            Err(error) => {
                tracing::error!(dir = %settings.cni_conf_dir.display(), %error, "cannot write cni configuration");
            }
        }
    }

    async fn sync_routes(&self) -> Result<(), netns::Error> {
        let routes = routes(&self.peers, &self.config.node.node_name);
        let done = Netlink::open_current()?.sync_routes(&routes).await?;
        if done.replaced + done.deleted > 0 {
            tracing::info!(added = done.replaced, deleted = done.deleted, "routes to other nodes changed");
        }
        Ok(())
    }
}

/// A route for each pod network of each other node, over the node's address of the same family.
fn routes(peers: &BTreeMap<String, Peer>, own: &str) -> Vec<Route> {
    let mut routes = Vec::new();
    for (_, peer) in peers.iter().filter(|(name, _)| *name != own) {
        for cidr in &peer.pod_cidrs {
            let same_family = |ip: &&IpAddr| ip.is_ipv4() == matches!(cidr, IpNet::V4(_));
            if let Some(gateway) = peer.internal_ips.iter().find(same_family) {
                routes.push(Route::via(*cidr, *gateway));
            }
        }
    }
    routes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(json: &str) -> Peer {
        serde_json::from_str::<NodeSeen>(json).unwrap().into()
    }

    #[test]
    fn a_node_of_which_nothing_is_known_is_doubted() {
        let with = |status: &str| {
            let node = format!(
                r#"{{"metadata":{{"name":"n"}},"status":{{"conditions":[{{"type":"Ready","status":"{status}"}}]}}}}"#
            );
            serde_json::from_str::<NodeSeen>(&node).unwrap().is_doubted()
        };
        assert_eq!(["True", "False", "Unknown"].map(with), [false, false, true]);
    }

    #[test]
    fn routes_lead_to_the_others_by_family() {
        let other = r#"{"metadata":{"name":"n2"},"spec":{"podCIDR":"10.1.2.0/24","podCIDRs":["10.1.2.0/24","fd00:2::/64"]},
            "status":{"addresses":[{"type":"Hostname","address":"n2"},{"type":"InternalIP","address":"192.168.0.2"},
            {"type":"InternalIP","address":"fd01::2"}]}}"#;
        let own = r#"{"metadata":{"name":"n1"},"spec":{"podCIDR":"10.1.1.0/24"}}"#;
        let bare = r#"{"metadata":{"name":"n3"}}"#;
        let peers = [("n1", own), ("n2", other), ("n3", bare)]
            .into_iter()
            .map(|(name, json)| (name.to_owned(), peer(json)))
            .collect();
        let expected = [
            Route::via("10.1.2.0/24".parse().unwrap(), "192.168.0.2".parse().unwrap()),
            Route::via("fd00:2::/64".parse().unwrap(), "fd01::2".parse().unwrap()),
        ];
        assert_eq!(routes(&peers, "n1"), expected);
    }
}
