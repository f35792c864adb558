//! What the API is told about a pod: the fields and words of a kubelet (`kubelet_pods.go`, `status/generate.go`).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{HostIP, Pod, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::plan::Plan;
use crate::resolve::pod_ips;
use crate::view::{Cause, Ending, View};
use crate::world::{Admission, World};

mod conditions;
mod containers;
mod overwritten;
mod phase;
mod resources;

pub(crate) use containers::is_restarting_all;
pub use overwritten::overwritten;
pub(crate) use resources::{IN_PROGRESS, PENDING};

/// `status.message` of a pod that ran longer than `activeDeadlineSeconds`.
pub(crate) const DEADLINE_MESSAGE: &str = "Pod was active on the node longer than the specified deadline";

/// The status of the pod in this world. A pod of which nothing is known any more has an empty one.
///
/// The plan is of the same world; the status tells what is, not what is planned, so that nothing of it is used yet.
#[must_use]
pub fn status(world: &World, _plan: &Plan) -> PodStatus {
    let view = View::new(world);
    let Some(pod) = view.pod else { return PodStatus::default() };
    let ending = view.ending();
    if view.was_terminal() && view.live().next().is_none() && !tells_of_running(world) {
        return settled(&view, pod);
    }
    if let Some(Admission::Rejected { reason, message }) = &world.admission
        && world.observed.containers.is_empty()
    {
        return rejected(world, pod, reason, message);
    }
    let mut status = base(world, pod);
    containers::fill(&view, ending.as_ref(), &mut status);
    let has_live = view.live().next().is_some();
    let phase = phase::phase(&view, ending.as_ref(), &status, has_live);
    status.phase = Some(phase.to_owned());
    if ending.is_some() && is_over(&view) {
        containers::close(&mut status);
        if world.source.is_api() && phase != "Succeeded" {
            status.phase = Some("Failed".to_owned());
        }
    }
    say_why(&view, ending.as_ref(), &mut status);
    containers::bound_messages(&view, &mut status);
    addresses(&view, &mut status);
    resources::fill(&view, &mut status);
    conditions::fill(&view, pod, &mut status);
    status
}

/// Whether nothing of a pod runs any more, nor is about to.
fn is_over(view: &View<'_>) -> bool {
    let observed = &view.world.observed;
    let is_down = observed.sandboxes.iter().all(|sandbox| !sandbox.ready);
    is_down && observed.starting.is_empty() && view.live().next().is_none()
}

/// What the status has from the pod and the one before, whatever the containers do.
fn base(world: &World, pod: &Pod) -> PodStatus {
    let before = world.previous.clone().unwrap_or_default();
    // Others write these, and may have since the last status.
    let given = pod.status.clone().unwrap_or_else(|| before.clone());
    PodStatus {
        conditions: before.conditions,
        observed_generation: pod.metadata.generation,
        nominated_node_name: given.nominated_node_name,
        qos_class: Some(qos(pod)),
        start_time: Some(before.start_time.unwrap_or_else(|| seconds(world.now))),
        resource_claim_statuses: given.resource_claim_statuses,
        resize: before.resize,
        host_ip: world.node.ips.first().map(ToString::to_string),
        host_ips: host_ips(world),
        ..PodStatus::default()
    }
}

fn qos(pod: &Pod) -> String {
    let given = pod.status.as_ref().and_then(|status| status.qos_class.clone());
    given.unwrap_or_else(|| pod.spec.as_ref().map_or(api::qos::QosClass::BestEffort, api::qos::class).to_string())
}

fn host_ips(world: &World) -> Option<Vec<HostIP>> {
    let ips: Vec<HostIP> = world.node.ips.iter().map(|ip| HostIP { ip: ip.to_string() }).collect();
    (!ips.is_empty()).then_some(ips)
}

/// Once a pod has ended and stopped, its status stays, but for the generation that was seen and what others say.
fn settled(view: &View<'_>, pod: &Pod) -> PodStatus {
    let mut status = view.world.previous.clone().unwrap_or_default();
    status.observed_generation = pod.metadata.generation;
    conditions::settle(view, pod, &mut status);
    status
}

fn rejected(world: &World, pod: &Pod, reason: &str, message: &str) -> PodStatus {
    PodStatus {
        phase: Some("Failed".to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(format!("Pod was rejected: {message}")),
        host_ip: None,
        host_ips: None,
        ..base(world, pod)
    }
}

/// A pod of which somebody else said that it has ended runs on for a while.
fn tells_of_running(world: &World) -> bool {
    let before = world.previous.as_ref();
    let lists = before.map(|status| {
        [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses]
    });
    let mut states = lists.into_iter().flatten().flatten().flatten().filter_map(|container| container.state.as_ref());
    states.any(|state| state.running.is_some())
}

/// Reason and message belong to a phase that is final: of an evicted pod that ended well nobody says more than its conditions do.
fn say_why(view: &View<'_>, ending: Option<&Ending>, status: &mut PodStatus) {
    if let Some(ended) = view.ended_as() {
        status.reason.clone_from(&ended.reason);
        status.message.clone_from(&ended.message);
        return;
    }
    if status.phase.as_deref() != Some(phase::FAILED) {
        return;
    }
    let (reason, message) = match (ending.map(|ending| ending.cause), &view.world.eviction) {
        (Some(Cause::Evicted), Some(eviction)) => (eviction.reason.as_str(), eviction.message.as_str()),
        (Some(Cause::DeadlineExceeded), _) => ("DeadlineExceeded", DEADLINE_MESSAGE),
        _ => return,
    };
    status.reason = Some(reason.to_owned());
    status.message = Some(message.to_owned());
}

/// With host networking the pod has the node's addresses. The addresses of a sandbox that has gone stay until there
/// are others or the pod ends; not those of one that is there and has none any more (`getPodIPs`).
fn addresses(view: &View<'_>, status: &mut PodStatus) {
    let ready = view.sandbox.filter(|sandbox| sandbox.ready);
    let of_sandbox = ready.map(|sandbox| sandbox.ips.as_slice());
    let host_network = view.spec.host_network.unwrap_or(false);
    let ips: Vec<PodIP> = if host_network {
        let node = of_sandbox.map(|_| view.world.node.ips.as_slice()).unwrap_or_default();
        node.iter().map(|ip| PodIP { ip: ip.to_string() }).collect()
    } else {
        let ips = pod_ips(of_sandbox.unwrap_or_default(), &view.world.node.ips);
        ips.iter().map(|ip| PodIP { ip: ip.to_string() }).collect()
    };
    let lost = !host_network && ready.is_some_and(|sandbox| sandbox.unaddressed);
    let before = view.world.previous.as_ref();
    let ips = if ips.is_empty() && !lost {
        before.and_then(|before| before.pod_ips.clone()).unwrap_or_default()
    } else {
        ips
    };
    status.pod_ip = ips.first().map(|ip| ip.ip.clone());
    status.pod_ips = (!ips.is_empty()).then_some(ips);
}

/// API times have whole seconds.
fn seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}
