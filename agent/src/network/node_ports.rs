//! The addresses at which node ports and health checks are served: those of the Node, as kube-proxy has it by default with nftables
//! (`nodePortAddresses: [primary]`). Of a family that the Node has no address of, those are all that the machine has.

use std::net::IpAddr;

use netns::nft::Family;

/// The families that the Node has no address of, among those that are asked for.
pub(super) fn missing(node: &[IpAddr], is_asked: impl Fn(Family) -> bool) -> Vec<Family> {
    let has = |family: Family| node.iter().any(|ip| Family::of(ip) == family);
    // As long as nothing is known of the Node, nothing is served.
    let lacks = |family: &Family| !node.is_empty() && !has(*family) && is_asked(*family);
    Family::BOTH.into_iter().filter(lacks).collect()
}

/// The Node's addresses, and those of the machine that are of the families that it misses. What only the machine itself reaches, or a link's
/// neighbours, is left out.
pub(super) fn addresses(node: &[IpAddr], missing: &[Family], machine: &[IpAddr]) -> Vec<IpAddr> {
    let serves = |ip: &&IpAddr| missing.contains(&Family::of(ip)) && !is_near(ip);
    let mut all: Vec<IpAddr> = machine.iter().filter(serves).copied().collect();
    all.sort_unstable();
    all.dedup();
    node.iter().copied().chain(all).collect()
}

fn is_near(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_family_that_the_node_lacks_is_served_at_all_addresses_of_the_machine() {
        let machine = ips(&["127.0.0.1", "10.0.0.1", "10.9.0.1", "::1", "fe80::1", "fd00::7", "fd00::2", "fd00::7"]);
        let served = |node: &[&str], asked: &[Family]| {
            let node = ips(node);
            addresses(&node, &missing(&node, |family| asked.contains(&family)), &machine)
        };
        assert_eq!(served(&["10.0.0.1"], &[Family::V4]), ips(&["10.0.0.1"]));
        assert_eq!(served(&["10.0.0.1"], &Family::BOTH), ips(&["10.0.0.1", "fd00::2", "fd00::7"]));
        assert_eq!(served(&["fd00::2"], &Family::BOTH), ips(&["fd00::2", "10.0.0.1", "10.9.0.1"]));
        assert_eq!(served(&["10.0.0.1", "fd00::2"], &Family::BOTH), ips(&["10.0.0.1", "fd00::2"]));
        assert_eq!(served(&[], &Family::BOTH), ips(&[]));
    }
}
