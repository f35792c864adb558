//! Services and EndpointSlices, followed and handed to the proxy.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use netns::nft::Family;
use netns::{NetNs, Netlink};
use proxy::types::{EndpointSlice, NodeFacts, ObjectName, Service};
use proxy::{Proxy, Stats, Table, convert};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::health::Known;
use super::{Cluster, node_ports};
use crate::client::backoff::{Backoff, until};
use crate::client::watch::{Change, Collection, describe, follow_map};
use crate::metrics::proxy::Pending;

/// After a transaction the next one waits for this long, so that a burst of slices, as of a rolling update, is few of them.
/// A change that comes alone is applied at once.
const GATHER: Duration = Duration::from_millis(2);
/// Changes that come within this time belong to a burst.
const BURST: Duration = Duration::from_millis(20);
/// How often the machine's addresses are looked at where node ports are served at all of them.
const LOOK: Duration = Duration::from_secs(60);

/// How often it is looked whether the table is still there (as kube-proxy does with iptables).
const CHECK: Duration = Duration::from_secs(30);

type ServiceSeen = (ObjectName, Option<Service>);
type SliceSeen = (ObjectName, Option<(ObjectName, EndpointSlice)>, Option<Timestamp>);

/// When what changed a slice happened (`EndpointsLastChangeTriggerTime` of the API).
const TRIGGER: &str = "endpoints.kubernetes.io/last-change-trigger-time";

pub(super) struct Feed {
    pub(super) client: kube::Client,
    pub(super) node_name: String,
    pub(super) addresses: watch::Receiver<Vec<IpAddr>>,
    /// `None` until the API server was asked.
    pub(super) cluster: watch::Receiver<Option<Cluster>>,
    /// The networks of cluster IPs.
    pub(super) service_cidrs: watch::Receiver<Vec<IpNet>>,
    pub(super) namespace: NetNs,
    /// The addresses of this machine, as of the last look.
    pub(super) machine: Vec<IpAddr>,
    /// When that was.
    pub(super) looked: Option<Instant>,
    /// Told what load balancers are to be answered.
    pub(super) health: watch::Sender<Known>,
}

impl Feed {
    pub(super) async fn run(mut self) {
        let mut proxy = self.open().await;
        let (mut services, mut slices) = self.follow();
        let mut listed = (false, false);
        let mut backoff = backoff();
        let mut pending = Pending::new();
        let (mut retry, mut look, mut check) = (None, None, None);
        let mut applied: Option<Instant> = None;
        loop {
            // Cancel-safe: recv() and changed() lose nothing when dropped; a sleep is begun anew for the same instant.
            tokio::select! {
                change = services.recv() => match change {
                    Some(change) => listed.0 |= absorb_service(&mut proxy, &mut pending, change),
                    None => return,
                },
                change = slices.recv() => match change {
                    Some(change) => listed.1 |= absorb_slice(&mut proxy, &mut pending, change),
                    None => return,
                },
                changed = self.cluster.changed() => if changed.is_err() { return },
                changed = self.service_cidrs.changed() => if changed.is_err() { return },
                changed = self.addresses.changed() => if changed.is_err() { return },
                () = until(retry) => {}
                () = until(look) => {}
                () = until(check) => {
                    check = Some(Instant::now() + CHECK);
                    if !is_lost(&mut proxy).await {
                        continue;
                    }
                }
            }
            // A table with half of the cluster in it would refuse connections that the one before it served, one that knows no pod network
            // would let pods' packets leave under addresses that nobody answers to.
            if listed != (true, true) || self.cluster.borrow().is_none() {
                continue;
            }
            if applied.is_some_and(|at| at.elapsed() < BURST) {
                tokio::time::sleep(GATHER).await;
            }
            drain(&mut proxy, &mut pending, (&mut services, &mut slices));
            let missing = self.missing_families(proxy.table());
            proxy.table().set_facts(self.facts(&missing).await);
            look = self.looked.filter(|_| !missing.is_empty()).map(|at| at + LOOK);
            let flushed = flush(&mut proxy, &mut pending).await;
            applied = Some(Instant::now());
            check = check.or_else(|| Some(Instant::now() + CHECK));
            self.tell(proxy.table(), flushed.as_ref().err().is_none_or(proxy::Error::is_applied));
            retry = match flushed {
                Ok(stats) => {
                    tracing::debug!(?stats, "services applied");
                    backoff.reset();
                    None
                }
                Err(error) => {
                    let applied = error.is_applied();
                    tracing::warn!(error = %describe(&error), applied, "services are not as they should be, will retry");
                    Some(Instant::now() + backoff.pause())
                }
            };
        }
    }

    /// What hinders it may pass: a module that is not loaded yet, memory for the socket.
    async fn open(&self) -> Proxy {
        let mut backoff = backoff();
        loop {
            match Proxy::open(&self.namespace, proxy::Config::default()) {
                Ok(proxy) => return proxy,
                Err(error) => {
                    tracing::error!(error = %describe(&error), "services cannot be served on this node, will retry");
                    backoff.wait().await;
                }
            }
        }
    }

    fn follow(&self) -> (mpsc::Receiver<Change<ServiceSeen>>, mpsc::Receiver<Change<SliceSeen>>) {
        // Headless Services and those of another proxy are left out by the server, as kube-proxy asks for it.
        let selector = "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name";
        let collection = |path: &str| Collection::all(path).labels(selector);
        let services = follow_map(self.client.clone(), collection("/api/v1/services"), |service: core::Service| {
            (convert::object_name(&service.metadata), convert::service(&service))
        });
        let node_name = self.node_name.clone();
        let slices = follow_map(
            self.client.clone(),
            collection("/apis/discovery.k8s.io/v1/endpointslices"),
            move |slice: discovery::EndpointSlice| {
                let trigger = slice.metadata.annotations.as_ref().and_then(|all| all.get(TRIGGER)?.parse().ok());
                (convert::object_name(&slice.metadata), convert::endpoint_slice(&slice, &node_name), trigger)
            },
        );
        (services, slices)
    }

    /// What load balancers are answered changes with what the kernel has.
    fn tell(&self, table: &Table, applied: bool) {
        self.health.send_if_modified(|known| {
            let now = if applied {
                Known { checks: table.health_checks(), behind: None, applied: Some(jiff::Timestamp::now()) }
            } else {
                Known { behind: known.behind.or_else(|| Some(Instant::now())), ..known.clone() }
            };
            // The time alone wakes nobody.
            let is_news = (&known.checks, known.behind) != (&now.checks, now.behind);
            *known = now;
            is_news
        });
    }

    /// The families of Services that the Node has no address of.
    fn missing_families(&mut self, table: &Table) -> Vec<Family> {
        node_ports::missing(&self.addresses.borrow_and_update(), |family| table.has_family(family))
    }

    async fn facts(&mut self, missing: &[Family]) -> NodeFacts {
        if !missing.is_empty() && self.looked.is_none_or(|at| at.elapsed() >= LOOK) {
            self.looked = Some(Instant::now());
            match self.machine_addresses().await {
                Ok(addresses) => self.machine = addresses,
                Err(error) => tracing::warn!(error = %describe(&error), "addresses of this machine cannot be read"),
            }
        }
        let cluster = self.cluster.borrow_and_update().clone().unwrap_or_default();
        NodeFacts {
            node_port_addresses: node_ports::addresses(&self.addresses.borrow(), missing, &self.machine),
            cluster_cidrs: cluster.pod_cidrs,
            pod_cidrs: cluster.own_pod_cidrs,
            // Nodes have routes to pods, and want to know who asks.
            non_masquerade_cidrs: cluster.node_ips.into_iter().map(IpNet::from).collect(),
            service_cidrs: self.service_cidrs.borrow_and_update().clone(),
            zone: cluster.zone.map(Into::into),
        }
    }

    async fn machine_addresses(&self) -> Result<Vec<IpAddr>, netns::Error> {
        let addresses = Netlink::open_current()?.all_addresses().await?;
        Ok(addresses.iter().map(IpNet::addr).collect())
    }
}

/// Whether somebody removed the table, as `nft flush ruleset` does and a restart of nftables.service.
async fn is_lost(proxy: &mut Proxy) -> bool {
    match proxy.look().await {
        Ok(is_lost) => {
            if is_lost {
                tracing::warn!("the rules of Services are gone from the kernel: they are made anew");
            }
            is_lost
        }
        Err(error) => {
            tracing::warn!(error = %describe(&error), "cannot look whether the rules of Services are there");
            false
        }
    }
}

fn backoff() -> Backoff {
    Backoff::new(Duration::from_millis(200), Duration::from_secs(30))
}

/// Takes what is there already, so that one transaction carries it.
fn drain(
    proxy: &mut Proxy,
    pending: &mut Pending,
    (services, slices): (&mut mpsc::Receiver<Change<ServiceSeen>>, &mut mpsc::Receiver<Change<SliceSeen>>),
) {
    while let Ok(change) = services.try_recv() {
        absorb_service(proxy, pending, change);
    }
    while let Ok(change) = slices.try_recv() {
        absorb_slice(proxy, pending, change);
    }
}

async fn flush(proxy: &mut Proxy, pending: &mut Pending) -> Result<Stats, proxy::Error> {
    let begun = Instant::now();
    let flushed = proxy.flush().await;
    let is_full = match &flushed {
        Ok(stats) => Some(stats.full),
        Err(error) => error.is_applied().then_some(false),
    };
    pending.synced(is_full, begun.elapsed());
    flushed
}

/// Answers whether the collection is known whole now.
fn absorb_service(proxy: &mut Proxy, pending: &mut Pending, change: Change<ServiceSeen>) -> bool {
    let table = proxy.table();
    match change {
        Change::Replaced(all) => {
            let mut gone: BTreeSet<ObjectName> = table.service_names().cloned().collect();
            for (name, service) in all {
                let Some(service) = service else { continue };
                pending.service();
                gone.remove(&name);
                table.upsert_service(name, service);
            }
            gone.iter().for_each(|name| table.remove_service(name));
            true
        }
        Change::Applied((name, Some(service))) => {
            pending.service();
            table.upsert_service(name, service);
            false
        }
        Change::Applied((name, None)) | Change::Deleted((name, _)) => {
            pending.service();
            table.remove_service(&name);
            false
        }
    }
}

/// Answers whether the collection is known whole now.
fn absorb_slice(proxy: &mut Proxy, pending: &mut Pending, change: Change<SliceSeen>) -> bool {
    let table = proxy.table();
    match change {
        Change::Replaced(all) => {
            let mut gone: BTreeSet<ObjectName> = table.slice_names().cloned().collect();
            for (name, slice, trigger) in all {
                let Some((service, slice)) = slice else { continue };
                pending.endpoints(trigger);
                gone.remove(&name);
                table.upsert_slice(name, service, slice);
            }
            gone.iter().for_each(|name| table.remove_slice(name));
            true
        }
        Change::Applied((name, Some((service, slice)), trigger)) => {
            pending.endpoints(trigger);
            table.upsert_slice(name, service, slice);
            false
        }
        Change::Applied((name, None, _)) | Change::Deleted((name, ..)) => {
            pending.endpoints(None);
            table.remove_slice(&name);
            false
        }
    }
}
