//! What the proxy is told: Services and EndpointSlices, trimmed to the fields that matter here, and facts of the node.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use netns::nft::Family;

/// A namespace and a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl ObjectName {
    /// The object `name` of `namespace`.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The layer 4 protocol of a Service port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// `TCP`
    Tcp,
    /// `UDP`
    Udp,
    /// `SCTP`
    Sctp,
}

impl Protocol {
    /// Its number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The protocol that the API calls `name`; TCP when it is not named.
    pub fn parse(name: Option<&str>) -> Option<Self> {
        match name {
            None | Some("TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }
}

/// `internalTrafficPolicy` and `externalTrafficPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TrafficPolicy {
    /// Any endpoint.
    #[default]
    Cluster,
    /// Only endpoints of this node.
    Local,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Empty when the Service has one port without a name.
    pub name: Arc<str>,
    /// The protocol.
    pub protocol: Protocol,
    /// The port at the cluster, external and load balancer addresses.
    pub port: u16,
    /// The port at the node's addresses.
    pub node_port: Option<u16>,
}

/// A Service that has an address. A Service without one (headless, ExternalName) is not given to the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// `spec.clusterIPs`
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].ip` whose `ipMode` is `VIP`
    pub load_balancer_ips: Vec<IpAddr>,
    /// `spec.loadBalancerSourceRanges`: who may ask at `load_balancer_ips`; everybody, for a family of which there is none.
    pub source_ranges: Vec<IpNet>,
    /// `spec.ports`
    pub ports: Vec<ServicePort>,
    /// `spec.internalTrafficPolicy`
    pub internal_policy: TrafficPolicy,
    /// `spec.externalTrafficPolicy`
    pub external_policy: TrafficPolicy,
    /// `spec.sessionAffinityConfig.clientIP.timeoutSeconds`, when `spec.sessionAffinity` is `ClientIP`
    pub affinity: Option<Duration>,
    /// `spec.healthCheckNodePort`, when it is a load balancer whose external policy is `Local`
    pub health_check_port: Option<u16>,
}

/// For whom an endpoint is meant (`hints`, written for Services with `trafficDistribution`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hints {
    /// Whether `forNodes` names this node; `None` when it names none.
    pub for_this_node: Option<bool>,
    /// `forZones`
    pub zones: Vec<Box<str>>,
}

impl Service {
    /// Whether it has a cluster IP of a family.
    pub fn has_family(&self, family: Family) -> bool {
        self.cluster_ips.iter().any(|ip| Family::of(ip) == family)
    }
}

/// An endpoint of an EndpointSlice. It has one address: further addresses have no defined meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `addresses[0]`
    pub address: IpAddr,
    /// `conditions.ready`, which is true when it is not known
    pub ready: bool,
    /// `conditions.serving`, which is true when it is not known, whatever `ready` is
    pub serving: bool,
    /// `conditions.terminating`
    pub terminating: bool,
    /// Whether `nodeName` is this node.
    pub local: bool,
    /// `hints`, where there are any.
    pub hints: Option<Arc<Hints>>,
}

/// A port of an EndpointSlice. Which Service port it serves is said by name and protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointPort {
    /// Empty when it has no name.
    pub name: Arc<str>,
    /// The protocol.
    pub protocol: Protocol,
    /// The endpoints' port.
    pub port: u16,
}

/// An EndpointSlice of address type IPv4 or IPv6.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EndpointSlice {
    /// `ports`; one without a number (all ports) cannot be proxied and is left out.
    pub ports: Vec<EndpointPort>,
    /// `endpoints`
    pub endpoints: Vec<Endpoint>,
}

impl EndpointSlice {
    /// Where its endpoints serve a port of the Service.
    pub fn serving(&self, port: &ServicePort) -> Option<&EndpointPort> {
        self.ports.iter().find(|own| own.name == port.name && own.protocol == port.protocol)
    }
}

/// What the proxy must know of the node and its network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeFacts {
    /// The addresses at which node ports are served (kube-proxy's `--nodeport-addresses`, resolved).
    pub node_port_addresses: Vec<IpAddr>,
    /// The pod network of the whole cluster. Traffic to a Service from elsewhere is masqueraded, as it is by kube-proxy
    /// with `--cluster-cidr`. Empty means not known: then only node ports and hairpins are masqueraded.
    pub cluster_cidrs: Vec<IpNet>,
    /// The pod network of this node, `spec.podCIDRs`. What leaves it for addresses outside of `cluster_cidrs` and
    /// `non_masquerade_cidrs` is masqueraded. Empty means that someone else (the bridge plugin's `ipMasq`) does that.
    pub pod_cidrs: Vec<IpNet>,
    /// Further networks that can answer to pod addresses, such as the nodes' own.
    pub non_masquerade_cidrs: Vec<IpNet>,
    /// `spec.cidrs` of all ServiceCIDRs. What is sent to an address in them that no Service has is dropped, as by kube-proxy.
    pub service_cidrs: Vec<IpNet>,
    /// The node's label `topology.kubernetes.io/zone`.
    pub zone: Option<Box<str>>,
}
