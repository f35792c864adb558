use auth::Observer as _;
use futures::FutureExt as _;
use jiff::Timestamp;
use serde_json::json;

use super::Allocators;
use crate::ip_addresses;

#[test]
fn a_network_is_needed_for_addresses_that_no_other_has() {
    let allocators = Allocators::new("10.0.0.0/24".parse().unwrap(), 30_000..=30_010);
    let network = |cidr: &str| json!({ "metadata": {}, "spec": { "cidrs": [cidr] } });
    let observe = |resource: &str, name: &str, object: serde_json::Value| {
        allocators.observe("", resource, "default", name, Some(&object));
    };
    observe("servicecidrs", "first", network("10.0.0.0/24"));
    observe("servicecidrs", "second", network("10.1.0.0/24"));
    observe("services", "a", json!({ "spec": { "clusterIPs": ["10.1.0.5"] } }));
    assert!(!allocators.is_needed("first") && allocators.is_needed("second"));
    observe("servicecidrs", "around", network("10.0.0.0/15"));
    assert!(!allocators.is_needed("second"));
    allocators.observe("", "servicecidrs", "", "around", None);
    assert!(allocators.is_needed("second"));
    allocators.observe("", "services", "default", "a", None);
    assert!(!allocators.is_needed("second"));
}

#[test]
fn services_and_addresses_are_made_to_agree() {
    let allocators = Allocators::new("10.0.0.0/24".parse().unwrap(), 30_000..=30_010);
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let service = |name: &str, ip: Option<&str>| {
        let object = ip.map(|ip| json!({ "spec": { "clusterIPs": [ip] } }));
        allocators.observe("", "services", "d", name, object.as_ref());
    };
    let address = |ip: &str, owner: Option<&str>| {
        let object = owner.map(|owner| ip_addresses::object(ip.parse().unwrap(), owner, start));
        allocators.observe("", "ipaddresses", "", ip, object.as_ref());
    };
    let due = |seconds: i64| {
        let due = allocators.addresses_due(start + jiff::SignedDuration::from_secs(seconds));
        let missing: Vec<String> = due.missing.iter().map(|(ip, owner)| format!("{ip} {owner}")).collect();
        let left: Vec<String> = due.left_over.iter().map(ToString::to_string).collect();
        (missing, left, due.is_early)
    };
    let none = || (vec![], vec![], false);
    service("old", Some("10.0.0.5"));
    service("elsewhere", Some("192.168.0.5"));
    assert_eq!(due(0), (vec!["10.0.0.5 d/old".to_owned()], vec![], false));
    address("10.0.0.5", Some("d/old"));
    assert_eq!(due(0), none());
    // Somebody else may be about to write the Service.
    address("10.0.0.6", Some("d/new"));
    assert_eq!(due(30), (vec![], vec![], true));
    assert_eq!(due(61), (vec![], vec!["10.0.0.6".to_owned()], false));
    service("new", Some("10.0.0.6"));
    assert_eq!(due(61), none());
    service("new", None);
    assert_eq!(due(0), (vec![], vec!["10.0.0.6".to_owned()], false));
    // It can be had at once.
    let kind = schema::Registry::builtin().kind("", "v1", "services").unwrap();
    let object = |name: &str, ip: &str| json!({ "metadata": { "namespace": "d", "name": name }, "spec": { "type": "ClusterIP", "clusterIP": ip } });
    let reserved = allocators.allocate(kind, &mut object("next", "10.0.0.6"), None).unwrap();
    assert_eq!(due(0), none());
    drop(reserved);
    assert_eq!(due(0), (vec![], vec!["10.0.0.6".to_owned()], false));
    address("10.0.0.6", None);
    assert_eq!(due(0), none());
    // What others made is theirs, and stays.
    let others = json!({ "metadata": {}, "spec": { "parentRef": { "group": "x.io", "resource": "xs", "name": "x" } } });
    allocators.observe("", "ipaddresses", "", "10.0.0.7", Some(&others));
    assert_eq!(due(100), none());
    assert!(allocators.allocate(kind, &mut object("next", "10.0.0.7"), None).is_err());
    // A Service's own address is the Service's.
    address("10.0.0.5", Some("d/gone"));
    assert_eq!(due(0).0, ["10.0.0.5 d/old"]);
}

#[test]
fn what_two_services_have_stays_the_others() {
    let allocators = Allocators::new("10.0.0.0/24".parse().unwrap(), 30_000..=30_010);
    let (ip, port) = ("10.0.0.5", 30_005);
    let service = |name: &str, there: bool| {
        let spec = json!({ "clusterIPs": [ip], "ports": [{ "nodePort": port }] });
        let object = there.then(|| json!({ "spec": spec }));
        allocators.observe("", "services", "d", name, object.as_ref());
    };
    let address = |owner: &str| {
        let object = ip_addresses::object(ip.parse().unwrap(), owner, Timestamp::now());
        allocators.observe("", "ipaddresses", "", ip, Some(&object));
    };
    let due = || {
        let due = allocators.addresses_due(Timestamp::now() + jiff::SignedDuration::from_secs(100));
        (due.missing.into_iter().map(|(_, owner)| owner).collect::<Vec<_>>(), due.left_over.len())
    };
    let kind = schema::Registry::builtin().kind("", "v1", "services").unwrap();
    let can_have = |spec: serde_json::Value| {
        let mut object = json!({ "metadata": { "namespace": "d", "name": "third" }, "spec": spec });
        allocators.allocate(kind, &mut object, None).is_ok()
    };
    let is_free = || {
        let ports = json!([{ "nodePort": port }]);
        let node_port = json!({ "type": "NodePort", "clusterIP": "10.0.0.9", "ports": ports });
        (can_have(json!({ "type": "ClusterIP", "clusterIP": ip })), can_have(node_port))
    };
    service("a", true);
    service("b", true);
    address("d/a");
    assert_eq!(due(), (vec![], 0), "either may have it");
    service("a", false);
    assert_eq!(due(), (vec!["d/b".to_owned()], 0));
    assert_eq!(is_free(), (false, false));
    address("d/b");
    assert_eq!(due(), (vec![], 0));
    service("b", false);
    assert_eq!(due(), (vec![], 1));
    assert_eq!(is_free(), (true, true));
}

#[test]
fn an_address_of_others_is_not_drawn() {
    let allocators = Allocators::new("10.0.0.0/29".parse().unwrap(), 30_000..=30_010);
    let gateway =
        json!({ "metadata": {}, "spec": { "parentRef": { "group": "example.com", "resource": "gateways" } } });
    for last in [1, 2, 3, 5, 6] {
        allocators.observe("", "ipaddresses", "", &format!("10.0.0.{last}"), Some(&gateway));
    }
    let registry = schema::Registry::builtin();
    let kind = registry.kind("", "v1", "services").unwrap();
    let mut service = json!({ "metadata": { "namespace": "d", "name": "a" }, "spec": { "type": "ClusterIP" } });
    let reserved = allocators.allocate(kind, &mut service, None).unwrap();
    assert_eq!(service["spec"]["clusterIP"], "10.0.0.4");
    drop(reserved);
}

#[test]
fn what_a_request_that_was_given_up_chose_is_kept_while_its_commit_may_come() {
    let allocators = Allocators::new("10.0.0.0/24".parse().unwrap(), 30_000..=30_010);
    let registry = schema::Registry::builtin();
    let kind = registry.kind("", "v1", "services").unwrap();
    let ip = "10.0.0.7";
    let choose = |name: &str| {
        let mut service =
            json!({ "metadata": { "namespace": "d", "name": name }, "spec": { "type": "ClusterIP", "clusterIP": ip } });
        allocators.allocate(kind, &mut service, None)
    };
    let mut reserved = choose("a").unwrap();
    let object = ip_addresses::object(ip.parse().unwrap(), "d/a", Timestamp::now());
    allocators.observe("", "ipaddresses", "", ip, Some(&object));
    assert!(reserved.during(std::future::pending::<()>()).now_or_never().is_none());
    drop(reserved);
    assert!(!allocators.is_freed(ip.parse().unwrap()));
    assert!(choose("b").is_err());
    // One that was refused gives it back.
    drop(choose("a").unwrap());
    assert!(allocators.is_freed(ip.parse().unwrap()));
    assert!(choose("b").is_ok());
}

#[test]
fn balancers_without_node_ports_of_their_own_may_ask_for_some() {
    let allocators = Allocators::new("10.0.0.0/24".parse().unwrap(), 30_000..=30_010);
    let kind = schema::Registry::builtin().kind("", "v1", "services").unwrap();
    allocators.observe("", "services", "d", "other", Some(&json!({ "spec": { "ports": [{ "nodePort": 30_005 }] } })));
    let chosen = |ports: serde_json::Value| {
        let spec = json!({ "type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": ports });
        let mut object = json!({ "metadata": { "namespace": "d", "name": "a" }, "spec": spec });
        allocators.allocate(kind, &mut object, None).map(|_| object["spec"]["ports"].clone()).map_err(|e| e.message)
    };
    let asked = json!([{ "port": 80 }, { "port": 81, "nodePort": 30_006 }]);
    assert_eq!(chosen(asked.clone()), Ok(asked));
    let taken = chosen(json!([{ "port": 80, "nodePort": 30_005 }])).unwrap_err();
    assert!(taken.ends_with("spec.ports[0].nodePort: Invalid value: 30005: provided port is already allocated"));
    let outside = chosen(json!([{ "port": 80, "nodePort": 22 }])).unwrap_err();
    assert!(outside.contains("provided port is not in the valid range"), "{outside}");
}

#[test]
fn two_may_write_a_service_with_its_ports_at_a_time() {
    let allocators = Allocators::new("10.0.0.0/24".parse().unwrap(), 30_000..=30_010);
    let kind = schema::Registry::builtin().kind("", "v1", "services").unwrap();
    let service = |ports: serde_json::Value| {
        let spec = json!({
            "type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30_009,
            "clusterIP": "10.0.0.9", "clusterIPs": ["10.0.0.9"], "ports": ports,
        });
        json!({ "metadata": { "namespace": "d", "name": "a" }, "spec": spec })
    };
    let old = service(json!([{ "port": 80, "nodePort": 30_005 }]));
    allocators.observe("", "services", "d", "a", Some(&old));
    let update = |ports: serde_json::Value| {
        let mut new = service(ports);
        allocators.allocate(kind, &mut new, Some(&old)).map(|reserved| (reserved, new))
    };
    let kept = json!([{ "port": 80, "nodePort": 30_005 }]);
    let first = update(kept.clone()).unwrap();
    let second = update(kept).unwrap();
    // What the Service does not have yet is held.
    let third = update(json!([{ "port": 80, "nodePort": 30_006 }])).unwrap();
    assert!(update(json!([{ "port": 80, "nodePort": 30_006 }])).is_err());
    drop((first, second, third));
}
