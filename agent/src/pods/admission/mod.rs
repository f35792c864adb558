//! Whether the node takes a pod (pkg/kubelet/lifecycle, `GeneralPredicates`, and pkg/kubelet/sysctl). A pod that has
//! something in the runtime was admitted before and is not asked again: labels may change under it.

mod preemption;
pub mod resize;
mod waiting;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, PoisonError};

use api::PodUid;
use api::quantity::Quantity;
use api::resources::{self, ResourceList};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use pod::{Admission, Eviction};
use tokio::time::Instant;

use super::orders::Orders;
use super::{Context, PodsConfig, sysctls};
use crate::eviction;
use crate::metrics::families::{ADMISSION_REJECTIONS, PREEMPTIONS};
use crate::node::own::OwnNode;
use crate::shutdown;
use preemption::Shortage;
pub use waiting::Waiting;

/// What came of asking.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// It is decided.
    Decided(Admission),
    /// It fits when these are gone.
    Preempt(Room),
    /// It does not fit beside a pod that others make room for: it is to ask again once that has its place.
    Later,
    /// It is not known yet what the Node says.
    Unknown,
}

/// Room that others make for a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// Who has to go, beside those that go already.
    pub victims: Vec<PodUid>,
    /// What there was not enough of, the first of it.
    pub resource: String,
}

impl Room {
    /// Orders them to go.
    pub fn make(self, orders: &Orders) {
        for victim in &self.victims {
            // Whoever waits for the room asks again and again.
            if orders.give(victim, preemption()) {
                PREEMPTIONS.count([self.resource.clone().into()]);
            }
        }
    }
}

/// What of the machine decides about pods.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Abilities {
    /// The kernel has AppArmor.
    pub app_armor: bool,
    /// The runtime keeps `supplementalGroupsPolicy: Strict`.
    pub strict_groups: bool,
}

/// Asks for one pod, with all that were admitted before it; one after the other, or two would get the same place.
#[must_use]
pub fn admit(uid: &PodUid, pod: &Arc<Pod>, context: &Context) -> Answer {
    // A static pod may be what the API server is made of: the node is then what it will register as.
    let at_first = || Arc::new(OwnNode { labels: context.config.node_labels.clone(), ..OwnNode::default() });
    let known = context.node.borrow().clone();
    let Some(node) = known.or_else(|| api::pod::is_static(pod).then(at_first)) else { return Answer::Unknown };
    let answer = match eviction::refuses(&context.pressures.borrow(), pod) {
        Some(message) => Answer::Decided(rejected(eviction::REASON, message)),
        None => admit_to(&node, uid, pod, context),
    };
    if let Answer::Decided(Admission::Rejected { reason, .. }) = &answer {
        ADMISSION_REJECTIONS.count([reason.clone().into()]);
    }
    answer
}

fn admit_to(node: &OwnNode, uid: &PodUid, pod: &Arc<Pod>, context: &Context) -> Answer {
    let abilities =
        Abilities { app_armor: context.config.app_armor, strict_groups: context.runtime_facts.borrow().strict_groups };
    let mut waiting = context.admitting.lock().unwrap_or_else(PoisonError::into_inner);
    let first = waiting.before(uid, Instant::now());
    let is_second = first.is_some();
    let mut others: Vec<_> = context.registry.active().into_iter().filter(|(other, _)| other != uid).collect();
    others.extend(first);
    let answer = decide(pod, &others, &context.orders.leaving(), node, &abilities, &context.config);
    let admitted = answer == Answer::Decided(Admission::Admitted);
    // Upstream asks last of all whether the node goes down.
    let may_come = !matches!(answer, Answer::Decided(Admission::Rejected { .. }));
    let answer = match answer {
        _ if may_come && *context.shutting_down.borrow() => Answer::Decided(shutdown::refusal()),
        _ if is_second && !admitted => Answer::Later,
        answer => answer,
    };
    if !is_second {
        let waits = matches!(answer, Answer::Preempt(_));
        waiting.set(waits.then(|| (uid.clone(), Arc::clone(pod))), Instant::now());
    }
    let admitted = answer == Answer::Decided(Admission::Admitted);
    context.registry.update(uid, pod, |entry| entry.admitted = admitted);
    answer
}

/// The answer, and of several refusals upstream's first.
fn decide(
    pod: &Pod,
    others: &[(PodUid, Arc<Pod>)],
    leaving: &HashSet<PodUid>,
    node: &OwnNode,
    abilities: &Abilities,
    config: &PodsConfig,
) -> Answer {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let specs: Vec<&PodSpec> = others.iter().filter_map(|(_, other)| other.spec.as_ref()).collect();
    let forbidden = sysctls::forbidden(pod, &config.allowed_unsafe_sysctls);
    let refusal = forbidden.map(|message| rejected("SysctlForbidden", message)).or_else(|| unsupported(pod, abilities));
    if let Some(refusal) = refusal {
        return Answer::Decided(refusal);
    }
    let others: Vec<(PodUid, &Pod)> = others.iter().map(|(uid, other)| (uid.clone(), &**other)).collect();
    let short = exhausted(spec, &specs, node, config);
    let elsewhere = misplaced(pod, spec, node, &specs, config);
    let refusal = match (short.as_slice(), elsewhere) {
        ([], elsewhere) => elsewhere,
        // Others make room for a critical pod, unless that is not all it lacks.
        (_, elsewhere) if api::pod::is_critical(pod) => match elsewhere {
            Some(refusal) => Some(refusal),
            None => return make_room(pod, &others, leaving, &short),
        },
        ([first, ..], _) => Some(first.refusal()),
    };
    let refusal = refusal.or_else(|| app_armor(spec, abilities));
    Answer::Decided(refusal.unwrap_or(Admission::Admitted))
}

fn make_room(pod: &Pod, others: &[(PodUid, &Pod)], leaving: &HashSet<PodUid>, short: &[Insufficient]) -> Answer {
    let shortages: Vec<_> = short.iter().map(Insufficient::shortage).collect();
    match preemption::victims(pod, others, leaving, &shortages) {
        Ok(victims) => {
            let resource = shortages.into_iter().next().map(|short| short.resource).unwrap_or_default();
            Answer::Preempt(Room { victims, resource })
        }
        Err(why) => Answer::Decided(rejected(
            "UnexpectedAdmissionError",
            format!(
                "Unexpected error while attempting to recover from admission failure: preemption: error finding a set \
                 of pods to preempt: {why}"
            ),
        )),
    }
}

/// The order to a pod that must make room (pkg/kubelet/preemption).
#[must_use]
fn preemption() -> Eviction {
    Eviction {
        reason: "Preempting".to_owned(),
        message: "Preempted in order to admit critical pod".to_owned(),
        disruption: Some("Pod was preempted by Kubelet to accommodate a critical pod.".to_owned()),
        grace: None,
        annotations: BTreeMap::new(),
        event: true,
        clears: true,
    }
}

fn rejected(reason: &str, message: impl Into<String>) -> Admission {
    Admission::Rejected { reason: reason.to_owned(), message: message.into() }
}

fn failed(predicate: &str, why: &str) -> Admission {
    rejected(predicate, format!("Predicate {predicate} failed: {why}"))
}

/// What no pod that ends would change.
fn unsupported(pod: &Pod, abilities: &Abilities) -> Option<Admission> {
    let spec = pod.spec.as_ref()?;
    let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/os"));
    if label.is_some_and(|os| os != "linux") {
        let message = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
        return Some(rejected("PodOSSelectorNodeLabelDoesNotMatch", message));
    }
    if spec.os.as_ref().is_some_and(|os| os.name != "linux") {
        let message = "Failed to admit pod as the OS field doesn't match node OS";
        return Some(rejected("PodOSNotSupported", message));
    }
    let policy = spec.security_context.as_ref().and_then(|context| context.supplemental_groups_policy.as_deref());
    if policy == Some("Strict") && !abilities.strict_groups {
        let message = "SupplementalGroupsPolicy=Strict is not supported in this node";
        return Some(rejected("SupplementalGroupsPolicyNotSupported", message));
    }
    None
}

/// A profile that nobody would enforce (pkg/security/apparmor).
fn app_armor(spec: &PodSpec, abilities: &Abilities) -> Option<Admission> {
    if abilities.app_armor {
        return None;
    }
    let confines = |container: &Container| {
        let profile = pod::resolve::security(spec, container).app_armor_profile;
        profile.is_some_and(|profile| profile.type_ != "Unconfined")
    };
    let mut containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let confined = containers.any(confines);
    confined.then(|| rejected("AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host"))
}

/// Where the pod would be in the wrong place, whatever is free here.
fn misplaced(pod: &Pod, spec: &PodSpec, node: &OwnNode, others: &[&PodSpec], config: &PodsConfig) -> Option<Admission> {
    let clash = || {
        let clash = ports_clash(spec, others);
        clash.then(|| failed("NodePorts", "node(s) didn't have free ports for the requested pod ports"))
    };
    let taint = || {
        let tolerations = spec.tolerations.as_deref().unwrap_or_default();
        let checked = if api::pod::is_static(pod) { [].as_slice() } else { &node.taints };
        let taint = api::taints::first_untolerated(checked, tolerations, &["NoExecute"]);
        taint.map(|_| failed("TaintToleration", "node(s) had taints that the pod didn't tolerate"))
    };
    mismatch(pod, spec, node, &config.node_name).or_else(clash).or_else(taint)
}

/// Labels: the node selector and the required node affinity.
fn mismatch(pod: &Pod, spec: &PodSpec, node: &OwnNode, name: &str) -> Option<Admission> {
    if api::affinity::pod_allows_node(spec, &node.labels, name) {
        return None;
    }
    tracing::debug!(pod = %api::pod::full_name(pod), "labels of this node do not match");
    Some(failed("NodeAffinity", "node(s) didn't match Pod's node affinity/selector"))
}

/// A resource that the node has not enough of.
#[derive(Debug, Clone, PartialEq)]
struct Insufficient {
    resource: String,
    requested: i64,
    used: i64,
    capacity: i64,
}

impl Insufficient {
    fn refusal(&self) -> Admission {
        let Self { resource, requested, used, capacity } = self;
        rejected(
            &format!("OutOf{resource}"),
            format!(
                "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
            ),
        )
    }

    fn shortage(&self) -> Shortage {
        Shortage { resource: self.resource.clone(), amount: self.requested - (self.capacity - self.used) }
    }
}

/// All resources that the node has not enough of.
fn exhausted(spec: &PodSpec, others: &[&PodSpec], node: &OwnNode, config: &PodsConfig) -> Vec<Insufficient> {
    let allocatable = &config.allocatable;
    let mut short = Vec::new();
    let count = i64::try_from(others.len()).unwrap_or(i64::MAX);
    if let Some(max) = allocatable.get("pods").map(Quantity::value).filter(|max| count >= *max) {
        short.push(Insufficient { resource: "pods".to_owned(), requested: 1, used: count, capacity: max });
    }
    let mut used = ResourceList::new();
    for other in others {
        resources::add(&mut used, &resources::requests(other));
    }
    for (name, request) in resources::requests(spec).iter().filter(|(_, request)| !request.is_zero()) {
        let have = allocatable.get(name).or_else(|| node.extended.get(name)).copied();
        // Resources of the whole cluster are none of the node's business.
        if have.is_none() && resources::is_extended(name) {
            continue;
        }
        let have = have.unwrap_or(Quantity::ZERO);
        let taken = used.get(name).copied().unwrap_or(Quantity::ZERO);
        if taken.plus(request) > have {
            let number = |quantity: &Quantity| if name == "cpu" { quantity.milli_value() } else { quantity.value() };
            let (requested, used, capacity) = (number(request), number(&taken), number(&have));
            short.push(Insufficient { resource: name.clone(), requested, used, capacity });
        }
    }
    short
}

type HostPort = (String, i32, String);

fn host_ports(spec: &PodSpec) -> BTreeSet<HostPort> {
    let ports = api::pod::ports(spec).filter_map(|port| {
        let number = port.host_port.filter(|number| *number > 0)?;
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        Some((protocol, number, port.host_ip.clone().unwrap_or_default()))
    });
    ports.collect()
}

/// An address that is not set is every address.
fn ports_clash(spec: &PodSpec, others: &[&PodSpec]) -> bool {
    let any = |ip: &str| matches!(ip, "" | "0.0.0.0" | "::");
    let clash = |a: &HostPort, b: &HostPort| (&a.0, a.1) == (&b.0, b.1) && (a.2 == b.2 || any(&a.2) || any(&b.2));
    let own = host_ports(spec);
    !own.is_empty()
        && others.iter().any(|other| host_ports(other).iter().any(|theirs| own.iter().any(|ours| clash(ours, theirs))))
}

#[cfg(test)]
mod tests;
