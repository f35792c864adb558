//! What is said of containers, and of the ports of all of them together.

use serde_json::Value;

use super::{USE_SECCOMP_PROFILE, repeats};
use crate::errors::{Path, quote};
use crate::pod::{app_armor, resources};
use crate::value::Fields;
use crate::warnings::{COMPARED, Warnings};

/// In upstream's order.
const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];
const SECCOMP: &str = "container.seccomp.security.alpha.kubernetes.io/";

/// Of each container of a pod or a template, whose spec and annotations lie at these paths.
pub(super) fn each(
    object: &Value,
    is_template: bool,
    (path, annotations_path): (&Path, &Path),
    warnings: &mut Warnings,
) {
    let (spec, annotations) = (object.at("spec"), object.at("metadata").at("annotations"));
    for list in LISTS {
        let path = path.child(list);
        for (index, container) in spec.list(list).iter().enumerate() {
            if annotations.as_object().is_some_and(|all| !all.is_empty()) {
                let of_pod = spec.at("securityContext").at("appArmorProfile");
                let asked = is_template.then_some(of_pod);
                profiles(container, annotations, asked, annotations_path, warnings);
            }
            let path = path.index(index);
            for name in ["memory", "ephemeral-storage"] {
                for field in ["limits", "requests"] {
                    let amounts = container.at("resources").at(field);
                    let path = path.child("resources");
                    resources::fractional(amounts, name, &path.child(field), warnings);
                }
            }
            environment(container.list("env"), &path.child("env"), warnings);
        }
    }
}

/// Annotations of profiles that have become fields; AppArmor's where the profile of the template's pod is given.
fn profiles(container: &Value, annotations: &Value, of_pod: Option<&Value>, path: &Path, warnings: &mut Warnings) {
    let key = format!("{SECCOMP}{}", container.text("name"));
    if annotations.has(&key) && !container.at("securityContext").has("seccompProfile") {
        warnings.of(&path.key(&key), USE_SECCOMP_PROFILE);
    }
    if let Some(of_pod) = of_pod {
        app_armor_profile(container, annotations, of_pod, path, warnings);
    }
}

/// Of a new pod, before the annotations of AppArmor become fields (`applyAppArmorVersionSkew`).
pub(super) fn app_armor_profiles(pod: &Value, warnings: &mut Warnings) {
    let (spec, annotations) = (pod.at("spec"), pod.at("metadata").at("annotations"));
    let is_named = |key: &String| key.starts_with(app_armor::PREFIX);
    let named = annotations.as_object().is_some_and(|all| all.keys().any(is_named));
    if !named || spec.at("os").text("name") == "windows" {
        return;
    }
    let (of_pod, path) = (spec.at("securityContext").at("appArmorProfile"), Path::root("metadata.annotations"));
    for container in LISTS.into_iter().flat_map(|list| spec.list(list)) {
        app_armor_profile(container, annotations, of_pod, &path, warnings);
    }
}

/// An annotation that no field says, neither the container's nor that of its pod.
fn app_armor_profile(container: &Value, annotations: &Value, of_pod: &Value, path: &Path, warnings: &mut Warnings) {
    if container.at("securityContext").has("appArmorProfile") {
        return;
    }
    let key = format!("{}{}", app_armor::PREFIX, container.text("name"));
    let Some(annotation) = annotations.at(&key).as_str() else { return };
    if of_pod.is_null() || app_armor::profile(annotation).as_ref() != Some(of_pod) {
        warnings.of(&path.key(&key), "deprecated since v1.30; use the \"appArmorProfile\" field instead");
    }
}

/// A variable may be set again from its own value before (`X=$(X)more`).
fn environment(variables: &[Value], path: &Path, warnings: &mut Warnings) {
    for (index, name) in repeats(variables, "name") {
        let Some(variable) = variables.get(index) else { continue };
        let (before, value) = (format!("$({name})"), variable.text("value"));
        if variable.has("valueFrom") || value == before || !value.contains(&before) {
            let name = quote(name);
            warnings.of(
                &path.index(index),
                format_args!("hides previous definition of {name}, which may be dropped when using apply"),
            );
        }
    }
}

/// A port, and where it is.
#[derive(Clone, Copy)]
struct Port<'a> {
    list: &'static str,
    container: usize,
    index: usize,
    value: &'a Value,
}

impl Port<'_> {
    fn number(&self, field: &str) -> i64 {
        self.value.int(field).unwrap_or(0)
    }

    fn path(&self, spec: &Path) -> String {
        format!("{spec}.{}[{}].ports[{}]", self.list, self.container, self.index)
    }

    /// How two ports of one number are in each other's way.
    fn meets(&self, other: &Self) -> Option<&'static str> {
        let (host, others) = (self.number("hostPort"), other.number("hostPort"));
        let (ip, other_ip) = (self.value.text("hostIP"), other.value.text("hostIP"));
        if self.number("containerPort") != other.number("containerPort")
            || self.value.text("protocol") != other.value.text("protocol")
        {
            return None;
        }
        match () {
            () if ip == other_ip && host == others => Some("duplicate"),
            () if host == 0 || others == 0 => Some("overlapping"),
            () if host == others && (ip.is_empty() != other_ip.is_empty()) => Some("dangerously ambiguous"),
            () => None,
        }
    }
}

fn all_ports(spec: &Value) -> impl Iterator<Item = Port<'_>> {
    let containers = |list| spec.list(list).iter().enumerate().map(move |(index, item)| (list, index, item));
    let ports = LISTS.into_iter().flat_map(containers).flat_map(|(list, container, item)| {
        item.list("ports").iter().enumerate().map(move |(index, value)| Port { list, container, index, value })
    });
    ports.take(COMPARED)
}

/// Ports of all containers, which share one address.
pub(super) fn ports(spec: &Value, path: &Path, warnings: &mut Warnings) {
    for (index, port) in all_ports(spec).enumerate() {
        if !port.value.text("hostIP").is_empty() && port.number("hostPort") == 0 {
            let (place, shown) = (port.path(path), shown(&port));
            warnings.say(format!("{place}: hostIP set without hostPort: {shown}"));
        }
        for other in all_ports(spec).take(index) {
            if let Some(how) = port.meets(&other) {
                let (place, before) = (port.path(path), other.path(path));
                warnings.say(format!("{place}: {how} port definition with {before}"));
            }
        }
        if warnings.is_full() {
            return;
        }
    }
    for (index, port) in all_ports(spec).enumerate() {
        let name = port.value.text("name");
        let first = all_ports(spec).take(index).find(|other| !name.is_empty() && other.value.text("name") == name);
        if let Some(first) = first {
            let (place, name, first) = (port.path(path), quote(name), first.path(path));
            warnings.say(format!(
                "{place}: duplicate port name {name} with {first}, services and probes that select ports by name will use {first}"
            ));
        }
    }
}

/// As Go prints the struct.
fn shown(port: &Port<'_>) -> String {
    let text = |field| port.value.text(field);
    format!(
        "{{Name:{} HostPort:{} ContainerPort:{} Protocol:{} HostIP:{}}}",
        text("name"),
        port.number("hostPort"),
        port.number("containerPort"),
        text("protocol"),
        text("hostIP")
    )
}
