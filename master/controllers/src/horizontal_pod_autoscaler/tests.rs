use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, HorizontalPodAutoscalerBehavior};
use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::measure::of_pod;
use super::normalize::{Bounds, Memory, normalize};
use super::plan::{Decision, Known, Measured, Unselected, decide};
use super::replicas::{Proposal, Sample, Samples, Scaled, Target, Tolerances};

fn now() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().unwrap()
}

fn after(seconds: i64) -> Timestamp {
    now().checked_add(SignedDuration::from_secs(seconds)).unwrap()
}

fn pod(name: &str, phase: &str, ready: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": { "containers": [{ "name": "c", "resources": { "requests": { "cpu": "1", "memory": "1Gi" } } }] },
        "status": {
            "phase": phase, "startTime": "2026-01-01T10:00:00Z",
            "conditions": [{ "type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T11:00:00Z" }],
        },
    }))
    .unwrap()
}

fn pods(count: usize) -> Vec<Pod> {
    (0..count).map(|index| pod(&format!("p{index}"), "Running", "True")).collect()
}

fn samples(milli: &[i64]) -> Samples {
    let sample = |milli: &i64| Sample { at: now(), window: SignedDuration::from_secs(30), milli: *milli };
    milli.iter().enumerate().map(|(index, milli)| (format!("p{index}"), sample(milli))).collect()
}

fn cpu(percent: i32) -> Target<'static> {
    Target::Utilization { percent, container: "" }
}

fn scaled(pods: &[Pod], current: i32) -> Scaled<'_> {
    Scaled { pods, current, tolerances: Tolerances::of(None), now: now() }
}

fn proposed(pods: &[Pod], current: i32, used: &[i64], percent: i32) -> i32 {
    scaled(pods, current).by_pods(&samples(used), "cpu", cpu(percent)).unwrap().replicas
}

#[test]
fn replicas_follow_what_pods_use_of_what_they_request() {
    assert_eq!(proposed(&pods(3), 3, &[300, 500, 700], 30), 5);
    assert_eq!(proposed(&pods(5), 5, &[100, 300, 500, 250, 250], 50), 3);
    // Within a tenth nothing is done.
    assert_eq!(proposed(&pods(3), 3, &[320, 320, 320], 30), 3);
    let average = scaled(&pods(2), 2).by_pods(&samples(&[900, 1100]), "cpu", Target::Average(500)).unwrap();
    assert_eq!(average, Proposal { replicas: 4, usage: 1000, utilization: None });
    let own: HorizontalPodAutoscalerBehavior =
        serde_json::from_value(json!({ "scaleUp": { "tolerance": "0" }, "scaleDown": { "tolerance": "500m" } }))
            .unwrap();
    let three = pods(3);
    let tolerant = Scaled { tolerances: Tolerances::of(Some(&own)), ..scaled(&three, 3) };
    let of = |used: &[i64]| tolerant.by_pods(&samples(used), "cpu", cpu(30)).unwrap().replicas;
    assert_eq!((of(&[320, 320, 320]), of(&[160, 160, 160])), (4, 3));
}

#[test]
fn what_is_not_measured_does_the_least_harm() {
    // Twice the target without the third pod, which then counts as idle.
    assert_eq!(proposed(&pods(3), 3, &[600, 600], 30), 4);
    // Below the target, and the third counts as busy.
    assert_eq!(proposed(&pods(3), 3, &[100, 100], 50), 3);
    let mut some = pods(2);
    some.push(pod("p2", "Pending", "False"));
    assert_eq!(proposed(&some, 3, &[600, 600], 30), 4);
    let mut young = pods(2);
    young.push(pod("p2", "Running", "False"));
    let status = young[2].status.as_mut().unwrap();
    status.start_time = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
    assert_eq!(proposed(&young, 3, &[300, 300, 9000], 30), 3);
    let gone = scaled(&[], 3).by_pods(&samples(&[1]), "cpu", cpu(50)).unwrap_err();
    assert_eq!(gone, "no pods returned by selector while calculating replica count");
    let none = scaled(&pods(1), 1).by_pods(&Samples::new(), "cpu", cpu(50)).unwrap_err();
    assert_eq!(none, "did not receive metrics for targeted pods (pods might be unready)");
    let other = Target::Utilization { percent: 50, container: "side" };
    let missing = scaled(&pods(1), 1).by_pods(&samples(&[1]), "cpu", other).unwrap_err();
    assert_eq!(missing, "container side not found in Pod p0");
}

#[test]
fn one_number_for_all() {
    let three = pods(3);
    assert_eq!(scaled(&three, 3).by_value(20_000, 15_000).unwrap().replicas, 4);
    assert_eq!(scaled(&three, 3).by_value(16_000, 15_000).unwrap().replicas, 3);
    assert_eq!(scaled(&[], 0).by_value(2_500, 1_000).unwrap().replicas, 3);
    let share = scaled(&three, 3).by_share(8_600, 2_000, 3);
    assert_eq!(share, Proposal { replicas: 5, usage: 2_867, utilization: None });
}

#[test]
fn samples_are_read_as_the_metrics_api_writes_them() {
    let item = json!({
        "metadata": { "name": "p" }, "timestamp": "2026-01-01T12:00:00Z", "window": "1m0s",
        "containers": [{ "name": "a", "usage": { "cpu": "250m" } }, { "name": "b", "usage": { "cpu": "1500000n" } }],
    });
    let (name, sample) = of_pod(&item, "cpu", "").unwrap();
    assert_eq!((name.as_str(), sample.milli, sample.window), ("p", 252, SignedDuration::from_mins(1)));
    assert_eq!(of_pod(&item, "cpu", "a").unwrap().1.milli, 250);
    assert!(of_pod(&item, "memory", "").is_none() && of_pod(&item, "cpu", "none").is_none());
}

fn autoscaler(more: Value) -> HorizontalPodAutoscaler {
    let mut spec = json!({
        "maxReplicas": 10, "minReplicas": 2, "scaleTargetRef": { "kind": "Deployment", "name": "d" },
        "metrics": [{ "type": "Resource", "resource": { "name": "cpu",
            "target": { "type": "Utilization", "averageUtilization": 50 } } }],
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(json!({ "metadata": { "name": "h", "namespace": "ns" }, "spec": spec })).unwrap()
}

fn decided(autoscaler: &HorizontalPodAutoscaler, current: i32, measured: Vec<Result<Measured, String>>) -> Decision {
    let pods = pods(usize::try_from(current).unwrap());
    let known = Known { autoscaler, replicas: (current, current), pods: &pods, measured: Ok(measured), now: now() };
    decide(&known, &mut Memory::default())
}

fn condition<'a>(decision: &'a Decision, kind: &str) -> (&'a str, &'a str, &'a str) {
    let one = decision.status.conditions.iter().flatten().find(|one| one.type_ == kind).unwrap();
    (one.status.as_str(), one.reason.as_deref().unwrap(), one.message.as_deref().unwrap())
}

#[test]
fn a_busy_target_grows_and_says_why() {
    let decision = decided(&autoscaler(json!({})), 2, vec![Ok(Measured::Pods(samples(&[900, 900])))]);
    assert_eq!(decision.desired, 4);
    let why = "cpu resource utilization (percentage of request) above target";
    assert_eq!(decision.rescale.as_deref(), Some(why));
    assert_eq!(condition(&decision, "AbleToScale").1, "ReadyForNewScale");
    let counted = "the HPA was able to successfully calculate a replica count from cpu resource utilization (percentage of request)";
    assert_eq!(condition(&decision, "ScalingActive"), ("True", "ValidMetricFound", counted));
    assert_eq!(condition(&decision, "ScalingLimited").0, "False");
    let metrics = json!([{ "type": "Resource", "resource": { "name": "cpu",
        "current": { "averageUtilization": 90, "averageValue": "900m" } } }]);
    assert_eq!(json!(decision.status.current_metrics), metrics);
    assert_eq!((decision.status.current_replicas, decision.status.desired_replicas), (Some(2), 4));
}

#[test]
fn an_idle_target_waits_for_its_window_to_pass() {
    let decision = decided(&autoscaler(json!({})), 6, vec![Ok(Measured::Pods(samples(&[10; 6])))]);
    assert_eq!((decision.desired, &decision.rescale), (6, &None));
    assert_eq!(condition(&decision, "AbleToScale").1, "ScaleDownStabilized");
    let now_at_once = json!({ "behavior": { "scaleUp": {}, "scaleDown": { "stabilizationWindowSeconds": 0,
        "policies": [{ "type": "Pods", "value": 1, "periodSeconds": 60 }] } } });
    let decision = decided(&autoscaler(now_at_once), 6, vec![Ok(Measured::Pods(samples(&[10; 6])))]);
    assert_eq!((decision.desired, decision.rescale.as_deref()), (5, Some("All metrics below target")));
    let fast = "the desired replica count is decreasing faster than the maximum scale rate";
    assert_eq!(condition(&decision, "ScalingLimited"), ("True", "ScaleDownLimit", fast));
}

#[test]
fn bounds_count_without_metrics() {
    let few = decided(&autoscaler(json!({})), 1, Vec::new());
    assert_eq!((few.desired, few.rescale.as_deref()), (2, Some("Current number of replicas below Spec.MinReplicas")));
    let many = decided(&autoscaler(json!({})), 11, Vec::new());
    assert_eq!(
        (many.desired, many.rescale.as_deref()),
        (10, Some("Current number of replicas above Spec.MaxReplicas"))
    );
    let off = decided(&autoscaler(json!({})), 0, Vec::new());
    assert_eq!((off.desired, off.rescale), (0, None));
    let off = decided(&autoscaler(json!({})), 0, Vec::new());
    assert_eq!(condition(&off, "ScalingActive").1, "ScalingDisabled");
}

#[test]
fn metrics_that_fail_are_told() {
    let decision = decided(&autoscaler(json!({})), 3, vec![Err("nobody serves it".into())]);
    assert_eq!((decision.desired, &decision.rescale, decision.status.desired_replicas), (3, &None, 0));
    let text = "failed to get cpu utilization: unable to get metrics for resource cpu: nobody serves it";
    let whole = format!(
        "invalid metrics (1 invalid out of 1), first error is: failed to get cpu resource metric value: {text}"
    );
    assert_eq!(
        decision.events,
        [("FailedGetResourceMetric", text.to_owned()), ("FailedComputeMetricsReplicas", whole),]
    );
    let wanted = format!("the HPA was unable to compute the replica count: {text}");
    assert_eq!(condition(&decision, "ScalingActive"), ("False", "FailedGetResourceMetric", wanted.as_str()));
    // One that is known is enough to grow by, and not to shrink by.
    let external = json!({ "type": "External", "external": { "metric": { "name": "queue" },
        "target": { "type": "AverageValue", "averageValue": "10" } } });
    let mut two = autoscaler(json!({}));
    two.spec.metrics.as_mut().unwrap().push(serde_json::from_value(external).unwrap());
    let grown = decided(&two, 2, vec![Err("no".into()), Ok(Measured::Value(40_000))]);
    assert_eq!((grown.desired, grown.rescale.as_deref()), (4, Some("external metric queue(nil) above target")));
    let kept = decided(&two, 4, vec![Err("no".into()), Ok(Measured::Value(1_000))]);
    assert_eq!((kept.desired, kept.rescale), (4, None));
}

#[test]
fn pods_must_be_selected() {
    let texts = ("selector is required".to_owned(), "the HPA target's scale is missing a selector".to_owned());
    let unselected = Unselected { reasons: ("SelectorRequired", "InvalidSelector"), texts };
    let own = autoscaler(json!({}));
    let known = Known { autoscaler: &own, replicas: (3, 3), pods: &[], measured: Err(unselected), now: now() };
    let decision = decide(&known, &mut Memory::default());
    assert_eq!(condition(&decision, "ScalingActive").1, "InvalidSelector");
    assert_eq!(decision.events[0], ("SelectorRequired", "selector is required".to_owned()));
}

fn behavior() -> impl Strategy<Value = Option<HorizontalPodAutoscalerBehavior>> {
    let policy = (prop::bool::ANY, 1..200_i32, 1..600_i32).prop_map(|(pods, value, period)| {
        json!({ "type": if pods { "Pods" } else { "Percent" }, "value": value, "periodSeconds": period })
    });
    let rules = (prop::collection::vec(policy, 1..4), 0..600_i32, prop::sample::select(vec!["Max", "Min", "Disabled"]))
        .prop_map(|(policies, window, select)| {
            json!({ "policies": policies, "stabilizationWindowSeconds": window, "selectPolicy": select })
        });
    let both = (rules.clone(), rules)
        .prop_map(|(up, down)| serde_json::from_value(json!({ "scaleUp": up, "scaleDown": down })).unwrap());
    prop::option::of(both)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    /// Whatever was recommended, and whatever rules there are: what comes out lies within the bounds, grows with what is
    /// recommended, and never goes the other way.
    #[test]
    fn bounds_hold_and_more_is_never_less(
        rules in behavior(),
        (min, more) in (1..50_i32, 0..50_i32),
        steps in prop::collection::vec((0..200_i32, 1..120_i64), 1..20),
    ) {
        let (max, mut memory, mut current, mut at) = (min + more, Memory::default(), min, 0);
        memory.begin(current, now());
        for (desired, pause) in steps {
            at += pause;
            let bounds = Bounds { min, max, current };
            let other = normalize(&mut memory.clone(), rules.as_ref(), bounds, desired + 5, after(at));
            let one = normalize(&mut memory, rules.as_ref(), bounds, desired, after(at));
            prop_assert!((min..=max).contains(&one.replicas), "{:?}", one);
            prop_assert!(one.replicas <= other.replicas, "{:?} {:?}", one, other);
            prop_assert!(desired < current || one.replicas >= current, "{:?} of {}, wanted {}", one, current, desired);
            let stays = rules.is_some() && desired <= current;
            prop_assert!(!stays || one.replicas <= current, "{:?} of {}", one, current);
            if one.replicas != current {
                memory.scaled(current, one.replicas, after(at));
                current = one.replicas;
            }
        }
    }

    /// Nothing that was recommended within the window is fallen below.
    #[test]
    fn shrinking_waits_for_the_window(steps in prop::collection::vec((1..100_i32, 1..200_i64), 1..30)) {
        let (mut memory, mut current, mut at) = (Memory::default(), 50, 0);
        let mut recent: Vec<(i64, i32)> = Vec::new();
        memory.begin(current, now());
        for (desired, pause) in steps {
            at += pause;
            recent.push((at, desired));
            let normalized = normalize(&mut memory, None, Bounds { min: 1, max: 100, current }, desired, after(at));
            let most = recent.iter().filter(|(when, _)| at - when <= 300).map(|(_, replicas)| *replicas).max().unwrap();
            prop_assert!(normalized.replicas >= most.min(current * 2), "{:?} {}", normalized, most);
            current = normalized.replicas;
        }
    }

    /// Pods that use more never ask for fewer replicas.
    #[test]
    fn more_use_is_never_fewer_replicas(
        used in prop::collection::vec(0..4000_i64, 1..12),
        more in 0..4000_i64,
        percent in 1..200_i32,
    ) {
        let all = pods(used.len());
        let current = i32::try_from(used.len()).unwrap();
        let busier: Vec<i64> = used.iter().map(|milli| milli + more).collect();
        prop_assert!(proposed(&all, current, &used, percent) <= proposed(&all, current, &busier, percent));
    }
}
