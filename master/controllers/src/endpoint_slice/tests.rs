use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::legacy::endpoints;
use super::mirror::groups;
use super::plan::{Changes, Identity, MOST, reconcile};
use super::select::wanted;

fn service(more: Value) -> Service {
    let mut spec = json!({"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "web"}]});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    serde_json::from_value(
        json!({"metadata": {"name": "web", "namespace": "ns", "uid": "s", "labels": {"team": "a"}}, "spec": spec}),
    )
    .unwrap()
}

fn pod(number: usize, ready: bool, terminating: bool, port: i32) -> Arc<Pod> {
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": format!("p{number}"), "namespace": "ns", "uid": format!("u{number}"), "labels": {"app": "web"},
                "deletionTimestamp": terminating.then_some("2026-01-01T00:00:00Z")},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": port}]}]},
            "status": {"phase": "Running", "podIP": format!("10.0.{}.{}", number / 250, number % 250),
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
        }))
        .unwrap(),
    )
}

fn zone(_: &str) -> Option<String> {
    Some("z".into())
}

/// Writes the changes to the slices as the API server would.
fn write(slices: &mut BTreeMap<String, EndpointSlice>, changes: Changes, names: &mut usize) {
    for slice in changes.delete {
        slices.remove(slice.metadata.name.as_deref().unwrap()).unwrap();
    }
    for slice in changes.update {
        let name = slice.metadata.name.clone().unwrap();
        assert!(slices.insert(name, slice).is_some());
    }
    for mut slice in changes.create {
        *names += 1;
        let name = format!("web-{names}");
        slice.metadata.generate_name = None;
        slice.metadata.name = Some(name.clone());
        slices.insert(name, slice);
    }
}

fn present(slices: &BTreeMap<String, EndpointSlice>) -> Vec<Arc<EndpointSlice>> {
    slices.values().cloned().map(Arc::new).collect()
}

#[test]
fn conditions_follow_readiness_and_deletion() {
    let table =
        [(true, false, (true, true, false)), (false, false, (false, false, false)), (true, true, (false, true, true))];
    for (ready, terminating, expected) in table {
        let groups = wanted(&service(json!({})), &[pod(1, ready, terminating, 8080)], &zone);
        let endpoint = &groups[0].endpoints[0];
        let conditions = endpoint.conditions.as_ref().unwrap();
        assert_eq!((conditions.ready.unwrap(), conditions.serving.unwrap(), conditions.terminating.unwrap()), expected);
        assert_eq!((endpoint.node_name.as_deref(), endpoint.zone.as_deref()), (Some("n1"), Some("z")));
    }
    let published = service(json!({"publishNotReadyAddresses": true}));
    let groups = wanted(&published, &[pod(1, false, true, 8080)], &zone);
    assert_eq!(groups[0].endpoints[0].conditions.as_ref().unwrap().ready, Some(true));
}

#[test]
fn ready_endpoints_have_the_hints_that_the_distribution_asks_for() {
    let hints = |distribution: Value, annotations: Value, ready: bool, zone: &dyn Fn(&str) -> Option<String>| {
        let mut service = service(json!({"trafficDistribution": distribution}));
        service.metadata.annotations = serde_json::from_value(annotations).unwrap();
        let groups = wanted(&service, &[pod(1, ready, false, 8080)], zone);
        serde_json::to_value(&groups[0].endpoints[0].hints).unwrap()
    };
    let by_zone = json!({"forZones": [{"name": "z"}]});
    let by_node = json!({"forNodes": [{"name": "n1"}], "forZones": [{"name": "z"}]});
    let nowhere = |_: &str| None;
    let table = [
        ("PreferClose", by_zone.clone()),
        ("PreferSameZone", by_zone),
        ("PreferSameNode", by_node),
        ("Somewhere", Value::Null),
    ];
    for (distribution, expected) in table {
        assert_eq!(hints(json!(distribution), json!({}), true, &zone), expected, "{distribution}");
        assert_eq!(hints(json!(distribution), json!({}), false, &zone), Value::Null, "not ready");
        let auto = json!({"service.kubernetes.io/topology-mode": "Auto"});
        assert_eq!(hints(json!(distribution), auto, true, &zone), Value::Null, "by capacity");
    }
    assert_eq!(hints(Value::Null, json!({}), true, &zone), Value::Null);
    assert_eq!(hints(json!("PreferClose"), json!({}), true, &nowhere), Value::Null);
    let without_zone = json!({"forNodes": [{"name": "n1"}]});
    assert_eq!(hints(json!("PreferSameNode"), json!({}), true, &nowhere), without_zone);
    let older = json!({"service.kubernetes.io/topology-aware-hints": "Disabled", "service.kubernetes.io/topology-mode": "Auto"});
    assert_ne!(hints(json!("PreferClose"), older, true, &zone), Value::Null);
}

#[test]
fn a_changed_distribution_is_written_once() {
    let pods = [pod(1, true, false, 8080), pod(2, false, false, 8080)];
    let mut slices = BTreeMap::new();
    let mut names = 0;
    for distribution in [Value::Null, json!("PreferSameNode"), json!("PreferClose"), Value::Null] {
        let service = service(json!({"trafficDistribution": distribution}));
        let identity = Identity::of(&service, "m");
        let changes = reconcile(&identity, &present(&slices), wanted(&service, &pods, &zone));
        assert_eq!(changes.create.len() + changes.update.len(), 1, "{distribution}");
        write(&mut slices, changes, &mut names);
        let again = reconcile(&identity, &present(&slices), wanted(&service, &pods, &zone));
        assert_eq!(again, Changes::default());
    }
}

#[test]
fn pods_with_other_numbers_for_a_named_port_are_in_slices_of_their_own() {
    let groups = wanted(
        &service(json!({})),
        &[pod(1, true, false, 8080), pod(2, true, false, 9090), pod(3, true, false, 8080)],
        &zone,
    );
    let shape: Vec<_> = groups.iter().map(|group| (group.ports[0].port, group.endpoints.len())).collect();
    assert_eq!(shape, [(Some(8080), 2), (Some(9090), 1)]);
    let identity = Identity::of(&service(json!({"clusterIP": "None"})), "m");
    assert!(identity.labels.contains_key("service.kubernetes.io/headless") && identity.labels["team"] == "a");
}

#[test]
fn a_service_without_pods_has_one_empty_slice() {
    let identity = Identity::of(&service(json!({})), "m");
    let changes = reconcile(&identity, &[], wanted(&service(json!({})), &[], &zone));
    assert_eq!(changes.create.len(), 1);
    let mut slices = BTreeMap::new();
    write(&mut slices, changes, &mut 0);
    assert_eq!(reconcile(&identity, &present(&slices), wanted(&service(json!({})), &[], &zone)), Changes::default());
    // Its first pod changes that slice and makes no other.
    let changes =
        reconcile(&identity, &present(&slices), wanted(&service(json!({})), &[pod(1, true, false, 80)], &zone));
    assert_eq!((changes.create.len(), changes.update.len(), changes.delete.len()), (0, 1, 0));
}

#[test]
fn endpoints_group_addresses_by_ports_and_leave_terminating_pods_out() {
    let pods =
        [pod(1, true, false, 8080), pod(2, false, false, 8080), pod(3, true, true, 8080), pod(4, true, false, 9090)];
    let subsets = endpoints(&service(json!({})), &pods).subsets.unwrap();
    let shape: Vec<_> = subsets
        .iter()
        .map(|subset| {
            let ips = |list: &Option<Vec<k8s_openapi::api::core::v1::EndpointAddress>>| {
                list.iter().flatten().map(|address| address.ip.clone()).collect::<Vec<_>>()
            };
            (subset.ports.as_ref().unwrap()[0].port, ips(&subset.addresses), ips(&subset.not_ready_addresses))
        })
        .collect();
    let text = |ips: &[&str]| ips.iter().map(|ip| (*ip).to_owned()).collect::<Vec<_>>();
    assert_eq!(shape, [(8080, text(&["10.0.0.1"]), text(&["10.0.0.2"])), (9090, text(&["10.0.0.4"]), text(&[]))]);
}

#[test]
fn hand_written_endpoints_are_mirrored_by_family() {
    let endpoints: Endpoints = serde_json::from_value(json!({
        "metadata": {"name": "db", "namespace": "ns"},
        "subsets": [{"addresses": [{"ip": "10.1.1.1"}, {"ip": "fd00::1"}], "notReadyAddresses": [{"ip": "10.1.1.2"}], "ports": [{"port": 5432}]}],
    }))
    .unwrap();
    let groups = groups(&endpoints);
    let shape: Vec<_> = groups.iter().map(|group| (group.address_type, group.endpoints.len())).collect();
    assert_eq!(shape, [("IPv4", 2), ("IPv6", 1)]);
    assert_eq!(groups[0].endpoints[1].conditions.as_ref().unwrap().ready, Some(false));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn slices_always_hold_exactly_the_pods_and_change_little(
        rounds in proptest::collection::vec((proptest::collection::btree_set(0usize..330, 0..330), 0usize..3), 1..6),
    ) {
        let service = service(json!({}));
        let identity = Identity::of(&service, "m");
        let mut slices: BTreeMap<String, EndpointSlice> = BTreeMap::new();
        let mut names = 0;
        let mut before: BTreeSet<usize> = BTreeSet::new();
        for (numbers, flip) in rounds {
            let pods: Vec<_> = numbers.iter().map(|number| pod(*number, number % 3 != flip, false, 8080)).collect();
            let changes = reconcile(&identity, &present(&slices), wanted(&service, &pods, &zone));
            if numbers == before && slices.len() > 1 {
                prop_assert!(changes.create.is_empty() && changes.delete.is_empty());
            }
            write(&mut slices, changes, &mut names);
            let mut found = Vec::new();
            for slice in slices.values() {
                let endpoints = slice.endpoints.as_deref().unwrap_or_default();
                prop_assert!(endpoints.len() <= MOST);
                prop_assert!(!endpoints.is_empty() || slices.len() == 1);
                for endpoint in endpoints {
                    let uid = endpoint.target_ref.as_ref().unwrap().uid.clone().unwrap();
                    let number: usize = uid[1..].parse().unwrap();
                    prop_assert_eq!(endpoint.conditions.as_ref().unwrap().ready, Some(number % 3 != flip));
                    found.push(number);
                }
            }
            found.sort_unstable();
            prop_assert_eq!(found, numbers.iter().copied().collect::<Vec<_>>());
            // Settled: nothing more to write.
            let again = reconcile(&identity, &present(&slices), wanted(&service, &pods, &zone));
            prop_assert_eq!(again, Changes::default());
            before = numbers;
        }
    }
}
