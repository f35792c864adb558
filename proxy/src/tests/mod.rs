//! Flushes against a stand-in for the kernel.

mod fake;
mod properties;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use fake::{FakeFlows, FakeKernel};
use netns::nft::{Datum, Element, Op};

use super::*;
use crate::compile::{Compiled, compile};
use crate::numbers::Numbers;
use crate::types::{Endpoint, EndpointPort, Hints, Protocol, ServicePort, TrafficPolicy};

fn facts() -> NodeFacts {
    NodeFacts {
        node_port_addresses: vec!["192.168.0.1".parse().unwrap()],
        cluster_cidrs: vec!["10.0.0.0/8".parse().unwrap()],
        pod_cidrs: vec!["10.1.0.0/24".parse().unwrap()],
        non_masquerade_cidrs: Vec::new(),
        service_cidrs: vec!["10.96.0.0/12".parse().unwrap()],
        zone: None,
    }
}

fn port(name: &str, protocol: Protocol, node_port: Option<u16>) -> ServicePort {
    ServicePort { name: name.into(), protocol, port: 80, node_port }
}

pub(crate) fn service(ip: &str) -> Service {
    Service {
        cluster_ips: vec![ip.parse().unwrap()],
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        source_ranges: Vec::new(),
        ports: vec![port("http", Protocol::Tcp, None)],
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity: None,
        health_check_port: None,
    }
}

fn slice(endpoints: Vec<Endpoint>) -> EndpointSlice {
    let port = |name: &str, protocol, port| EndpointPort { name: name.into(), protocol, port };
    EndpointSlice { ports: vec![port("http", Protocol::Tcp, 8080), port("dns", Protocol::Udp, 53)], endpoints }
}

fn endpoint(last: u8) -> Endpoint {
    let address = IpAddr::from([10, 1, 0, last]);
    Endpoint { address, ready: true, serving: true, terminating: false, local: last.is_multiple_of(2), hints: None }
}

fn name(number: usize) -> ObjectName {
    ObjectName::new("default", &format!("s{number}"))
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

type FakeProxy<'a> = Proxy<&'a FakeKernel, &'a FakeFlows>;

/// A proxy of a kernel without connections.
fn proxy(kernel: &FakeKernel) -> FakeProxy<'_> {
    static NONE: FakeFlows = FakeFlows::new();
    let mut proxy = Proxy::new(kernel, &NONE, Config::default());
    proxy.table().set_facts(facts());
    proxy
}

#[test]
fn one_endpoint_beside_ten_thousand_services_is_a_few_elements() {
    let kernel = FakeKernel::default();
    let mut proxy = proxy(&kernel);
    for number in 0..10_000usize {
        let ip = format!("10.96.{}.{}", number / 250, number % 250 + 1);
        proxy.table().upsert_service(name(number), service(&ip));
        let endpoints = (1..=5).map(endpoint).collect();
        proxy.table().upsert_slice(name(number), name(number), slice(endpoints));
    }
    let first = block_on(proxy.flush()).unwrap();
    assert!(first.full && first.services == 10_000 && first.endpoints == 50_000);
    // One more endpoint within the same class of groups: its slot alone.
    proxy.table().upsert_slice(name(77), name(77), slice((1..=6).map(endpoint).collect()));
    let one = block_on(proxy.flush()).unwrap();
    assert_eq!((one.full, one.structure, one.elements), (false, 0, 2), "its slot, and its hairpin");
    // One less: the last slot takes the place of the one that went.
    proxy.table().upsert_slice(name(77), name(77), slice((2..=6).map(endpoint).collect()));
    assert_eq!(block_on(proxy.flush()).unwrap().elements, 3);
    assert_eq!(block_on(proxy.flush()).unwrap().elements, 0);
    // A new Service: its address, its group.
    proxy.table().upsert_service(name(10_000), service("10.97.0.1"));
    let new = block_on(proxy.flush()).unwrap();
    assert_eq!((new.structure, new.elements), (0, 2));
}

/// As kube-proxy counts them: ready ones of this node, each address once whatever port it serves, and those of the family that is asked.
#[test]
fn load_balancers_are_told_of_ready_endpoints_of_this_node() {
    let kernel = FakeKernel::default();
    let mut proxy = proxy(&kernel);
    let both = ["192.168.0.1", "fd00::1"].map(|ip| ip.parse().unwrap()).to_vec();
    proxy.table().set_facts(NodeFacts { node_port_addresses: both, ..facts() });
    let cluster_ips = ["10.96.0.1", "fd00:96::1"].map(|ip| ip.parse().unwrap()).to_vec();
    let asked = Service { health_check_port: Some(31000), cluster_ips, ..service("10.96.0.1") };
    proxy.table().upsert_service(name(1), asked);
    proxy.table().upsert_service(name(2), service("10.96.0.2"));
    let terminating = Endpoint { ready: false, terminating: true, ..endpoint(6) };
    let six = Endpoint { address: "fd00:1::2".parse().unwrap(), ..endpoint(2) };
    let all = [endpoint(1), endpoint(2), endpoint(4), terminating, six].to_vec();
    proxy.table().upsert_slice(name(1), name(1), slice(all));
    proxy.table().upsert_slice(name(3), name(1), slice(vec![endpoint(2)]));
    let strange = EndpointPort { name: "other".into(), protocol: Protocol::Tcp, port: 1 };
    proxy.table().upsert_slice(name(4), name(1), EndpointSlice { ports: vec![strange], endpoints: vec![endpoint(8)] });
    let portless = EndpointSlice { ports: Vec::new(), endpoints: vec![endpoint(10)] };
    proxy.table().upsert_slice(name(5), name(1), portless);
    block_on(proxy.flush()).unwrap();
    let told = |proxy: &mut FakeProxy<'_>| -> Vec<(String, usize)> {
        let checks = proxy.table().health_checks();
        checks.iter().map(|(at, check)| (format!("{at} {}", check.service), check.local_endpoints)).collect()
    };
    let (v4, v6) = ("192.168.0.1:31000 default/s1".to_owned(), "[fd00::1]:31000 default/s1".to_owned());
    assert_eq!(told(&mut proxy), [(v4, 3), (v6, 1)]);
    // The port goes from one Service to another, in whichever order they are flushed.
    for (from, to) in [(1, 2), (2, 1)] {
        let ip = |number: usize| format!("10.96.0.{number}");
        proxy.table().upsert_service(name(from), service(&ip(from)));
        proxy.table().upsert_service(name(to), Service { health_check_port: Some(31000), ..service(&ip(to)) });
        block_on(proxy.flush()).unwrap();
        let told: Vec<_> = told(&mut proxy).into_iter().map(|(at, _)| at).collect();
        assert_eq!(told, [format!("192.168.0.1:31000 default/s{to}")], "its only family is IPv4");
    }
}

/// kube-proxy has a half for each family, which knows the Services that have a cluster IP of it.
#[test]
fn a_service_is_reached_by_its_own_families_alone() {
    let addresses = |texts: &[&str]| -> Vec<IpAddr> { texts.iter().map(|text| text.parse().unwrap()).collect() };
    let facts = NodeFacts { node_port_addresses: addresses(&["192.168.0.1", "fd00::1"]), ..facts() };
    let reached = |cluster_ips: &[&str]| -> BTreeSet<IpAddr> {
        let service = Service {
            cluster_ips: addresses(cluster_ips),
            external_ips: addresses(&["192.0.2.1", "2001:db8::1"]),
            ports: vec![port("http", Protocol::Tcp, Some(30000))],
            ..service("10.96.0.1")
        };
        let none: [EndpointSlice; 0] = [];
        let (previous, mut numbers) = (Compiled::default(), Numbers::default());
        let compiled = compile(&name(1), &service, none.iter(), &facts, &previous, &mut numbers);
        compiled.frontends.iter().map(|frontend| frontend.address.ip).collect()
    };
    let (v4, v6) = (["10.96.0.1", "192.0.2.1", "192.168.0.1"], ["fd00:96::1", "2001:db8::1", "fd00::1"]);
    let of = |texts: &[&str]| addresses(texts).into_iter().collect::<BTreeSet<_>>();
    assert_eq!(reached(&["10.96.0.1"]), of(&v4));
    assert_eq!(reached(&["fd00:96::1"]), of(&v6));
    assert_eq!(reached(&["fd00:96::1", "10.96.0.1"]), of(&[v4, v6].concat()));
}

/// Users write any address into `externalIPs`: also one that another port of the same Service has on each node, or its own cluster IP.
#[test]
fn ports_of_one_service_that_want_one_address_do_not_stop_the_proxy() {
    let kernel = FakeKernel::default();
    let mut proxy = proxy(&kernel);
    let first = ServicePort { port: 30080, ..port("http", Protocol::Tcp, Some(30081)) };
    let second = port("alt", Protocol::Tcp, Some(30080));
    let twice = Service {
        ports: vec![second, first],
        external_ips: vec!["192.168.0.1".parse().unwrap(), "10.96.0.1".parse().unwrap()],
        internal_policy: TrafficPolicy::Local,
        ..service("10.96.0.1")
    };
    let kinds = |kernel: &FakeKernel| -> Vec<(Vec<u8>, u32, usize)> {
        let behaviour = kernel.behaviour().into_iter();
        let services = behaviour.filter(|((map, _), _)| map == "services4");
        services.map(|((_, key), (kind, targets, _))| (key[..4].to_vec(), kind, targets.len())).collect()
    };
    proxy.table().upsert_service(name(0), twice);
    block_on(proxy.flush()).unwrap();
    proxy.table().upsert_slice(name(0), name(0), slice(vec![endpoint(1), endpoint(2)]));
    block_on(proxy.flush()).unwrap();
    let changed = kinds(&kernel);
    // The cluster IP is for this node's endpoint alone, and the external address before the node port of the other port.
    let local = (vec![10, 96, 0, 1], ruleset::kind_of(1), 1);
    let any = (vec![192, 168, 0, 1], ruleset::kind_of(2), 2);
    assert!(changed.contains(&local) && !changed.contains(&(vec![10, 96, 0, 1], any.1, 2)), "{changed:?}");
    assert_eq!(changed.iter().filter(|known| **known == any).count(), 2, "{changed:?}");
    proxy.table().failed();
    block_on(proxy.flush()).unwrap();
    assert_eq!(kinds(&kernel), changed);
}

/// What cannot be forgotten is tried again with each flush, by the endpoints that there are by then, and keeps nothing else.
#[test]
fn stale_connections_are_deleted_until_none_is_left() {
    let (kernel, flows) = (FakeKernel::default(), FakeFlows::new());
    let mut proxy = Proxy::new(&kernel, &flows, Config::default());
    proxy.table().set_facts(facts());
    let dns = |ip: &str| Service { ports: vec![port("dns", Protocol::Udp, None)], ..service(ip) };
    let flow = |ip: u8, to: u8| UdpFlow {
        original: (IpAddr::from([10, 96, 0, ip]), 80),
        answering: (endpoint(to).address, 53),
        translated: true,
    };
    for (number, ip) in [(1, "10.96.0.1"), (2, "10.96.0.2")] {
        proxy.table().upsert_service(name(number), dns(ip));
        proxy.table().upsert_slice(name(number), name(number), slice(vec![endpoint(1), endpoint(2), endpoint(3)]));
    }
    block_on(proxy.flush()).unwrap();
    *flows.flows.lock().unwrap() = vec![flow(1, 1), flow(1, 2), flow(2, 1), flow(2, 3)];
    *flows.undeletable.lock().unwrap() = vec![flow(1, 1)];
    for number in [1, 2] {
        proxy.table().upsert_slice(name(number), name(number), slice(vec![endpoint(2), endpoint(3)]));
    }
    // A refusal of the table does not forget what is stale.
    *kernel.fail.lock().unwrap() = true;
    assert!(!block_on(proxy.flush()).unwrap_err().is_applied());
    *kernel.fail.lock().unwrap() = false;
    assert!(block_on(proxy.flush()).unwrap_err().is_applied());
    assert_eq!(*flows.flows.lock().unwrap(), [flow(1, 1), flow(1, 2), flow(2, 3)]);
    assert!(proxy.table().is_clean());
    assert!(block_on(proxy.flush()).is_err(), "it is tried again though the table is as it should be");
    // An endpoint comes meanwhile: its connections stay.
    proxy.table().upsert_slice(name(1), name(1), slice(vec![endpoint(2), endpoint(3), endpoint(4)]));
    flows.flows.lock().unwrap().push(flow(1, 4));
    flows.undeletable.lock().unwrap().clear();
    assert_eq!(block_on(proxy.flush()).unwrap().stale_flows, 1);
    assert_eq!(*flows.flows.lock().unwrap(), [flow(1, 2), flow(2, 3), flow(1, 4)]);
    assert_eq!(block_on(proxy.flush()).unwrap().stale_flows, 0);
}

/// What new connections do not go to keeps those that it has for as long as it serves, as with TCP.
#[test]
fn connections_to_endpoints_that_still_serve_go_on() {
    let (kernel, flows) = (FakeKernel::default(), FakeFlows::new());
    let mut proxy = Proxy::new(&kernel, &flows, Config::default());
    proxy.table().set_facts(facts());
    let dns = Service { ports: vec![port("dns", Protocol::Udp, None)], ..service("10.96.0.1") };
    let hinted = |last, here| {
        let hints = Some(Arc::new(Hints { for_this_node: Some(here), zones: Vec::new() }));
        Endpoint { hints, ..endpoint(last) }
    };
    let leaving = |serving| Endpoint { ready: false, serving, terminating: true, ..endpoint(1) };
    let flow = |to: u8| UdpFlow {
        original: (IpAddr::from([10, 96, 0, 1]), 80),
        answering: (endpoint(to).address, 53),
        translated: true,
    };
    proxy.table().upsert_service(name(1), dns.clone());
    proxy.table().upsert_slice(name(1), name(1), slice((1..=3).map(endpoint).collect()));
    block_on(proxy.flush()).unwrap();
    *flows.flows.lock().unwrap() = vec![flow(1), flow(2), flow(3)];
    let stale = |proxy: &mut FakeProxy<'_>, endpoints: Vec<Endpoint>| {
        proxy.table().upsert_slice(name(1), name(1), slice(endpoints));
        block_on(proxy.flush()).unwrap().stale_flows
    };
    assert_eq!(stale(&mut proxy, vec![leaving(true), endpoint(2), endpoint(3)]), 0, "it terminates");
    assert_eq!(stale(&mut proxy, vec![leaving(true), hinted(2, true), hinted(3, false)]), 0, "hints leave one out");
    proxy.table().upsert_service(name(1), Service { internal_policy: TrafficPolicy::Local, ..dns });
    assert_eq!(block_on(proxy.flush()).unwrap().stale_flows, 0, "the policy leaves one out");
    assert_eq!(stale(&mut proxy, vec![leaving(false), hinted(2, true), hinted(3, false)]), 1, "it serves no longer");
    assert_eq!(stale(&mut proxy, vec![endpoint(2)]), 1, "it went");
    assert_eq!(*flows.flows.lock().unwrap(), [flow(2)]);
}

/// A node that is put into another zone uses the endpoints of that.
#[test]
fn endpoints_follow_hints_and_the_nodes_zone() {
    use k8s_openapi::api::discovery::v1 as discovery;
    let endpoint = |last: u8, node: &str, zone: &str| -> discovery::Endpoint {
        let hints = discovery::EndpointHints {
            for_nodes: None,
            for_zones: Some(vec![discovery::ForZone { name: zone.into() }]),
        };
        discovery::Endpoint {
            addresses: vec![format!("10.1.0.{last}")],
            node_name: Some(node.into()),
            hints: Some(hints),
            ..discovery::Endpoint::default()
        }
    };
    let labels = [("kubernetes.io/service-name".to_owned(), "s0".to_owned())].into();
    let mut given = discovery::EndpointSlice {
        address_type: "IPv4".into(),
        endpoints: Some(vec![endpoint(1, "n1", "a"), endpoint(2, "n2", "b")]),
        ports: Some(vec![discovery::EndpointPort {
            name: Some("http".into()),
            port: Some(8080),
            ..discovery::EndpointPort::default()
        }]),
        ..discovery::EndpointSlice::default()
    };
    given.metadata.labels = Some(labels);
    given.metadata.namespace = Some("default".into());
    let kernel = FakeKernel::default();
    let mut proxy = proxy(&kernel);
    proxy.table().upsert_service(name(0), service("10.96.0.1"));
    let (of, slice) = convert::endpoint_slice(&given, "n1").unwrap();
    proxy.table().upsert_slice(name(0), of, slice);
    let mut targets = |zone: Option<&str>| -> Vec<u8> {
        proxy.table().set_facts(NodeFacts { zone: zone.map(Into::into), ..facts() });
        block_on(proxy.flush()).unwrap();
        let behaviour = kernel.behaviour();
        let (_, (_, targets, _)) = behaviour.iter().find(|((map, _), _)| map == "services4").unwrap();
        targets.iter().map(|target| target[3]).collect()
    };
    assert_eq!(targets(None), [1, 2]);
    assert_eq!(targets(Some("a")), [1]);
    assert_eq!(targets(Some("b")), [2]);
    assert_eq!(targets(Some("c")), [1, 2]);
    // Hints for nodes, as `PreferSameNode` has them.
    for (endpoint, node) in given.endpoints.iter_mut().flatten().zip(["n1", "n2"]) {
        let for_nodes = Some(vec![discovery::ForNode { name: node.into() }]);
        endpoint.hints = Some(discovery::EndpointHints { for_nodes, for_zones: None });
    }
    let (_, slice) = convert::endpoint_slice(&given, "n2").unwrap();
    let here: Vec<_> = slice.endpoints.iter().map(|e| e.hints.as_ref().unwrap().for_this_node).collect();
    assert_eq!(here, [Some(false), Some(true)]);
}

#[test]
fn serving_is_true_where_nobody_says_otherwise() {
    use k8s_openapi::api::discovery::v1 as discovery;
    let conditions = |ready, serving, terminating| discovery::EndpointConditions { ready, serving, terminating };
    let endpoint = |conditions: discovery::EndpointConditions| discovery::Endpoint {
        addresses: vec!["10.1.0.1".into()],
        conditions: Some(conditions),
        ..discovery::Endpoint::default()
    };
    let given = [conditions(Some(false), None, Some(true)), conditions(Some(false), Some(false), None)].map(endpoint);
    let mut slice = discovery::EndpointSlice {
        address_type: "IPv4".into(),
        endpoints: Some(given.to_vec()),
        ..discovery::EndpointSlice::default()
    };
    slice.metadata.labels = Some([("kubernetes.io/service-name".to_owned(), "s0".to_owned())].into());
    let (_, slice) = convert::endpoint_slice(&slice, "n1").unwrap();
    let seen: Vec<_> = slice.endpoints.iter().map(|e| (e.ready, e.serving, e.terminating)).collect();
    assert_eq!(seen, [(false, true, true), (false, false, false)]);
}

#[test]
fn source_ranges_are_read_as_validation_lets_them_pass() {
    use k8s_openapi::api::core::v1 as core;
    let ranges = [" 10.0.0.0/8", "fd00::/8 ", "nonsense"].map(String::from).to_vec();
    let spec = core::ServiceSpec {
        cluster_ip: Some("10.96.0.1".into()),
        load_balancer_source_ranges: Some(ranges),
        ..core::ServiceSpec::default()
    };
    let service = convert::service(&core::Service { spec: Some(spec), ..core::Service::default() }).unwrap();
    assert_eq!(service.source_ranges, ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().unwrap()));
}

#[test]
fn only_load_balancers_with_a_local_policy_have_health_checks() {
    use k8s_openapi::api::core::v1 as core;
    let port = |type_: &str, policy: &str, port: i32| {
        let spec = core::ServiceSpec {
            type_: Some(type_.into()),
            cluster_ip: Some("10.96.0.1".into()),
            external_traffic_policy: Some(policy.into()),
            health_check_node_port: Some(port),
            ..core::ServiceSpec::default()
        };
        let service = core::Service { spec: Some(spec), ..core::Service::default() };
        convert::service(&service).unwrap().health_check_port
    };
    assert_eq!(port("LoadBalancer", "Local", 31000), Some(31000));
    assert_eq!(port("LoadBalancer", "Local", 0), None);
    assert_eq!(port("LoadBalancer", "Cluster", 31000), None);
    assert_eq!(port("NodePort", "Local", 31000), None);
}

/// Each client of group, as the kernel remembers it: `group . client : spare . group . endpoint . port`.
fn remember(kernel: &FakeKernel, number: u32, client: u8, to: u8, left: Duration) {
    let sticky = sets::sticky(number, endpoint(to).address, 8080).key;
    let mut key = number.to_ne_bytes().to_vec();
    key.extend([10, 1, 0, client]);
    let value = [&[6, 0, 0, 0], sticky.as_slice()].concat();
    let element = Element { timeout: Some(left), ..Element::value(key.clone(), value) };
    kernel.sets.lock().unwrap().get_mut("clients4").unwrap().insert(key, element);
}

/// Client -> endpoint and seconds that are left.
fn remembered(kernel: &FakeKernel) -> Vec<(u8, u8, u64)> {
    let sets = kernel.sets.lock().unwrap();
    let clients = sets["clients4"].values().map(|element| {
        let Some(Datum::Value(value)) = &element.data else { panic!("{element:?}") };
        (element.key[7], value[11], element.timeout.unwrap().as_secs())
    });
    clients.collect()
}

#[test]
fn clients_with_affinity_stay_where_they_are_when_the_world_around_them_changes() {
    let kernel = FakeKernel::default();
    let mut first = proxy(&kernel);
    let sticky = || Service { affinity: Some(Duration::from_secs(60)), ..service("10.96.0.1") };
    let fill = |proxy: &mut FakeProxy<'_>, endpoints: &[u8]| {
        proxy.table().upsert_service(name(0), service("10.96.0.7"));
        proxy.table().upsert_service(name(1), sticky());
        proxy.table().upsert_slice(name(1), name(1), slice(endpoints.iter().map(|last| endpoint(*last)).collect()));
    };
    fill(&mut first, &[1, 2, 3]);
    block_on(first.flush()).unwrap();
    let number =
        u32::from_ne_bytes(kernel.sets.lock().unwrap()["affinity"].keys().next().unwrap()[..4].try_into().unwrap());
    for (client, to, left) in [(21, 1, 50), (22, 2, 500), (23, 3, 20)] {
        remember(&kernel, number, client, to, Duration::from_secs(left));
    }
    remember(&kernel, number, 24, 1, Duration::from_millis(3));
    remember(&kernel, number.wrapping_add(7), 25, 1, Duration::from_secs(50));
    let before = remembered(&kernel);
    // A node joins, this one's address changes.
    let facts = NodeFacts {
        node_port_addresses: vec!["192.168.0.9".parse().unwrap()],
        cluster_cidrs: vec!["10.1.0.0/24".parse().unwrap(), "10.1.1.0/24".parse().unwrap()],
        non_masquerade_cidrs: vec!["192.168.0.2/32".parse().unwrap()],
        ..facts()
    };
    first.table().set_facts(facts.clone());
    let stats = block_on(first.flush()).unwrap();
    assert!(!stats.full && stats.structure == 0 && stats.elements > 0, "{stats:?}");
    assert_eq!(remembered(&kernel), before);
    // The kernel refuses a change; the table is replaced, and an endpoint is gone meanwhile.
    first.table().upsert_service(name(2), service("10.96.0.2"));
    *kernel.fail.lock().unwrap() = true;
    assert!(block_on(first.flush()).is_err());
    *kernel.fail.lock().unwrap() = false;
    fill(&mut first, &[1, 2]);
    assert!(block_on(first.flush()).unwrap().full);
    assert_eq!(remembered(&kernel), [(21, 1, 50), (22, 2, 60)]);
    // Another life of the agent, in which Services come in another order and one more is there.
    let mut second = proxy(&kernel);
    second.table().upsert_service(name(9), service("10.96.0.9"));
    fill(&mut second, &[2, 1]);
    second.table().set_facts(facts);
    assert!(block_on(second.flush()).unwrap().full);
    assert_eq!(remembered(&kernel), [(21, 1, 50), (22, 2, 60)]);
}

#[test]
fn the_number_of_rules_does_not_depend_on_services() {
    let structure = |services: usize| {
        let kernel = FakeKernel::default();
        let mut proxy = proxy(&kernel);
        for number in 0..services {
            proxy.table().upsert_service(name(number), service(&format!("10.96.0.{}", number + 1)));
        }
        let batch = proxy.table().flush().batch;
        batch.ops.iter().filter(|op| matches!(op, Op::AddRule(_))).count()
    };
    assert_eq!(structure(0), structure(200));
}

#[test]
fn an_address_goes_to_the_next_one_that_wants_it() {
    let kernel = FakeKernel::default();
    let mut proxy = proxy(&kernel);
    let shared = |ip: &str| Service { external_ips: vec!["198.51.100.1".parse().unwrap()], ..service(ip) };
    for (number, ip) in [(0, "10.96.0.1"), (1, "10.96.0.2")] {
        proxy.table().upsert_service(name(number), shared(ip));
        proxy.table().upsert_slice(name(number), name(number), slice(vec![endpoint(number as u8 + 1)]));
        block_on(proxy.flush()).unwrap();
    }
    let target = |kernel: &FakeKernel| {
        let behaviour = kernel.behaviour();
        let external = behaviour.iter().find(|((map, key), _)| map == "services4" && key.starts_with(&[198]));
        external.map(|(_, (_, targets, _))| targets.iter().map(|target| target[3]).collect::<Vec<_>>())
    };
    assert_eq!(target(&kernel), Some(vec![1]));
    proxy.table().remove_service(&name(0));
    block_on(proxy.flush()).unwrap();
    assert_eq!(target(&kernel), Some(vec![2]));
    proxy.table().remove_service(&name(1));
    block_on(proxy.flush()).unwrap();
    assert_eq!(target(&kernel), None);
}

/// Whoever may write a Service could take another's connections otherwise, with the next start of the agent (CVE-2020-8554).
#[test]
fn nobody_takes_a_cluster_ip_by_external_ips() {
    for is_one_flush in [true, false] {
        let kernel = FakeKernel::default();
        let mut proxy = proxy(&kernel);
        let thief = Service { external_ips: vec!["10.96.0.2".parse().unwrap()], ..service("10.96.0.1") };
        for (number, service) in [(0, thief), (1, service("10.96.0.2"))] {
            proxy.table().upsert_service(name(number), service);
            proxy.table().upsert_slice(name(number), name(number), slice(vec![endpoint(number as u8 + 1)]));
            if !is_one_flush {
                block_on(proxy.flush()).unwrap();
            }
        }
        block_on(proxy.flush()).unwrap();
        let target = |kernel: &FakeKernel, ip: [u8; 4]| {
            let behaviour = kernel.behaviour();
            let service = behaviour.iter().find(|((map, key), _)| map == "services4" && key.starts_with(&ip));
            service.map(|(_, (_, targets, _))| targets.iter().map(|target| target[3]).collect::<Vec<_>>())
        };
        assert_eq!(target(&kernel, [10, 96, 0, 1]), Some(vec![1]));
        assert_eq!(target(&kernel, [10, 96, 0, 2]), Some(vec![2]), "in one flush: {is_one_flush}");
        proxy.table().remove_service(&name(1));
        block_on(proxy.flush()).unwrap();
        assert_eq!(target(&kernel, [10, 96, 0, 2]), Some(vec![1]), "nobody's cluster IP any longer");
    }
}

/// Compares with a file under tests/golden; UPDATE_GOLDEN=1 writes it.
fn golden(file: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == expected, "{} differs; UPDATE_GOLDEN=1 writes it anew:\n{text}", path.display());
}

#[test]
fn the_ruleset_is_as_it_was() {
    let kernel = FakeKernel::default();
    let mut proxy = proxy(&kernel);
    golden("ruleset.txt", &proxy.table().flush().batch.listing());
}

#[test]
fn changes_are_as_they_were() {
    let kernel = FakeKernel::default();
    let mut proxy = proxy(&kernel);
    block_on(proxy.flush()).unwrap();
    let mut text = String::new();
    let mut flush = |what: &str, proxy: &mut FakeProxy<'_>| {
        text.push_str(&format!("# {what}\n{}", proxy.table().flush().batch.listing()));
    };
    let web = Service {
        ports: vec![port("http", Protocol::Tcp, Some(30080)), port("dns", Protocol::Udp, None)],
        ..service("10.96.0.10")
    };
    proxy.table().upsert_service(name(0), web.clone());
    flush("a Service without endpoints", &mut proxy);
    proxy.table().upsert_slice(name(0), name(0), slice(vec![endpoint(1), endpoint(2)]));
    flush("two endpoints", &mut proxy);
    proxy.table().upsert_slice(name(0), name(0), slice(vec![endpoint(2), endpoint(3), endpoint(5)]));
    flush("one goes, two come", &mut proxy);
    proxy.table().upsert_service(name(0), Service { external_policy: TrafficPolicy::Local, ..web.clone() });
    flush("externalTrafficPolicy: Local", &mut proxy);
    proxy.table().upsert_service(name(0), Service { affinity: Some(Duration::from_secs(10_800)), ..web });
    flush("sessionAffinity: ClientIP", &mut proxy);
    proxy.table().remove_service(&name(0));
    flush("the Service goes", &mut proxy);
    golden("changes.txt", &text);
}
