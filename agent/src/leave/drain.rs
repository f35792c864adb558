//! Pods move to other nodes before this one goes: cordon, then evictions, which keep to PodDisruptionBudgets, as `kubectl drain` does it.
//!
//! What is still here is what a list of this node's pods has: a node may not get a pod by its name that is not its own any more
//! (plugin/pkg/auth/authorizer/node).

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{LeaveOptions, say};
use crate::client::api_code;

/// How often is looked whether pods are gone, and whether a budget allows an eviction now.
const PAUSE: Duration = Duration::from_secs(2);

/// What happens with a pod when its node leaves.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// A controller makes another elsewhere.
    Moves,
    /// It is this node's own (DaemonSets, static pods), or has ended.
    Stays,
    /// Nothing brings it back.
    Lost,
}

/// What came of asking for an eviction.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// The pod ends, or has ended.
    Going,
    /// Its budget has nothing left now.
    Held,
}

/// Pods of this node, by UID.
type Pods = BTreeMap<String, Pod>;

fn fate(pod: &Pod) -> Fate {
    let mirror = pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key("kubernetes.io/config.mirror"));
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let owner = pod.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    match owner {
        _ if mirror || api::pod::is_terminal_phase(phase) => Fate::Stays,
        Some(owner) if owner.kind == "DaemonSet" => Fate::Stays,
        Some(_) => Fate::Moves,
        None => Fate::Lost,
    }
}

/// Moves all pods away. By force: all that can be moved, and those are ended that nothing brings back.
///
/// # Errors
/// Pods that do not go in time; and unless by force a pod that has no controller, or cannot be evicted.
pub(super) async fn drain(client: &kube::Client, node: &str, options: &LeaveOptions) -> anyhow::Result<()> {
    let found = present(client, node).await?;
    let lost: Vec<_> = found.values().filter(|pod| fate(pod) == Fate::Lost).map(title).collect();
    ensure!(options.force || lost.is_empty(), "no controller would make these pods anew: {}", lost.join(", "));
    let is_ours = match cordon(client, node).await {
        Err(error) if options.force => {
            say(&format!("going on: {error:#}"));
            false
        }
        other => other?,
    };
    let goes = |pod: &Pod| match fate(pod) {
        Fate::Moves => true,
        Fate::Lost => options.force,
        Fate::Stays => false,
    };
    let leaving: Pods = found.into_iter().filter(|(_, pod)| goes(pod)).collect();
    if leaving.is_empty() {
        return Ok(());
    }
    say(&format!("node {node} is cordoned, {} pods are to go", leaving.len()));
    let moved = move_away(client, node, options, leaving).await;
    if moved.is_err() && is_ours && !options.force {
        // It stays a node, and is to get pods again.
        match mark(client, node, false).await {
            Ok(()) => say(&format!("node {node} is uncordoned again")),
            Err(error) => say(&format!("node {node} stays cordoned (kubectl uncordon {node}): {error:#}")),
        }
    }
    moved
}

/// Asks for the eviction of each until it is gone.
async fn move_away(client: &kube::Client, node: &str, options: &LeaveOptions, mut leaving: Pods) -> anyhow::Result<()> {
    let until = Instant::now() + options.patience();
    while !leaving.is_empty() {
        if Instant::now() > until {
            let names: Vec<_> = leaving.values().map(title).collect();
            bail!("these pods did not go within {} s: {}", options.patience().as_secs(), names.join(", "));
        }
        let mut staying = Pods::new();
        for (uid, pod) in leaving {
            match ask(client, node, &uid, &pod).await {
                Ok(Asked::Held) if options.force => {
                    say(&format!("pod {} ends here: a disruption budget does not let it go now", title(&pod)));
                }
                Err(error) if options.force => say(&format!("pod {} ends here: {error:#}", title(&pod))),
                asked => {
                    asked?;
                    staying.insert(uid, pod);
                }
            }
        }
        if staying.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
        leaving = still_here(present(client, node).await?, &staying);
    }
    Ok(())
}

/// What is left of `awaited`, as it is now.
fn still_here(mut now: Pods, awaited: &Pods) -> Pods {
    now.retain(|uid, _| awaited.contains_key(uid));
    for pod in awaited.iter().filter(|(uid, _)| !now.contains_key(*uid)).map(|(_, pod)| pod) {
        say(&format!("pod {} is gone", title(pod)));
    }
    now
}

/// The pods of this node.
async fn present(client: &kube::Client, node: &str) -> anyhow::Result<Pods> {
    let pods: Api<Pod> = Api::all(client.clone());
    let params = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let found = pods.list(&params).await.context("list this node's pods")?.items;
    Ok(found.into_iter().map(|pod| (pod.metadata.uid.clone().unwrap_or_default(), pod)).collect())
}

/// Answers whether it was not cordoned before.
async fn cordon(client: &kube::Client, node: &str) -> anyhow::Result<bool> {
    let nodes: Api<Node> = Api::all(client.clone());
    let found = nodes.get_opt(node).await.context("look up the node")?;
    // Where there is none, somebody has deleted it already.
    let is_open = found.is_some_and(|node| node.spec.is_none_or(|spec| spec.unschedulable != Some(true)));
    if is_open {
        mark(client, node, true).await?;
    }
    Ok(is_open)
}

async fn mark(client: &kube::Client, node: &str, unschedulable: bool) -> anyhow::Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let patch = Patch::Strategic(json!({"spec": {"unschedulable": unschedulable}}));
    match nodes.patch(node, &PatchParams::default(), &patch).await {
        Err(error) if api_code(&error) == Some(404) => Ok(()),
        other => other.map(drop).with_context(|| format!("mark the node as unschedulable: {unschedulable}")),
    }
}

/// Asks for the eviction of this very pod, where it is not ending yet.
async fn ask(client: &kube::Client, node: &str, uid: &str, pod: &Pod) -> anyhow::Result<Asked> {
    if pod.metadata.deletion_timestamp.is_some() {
        return Ok(Asked::Going);
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    // Not a namesake that was made since. `Api::evict` has another name for the field.
    let eviction = json!({
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": namespace},
        "deleteOptions": {"preconditions": {"uid": uid}},
    });
    let asked = pods.create_subresource::<_, Value>("eviction", name, &PostParams::default(), &eviction).await;
    let Err(error) = asked else { return Ok(Asked::Going) };
    match api_code(&error) {
        Some(404) => Ok(Asked::Going),
        Some(429) => Ok(Asked::Held),
        // Who is gone meanwhile and has a namesake elsewhere is not this node's to evict.
        _ if !present(client, node).await?.contains_key(uid) => Ok(Asked::Going),
        _ => Err(error).with_context(|| format!("evict {}", title(pod))),
    }
}

/// Deletes the Node.
///
/// # Errors
/// What the API server said.
pub(super) async fn delete_node(client: &kube::Client, node: &str) -> anyhow::Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    match nodes.delete(node, &DeleteParams::default()).await {
        Err(error) if api_code(&error) == Some(404) => {}
        other => drop(other.with_context(|| format!("delete node {node}"))?),
    }
    say(&format!("node {node} is deleted"));
    Ok(())
}

fn title(pod: &Pod) -> String {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{}/{}", part(&pod.metadata.namespace), part(&pod.metadata.name))
}

#[cfg(test)]
mod tests;
