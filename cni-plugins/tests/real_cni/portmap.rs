//! `portmap` behind `bridge`, and `ipMasq`.

use std::process::Command;

use crate::common::{Container, Host, TestNs, block_on, exchange};
use netns::{Netlink, VethPair};
use serde_json::{Value, json};

/// A machine outside, at 192.168.77.2; the host is 192.168.77.1. It has no route to the containers.
fn outside(host: &Host) -> TestNs {
    let outside = TestNs::new("outside");
    block_on(async {
        let netlink = Netlink::open(&host.host.ns).unwrap();
        let pair = VethPair {
            name: "ext0",
            peer_name: "eth0",
            peer_namespace: &outside.ns,
            peer_mac: None,
            mtu: None,
            master: None,
        };
        netlink.create_veth(&pair).await.unwrap();
        let inside = Netlink::open(&outside.ns).unwrap();
        for (netlink, name, address) in [(&netlink, "ext0", "192.168.77.1/24"), (&inside, "eth0", "192.168.77.2/24")] {
            let index = netlink.require_link(name).await.unwrap().index;
            netlink.set_up(index).await.unwrap();
            netlink.add_address(index, address.parse().unwrap()).await.unwrap();
        }
    });
    outside
}

fn portmap(previous: &Value, mappings: Value) -> Value {
    json!({
        "cniVersion": "1.1.0", "name": "test", "type": "portmap", "capabilities": {"portMappings": true},
        "runtimeConfig": {"portMappings": mappings}, "prevResult": previous,
    })
}

#[test]
fn a_port_of_the_host_leads_to_the_container() {
    let host = Host::new();
    let outside = outside(&host);
    let a = Container::new("a");
    let result = host.call("bridge", "ADD", &a, &host.bridge_config()).unwrap();
    let mapping = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
    let config = portmap(&result, mapping);
    assert_eq!(host.call("portmap", "ADD", &a, &config).unwrap()["ips"], result["ips"]);
    // From outside, from the host itself by both of its addresses, and from the container.
    assert_eq!(exchange(&outside.ns, &a.ns.ns, 80, "192.168.77.1:8080").unwrap(), "192.168.77.2");
    assert!(exchange(&host.host.ns, &a.ns.ns, 80, "192.168.77.1:8080").is_ok());
    assert_eq!(exchange(&host.host.ns, &a.ns.ns, 80, "127.0.0.1:8080").unwrap(), "10.44.0.1");
    assert_eq!(exchange(&a.ns.ns, &a.ns.ns, 80, "192.168.77.1:8080").unwrap(), "10.44.0.1");
    assert_eq!(host.call("portmap", "CHECK", &a, &config), Ok(Value::Null));
    // The port is taken.
    let b = Container::new("b");
    let result_b = host.call("bridge", "ADD", &b, &host.bridge_config()).unwrap();
    let config_b = portmap(&result_b, json!([{"hostPort": 8080, "containerPort": 81}]));
    assert_eq!(host.call("portmap", "ADD", &b, &config_b).unwrap_err()["code"], 7);
    // Gone with its container.
    host.call("portmap", "DEL", &a, &config).unwrap();
    assert!(exchange(&outside.ns, &a.ns.ns, 80, "192.168.77.1:8080").is_err());
    assert_eq!(host.call("portmap", "CHECK", &a, &config).unwrap_err()["code"], 102);
    host.call("portmap", "ADD", &b, &config_b).unwrap();
    assert_eq!(exchange(&outside.ns, &b.ns.ns, 81, "192.168.77.1:8080").unwrap(), "192.168.77.2");
}

/// Empties the chain: so is the table that an agent before this rule made.
fn without_guard(host: &Host) {
    let nft = || Command::new("nft").args(["flush", "chain", "inet", "keelson-cni", "localhost"]).status().unwrap();
    assert!(host.host.ns.run(nft).unwrap().success());
}

#[test]
fn a_container_does_not_reach_the_hosts_localhost() {
    let host = Host::new();
    let (a, b) = (Container::new("a"), Container::new("b"));
    let result = host.call("bridge", "ADD", &a, &host.bridge_config()).unwrap();
    let mapping = |port: u16| json!([{"hostPort": port, "containerPort": 80}]);
    host.call("portmap", "ADD", &a, &portmap(&result, mapping(8080))).unwrap();
    // As root of a container can: 127/8 by the bridge.
    for key in ["net/ipv4/conf/all/route_localnet", "net/ipv4/conf/eth0/route_localnet"] {
        netns::sysctl::write(&a.ns.ns, key, "1").unwrap();
    }
    let way = "ip addr del 127.0.0.1/8 dev lo; ip route flush table local 127.0.0.0/8; ip route add 127.0.0.0/8 via 10.44.0.1";
    let out = a.ns.ns.run(|| Command::new("sh").args(["-c", way]).output().unwrap()).unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(exchange(&a.ns.ns, &host.host.ns, 9099, "127.0.0.1:9099").is_err());
    without_guard(&host);
    assert!(exchange(&a.ns.ns, &host.host.ns, 9099, "127.0.0.1:9099").is_ok(), "the test reaches it, but for the rule");
    let result = host.call("bridge", "ADD", &b, &host.bridge_config()).unwrap();
    host.call("portmap", "ADD", &b, &portmap(&result, mapping(8081))).unwrap();
    assert!(exchange(&a.ns.ns, &host.host.ns, 9099, "127.0.0.1:9099").is_err(), "a table of before gets it");
    assert_eq!(exchange(&host.host.ns, &b.ns.ns, 80, "127.0.0.1:8081").unwrap(), "10.44.0.1");
    assert!(exchange(&host.host.ns, &host.host.ns, 9099, "127.0.0.1:9099").is_ok());
    for container in [&a, &b] {
        host.call("portmap", "DEL", container, &portmap(&result, mapping(8080))).unwrap();
    }
    assert!(exchange(&a.ns.ns, &host.host.ns, 9099, "127.0.0.1:9099").is_err(), "and it stays after the last port");
}

/// Lists the host's rules as an administrator would.
fn nft_list(host: &Host) -> String {
    let output = host.host.ns.run(|| Command::new("nft").args(["-j", "list", "ruleset"]).output().unwrap()).unwrap();
    assert!(output.status.success(), "nft failed: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn containerds_spelling_is_understood_and_nft_can_list_it() {
    let host = Host::new();
    let outside = outside(&host);
    let a = Container::new("a");
    let mut bridge = host.bridge_config();
    bridge["ipMasq"] = json!(true);
    let result = host.call("bridge", "ADD", &a, &bridge).unwrap();
    let mappings = json!([
        {"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""},
        {"HostPort": 8081, "ContainerPort": 80, "Protocol": "udp", "HostIP": "192.168.77.1"},
    ]);
    host.call("portmap", "ADD", &a, &portmap(&result, mappings)).unwrap();
    assert_eq!(exchange(&outside.ns, &a.ns.ns, 80, "192.168.77.1:8080").unwrap(), "192.168.77.2");
    assert!(nft_list(&host).contains("keelson-cni"));
}

#[test]
fn a_port_of_one_address_is_of_no_other() {
    let host = Host::new();
    let outside = outside(&host);
    let a = Container::new("a");
    let result = host.call("bridge", "ADD", &a, &host.bridge_config()).unwrap();
    let mapping = json!([{"hostPort": 8080, "containerPort": 80, "hostIP": "192.168.77.1"}]);
    host.call("portmap", "ADD", &a, &portmap(&result, mapping)).unwrap();
    assert!(exchange(&outside.ns, &a.ns.ns, 80, "192.168.77.1:8080").is_ok());
    assert!(exchange(&host.host.ns, &a.ns.ns, 80, "10.44.0.1:8080").is_err());
}

#[test]
fn bad_mappings_are_named() {
    let host = Host::new();
    let a = Container::new("a");
    let result = json!({"cniVersion": "1.1.0", "ips": [{"address": "10.44.0.2/24"}]});
    let cases = [
        (json!([{"hostPort": 70000, "containerPort": 80}]), "portMappings[0].hostPort"),
        (json!([{"hostPort": 80, "containerPort": 0}]), "portMappings[0].containerPort"),
        (json!([{"hostPort": 80, "containerPort": 80, "protocol": "icmp"}]), "portMappings[0].protocol"),
        (json!([{"hostPort": 80, "containerPort": 80, "hostIP": "x"}]), "portMappings[0].hostIP"),
        (json!("x"), "runtimeConfig"),
    ];
    for (mappings, field) in cases {
        let error = host.call("portmap", "ADD", &a, &portmap(&result, mappings)).unwrap_err();
        assert!(error["msg"].as_str().unwrap().contains(field), "{error} does not name {field}");
    }
    let mut alone = portmap(&result, json!([]));
    alone.as_object_mut().unwrap().remove("prevResult");
    assert!(host.call("portmap", "ADD", &a, &alone).unwrap_err()["msg"].as_str().unwrap().contains("prevResult"));
    // Nothing to forward: the result of the plugin before, and no table.
    assert_eq!(host.call("portmap", "ADD", &a, &portmap(&result, json!([]))).unwrap()["ips"], result["ips"]);
    assert!(!host.has_table());
}

#[test]
fn ip_masq_hides_the_container_from_outside() {
    let host = Host::new();
    let outside = outside(&host);
    let (a, b) = (Container::new("a"), Container::new("b"));
    let mut config = host.bridge_config();
    config["ipMasq"] = json!(true);
    host.call("bridge", "ADD", &a, &config).unwrap();
    host.call("bridge", "ADD", &b, &config).unwrap();
    assert_eq!(exchange(&a.ns.ns, &outside.ns, 80, "192.168.77.2:80").unwrap(), "192.168.77.1");
    assert_eq!(exchange(&a.ns.ns, &b.ns.ns, 80, "10.44.0.3:80").unwrap(), "10.44.0.2");
}
