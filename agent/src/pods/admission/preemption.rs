//! Which pods must go so that a critical pod fits (pkg/kubelet/preemption): of the least class, the fewest, and of
//! these the smallest. Pure.

use std::collections::HashSet;

use api::PodUid;
use api::pod::is_critical;
use api::qos::QosClass;
use api::quantity::Quantity;
use api::resources::{self, ResourceList};
use k8s_openapi::api::core::v1::Pod;

/// A resource that is short, and by how much.
#[derive(Debug, Clone, PartialEq)]
pub struct Shortage {
    pub resource: String,
    pub amount: i64,
}

/// A pod that could go.
struct Candidate {
    uid: PodUid,
    requests: ResourceList,
}

impl Candidate {
    fn request(&self, resource: &str) -> i64 {
        let amount = self.requests.get(resource);
        match resource {
            "pods" => 1,
            "cpu" => amount.map_or(0, Quantity::milli_value),
            _ => amount.map_or(0, Quantity::value),
        }
    }
}

/// The pods that must go, beside those that `leave` already: what these give back counts, and they are not chosen.
///
/// # Errors
/// What would be short even if all went that may.
pub fn victims(
    pod: &Pod,
    others: &[(PodUid, &Pod)],
    leave: &HashSet<PodUid>,
    shortages: &[Shortage],
) -> Result<Vec<PodUid>, String> {
    let mut classes: [Vec<Candidate>; 3] = Default::default();
    let mut leaving = Vec::new();
    for (uid, other) in others {
        let Some(spec) = &other.spec else { continue };
        let candidate = Candidate { uid: uid.clone(), requests: resources::requests(spec) };
        if leave.contains(uid) {
            leaving.push(candidate);
            continue;
        }
        if !may_preempt(pod, other) {
            continue;
        }
        let [best_effort, burstable, guaranteed] = &mut classes;
        match api::qos::class(spec) {
            QosClass::BestEffort => best_effort.push(candidate),
            QosClass::Burstable => burstable.push(candidate),
            QosClass::Guaranteed => guaranteed.push(candidate),
        }
    }
    let [best_effort, burstable, guaranteed] = classes;
    let shortages = less(shortages, leaving.iter());
    let missing = less(&shortages, best_effort.iter().chain(&burstable).chain(&guaranteed));
    if !missing.is_empty() {
        return Err(too_few(&missing));
    }
    let after_lesser = less(&shortages, best_effort.iter().chain(&burstable));
    let of_guaranteed = nearest(guaranteed, after_lesser)?;
    let after = less(&shortages, best_effort.iter().chain(&of_guaranteed));
    let of_burstable = nearest(burstable, after)?;
    let after = less(&shortages, of_burstable.iter().chain(&of_guaranteed));
    let of_best_effort = nearest(best_effort, after)?;
    let all = of_best_effort.into_iter().chain(of_burstable).chain(of_guaranteed);
    Ok(all.map(|candidate| candidate.uid).collect())
}

fn may_preempt(pod: &Pod, other: &Pod) -> bool {
    if is_critical(pod) && !is_critical(other) {
        return true;
    }
    let priority = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.priority);
    matches!((priority(pod), priority(other)), (Some(own), Some(theirs)) if own > theirs)
}

/// What is still short without these pods.
fn less<'a>(shortages: &[Shortage], gone: impl Iterator<Item = &'a Candidate> + Clone) -> Vec<Shortage> {
    let left = shortages.iter().map(|short| {
        let freed: i64 = gone.clone().map(|candidate| candidate.request(&short.resource)).sum();
        Shortage { resource: short.resource.clone(), amount: short.amount.saturating_sub(freed) }
    });
    left.filter(|short| short.amount > 0).collect()
}

/// Takes the pod that comes nearest to what is short, until nothing is.
fn nearest(mut from: Vec<Candidate>, mut shortages: Vec<Shortage>) -> Result<Vec<Candidate>, String> {
    let mut taken = Vec::new();
    while !shortages.is_empty() {
        let order = |a: &Candidate, b: &Candidate| {
            let by_distance = distance(&shortages, a).total_cmp(&distance(&shortages, b));
            let by_size = ["memory", "cpu"].map(|resource| a.request(resource).cmp(&b.request(resource)));
            by_size.into_iter().fold(by_distance, std::cmp::Ordering::then)
        };
        let best = (0..from.len()).min_by(|a, b| match (from.get(*a), from.get(*b)) {
            (Some(a), Some(b)) => order(a, b),
            _ => std::cmp::Ordering::Equal,
        });
        let best = best.ok_or_else(|| too_few(&shortages))?;
        let candidate = from.swap_remove(best);
        shortages = less(&shortages, std::iter::once(&candidate));
        taken.push(candidate);
    }
    Ok(taken)
}

/// How much a pod leaves short, each resource in parts of what is needed of it, so that all weigh the same.
fn distance(shortages: &[Shortage], candidate: &Candidate) -> f64 {
    let parts = shortages.iter().map(|short| {
        let left = short.amount.saturating_sub(candidate.request(&short.resource)).max(0);
        #[allow(clippy::cast_precision_loss)] // what is lost decides between equals at most
        let part = left as f64 / short.amount as f64;
        part * part
    });
    parts.sum()
}

fn too_few(shortages: &[Shortage]) -> String {
    let listed: String =
        shortages.iter().map(|short| format!("(res: {}, q: {}), ", short.resource, short.amount)).collect();
    format!("no set of running pods found to reclaim resources: [{listed}]")
}

#[cfg(test)]
mod tests {
    use api::pod::CRITICAL_PRIORITY as CRITICAL;

    use super::*;

    fn pod(priority: i32, requests: serde_json::Value, limits: serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({"spec": {"priority": priority, "containers": [
            {"name": "c", "resources": {"requests": requests, "limits": limits}}]}}))
        .unwrap()
    }

    fn found(pods: &[(&str, Pod)], shortages: &[(&str, i64)]) -> Result<Vec<String>, String> {
        beside(&[], pods, shortages)
    }

    fn beside(leave: &[&str], pods: &[(&str, Pod)], shortages: &[(&str, i64)]) -> Result<Vec<String>, String> {
        let critical = pod(CRITICAL, serde_json::json!({}), serde_json::json!({}));
        let others: Vec<_> = pods.iter().map(|(uid, pod)| (PodUid::new(*uid), pod)).collect();
        let short = |(resource, amount): &(&str, i64)| Shortage { resource: (*resource).to_owned(), amount: *amount };
        let shortages: Vec<_> = shortages.iter().map(short).collect();
        let leave = leave.iter().map(|uid| PodUid::new(*uid)).collect();
        victims(&critical, &others, &leave, &shortages).map(|uids| uids.iter().map(ToString::to_string).collect())
    }

    fn burstable(memory: &str) -> Pod {
        pod(0, serde_json::json!({"cpu": "100m", "memory": memory}), serde_json::json!({}))
    }

    fn guaranteed(memory: &str) -> Pod {
        let all = serde_json::json!({"cpu": "1", "memory": memory});
        pod(0, all.clone(), all)
    }

    #[test]
    fn the_least_class_goes_first_and_of_it_the_fewest_and_smallest() {
        let pods = [
            ("best-effort", pod(0, serde_json::json!({}), serde_json::json!({}))),
            ("small", burstable("100")),
            ("large", burstable("400")),
            ("larger", burstable("500")),
            ("guaranteed", guaranteed("1000")),
            ("critical", pod(CRITICAL, serde_json::json!({"memory": "5000"}), serde_json::json!({}))),
        ];
        assert_eq!(found(&pods, &[("pods", 1)]).unwrap(), ["best-effort"]);
        assert_eq!(found(&pods, &[("memory", 300)]).unwrap(), ["large"]);
        assert_eq!(found(&pods, &[("memory", 600)]).unwrap(), ["larger", "small"]);
        assert_eq!(found(&pods, &[("memory", 1500)]).unwrap(), ["larger", "guaranteed"]);
        assert_eq!(found(&pods, &[("memory", 300), ("pods", 2)]).unwrap(), ["best-effort", "large"]);
    }

    #[test]
    fn what_others_that_end_already_will_give_back_is_waited_for() {
        let all = [("a", burstable("500")), ("b", burstable("400")), ("c", burstable("410"))];
        assert_eq!(found(&all, &[("memory", 600)]).unwrap(), ["a", "b"]);
        assert_eq!(beside(&["a", "b"], &all, &[("memory", 600)]).unwrap(), [""; 0]);
        // One has ended, and each of the others would be enough.
        let left = [("a", burstable("500")), ("c", burstable("410"))];
        assert_eq!(beside(&["a"], &left, &[("memory", 200)]).unwrap(), [""; 0]);
        assert_eq!(beside(&["a"], &left, &[("memory", 600)]).unwrap(), ["c"]);
        // Nobody else may be told to go, but this one goes.
        let critical = [("a", pod(CRITICAL, serde_json::json!({"memory": "500"}), serde_json::json!({})))];
        assert_eq!(beside(&["a"], &critical, &[("memory", 200)]).unwrap(), [""; 0]);
    }

    #[test]
    fn what_cannot_be_freed_is_said() {
        let pods = [("a", burstable("100"))];
        let error = "no set of running pods found to reclaim resources: [(res: memory, q: 50), ]";
        assert_eq!(found(&pods, &[("memory", 150)]).unwrap_err(), error);
    }

    #[test]
    fn only_critical_pods_and_higher_priorities_take_the_place_of_others() {
        let (low, high) = (burstable("1"), pod(1, serde_json::json!({}), serde_json::json!({})));
        assert!(may_preempt(&high, &low) && !may_preempt(&low, &high) && !may_preempt(&low, &low));
        let mut fixed = low.clone();
        fixed.metadata.annotations = Some([("kubernetes.io/config.source".to_owned(), "file".to_owned())].into());
        assert!(is_critical(&fixed) && may_preempt(&fixed, &high) && !may_preempt(&low, &fixed));
    }
}
