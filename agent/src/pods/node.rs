//! Labels and taints of this node, as admission asks for them. Only they are decoded.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Taint;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::client::watch::{Change, Collection, Trimmed, encode, follow_map};

/// What admission compares pods with.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OwnNode {
    /// `metadata.uid`; `None` while there is no Node.
    pub uid: Option<String>,
    /// The Node's labels.
    pub labels: BTreeMap<String, String>,
    /// `spec.taints`
    pub taints: Vec<Taint>,
}

/// `None` until the API server was asked.
pub type Receiver = watch::Receiver<Option<Arc<OwnNode>>>;

#[derive(Debug, Clone, Deserialize)]
struct Seen {
    metadata: Meta,
    #[serde(default)]
    spec: Spec,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    #[serde(default)]
    resource_version: String,
    uid: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Spec {
    taints: Option<Vec<Taint>>,
}

impl Trimmed for Seen {
    fn resource_version(&self) -> &str {
        &self.metadata.resource_version
    }
}

fn trim(seen: Seen) -> OwnNode {
    OwnNode {
        uid: seen.metadata.uid,
        labels: seen.metadata.labels.unwrap_or_default(),
        taints: seen.spec.taints.unwrap_or_default(),
    }
}

/// Follows the Node until the task is ended. While there is none, the node is what it registers with (`initial`).
#[must_use]
pub fn follow(client: kube::Client, name: &str, initial: &BTreeMap<String, String>) -> (Receiver, JoinHandle<()>) {
    let query = format!("fieldSelector={}", encode(&format!("metadata.name={name}")));
    let mut changes = follow_map(client, Collection { path: "/api/v1/nodes".to_owned(), query }, trim);
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
