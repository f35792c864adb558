//! Flushes against a stand-in for the kernel that holds sets and refuses what the kernel refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use netns::conntrack::Deleted;
use netns::nft::{Datum, Op};
use proptest::prelude::*;

use super::*;
use crate::types::{Endpoint, EndpointPort, Protocol, ServicePort, TrafficPolicy};

type Content = BTreeMap<String, BTreeMap<Vec<u8>, Option<Datum>>>;

#[derive(Default)]
struct FakeKernel {
    sets: Mutex<Content>,
    fail: Mutex<bool>,
}

impl Kernel for &FakeKernel {
    async fn commit(&self, batch: &Batch) -> netns::Result<()> {
        if *self.fail.lock().unwrap() {
            return Err(netns::Error::NftConflict);
        }
        let mut sets = self.sets.lock().unwrap();
        for op in &batch.ops {
            match op {
                Op::DeleteTable => sets.clear(),
                Op::AddSet(set) => assert!(sets.insert(set.name.to_string(), BTreeMap::new()).is_none()),
                Op::AddElements(set, elements) => {
                    let content = sets.get_mut(set.name.as_ref()).expect("set exists");
                    for element in elements {
                        let old = content.insert(element.key.clone(), element.data.clone());
                        assert!(old.is_none(), "{} has {element:?}", set.name);
                    }
                }
                Op::DeleteElements(set, elements) => {
                    let content = sets.get_mut(set.name.as_ref()).expect("set exists");
                    for element in elements {
                        assert!(content.remove(&element.key).is_some(), "{} lacks {element:?}", set.name);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Address -> what happens, endpoints, affinity in seconds.
type Behaviour = BTreeMap<(String, Vec<u8>), (u32, BTreeSet<Vec<u8>>, Option<u32>)>;

impl FakeKernel {
    /// What connections experience, whatever numbers groups have: for each address of each map, what happens and which
    /// endpoints there are; and the sets that have no group numbers.
    fn behaviour(&self) -> Behaviour {
        let sets = self.sets.lock().unwrap();
        let mut behaviour = BTreeMap::new();
        for digit in ['4', '6'] {
            let endpoints = &sets[&format!("endpoints{digit}")];
            for map in ["services", "external"] {
                for (key, value) in &sets[&format!("{map}{digit}")] {
                    let (group, kind) = pair(value.as_ref().unwrap());
                    let of_group = endpoints.iter().filter(|(slot, _)| number(slot) == group);
                    let slots: Vec<u32> = of_group.clone().map(|(slot, _)| number(&slot[4..])).collect();
                    assert_eq!(slots.iter().copied().collect::<BTreeSet<_>>(), (0..slots.len() as u32).collect());
                    if kind >= 2 {
                        assert_eq!(kind, ruleset::kind_of(slots.len()));
                    }
                    let targets = of_group.map(|(_, target)| value_of(target.as_ref().unwrap())).collect();
                    let affinity = sets["affinity"].get(group.to_ne_bytes().as_slice());
                    let affinity = affinity.map(|seconds| number(&value_of(seconds.as_ref().unwrap())[4..]));
                    behaviour.insert((format!("{map}{digit}"), key.clone()), (kind, targets, affinity));
                }
            }
            for set in ["masqueraded", "hairpin", "cluster-ips"] {
                let keys = sets[&format!("{set}{digit}")].keys();
                behaviour.extend(keys.map(|key| ((format!("{set}{digit}"), key.clone()), (0, BTreeSet::new(), None))));
            }
        }
        behaviour
    }

    fn sizes(&self) -> BTreeMap<String, usize> {
        let sets = self.sets.lock().unwrap();
        sets.iter()
            .filter(|(name, _)| !name.starts_with("affinity-"))
            .map(|(name, set)| (name.clone(), set.len()))
            .collect()
    }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_ne_bytes(bytes[..4].try_into().unwrap())
}

fn value_of(datum: &Datum) -> Vec<u8> {
    match datum {
        Datum::Value(value) => value.clone(),
        Datum::Verdict(_) => panic!("a verdict"),
    }
}

fn pair(datum: &Datum) -> (u32, u32) {
    let value = value_of(datum);
    (number(&value[4..]), number(&value[8..]))
}

fn facts() -> NodeFacts {
    NodeFacts {
        node_port_addresses: vec!["192.168.0.1".parse().unwrap()],
        cluster_cidrs: vec!["10.0.0.0/8".parse().unwrap()],
        pod_cidrs: vec!["10.1.0.0/24".parse().unwrap()],
        non_masquerade_cidrs: Vec::new(),
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

/// The kernel's UDP connections, of which it may refuse to delete some.
#[derive(Default)]
struct FakeFlows {
    flows: Mutex<Vec<UdpFlow>>,
    undeletable: Mutex<Vec<UdpFlow>>,
}

impl FakeFlows {
    const fn new() -> Self {
        Self { flows: Mutex::new(Vec::new()), undeletable: Mutex::new(Vec::new()) }
    }
}

impl Flows for &FakeFlows {
    async fn delete_udp(&self, stale: impl Fn(&UdpFlow) -> bool + Send) -> netns::Result<Deleted> {
        let undeletable = self.undeletable.lock().unwrap();
        let mut deleted = Deleted::default();
        self.flows.lock().unwrap().retain(|flow| {
            let is_stale = stale(flow);
            let is_kept = is_stale && undeletable.contains(flow);
            deleted.gone += usize::from(is_stale && !is_kept);
            deleted.kept.extend(is_kept.then_some(*flow));
            !is_stale || is_kept
        });
        deleted.error = (!deleted.kept.is_empty()).then_some(netns::Error::NftConflict);
        Ok(deleted)
    }
}

/// A change of the world. Few names and addresses, so that they meet.
#[derive(Debug, Clone)]
enum Event {
    Service(usize, Service),
    NoService(usize),
    Slice(usize, usize, EndpointSlice),
    NoSlice(usize),
    Flush,
    FailedFlush,
}

fn any_endpoint() -> impl Strategy<Value = Endpoint> {
    (1u8..12, any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(last, v6, ready, serving, local)| {
            let address =
                if v6 { IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)]) } else { endpoint(last).address };
            Endpoint { address, ready, serving: serving || ready, terminating: !ready, local, hints: None }
        },
    )
}

prop_compose! {
    fn any_service()(
        ip in 1u8..4,
        node_port in proptest::option::of(30000u16..30003),
        external in proptest::collection::btree_set(any_external(), 0..3),
        udp in any::<bool>(),
        policies in (any::<bool>(), any::<bool>()),
        affinity in proptest::option::of(1u64..3),
        health_check_port in proptest::option::of(31000u16..31003),
    ) -> Service {
        let policy = |local| if local { TrafficPolicy::Local } else { TrafficPolicy::Cluster };
        let mut ports = vec![port("http", Protocol::Tcp, node_port)];
        ports.extend(udp.then(|| port("dns", Protocol::Udp, node_port)));
        // A port with the number of a node port.
        ports.push(ServicePort { port: 30001, ..port("alt", Protocol::Tcp, None) });
        Service {
            cluster_ips: vec![IpAddr::from([10, 96, 0, ip]), IpAddr::from([0xfd01, 0, 0, 0, 0, 0, 0, u16::from(ip)])],
            external_ips: external.into_iter().collect(),
            load_balancer_ips: Vec::new(),
            source_ranges: Vec::new(),
            ports,
            internal_policy: policy(policies.0),
            external_policy: policy(policies.1),
            affinity: affinity.map(Duration::from_secs),
            health_check_port,
        }
    }
}

/// An address of its own, the node's, or one that is a Service's cluster IP.
fn any_external() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (1u8..3).prop_map(|last| IpAddr::from([198, 51, 100, last])),
        Just(IpAddr::from([192, 168, 0, 1])),
        (0u8..4).prop_map(|last| IpAddr::from([10, 96, 0, last])),
    ]
}

fn any_event() -> impl Strategy<Value = Event> {
    // A Service's own cluster address: the API server gives no address twice. The others may be wanted by several.
    let own = |number: usize, mut service: Service| {
        service.cluster_ips = service
            .cluster_ips
            .iter()
            .map(|ip| match ip {
                IpAddr::V4(_) => IpAddr::from([10, 96, 0, number as u8]),
                IpAddr::V6(_) => IpAddr::from([0xfd01, 0, 0, 0, 0, 0, 0, number as u16]),
            })
            .collect();
        service
    };
    prop_oneof![
        4 => (0usize..4, any_service()).prop_map(move |(number, service)| Event::Service(number, own(number, service))),
        1 => (0usize..4).prop_map(Event::NoService),
        4 => (0usize..6, 0usize..4, proptest::collection::vec(any_endpoint(), 0..6))
            .prop_map(|(number, of, endpoints)| Event::Slice(number, of, slice(endpoints))),
        1 => (0usize..6).prop_map(Event::NoSlice),
        3 => Just(Event::Flush),
        1 => Just(Event::FailedFlush),
    ]
}

/// The events' outcome, for a proxy that starts with it.
#[derive(Default)]
struct Outcome {
    services: BTreeMap<usize, Service>,
    slices: BTreeMap<usize, (usize, EndpointSlice)>,
}

fn play(event: &Event, proxy: &mut FakeProxy<'_>, outcome: &mut Outcome, kernel: &FakeKernel) {
    match event {
        Event::Service(number, service) => {
            outcome.services.insert(*number, service.clone());
            proxy.table().upsert_service(name(*number), service.clone());
        }
        Event::NoService(number) => {
            outcome.services.remove(number);
            proxy.table().remove_service(&name(*number));
        }
        Event::Slice(number, of, slice) => {
            outcome.slices.insert(*number, (*of, slice.clone()));
            proxy.table().upsert_slice(ObjectName::new("default", &format!("e{number}")), name(*of), slice.clone());
        }
        Event::NoSlice(number) => {
            outcome.slices.remove(number);
            proxy.table().remove_slice(&ObjectName::new("default", &format!("e{number}")));
        }
        Event::Flush => drop(block_on(proxy.flush()).unwrap()),
        Event::FailedFlush => {
            *kernel.fail.lock().unwrap() = true;
            let _ = block_on(proxy.flush());
            *kernel.fail.lock().unwrap() = false;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// However the world came to be, connections go where they go after a fresh start; no element is left over.
    /// (Several Services that want one external address are settled by who came first, so here each has its own.)
    #[test]
    fn changes_add_up_to_what_a_fresh_start_makes(events in proptest::collection::vec(any_event(), 1..30)) {
        let events: Vec<_> = events.into_iter().map(apart).collect();
        let kernel = FakeKernel::default();
        let mut changing = proxy(&kernel);
        let mut outcome = Outcome::default();
        for event in &events {
            play(event, &mut changing, &mut outcome, &kernel);
        }
        block_on(changing.flush()).unwrap();
        let fresh_kernel = FakeKernel::default();
        let mut fresh = proxy(&fresh_kernel);
        let services = outcome.services.into_iter().map(|(number, service)| (name(number), service));
        let slices = outcome.slices.into_iter().map(|(number, (of, slice))| {
            (ObjectName::new("default", &format!("e{number}")), name(of), slice)
        });
        block_on(fresh.apply(services, slices, facts())).unwrap();
        prop_assert_eq!(kernel.behaviour(), fresh_kernel.behaviour());
        prop_assert_eq!(kernel.sizes(), fresh_kernel.sizes());
        prop_assert_eq!(changing.table().health_checks(), fresh.table().health_checks());
    }

    /// Whoever wants whose address: the kernel never sees one twice, and with the last Service all is gone.
    #[test]
    fn contested_addresses_never_clash(events in proptest::collection::vec(any_event(), 1..30)) {
        let kernel = FakeKernel::default();
        let mut proxy = proxy(&kernel);
        let mut outcome = Outcome::default();
        for event in &events {
            play(event, &mut proxy, &mut outcome, &kernel);
        }
        let services = outcome.services.keys().map(|number| name(*number));
        services.for_each(|name| proxy.table().remove_service(&name));
        block_on(proxy.flush()).unwrap();
        prop_assert!(kernel.behaviour().is_empty());
        prop_assert!(proxy.table().health_checks().is_empty());
    }
}

/// Gives each Service ports of nodes and external addresses of its own.
fn apart(event: Event) -> Event {
    let Event::Service(number, mut service) = event else { return event };
    for (port, place) in service.ports.iter_mut().zip(0u16..) {
        port.node_port = port.node_port.map(|_| 30000 + 10 * number as u16 + place);
    }
    service.health_check_port = service.health_check_port.map(|_| 31000 + number as u16);
    service.external_ips = service.external_ips.iter().map(|_| IpAddr::from([198, 51, 100, number as u8])).collect();
    Event::Service(number, service)
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

/// As kube-proxy counts them: ready ones of this node, each address once, and those of the family that is asked.
#[test]
fn load_balancers_are_told_of_ready_endpoints_of_this_node() {
    let kernel = FakeKernel::default();
    let mut proxy = proxy(&kernel);
    let both = ["192.168.0.1", "fd00::1"].map(|ip| ip.parse().unwrap()).to_vec();
    proxy.table().set_facts(NodeFacts { node_port_addresses: both, ..facts() });
    proxy.table().upsert_service(name(1), Service { health_check_port: Some(31000), ..service("10.96.0.1") });
    proxy.table().upsert_service(name(2), service("10.96.0.2"));
    let terminating = Endpoint { ready: false, terminating: true, ..endpoint(6) };
    let six = Endpoint { address: "fd00:1::2".parse().unwrap(), ..endpoint(2) };
    let all = [endpoint(1), endpoint(2), endpoint(4), terminating, six].to_vec();
    proxy.table().upsert_slice(name(1), name(1), slice(all));
    proxy.table().upsert_slice(name(3), name(1), slice(vec![endpoint(2)]));
    let strange = EndpointPort { name: "other".into(), protocol: Protocol::Tcp, port: 1 };
    proxy.table().upsert_slice(name(4), name(1), EndpointSlice { ports: vec![strange], endpoints: vec![endpoint(8)] });
    block_on(proxy.flush()).unwrap();
    let told = |proxy: &mut FakeProxy<'_>| -> Vec<(String, usize)> {
        let checks = proxy.table().health_checks();
        checks.iter().map(|(at, check)| (format!("{at} {}", check.service), check.local_endpoints)).collect()
    };
    let (v4, v6) = ("192.168.0.1:31000 default/s1".to_owned(), "[fd00::1]:31000 default/s1".to_owned());
    assert_eq!(told(&mut proxy), [(v4, 2), (v6, 1)]);
    // The port goes from one Service to another, in whichever order they are flushed.
    for (from, to) in [(1, 2), (2, 1)] {
        let ip = |number: usize| format!("10.96.0.{number}");
        proxy.table().upsert_service(name(from), service(&ip(from)));
        proxy.table().upsert_service(name(to), Service { health_check_port: Some(31000), ..service(&ip(to)) });
        block_on(proxy.flush()).unwrap();
        assert!(told(&mut proxy).iter().all(|(at, _)| at.ends_with(&format!("s{to}"))));
    }
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
