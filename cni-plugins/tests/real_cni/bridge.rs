//! `bridge` with `host-local` and `loopback`, called as a runtime does.

use crate::common::{Container, Host, address, exchange, links};
use serde_json::{Value, json};

fn with(mut config: Value, key: &str, value: Value) -> Value {
    config[key] = value;
    config
}

#[test]
fn two_containers_reach_each_other_and_the_host() {
    let host = Host::new();
    let config = host.bridge_config();
    let (a, b) = (Container::new("a"), Container::new("b"));
    let result_a = host.call("bridge", "ADD", &a, &config).unwrap();
    let result_b = host.call("bridge", "ADD", &b, &config).unwrap();
    assert_eq!(result_a["cniVersion"], "1.1.0");
    let names: Vec<_> = result_a["interfaces"].as_array().unwrap().iter().map(|i| i["name"].clone()).collect();
    assert_eq!((&names[0], &names[2]), (&json!("cni0"), &json!("eth0")));
    assert_eq!(result_a["interfaces"][2]["mtu"], 1400);
    assert_eq!(result_a["interfaces"][2]["sandbox"], a.ns.path.display().to_string());
    assert_eq!(address(&result_a, false), "10.44.0.2");
    assert_eq!(address(&result_b, false), "10.44.0.3");
    assert_eq!(exchange(&a.ns.ns, &b.ns.ns, 80, "10.44.0.3:80").unwrap(), "10.44.0.2");
    assert_eq!(exchange(&a.ns.ns, &b.ns.ns, 80, "[fd44::3]:80").unwrap(), "fd44::2");
    assert_eq!(exchange(&a.ns.ns, &host.host.ns, 80, "10.44.0.1:80").unwrap(), "10.44.0.2");
    assert_eq!(exchange(&host.host.ns, &a.ns.ns, 80, "10.44.0.2:80").unwrap(), "10.44.0.1");
}

/// An address is given again, and the host remembers who had it.
#[test]
fn the_next_container_at_an_address_says_so() {
    let host = Host::new();
    let mut config = host.bridge_config();
    config["ipam"]["ranges"] =
        json!([[{"subnet": "10.44.0.0/24", "rangeStart": "10.44.0.8", "rangeEnd": "10.44.0.9"}]]);
    // A bridge without a port forgets all.
    let other = Container::new("other");
    host.call("bridge", "ADD", &other, &config).unwrap();
    let known = || {
        let read = || std::fs::read_to_string("/proc/thread-self/net/arp").unwrap();
        let table = host.host.ns.run(read).unwrap();
        table.lines().find(|line| line.starts_with("10.44.0.9 ")).map(str::to_owned).unwrap_or_default()
    };
    for name in ["a", "b"] {
        let container = Container::new(name);
        let result = host.call("bridge", "ADD", &container, &config).unwrap();
        let mac = result["interfaces"][2]["mac"].as_str().unwrap();
        if name == "b" {
            assert!(known().contains(mac), "{} is not {mac}", known());
        }
        assert_eq!(exchange(&host.host.ns, &container.ns.ns, 80, "10.44.0.9:80").unwrap(), "10.44.0.1");
        assert!(known().contains(mac));
        host.call("bridge", "DEL", &container, &config).unwrap();
    }
}

#[test]
fn check_finds_what_is_missing() {
    let host = Host::new();
    let config = host.bridge_config();
    let a = Container::new("a");
    let result = host.call("bridge", "ADD", &a, &config).unwrap();
    let config = with(config, "prevResult", result);
    assert_eq!(host.call("bridge", "CHECK", &a, &config), Ok(Value::Null));
    std::fs::remove_file(host.data.path().join("test/10.44.0.2")).unwrap();
    std::fs::remove_file(host.data.path().join("test/fd44::2")).unwrap();
    assert_eq!(host.call("bridge", "CHECK", &a, &config).unwrap_err()["code"], 102);
}

#[test]
fn del_removes_all_and_can_be_repeated() {
    let host = Host::new();
    let config = with(host.bridge_config(), "ipMasq", json!(true));
    let a = Container::new("a");
    host.call("bridge", "ADD", &a, &config).unwrap();
    assert!(host.masquerades() > 0);
    assert_eq!(host.reservations(), ["10.44.0.2", "fd44::2"]);
    assert_eq!(host.call("bridge", "DEL", &a, &config), Ok(Value::Null));
    assert_eq!(links(&a.ns.ns), ["lo"]);
    assert!(!host.links().iter().any(|name| name.starts_with("veth")));
    assert!(host.reservations().is_empty() && host.masquerades() == 0);
    assert_eq!(host.call("bridge", "DEL", &a, &config), Ok(Value::Null));
    // The namespace is gone: DEL comes with a path that does not exist, or with none.
    let (id, gone) = (a.id.clone(), a.ns.path.display().to_string());
    drop(a);
    let mut environment =
        vec![("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", &*id), ("CNI_IFNAME", "eth0"), ("CNI_PATH", "/nowhere")];
    assert_eq!(host.call_with("bridge", &config, &environment), Ok(Value::Null));
    environment.push(("CNI_NETNS", &gone));
    assert_eq!(host.call_with("bridge", &config, &environment), Ok(Value::Null));
}

#[test]
fn a_failed_add_leaves_nothing() {
    let host = Host::new();
    let good = host.bridge_config();
    let a = Container::new("a");
    // The route's gateway is nowhere near: the kernel refuses the last step.
    let mut bad = good.clone();
    bad["ipam"]["routes"] = json!([{"dst": "192.0.2.0/24", "gw": "203.0.113.1"}]);
    let error = host.call("bridge", "ADD", &a, &bad).unwrap_err();
    assert!(error["details"].as_str().unwrap().contains("192.0.2.0/24"), "{error}");
    assert_eq!(links(&a.ns.ns), ["lo"]);
    assert!(host.reservations().is_empty());
    host.call("bridge", "ADD", &a, &good).unwrap();
}

#[test]
fn gc_releases_what_is_not_valid() {
    let host = Host::new();
    let config = with(host.bridge_config(), "ipMasq", json!(true));
    let (a, b) = (Container::new("a"), Container::new("b"));
    host.call("bridge", "ADD", &a, &config).unwrap();
    host.call("bridge", "ADD", &b, &config).unwrap();
    let valid = json!([{"containerID": "b", "ifname": "eth0"}]);
    let gc = with(config, "cni.dev/valid-attachments", valid);
    let environment = [("CNI_COMMAND", "GC"), ("CNI_PATH", "/nowhere")];
    assert_eq!(host.call_with("bridge", &gc, &environment), Ok(Value::Null));
    assert_eq!(host.reservations(), ["10.44.0.3", "fd44::3"]);
    assert!(host.masquerades() > 0);
    let none = with(gc, "cni.dev/valid-attachments", json!([]));
    assert_eq!(host.call_with("bridge", &none, &environment), Ok(Value::Null));
    assert!(host.reservations().is_empty() && host.masquerades() == 0);
}

#[test]
fn old_versions_get_results_of_their_shape() {
    let host = Host::new();
    for (id, version) in [("a", "0.3.1"), ("b", "0.4.0"), ("c", "1.0.0")] {
        let config = with(host.bridge_config(), "cniVersion", json!(version));
        let container = Container::new(id);
        let result = host.call("bridge", "ADD", &container, &config).unwrap();
        assert_eq!(result["cniVersion"], version);
        assert_eq!(result["ips"][0].get("version"), (version < "1").then_some(&json!("4")));
        assert_eq!(result["interfaces"][2].get("mtu"), None);
        host.call("bridge", "DEL", &container, &config).unwrap();
    }
}

#[test]
fn bad_calls_are_told_what_is_wrong() {
    let host = Host::new();
    let a = Container::new("a");
    let good = host.bridge_config();
    let cases = [
        (with(good.clone(), "cniVersion", json!("2.0.0")), 1, "2.0.0"),
        (with(good.clone(), "mtu", json!("big")), 6, "mtu"),
        (with(good.clone(), "mtu", json!(3)), 7, "mtu"),
        (with(good.clone(), "vlan", json!(3)), 2, "vlan"),
        (with(good.clone(), "promiscMode", json!(true)), 7, "promiscMode"),
        (with(good.clone(), "name", json!("../x")), 7, "name"),
        (with(good.clone(), "ipam", json!({"type": "nosuch"})), 7, "ipam.type"),
        (with(good.clone(), "ipam", json!({"type": "host-local"})), 7, "ipam.ranges"),
        (with(good.clone(), "ipam", json!({"type": "host-local", "subnet": "x"})), 6, "ipam.subnet"),
        (with(good.clone(), "bridge", json!("lo")), 100, "network"),
    ];
    for (config, code, word) in cases {
        let error = host.call("bridge", "ADD", &a, &config).unwrap_err();
        assert_eq!(error["code"], code, "{error}");
        assert!(error["msg"].as_str().unwrap().contains(word), "{error} does not name {word}");
    }
    assert_eq!(host.call("bridge", "NONSENSE", &a, &good).unwrap_err()["code"], 4);
    assert_eq!(host.call_with("bridge", &good, &[("CNI_COMMAND", "ADD")]).unwrap_err()["code"], 4);
    let versions = host.call_with("bridge", &json!({"cniVersion": "1.0.0"}), &[("CNI_COMMAND", "VERSION")]).unwrap();
    assert!(versions["supportedVersions"].as_array().unwrap().contains(&json!("1.1.0")));
    assert!(host.reservations().is_empty());
}

#[test]
fn status_is_silent_when_all_is_well() {
    let host = Host::new();
    let environment = [("CNI_COMMAND", "STATUS"), ("CNI_PATH", "/nowhere")];
    assert_eq!(host.call_with("bridge", &host.bridge_config(), &environment), Ok(Value::Null));
    let wrong = with(host.bridge_config(), "bridge", json!("lo"));
    assert_eq!(host.call_with("bridge", &wrong, &environment).unwrap_err()["code"], 50);
}

#[test]
fn loopback_is_set_up() {
    let host = Host::new();
    let a = Container::new("a");
    let config = json!({"cniVersion": "1.0.0", "name": "lo", "type": "loopback"});
    let result = host.call("loopback", "ADD", &a, &config).unwrap();
    assert_eq!(address(&result, false), "127.0.0.1");
    assert_eq!(exchange(&a.ns.ns, &a.ns.ns, 80, "127.0.0.1:80").unwrap(), "127.0.0.1");
    let check = with(config.clone(), "prevResult", result);
    assert_eq!(host.call("loopback", "CHECK", &a, &check), Ok(Value::Null));
    assert_eq!(host.call("loopback", "DEL", &a, &config), Ok(Value::Null));
}
