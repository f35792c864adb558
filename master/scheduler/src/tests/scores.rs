//! Which of several nodes that fit is taken.

use super::{cache, decide, json, node, place, pod};

#[test]
fn a_node_without_the_label_of_a_soft_constraint_is_the_last() {
    let zone =
        |name: &str, zone: &str| node(name, json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}}));
    let mut cache = cache([node("nowhere", json!({})), zone("a", "1"), zone("b", "2")]);
    let spread = |name: &str| {
        pod(
            name,
            json!({"spec": {"topologySpreadConstraints": [{
                "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {"app": "web"}}}]}}),
        )
    };
    let mut places = [place(&mut cache, &spread("p")), place(&mut cache, &spread("q"))];
    places.sort();
    assert_eq!(places, ["a", "b"]);
}

#[test]
fn where_all_domains_are_as_full_a_node_without_one_is_still_the_last() {
    let zone = json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "1"}}});
    let mut cache = cache([node("nowhere", json!({})), node("a", zone)]);
    cache.set_pod(pod("other", json!({})).placed_on("a"));
    let spread = json!({"spec": {"topologySpreadConstraints": [{
        "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"app": "web"}}}]}});
    assert_eq!(place(&mut cache, &pod("p", spread)), "a");
}

#[test]
fn a_pod_goes_where_it_evens_out_what_is_used() {
    let mut cache = cache([node("a", json!({})), node("b", json!({}))]);
    let asks = |name: &str, cpu: &str, memory: &str| {
        pod(
            name,
            json!({"metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]}}),
        )
    };
    // Both are as full as the other, one of CPU and one of memory.
    cache.set_pod(asks("cpu", "2", "0").placed_on("a"));
    cache.set_pod(asks("memory", "0", "4Gi").placed_on("b"));
    assert_eq!(place(&mut cache, &asks("p", "1", "1Mi")), "b");
}

#[test]
fn an_image_draws_pods_where_it_is_and_more_where_it_is_common() {
    let has = |name: &str, image: &str| {
        let image = json!({"names": [image], "sizeBytes": 900 * 1024 * 1024});
        node(name, json!({"status": {"images": [image]}}))
    };
    let runs = |image: &str| pod("p", json!({"spec": {"containers": [{"name": "c", "image": image}]}}));
    let nodes = cache([node("bare", json!({})), has("a", "x:latest"), has("b", "y:1"), has("c", "y:1")]);
    assert_eq!(decide(&nodes, &runs("x"), 0).unwrap().node, "a");
    assert_eq!(decide(&nodes, &runs("y:1"), 3).unwrap().node, "c");
    let in_volume = json!({"spec": {"volumes": [{"name": "v", "image": {"reference": "x"}}]}});
    assert_eq!(decide(&nodes, &pod("p", in_volume), 2).unwrap().node, "a");
}
