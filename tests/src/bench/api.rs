//! Writes to the API: ConfigMaps of 1 KiB, as JSON.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::json;

/// A client for a kubeconfig, with a connection of its own.
///
/// # Errors
/// When the kubeconfig cannot be used.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    let file = Kubeconfig::read_from(kubeconfig)?;
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    config.proxy_url = None;
    Ok(Client::try_from(config)?)
}

/// Creates by so many clients at once, each with a connection of its own, for a while; answers creates a second.
///
/// # Errors
/// When a create fails.
#[allow(clippy::cast_precision_loss)] // some thousands
pub async fn creates_per_second(kubeconfig: &Path, clients: u32, time: Duration) -> Result<f64> {
    let text = "x".repeat(1024);
    let mut tasks = Vec::new();
    let mut apis = Vec::new();
    for _ in 0..clients {
        let api: Api<ConfigMap> = Api::default_namespaced(client(kubeconfig).await?);
        // The first request pays for the handshake.
        api.list(&ListParams::default().limit(1)).await?;
        apis.push(api);
    }
    let start = Instant::now();
    for (number, api) in apis.into_iter().enumerate() {
        let text = text.clone();
        tasks.push(tokio::spawn(async move {
            let mut done = 0u64;
            while start.elapsed() < time {
                let object = serde_json::from_value(json!({
                    "metadata": {"name": format!("bench-{number}-{done}"), "labels": {"bench": "api"}}, "data": {"text": text},
                }))?;
                api.create(&PostParams::default(), &object).await?;
                done += 1;
            }
            anyhow::Ok(done)
        }));
    }
    let mut total = 0;
    for task in tasks {
        total += task.await??;
    }
    let taken = start.elapsed().as_secs_f64();
    let api: Api<ConfigMap> = Api::default_namespaced(client(kubeconfig).await?);
    api.delete_collection(&DeleteParams::default(), &ListParams::default().labels("bench=api")).await?;
    Ok(total as f64 / taken)
}
