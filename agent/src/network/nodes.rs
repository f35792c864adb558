//! Nodes, followed: this node's pod network becomes the conflist, the others' become routes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use netns::{Netlink, Route};
use serde::Deserialize;
use systemd::DropIns;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::{Cluster, Folders, NetworkInputs, conflist, forwarding, plugins};
use crate::client::backoff::{Retry, until};
use crate::client::watch::{Change, Collection, describe, follow};
use crate::config::Config;
use crate::node::own::{self, Address, OwnNode, Place, PodNetworks};

const NODES: &str = "/api/v1/nodes";
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// Links flap and administrators flush: routes are compared with the kernel's this often although no Node changed.
const RESYNC: Duration = Duration::from_secs(300);
/// Pauses after the kernel refused routes: from the first to the last of them.
const RETRY: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(30)];
/// For how long the proxy waits for the list of all Nodes. A stock cluster never gives it.
const PATIENCE: Duration = Duration::from_secs(10);

/// The part of a Node that matters here.
#[derive(Debug, Clone, Deserialize)]
struct NodeSeen {
    metadata: Meta,
    #[serde(default)]
    spec: PodNetworks,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Clone, Deserialize)]
struct Meta {
    name: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Status {
    addresses: Option<Vec<Address>>,
}

impl NodeSeen {
    fn place(self) -> (String, Place) {
        (self.metadata.name, Place::new(self.spec, self.status.addresses))
    }
}

/// What this node's own Node says of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Here {
    place: Place,
    zone: Option<String>,
}

impl From<&OwnNode> for Here {
    fn from(own: &OwnNode) -> Self {
        Self { place: own.place.clone(), zone: own.labels.get(ZONE_LABEL).cloned() }
    }
}

/// What is known of the other nodes. Until they were listed the kernel keeps what the agent before this one gave it: without that a restart
/// would cut the pods' connections to other nodes.
#[derive(Debug, PartialEq, Eq)]
enum Peers {
    /// Nothing yet: until when they are waited for, once the own Node is known.
    Awaited(Option<Instant>),
    /// Nothing, and Services wait no longer.
    Unlisted,
    Listed(BTreeMap<String, Place>),
}

impl Peers {
    fn listed(&self) -> Option<&BTreeMap<String, Place>> {
        if let Self::Listed(peers) = self { Some(peers) } else { None }
    }

    /// When waiting ends.
    fn due(&self) -> Option<Instant> {
        if let Self::Awaited(until) = self { *until } else { None }
    }
}

pub(super) struct Follower {
    config: Arc<Config>,
    client: kube::Client,
    changed: Arc<Notify>,
    own: own::Receiver,
    folders: watch::Receiver<Option<Folders>>,
    /// Where the plugins were put.
    installed: Option<Folders>,
    cluster: watch::Sender<Option<Cluster>>,
    peers: Peers,
}

impl Follower {
    pub(super) fn new(inputs: NetworkInputs, cluster: watch::Sender<Option<Cluster>>) -> Self {
        let NetworkInputs { config, client, changed, own, folders, .. } = inputs;
        Self { config, client, changed, own, folders, installed: None, cluster, peers: Peers::Awaited(None) }
    }

    pub(super) async fn run(mut self) {
        let mut applied = None;
        self.own.mark_changed();
        self.folders.mark_changed();
        // A stock cluster lets a node see itself only: that is enough for a pod network, though not for routes.
        let mut all = follow::<NodeSeen>(self.client.clone(), Collection::all(NODES));
        let mut resync = resync();
        let [first, last] = RETRY;
        let mut retry = Retry::new(first, last);
        loop {
            // Cancel-safe: recv() and changed() lose nothing when dropped; tick() and the sleep go by times that a turn does not move.
            let changed = tokio::select! {
                changed = self.own.changed() => match changed {
                    Ok(()) => self.here() != applied,
                    Err(_) => return,
                },
                Ok(()) = self.folders.changed() => true,
                change = all.recv() => match change {
                    Some(change) => self.absorb(change),
                    None => return,
                },
                _ = resync.tick() => self.peers.listed().is_some_and(|peers| !peers.is_empty()),
                () = until(self.peers.due()) => {
                    self.peers = Peers::Unlisted;
                    true
                }
                () = until(retry.at()) => true,
            };
            if changed {
                applied = self.here();
                if applied.is_some() && self.peers == Peers::Awaited(None) {
                    self.peers = Peers::Awaited(Some(Instant::now() + PATIENCE));
                }
                match self.apply(applied.as_ref()).await {
                    Ok(()) => retry.worked(),
                    Err(error) => {
                        if retry.at().is_none() {
                            tracing::warn!(error = %describe(&error), "routes to other nodes are incomplete, will retry");
                        }
                        retry.failed();
                    }
                }
            }
        }
    }

    /// `None` until the API server was asked.
    fn here(&self) -> Option<Here> {
        self.own.borrow().as_deref().map(Here::from)
    }

    /// Says whether anything that matters changed: status heartbeats do not.
    fn absorb(&mut self, change: Change<NodeSeen>) -> bool {
        let own = &self.config.node.node_name;
        match (change, &mut self.peers) {
            (Change::Replaced(nodes), known) => {
                let mut peers: BTreeMap<_, _> = nodes.into_iter().map(NodeSeen::place).collect();
                peers.remove(own);
                let peers = Peers::Listed(peers);
                let changed = *known != peers;
                *known = peers;
                changed
            }
            (Change::Applied(node), Peers::Listed(peers)) => {
                let (name, place) = node.place();
                name != *own && peers.insert(name, place.clone()).as_ref() != Some(&place)
            }
            (Change::Deleted(node), Peers::Listed(peers)) => peers.remove(&node.metadata.name).is_some(),
            // Nothing comes before the list.
            _ => false,
        }
    }

    /// Fails when the kernel does not have all routes; the rest is done.
    async fn apply(&mut self, here: Option<&Here>) -> Result<(), netns::Error> {
        self.install();
        if let Some(here) = here {
            if !here.place.pod_cidrs.is_empty() {
                // Before there can be pods, whose plugins turn the same switches.
                self.prepare(&here.place.pod_cidrs);
                self.write_conflist(&here.place.pod_cidrs);
            }
            self.tell(here);
        }
        self.sync_routes().await
    }

    /// Tells the proxy, unless it is to wait: it would take pods of other nodes for outsiders, and masquerade connections to them.
    fn tell(&self, here: &Here) {
        if matches!(self.peers, Peers::Awaited(_)) {
            return;
        }
        let all = || self.peers.listed().into_iter().flat_map(BTreeMap::values).chain([&here.place]);
        let cluster = Cluster {
            pod_cidrs: all().flat_map(|place| place.pod_cidrs.clone()).collect(),
            own_pod_cidrs: here.place.pod_cidrs.clone(),
            node_ips: all().flat_map(|place| place.internal_ips.clone()).collect(),
            zone: here.zone.clone(),
        };
        self.cluster.send_if_modified(|known| {
            let changed = known.as_ref() != Some(&cluster);
            *known = Some(cluster);
            changed
        });
    }

    /// Has the machine forward for pods of these networks.
    fn prepare(&self, pod_cidrs: &[IpNet]) {
        forwarding::suit(&self.config.layout.data_dir, &DropIns::default(), pod_cidrs);
    }

    /// Puts the plugins where the runtime looks for them now.
    fn install(&mut self) {
        let folders = self.folders.borrow_and_update().clone();
        let Some(folders) = folders.filter(|folders| self.installed.as_ref() != Some(folders)) else { return };
        // First: what is written down is found by who leaves.
        folders.note(&self.config);
        match plugins::install(&folders.bin) {
            Ok(installed) => {
                tracing::debug!(installed, dir = %folders.bin.display(), "cni plugins");
                self.installed = Some(folders);
            }
            Err(error) => {
                tracing::warn!(error = %describe(&error), "cni plugins not installed, those that are there are used");
            }
        }
    }

    fn write_conflist(&self, pod_cidrs: &[IpNet]) {
        let Some(Folders { conf, .. }) = self.folders.borrow().clone() else { return };
        let document = conflist::document(pod_cidrs, &self.config.node.data_dir);
        match conflist::write(&conf, &document) {
            Ok(true) => {
                tracing::info!(?pod_cidrs, "pod network configured");
                self.changed.notify_one();
            }
            Ok(false) => {}
            Err(error) => {
                tracing::error!(dir = %conf.display(), %error, "cannot write cni configuration");
            }
        }
    }

    async fn sync_routes(&self) -> Result<(), netns::Error> {
        let Some(routes) = self.routes() else { return Ok(()) };
        let done = Netlink::open_current()?.sync_routes(&routes).await?;
        if done.replaced + done.deleted > 0 {
            tracing::info!(added = done.replaced, deleted = done.deleted, "routes to other nodes changed");
        }
        Ok(())
    }

    /// `None` until it is known which there are.
    fn routes(&self) -> Option<Vec<Route>> {
        self.peers.listed().map(|peers| routes(peers.values()))
    }
}

/// When routes are compared with the kernel's although nothing changed. Heartbeats of Nodes, which come all the time, do not put it off.
fn resync() -> Interval {
    let mut resync = tokio::time::interval_at(Instant::now() + RESYNC, RESYNC);
    resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
    resync
}

/// A route for each pod network of each other node, over the node's address of the same family.
fn routes<'a>(peers: impl Iterator<Item = &'a Place>) -> Vec<Route> {
    let mut routes = Vec::new();
    for peer in peers {
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

    #[tokio::test(start_paused = true)]
    async fn heartbeats_do_not_put_the_repair_of_routes_off() {
        let begun = Instant::now();
        let mut resync = resync();
        let mut heartbeats = tokio::time::interval(Duration::from_secs(10));
        let mut turns = 0;
        loop {
            tokio::select! {
                _ = heartbeats.tick() => turns += 1,
                _ = resync.tick() => break,
            }
        }
        assert_eq!(begun.elapsed(), RESYNC);
        assert!(turns >= 30, "{turns}");
    }

    /// A follower whose own Node is known, and what it tells the proxy.
    fn follower() -> (Follower, watch::Receiver<Option<Cluster>>) {
        let place = seen(r#"{"metadata":{"name":"n1"},"spec":{"podCIDR":"10.1.1.0/24"}}"#).place().1;
        let (_, own) = watch::channel(Some(Arc::new(OwnNode { place, ..OwnNode::default() })));
        let (cluster, told) = watch::channel(None);
        let client = crate::client::testing::answered(|_| None);
        let (config, changed) = (Arc::new(crate::config::tests::minimal()), Arc::default());
        let (folders, peers) = (watch::channel(None).1, Peers::Awaited(None));
        (Follower { config, client, changed, own, folders, installed: None, cluster, peers }, told)
    }

    fn seen(json: &str) -> NodeSeen {
        serde_json::from_str(json).unwrap()
    }

    #[tokio::test]
    async fn the_kernel_keeps_what_it_has_until_the_nodes_are_listed() {
        let (mut follower, told) = follower();
        let here = follower.here().unwrap();
        follower.tell(&here);
        assert_eq!((follower.routes(), told.borrow().is_some()), (None, false));

        let other = r#"{"metadata":{"name":"n2"},"spec":{"podCIDR":"10.1.2.0/24"},
            "status":{"addresses":[{"type":"InternalIP","address":"192.168.0.2"}]}}"#;
        assert!(follower.absorb(Change::Replaced(vec![seen(other)])));
        follower.tell(&here);
        assert_eq!(follower.routes().unwrap().len(), 1);
        assert_eq!(told.borrow().as_ref().unwrap().pod_cidrs.len(), 2);
        assert!(follower.absorb(Change::Deleted(seen(other))));
        assert_eq!(follower.routes(), Some(vec![]));
    }

    #[tokio::test]
    async fn a_node_alone_has_no_routes_and_one_that_sees_nobody_has_services() {
        let (mut follower, told) = follower();
        let here = follower.here().unwrap();
        follower.peers = Peers::Unlisted;
        follower.tell(&here);
        assert_eq!((follower.routes(), told.borrow().as_ref().unwrap().pod_cidrs.len()), (None, 1));
        assert!(follower.absorb(Change::Replaced(vec![])), "routes of the agent before are to go now");
        assert_eq!(follower.routes(), Some(vec![]));
    }

    #[test]
    fn the_zone_is_that_of_the_nodes_label() {
        let labels = [(ZONE_LABEL.to_owned(), "a".to_owned())].into();
        let own = OwnNode { labels, ..OwnNode::default() };
        assert_eq!(Here::from(&own).zone.as_deref(), Some("a"));
        assert_eq!(Here::from(&OwnNode::default()), Here::default());
    }

    #[test]
    fn routes_lead_to_the_others_by_family() {
        let other = r#"{"metadata":{"name":"n2"},"spec":{"podCIDR":"10.1.2.0/24","podCIDRs":["10.1.2.0/24","fd00:2::/64"]},
            "status":{"addresses":[{"type":"Hostname","address":"n2"},{"type":"InternalIP","address":"192.168.0.2"},
            {"type":"InternalIP","address":"fd01::2"}]}}"#;
        let bare = r#"{"metadata":{"name":"n3"}}"#;
        let places = [other, bare].map(|json| serde_json::from_str::<NodeSeen>(json).unwrap().place().1);
        let expected = [
            Route::via("10.1.2.0/24".parse().unwrap(), "192.168.0.2".parse().unwrap()),
            Route::via("fd00:2::/64".parse().unwrap(), "fd01::2".parse().unwrap()),
        ];
        assert_eq!(routes(places.iter()), expected);
    }
}
