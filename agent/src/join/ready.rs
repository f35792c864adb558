//! Waiting until the node is Ready, with a line for each thing that changes.

use std::time::Duration;

use k8s_openapi::api::core::v1::NodeCondition;
use serde::Deserialize;

use super::error::JoinError;
use crate::client::watch::{Change, Collection, Trimmed, encode, follow};

/// The part of a Node that is looked at.
#[derive(Debug, Clone, Deserialize)]
struct Seen {
    metadata: SeenMeta,
    status: Option<SeenStatus>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SeenMeta {
    #[serde(default)]
    resource_version: String,
}

#[derive(Debug, Clone, Deserialize)]
struct SeenStatus {
    conditions: Option<Vec<NodeCondition>>,
}

impl Trimmed for Seen {
    fn resource_version(&self) -> &str {
        &self.metadata.resource_version
    }
}

/// Waits at most `patience` for the Node `name`. `since` (seconds since 1970) is when the agent was started: an older
/// heartbeat is its predecessor's.
///
/// # Errors
/// [`JoinError::NotReady`] with what the node said last.
pub async fn wait(
    client: kube::Client,
    name: &str,
    since: i64,
    patience: Duration,
    tell: &(dyn Fn(&str) + Sync),
) -> Result<(), JoinError> {
    let collection =
        Collection { path: "/api/v1/nodes".into(), query: format!("fieldSelector=metadata.name%3D{}", encode(name)) };
    let mut changes = follow::<Seen>(client, collection);
    let mut last = "it is not registered".to_owned();
    let waiting = async {
        while let Some(change) = changes.recv().await {
            let node = match change {
                Change::Replaced(nodes) => nodes.into_iter().next(),
                Change::Applied(node) => Some(node),
                Change::Deleted(_) => None,
            };
            let Some(ready) = node.and_then(|node| ready(node, since)) else { continue };
            if ready.status == "True" {
                return;
            }
            let message = ready.message.or(ready.reason).unwrap_or_default();
            if message != last {
                tell(&format!("node {name} is registered, not ready yet: {message}"));
                last = message;
            }
        }
    };
    match tokio::time::timeout(patience, waiting).await {
        Ok(()) => Ok(()),
        Err(_) => Err(JoinError::NotReady { name: name.to_owned(), seconds: patience.as_secs(), message: last }),
    }
}

fn ready(node: Seen, since: i64) -> Option<NodeCondition> {
    let ready = node.status?.conditions?.into_iter().find(|c| c.type_ == "Ready")?;
    let fresh = ready.last_heartbeat_time.as_ref().is_some_and(|t| t.0.as_second() >= since);
    fresh.then_some(ready)
}
