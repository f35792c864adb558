//! Whatever happens in whichever order.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::types::{Endpoint, Hints, Protocol, ServicePort, TrafficPolicy};

/// A change of the world. Few names and addresses, so that they meet.
#[derive(Debug, Clone)]
enum Event {
    Service(usize, Service),
    NoService(usize),
    Slice(usize, usize, EndpointSlice),
    NoSlice(usize),
    Facts(NodeFacts),
    Flush,
    FailedFlush,
}

fn any_endpoint() -> impl Strategy<Value = Endpoint> {
    let hints = proptest::option::of((proptest::option::of(any::<bool>()), proptest::sample::select(vec!["a", "b"])));
    (1u8..12, any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), hints).prop_map(
        |(last, v6, ready, serving, local, hints)| {
            let hints = hints.map(|(for_this_node, zone)| Arc::new(Hints { for_this_node, zones: vec![zone.into()] }));
            let address =
                if v6 { IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)]) } else { endpoint(last).address };
            Endpoint { address, ready, serving: serving || ready, terminating: !ready, local, hints }
        },
    )
}

prop_compose! {
    fn any_service()(
        ip in 1u8..4,
        node_port in proptest::option::of(30000u16..30003),
        external in proptest::collection::btree_set(any_external(), 0..3),
        balanced in proptest::collection::btree_set(any_external(), 0..2),
        ranges in some_of(&["10.0.0.0/8", "10.1.0.0/16", "10.1.0.0/24", "192.168.0.0/24", "fd00::/8", "0.0.0.0/0"]),
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
            load_balancer_ips: balanced.into_iter().collect(),
            source_ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(),
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

fn some_of(texts: &[&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    let texts = texts.to_vec();
    let all = texts.len();
    proptest::sample::subsequence(texts, 0..=all)
}

prop_compose! {
    fn any_facts()(
        addresses in some_of(&["192.168.0.1", "192.168.0.2", "fd00:9::1"]),
        cluster in some_of(&["10.0.0.0/8", "10.1.0.0/24", "10.1.1.0/24", "fd00:1::/64"]),
        pods in some_of(&["10.1.0.0/24", "fd00:1::/64"]),
        direct in some_of(&["192.168.0.1/32", "192.168.0.0/24", "192.168.0.2/32", "fd00::/16"]),
        services in some_of(&["10.96.0.0/12", "10.97.0.0/16", "fd00:10::/108"]),
        zone in proptest::option::of(proptest::sample::select(vec!["a", "b"])),
    ) -> NodeFacts {
        let nets = |texts: Vec<&str>| texts.iter().map(|text| text.parse().unwrap()).collect();
        NodeFacts {
            node_port_addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
            cluster_cidrs: nets(cluster),
            pod_cidrs: nets(pods),
            non_masquerade_cidrs: nets(direct),
            service_cidrs: nets(services),
            zone: zone.map(Into::into),
        }
    }
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
        1 => any_facts().prop_map(Event::Facts),
        3 => Just(Event::Flush),
        1 => Just(Event::FailedFlush),
    ]
}

/// The events' outcome, for a proxy that starts with it.
struct Outcome {
    facts: NodeFacts,
    services: BTreeMap<usize, Service>,
    slices: BTreeMap<usize, (usize, EndpointSlice)>,
}

impl Default for Outcome {
    fn default() -> Self {
        Self { facts: facts(), services: BTreeMap::new(), slices: BTreeMap::new() }
    }
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
        Event::Facts(facts) => {
            outcome.facts.clone_from(facts);
            proxy.table().set_facts(facts.clone());
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
        block_on(fresh.apply(services, slices, outcome.facts)).unwrap();
        prop_assert_eq!(kernel.behaviour(), fresh_kernel.behaviour());
        prop_assert_eq!(kernel.networks(), fresh_kernel.networks());
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
    service.load_balancer_ips =
        service.load_balancer_ips.iter().map(|_| IpAddr::from([203, 0, 113, number as u8])).collect();
    Event::Service(number, service)
}
