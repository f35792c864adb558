//! Fit by requests, and the scores of how evenly a node is used.

use crate::node::{NodeFacts, NodeInfo};
use crate::plugins::Reason;
use crate::pod::PodInfo;
use crate::resources::Resources;

/// The best score of any plugin.
const MAX: i64 = 100;

/// What the node has too little of. A resource that the pod does not ask for is not looked at.
#[must_use]
pub fn missing(pod: &PodInfo, facts: &NodeFacts, node: &NodeInfo) -> Vec<Reason> {
    let (has, used, asks) = (&facts.allocatable, &node.requested, &pod.requests);
    let mut missing = Vec::new();
    if used.pods + 1 > has.pods {
        missing.push(Reason::TooManyPods);
    }
    let plain = [
        ("cpu", asks.milli_cpu, has.milli_cpu, used.milli_cpu),
        ("memory", asks.memory, has.memory, used.memory),
        ("ephemeral-storage", asks.ephemeral_storage, has.ephemeral_storage, used.ephemeral_storage),
    ];
    for (name, asked, has, used) in plain {
        missing.extend(lacks(name, asked, has, used));
    }
    for (name, asked) in &asks.scalars {
        let of = |list: &Resources| list.scalars.get(name).copied().unwrap_or(0);
        missing.extend(lacks(name, *asked, of(has), of(used)));
    }
    missing
}

fn lacks(resource: &str, asked: i64, has: i64, used: i64) -> Option<Reason> {
    let reason = if asked > has { Reason::Smaller } else { Reason::Insufficient };
    (asked > 0 && asked > has - used).then(|| reason(resource.to_owned()))
}

/// LeastAllocated: the more of CPU and memory is left, the better.
#[must_use]
pub fn least_allocated(pod: &PodInfo, facts: &NodeFacts, node: &NodeInfo) -> i64 {
    let share = |used: i64, has: i64| if has <= 0 || used > has { 0 } else { (has - used) * MAX / has };
    let cpu = share(node.scored.0 + pod.scored.0, facts.allocatable.milli_cpu);
    // In KiB, so that the product stays far from overflowing.
    let memory = share((node.scored.1 + pod.scored.1) / 1024, facts.allocatable.memory / 1024);
    i64::midpoint(cpu, memory)
}

/// BalancedAllocation: the closer the used shares of CPU and memory are, the better.
#[must_use]
pub fn balanced(pod: &PodInfo, facts: &NodeFacts, node: &NodeInfo) -> i64 {
    let asks = &pod.requests;
    if asks.milli_cpu == 0 && asks.memory == 0 {
        return 0;
    }
    let share = |used: i64, has: i64| if has <= 0 { MAX } else { (used.saturating_mul(MAX) / has).min(MAX) };
    let cpu = share(node.requested.milli_cpu + asks.milli_cpu, facts.allocatable.milli_cpu);
    let memory = share((node.requested.memory + asks.memory) / 1024, facts.allocatable.memory / 1024);
    MAX - (cpu - memory).abs() / 2
}
