//! Which nodes need a pod and which pods go. Pure.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use api::pod::is_terminal;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};

use super::{by_node, pod};
use crate::deployment::scaled;
use crate::pods;

/// Everything a pass looks at.
pub(super) struct Facts<'a> {
    pub(super) set: &'a DaemonSet,
    pub(super) nodes: &'a [Arc<Node>],
    /// The pods that it owns, ended and ending ones too.
    pub(super) pods: &'a [Arc<Pod>],
    /// Hash of the current template.
    pub(super) hash: &'a str,
    pub(super) now: Timestamp,
}

impl Facts<'_> {
    pub(super) fn min_ready(&self) -> i32 {
        self.set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
    }
}

/// What a pass does.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Nodes to make a pod for.
    pub(super) create: Vec<String>,
    pub(super) delete: Vec<Arc<Pod>>,
    /// Those of `delete` that failed.
    pub(super) failed: Vec<Arc<Pod>>,
    /// Those of `delete` that ended well.
    pub(super) succeeded: Vec<Arc<Pod>>,
    /// Seconds until a pod becomes available.
    pub(super) look_again: Option<u64>,
}

/// Whether a pod should start on the node, and whether one that runs there may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Eligible {
    pub(super) run: bool,
    pub(super) go_on: bool,
}

/// Looks at node name, selector, affinity and taints of the template.
pub(super) fn eligible(set: &DaemonSet, tolerations: &[Toleration], node: &Node) -> Eligible {
    let no = Eligible { run: false, go_on: false };
    let Some(template) = set.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()) else { return no };
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let empty = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
    if template.node_name.as_deref().is_some_and(|wanted| !wanted.is_empty() && wanted != name) {
        return no;
    }
    if !api::affinity::pod_allows_node(template, labels, name) {
        return no;
    }
    let taints: &[Taint] = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let refuses = |effects: &[&str]| api::taints::first_untolerated(taints, tolerations, effects).is_some();
    let go_on = !refuses(&["NoExecute"]);
    Eligible { run: go_on && !refuses(&["NoSchedule"]), go_on }
}

/// Decides.
pub(super) fn plan(facts: &Facts<'_>) -> Plan {
    let mut plan = Plan::default();
    let tolerations = pod::tolerations(facts.set);
    let by_node = by_node(facts.pods);
    let names: HashSet<&str> = facts.nodes.iter().filter_map(|node| node.metadata.name.as_deref()).collect();
    let none = Vec::new();
    for node in facts.nodes {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let present = by_node.get(name).unwrap_or(&none);
        let eligible = eligible(facts.set, &tolerations, node);
        if !eligible.go_on {
            plan.delete.extend(present.iter().filter(|pod| !is_going(pod)).map(|pod| (*pod).clone()));
            continue;
        }
        keep_one(facts, name, present, eligible.run, &mut plan);
    }
    // Pods that wait for a node that no longer exists will never run.
    let lost = by_node.iter().filter(|(name, _)| !names.contains(*name)).flat_map(|(_, pods)| pods);
    plan.delete.extend(lost.filter(|pod| pods::node_name(pod).is_none() && !is_going(pod)).map(|pod| (*pod).clone()));
    if strategy(facts.set) == "RollingUpdate" {
        roll(facts, &tolerations, &by_node, &mut plan);
    }
    plan.look_again = facts
        .pods
        .iter()
        .filter_map(|pod| pods::available(pod, facts.min_ready(), facts.now).err().flatten())
        .filter_map(|seconds| u64::try_from(seconds).ok())
        .min();
    plan
}

fn is_going(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

pub(super) fn strategy(set: &DaemonSet) -> &str {
    let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()).unwrap_or("RollingUpdate")
}

/// On a node that may run the pod: ended ones go, surplus ones go (the youngest), a missing one is made.
fn keep_one(facts: &Facts<'_>, node: &str, present: &[&Arc<Pod>], may_start: bool, plan: &mut Plan) {
    let (ended, live): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) =
        present.iter().copied().filter(|pod| !is_going(pod)).partition(|pod| is_terminal(pod));
    for pod in &ended {
        plan.delete.push((*pod).clone());
        let ended = if pods::phase(pod) == "Failed" { &mut plan.failed } else { &mut plan.succeeded };
        ended.push((*pod).clone());
    }
    let is_going_somewhere = present.iter().any(|pod| is_going(pod));
    if live.is_empty() && ended.is_empty() && !is_going_somewhere && may_start {
        plan.create.push(node.to_owned());
    }
    if live.len() < 2 {
        return;
    }
    let (mut new, mut old): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) =
        live.into_iter().partition(|pod| pod::hash_of_pod(pod) == facts.hash);
    new.sort_by_key(|pod| pod.metadata.creation_timestamp.clone());
    old.sort_by_key(|pod| pod.metadata.creation_timestamp.clone());
    // While surging an old pod stays until the new one is available.
    let surging =
        limits(facts, 1).surge > 0 && strategy(facts.set) == "RollingUpdate" && !new.is_empty() && !old.is_empty();
    if surging {
        let is_up = new.first().is_some_and(|pod| pods::available(pod, facts.min_ready(), facts.now).is_ok());
        let keep_old = usize::from(!is_up);
        plan.delete.extend(new.iter().skip(1).chain(old.iter().skip(keep_old)).map(|pod| (*pod).clone()));
    } else {
        let mut all: Vec<&Arc<Pod>> = new.into_iter().chain(old).collect();
        all.sort_by_key(|pod| (!pods::is_ready(pod), pod.metadata.creation_timestamp.clone()));
        plan.delete.extend(all.into_iter().skip(1).cloned());
    }
}

struct Limits {
    unavailable: i32,
    surge: i32,
}

/// maxUnavailable and maxSurge; percentages are of the wanted pods and rounded up.
fn limits(facts: &Facts<'_>, wanted: i32) -> Limits {
    let strategy = facts.set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    let update = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let surge = update.and_then(|update| update.max_surge.as_ref()).map_or(0, |value| scaled(value, wanted, true));
    let unavailable =
        update.and_then(|update| update.max_unavailable.as_ref()).map(|value| scaled(value, wanted, true));
    let unavailable = unavailable.unwrap_or(if surge > 0 { 0 } else { 1 });
    Limits { unavailable: if unavailable == 0 && surge == 0 { 1 } else { unavailable }, surge }
}

/// Replaces pods of older templates, as many at a time as the strategy allows.
fn roll(facts: &Facts<'_>, tolerations: &[Toleration], by_node: &BTreeMap<&str, Vec<&Arc<Pod>>>, plan: &mut Plan) {
    let wanted: Vec<&str> = facts
        .nodes
        .iter()
        .filter(|node| eligible(facts.set, tolerations, node).run)
        .filter_map(|node| node.metadata.name.as_deref())
        .collect();
    let limits = limits(facts, i32::try_from(wanted.len()).unwrap_or(i32::MAX));
    let chosen: HashSet<String> = plan.delete.iter().filter_map(|pod| pod.metadata.uid.clone()).collect();
    let is_up = |pod: &Arc<Pod>| pods::available(pod, facts.min_ready(), facts.now).is_ok();
    let mut unavailable = 0;
    let mut surging = 0;
    let mut broken: Vec<Arc<Pod>> = Vec::new();
    let mut replaceable: Vec<(&str, Arc<Pod>)> = Vec::new();
    for name in wanted {
        let live: Vec<&Arc<Pod>> = by_node
            .get(name)
            .into_iter()
            .flatten()
            .copied()
            .filter(|pod| pods::is_active(pod) && !chosen.contains(pod.metadata.uid.as_deref().unwrap_or_default()))
            .collect();
        let old = live.iter().find(|pod| pod::hash_of_pod(pod) != facts.hash);
        let has_new = live.iter().any(|pod| pod::hash_of_pod(pod) == facts.hash);
        unavailable += i32::from(!live.iter().any(|pod| is_up(pod)));
        surging += i32::from(old.is_some() && has_new);
        match old {
            Some(_) if has_new && limits.surge > 0 => (),
            Some(old) if is_up(old) => replaceable.push((name, (*old).clone())),
            Some(old) => broken.push((*old).clone()),
            None => (),
        }
    }
    // A pod that is not available anyway is replaced without costing anything.
    plan.delete.extend(broken);
    if limits.surge > 0 {
        let room = usize::try_from(limits.surge - surging).unwrap_or(0);
        plan.create.extend(replaceable.into_iter().take(room).map(|(name, _)| name.to_owned()));
    } else {
        let room = usize::try_from(limits.unavailable - unavailable).unwrap_or(0);
        plan.delete.extend(replaceable.into_iter().take(room).map(|(_, pod)| pod));
    }
}
