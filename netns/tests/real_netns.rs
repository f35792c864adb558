//! Namespaces, links, addresses, routes, sysctls and transactions against the kernel.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ipnet::IpNet;
use netns::nft::{Batch, Element, Hook, HookKind, Kernel, Nft, Op, Set, Type};
use netns::{Error, LinkKind, MacAddr, NetNs, Netlink, ROUTE_PROTOCOL, Route, RouteSync, VethPair, sysctl};

static COUNTER: AtomicU32 = AtomicU32::new(0);

struct TestNs(NetNs, PathBuf);

impl TestNs {
    fn new() -> Self {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/run/netns/kn-{}-{number}", std::process::id()));
        Self(NetNs::create(&path).unwrap(), path)
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
