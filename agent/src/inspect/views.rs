//! What people are shown, as data. Pure.

use api::PodUid;
use api::quantity::Quantity;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerState, ContainerStatus, PodStatus};
use pod::{Explanation, Role};
use serde::{Deserialize, Serialize};

use crate::pods::journal::History;
use crate::pods::registry::Entry;
use crate::stats::Sample;
use crate::stats::sample::{ContainerSample, PodSample};

/// A pod of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodView {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub phase: String,
    /// `status.reason`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(rename = "podIP", skip_serializing_if = "Option::is_none")]
    pub pod_ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Timestamp>,
    /// It is deleted, and ends.
    pub terminating: bool,
    pub containers: Vec<ContainerView>,
}

/// A container of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerView {
    pub name: String,
    /// `init`, `sidecar`, `app` or `ephemeral`.
    pub role: String,
    pub image: String,
    /// In words.
    pub state: String,
    /// How the run before ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_state: Option<String>,
    pub ready: bool,
    pub restart_count: i32,
    /// Which probes it has.
    pub probes: Vec<String>,
}

/// What everything uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Top {
    pub at: Timestamp,
    pub node: Use,
    pub pods: Vec<PodUse>,
}

/// What a pod uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodUse {
    pub namespace: String,
    pub name: String,
    #[serde(flatten)]
    pub used: Use,
    pub containers: Vec<ContainerUse>,
}

/// What a container uses, and what it asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerUse {
    pub name: String,
    #[serde(flatten)]
    pub used: Use,
    pub requests: Use,
    pub limits: Use,
}

/// An amount of CPU and memory; `None` where there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Use {
    /// Thousandths of a core.
    pub cpu_millis: Option<u64>,
    pub memory_bytes: Option<u64>,
}

/// The answer to "why?".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// `None` when it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodView>,
    /// What is wanted next; `None` where nothing can be planned, because the runtime cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub now: Option<Explanation>,
    /// What was decided before, of every pod that had the name.
    pub history: Vec<History>,
}

/// All pods, by namespace and name.
#[must_use]
pub fn pods(entries: &[(PodUid, Entry)]) -> Vec<PodView> {
    let mut pods: Vec<PodView> = entries.iter().map(|(uid, entry)| pod(uid, entry)).collect();
    pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    pods
}

/// One pod.
#[must_use]
pub fn pod(uid: &PodUid, entry: &Entry) -> PodView {
    let (meta, none) = (&entry.pod.metadata, PodStatus::default());
    let status = entry.status.as_deref().or(entry.pod.status.as_ref()).unwrap_or(&none);
    let spec = entry.pod.spec.as_ref();
    let statuses = [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    let statuses: Vec<&ContainerStatus> = statuses.into_iter().flatten().flatten().collect();
    let init = spec.into_iter().flat_map(|spec| spec.init_containers.iter().flatten().cloned());
    let apps = spec.into_iter().flat_map(|spec| spec.containers.iter().cloned());
    let ephemeral = spec.into_iter().flat_map(|spec| spec.ephemeral_containers.iter().flatten());
    let containers = init.chain(apps).chain(ephemeral.map(api::pod::from_ephemeral)).map(|container| {
        let status = statuses.iter().find(|status| status.name == container.name);
        let role = pod::events::role(&entry.pod, &container.name).unwrap_or(Role::App);
        view(&container, role, status.copied())
    });
    PodView {
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        uid: uid.to_string(),
        phase: status.phase.clone().unwrap_or_else(|| "Pending".to_owned()),
        reason: status.reason.clone(),
        pod_ip: status.pod_ip.clone(),
        start_time: status.start_time.as_ref().map(|time| time.0),
        terminating: meta.deletion_timestamp.is_some(),
        containers: containers.collect(),
    }
}

fn view(container: &Container, role: Role, status: Option<&ContainerStatus>) -> ContainerView {
    let probes = [
        ("startup", container.startup_probe.is_some()),
        ("liveness", container.liveness_probe.is_some()),
        ("readiness", container.readiness_probe.is_some()),
    ];
    let role = match role {
        Role::Init => "init",
        Role::Sidecar => "sidecar",
        Role::App => "app",
        Role::Ephemeral => "ephemeral",
    };
    ContainerView {
        name: container.name.clone(),
        role: role.to_owned(),
        image: container.image.clone().unwrap_or_default(),
        state: status.and_then(|status| status.state.as_ref()).and_then(state).unwrap_or_else(|| "waiting".to_owned()),
        last_state: status.and_then(|status| status.last_state.as_ref()).and_then(state),
        ready: status.is_some_and(|status| status.ready),
        restart_count: status.map_or(0, |status| status.restart_count),
        probes: probes.into_iter().filter(|(_, has)| *has).map(|(name, _)| name.to_owned()).collect(),
    }
}

fn state(state: &ContainerState) -> Option<String> {
    if let Some(running) = &state.running {
        let since = running.started_at.as_ref().map(|at| format!(" since {:.0}", at.0));
        return Some(format!("running{}", since.unwrap_or_default()));
    }
    if let Some(ended) = &state.terminated {
        let reason = ended.reason.as_deref().unwrap_or("unknown");
        let at = ended.finished_at.as_ref().map(|at| format!(" at {:.0}", at.0));
        return Some(format!("exited {} ({reason}){}", ended.exit_code, at.unwrap_or_default()));
    }
    let waiting = state.waiting.as_ref()?;
    Some(waiting.reason.as_ref().map_or_else(|| "waiting".to_owned(), |reason| format!("waiting: {reason}")))
}

/// What a sample says, beside what specs ask for; who uses most memory comes first.
#[must_use]
pub fn top(entries: &[(PodUid, Entry)], sample: &Sample) -> Top {
    let mut pods: Vec<PodUse> = sample.pods.iter().map(|pod| pod_use(entries, pod)).collect();
    pods.sort_by_key(|pod| std::cmp::Reverse(pod.used.memory_bytes));
    Top { at: sample.at, node: used(&sample.node), pods }
}

fn used(used: &crate::stats::sample::Used) -> Use {
    Use {
        cpu_millis: used.nano_cores.map(|nanos| nanos.div_ceil(1_000_000)),
        memory_bytes: Some(used.stats.memory.working_set),
    }
}

fn pod_use(entries: &[(PodUid, Entry)], pod: &PodSample) -> PodUse {
    let spec = entries.iter().find(|(uid, _)| *uid == pod.uid).and_then(|(_, entry)| entry.pod.spec.as_ref());
    let of = |sample: &ContainerSample| {
        let container = spec.and_then(|spec| api::pod::container(spec, &sample.name));
        let resources = container.and_then(|container| container.resources.clone()).unwrap_or_default();
        ContainerUse {
            name: sample.name.clone(),
            used: used(&sample.used),
            requests: amount(resources.requests.as_ref().or(resources.limits.as_ref())),
            limits: amount(resources.limits.as_ref()),
        }
    };
    PodUse {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        used: used(&pod.used),
        containers: pod.containers.iter().map(of).collect(),
    }
}

type Amounts = std::collections::BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>;

fn amount(list: Option<&Amounts>) -> Use {
    let of = |name: &str, scale: fn(&Quantity) -> i64| {
        let quantity: Quantity = list?.get(name)?.0.parse().ok()?;
        u64::try_from(scale(&quantity)).ok()
    };
    Use { cpu_millis: of("cpu", Quantity::milli_value), memory_bytes: of("memory", Quantity::value) }
}
