use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::cache::Cache;
use crate::decide::{decide, nodes_to_find};
use crate::node::NodeFacts;
use crate::plugins::Reason;
use crate::pod::PodInfo;
use crate::queue::{Event, Queue};
use crate::volumes::{Change, Choice};

mod preemption;
mod scores;

pub(crate) fn node(name: &str, more: Value) -> NodeFacts {
    let mut value = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"}},
    });
    json_patch(&mut value, more);
    let node: Node = serde_json::from_value(value).unwrap();
    NodeFacts::new(&node)
}

pub(crate) fn pod(name: &str, more: Value) -> Arc<PodInfo> {
    let mut value = json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name, "labels": {"app": "web"}, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}]},
    });
    json_patch(&mut value, more);
    let pod: Pod = serde_json::from_value(value).unwrap();
    PodInfo::new(&pod)
}

/// A JSON merge patch.
fn json_patch(value: &mut Value, patch: Value) {
    match (value, patch) {
        (Value::Object(fields), Value::Object(patch)) => {
            for (key, patch) in patch {
                json_patch(fields.entry(key).or_insert(Value::Null), patch);
            }
        }
        (value, patch) => *value = patch,
    }
}

fn cache(nodes: impl IntoIterator<Item = NodeFacts>) -> Cache {
    let mut cache = Cache::default();
    for facts in nodes {
        cache.set_node(facts);
    }
    cache
}

fn place(cache: &mut Cache, pod: &PodInfo) -> String {
    let decision = decide(cache, pod, 0).unwrap();
    cache.set_pod(pod.placed_on(&decision.node));
    decision.node
}

fn message(cache: &Cache, pod: &PodInfo) -> String {
    decide(cache, pod, 0).unwrap_err().message()
}

#[test]
fn the_message_counts_reasons_as_upstream_words_them() {
    let tainted =
        json!({"spec": {"taints": [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]}});
    let cache = cache([
        node("a", tainted),
        node("b", json!({"status": {"allocatable": {"cpu": "500m"}}})),
        node("c", json!({"spec": {"unschedulable": true}})),
    ]);
    assert_eq!(
        message(&cache, &pod("p", json!({}))),
        "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable. \
         preemption: 0/3 nodes are available: \
         3 Preemption is not helpful for scheduling."
    );
    assert_eq!(message(&Cache::default(), &pod("p", json!({}))), "no nodes available to schedule pods");
}

#[test]
fn filters_refuse_for_their_own_reason() {
    let labels = json!({"metadata": {"labels": {"disk": "ssd", "zone": "1"}}});
    let affinity = |operator: &str, values: Value| {
        json!({"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "disk", "operator": operator, "values": values}]},
        ]}}}}})
    };
    let by_field = json!({"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]},
    ]}}}}});
    let gpu = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"example.com/gpu": "1"}}}]}});
    let table = [
        (json!({"spec": {"nodeSelector": {"disk": "ssd"}}}), None),
        (json!({"spec": {"nodeSelector": {"disk": "hdd"}}}), Some(Reason::NodeAffinity)),
        (affinity("In", json!(["ssd"])), None),
        (affinity("NotIn", json!(["ssd"])), Some(Reason::NodeAffinity)),
        (by_field, Some(Reason::NotNamed)),
        (gpu, Some(Reason::Smaller("example.com/gpu".into()))),
        (
            json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"memory": "9Gi"}}}]}}),
            Some(Reason::Smaller("memory".into())),
        ),
    ];
    for (more, expected) in table {
        let cache = cache([node("a", labels.clone())]);
        let got =
            decide(&cache, &pod("p", more.clone()), 0).err().map(|unfit| unfit.reasons.into_keys().collect::<Vec<_>>());
        assert_eq!(got, expected.map(|reason| vec![reason]), "{more}");
    }
}

#[test]
fn host_ports_clash_by_address_and_protocol() {
    let with_port = |name: &str, ip: &str, protocol: &str| {
        let port = json!({"containerPort": 80, "hostPort": 80, "hostIP": ip, "protocol": protocol});
        pod(name, json!({"spec": {"containers": [{"name": "c", "ports": [port]}]}}))
    };
    let mut cache = cache([node("a", json!({}))]);
    place(&mut cache, &with_port("first", "10.0.0.1", "TCP"));
    assert!(decide(&cache, &with_port("p", "10.0.0.2", "TCP"), 0).is_ok());
    assert!(decide(&cache, &with_port("p", "10.0.0.1", "UDP"), 0).is_ok());
    for ip in ["10.0.0.1", "0.0.0.0", ""] {
        let unfit = decide(&cache, &with_port("p", ip, "TCP"), 0).unwrap_err();
        assert_eq!(unfit.reasons.into_keys().collect::<Vec<_>>(), [Reason::Ports]);
    }
    cache.remove_pod("first");
    assert!(decide(&cache, &with_port("p", "", "TCP"), 0).is_ok());
}

#[test]
fn pods_of_one_application_spread_over_nodes_and_zones() {
    let in_zone =
        |name: &str, zone: &str| node(name, json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}}));
    let mut cache = cache([in_zone("a", "1"), in_zone("b", "1"), in_zone("c", "2"), in_zone("d", "2")]);
    let small = json!({"spec": {"containers": [{"name": "c"}]}});
    let mut nodes = Vec::new();
    for number in 0..4 {
        let mut more = small.clone();
        // Another revision of the same application counts too.
        json_patch(&mut more, json!({"metadata": {"labels": {"pod-template-hash": format!("h{}", number % 2)}}}));
        nodes.push(place(&mut cache, &pod(&format!("p{number}"), more)));
    }
    assert_eq!(nodes.iter().collect::<HashSet<_>>().len(), 4, "{nodes:?}");
    let zone = |name: &str| if ["a", "b"].contains(&name) { 1 } else { 2 };
    assert_ne!(zone(&nodes[0]), zone(&nodes[1]), "{nodes:?}");
}

#[test]
fn hard_spread_constraints_hold() {
    let constraint = json!({"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}}});
    let more = json!({"spec": {"topologySpreadConstraints": [constraint], "containers": [{"name": "c"}]}});
    let mut cache = cache([
        node("a", json!({})),
        node("b", json!({})),
        node("c", json!({"status": {"allocatable": {"pods": "1"}}})),
    ]);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for number in 0..5 {
        *counts.entry(place(&mut cache, &pod(&format!("p{number}"), more.clone()))).or_default() += 1;
    }
    assert_eq!(counts.values().copied().collect::<Vec<_>>(), [2, 2, 1]);
    let unfit = decide(&cache, &pod("p5", more), 0).unwrap_err();
    assert_eq!(unfit.reasons, [(Reason::Spread, 2), (Reason::TooManyPods, 1)].into());
}

#[test]
fn pod_affinity_and_anti_affinity_hold_in_both_directions() {
    let term = json!({"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname"});
    let rule = |kind: &str| json!({"spec": {"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term.clone()]}}}});
    let mut cache = cache([node("a", json!({})), node("b", json!({}))]);
    // The first of a group that wants to be together may go anywhere, the others follow it.
    let first = place(&mut cache, &pod("near-1", rule("podAffinity")));
    assert_eq!(place(&mut cache, &pod("near-2", rule("podAffinity"))), first);
    let alone = place(&mut cache, &pod("alone", rule("podAntiAffinity")));
    assert_ne!(alone, first);
    let unfit = decide(&cache, &pod("another", rule("podAntiAffinity")), 0).unwrap_err();
    assert_eq!(unfit.reasons, [(Reason::PodAntiAffinity, 2)].into());
    // A pod without rules is kept away by those of the pod that is there.
    cache.remove_pod("near-1");
    cache.remove_pod("near-2");
    cache.remove_node(&first);
    let unfit = decide(&cache, &pod("plain", json!({})), 0).unwrap_err();
    assert_eq!(unfit.reasons, [(Reason::ExistingAntiAffinity, 1)].into());
    let other = pod("other", json!({"metadata": {"labels": {"app": "db"}}}));
    assert!(decide(&cache, &other, 0).is_ok());
}

#[test]
fn taints_and_preferences_order_nodes() {
    let avoided = json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "PreferNoSchedule"}]}});
    let cache_ =
        cache([node("a", avoided), node("b", json!({"metadata": {"labels": {"disk": "ssd"}}})), node("c", json!({}))]);
    assert_ne!(decide(&cache_, &pod("p", json!({})), 0).unwrap().node, "a");
    let prefers = json!({"spec": {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 10, "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}},
    ]}}}});
    assert_eq!(decide(&cache_, &pod("p", prefers), 2).unwrap().node, "b");
}

#[test]
fn as_many_nodes_are_looked_at_as_upstream_does() {
    let table = [(0, 1), (50, 50), (100, 100), (1000, 420), (5000, 500), (20_000, 1000)];
    for (nodes, expected) in table {
        assert_eq!(nodes_to_find(nodes), expected, "{nodes} nodes");
    }
}

#[tokio::test(start_paused = true)]
async fn only_events_that_may_help_wake_a_pod() {
    let mut queue = Queue::default();
    let now = Instant::now();
    queue.set(pod("low", json!({})), now);
    queue.set(pod("high", json!({"spec": {"priority": 10}})), now);
    assert_eq!(queue.pop().unwrap().name, "high");
    assert_eq!(queue.pop().unwrap().name, "low");
    queue.unschedulable("low", [Reason::Insufficient("cpu".into())].into(), now);
    let later = now + Duration::from_secs(2);
    queue.wake(Event::NodeTaints, later);
    assert!(queue.pop().is_none());
    queue.wake(Event::PodGone, later);
    assert_eq!(queue.pop().unwrap().name, "low");
    // Within the pause it backs off first, longer each time.
    queue.unschedulable("low", [Reason::Insufficient("cpu".into())].into(), later);
    queue.wake(Event::PodGone, later);
    assert!(queue.pop().is_none());
    assert_eq!(queue.due(), Some(later + Duration::from_secs(2)));
    queue.flush(later + Duration::from_secs(2));
    assert_eq!(queue.pop().unwrap().name, "low");
}

#[test]
fn a_pod_that_shrinks_or_is_relabelled_may_help_others() {
    let before = pod("p", json!({"spec": {"nodeName": "a"}}));
    let of = |more: Value| {
        let mut wanted = json!({"spec": {"nodeName": "a"}});
        json_patch(&mut wanted, more);
        Event::of_placed(Some(&before), &pod("p", wanted))
    };
    let sized = |cpu: &str, memory: &str| json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]}});
    assert_eq!(Event::of_placed(None, &before), [Event::PodPlaced]);
    assert_eq!(of(json!({})), []);
    assert_eq!(of(sized("500m", "2Gi")), [Event::PodGone], "less of one");
    assert_eq!(of(sized("2", "1Gi")), []);
    assert_eq!(of(json!({"metadata": {"labels": {"app": "db"}}})), [Event::PodRelabelled]);
    assert!(Event::PodRelabelled.helps(&Reason::PodAntiAffinity) && Event::NodeGone.helps(&Reason::Spread));
}

#[test]
fn a_sidecars_ports_of_the_machine_are_its_pods() {
    let sidecar = |name: &str| {
        let ports = json!([{"containerPort": 9100, "hostPort": 9100}]);
        pod(name, json!({"spec": {"initContainers": [{"name": "s", "restartPolicy": "Always", "ports": ports}]}}))
    };
    let mut cache = cache([node("a", json!({}))]);
    place(&mut cache, &sidecar("p"));
    let told = message(&cache, &sidecar("q"));
    assert!(told.contains("1 node(s) didn't have free ports for the requested pod ports"), "{told}");
}

#[test]
fn a_pod_goes_where_all_that_it_needs_can_be_done() {
    let rule = json!({"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}});
    let needy = pod("p", json!({"spec": {"containers": [{"name": "c", "restartPolicyRules": [rule]}]}}));
    let able = json!({"status": {"declaredFeatures": ["RestartAllContainersOnContainerExits"]}});
    let mut cache = cache([node("a", json!({}))]);
    let told = message(&cache, &needy);
    assert!(told.contains("1 node(s) didn't match Pod's required features"), "{told}");
    cache.set_node(node("b", able));
    assert_eq!(place(&mut cache, &needy), "b");
    assert!(Event::NodeFeatures.helps(&Reason::Features));
}

#[tokio::test(start_paused = true)]
async fn gated_pods_wait_for_their_gates_and_nothing_is_stuck_for_ever() {
    let mut queue = Queue::default();
    let now = Instant::now();
    queue.set(pod("p", json!({"spec": {"schedulingGates": [{"name": "g"}]}})), now);
    assert!(queue.pop().is_none());
    queue.set(pod("p", json!({})), now);
    assert_eq!(queue.pop().unwrap().name, "p");
    queue.unschedulable("p", [Reason::Ports].into(), now);
    queue.flush(now + Duration::from_secs(301));
    assert_eq!(queue.pop().unwrap().name, "p");
    queue.remove("p");
    assert!(queue.pop().is_none() && queue.due().is_none());
}

#[derive(Debug, Clone)]
enum Step {
    Place { cpu: i64, memory: i64 },
    Remove(prop::sample::Index),
    DropNode(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0i64..3000, 0i64..6000).prop_map(|(cpu, memory)| Step::Place { cpu, memory }),
        2 => any::<prop::sample::Index>().prop_map(Step::Remove),
        1 => any::<prop::sample::Index>().prop_map(Step::DropNode),
    ];
    proptest::collection::vec(step, 1..80)
}

proptest! {
    #[test]
    fn no_node_is_ever_overcommitted_and_the_sums_stay_right(steps in steps()) {
        let zones = ["x", "y"];
        let mut cache = cache((0..5).map(|number| {
            node(&format!("n{number}"), json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zones[number % 2]}}}))
        }));
        let mut placed: Vec<Arc<PodInfo>> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Place { cpu, memory } => {
                    let requests = json!({"cpu": format!("{cpu}m"), "memory": format!("{memory}Mi")});
                    let pod = pod(&format!("p{number}"), json!({"spec": {"containers": [{"name": "c", "resources": {"requests": requests}}]}}));
                    match decide(&cache, &pod, number) {
                        Ok(decision) => {
                            let pod = pod.placed_on(&decision.node);
                            cache.set_pod(pod.clone());
                            placed.push(pod);
                        }
                        Err(unfit) => prop_assert_eq!(unfit.nodes, cache.node_count()),
                    }
                }
                Step::Remove(index) if !placed.is_empty() => {
                    let pod = placed.swap_remove(index.index(placed.len()));
                    prop_assert!(cache.remove_pod(&pod.uid));
                }
                Step::DropNode(index) if cache.node_count() > 1 => {
                    let names: Vec<String> = cache.nodes().map(|(facts, _)| facts.name.clone()).collect();
                    cache.remove_node(&names[index.index(names.len())]);
                }
                Step::Remove(_) | Step::DropNode(_) => (),
            }
            for (facts, info) in cache.nodes() {
                prop_assert!(info.requested.milli_cpu <= facts.allocatable.milli_cpu);
                prop_assert!(info.requested.memory <= facts.allocatable.memory);
                prop_assert!(info.requested.pods <= facts.allocatable.pods);
                let mine = placed.iter().filter(|pod| pod.node_name == facts.name);
                let sum: i64 = mine.map(|pod| pod.requests.milli_cpu).sum();
                prop_assert_eq!(info.requested.milli_cpu, sum);
            }
        }
        let application = pod("p", json!({})).application;
        for zone in zones {
            let there: u32 = cache.nodes().filter(|(facts, _)| facts.zone() == Some(zone))
                .map(|(_, info)| info.applications.get(&application).copied().unwrap_or(0)).sum();
            prop_assert_eq!(cache.application_in_zone(application, zone), there);
        }
    }
}

/// A class of local volumes, two of them on node a, and what a claim asks for.
fn storage(cache: &mut Cache, mode: &str, bound: bool) {
    let volume = |name: &str, claim: Value| {
        let term = json!({"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": ["a"]}]});
        json!({
            "metadata": {"name": name}, "status": {"phase": "Available"},
            "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "local",
                "claimRef": claim, "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}}
        })
    };
    let class = json!({
        "metadata": {"name": "local"}, "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": mode});
    let mut claim = json!({
        "metadata": {"name": "c", "namespace": "ns", "uid": "u"}, "status": {"phase": "Pending"},
        "spec": {"resources": {"requests": {"storage": "1Gi"}}, "accessModes": ["ReadWriteOnce"], "storageClassName": "local"}
    });
    if bound {
        claim["spec"]["volumeName"] = "v1".into();
        claim["metadata"]["annotations"] = json!({"pv.kubernetes.io/bind-completed": "yes"});
    }
    let volumes = cache.volumes_mut();
    volumes.apply(Change::Class(serde_json::from_value(class).unwrap()));
    volumes.apply(Change::Claim(serde_json::from_value(claim).unwrap()));
    for name in ["v1", "v2"] {
        let owner = if bound { json!({"name": "c", "namespace": "ns", "uid": "u"}) } else { Value::Null };
        volumes.apply(Change::Volume(serde_json::from_value(volume(name, owner)).unwrap()));
    }
}

fn claimant(name: &str) -> Arc<PodInfo> {
    pod(name, json!({"spec": {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}}))
}

#[test]
fn a_pod_goes_where_its_volume_is() {
    let mut both = cache([node("a", json!({})), node("b", json!({}))]);
    let message = decide(&both, &claimant("p"), 0).unwrap_err().message();
    assert!(message.starts_with("0/2 nodes are available: persistentvolumeclaim \"c\" not found. preemption: 0/2"));
    storage(&mut both, "Immediate", true);
    let decision = decide(&both, &claimant("p"), 1).unwrap();
    assert_eq!((decision.node.as_str(), decision.volumes.len()), ("a", 0));
    let mut other = cache([node("b", json!({}))]);
    storage(&mut other, "Immediate", true);
    let message = decide(&other, &claimant("p"), 0).unwrap_err().message();
    assert!(message.contains("1 node(s) didn't match PersistentVolume's node affinity"), "{message}");
}

#[test]
fn a_pod_goes_to_a_zone_of_its_volume() {
    const ZONE: &str = "topology.kubernetes.io/zone";
    let placed = |labels: Value| {
        let mut one = cache([node("a", json!({"metadata": {"labels": labels}}))]);
        storage(&mut one, "Immediate", true);
        let volume = json!({
            "metadata": {"name": "v1", "labels": {"failure-domain.beta.kubernetes.io/zone": "x__y"}},
            "spec": {"claimRef": {"name": "c", "namespace": "ns", "uid": "u"}}});
        one.volumes_mut().apply(Change::Volume(serde_json::from_value(volume).unwrap()));
        decide(&one, &claimant("p"), 0).map(|decision| decision.node).map_err(|unfit| unfit.message())
    };
    assert_eq!(placed(json!({ZONE: "y"})), Ok("a".to_owned()));
    assert_eq!(placed(json!({})), Ok("a".to_owned()), "a node that says nothing of it");
    for other in [json!({ZONE: "z"}), json!({"topology.kubernetes.io/region": "r"})] {
        let message = placed(other).unwrap_err();
        assert!(message.contains("1 node(s) had no available volume zone"), "{message}");
    }
}

#[test]
fn volumes_of_claims_that_wait_are_chosen_with_the_node() {
    let mut cache = cache([node("a", json!({})), node("b", json!({}))]);
    storage(&mut cache, "Immediate", false);
    let message = decide(&cache, &claimant("p"), 0).unwrap_err().message();
    assert!(message.contains("available: pod has unbound immediate PersistentVolumeClaims."), "{message}");
    storage(&mut cache, "WaitForFirstConsumer", false);
    let decision = decide(&cache, &claimant("p"), 1).unwrap();
    let choice = |volume: &str| vec![Choice { claim: "ns/c".into(), volume: Some(volume.into()) }];
    assert_eq!((decision.node.as_str(), decision.volumes), ("a", choice("v1")));
    cache.volumes_mut().assume("p", &choice("v1"));
    assert_eq!(decide(&cache, &claimant("q"), 0).unwrap().volumes, choice("v2"));
    cache.volumes_mut().assume("q", &choice("v2"));
    let message = decide(&cache, &claimant("r"), 0).unwrap_err().message();
    assert!(message.contains("2 node(s) didn't find available persistent volumes to bind"), "{message}");
    cache.volumes_mut().settle("p");
    assert_eq!(decide(&cache, &claimant("r"), 0).unwrap().volumes, choice("v1"));
}

#[test]
fn a_claim_for_one_pod_keeps_others_away() {
    let mut cache = cache([node("a", json!({})), node("b", json!({}))]);
    let claim = |mode: &str| {
        let claim = json!({
            "metadata": {"name": "c", "namespace": "ns", "annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
            "spec": {"accessModes": [mode], "volumeName": "v"}, "status": {"phase": "Bound"}});
        Change::Claim(serde_json::from_value(claim).unwrap())
    };
    let volume = json!({"metadata": {"name": "v"}, "spec": {}});
    cache.volumes_mut().apply(Change::Volume(serde_json::from_value(volume).unwrap()));
    cache.volumes_mut().apply(claim("ReadWriteOncePod"));
    place(&mut cache, &claimant("p"));
    let refused = message(&cache, &claimant("q"));
    let why = "2 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by \
               another pod";
    assert!(refused.contains(why), "{refused}");
    cache.volumes_mut().apply(claim("ReadWriteOnce"));
    assert!(decide(&cache, &claimant("q"), 0).is_ok());
    cache.volumes_mut().apply(claim("ReadWriteOncePod"));
    cache.remove_pod("p");
    assert!(decide(&cache, &claimant("q"), 0).is_ok());
}

#[test]
fn a_pod_for_one_node_is_not_told_of_the_others_one_by_one() {
    let tainted = json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
    let cache = cache([node("a", json!({})), node("b", tainted), node("c", json!({"spec": {"unschedulable": true}}))]);
    let only = |names: Value| {
        let field = json!({"key": "metadata.name", "operator": "In", "values": names});
        let required = json!({"nodeSelectorTerms": [{"matchFields": [field]}]});
        pod(
            "p",
            json!({"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}}}),
        )
    };
    let refused = message(&cache, &only(json!(["b"])));
    let wanted = "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 node(s) didn't satisfy plugin(s) [NodeAffinity].";
    assert!(refused.starts_with(wanted), "{refused}");
    assert_eq!(decide(&cache, &only(json!(["c", "a"])), 0).unwrap().node, "a");
}
