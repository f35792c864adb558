use serde_json::{Value, json};

use super::*;
use crate::error::Error;
use crate::request::Environment;

fn request(command: &str, container: &str, ipam: &Value, args: &str) -> Request {
    let environment = [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", container),
        ("CNI_NETNS", "/nowhere"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", args),
    ];
    let environment = environment.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let config = json!({"cniVersion": "1.1.0", "name": "net", "type": "bridge", "ipam": ipam});
    Request::read(Environment(environment), config).unwrap()
}

struct World {
    folder: tempfile::TempDir,
    ranges: Value,
}

impl World {
    fn new(ranges: Value) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), ranges }
    }

    fn ipam(&self) -> Value {
        json!({"type": "host-local", "dataDir": self.folder.path(), "ranges": self.ranges})
    }

    fn add(&self, container: &str) -> std::result::Result<Vec<String>, Error> {
        self.add_with(container, "")
    }

    fn add_with(&self, container: &str, args: &str) -> std::result::Result<Vec<String>, Error> {
        let result = run(&request("ADD", container, &self.ipam(), args))?.unwrap();
        Ok(result.ips.iter().map(|ip| ip.address.to_string()).collect())
    }

    fn del(&self, container: &str) {
        run(&request("DEL", container, &self.ipam(), "")).unwrap();
    }
}

#[test]
fn addresses_go_round() {
    let world = World::new(json!([[{"subnet": "10.1.0.0/29"}]]));
    assert_eq!(world.add("a").unwrap(), ["10.1.0.2/29"]);
    assert_eq!(world.add("b").unwrap(), ["10.1.0.3/29"]);
    world.del("a");
    // The address that was just given back is the last one to be used again.
    for (name, address) in [("c", "10.1.0.4/29"), ("d", "10.1.0.5/29"), ("e", "10.1.0.6/29"), ("f", "10.1.0.2/29")] {
        assert_eq!(world.add(name).unwrap(), [address]);
    }
    let full = world.add("g").unwrap_err();
    assert_eq!(full.message, "no IP addresses available in range set: 10.1.0.1-10.1.0.6");
    world.del("d");
    assert_eq!(world.add("g").unwrap(), ["10.1.0.5/29"]);
}

#[test]
fn a_failed_add_reserves_nothing() {
    let world = World::new(json!([[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/126", "rangeEnd": "fd00::2"}]]));
    assert_eq!(world.add("a").unwrap(), ["10.1.0.2/24", "fd00::2/126"]);
    assert!(world.add("b").is_err());
    world.del("a");
    assert_eq!(world.add("b").unwrap(), ["10.1.0.4/24", "fd00::2/126"]);
}

#[test]
fn several_ranges_of_a_set_are_used_one_after_the_other() {
    let world = World::new(json!([[
        {"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.9"},
        {"subnet": "10.2.0.0/24", "rangeStart": "10.2.0.5", "rangeEnd": "10.2.0.6", "gateway": "10.2.0.5"},
    ]]));
    assert_eq!(world.add("a").unwrap(), ["10.1.0.9/24"]);
    assert_eq!(world.add("b").unwrap(), ["10.2.0.6/24"]);
    assert!(world.add("c").is_err());
    world.del("a");
    assert_eq!(world.add("c").unwrap(), ["10.1.0.9/24"]);
}

#[test]
fn an_address_can_be_asked_for() {
    let world = World::new(json!([[{"subnet": "10.1.0.0/24"}]]));
    assert_eq!(world.add_with("a", "IgnoreUnknown=1;IP=10.1.0.77").unwrap(), ["10.1.0.77/24"]);
    assert!(world.add_with("b", "IP=10.1.0.77").unwrap_err().message.contains("not available"));
    assert!(world.add_with("b", "IP=10.9.0.1").unwrap_err().message.contains("10.9.0.1"));
    assert!(world.add_with("b", "IP=10.1.0.1").is_err(), "the gateway's own");
    assert_eq!(world.add("b").unwrap(), ["10.1.0.2/24"]);
}

#[test]
fn one_attachment_has_one_allocation() {
    let world = World::new(json!([[{"subnet": "10.1.0.0/24"}]]));
    world.add("a").unwrap();
    assert!(world.add("a").unwrap_err().message.contains("duplicate allocation"));
    assert!(world.folder.path().join("net/10.1.0.2").exists(), "it still has the first one");
}

#[test]
fn ranges_that_make_no_sense_are_named() {
    for (ranges, word) in [
        (json!([[{"subnet": "10.1.0.0/31"}]]), "too small"),
        (json!([[{"subnet": "10.1.0.7/24"}]]), "host bits"),
        (json!([[{"subnet": "10.1.0.0/24", "rangeEnd": "10.2.0.1"}]]), "rangeEnd"),
        (json!([[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.8"}]]), "rangeStart"),
        (json!([[{"subnet": "10.1.0.0/24"}, {"subnet": "fd00::/64"}]]), "mixed"),
        (json!([[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.1.0.0/16"}]]), "overlaps"),
        (json!([[{}]]), "subnet"),
        (json!([]), "no IP ranges"),
    ] {
        let error = World::new(ranges).add("a").unwrap_err();
        assert!(error.message.contains(word), "{} does not say {word}", error.message);
    }
}

#[test]
fn files_are_those_of_the_reference_plugin() {
    let world = World::new(json!([[{"subnet": "10.1.0.0/24"}]]));
    world.add("a").unwrap();
    let read = |name: &str| std::fs::read_to_string(world.folder.path().join("net").join(name)).unwrap();
    assert_eq!(read("10.1.0.2"), "a\r\neth0");
    assert_eq!(read("last_reserved_ip.0"), "10.1.0.2");
}

#[test]
fn addresses_at_the_end_of_the_address_space_can_be_used() {
    let world = World::new(json!([[{"subnet": "255.255.255.252/30", "rangeEnd": "255.255.255.255"}]]));
    assert_eq!(world.add("a").unwrap(), ["255.255.255.254/30"]);
    assert_eq!(world.add("b").unwrap(), ["255.255.255.255/30"]);
    assert_eq!(
        world.add("c").unwrap_err().message.split(':').next().unwrap(),
        "no IP addresses available in range set"
    );
}
