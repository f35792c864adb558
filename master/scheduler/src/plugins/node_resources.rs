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

/// BalancedAllocation: the closer the pod brings the used shares of CPU and memory, the better. Around 75 where it
/// changes little, so that a node that is out of balance anyway is not avoided for that.
#[must_use]
pub fn balanced(pod: &PodInfo, facts: &NodeFacts, node: &NodeInfo) -> i64 {
    let asks = &pod.requests;
    if asks.milli_cpu == 0 && asks.memory == 0 {
        return 0;
    }
    let used = &node.requested;
    let has = (facts.allocatable.milli_cpu, facts.allocatable.memory / 1024);
    let with = balance((used.milli_cpu + asks.milli_cpu, (used.memory + asks.memory) / 1024), has);
    let without = balance((used.milli_cpu, used.memory / 1024), has);
    MAX / 2 + (MAX / 2 + with - without) / 2
}

/// 100 where both are used alike, 50 where one is used up and the other is not used.
fn balance(used: (i64, i64), has: (i64, i64)) -> i64 {
    if has.0 <= 0 || has.1 <= 0 {
        return MAX;
    }
    // In millionths.
    let share = |used: i64, has: i64| (used.saturating_mul(1_000_000) / has).min(1_000_000);
    let apart = (share(used.0, has.0) - share(used.1, has.1)).abs();
    (2_000_000 - apart) * MAX / 2_000_000
}
