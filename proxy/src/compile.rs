//! One Service with its endpoints, compiled to what the kernel is to hold for it. Pure.
//!
//! The rules are those of the Service API, of KEP-2086 (internalTrafficPolicy) and the virtual IPs reference.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use netns::nft::{Element, Family};

use crate::endpoints::Endpoints;
use crate::networks;
use crate::numbers::Numbers;
use crate::ruleset::{KIND_DROP, KIND_REJECT, MAX_ENDPOINTS, kind_of};
use crate::sets::{self, Address, SetId};
use crate::types::{EndpointSlice, NodeFacts, ObjectName, Protocol, Service, ServicePort, TrafficPolicy};

/// An endpoint's address and port.
pub type Target = (IpAddr, u16);

/// Endpoints that connections are spread over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its number in the kernel's maps.
    pub id: u32,
    /// The Service port's name and protocol.
    pub port: (Arc<str>, Protocol),
    /// Whether only endpoints of this node count.
    pub local: bool,
    /// What each slot holds, for each family.
    pub slots: [Vec<Target>; 2],
    /// What happens when a family has no slots.
    pub empty_kind: [u32; 2],
    /// Seconds that clients are remembered.
    pub affinity: Option<u32>,
    /// Of a UDP port, the endpoints whose connections go on, with or without a slot.
    pub serving: BTreeSet<Target>,
}

impl Group {
    /// The slots of one family.
    pub fn slots(&self, family: Family) -> &[Target] {
        let [v4, v6] = &self.slots;
        if family == Family::V4 { v4 } else { v6 }
    }

    fn kind(&self, family: Family) -> u32 {
        let [v4, v6] = self.empty_kind;
        match self.slots(family).len() {
            0 if family == Family::V4 => v4,
            0 => v6,
            endpoints => kind_of(endpoints),
        }
    }
}

/// Where a group is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frontend {
    /// The address.
    pub address: Address,
    /// The group's place in [`Compiled::groups`].
    pub group: usize,
    /// Only for packets from outside of the cluster.
    pub outside: bool,
    /// Whether clients are always masqueraded.
    pub masquerade: bool,
    /// Whether only [`Compiled::sources`] may ask.
    pub guarded: bool,
}

/// What the kernel is to hold for one Service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Compiled {
    /// The groups of endpoints.
    pub groups: Vec<Group>,
    /// Where they are reached.
    pub frontends: Vec<Frontend>,
    /// Addresses that answer nothing but the Service's ports.
    pub cluster_ips: Vec<IpAddr>,
    /// Addresses that two of the Service's own ports want, so that one of them does not have it.
    pub refused: BTreeSet<Address>,
    /// Who may ask at guarded frontends of each family; everybody, where there is none.
    pub sources: [Vec<IpNet>; 2],
    /// Endpoints of this node.
    pub local_endpoints: BTreeSet<IpAddr>,
    /// The health check port, and what is answered there.
    pub health: Option<(u16, Health)>,
}

/// What load balancers are told of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The families that the Service has addresses of.
    pub families: Vec<Family>,
    /// The endpoints of this node that are ready.
    pub ready: BTreeSet<IpAddr>,
}

/// Compiles the Service `name`. Groups keep the number and, as far as they can, the slots that they have in `previous`; new ones
/// take a number of `numbers`.
pub fn compile<'a>(
    name: &ObjectName,
    service: &Service,
    slices: impl Iterator<Item = &'a EndpointSlice> + Clone,
    facts: &NodeFacts,
    previous: &Compiled,
    numbers: &mut Numbers,
) -> Compiled {
    let mut compiled = Compiled {
        cluster_ips: service.cluster_ips.clone(),
        sources: Family::BOTH.map(|family| networks::sources(service, family, &facts.node_port_addresses)),
        health: service.health_check_port.map(|port| {
            let families = Family::BOTH.into_iter().filter(|family| service.has_family(*family)).collect();
            (port, Health { families, ready: ready_here(slices.clone()) })
        }),
        ..Compiled::default()
    };
    let mut served = Vec::with_capacity(service.ports.len());
    for port in &service.ports {
        let endpoints = Endpoints::of(port, slices.clone(), facts.zone.as_deref());
        let mut add = |local: bool, compiled: &mut Compiled| {
            let key = (port.name.clone(), port.protocol);
            let old = previous.groups.iter().find(|old| old.port == key && old.local == local);
            let called = || format!("{name}:{}/{}/{local}", port.name, port.protocol.number());
            let id = old.map_or_else(|| numbers.take(&called()), |old| old.id);
            compiled.groups.push(group(&endpoints, id, key, local, old, service));
            compiled.groups.len() - 1
        };
        let cluster = add(false, &mut compiled);
        let either = [service.internal_policy, service.external_policy];
        let local = either.contains(&TrafficPolicy::Local).then(|| add(true, &mut compiled));
        served.push(Served { port, cluster, local });
        // The two need not be the same: hints may leave out an endpoint of this node, or another one be ready elsewhere.
        let by_local = endpoints.local.iter().filter(|_| local.is_some());
        let reachable = endpoints.cluster.iter().chain(by_local);
        compiled.local_endpoints.extend(reachable.filter(|e| e.local).map(|e| e.ip));
    }
    frontends(service, facts, &served, &mut compiled);
    compiled
}

/// The addresses of this node's endpoints that are ready, of all slices and whichever port they serve, as kube-proxy counts them
/// (`EndpointsMap.LocalReadyEndpoints`). Those that terminate do not count though they may still serve, so that a load balancer looks elsewhere
/// in time.
fn ready_here<'a>(slices: impl Iterator<Item = &'a EndpointSlice>) -> BTreeSet<IpAddr> {
    let endpoints = slices.filter(|slice| !slice.ports.is_empty()).flat_map(|slice| &slice.endpoints);
    endpoints.filter(|endpoint| endpoint.local && endpoint.ready).map(|endpoint| endpoint.address).collect()
}

fn group(
    endpoints: &Endpoints,
    id: u32,
    port: (Arc<str>, Protocol),
    local: bool,
    old: Option<&Group>,
    service: &Service,
) -> Group {
    let from = if local { &endpoints.local } else { &endpoints.cluster };
    let targets = |family: Family| -> BTreeSet<Target> {
        from.iter().filter(|e| Family::of(&e.ip) == family).map(|e| (e.ip, e.port)).collect()
    };
    let serving = if port.1 == Protocol::Udp { endpoints.serving.clone() } else { BTreeSet::new() };
    let elsewhere = |family: Family| local && endpoints.cluster.iter().any(|e| Family::of(&e.ip) == family);
    Group {
        id,
        port,
        local,
        slots: Family::BOTH.map(|family| fill(old.map_or(&[], |old| old.slots(family)), targets(family))),
        empty_kind: Family::BOTH.map(|family| if elsewhere(family) { KIND_DROP } else { KIND_REJECT }),
        affinity: service.affinity.map(|timeout| u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX).max(1)),
        serving,
    }
}

/// Puts `targets` into slots with the fewest changes to `old`: what stays keeps its slot, what is new takes the place of
/// what left, and the last ones close the gaps that remain.
fn fill(old: &[Target], mut targets: BTreeSet<Target>) -> Vec<Target> {
    let mut slots: Vec<Option<Target>> = old.iter().map(|slot| targets.take(slot)).collect();
    let mut new = targets.into_iter();
    for slot in slots.iter_mut().filter(|slot| slot.is_none()) {
        *slot = new.next();
    }
    slots.extend(new.map(Some));
    let mut filled = Vec::with_capacity(slots.len());
    let mut rest: std::collections::VecDeque<_> = slots.into();
    while let Some(slot) = rest.pop_front() {
        match slot {
            Some(target) => filled.push(target),
            None => filled.extend(std::iter::from_fn(|| rest.pop_back()).flatten().next()),
        }
    }
    filled.truncate(MAX_ENDPOINTS);
    filled
}

/// A port of the Service, and the places of its groups in [`Compiled::groups`].
struct Served<'a> {
    port: &'a ServicePort,
    cluster: usize,
    /// Where a policy is `Local`.
    local: Option<usize>,
}

impl Served<'_> {
    fn at(&self, ip: IpAddr, port: u16) -> Address {
        Address { ip, protocol: self.port.protocol, port }
    }

    /// From inside the cluster every endpoint may be used, whatever the policy; and since the client may be on another node than this one,
    /// the answer must come back through here.
    fn published(&self, address: Address, policy: TrafficPolicy) -> Vec<Frontend> {
        let any = Frontend { address, group: self.cluster, outside: false, masquerade: true, guarded: false };
        let mut frontends = vec![any];
        if let (TrafficPolicy::Local, Some(group)) = (policy, self.local) {
            frontends.push(Frontend { group, outside: true, masquerade: false, ..any });
        }
        frontends
    }
}

/// Users may write any address into `externalIPs`, also one that another port of the Service has. Whoever comes first has it: cluster IPs
/// before external addresses before node ports, the order in which kube-proxy looks.
fn frontends(service: &Service, facts: &NodeFacts, ports: &[Served<'_>], compiled: &mut Compiled) {
    let mut taken = BTreeSet::new();
    let mut place = |address: Address, frontends: Vec<Frontend>| {
        if taken.insert(address) {
            compiled.frontends.extend(frontends);
        } else {
            compiled.refused.insert(address);
        }
    };
    for served in ports {
        let group = match service.internal_policy {
            TrafficPolicy::Local => served.local.unwrap_or(served.cluster),
            TrafficPolicy::Cluster => served.cluster,
        };
        for ip in &service.cluster_ips {
            let address = served.at(*ip, served.port.port);
            place(address, vec![Frontend { address, group, outside: false, masquerade: false, guarded: false }]);
        }
    }
    // A Service without a cluster IP of a family is none for kube-proxy's half of that family.
    let is_reached = |ip: &&IpAddr| service.has_family(Family::of(ip));
    for served in ports {
        let published = service.external_ips.iter().chain(&service.load_balancer_ips).filter(is_reached);
        for ip in published.collect::<BTreeSet<_>>() {
            let address = served.at(*ip, served.port.port);
            let mut frontends = served.published(address, service.external_policy);
            let guarded = service.load_balancer_ips.contains(ip);
            frontends.iter_mut().for_each(|frontend| frontend.guarded = guarded);
            place(address, frontends);
        }
    }
    for served in ports {
        let Some(number) = served.port.node_port else { continue };
        for ip in facts.node_port_addresses.iter().filter(is_reached) {
            let address = served.at(*ip, number);
            place(address, served.published(address, service.external_policy));
        }
    }
}

impl Compiled {
    /// The elements that the kernel is to hold.
    pub fn elements(&self) -> Vec<(SetId, Element)> {
        let mut elements = Vec::new();
        for frontend in &self.frontends {
            self.frontend_elements(frontend, &mut elements);
        }
        for group in &self.groups {
            group_elements(group, &mut elements);
        }
        elements.extend(self.cluster_ips.iter().map(|ip| (SetId::ClusterIps(Family::of(ip)), sets::cluster_ip(*ip))));
        elements
    }

    fn frontend_elements(&self, frontend: &Frontend, elements: &mut Vec<(SetId, Element)>) {
        let Some(group) = self.groups.get(frontend.group) else { return };
        let family = Family::of(&frontend.address.ip);
        let set = if frontend.outside { SetId::External(family) } else { SetId::Services(family) };
        let value = sets::group(group.id, group.kind(family));
        elements.push((set, Element::value(frontend.address.key(), value)));
        let [v4, v6] = &self.sources;
        let sources = if family == Family::V4 { v4 } else { v6 };
        if frontend.guarded && !sources.is_empty() {
            elements.push((SetId::Guarded(family), Element::new(frontend.address.key())));
            elements.extend(sources.iter().map(|net| (SetId::Sources(family), sets::source(&frontend.address, *net))));
        }
        if frontend.masquerade {
            elements.push((SetId::Masqueraded(family), Element::new(frontend.address.key())));
        }
    }

    /// How many endpoints there are, counted once for each Service port.
    pub fn endpoint_count(&self) -> usize {
        self.groups.iter().filter(|group| !group.local).flat_map(|group| &group.slots).map(Vec::len).sum()
    }
}

fn group_elements(group: &Group, elements: &mut Vec<(SetId, Element)>) {
    for family in Family::BOTH {
        for (slot, (ip, port)) in (0u32..).zip(group.slots(family)) {
            let element = Element::value(sets::numbers(group.id, slot), sets::endpoint(*ip, *port));
            elements.push((SetId::Endpoints(family), element));
            if group.affinity.is_some() {
                elements.push((SetId::Sticky(family), sets::sticky(group.id, *ip, *port)));
            }
        }
    }
    if let Some(seconds) = group.affinity {
        elements.push((SetId::Affinity, sets::affinity(group.id, seconds)));
    }
}
