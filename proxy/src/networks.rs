//! Networks as elements of interval sets. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netns::nft::{Element, Family};

use crate::sets::SetId;
use crate::types::{NodeFacts, Service};

/// Multicast and link-local destinations: they are not outside of anything, so that pods keep their address.
const NEVER_MASQUERADED: [&str; 4] = ["224.0.0.0/4", "169.254.0.0/16", "ff00::/8", "fe80::/10"];

/// What the kernel is to hold of the node and its network.
pub fn elements(facts: &NodeFacts) -> BTreeSet<(SetId, Element)> {
    let mut elements = BTreeSet::new();
    for family in Family::BOTH {
        let cluster = disjoint(facts.cluster_cidrs.iter().copied(), family);
        let never = NEVER_MASQUERADED.iter().filter_map(|net| net.parse().ok());
        let direct = facts.cluster_cidrs.iter().chain(&facts.non_masquerade_cidrs).copied().chain(never);
        let inside = if cluster.is_empty() { vec![everything(family)] } else { cluster.clone() };
        let sets = [
            (SetId::Cluster(family), cluster),
            (SetId::Inside(family), inside),
            (SetId::Pods(family), disjoint(facts.pod_cidrs.iter().copied(), family)),
            (SetId::Direct(family), disjoint(direct, family)),
            (SetId::ServiceNetworks(family), disjoint(facts.service_cidrs.iter().copied(), family)),
        ];
        elements
            .extend(sets.into_iter().flat_map(|(set, nets)| nets.into_iter().map(move |net| (set, Element::net(net)))));
    }
    elements
}

fn everything(family: Family) -> IpNet {
    match family {
        Family::V4 => Ipv4Net::default().into(),
        Family::V6 => Ipv6Net::default().into(),
    }
}

/// `nets` of one family without those that lie within others: ranges of one set must not overlap.
pub fn disjoint(nets: impl IntoIterator<Item = IpNet>, family: Family) -> Vec<IpNet> {
    let mut nets: Vec<IpNet> =
        nets.into_iter().filter(|net| Family::of(&net.addr()) == family).map(|net| net.trunc()).collect();
    nets.sort_unstable_by_key(|net| (net.addr(), net.prefix_len()));
    let mut apart: Vec<IpNet> = Vec::with_capacity(nets.len());
    for net in nets {
        if apart.last().is_none_or(|wider| !wider.contains(&net)) {
            apart.push(net);
        }
    }
    apart
}

/// Who may ask at the load balancer's addresses of one family; empty where everybody may. A node that may ask is let in under the load
/// balancer's addresses, too: where such an address is its own, it is what the node's connections come from.
pub fn sources(service: &Service, family: Family, node_addresses: &[IpAddr]) -> Vec<IpNet> {
    let ranges = disjoint(service.source_ranges.iter().copied(), family);
    if ranges.iter().any(|net| net.prefix_len() == 0) {
        return Vec::new();
    }
    let admits_node = node_addresses.iter().any(|ip| ranges.iter().any(|net| net.contains(ip)));
    let own = service.load_balancer_ips.iter().filter(|_| admits_node).map(|ip| IpNet::from(*ip));
    disjoint(ranges.iter().copied().chain(own), family)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn ranges_that_lie_within_others_are_left_out() {
        let all = nets(&["10.1.2.3/8", "10.1.0.0/16", "fd00::/8", "192.168.0.0/25", "192.168.0.128/25", "10.0.0.0/8"]);
        let expected = nets(&["10.0.0.0/8", "192.168.0.0/25", "192.168.0.128/25"]);
        assert_eq!(disjoint(all.iter().copied(), Family::V4), expected);
        assert_eq!(disjoint(all, Family::V6), nets(&["fd00::/8"]));
    }

    #[test]
    fn everybody_may_ask_where_no_range_says_otherwise() {
        let service = |ranges: &[&str]| Service {
            load_balancer_ips: vec!["203.0.113.1".parse().unwrap(), "fd00:2::1".parse().unwrap()],
            source_ranges: nets(ranges),
            ..crate::tests::service("10.96.0.1")
        };
        let node = ["192.168.0.1".parse().unwrap()];
        assert!(sources(&service(&[]), Family::V4, &node).is_empty());
        assert!(sources(&service(&["10.0.0.0/8", "0.0.0.0/0"]), Family::V4, &node).is_empty());
        assert!(sources(&service(&["10.0.0.0/8"]), Family::V6, &node).is_empty());
        assert_eq!(sources(&service(&["10.0.0.0/8"]), Family::V4, &node), nets(&["10.0.0.0/8"]));
        let with_node = sources(&service(&["10.0.0.0/8", "192.168.0.0/24"]), Family::V4, &node);
        assert_eq!(with_node, nets(&["10.0.0.0/8", "192.168.0.0/24", "203.0.113.1/32"]));
    }

    proptest! {
        #[test]
        fn disjoint_networks_hold_what_the_given_ones_do(
            all in proptest::collection::vec((0u32..256, 24u8..=32), 0..12),
            probe in 0u32..256,
        ) {
            let net = |(last, length): (u32, u8)| IpNet::new(std::net::Ipv4Addr::from(0x0a00_0000 + last).into(), length).unwrap();
            let given: Vec<IpNet> = all.into_iter().map(net).collect();
            let apart = disjoint(given.iter().copied(), Family::V4);
            let probe: IpAddr = std::net::Ipv4Addr::from(0x0a00_0000 + probe).into();
            let holding = apart.iter().filter(|net| net.contains(&probe)).count();
            prop_assert_eq!(holding, usize::from(given.iter().any(|net| net.contains(&probe))));
        }
    }
}
