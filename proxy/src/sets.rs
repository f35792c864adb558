//! The sets and maps of the table, and the bytes of their elements.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use netns::nft::{Element, Family, Set, Type, key};

use crate::types::Protocol;

/// How many clients with affinity are remembered for each family. A client beyond that is balanced anew.
const MAX_CLIENTS: u32 = 1 << 18;

/// A set or map whose elements follow Services and endpoints. `F` is the digit of the family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetId {
    /// `servicesF`: address . protocol . port : spare . group . kind, where a Service is reached.
    Services(Family),
    /// `externalF`: the same, for packets from outside of the cluster to a Service with externalTrafficPolicy Local.
    External(Family),
    /// `endpointsF`: group . slot : address . port
    Endpoints(Family),
    /// `stickyF`: group . address . port, the endpoints of groups with affinity.
    Sticky(Family),
    /// `masqueradedF`: address . protocol . port, of Services whose clients are always masqueraded.
    Masqueraded(Family),
    /// `hairpinF`: address . address, the endpoints of this node.
    Hairpin(Family),
    /// `cluster-ipsF`: address
    ClusterIps(Family),
    /// `guardedF`: address . protocol . port, of Services that not everybody may ask.
    Guarded(Family),
    /// `sourcesF`: address . protocol . port . source, as ranges of sources: who may.
    Sources(Family),
    /// `clusterF`: the cluster's pod network, as ranges.
    Cluster(Family),
    /// `insideF`: the same, or everything while it is not known: clients that keep their address on the way to a cluster IP.
    Inside(Family),
    /// `podsF`: this node's pod network, as ranges, where the proxy masquerades what leaves the cluster.
    Pods(Family),
    /// `directF`: what pods reach under their own address, as ranges.
    Direct(Family),
    /// `service-networksF`: the networks of cluster IPs, as ranges.
    ServiceNetworks(Family),
    /// `clientsF`: group . client : spare . group . address . port. Rules fill it.
    Clients(Family),
    /// `affinity`: group : spare . seconds
    Affinity,
}

/// The definitions of all sets, made once.
#[derive(Debug)]
pub struct Sets {
    per_family: [[Arc<Set>; 15]; 2],
    affinity: Arc<Set>,
}

impl Default for Sets {
    fn default() -> Self {
        Self {
            per_family: Family::BOTH.map(family_sets),
            affinity: Arc::new(Set::map("affinity", vec![Type::Number], vec![Type::Number; 2])),
        }
    }
}

impl Sets {
    /// The definition of `id`.
    pub fn get(&self, id: SetId) -> &Arc<Set> {
        let [v4, v6] = &self.per_family;
        let of = |family: Family| if family == Family::V4 { v4 } else { v6 };
        match id {
            SetId::Services(family) => &of(family)[0],
            SetId::External(family) => &of(family)[1],
            SetId::Endpoints(family) => &of(family)[2],
            SetId::Sticky(family) => &of(family)[3],
            SetId::Masqueraded(family) => &of(family)[4],
            SetId::Hairpin(family) => &of(family)[5],
            SetId::ClusterIps(family) => &of(family)[6],
            SetId::Guarded(family) => &of(family)[7],
            SetId::Sources(family) => &of(family)[8],
            SetId::Cluster(family) => &of(family)[9],
            SetId::Inside(family) => &of(family)[10],
            SetId::Pods(family) => &of(family)[11],
            SetId::Direct(family) => &of(family)[12],
            SetId::Clients(family) => &of(family)[13],
            SetId::ServiceNetworks(family) => &of(family)[14],
            SetId::Affinity => &self.affinity,
        }
    }

    /// Every definition, for creating them.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Set>> {
        self.per_family.iter().flatten().chain([&self.affinity])
    }
}

fn family_sets(family: Family) -> [Arc<Set>; 15] {
    let address = family.address();
    let name = |name: &str| format!("{name}{}", family.digit());
    let networks = |of: &str| Set::new(name(of), vec![address]).interval();
    let frontend = vec![address, Type::Protocol, Type::Port];
    let group = vec![Type::Number; 3];
    let endpoint = vec![address, Type::Port];
    let remembered = vec![Type::Number, Type::Number, address, Type::Port];
    [
        Set::map(name("services"), frontend.clone(), group.clone()),
        Set::map(name("external"), frontend.clone(), group),
        Set::map(name("endpoints"), vec![Type::Number; 2], endpoint),
        Set::new(name("sticky"), vec![Type::Number, address, Type::Port]),
        Set::new(name("masqueraded"), frontend.clone()),
        Set::new(name("hairpin"), vec![address, address]),
        Set::new(name("cluster-ips"), vec![address]),
        Set::new(name("guarded"), frontend.clone()),
        Set::new(name("sources"), [frontend.as_slice(), &[address]].concat()).interval(),
        networks("cluster"),
        networks("inside"),
        networks("pods"),
        networks("direct"),
        Set::map(name("clients"), vec![Type::Number, address], remembered).dynamic(MAX_CLIENTS),
        networks("service-networks"),
    ]
    .map(Arc::new)
}

/// Where a Service is reached: one address, one port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

impl Address {
    /// The key of `servicesF` and its kin.
    pub fn key(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(24);
        key::address(&mut bytes, self.ip);
        key::protocol(&mut bytes, self.protocol.number());
        key::port(&mut bytes, self.port);
        bytes
    }
}

/// A group and its kind, as `servicesF` maps to it.
pub fn group(group: u32, kind: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(12);
    for number in [0, group, kind] {
        key::number(&mut bytes, number);
    }
    bytes
}

/// Two numbers, as `endpointsF` maps from them and `affinity` to them.
pub fn numbers(first: u32, second: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8);
    key::number(&mut bytes, first);
    key::number(&mut bytes, second);
    bytes
}

/// An endpoint as `endpointsF` maps to it.
pub fn endpoint(address: IpAddr, port: u16) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(20);
    key::address(&mut bytes, address);
    key::port(&mut bytes, port);
    bytes
}

/// An element of `stickyF`.
pub fn sticky(group: u32, address: IpAddr, port: u16) -> Element {
    let mut bytes = Vec::with_capacity(24);
    key::number(&mut bytes, group);
    key::address(&mut bytes, address);
    key::port(&mut bytes, port);
    Element::new(bytes)
}

/// An element of `hairpinF`.
pub fn hairpin(address: IpAddr) -> Element {
    let mut bytes = Vec::with_capacity(32);
    key::address(&mut bytes, address);
    key::address(&mut bytes, address);
    Element::new(bytes)
}

/// An element of `cluster-ipsF`.
pub fn cluster_ip(address: IpAddr) -> Element {
    let mut bytes = Vec::with_capacity(16);
    key::address(&mut bytes, address);
    Element::new(bytes)
}

/// An element of `sourcesF`: all of `net`.
pub fn source(address: &Address, net: IpNet) -> Element {
    let (mut first, mut last) = (address.key(), address.key());
    key::address(&mut first, net.network());
    key::address(&mut last, net.broadcast());
    Element { end: Some(last), ..Element::new(first) }
}

/// An element of `affinity`.
pub fn affinity(group: u32, seconds: u32) -> Element {
    Element::value(group.to_ne_bytes().to_vec(), numbers(0, seconds))
}
