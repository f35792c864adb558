use super::*;
use crate::decide::Unfit;
use crate::preemption::{Futile, Preemption};

/// A pod that asks for so many cores.
fn asking(name: &str, cores: u32, priority: i32) -> Arc<PodInfo> {
    asking_with(name, cores, priority, json!({}))
}

fn asking_with(name: &str, cores: u32, priority: i32, more: Value) -> Arc<PodInfo> {
    let requests = json!({"cpu": cores.to_string()});
    let mut value =
        json!({"spec": {"priority": priority, "containers": [{"name": "c", "resources": {"requests": requests}}]}});
    json_patch(&mut value, more);
    pod(name, value)
}

fn started(time: &str) -> Value {
    json!({"status": {"startTime": time}})
}

fn budget(cache: &mut Cache, app: &str, allowed: i32, disrupted: &[&str]) {
    let disrupted: BTreeMap<&str, &str> = disrupted.iter().map(|name| (*name, "2026-01-01T00:00:00Z")).collect();
    let budget = json!({
        "metadata": {"name": app, "namespace": "ns"}, "spec": {"selector": {"matchLabels": {"app": app}}},
        "status": {"disruptionsAllowed": allowed, "disruptedPods": disrupted, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1},
    });
    cache.budgets_mut().set(format!("ns/{app}"), &serde_json::from_value(budget).unwrap());
}

fn refused(cache: &Cache, pod: &PodInfo) -> Unfit {
    decide(cache, pod, 0).unwrap_err()
}

fn room(cache: &Cache, pod: &PodInfo) -> (String, Vec<String>) {
    let Preemption { node, victims, .. } = refused(cache, pod).preemption.unwrap();
    (node, victims.iter().map(|victim| victim.name.clone()).collect())
}

fn on(cache: &mut Cache, node: &str, pods: impl IntoIterator<Item = Arc<PodInfo>>) {
    pods.into_iter().for_each(|pod| cache.set_pod(pod.placed_on(node)));
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn no_more_and_no_more_important_pods_leave_than_the_room_needs() {
    let mut cache = cache([node("a", json!({}))]);
    on(&mut cache, "a", [asking("low", 1, 1), asking("middle", 1, 5), asking("high", 2, 20)]);
    assert_eq!(room(&cache, &asking("p", 1, 10)), ("a".into(), names(&["low"])));
    assert_eq!(room(&cache, &asking("p", 2, 10)), ("a".into(), names(&["middle", "low"])));
    // The message of a pod that room is made for has no word about preemption.
    assert_eq!(refused(&cache, &asking("p", 1, 10)).message(), "0/1 nodes are available: 1 Insufficient cpu.");
    let message = refused(&cache, &asking("p", 3, 10)).message();
    let why = "preemption: 0/1 nodes are available: 1 Insufficient cpu.";
    assert_eq!(message, format!("0/1 nodes are available: 1 Insufficient cpu. {why}"));
    let message = refused(&cache, &asking("p", 1, 1)).message();
    assert!(message.ends_with("1 No preemption victims found for incoming pod."), "{message}");
    // No pod's leaving makes a node larger.
    let message = refused(&cache, &asking("p", 5, 10)).message();
    assert!(message.ends_with("1 Preemption is not helpful for scheduling."), "{message}");
}

#[test]
fn of_the_same_priority_those_leave_that_started_last() {
    let mut cache = cache([node("a", json!({}))]);
    let old = asking_with("old", 2, 0, started("2026-01-01T00:00:00Z"));
    on(&mut cache, "a", [old, asking_with("young", 1, 0, started("2026-01-02T00:00:00Z")), asking("unstarted", 1, 0)]);
    assert_eq!(room(&cache, &asking("p", 1, 10)), ("a".into(), names(&["unstarted"])));
    assert_eq!(room(&cache, &asking("p", 2, 10)), ("a".into(), names(&["young", "unstarted"])));
}

#[test]
fn the_node_is_where_it_costs_least() {
    // Each row: what runs on a, what runs on b, and which of them makes room for four cores.
    let time = |day: u32| started(&format!("2026-01-0{day}T00:00:00Z"));
    let table = [
        ("a less important first victim", vec![asking("1", 4, 5)], vec![asking("2", 4, 1)], "b"),
        (
            "a smaller sum of priorities",
            vec![asking("1", 2, 5), asking("2", 2, 4)],
            vec![asking("3", 2, 5), asking("4", 2, 1)],
            "b",
        ),
        ("fewer victims", vec![asking("1", 2, -5), asking("2", 2, -5)], vec![asking("3", 4, -5)], "b"),
        (
            "younger ones of the highest priority",
            vec![asking_with("1", 4, 5, time(1))],
            vec![asking_with("2", 4, 5, time(2))],
            "b",
        ),
    ];
    for (why, a, b, expected) in table {
        let mut cache = cache([node("a", json!({})), node("b", json!({}))]);
        on(&mut cache, "a", a);
        on(&mut cache, "b", b);
        assert_eq!(room(&cache, &asking("p", 4, 10)).0, expected, "{why}");
    }
}

#[test]
fn budgets_are_kept_where_they_can_be() {
    let labelled = |name: &str, app: &str, priority: i32| {
        asking_with(name, 4, priority, json!({"metadata": {"labels": {"app": app}}}))
    };
    let mut cache = cache([node("a", json!({})), node("b", json!({}))]);
    on(&mut cache, "a", [labelled("protected", "db", 1)]);
    on(&mut cache, "b", [labelled("other", "web", 5)]);
    assert_eq!(room(&cache, &asking("p", 4, 10)).1, names(&["protected"]));
    budget(&mut cache, "db", 0, &[]);
    assert_eq!(room(&cache, &asking("p", 4, 10)).1, names(&["other"]));
    // What the budget counts already costs it nothing more, and a budget with disruptions left is not in the way.
    budget(&mut cache, "db", 0, &["protected"]);
    assert_eq!(room(&cache, &asking("p", 4, 10)).1, names(&["protected"]));
    budget(&mut cache, "db", 1, &[]);
    assert_eq!(room(&cache, &asking("p", 4, 10)).1, names(&["protected"]));
    // It is broken when there is no other way.
    budget(&mut cache, "db", 0, &[]);
    cache.remove_node("b");
    assert_eq!(room(&cache, &asking("p", 4, 10)).1, names(&["protected"]));
}

#[test]
fn room_that_was_made_is_kept() {
    let mut cache = cache([node("a", json!({}))]);
    let first = asking("first", 4, 10);
    cache.nominated_mut().set(&first, "a");
    // A less important pod and one as important do not fit, a more important one does, and so does the pod itself.
    for priority in [0, 10] {
        let unfit = refused(&cache, &asking("p", 1, priority));
        assert_eq!(unfit.reasons, [(Reason::Insufficient("cpu".into()), 1)].into());
    }
    assert!(decide(&cache, &asking("p", 1, 11), 0).is_ok());
    assert_eq!(decide(&cache, &first, 0).unwrap().node, "a");
    assert_eq!(cache.nominated().below(11, "a").len(), 1);
    assert!(cache.nominated().below(10, "a").is_empty());
    assert!(cache.nominated_mut().remove("first") && !cache.nominated_mut().remove("first"));
    assert!(decide(&cache, &asking("p", 1, 0), 0).is_ok());
}

#[test]
fn the_nominated_node_comes_first_even_if_another_is_emptier() {
    let mut cache = cache([node("a", json!({})), node("b", json!({}))]);
    on(&mut cache, "a", [asking("there", 2, 0)]);
    let pod = asking("p", 1, 10);
    assert_eq!(decide(&cache, &pod, 0).unwrap().node, "b");
    cache.nominated_mut().set(&pod, "a");
    assert_eq!(decide(&cache, &pod, 0).unwrap().node, "a");
}

#[test]
fn a_pod_that_waits_for_its_victims_or_never_preempts_takes_no_more() {
    let mut cache = cache([node("a", json!({})), node("b", json!({}))]);
    let leaving = json!({
        "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
        "status": {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]},
    });
    on(&mut cache, "a", [asking_with("victim", 4, 0, leaving)]);
    on(&mut cache, "b", [asking("other", 4, 0)]);
    let futile = |cache: &Cache, pod: &PodInfo| refused(cache, pod).preemption.unwrap_err();
    let never = asking_with("p", 4, 10, json!({"spec": {"preemptionPolicy": "Never"}}));
    let why = "not eligible due to preemptionPolicy=Never.";
    assert_eq!(futile(&cache, &never), Futile { why: why.into(), keeps_nomination: true });
    let pod = asking("p", 4, 10);
    cache.nominated_mut().set(&pod, "a");
    let why = "not eligible due to a terminating pod on the nominated node.";
    assert_eq!(futile(&cache, &pod), Futile { why: why.into(), keeps_nomination: true });
    // The node will not do any more: other room is looked for.
    cache.set_node(node("a", json!({"spec": {"unschedulable": true}})));
    assert_eq!(room(&cache, &pod), ("b".into(), names(&["other"])));
}

#[test]
fn pods_that_keep_others_away_can_be_victims() {
    let term = json!({"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname"});
    let apart =
        json!({"spec": {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}});
    let mut cache = cache([node("a", json!({}))]);
    on(&mut cache, "a", [asking_with("guard", 1, 0, apart.clone()), asking("plain", 1, 1)]);
    assert_eq!(room(&cache, &asking("p", 1, 10)).1, names(&["guard"]));
    assert_eq!(room(&cache, &asking_with("p", 1, 10, apart)).1, names(&["plain", "guard"]));
}

proptest! {
    #[test]
    fn victims_are_less_important_enough_and_none_too_many(
        running in proptest::collection::vec((0usize..3, 1u32..4, 0i32..4), 0..12),
        (cores, priority) in (1u32..6, 0i32..5),
    ) {
        let nodes = ["a", "b", "c"];
        let mut cache = cache(nodes.map(|name| node(name, json!({}))));
        for (number, (at, cores, priority)) in running.into_iter().enumerate() {
            let pod = asking(&format!("p{number}"), cores, priority);
            let used = cache.node(nodes[at]).unwrap().1.requested.milli_cpu;
            if used + pod.requests.milli_cpu <= 4000 {
                on(&mut cache, nodes[at], [pod]);
            }
        }
        let pod = asking("new", cores, priority);
        let Err(Unfit { preemption: Ok(found), .. }) = decide(&cache, &pod, 0) else { return Ok(()) };
        prop_assert!(!found.victims.is_empty());
        let alone = |cache: &Cache| {
            let used = cache.node(&found.node).unwrap().1.requested.milli_cpu;
            used + pod.requests.milli_cpu <= 4000
        };
        for victim in &found.victims {
            prop_assert!(victim.priority < pod.priority);
            prop_assert_eq!(&victim.node_name, &found.node);
            cache.remove_pod(&victim.uid);
        }
        prop_assert!(alone(&cache));
        for victim in &found.victims {
            cache.set_pod(victim.clone());
            prop_assert!(!alone(&cache), "{} might have stayed", victim.name);
            cache.remove_pod(&victim.uid);
        }
    }
}
