//! Taints that keep a pod away, or that it had better avoid.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use crate::node::NodeFacts;
use crate::pod::PodInfo;

/// The taint that the node lifecycle controller puts on cordoned nodes.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// The first NoSchedule or NoExecute taint that the pod does not tolerate.
#[must_use]
pub fn untolerated<'a>(pod: &PodInfo, facts: &'a NodeFacts) -> Option<&'a Taint> {
    let hard = facts.taints.iter().filter(|taint| taint.effect == "NoSchedule" || taint.effect == "NoExecute");
    hard.into_iter().find(|taint| !tolerated(&pod.tolerations, taint))
}

/// Whether the pod may go to cordoned nodes.
#[must_use]
pub fn tolerates_unschedulable(pod: &PodInfo) -> bool {
    let taint = Taint { key: UNSCHEDULABLE.into(), effect: "NoSchedule".into(), ..Taint::default() };
    tolerated(&pod.tolerations, &taint)
}

/// How many PreferNoSchedule taints the pod does not tolerate: fewer are better.
#[must_use]
pub fn avoided(pod: &PodInfo, facts: &NodeFacts) -> i64 {
    let soft = facts.taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
    i64::try_from(soft.filter(|taint| !tolerated(&pod.tolerations, taint)).count()).unwrap_or(i64::MAX)
}

fn tolerated(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| api::taints::tolerates(toleration, taint))
}
