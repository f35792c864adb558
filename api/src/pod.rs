//! Questions that many ask about a pod.

use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Where a pod came from: `file`, `http` or `api`; absent means the API.
pub const SOURCE_ANNOTATION: &str = "kubernetes.io/config.source";
/// The hash of a static pod's manifest.
pub const HASH_ANNOTATION: &str = "kubernetes.io/config.hash";
/// Marks the API's image of a static pod; the value is the static pod's hash.
pub const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// Whether the phase is `Succeeded` or `Failed`.
#[must_use]
pub fn is_terminal(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| is_terminal_phase(status.phase.as_deref()))
}

/// Namespaced, isolated and harmless sysctls (API doc of safe sysctls), in the order in which releases came to allow them.
pub const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// Whether a phase is `Succeeded` or `Failed`.
#[must_use]
pub fn is_terminal_phase(phase: Option<&str>) -> bool {
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether the condition `Ready` is `True`.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    crate::conditions::is_true(conditions, "Ready")
}

/// Whether the pod is a manifest of the node's own.
#[must_use]
pub fn is_static(pod: &Pod) -> bool {
    annotation(pod, SOURCE_ANNOTATION).is_some_and(|source| source != "api")
}

/// Whether the pod is the API's image of a static pod.
#[must_use]
pub fn is_mirror(pod: &Pod) -> bool {
    annotation(pod, MIRROR_ANNOTATION).is_some()
}

/// Priority from which a pod is critical (`SystemCriticalPriority`).
pub const CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// Whether a node must keep a pod running before all others (`IsCriticalPod`).
#[must_use]
pub fn is_critical(pod: &Pod) -> bool {
    let priority = pod.spec.as_ref().and_then(|spec| spec.priority);
    is_static(pod) || is_mirror(pod) || priority.is_some_and(|priority| priority >= CRITICAL_PRIORITY)
}

/// The value of an annotation.
#[must_use]
pub fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// `name_namespace(uid)`, as logs and events of a node name a pod.
#[must_use]
pub fn full_name(pod: &Pod) -> String {
    let meta = &pod.metadata;
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    format!("{}_{}({})", text(&meta.name), text(&meta.namespace), text(&meta.uid))
}

/// All ports of sidecars and containers, in this order: what a Service can name.
pub fn ports(spec: &PodSpec) -> impl Iterator<Item = &ContainerPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|container| crate::resources::is_sidecar(container));
    spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten())
}

/// The port that a Service's `targetPort` means in this pod; `protocol` is that of the Service's port.
#[must_use]
pub fn port(spec: &PodSpec, target: &IntOrString, protocol: &str) -> Option<i32> {
    match target {
        IntOrString::Int(port) => Some(*port),
        IntOrString::String(name) => ports(spec)
            .find(|port| port.name.as_ref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP") == protocol)
            .map(|port| port.container_port),
    }
}

/// The port that a probe or hook of a container means; a text of digits is a number.
#[must_use]
pub fn container_port(container: &Container, port: &IntOrString) -> Option<i32> {
    let number = match port {
        IntOrString::Int(port) => Some(*port),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|port| port.name.as_ref() == Some(name))
            .map(|port| port.container_port)
            .or_else(|| name.parse().ok()),
    };
    number.filter(|number| (1..=65535).contains(number))
}

/// The container, init container or ephemeral container of a name. An ephemeral container is returned as a container.
#[must_use]
pub fn container<'a>(spec: &'a PodSpec, name: &str) -> Option<std::borrow::Cow<'a, Container>> {
    let plain = spec.init_containers.iter().flatten().chain(&spec.containers).find(|container| container.name == name);
    plain.map(std::borrow::Cow::Borrowed).or_else(|| {
        let ephemeral = spec.ephemeral_containers.iter().flatten().find(|container| container.name == name)?;
        Some(std::borrow::Cow::Owned(from_ephemeral(ephemeral)))
    })
}

/// An ephemeral container as a container: the fields are the same, but for the target.
#[must_use]
pub fn from_ephemeral(ephemeral: &k8s_openapi::api::core::v1::EphemeralContainer) -> Container {
    let from = ephemeral.clone();
    Container {
        args: from.args,
        command: from.command,
        env: from.env,
        env_from: from.env_from,
        image: from.image,
        image_pull_policy: from.image_pull_policy,
        lifecycle: from.lifecycle,
        liveness_probe: from.liveness_probe,
        name: from.name,
        ports: from.ports,
        readiness_probe: from.readiness_probe,
        resize_policy: from.resize_policy,
        resources: from.resources,
        restart_policy: from.restart_policy,
        restart_policy_rules: from.restart_policy_rules,
        security_context: from.security_context,
        startup_probe: from.startup_probe,
        stdin: from.stdin,
        stdin_once: from.stdin_once,
        termination_message_path: from.termination_message_path,
        termination_message_policy: from.termination_message_policy,
        tty: from.tty,
        volume_devices: from.volume_devices,
        volume_mounts: from.volume_mounts,
        working_dir: from.working_dir,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_ports() {
        let spec: PodSpec = serde_json::from_value(serde_json::json!({"containers": [
            {"name": "a", "ports": [{"name": "dns", "containerPort": 53, "protocol": "UDP"}]},
            {"name": "b", "ports": [{"name": "http", "containerPort": 8080}]}]}))
        .unwrap();
        let named = |name: &str| IntOrString::String(name.into());
        assert_eq!(port(&spec, &named("http"), "TCP"), Some(8080));
        assert_eq!(port(&spec, &named("dns"), "TCP"), None);
        assert_eq!(port(&spec, &named("dns"), "UDP"), Some(53));
        assert_eq!(port(&spec, &IntOrString::Int(7), "TCP"), Some(7));
        let b = container(&spec, "b").unwrap();
        assert_eq!(container_port(&b, &named("81")), Some(81));
        assert_eq!(container_port(&b, &IntOrString::Int(0)), None);
    }
}
