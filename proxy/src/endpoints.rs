//! Which endpoints of a Service port are used on this node. Pure.
//!
//! The rules are those of KEP-1669 (terminating endpoints), KEP-2433 and KEP-3015 (hints, `trafficDistribution`).

use std::collections::BTreeSet;
use std::net::IpAddr;

use netns::nft::Family;

use crate::types::{Endpoint, EndpointSlice, Hints, ServicePort};

/// An endpoint that gets connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usable {
    /// Its address.
    pub ip: IpAddr,
    /// The port that serves the Service's.
    pub port: u16,
    /// Whether it is on this node.
    pub local: bool,
}

/// The endpoints that serve one Service port.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Endpoints {
    /// Where the policy is `Cluster`.
    pub cluster: Vec<Usable>,
    /// Where it is `Local`.
    pub local: Vec<Usable>,
    /// All that serve, also while they terminate, whatever policies and hints leave out.
    pub serving: BTreeSet<(IpAddr, u16)>,
}

impl Endpoints {
    /// Those of `slices` that a node in `zone` uses.
    pub fn of<'a>(port: &ServicePort, slices: impl Iterator<Item = &'a EndpointSlice>, zone: Option<&str>) -> Self {
        let mut all: Vec<(&Endpoint, u16)> = Vec::new();
        for slice in slices {
            let Some(serving) = slice.serving(port) else { continue };
            all.extend(slice.endpoints.iter().map(|endpoint| (endpoint, serving.port)));
        }
        let serving = all.iter().filter(|(e, _)| e.ready || e.serving).map(|(e, port)| (e.address, *port));
        let mut endpoints = Self { serving: serving.collect(), ..Self::default() };
        for family in Family::BOTH {
            let of_family = || all.iter().copied().filter(move |(e, _)| Family::of(&e.address) == family);
            endpoints.cluster.extend(usable(of_family, |ready| Preference::of(ready, zone)));
            endpoints.local.extend(usable(|| of_family().filter(|(e, _)| e.local), |_| Preference::None));
        }
        endpoints
    }
}

/// The ready endpoints that are preferred, or where none is ready, those that still serve while they terminate.
fn usable<'a, 'z, I: Iterator<Item = (&'a Endpoint, u16)>>(
    all: impl Fn() -> I,
    prefer: impl Fn(&[&Endpoint]) -> Preference<'z>,
) -> Vec<Usable> {
    let ready: Vec<&Endpoint> = all().map(|(e, _)| e).filter(|e| e.ready).collect();
    let preference = prefer(&ready);
    let suits = |e: &Endpoint| match ready.as_slice() {
        [] => e.serving && e.terminating,
        _ => e.ready && preference.suits(e),
    };
    let chosen = all().filter(|(e, _)| suits(e));
    chosen.map(|(e, port)| Usable { ip: e.address, port, local: e.local }).collect()
}

/// Which ready endpoints the hints leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Preference<'a> {
    None,
    SameNode,
    SameZone(&'a str),
}

impl<'a> Preference<'a> {
    /// Hints count only where each ready endpoint has some and one of them is meant for this node, or else for its zone: endpoints that lack them
    /// would get no connections from anywhere, and a node for which there is none would have no endpoint.
    fn of(ready: &[&Endpoint], zone: Option<&'a str>) -> Self {
        let hints = || ready.iter().map(|endpoint| endpoint.hints.as_deref());
        let for_this_node = || hints().map(|hints| hints.and_then(|hints| hints.for_this_node));
        if for_this_node().all(|given| given.is_some()) && for_this_node().any(|given| given == Some(true)) {
            return Self::SameNode;
        }
        let zoned = |hints: Option<&Hints>| hints.is_some_and(|hints| !hints.zones.is_empty());
        match zone {
            Some(zone) if hints().all(zoned) && hints().any(|hints| is_for_zone(hints, zone)) => Self::SameZone(zone),
            _ => Self::None,
        }
    }

    fn suits(self, endpoint: &Endpoint) -> bool {
        let hints = endpoint.hints.as_deref();
        match self {
            Self::None => true,
            Self::SameNode => hints.and_then(|hints| hints.for_this_node) == Some(true),
            Self::SameZone(zone) => is_for_zone(hints, zone),
        }
    }
}

fn is_for_zone(hints: Option<&Hints>, zone: &str) -> bool {
    hints.is_some_and(|hints| hints.zones.iter().any(|name| **name == *zone))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::types::{EndpointPort, Protocol};

    fn port() -> ServicePort {
        ServicePort { name: "http".into(), protocol: Protocol::Tcp, port: 80, node_port: None }
    }

    fn endpoint(last: u8, for_this_node: Option<bool>, zones: &[&str]) -> Endpoint {
        let hints = Hints { for_this_node, zones: zones.iter().map(|zone| (*zone).into()).collect() };
        Endpoint {
            address: [10, 0, 0, last].into(),
            ready: true,
            serving: true,
            terminating: false,
            local: false,
            hints: (hints != Hints::default()).then(|| Arc::new(hints)),
        }
    }

    fn chosen(endpoints: &[Endpoint], zone: Option<&str>) -> Vec<u8> {
        let serving = EndpointPort { name: "http".into(), protocol: Protocol::Tcp, port: 8080 };
        let slice = EndpointSlice { ports: vec![serving], endpoints: endpoints.to_vec() };
        let used = Endpoints::of(&port(), [&slice].into_iter(), zone).cluster;
        used.iter()
            .map(|used| match used.ip {
                IpAddr::V4(ip) => ip.octets()[3],
                IpAddr::V6(_) => 0,
            })
            .collect()
    }

    #[test]
    fn endpoints_of_the_zone_are_preferred() {
        let all = [endpoint(1, None, &["a"]), endpoint(2, None, &["b"]), endpoint(3, None, &["a", "b"])];
        assert_eq!(chosen(&all, Some("a")), [1, 3]);
        assert_eq!(chosen(&all, Some("b")), [2, 3]);
        assert_eq!(chosen(&all, Some("c")), [1, 2, 3], "none is meant for the zone");
        assert_eq!(chosen(&all, None), [1, 2, 3], "the node has no zone");
        let lacking = [all[0].clone(), all[1].clone(), endpoint(4, None, &[])];
        assert_eq!(chosen(&lacking, Some("a")), [1, 2, 4], "one endpoint has no hint");
    }

    #[test]
    fn endpoints_of_the_node_are_preferred_to_those_of_the_zone() {
        let all = [endpoint(1, Some(true), &["a"]), endpoint(2, Some(false), &["a"]), endpoint(3, Some(false), &["b"])];
        assert_eq!(chosen(&all, Some("a")), [1]);
        assert_eq!(chosen(&all[1..], Some("a")), [2], "none here: the zone counts");
        assert_eq!(chosen(&all[1..], Some("c")), [2, 3]);
        let lacking = [all[0].clone(), endpoint(4, None, &["a"]), endpoint(5, None, &["b"])];
        assert_eq!(chosen(&lacking, Some("a")), [1, 4], "one endpoint names no node");
    }

    #[test]
    fn endpoints_that_are_not_ready_have_no_say() {
        let leaving = Endpoint { ready: false, terminating: true, ..endpoint(9, None, &[]) };
        let all = [endpoint(1, None, &["a"]), endpoint(2, None, &["b"]), leaving.clone()];
        assert_eq!(chosen(&all, Some("a")), [1]);
        assert_eq!(chosen(&[leaving], Some("a")), [9], "where none is ready, hints do not count");
    }

    proptest! {
        /// Hints never leave a Service without endpoints that it would have without them, and never bring one that is not ready.
        #[test]
        fn hints_only_choose_among_what_is_there(
            all in proptest::collection::vec(
                (proptest::option::of(any::<bool>()), proptest::sample::subsequence(vec!["a", "b"], 0..3), any::<bool>(), any::<bool>()),
                0..6,
            ),
            zone in proptest::option::of(proptest::sample::select(vec!["a", "b", "c"])),
        ) {
            let with: Vec<Endpoint> = (1..).zip(&all).map(|(last, (node, zones, ready, terminating))| Endpoint {
                ready: *ready,
                terminating: *terminating && !ready,
                ..endpoint(last, *node, zones)
            }).collect();
            let without: Vec<Endpoint> = with.iter().map(|e| Endpoint { hints: None, ..e.clone() }).collect();
            let (with, without) = (chosen(&with, zone), chosen(&without, zone));
            prop_assert_eq!(with.is_empty(), without.is_empty());
            prop_assert!(with.iter().all(|one| without.contains(one)));
        }
    }
}
