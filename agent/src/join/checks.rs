//! What is asked of the API server before anything is written: is the clock right, is the token good, is the name free,
//! how are nodes configured.

use std::time::Duration;

use http::{HeaderMap, Request, header};
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::Api;
use kube::client::Body;
use tokio::time::Instant;

use super::error::JoinError;
use super::options::Token;
use super::progress::Progress;
use crate::client::{Server, api_code, is_refused};
use crate::identity;

/// Certificates are backdated by five minutes (upstream's signer): a clock that is off by more makes them invalid.
const MAX_SKEW: i64 = 300;
/// How long a cluster may take to notice that a node's agent has ended: `--node-monitor-grace-period` is 50 s by default.
const NOTICED: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_secs(2);

/// Compares the clocks by the `Date` of an answer that anyone may have.
///
/// # Errors
/// [`JoinError::Skew`].
pub async fn clock(client: &kube::Client, server: &Server) -> Result<(), JoinError> {
    let api = |source| JoinError::Api { action: "answer", source };
    let request = Request::get("/version").body(Body::empty()).map_err(kube::Error::HttpError).map_err(api)?;
    let response = client.send(request).await.map_err(api)?;
    match date(response.headers()).and_then(|theirs| skew(identity::now(), theirs)) {
        Some((seconds, direction)) => Err(JoinError::Skew { server: server.clone(), seconds, direction }),
        None => Ok(()),
    }
}

fn date(headers: &HeaderMap) -> Option<i64> {
    let text = headers.get(header::DATE)?.to_str().ok()?;
    jiff::fmt::rfc2822::parse(text).ok().map(|zoned| zoned.timestamp().as_second())
}

fn skew(ours: i64, theirs: i64) -> Option<(u64, &'static str)> {
    let difference = ours.saturating_sub(theirs);
    let direction = if difference < 0 { "behind" } else { "ahead of" };
    (difference.abs() > MAX_SKEW).then_some((difference.unsigned_abs(), direction))
}

/// The document that kubeadm, or Keelson's master, keeps for nodes; `None` where the cluster has none. Being the first
/// request with the token, it also tells whether the token is good.
///
/// # Errors
/// [`JoinError::Token`], [`JoinError::Forbidden`], [`JoinError::Api`].
pub async fn kubelet_config(client: &kube::Client, token: &Token) -> Result<Option<String>, JoinError> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    match maps.get("kubelet-config").await {
        Ok(map) => Ok(map.data.and_then(|mut data| data.remove("kubelet"))),
        Err(error) if api_code(&error) == Some(404) => Ok(None),
        // A good token without the right to read it: the defaults serve.
        Err(error) if api_code(&error) == Some(403) => Ok(None),
        Err(error) => Err(refused(error, token, "read the cluster's node configuration")),
    }
}

/// The words for a request that was made with the token and failed.
pub(super) fn refused(error: kube::Error, token: &Token, action: &'static str) -> JoinError {
    let id = token.id().to_owned();
    match error {
        kube::Error::Api(status) if status.code == 401 => JoinError::Token { id },
        kube::Error::Api(status) if status.code == 403 => JoinError::Forbidden { id, action, message: status.message },
        source => JoinError::Api { action, source },
    }
}

/// Who wants a name.
#[derive(Debug, Default)]
pub struct Claimant {
    /// The machine's id (`status.nodeInfo.machineID` of its Node); empty where it has none.
    pub machine_id: String,
    /// Whether it was made the node of that name before.
    pub is_again: bool,
}

impl Claimant {
    /// Copies of a machine may have its id, too.
    fn may_be(&self, node: &Node) -> bool {
        !self.machine_id.is_empty() && machine(node) == self.machine_id
    }
}

/// Refuses a name under which another machine lives. A Node that is not Ready is a machine that is gone or was
/// reinstalled: its name may be taken over, and a machine's own at any time. Who may not look (kubeadm's bootstrappers may, others' may not) is asked
/// again with the node's own certificate.
///
/// # Errors
/// [`JoinError::Occupied`], [`JoinError::OwnNode`], [`JoinError::Api`].
pub async fn name_is_free(client: &kube::Client, name: &str, claimant: &Claimant) -> Result<(), JoinError> {
    let nodes: Api<Node> = Api::all(client.clone());
    match nodes.get(name).await {
        Ok(node) if claimant.is_again && claimant.may_be(&node) => Ok(()),
        Ok(node) if is_alive(&node) && claimant.may_be(&node) => Err(JoinError::OwnNode { name: name.to_owned() }),
        Ok(node) if is_alive(&node) => Err(JoinError::Occupied { name: name.to_owned(), machine: machine(&node) }),
        Ok(_) => Ok(()),
        Err(error) if is_refused(&error) => Ok(()),
        Err(source) => Err(JoinError::Api { action: "look up the node", source }),
    }
}

/// The same, once the cluster has noticed that what made this machine a node has ended.
///
/// # Errors
/// As [`name_is_free`].
pub async fn name_gets_free(
    client: &kube::Client,
    name: &str,
    claimant: &Claimant,
    progress: Progress,
) -> Result<(), JoinError> {
    let begun = Instant::now();
    let mut is_told = false;
    loop {
        match name_is_free(client, name, claimant).await {
            Err(JoinError::OwnNode { .. }) if begun.elapsed() < NOTICED => {}
            answer => return answer,
        }
        if !std::mem::replace(&mut is_told, true) {
            progress
                .say(&format!("node {name} is this machine's own, by another agent: waiting until it is not Ready"));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn is_alive(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

fn machine(node: &Node) -> String {
    let info = node.status.as_ref().and_then(|s| s.node_info.as_ref());
    info.map(|i| i.machine_id.clone()).filter(|id| !id.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{NodeCondition, NodeStatus};

    #[test]
    fn small_skew_is_fine_and_large_has_a_direction() {
        assert_eq!(skew(1000, 1000), None);
        assert_eq!(skew(1000, 1299), None);
        assert_eq!(skew(1000, 1400), Some((400, "behind")));
        assert_eq!(skew(1400, 1000), Some((400, "ahead of")));
    }

    #[test]
    fn dates_of_http_are_read() {
        let mut headers = HeaderMap::new();
        headers.insert(header::DATE, "Sun, 06 Nov 1994 08:49:37 GMT".parse().unwrap());
        assert_eq!(date(&headers), Some(784_111_777));
    }

    #[test]
    fn only_ready_nodes_are_alive() {
        let node = |status: &str| Node {
            status: Some(NodeStatus {
                conditions: Some(vec![NodeCondition {
                    type_: "Ready".into(),
                    status: status.into(),
                    ..NodeCondition::default()
                }]),
                ..NodeStatus::default()
            }),
            ..Node::default()
        };
        assert!(is_alive(&node("True")));
        assert!(!is_alive(&node("Unknown")));
        assert!(!is_alive(&Node::default()));
    }
}
