//! Which pods end when, and how much time they get (KEP-2000, KEP-2712). Pure.

use std::time::Duration;

use api::PodUid;
use api::pod::CRITICAL_PRIORITY;
use k8s_openapi::api::core::v1::Pod;

use crate::config::KubeletConfiguration;
use crate::config::kubelet::ShutdownGracePeriodByPodPriority as Period;

/// Pods that end together.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// How long the next group waits for them at most.
    pub seconds: i64,
    /// With the seconds of grace that each gets.
    pub pods: Vec<(PodUid, i64)>,
}

/// What is configured, the lowest priority first; nothing when shutdowns are not held back.
#[must_use]
pub fn periods(config: &KubeletConfiguration) -> Vec<Period> {
    let mut periods = config.shutdown_grace_period_by_pod_priority.clone();
    if periods.is_empty() {
        periods = simple(config.shutdown_grace_period.0, config.shutdown_grace_period_critical_pods.0);
    }
    periods.sort_by_key(|period| period.priority);
    periods
}

/// The older two fields: all pods, and of their time the end for the critical ones.
fn simple(whole: Duration, critical: Duration) -> Vec<Period> {
    let from = |priority, time: Duration| Period {
        priority,
        shutdown_grace_period_seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
    };
    match whole.checked_sub(critical) {
        Some(others) if !whole.is_zero() => vec![from(0, others), from(CRITICAL_PRIORITY, critical)],
        _ => Vec::new(),
    }
}

/// How long a shutdown is to be held back.
#[must_use]
pub fn whole(periods: &[Period]) -> Duration {
    let seconds =
        periods.iter().fold(0_i64, |sum, period| sum.saturating_add(period.shutdown_grace_period_seconds.max(0)));
    Duration::from_secs(seconds.unsigned_abs())
}

/// The groups in the order in which they end; those without pods are left out. `periods` are in the order of [`periods`].
#[must_use]
pub fn groups<'a>(periods: &[Period], pods: impl IntoIterator<Item = (PodUid, &'a Pod)>) -> Vec<Group> {
    let mut groups: Vec<Group> = periods
        .iter()
        .map(|period| Group { seconds: period.shutdown_grace_period_seconds, pods: Vec::new() })
        .collect();
    for (uid, pod) in pods {
        let spec = pod.spec.as_ref();
        let priority = spec.and_then(|spec| spec.priority).unwrap_or(0);
        // The last whose priority it reaches; what is below all of them is of the first.
        let index = periods.iter().rposition(|period| period.priority <= priority).unwrap_or(0);
        let Some(group) = groups.get_mut(index) else { continue };
        let own = spec.and_then(|spec| spec.termination_grace_period_seconds);
        group.pods.push((uid, own.map_or(group.seconds, |own| own.min(group.seconds))));
    }
    groups.retain(|group| !group.pods.is_empty());
    groups
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::config::duration::GoDuration;

    fn pod(priority: Option<i32>, grace: Option<i64>) -> Pod {
        let spec = json!({"containers": [], "priority": priority, "terminationGracePeriodSeconds": grace});
        serde_json::from_value(json!({ "spec": spec })).unwrap()
    }

    fn period(priority: i32, shutdown_grace_period_seconds: i64) -> Period {
        Period { priority, shutdown_grace_period_seconds }
    }

    fn configured(list: &[(i32, i64)]) -> Vec<Period> {
        let list = list.iter().map(|(priority, seconds)| period(*priority, *seconds));
        periods(&KubeletConfiguration {
            shutdown_grace_period_by_pod_priority: list.collect(),
            ..KubeletConfiguration::default()
        })
    }

    #[test]
    fn two_durations_are_two_groups() {
        let config = |whole, critical| KubeletConfiguration {
            shutdown_grace_period: GoDuration::secs(whole),
            shutdown_grace_period_critical_pods: GoDuration::secs(critical),
            ..KubeletConfiguration::default()
        };
        let two = periods(&config(30, 10));
        let expected = [period(0, 20), period(2_000_000_000, 10)];
        assert_eq!(two, expected);
        assert_eq!(whole(&two), Duration::from_secs(30));
        assert_eq!(periods(&config(0, 0)), []);
        assert_eq!(periods(&config(5, 10)), [], "no node starts with it");
    }

    #[test]
    fn pods_end_by_priority_within_their_time() {
        let periods = configured(&[(1000, 60), (0, 5), (100, 30)]);
        assert_eq!(whole(&periods), Duration::from_secs(95));
        let pods = [
            ("low", pod(Some(-5), Some(1))),
            ("none", pod(None, None)),
            ("edge", pod(Some(100), Some(30))),
            ("between", pod(Some(999), Some(600))),
            ("high", pod(Some(2_000_001_000), Some(10))),
        ];
        let found = groups(&periods, pods.iter().map(|(uid, pod)| (PodUid::new(*uid), pod)));
        let told: Vec<(i64, Vec<(&str, i64)>)> = found
            .iter()
            .map(|group| (group.seconds, group.pods.iter().map(|(uid, grace)| (uid.as_str(), *grace)).collect()))
            .collect();
        assert_eq!(
            told,
            [(5, vec![("low", 1), ("none", 5)]), (30, vec![("edge", 30), ("between", 30)]), (60, vec![("high", 10)])]
        );
    }

    proptest! {
        /// Every pod ends once, no pod before one of a lower priority class has had its time, none gets more than its group or itself
        /// has, and all of it fits into what logind is asked for.
        #[test]
        fn groups_hold_for_all(
            list in prop::collection::btree_map(-1000_i32..1000, 0_i64..300, 1..6),
            pods in prop::collection::vec((prop::option::of(-1200_i32..1200), prop::option::of(0_i64..400)), 0..20),
        ) {
            let list: Vec<(i32, i64)> = list.into_iter().rev().collect();
            let periods = configured(&list);
            let pods: Vec<Pod> = pods.iter().map(|(priority, grace)| pod(*priority, *grace)).collect();
            let named: Vec<_> = pods.iter().enumerate().map(|(i, pod)| (PodUid::new(i.to_string()), pod)).collect();
            let found = groups(&periods, named);
            let of = |uid: &PodUid| pods[uid.as_str().parse::<usize>().unwrap()].spec.as_ref().unwrap();
            let mut seen: Vec<&str> = found.iter().flat_map(|g| g.pods.iter().map(|(uid, _)| uid.as_str())).collect();
            seen.sort_unstable();
            seen.dedup();
            prop_assert_eq!(seen.len(), pods.len());
            prop_assert_eq!(found.iter().map(|g| g.pods.len()).sum::<usize>(), pods.len());
            for pair in found.windows(2) {
                let priorities = |g: &Group| g.pods.iter().map(|(uid, _)| of(uid).priority.unwrap_or(0)).collect::<Vec<_>>();
                prop_assert!(priorities(&pair[0]).iter().max() < priorities(&pair[1]).iter().min());
            }
            for group in &found {
                for (uid, grace) in &group.pods {
                    let own = of(uid).termination_grace_period_seconds.unwrap_or(i64::MAX);
                    prop_assert_eq!(*grace, own.min(group.seconds));
                }
            }
            let sum: i64 = found.iter().map(|group| group.seconds).sum();
            prop_assert!(Duration::from_secs(sum.unsigned_abs()) <= whole(&periods));
        }
    }
}
