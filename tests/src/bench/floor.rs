//! The floor: what the runtime itself needs for the pods that the other benches make.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use cri::{Client, v1};
use futures::StreamExt;
use futures::stream;

use super::Times;
use crate::harness::images::HELLO;
use crate::harness::layout::HostPaths;

/// Times of bare pods.
#[derive(Debug, Default)]
pub struct Floor {
    pub up: Times,
    pub down: Times,
    pub burst_up: Duration,
    pub burst_down: Duration,
}

/// How many callers share a burst, as the yardstick's floor has it.
const CALLERS: usize = 8;

struct Bare {
    sandbox: String,
}

/// Runs `rounds` pods one by one and then `burst` at once.
///
/// # Errors
/// When a call fails.
pub async fn measure(client: &Client, host: &HostPaths, rounds: u32, burst: u32) -> Result<Floor> {
    let mut floor = Floor::default();
    for number in 0..rounds {
        let start = Instant::now();
        let pod = Box::pin(up(client, host, number)).await?;
        floor.up.add(start.elapsed());
        let start = Instant::now();
        down(client, &pod).await?;
        floor.down.add(start.elapsed());
    }
    let start = Instant::now();
    let pods: Vec<Result<Bare>> =
        stream::iter(0..burst).map(|n| up(client, host, 10_000 + n)).buffer_unordered(CALLERS).collect().await;
    let pods = pods.into_iter().collect::<Result<Vec<_>>>()?;
    floor.burst_up = start.elapsed();
    let start = Instant::now();
    let gone: Vec<Result<()>> = stream::iter(&pods).map(|p| down(client, p)).buffer_unordered(CALLERS).collect().await;
    gone.into_iter().collect::<Result<()>>()?;
    floor.burst_down = start.elapsed();
    Ok(floor)
}

async fn up(client: &Client, host: &HostPaths, number: u32) -> Result<Bare> {
    let name = format!("floor-{number}");
    let sandbox_config = v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            uid: name.clone(),
            name: name.clone(),
            namespace: "floor".into(),
            attempt: 0,
        }),
        hostname: name.clone(),
        log_directory: format!("{}/floor-logs/{name}", host.dir().display()),
        linux: Some(v1::LinuxPodSandboxConfig {
            cgroup_parent: format!("{}/floor", host.cgroup_root()),
            security_context: Some(v1::LinuxSandboxSecurityContext::default()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let request = v1::RunPodSandboxRequest { config: Some(sandbox_config.clone()), runtime_handler: String::new() };
    let sandbox = client.run_pod_sandbox(request).await?.pod_sandbox_id;
    let config = v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: "c".into(), attempt: 0 }),
        image: Some(v1::ImageSpec { image: HELLO.into(), ..Default::default() }),
        args: vec!["sleep".into(), "100000".into()],
        log_path: "c.log".into(),
        linux: Some(v1::LinuxContainerConfig::default()),
        ..Default::default()
    };
    let request = v1::CreateContainerRequest {
        pod_sandbox_id: sandbox.clone(),
        config: Some(config),
        sandbox_config: Some(sandbox_config),
    };
    let container_id = Box::pin(client.create_container(request)).await.context("floor")?.container_id;
    client.start_container(v1::StartContainerRequest { container_id }).await?;
    Ok(Bare { sandbox })
}

async fn down(client: &Client, pod: &Bare) -> Result<()> {
    let id = || pod.sandbox.clone();
    client.stop_pod_sandbox(v1::StopPodSandboxRequest { pod_sandbox_id: id() }).await?;
    client.remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id: id() }).await?;
    Ok(())
}
