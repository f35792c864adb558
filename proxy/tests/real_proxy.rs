//! The proxy in real network namespaces: what clients in a pod, on the node and outside of the cluster see.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::time::Duration;

use common::{Node, Server, TestNs, ask, ask_udp, ip, net, udp_socket};
use netns::nft::{Datum, Element, Kernel as _, Nft};
use proxy::types::{
    Endpoint, EndpointPort, EndpointSlice, NodeFacts, ObjectName, Protocol, Service, ServicePort, TrafficPolicy,
};
use proxy::{Config, Proxy};

const CLUSTER_IP: &str = "10.96.0.10:80";

struct World {
    net: Node,
    pods: Vec<TestNs>,
    _servers: Vec<Server>,
    proxy: Proxy,
}

/// A node with three pods: 10.1.0.2 and 10.1.0.3 serve on port 8080 as `a` and `b`, 10.1.0.4 serves nothing.
async fn world() -> World {
    let net_ = Node::new().await;
    let mut proxy = Proxy::open(&net_.node.ns, Config::default()).unwrap();
    proxy.table().set_facts(facts());
    let pods = vec![net_.pod(2).await, net_.pod(3).await, net_.pod(4).await];
    let servers = vec![Server::start(&pods[0], "a", 8080), Server::start(&pods[1], "b", 8080)];
    World { net: net_, pods, _servers: servers, proxy }
}

fn facts() -> NodeFacts {
    NodeFacts {
        node_port_addresses: vec![ip("192.168.9.1")],
        cluster_cidrs: vec![net("10.1.0.0/16"), net("fd00:1::/64")],
        pod_cidrs: vec![net("10.1.0.0/24")],
        non_masquerade_cidrs: Vec::new(),
        service_cidrs: vec![net("10.96.0.0/16"), net("fd00:10::/64")],
        zone: None,
    }
}

fn name() -> ObjectName {
    ObjectName::new("default", "web")
}

fn service() -> Service {
    let port = |name: &str, protocol, node_port| ServicePort { name: name.into(), protocol, port: 80, node_port };
    Service {
        cluster_ips: vec![ip("10.96.0.10"), ip("fd00:10::10")],
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        source_ranges: Vec::new(),
        ports: vec![port("http", Protocol::Tcp, Some(30080)), port("dns", Protocol::Udp, None)],
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity: None,
        health_check_port: None,
    }
}

fn endpoint(address: &str) -> Endpoint {
    Endpoint { address: ip(address), ready: true, serving: true, terminating: false, local: true, hints: None }
}

fn slice(endpoints: Vec<Endpoint>) -> EndpointSlice {
    let port = |name: &str, protocol| EndpointPort { name: name.into(), protocol, port: 8080 };
    EndpointSlice { ports: vec![port("http", Protocol::Tcp), port("dns", Protocol::Udp)], endpoints }
}

impl World {
    async fn endpoints(&mut self, addresses: &[&str]) -> proxy::Stats {
        let endpoints = addresses.iter().map(|address| endpoint(address)).collect();
        self.slice(slice(endpoints)).await
    }

    async fn slice(&mut self, slice: EndpointSlice) -> proxy::Stats {
        self.proxy.table().upsert_slice(ObjectName::new("default", "web-1"), name(), slice);
        self.proxy.flush().await.unwrap()
    }

    async fn service(&mut self, service: Service) -> proxy::Stats {
        self.proxy.table().upsert_service(name(), service);
        self.proxy.flush().await.unwrap()
    }

    /// Who answers `count` connections from the third pod.
    fn answers(&self, address: &str, count: usize) -> BTreeSet<String> {
        (0..count).map(|_| ask(&self.pods[2].ns, address).unwrap().0).collect()
    }
}

fn both() -> BTreeSet<String> {
    ["a", "b"].map(String::from).into()
}

#[tokio::test]
async fn a_cluster_ip_spreads_over_its_endpoints() {
    let mut world = world().await;
    world.service(service()).await;
    let stats = world.endpoints(&["10.1.0.2", "10.1.0.3"]).await;
    assert!(!stats.full);
    assert_eq!(stats.structure, 0, "an endpoint change is a change of map elements alone");
    assert_eq!(world.answers(CLUSTER_IP, 40), both());
    // A pod's address is kept on the way to another pod, the node itself is asked through its own address.
    assert_eq!(ask(&world.pods[2].ns, CLUSTER_IP).unwrap().1, "10.1.0.4");
    assert!(ask(&world.net.node.ns, CLUSTER_IP).is_ok());
    // From outside, through the node.
    assert_eq!(ask(&world.net.client.ns, CLUSTER_IP).unwrap().1, "10.1.0.1");
    // Another port of the address answers with a refusal, not with silence.
    assert_eq!(ask(&world.pods[2].ns, "10.96.0.10:81").unwrap_err(), ErrorKind::ConnectionRefused);
    // An address that no Service has leads nowhere, not even to who has it outside; a sender on the node is told by its kernel.
    assert_eq!(ask(&world.pods[2].ns, "10.96.0.99:80").unwrap_err(), ErrorKind::TimedOut);
    let sender = udp_socket(&world.net.node.ns);
    assert_eq!(ask_udp(&sender, "10.96.0.99:53").unwrap_err(), ErrorKind::PermissionDenied);
}

#[tokio::test]
async fn ipv6_works_the_same() {
    let mut world = world().await;
    world.service(service()).await;
    world.endpoints(&["fd00:1::2", "fd00:1::3"]).await;
    assert_eq!(world.answers("[fd00:10::10]:80", 40), both());
    assert!(ask(&world.net.node.ns, "[fd00:10::10]:80").is_ok());
    // The IPv4 address has no endpoints.
    assert_eq!(ask(&world.pods[2].ns, CLUSTER_IP).unwrap_err(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_removed_endpoint_gets_no_connections() {
    let mut world = world().await;
    world.service(service()).await;
    world.endpoints(&["10.1.0.2", "10.1.0.3"]).await;
    let stats = world.endpoints(&["10.1.0.3"]).await;
    assert_eq!(stats.structure, 0);
    assert_eq!(world.answers(CLUSTER_IP, 20), ["b".to_owned()].into());
    world.endpoints(&[]).await;
    assert_eq!(ask(&world.pods[2].ns, CLUSTER_IP).unwrap_err(), ErrorKind::ConnectionRefused);
    assert_eq!(ask(&world.net.node.ns, CLUSTER_IP).unwrap_err(), ErrorKind::ConnectionRefused);
    assert_eq!(ask(&world.net.client.ns, "192.168.9.1:30080").unwrap_err(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_terminating_endpoint_serves_while_there_is_no_other() {
    let mut world = world().await;
    world.service(service()).await;
    let leaving = Endpoint { ready: false, terminating: true, ..endpoint("10.1.0.2") };
    world.slice(slice(vec![leaving.clone()])).await;
    assert_eq!(world.answers(CLUSTER_IP, 5), ["a".to_owned()].into());
    world.slice(slice(vec![leaving, endpoint("10.1.0.3")])).await;
    assert_eq!(world.answers(CLUSTER_IP, 20), ["b".to_owned()].into());
}

#[tokio::test]
async fn a_node_port_answers_from_outside() {
    let mut world = world().await;
    world.service(service()).await;
    world.endpoints(&["10.1.0.2", "10.1.0.3"]).await;
    let client = world.net.client.ns.clone();
    let seen: BTreeSet<_> = (0..40).map(|_| ask(&client, "192.168.9.1:30080").unwrap()).collect();
    // The client is masqueraded: the endpoint sees the bridge's address.
    assert_eq!(seen, [("a", "10.1.0.1"), ("b", "10.1.0.1")].map(|(a, b)| (a.to_owned(), b.to_owned())).into());
    // From a pod and from the node itself too.
    assert!(ask(&world.pods[2].ns, "192.168.9.1:30080").is_ok());
    assert!(ask(&world.net.node.ns, "192.168.9.1:30080").is_ok());
}

#[tokio::test]
async fn external_policy_local_keeps_the_client_and_stays_on_the_node() {
    let mut world = world().await;
    world.service(Service { external_policy: TrafficPolicy::Local, ..service() }).await;
    let remote = Endpoint { local: false, ..endpoint("10.1.0.3") };
    world.slice(slice(vec![endpoint("10.1.0.2"), remote.clone()])).await;
    let client = world.net.client.ns.clone();
    let seen: BTreeSet<_> = (0..20).map(|_| ask(&client, "192.168.9.1:30080").unwrap()).collect();
    assert_eq!(seen, [("a".to_owned(), "192.168.9.2".to_owned())].into());
    // From inside, all endpoints may be used.
    assert_eq!(world.answers("192.168.9.1:30080", 40), both());
    // No endpoint here: silence, so that a load balancer looks elsewhere.
    world.slice(slice(vec![remote])).await;
    assert_eq!(ask(&client, "192.168.9.1:30080").unwrap_err(), ErrorKind::TimedOut);
}

/// Pods and the node itself are asked for their address as everybody is, and node ports are open to all, as with kube-proxy.
#[tokio::test]
async fn load_balancers_let_only_source_ranges_in() {
    let mut world = world().await;
    let vip = "203.0.113.1:80";
    let guarded = |ranges: &[&str]| Service {
        load_balancer_ips: vec![ip("203.0.113.1"), ip("fd00:20::1")],
        source_ranges: ranges.iter().map(|range| net(range)).collect(),
        ..service()
    };
    world.service(guarded(&["192.168.9.2/32", "192.168.0.0/30"])).await;
    world.endpoints(&["10.1.0.2", "10.1.0.3", "fd00:1::2"]).await;
    let (client, node) = (world.net.client.ns.clone(), world.net.node.ns.clone());
    let pod = world.pods[2].ns.clone();
    assert!(ask(&client, vip).is_ok());
    assert_eq!(ask(&pod, vip).unwrap_err(), ErrorKind::TimedOut);
    assert_eq!(ask(&node, vip).unwrap_err(), ErrorKind::TimedOut);
    assert!(ask(&pod, CLUSTER_IP).is_ok());
    assert!(ask(&pod, "[fd00:20::1]:80").is_ok(), "no range of the family");
    // A range within another, and one that grows: changes of elements alone.
    let stats = world.service(guarded(&["192.168.9.1/32", "10.1.0.0/24", "10.1.0.4/32", "fd00:1::2/128"])).await;
    assert!(!stats.full && stats.structure == 0, "{stats:?}");
    assert_eq!(ask(&client, vip).unwrap_err(), ErrorKind::TimedOut);
    assert!(ask(&client, "192.168.9.1:30080").is_ok());
    assert!(ask(&pod, vip).is_ok() && ask(&node, vip).is_ok());
    assert_eq!(ask(&pod, "[fd00:20::1]:80").unwrap_err(), ErrorKind::TimedOut);
    assert!(ask(&world.pods[0].ns, "[fd00:20::1]:80").is_ok());
    let stats = world.service(guarded(&["192.168.9.0/24", "10.1.0.4/32"])).await;
    assert!(!stats.full && stats.structure == 0, "{stats:?}");
    assert!(ask(&client, vip).is_ok() && ask(&pod, vip).is_ok() && ask(&node, vip).is_ok());
    assert_eq!(ask(&world.pods[0].ns, vip).unwrap_err(), ErrorKind::TimedOut);
    // Without ranges everybody may ask, and so it is with one of all addresses.
    world.service(guarded(&["192.168.9.1/32", "0.0.0.0/0"])).await;
    assert!(ask(&world.pods[0].ns, vip).is_ok() && ask(&client, vip).is_ok());
}

#[tokio::test]
async fn internal_policy_local_stays_on_the_node() {
    let mut world = world().await;
    world.service(Service { internal_policy: TrafficPolicy::Local, ..service() }).await;
    world.slice(slice(vec![endpoint("10.1.0.2"), Endpoint { local: false, ..endpoint("10.1.0.3") }])).await;
    assert_eq!(world.answers(CLUSTER_IP, 20), ["a".to_owned()].into());
}

#[tokio::test]
async fn a_pod_reaches_itself() {
    let mut world = world().await;
    world.service(service()).await;
    world.endpoints(&["10.1.0.2"]).await;
    let (who, seen) = ask(&world.pods[0].ns, CLUSTER_IP).unwrap();
    assert_eq!((who.as_str(), seen.as_str()), ("a", "10.1.0.1"));
}

#[tokio::test]
async fn affinity_keeps_a_client_at_its_endpoint() {
    let mut world = world().await;
    world.service(Service { affinity: Some(Duration::from_secs(60)), ..service() }).await;
    world.endpoints(&["10.1.0.2", "10.1.0.3"]).await;
    let first = world.answers(CLUSTER_IP, 30);
    assert_eq!(first.len(), 1, "one client, one endpoint");
    // The endpoint leaves: the client moves, and stays there when the old one is back.
    let (kept, other) = if first.contains("a") { ("10.1.0.3", "b") } else { ("10.1.0.2", "a") };
    world.endpoints(&[kept]).await;
    assert_eq!(world.answers(CLUSTER_IP, 5), [other.to_owned()].into());
    world.endpoints(&["10.1.0.2", "10.1.0.3"]).await;
    assert_eq!(world.answers(CLUSTER_IP, 30), [other.to_owned()].into());
    // Clients outside of the cluster are remembered as well.
    let client = world.net.client.ns.clone();
    let seen: BTreeSet<_> = (0..30).map(|_| ask(&client, "192.168.9.1:30080").unwrap().0).collect();
    assert_eq!(seen.len(), 1);
    // And not for ever.
    world.service(Service { affinity: Some(Duration::from_secs(1)), ..service() }).await;
    let before = world.answers(CLUSTER_IP, 1);
    let mut moved = false;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        moved |= world.answers(CLUSTER_IP, 1) != before;
    }
    assert!(moved);
}

/// Where the kernel sends clients with affinity again.
async fn clients(world: &World) -> Vec<(Vec<u8>, Option<Datum>)> {
    let nft = Nft::open(&world.net.node.ns).unwrap();
    let elements = nft.elements(proxy::TABLE, "clients4").await.unwrap();
    let mut clients: Vec<_> = elements.into_iter().map(|element| (element.key, element.data)).collect();
    clients.sort();
    clients
}

/// Nodes that join and leave change the networks of the table; the first flush of an agent that was started anew replaces it.
#[tokio::test]
async fn affinity_outlives_changes_of_nodes_and_a_restart() {
    let mut world = world().await;
    let sticky = || Service { affinity: Some(Duration::from_secs(60)), ..service() };
    world.service(sticky()).await;
    world.endpoints(&["10.1.0.2", "10.1.0.3"]).await;
    let asking = [&world.pods[0].ns, &world.pods[1].ns, &world.pods[2].ns, &world.net.client.ns].map(Clone::clone);
    let all = || asking.each_ref().map(|client| ask(client, CLUSTER_IP).unwrap().0);
    let (answers, before) = (all(), clients(&world).await);
    assert_eq!(before.len(), 4);
    let nodes: [(&[&str], &[&str]); 6] = [
        (&["10.1.0.0/24", "10.1.1.0/24"], &["192.168.9.1/32", "192.168.9.2/32"]),
        (&["10.1.0.0/24", "10.1.1.0/24", "10.1.2.0/24"], &["192.168.9.1/32", "192.168.9.2/32", "192.168.9.3/32"]),
        (&["10.1.0.0/16", "fd00:1::/64"], &["192.168.9.0/24"]),
        (&[], &[]),
        (&["10.1.0.0/24", "10.1.2.0/24"], &["192.168.9.3/32", "192.168.9.4/30"]),
        (&["10.1.0.0/24"], &[]),
    ];
    let mut facts = facts();
    for (pods, addresses) in nodes {
        facts.cluster_cidrs = pods.iter().map(|cidr| net(cidr)).collect();
        facts.non_masquerade_cidrs = addresses.iter().map(|cidr| net(cidr)).collect();
        world.proxy.table().set_facts(facts.clone());
        let stats = world.proxy.flush().await.unwrap();
        assert!(!stats.full && stats.structure == 0, "{stats:?}");
        let nft = Nft::open(&world.net.node.ns).unwrap();
        let known = nft.elements(proxy::TABLE, "cluster4").await.unwrap();
        let v4 = facts.cluster_cidrs.iter().filter(|net| net.addr().is_ipv4());
        let mut wanted: Vec<_> = v4.map(|net| Element::net(*net)).map(|element| (element.key, element.end)).collect();
        let mut known: Vec<_> = known.into_iter().map(|element| (element.key, element.end)).collect();
        wanted.sort();
        known.sort();
        assert_eq!(known, wanted);
        assert_eq!(clients(&world).await, before);
        assert_eq!(all(), answers);
    }
    // The table is replaced after a refusal.
    world.proxy.table().failed();
    assert!(world.proxy.flush().await.unwrap().full);
    assert_eq!(clients(&world).await, before);
    assert_eq!(all(), answers);
    let mut second = Proxy::open(&world.net.node.ns, Config::default()).unwrap();
    let slices =
        [(ObjectName::new("default", "web-1"), name(), slice(vec![endpoint("10.1.0.3"), endpoint("10.1.0.2")]))];
    assert!(second.apply([(name(), sticky())], slices, facts).await.unwrap().full);
    assert_eq!(clients(&world).await, before);
    assert_eq!(all(), answers);
}

#[tokio::test]
async fn udp_clients_leave_a_removed_endpoint() {
    let mut world = world().await;
    world.service(service()).await;
    world.endpoints(&["10.1.0.2"]).await;
    let socket = udp_socket(&world.pods[2].ns);
    assert_eq!(ask_udp(&socket, CLUSTER_IP).unwrap().0, "a");
    let stats = world.endpoints(&["10.1.0.3"]).await;
    assert!(stats.stale_flows > 0);
    assert_eq!(ask_udp(&socket, CLUSTER_IP).unwrap().0, "b");
}

#[tokio::test]
async fn a_table_that_somebody_flushed_is_missed_and_made_again() {
    let mut world = world().await;
    world.service(service()).await;
    world.endpoints(&["10.1.0.2"]).await;
    assert!(!world.proxy.look().await.unwrap());
    proxy::cleanup(&world.net.node.ns, &Config::default()).await.unwrap();
    assert!(ask(&world.pods[2].ns, CLUSTER_IP).is_err());
    assert!(world.proxy.look().await.unwrap());
    assert!(world.proxy.flush().await.unwrap().full);
    assert_eq!(world.answers(CLUSTER_IP, 5), ["a".to_owned()].into());
    assert!(!world.proxy.look().await.unwrap());
}

#[tokio::test]
async fn a_restart_takes_the_table_over_and_cleanup_removes_it() {
    let mut world = world().await;
    world.service(service()).await;
    world.endpoints(&["10.1.0.2"]).await;
    let mut second = Proxy::open(&world.net.node.ns, Config::default()).unwrap();
    let facts = NodeFacts { node_port_addresses: vec![ip("192.168.9.1")], ..NodeFacts::default() };
    let slices = [(ObjectName::new("default", "web-1"), name(), slice(vec![endpoint("10.1.0.3")]))];
    let stats = second.apply([(name(), service())], slices, facts.clone()).await.unwrap();
    assert!(stats.full);
    assert_eq!(world.answers(CLUSTER_IP, 5), ["b".to_owned()].into());
    assert_eq!(second.apply([], [], facts).await.unwrap().services, 0);
    assert!(ask(&world.pods[2].ns, CLUSTER_IP).is_err());
    proxy::cleanup(&world.net.node.ns, &Config::default()).await.unwrap();
    proxy::cleanup(&world.net.node.ns, &Config::default()).await.unwrap();
    let nft = Nft::open(&world.net.node.ns).unwrap();
    assert!(!nft.has_table(proxy::TABLE).await.unwrap());
}

#[tokio::test]
async fn pods_leave_the_cluster_under_the_nodes_address() {
    let mut world = world().await;
    world.service(service()).await;
    let _server = Server::start(&world.net.client, "outside", 9000);
    assert_eq!(ask(&world.pods[2].ns, "192.168.9.2:9000").unwrap(), ("outside".to_owned(), "192.168.9.1".to_owned()));
}

#[tokio::test]
async fn ten_thousand_services_do_not_matter_to_one_endpoint() {
    let mut world = world().await;
    for number in 0..10_000u32 {
        let other = ObjectName::new("default", &format!("other-{number}"));
        let cluster_ip = std::net::Ipv4Addr::from(0x0a61_0000 + number).into();
        world
            .proxy
            .table()
            .upsert_service(other.clone(), Service { cluster_ips: vec![cluster_ip], ..service_port(80) });
        let endpoints = (0..5).map(|i| endpoint(&format!("10.1.7.{}", number % 50 * 5 + i + 1))).collect();
        world.proxy.table().upsert_slice(other.clone(), other, slice(endpoints));
    }
    let stats = world.service(service()).await;
    assert!(stats.full && stats.services == 10_001);
    let nft = Nft::open(&world.net.node.ns).unwrap();
    let rules = nft.count_rules(proxy::TABLE).await.unwrap();
    let stats = world.endpoints(&["10.1.0.2"]).await;
    assert_eq!((stats.full, stats.structure), (false, 0));
    assert!(stats.elements < 12, "{stats:?}");
    assert_eq!(world.answers(CLUSTER_IP, 5), ["a".to_owned()].into());
    let start = std::time::Instant::now();
    let stats = world.endpoints(&["10.1.0.2", "10.1.0.3"]).await;
    println!("one endpoint beside 10,000 Services: {:?}, {} elements", start.elapsed(), stats.elements);
    assert_eq!(world.answers(CLUSTER_IP, 40), both());
    assert_eq!(nft.count_rules(proxy::TABLE).await.unwrap(), rules);
}

fn service_port(port: u16) -> Service {
    let port = ServicePort { name: "http".into(), protocol: Protocol::Tcp, port, node_port: None };
    Service { cluster_ips: Vec::new(), ports: vec![port], ..service() }
}

/// Administrators' tools (firewalld, nft itself) read all tables: one that nft cannot list breaks them.
#[tokio::test]
async fn nft_can_list_the_table() {
    let mut world = world().await;
    let policies = [(TrafficPolicy::Cluster, None), (TrafficPolicy::Local, Some(Duration::from_secs(60)))];
    for (number, (policy, affinity)) in (1u8..).zip(policies) {
        let object = ObjectName::new("default", &format!("listed-{number}"));
        let mut listed = Service {
            cluster_ips: vec![ip(&format!("10.96.1.{number}")), ip(&format!("fd00:10::1:{number}"))],
            external_ips: vec![ip(&format!("198.51.100.{number}"))],
            load_balancer_ips: vec![ip(&format!("203.0.113.{number}"))],
            source_ranges: vec![net("10.1.0.0/16"), net("192.168.9.0/24")],
            internal_policy: policy,
            external_policy: policy,
            affinity,
            ..service()
        };
        for (port, place) in listed.ports.iter_mut().zip(0u16..) {
            port.node_port = Some(31000 + 10 * u16::from(number) + place);
        }
        world.proxy.table().upsert_service(object.clone(), listed);
        let addresses = ["10.1.0.2", "10.1.0.3", "fd00:1::2", "fd00:1::3"];
        let endpoints = slice(addresses.map(endpoint).to_vec());
        world.proxy.table().upsert_slice(ObjectName::new("default", &format!("listed-{number}-1")), object, endpoints);
    }
    world.proxy.flush().await.unwrap();
    // A client that is remembered.
    ask(&world.pods[2].ns, "10.96.1.2:80").unwrap();
    for arguments in [&["list", "ruleset"][..], &["-j", "list", "ruleset"], &["list", "tables"]] {
        let list = move || std::process::Command::new("nft").args(arguments).output().unwrap();
        let nft = world.net.node.ns.run(list).unwrap();
        let (said, problem) = (String::from_utf8_lossy(&nft.stdout), String::from_utf8_lossy(&nft.stderr));
        // nft 1.0.6 prints no updates of maps as JSON, whoever made them.
        let problem: String = problem.lines().filter(|line| !line.starts_with("warning: stmt ops map")).collect();
        assert!(nft.status.success() && problem.is_empty(), "nft {arguments:?}: {} {problem}", nft.status);
        assert!(said.contains(proxy::TABLE), "nft {arguments:?} names no {}", proxy::TABLE);
    }
}
