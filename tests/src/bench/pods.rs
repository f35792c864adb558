//! Pods through the API: what a user waits for.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client};
use serde_json::json;

use super::Times;
use crate::harness::images::HELLO;

/// No pod of a bench takes this long.
const PATIENCE: Duration = Duration::from_secs(300);

/// What the pods are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Plain,
    /// A readiness probe by HTTP each second.
    Probed,
}

fn pod(name: &str, node: &str, shape: Shape) -> Result<Pod> {
    let container = match shape {
        Shape::Plain => json!({"name": "c", "image": HELLO, "imagePullPolicy": "Never"}),
        Shape::Probed => json!({"name": "c", "image": HELLO, "imagePullPolicy": "Never",
            "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1}}),
    };
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"bench": "pods"}},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 1, "containers": [container],
            "automountServiceAccountToken": false, "enableServiceLinks": false},
    }))?)
}

/// create -> Ready and delete -> gone, one pod after the other.
///
/// # Errors
/// When a pod does not get there.
pub async fn one_by_one(client: &Client, node: &str, shape: Shape, rounds: u32) -> Result<(Times, Times)> {
    let api: Api<Pod> = Api::default_namespaced(client.clone());
    let (mut ready, mut gone) = (Times::default(), Times::default());
    for round in 0..rounds {
        let name = format!("bench-{}-{round}", if shape == Shape::Plain { "plain" } else { "probed" });
        let names = BTreeSet::from([name.clone()]);
        let start = Instant::now();
        let made = api.create(&PostParams::default(), &pod(&name, node, shape)?).await?;
        until(&api, &made.metadata.resource_version.unwrap_or_default(), names.clone(), is_ready).await?;
        ready.add(start.elapsed());
        let version = version(&api).await?;
        let start = Instant::now();
        api.delete(&name, &DeleteParams::default()).await?;
        until(&api, &version, names, |_, deleted| deleted).await?;
        gone.add(start.elapsed());
    }
    Ok((ready, gone))
}

/// Many at once, until all are Ready. They stay: see [`remove_all`].
///
/// # Errors
/// When one does not get there.
pub async fn burst(client: &Client, node: &str, count: u32) -> Result<Duration> {
    let api: Api<Pod> = Api::default_namespaced(client.clone());
    let version = version(&api).await?;
    let start = Instant::now();
    let names: BTreeSet<String> = (0..count).map(|n| format!("burst-{n}")).collect();
    futures::stream::iter(&names)
        .map(|name| async {
            api.create(&PostParams::default(), &pod(name, node, Shape::Plain)?).await.context("create")
        })
        .buffer_unordered(16)
        .try_collect::<Vec<_>>()
        .await?;
    until(&api, &version, names, is_ready).await?;
    Ok(start.elapsed())
}

/// Deletes all pods of the benches at once and waits until they are gone.
///
/// # Errors
/// When one stays.
pub async fn remove_all(client: &Client) -> Result<Duration> {
    let api: Api<Pod> = Api::default_namespaced(client.clone());
    let all = api.list(&ListParams::default().labels("bench=pods")).await?;
    let names = all.items.iter().filter_map(|p| p.metadata.name.clone()).collect();
    let start = Instant::now();
    api.delete_collection(&DeleteParams::default(), &ListParams::default().labels("bench=pods")).await?;
    until(&api, &all.metadata.resource_version.unwrap_or_default(), names, |_, deleted| deleted).await?;
    Ok(start.elapsed())
}

async fn version(api: &Api<Pod>) -> Result<String> {
    Ok(api.list(&ListParams::default().limit(1)).await?.metadata.resource_version.unwrap_or_default())
}

fn is_ready(pod: &Pod, deleted: bool) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    !deleted && conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Watches until each of the names has met the condition.
async fn until(api: &Api<Pod>, from: &str, mut names: BTreeSet<String>, met: fn(&Pod, bool) -> bool) -> Result<()> {
    let watching = async {
        let mut from = from.to_owned();
        while !names.is_empty() {
            let mut events = pin!(api.watch(&WatchParams::default().timeout(290), &from).await?);
            while let Some(event) = events.try_next().await? {
                let (pod, deleted) = match event {
                    WatchEvent::Added(pod) | WatchEvent::Modified(pod) => (pod, false),
                    WatchEvent::Deleted(pod) => (pod, true),
                    WatchEvent::Bookmark(_) => continue,
                    WatchEvent::Error(status) => bail!("watch: {status}"),
                };
                from = pod.metadata.resource_version.clone().unwrap_or_default();
                if met(&pod, deleted) {
                    names.remove(pod.metadata.name.as_deref().unwrap_or_default());
                }
                if names.is_empty() {
                    break;
                }
            }
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, watching).await.with_context(|| format!("waited {} s", PATIENCE.as_secs()))?
}
