//! Waiting until the node is Ready, with a line for each thing that changes.

use std::time::Duration;

use k8s_openapi::api::core::v1::NodeCondition;
use serde::Deserialize;
use systemd::{Manager, Role};

use super::error::JoinError;
use crate::client::watch::{Change, Collection, follow};

/// The part of a Node that is looked at.
#[derive(Debug, Clone, Deserialize)]
struct Seen {
    status: Option<SeenStatus>,
}

#[derive(Debug, Clone, Deserialize)]
struct SeenStatus {
    conditions: Option<Vec<NodeCondition>>,
}

/// How often the agent's unit is asked, while there is no Node.
const ASK: Duration = Duration::from_secs(3);

/// Waits at most `patience` for the Node `name`. `since` (seconds since 1970) is when the agent was started: an older
/// heartbeat is its predecessor's. `said` is what the agent says of itself, which blocks.
///
/// # Errors
/// [`JoinError::NotReady`] with what the node said last.
pub async fn wait(
    client: kube::Client,
    name: &str,
    since: i64,
    patience: Duration,
    tell: &(dyn Fn(&str) + Sync),
    said: impl Fn() -> Option<String> + Clone + Send + 'static,
) -> Result<(), JoinError> {
    let collection = Collection::all("/api/v1/nodes").fields(&format!("metadata.name={name}"));
    let mut changes = follow::<Seen>(client, collection);
    let mut last = "it is not registered".to_owned();
    let mut is_registered = false;
    let waiting = async {
        loop {
            // Cancel-safe: receiving is.
            let news = match tokio::time::timeout(ASK, changes.recv()).await {
                Ok(None) => return,
                Ok(Some(change)) => node(change).and_then(|node| ready(node, since)),
                Err(_) => None,
            };
            let (line, message) = match news {
                Some(ready) if ready.status == "True" => return,
                Some(ready) => {
                    is_registered = true;
                    let message = ready.message.or(ready.reason).unwrap_or_default();
                    (format!("node {name} is registered, not ready yet: {message}"), message)
                }
                None if is_registered => continue,
                None => {
                    let text = tokio::task::spawn_blocking(said.clone()).await.ok().flatten();
                    let Some(text) = text.and_then(|text| trouble(name, &text)) else { continue };
                    (format!("node {name}: {text}"), text)
                }
            };
            if message != last {
                tell(&line);
                last = message;
            }
        }
    };
    match tokio::time::timeout(patience, waiting).await {
        Ok(()) => Ok(()),
        Err(_) => Err(JoinError::NotReady { name: name.to_owned(), seconds: patience.as_secs(), message: last }),
    }
}

/// What the agent of this machine's unit says of itself. Blocks.
#[must_use]
pub fn unit() -> Option<String> {
    Manager::default().status_text(Role::Agent)
}

fn node(change: Change<Seen>) -> Option<Seen> {
    match change {
        Change::Replaced(nodes) => nodes.into_iter().next(),
        Change::Applied(node) => Some(node),
        Change::Deleted(_) => None,
    }
}

/// What an agent says of itself, unless that is only which node it is.
fn trouble(name: &str, said: &str) -> Option<String> {
    let own = format!("node {name}");
    let rest = said.strip_prefix(&own).map_or(said, |rest| rest.trim_start_matches(':').trim_start());
    Some(rest.to_owned()).filter(|text| !text.is_empty())
}

fn ready(node: Seen, since: i64) -> Option<NodeCondition> {
    let ready = node.status?.conditions?.into_iter().find(|c| c.type_ == "Ready")?;
    let fresh = ready.last_heartbeat_time.as_ref().is_some_and(|t| t.0.as_second() >= since);
    fresh.then_some(ready)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::client::testing::answered;

    #[tokio::test(start_paused = true)]
    async fn why_a_node_is_not_registered_is_told() {
        let empty = r#"{"metadata":{"resourceVersion":"1"},"items":[]}"#;
        let client = || {
            answered(|asked| {
                let watches = asked.uri.query().is_some_and(|query| query.contains("watch="));
                (!watches).then(|| (200, empty.to_owned()))
            })
        };
        let told = Mutex::new(Vec::new());
        let tell = |line: &str| told.lock().unwrap().push(line.to_owned());
        let patience = Duration::from_secs(30);
        for (said, message) in [
            (None, "it is not registered"),
            (Some("node n1"), "it is not registered"),
            (Some("node n1: not registered: forbidden"), "not registered: forbidden"),
            (Some("cgroups: no such file"), "cgroups: no such file"),
        ] {
            let ended = wait(client(), "n1", 0, patience, &tell, move || said.map(str::to_owned)).await;
            let Err(JoinError::NotReady { message: last, .. }) = ended else { panic!("{ended:?}") };
            assert_eq!(last, message);
        }
        assert_eq!(*told.lock().unwrap(), ["node n1: not registered: forbidden", "node n1: cgroups: no such file"]);
    }
}
