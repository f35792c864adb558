//! Asks machine, runtime and API server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use systemd::{Manager, Role};

use super::{Finding, judge, limits, pods};
use crate::client::watch::describe;
use crate::config::{Config, Layout};
use crate::identity::{self, Identity};
use crate::network::{self, BRIDGE, CONFLIST, Folders};
use crate::node::facts;
use crate::pods::resolv_conf;
use crate::{join, leave, own_files, preflight, runtime_info, shutdown};

/// How long anybody may take for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The plugin that a pod's network begins with.
const PLUGIN: &str = "bridge";
/// What a node has on a machine where nothing was chosen otherwise, beside its folders and apart from what its runtime keeps. The folder of all pods'
/// logs is that of any kubelet.
const TRACES: [&str; 9] = [
    "/etc/systemd/system/agent.service",
    "/etc/systemd/system/multi-user.target.wants/agent.service",
    "/etc/modules-load.d/keelson.conf",
    "/etc/sysctl.d/90-keelson.conf",
    "/etc/cni/net.d/10-keelson.conflist",
    "/opt/cni/bin/keelson-cni",
    "/usr/lib/cni/keelson-cni",
    "/sys/fs/cgroup/kubepods",
    "/sys/fs/cgroup/kubepods.slice",
];

/// What a machine still has of a node.
pub(super) async fn leftovers() -> Vec<Finding> {
    let layout = Layout::new("/etc/keelson", "/var/lib/keelson", "/run/keelson");
    let link = Path::new("/sys/class/net").join(BRIDGE);
    let paths = TRACES.iter().map(PathBuf::from).chain([link]).chain(network::cached());
    // Also a link to a unit that is gone.
    let mut left: Vec<PathBuf> = paths.filter(|path| path.symlink_metadata().is_ok()).collect();
    left.extend(own_files::left(&layout));
    left.extend(shutdown::overridden());
    let mut left: Vec<String> = left.iter().map(|path| path.display().to_string()).collect();
    let mounted = volumes::teardown::mounted(&volumes::Layout::new(&layout.data_dir)).unwrap_or_default();
    left.extend(mounted.iter().map(|(_, point)| format!("mount {}", point.display())));
    left.extend(network::left().await);
    if left.is_empty() {
        return vec![Finding::ok("leftovers", "none")];
    }
    left.into_iter().map(|what| Finding::fault("leftover", what, "agent leave --force removes it")).collect()
}

/// A node, from its configuration up.
pub(crate) async fn node(config_dir: &Path) -> Vec<Finding> {
    let (config, mut findings) = essentials(config_dir).await;
    let Some(config) = config else { return findings };
    findings.extend(machine(&config));
    findings.extend(cni(&config).await);
    findings.extend(network::closed(false).await.iter().map(|chain| judge::closed(chain)));
    findings.push(limits::look());
    findings.extend(pods::look(&config).await);
    findings
}

/// What matters most of a node: configuration, service, certificates, runtime, API server; and its configuration, where there is one.
pub(crate) async fn essentials(config_dir: &Path) -> (Option<Config>, Vec<Finding>) {
    let config = match Config::load(config_dir) {
        Ok((config, _)) => config,
        Err(error) => {
            return (None, vec![Finding::fault("configuration", describe(&error), error.remedy())]);
        }
    };
    let mut findings =
        vec![Finding::ok("configuration", format!("node {} of {}", config.node.node_name, config.node.server.urls()))];
    findings.extend(service());
    findings.extend(certificates(&config));
    findings.extend(runtime(&config.kubelet.container_runtime_endpoint).await);
    findings.extend(cluster(&config).await);
    (Some(config), findings)
}

fn service() -> Option<Finding> {
    if !systemd::is_running() {
        return None;
    }
    Some(if Manager::default().is_active(Role::Agent) {
        Finding::ok("service", "agent.service is active")
    } else {
        Finding::fault("service", "agent.service is not active", "systemctl start agent; journalctl -u agent")
    })
}

fn certificates(config: &Config) -> Vec<Finding> {
    let now = identity::now();
    let mut findings = Vec::new();
    let mut files = vec![("client certificate", config.layout.client_pem())];
    if config.kubelet.tls_cert_file.is_empty() {
        files.push(("serving certificate", config.layout.serving_pem()));
    }
    for (subject, path) in files {
        findings.push(match Identity::load(&path) {
            Ok(identity) => judge::certificate(subject, identity.map(|i| (i.not_before, i.not_after)), now),
            Err(error) => Finding::fault(subject, describe(&error), judge::REJOIN),
        });
    }
    findings
}

async fn runtime(endpoint: &str) -> Vec<Finding> {
    let asking = async {
        let runtime = cri::Client::new(endpoint).map_err(|error| error.to_string())?;
        runtime.status(cri::v1::StatusRequest { verbose: false }).await.map_err(|error| describe(&error))
    };
    let answer = tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| Err("no answer".into()));
    judge::runtime(answer, endpoint)
}

async fn cluster(config: &Config) -> Vec<Finding> {
    let name = &config.node.node_name;
    let client = match leave::node_client(config) {
        Ok(client) => client,
        Err(error) => return judge::node(name, Err(format!("{error:#}"))),
    };
    let asking = async {
        let nodes: Api<Node> = Api::all(client.clone());
        nodes.get(name).await.map_err(|error| describe(&error))
    };
    let answer = tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| Err("no answer".into()));
    let answered = answer.is_ok();
    let mut findings = judge::node(name, answer);
    if answered {
        findings.extend(judge::clock(join::clock(&client, config.node.server.first()).await));
    }
    findings
}

/// What of ours is where the runtime looks.
async fn cni(config: &Config) -> Vec<Finding> {
    let info = match cri::Client::new(&config.kubelet.container_runtime_endpoint) {
        Ok(runtime) => tokio::time::timeout(PATIENCE, runtime_info::ask(&runtime)).await.ok().and_then(Result::ok),
        Err(_) => None,
    };
    // That it does not answer is said elsewhere.
    let Some(info) = info else { return Vec::new() };
    let folders = Folders::of(&config.node, &info);
    let is_there = |path: PathBuf| (path.display().to_string(), path.exists());
    vec![
        judge::cni_configuration(is_there(folders.conf.join(CONFLIST)), &config.node, &info),
        judge::cni_plugins(is_there(folders.bin.join(PLUGIN)), &config.node, &info),
    ]
}

fn machine(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Err(refusal) = preflight::check(Path::new("/"), &config.kubelet) {
        findings.push(Finding::fault(
            "machine",
            refusal.to_string(),
            "change the one or the other; the agent does not start so",
        ));
    }
    if let Some(disk) = facts::filesystem(&config.layout.data_dir) {
        findings.push(judge::disk(disk.available, disk.capacity));
    }
    if let Ok(value) = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward") {
        findings.push(judge::forwarding(&value));
    }
    let settings = resolv_conf::Settings::from(&config.kubelet);
    findings.extend(judge::dns(settings.node().map_err(|error| describe(&error))));
    let [bridged, _] = proxy::BRIDGE_SYSCTLS;
    findings.push(judge::bridged(netns::sysctl::read_current(bridged).ok().as_deref()));
    findings
}
