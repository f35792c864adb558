//! Namespaces, links, addresses, routes, sysctls and transactions against the kernel.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ipnet::IpNet;
use netns::nft::{Batch, Element, Hook, HookKind, Kernel, Nft, Op, Set, Type};
use netns::{Error, LinkKind, MacAddr, Neighbour, NetNs, Netlink, ROUTE_PROTOCOL, Route, RouteSync, VethPair, sysctl};
use nix::libc::{EINVAL, ENETUNREACH, ENODEV};

static COUNTER: AtomicU32 = AtomicU32::new(0);

struct TestNs(NetNs, PathBuf);

impl TestNs {
    fn new() -> Self {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/run/netns/kn-{}-{number}", std::process::id()));
        Self(NetNs::create(&path).unwrap(), path)
    }

    /// What iproute2 says, or does, there: it knows the kernel by other means than ours.
    fn ip(&self, arguments: &'static str) -> String {
        let output = self.0.run(move || Command::new("ip").args(arguments.split(' ')).output().unwrap()).unwrap();
        assert!(output.status.success(), "ip {arguments}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for TestNs {
    fn drop(&mut self) {
        NetNs::delete(&self.1).unwrap();
    }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// The kernel's refusal.
fn errno(error: &Error) -> Option<i32> {
    if let Error::Kernel { source, .. } = error { source.raw_os_error() } else { None }
}

fn pair<'a>(pod: &'a TestNs, master: Option<u32>) -> VethPair<'a> {
    VethPair { name: "v0", peer_name: "eth0", peer_namespace: &pod.0, peer_mac: None, mtu: None, master }
}

#[tokio::test]
async fn a_namespace_is_created_once_and_deleted_as_often_as_you_like() {
    let ns = TestNs::new();
    assert!(NetNs::create(&ns.1).is_err());
    assert!(ns.0.is_same(&NetNs::open(&ns.1).unwrap()).unwrap());
    assert!(!ns.0.is_same(&NetNs::current().unwrap()).unwrap());
    let path = ns.1.clone();
    drop(ns);
    NetNs::delete(&path).unwrap();
    assert!(NetNs::open(&path).unwrap_err().is_not_found());
    assert!(matches!(NetNs::open("/proc/self/status"), Err(Error::NotANamespace(_))));
}

#[tokio::test]
async fn links_are_made_in_the_namespace_they_are_for() {
    let (host, pod) = (TestNs::new(), TestNs::new());
    let outside = Netlink::open(&host.0).unwrap();
    let bridge = outside.ensure_bridge("br0", Some(1400)).await.unwrap();
    assert_eq!(outside.ensure_bridge("br0", None).await.unwrap().index, bridge.index);
    let mac: MacAddr = "02:00:00:00:00:07".parse().unwrap();
    let pair = VethPair {
        name: "v0",
        peer_name: "eth0",
        peer_namespace: &pod.0,
        peer_mac: Some(mac),
        mtu: Some(1400),
        master: Some(bridge.index),
    };
    outside.create_veth(&pair).await.unwrap();
    assert!(outside.create_veth(&pair).await.unwrap_err().is_already_exists());
    let port = outside.require_link("v0").await.unwrap();
    assert_eq!((port.kind, port.master, port.mtu), (LinkKind::Veth, Some(bridge.index), 1400));
    let inside = Netlink::open(&pod.0).unwrap();
    let eth = inside.require_link("eth0").await.unwrap();
    assert_eq!((eth.mac, eth.mtu, eth.up), (Some(mac), 1400, false));
    inside.set_up(eth.index).await.unwrap();
    for address in ["10.7.0.2/24", "fd07::2/64"] {
        inside.add_address(eth.index, net(address)).await.unwrap();
        inside.add_address(eth.index, net(address)).await.unwrap();
        assert!(inside.addresses(eth.index).await.unwrap().contains(&net(address)));
        assert!(inside.all_addresses().await.unwrap().contains(&net(address)));
    }
    inside.delete_address(eth.index, net("10.7.0.2/24")).await.unwrap();
    inside.delete_address(eth.index, net("10.7.0.2/24")).await.unwrap();
    assert!(!inside.addresses(eth.index).await.unwrap().contains(&net("10.7.0.2/24")));
    assert!(outside.delete_link("v0").await.unwrap());
    assert!(!outside.delete_link("v0").await.unwrap());
    assert!(inside.link("eth0").await.unwrap().is_none());
    assert!(matches!(outside.ensure_bridge("lo", None).await, Err(Error::WrongLinkKind { .. })));
    assert!(matches!(outside.require_link("v0").await, Err(Error::NoSuchLink(_))));
}

#[tokio::test]
async fn routes_are_made_as_desired_and_others_left_alone() {
    let ns = TestNs::new();
    let netlink = Netlink::open(&ns.0).unwrap();
    let bridge = netlink.ensure_bridge("br0", None).await.unwrap().index;
    sysctl::write(&ns.0, "net/ipv6/conf/br0/accept_dad", "0").unwrap();
    netlink.set_up(bridge).await.unwrap();
    netlink.add_address(bridge, net("192.168.1.1/24")).await.unwrap();
    netlink.add_address(bridge, net("fd01::1/64")).await.unwrap();
    let via = |to: &str, gateway: &str| Route::via(net(to), gateway.parse().unwrap());
    let desired =
        [via("10.1.1.0/24", "192.168.1.11"), via("10.1.2.0/24", "192.168.1.12"), via("fd10:2::/64", "fd01::12")];
    let others = netlink.all_routes().await.unwrap();
    let sync = netlink.sync_routes(&desired).await.unwrap();
    assert_eq!(sync, RouteSync { replaced: 3, deleted: 0 });
    assert_eq!(netlink.sync_routes(&desired).await.unwrap(), RouteSync::default());
    // One moves, one goes.
    let desired = [via("10.1.1.0/24", "192.168.1.21"), via("fd10:2::/64", "fd01::12")];
    assert_eq!(netlink.sync_routes(&desired).await.unwrap(), RouteSync { replaced: 1, deleted: 1 });
    let ours = netlink.routes(ROUTE_PROTOCOL).await.unwrap();
    assert_eq!(ours.len(), 2);
    assert!(ours.iter().any(|route| route.gateway == desired[0].gateway));
    // A gateway that is nowhere does not keep the others away.
    let bad = [via("10.1.3.0/24", "203.0.113.1"), via("10.1.4.0/24", "192.168.1.14")];
    assert!(netlink.sync_routes(&bad).await.is_err());
    assert_eq!(netlink.routes(ROUTE_PROTOCOL).await.unwrap().len(), 1);
    netlink.sync_routes(&[]).await.unwrap();
    assert_eq!(netlink.all_routes().await.unwrap(), others);
}

#[tokio::test]
async fn links_are_found_by_name_by_index_and_in_a_list() {
    let (host, pod) = (TestNs::new(), TestNs::new());
    let (outside, inside) = (Netlink::open(&host.0).unwrap(), Netlink::open(&pod.0).unwrap());
    let bridge = outside.ensure_bridge("br0", None).await.unwrap();
    assert_eq!((bridge.kind, bridge.up), (LinkKind::Bridge, false));
    outside.create_veth(&pair(&pod, Some(bridge.index))).await.unwrap();
    let (port, eth) = (outside.require_link("v0").await.unwrap(), inside.require_link("eth0").await.unwrap());
    assert_eq!((port.peer, eth.peer), (Some(eth.index), Some(port.index)));
    assert!(port.up && !port.forwarding && !eth.up);
    assert_eq!(outside.link_by_index(port.index).await.unwrap().as_ref(), Some(&port));
    assert_eq!(outside.link_by_index(9999).await.unwrap(), None);
    let listed = outside.links().await.unwrap();
    let names: Vec<&str> = listed.iter().map(|link| link.name.as_str()).collect();
    assert!(["lo", "br0", "v0"].iter().all(|name| names.contains(name)), "{names:?}");
    assert!(listed.contains(&port));
    inside.set_up(eth.index).await.unwrap();
    outside.set_up(bridge.index).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), async {
        while !outside.require_link("v0").await.unwrap().forwarding {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn iproute2_sees_what_was_set() {
    let (host, pod) = (TestNs::new(), TestNs::new());
    let (outside, inside) = (Netlink::open(&host.0).unwrap(), Netlink::open(&pod.0).unwrap());
    let bridge = outside.ensure_bridge("br0", None).await.unwrap().index;
    outside.create_veth(&pair(&pod, None)).await.unwrap();
    let (port, eth) =
        (outside.require_link("v0").await.unwrap().index, inside.require_link("eth0").await.unwrap().index);
    let mac: MacAddr = "02:00:00:00:00:09".parse().unwrap();
    outside.set_mtu(port, 1300).await.unwrap();
    outside.set_mac(port, mac).await.unwrap();
    outside.set_promiscuous(port, true).await.unwrap();
    outside.set_master(port, bridge).await.unwrap();
    outside.set_hairpin(port, true).await.unwrap();
    let shown = host.ip("-d link show v0");
    for part in ["mtu 1300", "link/ether 02:00:00:00:00:09", ",PROMISC,", "master br0", "hairpin on"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    outside.set_promiscuous(port, false).await.unwrap();
    outside.set_hairpin(port, false).await.unwrap();
    let shown = host.ip("-d link show v0");
    assert!(!shown.contains(",PROMISC,") && shown.contains("hairpin off") && shown.contains(",UP"), "{shown}");

    inside.set_up(eth).await.unwrap();
    for address in ["10.7.0.2/24", "10.7.1.2/31", "fd07::2/64"] {
        inside.add_address(eth, net(address)).await.unwrap();
    }
    for address in ["10.7.0.9", "fd07::9"].map(|ip| ip.parse().unwrap()) {
        for mac in ["02:00:00:00:00:08".parse().unwrap(), mac] {
            inside.replace_neighbour(&Neighbour { link: eth, address, mac }).await.unwrap();
        }
    }
    let shown = pod.ip("address show eth0");
    for part in [
        "inet 10.7.0.2/24 brd 10.7.0.255 scope global",
        "inet 10.7.1.2/31 scope global",
        "fd07::2/64 scope global nodad",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let shown = pod.ip("neighbour show nud permanent");
    for part in
        ["10.7.0.9 dev eth0 lladdr 02:00:00:00:00:09 PERMANENT", "fd07::9 dev eth0 lladdr 02:00:00:00:00:09 PERMANENT"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}

#[tokio::test]
async fn an_address_of_a_link_with_another_end_is_its_own() {
    let ns = TestNs::new();
    let netlink = Netlink::open(&ns.0).unwrap();
    let bridge = netlink.ensure_bridge("br0", None).await.unwrap().index;
    ns.ip("address add 10.8.0.1 peer 10.8.0.2/32 dev br0 label br0:own");
    assert_eq!(netlink.addresses(bridge).await.unwrap(), [net("10.8.0.1/32")]);
    assert!(netlink.addresses(1).await.unwrap().is_empty());
    netlink.delete_address(bridge, net("10.8.0.1/32")).await.unwrap();
    assert!(netlink.addresses(bridge).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_route_has_all_that_was_asked_for() {
    let ns = TestNs::new();
    let netlink = Netlink::open(&ns.0).unwrap();
    let bridge = netlink.ensure_bridge("br0", None).await.unwrap().index;
    sysctl::write(&ns.0, "net/ipv6/conf/br0/accept_dad", "0").unwrap();
    netlink.set_up(bridge).await.unwrap();
    for address in ["192.168.1.1/24", "fd01::1/64"] {
        netlink.add_address(bridge, net(address)).await.unwrap();
    }
    let routes = [("10.9.0.0/16", "192.168.1.1"), ("fd09::/48", "fd01::1")].map(|(to, source)| Route {
        source: Some(source.parse().unwrap()),
        mtu: Some(1300),
        priority: Some(7),
        ..Route::on_link(net(to), bridge)
    });
    let mut defaults = [("0.0.0.0/0", "192.168.1.9"), ("::/0", "fd01::9")].map(|(to, gateway)| Route {
        link: Some(bridge),
        priority: Some(9),
        ..Route::via(net(to), gateway.parse().unwrap())
    });
    for route in routes.iter().chain(&defaults) {
        netlink.replace_route(route).await.unwrap();
        netlink.replace_route(route).await.unwrap();
    }
    let mut wanted = [routes.as_slice(), defaults.as_slice()].concat();
    let mut present = netlink.routes(ROUTE_PROTOCOL).await.unwrap();
    wanted.sort();
    present.sort();
    assert_eq!(present, wanted);
    let shown = ns.ip("route show");
    for part in [
        "10.9.0.0/16 dev br0 proto 107 scope link src 192.168.1.1 metric 7 mtu 1300",
        "default via 192.168.1.9 dev br0 proto 107 metric 9",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    // The kernel's own are listed, but those of other tables not.
    let all = netlink.all_routes().await.unwrap();
    assert!(all.iter().any(|route| route.destination == net("192.168.1.0/24")));
    assert!(!all.iter().any(|route| route.destination == net("192.168.1.1/32")));
    // Another protocol's route to the same destination stays.
    ns.ip("route add 10.9.0.0/16 dev br0 proto static metric 8");
    for route in routes.iter().chain(&defaults) {
        netlink.delete_route(route).await.unwrap();
        netlink.delete_route(route).await.unwrap();
    }
    assert!(netlink.routes(ROUTE_PROTOCOL).await.unwrap().is_empty());
    assert!(ns.ip("route show").contains("10.9.0.0/16 dev br0 proto static"));
    // What is not on a link of ours cannot be reached by way of it.
    defaults[0].link = None;
    defaults[0].gateway = Some("203.0.113.1".parse().unwrap());
    let error = netlink.replace_route(&defaults[0]).await.unwrap_err();
    assert_eq!((error.to_string().as_str(), errno(&error)), ("replace route to 0.0.0.0/0", Some(ENETUNREACH)));
}

#[tokio::test]
async fn refusals_are_the_kernels() {
    let ns = TestNs::new();
    let netlink = Netlink::open(&ns.0).unwrap();
    let error = netlink.set_up(9999).await.unwrap_err();
    assert_eq!((error.to_string().as_str(), errno(&error)), ("set up link 9999", Some(ENODEV)));
    assert!(error.is_not_found());
    let error = netlink.add_address(9999, net("10.7.0.2/24")).await.unwrap_err();
    assert_eq!((error.to_string().as_str(), errno(&error)), ("add address 10.7.0.2/24", Some(ENODEV)));
    for group in ["224.0.0.7/24", "ff05::7/64"] {
        assert_eq!(errno(&netlink.add_address(1, net(group)).await.unwrap_err()), Some(EINVAL), "{group}");
    }
    let long = "a-name-that-no-link-can-have";
    assert!(errno(&netlink.ensure_bridge(long, None).await.unwrap_err()).is_some());
    assert!(errno(&netlink.delete_link(long).await.unwrap_err()).is_some());
    // And the conversation goes on.
    assert!(netlink.require_link("lo").await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tasks_share_a_conversation() {
    let ns = TestNs::new();
    let netlink = Arc::new(Netlink::open(&ns.0).unwrap());
    // More than fits in one of the kernel's answers.
    for number in 0..60 {
        netlink.ensure_bridge(&format!("br{number}"), None).await.unwrap();
    }
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..60 {
        let netlink = netlink.clone();
        tasks.spawn(async move {
            let name = format!("br{number}");
            let link = netlink.require_link(&name).await.unwrap();
            assert_eq!(link.name, name);
            netlink.add_address(link.index, IpNet::new([10, 1, number, 1].into(), 24).unwrap()).await.unwrap();
            assert_eq!(netlink.links().await.unwrap().iter().filter(|link| link.kind == LinkKind::Bridge).count(), 60);
            assert_eq!(netlink.addresses(link.index).await.unwrap().len(), 1);
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    assert_eq!(netlink.all_addresses().await.unwrap().len(), 60);
}

#[tokio::test]
async fn sysctls_are_of_the_namespace() {
    let ns = TestNs::new();
    sysctl::write(&ns.0, "net/ipv4/conf/lo/route_localnet", "1").unwrap();
    let read = || sysctl::read_current("net/ipv4/conf/lo/route_localnet");
    assert_eq!(ns.0.run(read).unwrap().unwrap(), "1");
    assert_eq!(read().unwrap(), "0");
    assert!(sysctl::write(&ns.0, "net/no/such", "1").unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_thread_that_visits_a_namespace_comes_back() {
    let there = TestNs::new();
    let home = NetNs::current().unwrap();
    assert!(there.0.visit(|| NetNs::current().unwrap().is_same(&there.0)).unwrap().unwrap());
    assert!(NetNs::current().unwrap().is_same(&home).unwrap());
    let inside = Netlink::open_visiting(&there.0).unwrap();
    inside.ensure_bridge("visited", None).await.unwrap();
    assert!(Netlink::open(&there.0).unwrap().link("visited").await.unwrap().is_some());
    assert!(Netlink::open_current().unwrap().link("visited").await.unwrap().is_none());
}

#[tokio::test]
async fn filters_that_drop_and_do_not_know_a_link() {
    let ns = TestNs::new();
    let nft = Nft::open(&ns.0).unwrap();
    let say = |text: &'static str| {
        let out = ns.0.run(move || Command::new("nft").arg(text).output().unwrap()).unwrap();
        assert!(out.status.success(), "{text}: {out:?}");
    };
    assert_eq!(nft.closed(false, "keelson0").await.unwrap(), Vec::<String>::new());
    say(concat!(
        "table inet filter { chain forward { type filter hook forward priority 0; policy drop; }; ",
        "chain input { type filter hook input priority 0; policy drop; }; chain other { }; }"
    ));
    say(
        "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; iifname eth0 accept; }; }",
    );
    say("table ip6 open { chain forward { type filter hook forward priority 0; policy accept; }; }");
    assert_eq!(nft.closed(true, "keelson0").await.unwrap(), ["inet filter input"]);
    let mut found = nft.closed(false, "keelson0").await.unwrap();
    found.sort();
    assert_eq!(found, ["inet filter forward", "ip filter FORWARD"]);
    // In a chain that it jumps to, say.
    say("insert rule inet filter other iifname keelson0 accept");
    say("insert rule ip filter FORWARD oifname keelson0 accept");
    assert_eq!(nft.closed(false, "keelson0").await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_transaction_is_all_or_nothing() {
    let ns = TestNs::new();
    let nft = Nft::open(&ns.0).unwrap();
    let set = Arc::new(Set::map("numbers", vec![Type::Number], vec![Type::Number]));
    let element = |number: u32| Element::value(number.to_ne_bytes().to_vec(), number.to_ne_bytes().to_vec());
    let mut batch = Batch::replacing("t");
    batch.base_chain("output", HookKind::Nat, Hook::Output, -100);
    batch.ops.push(Op::AddSet(set.clone()));
    batch.ops.push(Op::AddElements(set.clone(), (0..3000).map(element).collect()));
    nft.commit(&batch).await.unwrap();
    assert_eq!(nft.elements("t", "numbers").await.unwrap().len(), 3000);
    // The second change is impossible, so the first does not happen.
    let mut bad = Batch::new("t");
    bad.ops.push(Op::AddElements(set.clone(), vec![element(5000)]));
    bad.ops.push(Op::DeleteElements(set.clone(), vec![Element::new(9999u32.to_ne_bytes().to_vec())]));
    assert!(nft.commit(&bad).await.unwrap_err().is_not_found());
    assert_eq!(nft.elements("t", "numbers").await.unwrap().len(), 3000);
    // Replacing is atomic, and a generation that has passed is refused.
    let generation = nft.generation().await.unwrap();
    nft.commit(&batch).await.unwrap();
    assert!(matches!(nft.commit_at(&Batch::deleting("t"), generation).await, Err(Error::NftConflict)));
    nft.commit(&Batch::deleting("t")).await.unwrap();
    assert!(!nft.has_table("t").await.unwrap());
    assert!(nft.elements("t", "numbers").await.unwrap_err().is_not_found());
}
