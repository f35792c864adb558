//! This node's own Node, followed once for all who ask: admission (labels, taints and extended resources), the pod network (pod networks
//! and addresses), and the status, which is sent again when somebody doubts it. Only that is decoded.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use api::resources::{self, ResourceList};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::client::watch::{Change, Collection, follow_map};

/// What matters of a Node to itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OwnNode {
    /// `metadata.uid`; `None` while there is no Node.
    pub uid: Option<String>,
    /// Whether it is being deleted, and something holds it up.
    pub is_being_deleted: bool,
    /// The Node's labels.
    pub labels: BTreeMap<String, String>,
    /// `spec.taints`
    pub taints: Vec<Taint>,
    /// `spec.unschedulable`: it is cordoned.
    pub unschedulable: bool,
    /// Its place in the pod network.
    pub place: Place,
    /// The extended resources of `status.capacity`: somebody advertises them for this node.
    pub extended: ResourceList,
    /// Extended resources of `status.allocatable` of which there is no capacity (any more).
    pub orphaned: Vec<String>,
    /// The `resourceVersion` in which the node lifecycle controller said that nothing is known of the node.
    pub doubted: Option<String>,
}

/// `None` until the API server was asked.
pub type Receiver = watch::Receiver<Option<Arc<OwnNode>>>;

/// Where a node is in the pod network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// `spec.podCIDRs`, or `spec.podCIDR` where there are none.
    pub pod_cidrs: Vec<IpNet>,
    /// The addresses of type `InternalIP`.
    pub internal_ips: Vec<IpAddr>,
}

impl Place {
    /// As the fields of a Node say.
    #[must_use]
    pub fn new(networks: PodNetworks, addresses: Option<Vec<Address>>) -> Self {
        let listed = networks.pod_cidrs.filter(|cidrs| !cidrs.is_empty());
        let cidrs = listed.unwrap_or_else(|| networks.pod_cidr.into_iter().collect());
        let internal = addresses.unwrap_or_default().into_iter().filter(|address| address.type_ == "InternalIP");
        Self {
            pod_cidrs: cidrs.iter().filter_map(|cidr| cidr.parse().ok()).collect(),
            internal_ips: internal.filter_map(|address| address.address.parse().ok()).collect(),
        }
    }
}

/// The pod networks of a `NodeSpec`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct PodNetworks {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Option<Vec<String>>,
}

/// One of `status.addresses`.
#[derive(Debug, Clone, Deserialize)]
pub struct Address {
    #[serde(rename = "type")]
    type_: String,
    address: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Seen {
    metadata: Meta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    #[serde(default)]
    resource_version: String,
    uid: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    deletion_timestamp: Option<IgnoredAny>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Spec {
    taints: Option<Vec<Taint>>,
    unschedulable: Option<bool>,
    #[serde(flatten)]
    networks: PodNetworks,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Status {
    capacity: BTreeMap<String, Quantity>,
    allocatable: BTreeMap<String, IgnoredAny>,
    addresses: Option<Vec<Address>>,
    conditions: Option<Vec<Condition>>,
}

#[derive(Debug, Clone, Deserialize)]
struct Condition {
    status: String,
}

impl From<Seen> for OwnNode {
    fn from(seen: Seen) -> Self {
        let extended = |name: &String| resources::is_extended(name);
        let orphaned = seen.status.allocatable.into_keys().filter(extended);
        let orphaned = orphaned.filter(|name| !seen.status.capacity.contains_key(name)).collect();
        let advertised = resources::read(Some(&seen.status.capacity)).into_iter();
        let is_unknown = seen.status.conditions.iter().flatten().any(|condition| condition.status == "Unknown");
        Self {
            uid: seen.metadata.uid,
            is_being_deleted: seen.metadata.deletion_timestamp.is_some(),
            labels: seen.metadata.labels.unwrap_or_default(),
            taints: seen.spec.taints.unwrap_or_default(),
            unschedulable: seen.spec.unschedulable.unwrap_or_default(),
            place: Place::new(seen.spec.networks, seen.status.addresses),
            extended: advertised.filter(|(name, _)| extended(name)).collect(),
            orphaned,
            doubted: is_unknown.then_some(seen.metadata.resource_version),
        }
    }
}

/// Follows the Node until the task is ended. While there is none, the node is what it registers with (`initial`).
#[must_use]
pub fn follow(client: kube::Client, name: &str, initial: &BTreeMap<String, String>) -> (Receiver, JoinHandle<()>) {
    let collection = Collection::all("/api/v1/nodes").fields(&format!("metadata.name={name}"));
    let mut changes = follow_map(client, collection, |seen: Seen| OwnNode::from(seen));
    let initial = OwnNode { labels: initial.clone(), ..OwnNode::default() };
    let (publish, node) = watch::channel(None);
    let task = tokio::spawn(async move {
        while let Some(change) = changes.recv().await {
            let now = match change {
                Change::Replaced(all) => all.into_iter().next(),
                Change::Applied(node) => Some(node),
                Change::Deleted(_) => None,
            };
            let now = Some(Arc::new(now.unwrap_or_else(|| initial.clone())));
            publish.send_if_modified(|known| {
                let changed = *known != now;
                *known = now;
                changed
            });
        }
    });
    (node, task)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(json: &str) -> OwnNode {
        serde_json::from_str::<Seen>(json).unwrap().into()
    }

    #[test]
    fn a_node_of_which_nothing_is_known_is_doubted() {
        let with = |status: &str| {
            own(&format!(
                r#"{{"metadata":{{"resourceVersion":"7"}},"status":{{"conditions":[{{"type":"Ready","status":"{status}"}}]}}}}"#
            ))
            .doubted
        };
        assert_eq!(["True", "False", "Unknown"].map(with), [None, None, Some("7".to_owned())]);
    }

    #[test]
    fn resources_that_are_advertised_for_the_node_are_known() {
        let node = own(r#"{"metadata":{},"status":{"capacity":{"cpu":"2","example.com/token":"3"},
            "allocatable":{"cpu":"2","example.com/token":"3","example.com/gone":"1"}}}"#);
        assert_eq!(node.extended, [("example.com/token".to_owned(), "3".parse().unwrap())].into());
        assert_eq!(node.orphaned, ["example.com/gone"]);
    }

    #[test]
    fn what_others_ask_for_is_kept() {
        let node = own(
            r#"{"metadata":{"uid":"u","labels":{"a":"b"}},"spec":{"podCIDR":"10.1.2.0/24","taints":[{"key":"k","effect":"NoExecute"}],"unschedulable":true},
            "status":{"addresses":[{"type":"Hostname","address":"n"},{"type":"InternalIP","address":"192.168.0.2"}]}}"#,
        );
        assert_eq!((node.uid.as_deref(), node.labels["a"].as_str(), node.taints.len()), (Some("u"), "b", 1));
        assert!(node.unschedulable);
        let place = Place {
            pod_cidrs: vec!["10.1.2.0/24".parse().unwrap()],
            internal_ips: vec!["192.168.0.2".parse().unwrap()],
        };
        assert_eq!(node.place, place);
        assert_eq!(own(r#"{"metadata":{}}"#), OwnNode::default());
    }
}
