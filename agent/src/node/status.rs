//! Putting Node objects together. Pure but for [`addresses`].

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use api::resources::ResourceList;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec, NodeStatus,
    NodeSwapStatus, NodeSystemInfo,
};

use super::facts::{Facts, Filesystem, KUBELET_VERSION, architecture};
use super::resources::resources;
use super::runtime::RuntimeState;
use crate::client::Server;
use crate::config::Config;

/// What a status is made of, beside conditions and configuration.
pub(super) struct Parts<'a> {
    pub(super) facts: &'a Facts,
    pub(super) disk: Option<Filesystem>,
    pub(super) addresses: &'a [IpAddr],
    pub(super) runtime: &'a RuntimeState,
    pub(super) runtime_version: &'a str,
    pub(super) images: &'a [ContainerImage],
    /// Resources that others advertise for this node in its capacity: pods may have all of them.
    pub(super) extended: &'a ResourceList,
}

/// How long a name of the API server may take to resolve. Without an answer the addresses are those of before.
const RESOLVING: Duration = Duration::from_secs(5);

/// What this node can do that not every node of a cluster can, by upstream's feature gates (KEP-5328): the scheduler and the admission
/// of updates keep pods that need it from nodes that do not say so.
const DECLARED: [&str; 3] = [
    "InPlacePodLevelResourcesVerticalScaling",
    "InPlacePodVerticalScalingInitContainers",
    "RestartAllContainersOnContainerExits",
];

pub(super) fn status(config: &Config, parts: &Parts<'_>, conditions: Vec<NodeCondition>) -> NodeStatus {
    let mut resources = resources(parts.facts, parts.disk, &config.kubelet);
    resources.allocatable.extend(api::resources::write(parts.extended));
    let address = |type_: &str, address: String| NodeAddress { type_: type_.to_owned(), address };
    let mut addresses: Vec<NodeAddress> =
        parts.addresses.iter().map(|ip| address("InternalIP", ip.to_string())).collect();
    addresses.push(address("Hostname", config.node.node_name.clone()));
    NodeStatus {
        addresses: Some(addresses),
        allocatable: Some(resources.allocatable),
        capacity: Some(resources.capacity),
        conditions: Some(conditions),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(config.kubelet.port) }),
        }),
        declared_features: Some(DECLARED.map(str::to_owned).to_vec()),
        features: parts.runtime.features.clone(),
        images: Some(parts.images.to_vec()),
        node_info: Some(system_info(parts)),
        runtime_handlers: Some(parts.runtime.handlers.clone()).filter(|handlers| !handlers.is_empty()),
        ..NodeStatus::default()
    }
}

fn system_info(parts: &Parts<'_>) -> NodeSystemInfo {
    let facts = parts.facts;
    NodeSystemInfo {
        architecture: architecture().into(),
        boot_id: facts.boot_id.clone(),
        container_runtime_version: parts.runtime_version.to_owned(),
        kernel_version: facts.kernel_version.clone(),
        kube_proxy_version: String::new(),
        kubelet_version: KUBELET_VERSION.into(),
        machine_id: facts.machine_id.clone(),
        operating_system: "linux".into(),
        os_image: facts.os_image.clone(),
        swap: (facts.swap > 0).then(|| NodeSwapStatus { capacity: i64::try_from(facts.swap).ok() }),
        system_uuid: facts.system_uuid.clone(),
    }
}

/// What every Node of this machine says, whoever else wrote it (`updateNode` in `kubelet_node_status.go`).
pub(super) fn required_labels() -> [(&'static str, &'static str); 2] {
    [("kubernetes.io/os", "linux"), ("kubernetes.io/arch", architecture())]
}

/// The labels that a node registers with.
pub(super) fn labels(config: &Config) -> BTreeMap<String, String> {
    let [os, architecture_label] = required_labels();
    let mut labels: BTreeMap<String, String> = [
        ("kubernetes.io/hostname", config.node.node_name.as_str()),
        os,
        architecture_label,
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", architecture()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect();
    labels.extend(config.node.node_labels.clone());
    labels
}

/// The Node as it registers.
pub(super) fn new_node(config: &Config, status: NodeStatus) -> Node {
    let annotation = ("volumes.kubernetes.io/controller-managed-attach-detach".to_owned(), "true".to_owned());
    let provider = Some(config.kubelet.provider_id.clone()).filter(|id| !id.is_empty());
    let taints = Some(config.kubelet.register_with_taints.clone()).filter(|taints| !taints.is_empty());
    let mut node =
        super::bare(&config.node.node_name, NodeSpec { provider_id: provider, taints, ..NodeSpec::default() });
    node.metadata.labels = Some(labels(config));
    node.metadata.annotations = Some([annotation].into());
    node.status = Some(status);
    node
}

/// The configured addresses, or the one from which this machine reaches the API server: with several networks that is the
/// one the cluster is on. An address that API servers share, and this machine happens to hold, is nobody's.
pub(super) async fn addresses(config: &Config) -> Vec<IpAddr> {
    if let Some(ips) = &config.node.node_ip {
        return ips.all().to_vec();
    }
    for server in config.node.server.iter() {
        if let Some(address) = source_address(server).await {
            return vec![address];
        }
    }
    Vec::new()
}

async fn source_address(server: &Server) -> Option<IpAddr> {
    // A name is looked up on a thread of its own: the resolver blocks, and may do so for half a minute.
    let found = tokio::net::lookup_host((server.host(), server.port()));
    let target = tokio::time::timeout(RESOLVING, found).await.ok()?.ok()?.next()?.ip();
    let source = source_towards(target)?;
    if source != target {
        return Some(source);
    }
    // The target is this machine. From what it reaches the target's neighbours it has reached the target, too, while another held that.
    let staying = neighbours(target).into_iter().find_map(|ip| source_towards(ip).filter(|source| *source != ip));
    Some(staying.unwrap_or(source))
}

fn source_towards(target: IpAddr) -> Option<IpAddr> {
    let any: SocketAddr = if target.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    // Connecting a datagram socket sends nothing; it only chooses route and source. The port is of no account.
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect((target, 9)).ok()?;
    socket.local_addr().ok().map(|local| local.ip()).filter(|ip| !ip.is_unspecified())
}

/// Addresses of the same network, one of which is no broadcast. None of IPv6: the source there is the address that is most alike.
fn neighbours(target: IpAddr) -> Vec<IpAddr> {
    match target {
        IpAddr::V4(ip) => [1, 2].map(|bit| Ipv4Addr::from_bits(ip.to_bits() ^ bit).into()).to_vec(),
        IpAddr::V6(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::minimal as config;

    #[test]
    fn a_new_node_has_the_well_known_labels() {
        let parts = Parts {
            facts: &Facts { cpus: 1, ..Facts::default() },
            disk: None,
            addresses: &["10.0.0.1".parse().unwrap()],
            runtime: &RuntimeState::default(),
            runtime_version: "containerd://1.6.20",
            images: &[],
            extended: &ResourceList::new(),
        };
        let node = new_node(&config(), status(&config(), &parts, vec![]));
        let labels = node.metadata.labels.unwrap();
        assert_eq!(labels["kubernetes.io/hostname"], "n1");
        assert_eq!(labels["tier"], "x");
        let status = node.status.unwrap();
        let addresses: Vec<_> =
            status.addresses.unwrap().into_iter().map(|a| format!("{}={}", a.type_, a.address)).collect();
        assert_eq!(addresses, ["InternalIP=10.0.0.1", "Hostname=n1"]);
        assert_eq!(status.daemon_endpoints.unwrap().kubelet_endpoint.unwrap().port, 10250);
        assert_eq!(status.node_info.unwrap().kubelet_version, KUBELET_VERSION);
        assert!(status.declared_features.unwrap().is_sorted(), "as upstream has them");
    }

    #[tokio::test]
    async fn the_address_is_the_one_towards_the_server() {
        assert_eq!(addresses(&config()).await, ["127.0.0.1".parse::<IpAddr>().unwrap()]);
    }

    /// In a network of the thread's own, as root.
    #[test]
    fn an_address_that_api_servers_share_is_not_the_nodes() {
        std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            for line in [
                "link add up0 type veth peer name peer0",
                "link set peer0 up",
                "link set up0 up",
                "addr add 10.9.0.5/24 dev up0",
                "addr add 10.9.0.100/32 dev up0",
                "addr add 10.9.0.200/24 dev up0",
            ] {
                assert!(std::process::Command::new("ip").args(line.split(' ')).status().unwrap().success(), "{line}");
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let source = |server: &str| runtime.block_on(source_address(&server.parse().unwrap())).unwrap().to_string();
            for server in ["10.9.0.5", "10.9.0.7", "10.9.0.100", "10.9.0.200"] {
                assert_eq!(source(server), "10.9.0.5", "towards {server}");
            }
        })
        .join()
        .unwrap();
    }

    #[tokio::test]
    async fn only_names_are_waited_for_and_nothing_blocks() {
        use futures::FutureExt as _;
        assert!(addresses(&config()).now_or_never().is_some());
        let mut named = config();
        named.node.server = "https://localhost:6443".parse().unwrap();
        assert!(addresses(&named).now_or_never().is_none(), "the resolver is asked elsewhere");
        assert!(addresses(&named).await.iter().all(IpAddr::is_loopback));
    }
}
