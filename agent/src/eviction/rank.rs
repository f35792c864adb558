//! Which pod goes first (pkg/kubelet/eviction/helpers.go), what is reclaimed before any goes, and what is said of it.
//! Pure.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use api::quantity::{Format, Quantity};
use k8s_openapi::api::core::v1::{Container, Pod, Volume};

use super::decide::Observations;
use super::threshold::{Disks, Signal, Threshold};

/// A pod that may be evicted, with what it uses. `None` where that is not known.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub pod: Arc<Pod>,
    pub used: Option<Used>,
}

/// What a pod uses.
#[derive(Debug, Clone, Default)]
pub struct Used {
    /// Bytes of the working set.
    pub memory: u64,
    pub processes: u64,
    /// By container name.
    pub containers: BTreeMap<String, ContainerUse>,
    /// By volume name.
    pub volumes: BTreeMap<String, Disk>,
    /// Everything that counts for `ephemeral-storage`.
    pub ephemeral: Disk,
}

/// What a container uses.
#[derive(Debug, Clone, Copy, Default)]
pub struct ContainerUse {
    /// Bytes of the working set.
    pub memory: u64,
    pub rootfs: Disk,
    pub logs: Disk,
}

/// Space on a filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Disk {
    pub bytes: u64,
    pub inodes: u64,
}

impl Disk {
    fn plus(self, other: Self) -> Self {
        Self { bytes: self.bytes.saturating_add(other.bytes), inodes: self.inodes.saturating_add(other.inodes) }
    }

    fn of(self, signal: Signal) -> u64 {
        if signal.resource() == "inodes" { self.inodes } else { self.bytes }
    }
}

/// What is removed before any pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reclaim {
    /// Containers that have ended.
    Containers,
    /// Images that nothing uses.
    Images,
}

/// What helps against a shortage without ending a pod.
#[must_use]
pub fn reclaims(signal: Signal, disks: Disks) -> &'static [Reclaim] {
    use Signal::{ContainerFs, ContainerFsInodes, ImageFs, ImageFsInodes, NodeFs, NodeFsInodes};
    match (signal, disks) {
        (NodeFs | NodeFsInodes, Disks::ImageFs) => &[],
        (NodeFs | NodeFsInodes | ContainerFs | ContainerFsInodes, Disks::Split) => &[Reclaim::Containers],
        (ImageFs | ImageFsInodes, Disks::Split) => &[Reclaim::Images],
        (NodeFs | NodeFsInodes | ImageFs | ImageFsInodes | ContainerFs | ContainerFsInodes, _) => {
            &[Reclaim::Containers, Reclaim::Images]
        }
        _ => &[],
    }
}

/// Puts the pod that goes first first: those that use more than they asked for, then by priority, then by how much more.
pub fn rank(candidates: &mut [Candidate], signal: Signal, disks: Disks) {
    match signal {
        Signal::Memory | Signal::AllocatableMemory => candidates.sort_by(|a, b| {
            let over = |c: &Candidate| c.used.as_ref().map(|used| over(used.memory, requested(&c.pod, "memory")));
            known(a, b)
                .then_with(|| (over(b) > Some(0)).cmp(&(over(a) > Some(0))))
                .then_with(|| priority(a).cmp(&priority(b)))
                .then_with(|| over(b).cmp(&over(a)))
        }),
        Signal::Pid => candidates.sort_by(|a, b| {
            let processes = |c: &Candidate| c.used.as_ref().map(|used| used.processes);
            priority(a).cmp(&priority(b)).then_with(|| known(a, b)).then_with(|| processes(b).cmp(&processes(a)))
        }),
        _ => candidates.sort_by(|a, b| {
            let over = |c: &Candidate| {
                let requested = if signal.resource() == "inodes" { 0 } else { requested(&c.pod, "ephemeral-storage") };
                c.used.as_ref().map(|used| over(disk(used, &c.pod, signal, disks).of(signal), requested))
            };
            known(a, b)
                .then_with(|| (over(b) > Some(0)).cmp(&(over(a) > Some(0))))
                .then_with(|| priority(a).cmp(&priority(b)))
                .then_with(|| over(b).cmp(&over(a)))
        }),
    }
}

/// A pod of which nothing is known goes before one of which something is.
fn known(a: &Candidate, b: &Candidate) -> Ordering {
    a.used.is_some().cmp(&b.used.is_some())
}

fn priority(candidate: &Candidate) -> i32 {
    candidate.pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0)
}

/// How much more is used than was asked for; less is below zero.
fn over(used: u64, requested: i64) -> i64 {
    i64::try_from(used).unwrap_or(i64::MAX).saturating_sub(requested)
}

fn requested(pod: &Pod, resource: &str) -> i64 {
    let requests = pod.spec.as_ref().map(api::resources::requests).unwrap_or_default();
    requests.get(resource).map_or(0, Quantity::value)
}

/// What of a pod's use lies on the filesystem that runs short.
fn disk(used: &Used, pod: &Pod, signal: Signal, disks: Disks) -> Disk {
    use Signal::{ContainerFs, ContainerFsInodes, ImageFs, ImageFsInodes};
    let on_images = matches!(signal, ImageFs | ImageFsInodes);
    let on_containers = matches!(signal, ContainerFs | ContainerFsInodes);
    let (rootfs, own) = match disks {
        Disks::One => (true, true),
        Disks::ImageFs => (on_images || on_containers, !(on_images || on_containers)),
        // Images themselves are no pod's.
        Disks::Split => (!on_images, !on_images),
    };
    let containers = used.containers.values().fold(Disk::default(), |sum, container| {
        let rootfs = if rootfs { container.rootfs } else { Disk::default() };
        let logs = if own { container.logs } else { Disk::default() };
        sum.plus(rootfs).plus(logs)
    });
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).filter(|_| own);
    volumes
        .filter(|volume| is_local(volume))
        .filter_map(|volume| used.volumes.get(&volume.name))
        .fold(containers, |sum, volume| sum.plus(*volume))
}

fn is_local(volume: &Volume) -> bool {
    volume.host_path.is_some() || crate::stats::is_ephemeral(volume)
}

/// What is said of an eviction, with annotations for machines.
#[must_use]
pub fn message(
    candidate: &Candidate,
    short: &Threshold,
    thresholds: &[&Threshold],
    observations: &Observations,
) -> (String, BTreeMap<String, String>) {
    let resource = short.signal.resource();
    let mut text = format!("The node was low on resource: {resource}. ");
    let met = thresholds.iter().filter(|threshold| threshold.signal.resource() == resource);
    let met = met.filter_map(|threshold| Some((threshold, observations.get(&threshold.signal)?))).next();
    if let Some((threshold, observed)) = met {
        let wanted = threshold.value.of(observed.capacity);
        let available = threshold.signal.quantity(observed.available);
        text.push_str(&format!("Threshold quantity: {wanted}, available: {available}. "));
    }
    let mut annotations = BTreeMap::new();
    let Some(used) = &candidate.used else { return (text, annotations) };
    let spec = candidate.pod.spec.clone().unwrap_or_default();
    let pod_request = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()?.get(resource));
    if let Some(request) = pod_request.filter(|_| resource == "memory") {
        let name = candidate.pod.metadata.name.clone().unwrap_or_default();
        let usage = bytes(used.memory).to_string();
        text.push_str(&format!(
            "Pod {name} was using {usage}, request is {}, has larger consumption of {resource}. ",
            request.0
        ));
        annotations.insert("offending_pod".to_owned(), name);
        annotations.insert("offending_pod_usage".to_owned(), usage);
    }
    let (mut names, mut usages) = (Vec::new(), Vec::new());
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        let Some(usage) = used.containers.get(&container.name).and_then(|used| usage(used, resource)) else { continue };
        let request = request(container, resource);
        if usage > request {
            text.push_str(&format!(
                "Container {} was using {usage}, request is {request}, has larger consumption of {resource}. ",
                container.name
            ));
            names.push(container.name.clone());
            usages.push(usage.to_string());
        }
    }
    annotations.insert("offending_containers".to_owned(), names.join(","));
    annotations.insert("offending_containers_usage".to_owned(), usages.join(","));
    annotations.insert("starved_resource".to_owned(), resource.to_owned());
    (text, annotations)
}

fn usage(used: &ContainerUse, resource: &str) -> Option<Quantity> {
    match resource {
        "memory" => Some(bytes(used.memory)),
        "ephemeral-storage" => Some(bytes(used.rootfs.bytes.saturating_add(used.logs.bytes))),
        _ => None,
    }
}

fn request(container: &Container, resource: &str) -> Quantity {
    let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    requests.and_then(|requests| requests.get(resource)?.0.parse().ok()).unwrap_or(Quantity::ZERO)
}

fn bytes(count: u64) -> Quantity {
    Quantity::new(i64::try_from(count).unwrap_or(i64::MAX), Format::BinarySi)
}

#[cfg(test)]
mod tests;
