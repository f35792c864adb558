//! The strategic merge patch of a status. Pure.

use k8s_openapi::api::core::v1::{Node, NodeStatus};
use serde_json::{Value, json};

/// What of the Node that the API server has decides how its status is patched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Stored {
    has_addresses: bool,
    /// Its resources `hugepages-*`.
    huge_pages: Vec<String>,
}

impl Stored {
    pub(super) fn of(node: &Node) -> Self {
        let Some(status) = &node.status else { return Self::default() };
        let names = status.capacity.iter().chain(&status.allocatable).flat_map(|list| list.keys());
        Self {
            has_addresses: status.addresses.is_some(),
            huge_pages: names.filter(|name| name.starts_with("hugepages-")).cloned().collect(),
        }
    }
}

/// What makes `status` of the stored one. What a merge would keep and is no more is null: sizes of huge pages that the machine does not have
/// (`reconcileHugePageResource`), the swap, what the runtime no longer says, and allocatable resources that are `orphaned`.
pub(super) fn patch<'a>(status: &NodeStatus, stored: &Stored, orphaned: impl Iterator<Item = &'a String>) -> Value {
    let mut patch = json!({"status": status});
    let Some(fields) = patch.get_mut("status").and_then(Value::as_object_mut) else { return patch };
    for name in ["features", "runtimeHandlers"] {
        fields.entry(name).or_insert(Value::Null);
    }
    if let Some(info) = fields.get_mut("nodeInfo").and_then(Value::as_object_mut) {
        info.entry("swap").or_insert(Value::Null);
    }
    for list in ["capacity", "allocatable"] {
        let Some(list) = fields.get_mut(list).and_then(Value::as_object_mut) else { continue };
        for gone in &stored.huge_pages {
            list.entry(gone.clone()).or_insert(Value::Null);
        }
    }
    if let Some(allocatable) = fields.get_mut("allocatable").and_then(Value::as_object_mut) {
        allocatable.extend(orphaned.map(|name| (name.clone(), Value::Null)));
    }
    // Addresses merge by their type, of which a node of two families has two of one (`fixupPatchForNodeStatusAddresses`). Where there are
    // none yet the directive would become an address.
    if stored.has_addresses
        && let Some(addresses) = fields.get_mut("addresses").and_then(Value::as_array_mut)
    {
        addresses.push(json!({"$patch": "replace"}));
    }
    patch
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the API server merges it.
    fn merged(original: Value, status: &NodeStatus) -> Value {
        let kind = schema::Registry::builtin().by_kind("v1", "Node").unwrap();
        let stored = Stored::of(&serde_json::from_value(original.clone()).unwrap());
        kind.strategic_merge(&original, &patch(status, &stored, std::iter::empty())).unwrap()
    }

    fn with_addresses(addresses: &[(&str, &str)]) -> NodeStatus {
        let list: Vec<Value> =
            addresses.iter().map(|(type_, address)| json!({"type": type_, "address": address})).collect();
        serde_json::from_value(json!({"addresses": list})).unwrap()
    }

    #[test]
    fn a_node_of_two_families_keeps_both_addresses() {
        let both = [("InternalIP", "10.0.0.1"), ("InternalIP", "fd00::1"), ("Hostname", "n1")];
        for before in [&[][..], &both, &[("InternalIP", "10.0.0.9"), ("Hostname", "n1")]] {
            let original = json!({"metadata": {"name": "n1"}, "status": with_addresses(before)});
            for now in [&both[..], &[("InternalIP", "fd00::1"), ("Hostname", "n1")]] {
                let node = merged(original.clone(), &with_addresses(now));
                assert_eq!(node["status"], json!(with_addresses(now)), "{before:?} -> {now:?}");
            }
        }
        let none = merged(json!({"status": {}}), &with_addresses(&both));
        assert_eq!(none["status"], json!(with_addresses(&both)));
    }

    #[test]
    fn what_is_no_more_is_removed_and_what_others_say_stays() {
        let original = json!({"status": {
            "capacity": {"cpu": "2", "hugepages-1Gi": "1Gi", "hugepages-2Mi": "4Mi", "example.com/token": "3"},
            "allocatable": {"cpu": "2", "hugepages-1Gi": "1Gi", "hugepages-2Mi": "4Mi", "example.com/token": "3"},
            "conditions": [{"type": "KernelDeadlock", "status": "False"}],
            "features": {"supplementalGroupsPolicy": true},
            "runtimeHandlers": [{"name": "runc"}],
            "nodeInfo": {"kernelVersion": "6.1", "swap": {"capacity": 4096}},
        }});
        let info = json!({"architecture": "", "bootID": "", "containerRuntimeVersion": "", "kernelVersion": "6.2", "kubeProxyVersion": "",
            "kubeletVersion": "", "machineID": "", "operatingSystem": "", "osImage": "", "systemUUID": ""});
        let now = json!({
            "capacity": {"cpu": "2", "hugepages-2Mi": "2Mi"},
            "allocatable": {"cpu": "2", "hugepages-2Mi": "2Mi"},
            "conditions": [{"type": "Ready", "status": "True"}],
            "nodeInfo": info,
        });
        let status = &merged(original, &serde_json::from_value(now).unwrap())["status"];
        for list in ["capacity", "allocatable"] {
            assert_eq!(status[list], json!({"cpu": "2", "hugepages-2Mi": "2Mi", "example.com/token": "3"}));
        }
        assert_eq!(status["conditions"].as_array().unwrap().len(), 2);
        assert_eq!((status.get("features"), status.get("runtimeHandlers")), (None, None));
        assert_eq!((status["nodeInfo"].get("swap"), &status["nodeInfo"]["kernelVersion"]), (None, &json!("6.2")));
    }
}
