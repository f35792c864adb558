//! Whether the node has the resources that a pod is resized to (pkg/kubelet/allocation). Resizes that were put off take
//! their turns: those that ask for no more, then by priority, by QoS class, and by how long they wait.

use std::cmp::Reverse;
use std::sync::{Arc, PoisonError};

use api::PodUid;
use api::qos::QosClass;
use api::resources;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use pod::Admission;
use tokio::time::Instant;

use super::{Abilities, Answer, decide, exhausted};
use crate::eviction;
use crate::metrics::families::INFEASIBLE_RESIZES;
use crate::node::own::OwnNode;
use crate::pods::Context;
use crate::pods::registry::Deferred;
use crate::pods::stages::limits::{self, Machine};

/// Why a pod does not get what it asks for.
#[derive(Debug)]
pub struct Refused {
    /// It never will.
    pub infeasible: bool,
    /// For people.
    pub message: String,
}

impl From<String> for Refused {
    fn from(message: String) -> Self {
        Self { infeasible: false, message }
    }
}

/// Asks for a pod with the resources that its spec names. `Ok` gives them to it.
///
/// # Errors
/// Why it has to wait, or waits in vain.
pub fn ask(uid: &PodUid, asked: &Arc<Pod>, context: &Context) -> Result<(), Refused> {
    if let Some(message) = eviction::refuses(&context.pressures.borrow(), asked) {
        return Err(message.into());
    }
    let given = context.registry.entry(uid).map(|entry| entry.pod);
    if given.is_some_and(|given| changes_swap(&given, asked, &context.config.machine)) {
        INFEASIBLE_RESIZES.count(["swap_limitation".into()]);
        let message = "In-place resize of containers with swap is not supported.".to_owned();
        return Err(Refused { infeasible: true, message });
    }
    let node = context.node.borrow().clone();
    let Some(node) = node else { return Err("Kubelet cannot get node info.".to_owned().into()) };
    let abilities =
        Abilities { app_armor: context.config.app_armor, strict_groups: context.runtime_facts.borrow().strict_groups };
    let waiting_for_room = context.admitting.lock().unwrap_or_else(PoisonError::into_inner);
    let leaving = context.orders.leaving();
    let mut pods = context.registry.active();
    pods.extend(waiting_for_room.before(uid, Instant::now()));
    let mut queue = context.registry.deferred();
    if !queue.iter().any(|(other, _)| other == uid) {
        queue.push((uid.clone(), Deferred { asked: Arc::clone(asked), since: Timestamp::now() }));
    }
    for (other, waiting) in &mut queue {
        if other == uid {
            waiting.asked = Arc::clone(asked);
        }
    }
    queue.sort_by_cached_key(|(other, waiting)| turn(&pods, other, waiting));
    for (other, waiting) in &queue {
        let others: Vec<_> = pods.iter().filter(|(present, _)| present != other).cloned().collect();
        let answer = decide(&waiting.asked, &others, &leaving, &node, &abilities, &context.config);
        if answer == Answer::Decided(Admission::Admitted) {
            // Whoever comes before has its place already, even if it has not come to take it yet.
            for (_, pod) in pods.iter_mut().filter(|(present, _)| present == other) {
                *pod = Arc::clone(&waiting.asked);
            }
        }
        if other == uid {
            return settle(uid, waiting, answer, &others, (&*node, context)).map_err(Refused::from);
        }
    }
    Err("the resize is not known".to_owned().into())
}

/// Whether a container would have to swap more or less while it runs (`disallowResizeForSwappableContainers`).
fn changes_swap(given: &Pod, asked: &Pod, machine: &Machine) -> bool {
    let (Some(given), Some(asked)) = (&given.spec, &asked.spec) else { return false };
    let containers = asked.init_containers.iter().flatten().chain(&asked.containers);
    containers.into_iter().any(|wanted| {
        let Some(has) = api::pod::container(given, &wanted.name) else { return false };
        let mut policies = has.resize_policy.iter().flatten();
        let restarts = policies.any(|p| p.resource_name == "memory" && p.restart_policy == "RestartContainer");
        let moves = limits::memory_request(&has) != limits::memory_request(wanted);
        moves && !restarts && (limits::swaps(given, &has, machine) || limits::swaps(asked, wanted, machine))
    })
}

fn settle(
    uid: &PodUid,
    waiting: &Deferred,
    answer: Answer,
    others: &[(PodUid, Arc<Pod>)],
    (node, context): (&OwnNode, &Context),
) -> Result<(), String> {
    let message = match answer {
        Answer::Decided(Admission::Admitted) => {
            context.registry.update(uid, &waiting.asked, |entry| entry.deferred = None);
            return Ok(());
        }
        Answer::Decided(Admission::Rejected { message, .. }) => message,
        Answer::Preempt(room) => {
            room.make(&context.orders);
            shortage(&waiting.asked, others, node, context)
        }
        Answer::Later | Answer::Unknown => "Kubelet cannot get node info.".to_owned(),
    };
    context.registry.defer(uid, waiting.clone());
    Err(message)
}

/// What the node has not enough of, in words.
fn shortage(asked: &Pod, others: &[(PodUid, Arc<Pod>)], node: &OwnNode, context: &Context) -> String {
    let empty = PodSpec::default();
    let specs: Vec<&PodSpec> = others.iter().filter_map(|(_, other)| other.spec.as_ref()).collect();
    let short = exhausted(asked.spec.as_ref().unwrap_or(&empty), &specs, node, &context.config);
    match short.first().map(super::Insufficient::refusal) {
        Some(Admission::Rejected { message, .. }) => message,
        _ => String::new(),
    }
}

type Turn = (bool, Reverse<i32>, bool, Timestamp);

/// The place of a resize in the queue: the least is first.
fn turn(pods: &[(PodUid, Arc<Pod>)], uid: &PodUid, waiting: &Deferred) -> Turn {
    let empty = PodSpec::default();
    let asked = waiting.asked.spec.as_ref().unwrap_or(&empty);
    let has = pods.iter().find(|(present, _)| present == uid).and_then(|(_, pod)| pod.spec.as_ref());
    let (wants, has) = (resources::requests(asked), has.map(resources::requests).unwrap_or_default());
    let grows = ["cpu", "memory"].into_iter().any(|name| wants.get(name) > has.get(name));
    let guaranteed = api::qos::class(asked) == QosClass::Guaranteed;
    (grows, Reverse(asked.priority.unwrap_or(0)), !guaranteed, waiting.since)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_swaps_is_not_resized_while_it_runs() {
        let pod = |memory: &str, policy: &str| -> Pod {
            let policy = serde_json::json!([{"resourceName": "memory", "restartPolicy": policy}]);
            let resources = serde_json::json!({"requests": {"memory": memory}});
            let container = serde_json::json!({"name": "c", "resources": resources, "resizePolicy": policy});
            serde_json::from_value(serde_json::json!({"spec": {"containers": [container]}})).unwrap()
        };
        let swapping = Machine { cgroup_v2: true, swap: Some(1 << 30), memory: 8 << 30, ..Machine::default() };
        let changes = |to: &Pod, machine| changes_swap(&pod("1Gi", "NotRequired"), to, machine);
        assert!(changes(&pod("2Gi", "NotRequired"), &swapping));
        assert!(!changes(&pod("1Gi", "NotRequired"), &swapping));
        assert!(!changes(&pod("2Gi", "NotRequired"), &Machine { swap: Some(0), ..swapping }));
        assert!(!changes_swap(&pod("1Gi", "RestartContainer"), &pod("2Gi", "RestartContainer"), &swapping));
    }
}
