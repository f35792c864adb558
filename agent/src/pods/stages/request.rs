//! CRI requests from a pod's spec (pkg/kubelet/kuberuntime, `generatePodSandboxConfig` and `generateContainerConfig`).
//! Pure: whatever must be looked up is an argument.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use cri::v1::{
    ContainerConfig, ContainerMetadata, Device, DnsConfig, ImageSpec, KeyValue, LinuxContainerConfig,
    LinuxPodSandboxConfig, Mount, MountPropagation, PodSandboxConfig, PodSandboxMetadata, PortMapping, Protocol,
    Signal, UserNamespace,
};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use pod::StartContainer;
use pod::env::expand;
use pod::resolve::DnsConfig as Dns;
use volumes::plan::{MountPlan, Propagation};

use super::limits::{self, Machine};
use super::security::{self, Given, SecurityError};
use crate::pods::labels;

/// Where a container's end is explained, unless it says otherwise.
pub const MESSAGE_PATH: &str = "/dev/termination-log";

/// What a sandbox is made from beside the pod.
#[derive(Debug, Clone)]
pub struct SandboxParts {
    pub attempt: u32,
    pub hostname: String,
    pub log_directory: PathBuf,
    pub dns: Dns,
    pub cgroup_parent: String,
    /// The file with the pause container's seccomp profile.
    pub seccomp: String,
    pub users: UserNamespace,
}

/// The configuration of a pod's sandbox.
#[must_use]
pub fn sandbox(pod: &Pod, parts: &SandboxParts, machine: &Machine) -> PodSandboxConfig {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let host_network = spec.host_network.unwrap_or(false);
    let identity = pod_identity(pod);
    PodSandboxConfig {
        metadata: identity.metadata.map(|metadata| PodSandboxMetadata { attempt: parts.attempt, ..metadata }),
        // A pod on the node's network has the node's name.
        hostname: if host_network { String::new() } else { parts.hostname.clone() },
        log_directory: parts.log_directory.to_string_lossy().into_owned(),
        dns_config: Some(DnsConfig {
            servers: parts.dns.servers.clone(),
            searches: parts.dns.searches.clone(),
            options: parts.dns.options.clone(),
        }),
        port_mappings: port_mappings(spec),
        labels: identity.labels,
        annotations: sandbox_annotations(pod),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: parts.cgroup_parent.clone(),
            security_context: Some(security::sandbox(spec, &parts.seccomp, &parts.users)),
            sysctls: pod::resolve::sysctls(pod).into_iter().collect(),
            overhead: Some(limits::overhead(spec, machine)),
            resources: Some(limits::sandbox(spec, machine)),
        }),
        windows: None,
    }
}

fn pod_labels(pod: &Pod) -> HashMap<String, String> {
    let mut out: HashMap<_, _> =
        pod.metadata.labels.iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
    identity(pod, &mut out);
    out
}

/// The labels that a pod's parts are found by.
fn identity(pod: &Pod, labels: &mut HashMap<String, String>) {
    for (label, value) in [
        (labels::POD_NAME, &pod.metadata.name),
        (labels::POD_NAMESPACE, &pod.metadata.namespace),
        (labels::POD_UID, &pod.metadata.uid),
    ] {
        labels.insert(label.to_owned(), value.clone().unwrap_or_default());
    }
}

fn sandbox_annotations(pod: &Pod) -> HashMap<String, String> {
    let mut out: HashMap<_, _> =
        pod.metadata.annotations.iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
    out.entry(labels::CONFIG_SOURCE.to_owned()).or_insert_with(|| "api".to_owned());
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0.to_string()).unwrap_or_default();
    out.entry(labels::CONFIG_SEEN.to_owned()).or_insert(created);
    out
}

fn port_mappings(spec: &PodSpec) -> Vec<PortMapping> {
    let protocol = |name: &str| Protocol::from_str_name(name).unwrap_or(Protocol::Tcp);
    let mappings = pod::resolve::port_mappings(spec).into_iter().map(|mapping| PortMapping {
        protocol: protocol(&mapping.protocol).into(),
        container_port: mapping.container_port,
        host_port: mapping.host_port,
        host_ip: mapping.host_ip,
    });
    mappings.collect()
}

/// A pod as pulls are told of it.
#[must_use]
pub fn pod_identity(pod: &Pod) -> PodSandboxConfig {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let meta = &pod.metadata;
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: text(&meta.name),
            uid: text(&meta.uid),
            namespace: text(&meta.namespace),
            attempt: 0,
        }),
        labels: pod_labels(pod),
        ..PodSandboxConfig::default()
    }
}

/// What a container is made from beside the pod.
#[derive(Debug, Clone)]
pub struct ContainerParts<'a> {
    pub start: &'a StartContainer,
    /// The reference that the runtime knows the image by.
    pub image: String,
    pub env: BTreeMap<String, String>,
    pub mounts: Vec<Mount>,
    pub devices: Vec<Device>,
    pub machine: Machine,
    pub given: Given<'a>,
}

/// The configuration of a container.
///
/// # Errors
/// A container that must not run as root, and would, or that cannot be confined as it is to be.
pub fn container(
    pod: &Pod,
    container: &Container,
    parts: ContainerParts<'_>,
) -> Result<ContainerConfig, SecurityError> {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let security_context = security::container(pod, spec, container, &parts.given)?;
    let expanded = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|text| expand(text, |name| parts.env.get(name).cloned())).collect()
    };
    let attempt = parts.start.attempt;
    Ok(ContainerConfig {
        metadata: Some(ContainerMetadata { name: container.name.clone(), attempt }),
        image: Some(ImageSpec {
            image: parts.image.clone(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..ImageSpec::default()
        }),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: parts.env.iter().map(|(key, value)| KeyValue { key: key.clone(), value: value.clone().into() }).collect(),
        mounts: parts.mounts.into_iter().map(|mount| mapped(mount, parts.given.users)).collect(),
        devices: parts.devices,
        labels: container_labels(pod, container),
        annotations: container_annotations(spec, container, parts.start),
        log_path: log_path(&container.name, attempt),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        linux: Some(LinuxContainerConfig {
            resources: Some(limits::container(spec, container, &parts.machine)),
            security_context: Some(security_context),
        }),
        stop_signal: stop_signal(container).into(),
        ..ContainerConfig::default()
    })
}

/// Files belong to the same users inside of a user namespace as outside (idmapped mounts).
fn mapped(mount: Mount, users: &UserNamespace) -> Mount {
    Mount { uid_mappings: users.uids.clone(), gid_mappings: users.gids.clone(), ..mount }
}

/// The labels that a container is found by.
#[must_use]
pub fn container_labels(pod: &Pod, container: &Container) -> HashMap<String, String> {
    let mut out = HashMap::from([(labels::CONTAINER_NAME.to_owned(), container.name.clone())]);
    identity(pod, &mut out);
    out
}

fn container_annotations(spec: &PodSpec, container: &Container, start: &StartContainer) -> HashMap<String, String> {
    let grace = spec.termination_grace_period_seconds.unwrap_or(30);
    let mut out: HashMap<_, _> = [
        (labels::HASH, start.spec_hash.clone()),
        (labels::RESTART_COUNT, start.attempt.to_string()),
        (labels::MESSAGE_PATH, message_path(container)),
        (labels::MESSAGE_POLICY, container.termination_message_policy.clone().unwrap_or_else(|| "File".to_owned())),
        (labels::POD_GRACE, grace.to_string()),
        (labels::BACKOFF, start.backoff.to_string()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect();
    let json = |value: Option<String>| value.filter(|text| text != "null" && text != "[]");
    if let Some(ports) = json(serde_json::to_string(&container.ports).ok()) {
        out.insert(labels::PORTS.to_owned(), ports);
    }
    if let Some(resources) = json(serde_json::to_string(&api::resources::in_effect(spec, container)).ok()) {
        out.insert(labels::RESOURCES.to_owned(), resources);
    }
    out
}

/// `terminationMessagePath`, from the root where it does not say so (`MakeAbsolutePath`).
#[must_use]
pub fn message_path(container: &Container) -> String {
    match container.termination_message_path.as_deref() {
        None | Some("") => MESSAGE_PATH.to_owned(),
        Some(path) if path.starts_with('/') => path.to_owned(),
        Some(path) => format!("/{path}"),
    }
}

/// A container's log below its pod's log folder.
#[must_use]
pub fn log_path(name: &str, attempt: u32) -> String {
    format!("{name}/{attempt}.log")
}

/// `lifecycle.stopSignal`; the image's own where unset.
fn stop_signal(container: &Container) -> Signal {
    let name = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.as_deref()).unwrap_or_default();
    Signal::from_str_name(name).unwrap_or(Signal::RuntimeDefault)
}

/// The folder of a pod's logs: `<root>/<namespace>_<name>_<uid>`.
#[must_use]
pub fn log_directory(root: &Path, pod: &Pod) -> PathBuf {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let meta = &pod.metadata;
    root.join(format!("{}_{}_{}", text(&meta.namespace), text(&meta.name), text(&meta.uid)))
}

/// How a volume that lies on the node is mounted, beside what its mount says.
#[derive(Debug, Clone, Copy, Default)]
pub struct MountOptions {
    /// What is mounted below is read-only too.
    pub recursive: bool,
    /// Its files get the SELinux label of the container.
    pub relabel: bool,
}

/// One mount of a volume that lies at `host_path`.
#[must_use]
pub fn mount(plan: &MountPlan, host_path: &Path, options: MountOptions) -> Mount {
    let propagation = match plan.propagation {
        Propagation::None => MountPropagation::PropagationPrivate,
        Propagation::HostToContainer => MountPropagation::PropagationHostToContainer,
        Propagation::Bidirectional => MountPropagation::PropagationBidirectional,
    };
    Mount {
        container_path: plan.container_path.clone(),
        host_path: host_path.to_string_lossy().into_owned(),
        readonly: plan.read_only,
        propagation: propagation.into(),
        recursive_read_only: options.recursive,
        selinux_relabel: options.relabel,
        ..Mount::default()
    }
}

/// A file of the agent's that every container gets: /etc/hosts, the termination message. `relabel`: it gets the SELinux label of the container.
#[must_use]
pub fn file_mount(container_path: &str, host_path: &Path, relabel: bool) -> Mount {
    Mount {
        container_path: container_path.to_owned(),
        host_path: host_path.to_string_lossy().into_owned(),
        selinux_relabel: relabel,
        ..Mount::default()
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
