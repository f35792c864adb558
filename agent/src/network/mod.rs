//! The pod network of this machine: CNI configuration, routes to the other nodes, and the feed of the service proxy.
//!
//! Seven tasks. One follows Nodes: the own podCIDR becomes the conflist, the others' become routes. Two others follow
//! Services and EndpointSlices, and ServiceCIDRs, and hand them to `proxy`. All keep what they have while the API server is away. Two tell load
//! balancers whether this node has endpoints, and whether its proxy is to be sent to, one tells what the proxy counts. The last looks after host ports.

mod conflist;
mod folders;
mod forwarding;
mod health;
mod host_ports;
mod node_ports;
mod nodes;
mod plugins;
mod proxy_health;
mod proxy_metrics;
mod service_cidrs;
mod services;
mod sysctls;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use netns::nft::{Kernel as _, Nft};
use netns::{NetNs, Netlink, ROUTE_PROTOCOL};
use tokio::sync::{Notify, watch};

pub use conflist::{ASIDE, BRIDGE, CONFLIST};
pub use folders::Folders;
pub(crate) use forwarding::{FORWARDING, remember};
pub use plugins::PluginError;
pub(crate) use plugins::source as plugins_source;
pub(crate) use sysctls::remember as remember_settings;

use crate::client::watch::describe;
use crate::config::Config;
use crate::events::Recorder;
use crate::node::own;
use crate::own_files;
use crate::tasks::Tasks;

/// Where libcni, in containerd, keeps the results of the plugins.
const CNI_CACHE: &str = "/var/lib/cni/results";

/// What the network's tasks need.
pub struct NetworkInputs {
    /// Configuration.
    pub config: Arc<Config>,
    /// The API server.
    pub client: kube::Client,
    /// Where the runtime looks for CNI plugins and configuration, once that is known.
    pub folders: watch::Receiver<Option<Folders>>,
    /// This node's addresses.
    pub addresses: watch::Receiver<Vec<IpAddr>>,
    /// Told when the conflist was written: the node may be Ready now.
    pub changed: Arc<Notify>,
    /// The Node as the API server has it.
    pub own: own::Receiver,
    /// Takes events of Services.
    pub recorder: Recorder,
}

/// The running tasks; dropping it ends them and leaves the network as it is.
pub struct NetworkHandle {
    pub(crate) tasks: Tasks,
}

/// What is known of all nodes, for the proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cluster {
    /// Pod networks of all nodes.
    pub(crate) pod_cidrs: Vec<ipnet::IpNet>,
    /// Those of this node.
    pub(crate) own_pod_cidrs: Vec<ipnet::IpNet>,
    /// Addresses of all nodes.
    pub(crate) node_ips: Vec<IpAddr>,
    /// Where this node is.
    pub(crate) zone: Option<String>,
}

/// Prepares the machine and starts the tasks. What cannot be prepared is logged: the node then says itself that its
/// network is not ready.
///
/// # Errors
/// The current network namespace cannot be opened.
pub fn start(inputs: NetworkInputs) -> Result<NetworkHandle, netns::Error> {
    let namespace = NetNs::current()?;
    forwarding::start(&inputs.config.layout.data_dir);
    let (cluster, seen) = watch::channel(None);
    let node_name = &inputs.config.node.node_name;
    let (service_cidrs, following) = service_cidrs::follow(inputs.client.clone());
    let (health, known) = watch::channel(health::Known::default());
    let proxy_health = proxy_health::serve(known.clone(), inputs.own.clone());
    let answers = health::Server::new(known, inputs.recorder.clone(), node_name.clone());
    let feed = services::Feed {
        client: inputs.client.clone(),
        node_name: node_name.clone(),
        addresses: inputs.addresses.clone(),
        cluster: seen,
        service_cidrs,
        namespace,
        machine: Vec::new(),
        looked: None,
        health,
    };
    let host_ports = host_ports::look_after(inputs.folders.clone());
    let follower = nodes::Follower::new(inputs, cluster);
    let tasks = [
        tokio::spawn(follower.run()),
        tokio::spawn(feed.run()),
        tokio::spawn(answers.run()),
        tokio::spawn(proxy_health),
        tokio::spawn(host_ports),
        tokio::spawn(proxy_metrics::serve()),
        following,
    ]
    .into();
    Ok(NetworkHandle { tasks })
}

/// Removes what the agent made in this network namespace, and the conflist; those that it was to replace have their names again. Answers what could
/// not be done.
pub async fn remove(config: &Config) -> Vec<String> {
    let mut failures = Vec::new();
    match NetNs::current() {
        Ok(namespace) => {
            if let Err(error) = proxy::cleanup(&namespace, &proxy::Config::default()).await {
                failures.push(describe(&error));
            }
        }
        Err(error) => failures.push(describe(&error)),
    }
    for done in [host_ports::remove().await, remove_links().await] {
        failures.extend(done.err().map(|error| describe(&error)));
    }
    let all = Folders::all(config);
    failures.extend(all.iter().flat_map(remove_files));
    failures.extend(sysctls::restore(&config.layout.data_dir, Path::new("/")).err().map(|error| describe(&error)));
    // The plugins are gone that would remove them.
    for path in cached() {
        let _ = std::fs::remove_file(path);
    }
    // Folders stay where something of somebody else's is in them. That of configuration is containerd's, which watches it.
    for folder in all.iter().map(|folders| folders.bin.as_path()).chain([Path::new(CNI_CACHE)]) {
        for empty in folder.ancestors().take(2) {
            let _ = std::fs::remove_dir(empty);
        }
    }
    failures
}

/// What of ours is in such folders.
fn remove_files(folders: &Folders) -> Vec<String> {
    let mut failures: Vec<String> = own_files::remove_entry(&folders.conf.join(CONFLIST)).err().into_iter().collect();
    failures.extend(conflist::put_back(&folders.conf));
    failures.extend(own_files::remove_unfinished(&folders.conf, &[CONFLIST]));
    failures.extend(plugins::remove(&folders.bin).err().map(|error| describe(&error)));
    failures
}

/// What libcni keeps of our network's pods: files `NETWORK-CONTAINER-INTERFACE`.
pub(crate) fn cached() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(CNI_CACHE).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("keelson-"));
    ours.map(|entry| entry.path()).collect()
}

/// What the kernel still has of ours, as far as it can be asked, but for the bridge.
pub(crate) async fn left() -> Vec<String> {
    let mut found = Vec::new();
    if let Ok(kernel) = Nft::open_current() {
        for table in [proxy::TABLE, host_ports::TABLE] {
            if kernel.has_table(table).await.unwrap_or(false) {
                found.push(format!("nft table inet {table}"));
            }
        }
    }
    if let Ok(netlink) = Netlink::open_current() {
        let routes = netlink.routes(ROUTE_PROTOCOL).await.unwrap_or_default();
        found.extend(routes.iter().map(|route| format!("route {}", route.destination)));
    }
    found
}

/// Somebody else's filters that drop pods' packets to other machines, or (`input`) packets for this one; none where the kernel cannot be asked.
pub(crate) async fn closed(input: bool) -> Vec<String> {
    let Ok(kernel) = Nft::open_current() else { return Vec::new() };
    kernel.closed(input, BRIDGE).await.unwrap_or_default()
}

/// Routes to other nodes, and the bridge that pods were on.
async fn remove_links() -> Result<(), netns::Error> {
    let netlink = Netlink::open_current()?;
    netlink.sync_routes(&[]).await?;
    netlink.delete_link(BRIDGE).await?;
    Ok(())
}
