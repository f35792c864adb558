//! Pods move to other nodes before this one goes: cordon, then evictions, which keep to PodDisruptionBudgets, as `kubectl drain` does it.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams};
use serde_json::json;

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

/// Moves all pods away.
///
/// # Errors
/// A pod that has no controller, or does not go in time.
pub(super) async fn drain(client: &kube::Client, node: &str, options: &LeaveOptions) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::all(client.clone());
    let params = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let found = pods.list(&params).await.context("list this node's pods")?.items;
    let lost: Vec<_> = found.iter().filter(|pod| fate(pod) == Fate::Lost).map(title).collect();
    ensure!(lost.is_empty(), "no controller would make these pods anew: {}", lost.join(", "));
    cordon(client, node).await?;
    let mut leaving: Vec<_> = found.into_iter().filter(|pod| fate(pod) == Fate::Moves).collect();
    if leaving.is_empty() {
        return Ok(());
    }
    say(&format!("node {node} is cordoned, {} pods move away", leaving.len()));
    let until = Instant::now() + options.patience();
    while !leaving.is_empty() {
        if Instant::now() > until {
            let names: Vec<_> = leaving.iter().map(title).collect();
            bail!("these pods did not go within {} s: {}", options.drain_timeout, names.join(", "));
        }
        let mut staying = Vec::new();
        for pod in leaving {
            if evict(client, &pod).await? {
                say(&format!("pod {} is gone", title(&pod)));
            } else {
                staying.push(pod);
            }
        }
        leaving = staying;
        if !leaving.is_empty() {
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

async fn cordon(client: &kube::Client, node: &str) -> anyhow::Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let patch = Patch::Strategic(json!({"spec": {"unschedulable": true}}));
    match nodes.patch(node, &PatchParams::default(), &patch).await {
        // Somebody has deleted it already.
        Err(error) if api_code(&error) == Some(404) => Ok(()),
        other => other.map(drop).context("mark the node as unschedulable"),
    }
}

/// Whether the pod is gone; asks for its eviction where that is still to be done.
async fn evict(client: &kube::Client, pod: &Pod) -> anyhow::Result<bool> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    match pods.get_opt(name).await.with_context(|| title(pod))? {
        None => return Ok(true),
        // A namesake that was made since.
        Some(now) if now.metadata.uid != pod.metadata.uid => return Ok(true),
        Some(now) if now.metadata.deletion_timestamp.is_some() => return Ok(false),
        Some(_) => {}
    }
    match pods.evict(name, &EvictParams::default()).await {
        Ok(_) => Ok(false),
        Err(error) => match api_code(&error) {
            Some(404) => Ok(true),
            // Its budget has nothing left now.
            Some(429) => Ok(false),
            _ => Err(error).with_context(|| format!("evict {}", title(pod))),
        },
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
mod tests {
    use super::*;

    fn pod(value: serde_json::Value) -> Pod {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_pods_with_a_controller_elsewhere_move() {
        let owned = |kind: &str| json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": kind, "name": "o", "uid": "u", "controller": true}]}});
        assert_eq!(fate(&pod(owned("ReplicaSet"))), Fate::Moves);
        assert_eq!(fate(&pod(owned("DaemonSet"))), Fate::Stays);
        assert_eq!(fate(&pod(json!({}))), Fate::Lost);
        assert_eq!(fate(&pod(json!({"status": {"phase": "Succeeded"}}))), Fate::Stays);
        assert_eq!(fate(&pod(json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}}))), Fate::Stays);
    }
}
