//! A containerd for one host: root, state, socket and configuration of its own; the machine's containerd is not touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::host::inside;
use super::layout::{HostPaths, Layout};
use super::process::{Process, spawn};
use super::registry;
use super::shell::{run, wait_for};

/// containerd in its folder, or the one in PATH.
fn program(tools: Option<&Path>) -> PathBuf {
    tools.map_or_else(|| "containerd".into(), |dir| dir.join("containerd"))
}

/// `1.6.20`, `2.1.9`, ….
fn version(tools: Option<&Path>) -> Result<String> {
    let said = run(&program(tools).to_string_lossy(), ["--version"])
        .context("containerd is needed: apt-get install containerd")?;
    let version = said.split_whitespace().nth(2).context("containerd --version says no version")?;
    Ok(version.trim_start_matches('v').split(['~', '+', '-']).next().unwrap_or(version).to_owned())
}

/// Starts the host's containerd, from the folder `tools` where one is given, and waits until it answers.
///
/// # Errors
/// When it does not come up; its log says why.
pub fn start(layout: &Layout, host: &HostPaths, tools: Option<&Path>) -> Result<Process> {
    let dir = host.dir();
    fs::create_dir_all(&dir)?;
    fs::create_dir_all(host.run())?;
    fs::create_dir_all(host.cni_conf())?;
    fs::create_dir_all(host.cni_bin())?;
    let config = dir.join("containerd.toml");
    let hosts = registry::hosts(layout);
    let hosts = hosts.exists().then_some(hosts.as_path());
    fs::write(&config, config_text(host, &version(tools)?, hosts))
        .with_context(|| format!("write {}", config.display()))?;
    let name = format!("containerd-{}", host.name);
    let log = layout.log(&name);
    let mut command = inside(host, &program(tools));
    command.arg("--config").arg(&config);
    if let Some(tools) = tools {
        // The shim is looked up in PATH.
        let mut path = tools.as_os_str().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        command.env("PATH", path);
    }
    let process = spawn(&name, &mut command, &log)?;
    wait_for(&format!("{name} (its log: {})", log.display()), Duration::from_secs(60), || {
        anyhow::ensure!(process.alive(), "{name} ended");
        call(host, async |client| Ok(client.version(cri::v1::VersionRequest::default()).await.map(drop)?))
    })?;
    Ok(process)
}

/// Talks to a host's containerd.
///
/// # Errors
/// What the talk ends with.
pub fn call<T>(host: &HostPaths, talk: impl AsyncFnOnce(cri::Client) -> Result<T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { talk(cri::Client::new(&host.endpoint())?).await })
}

/// `hosts` is the folder of mirrors.
fn config_text(host: &HostPaths, version: &str, hosts: Option<&Path>) -> String {
    let (root, state) = (host.dir().join("containerd"), host.run().join("containerd"));
    let (socket, bin, conf) = (host.containerd_socket(), host.cni_bin(), host.cni_conf());
    let common = |format: u8| {
        format!(
            "version = {format}\nroot = {root:?}\nstate = {state:?}\ndisabled_plugins = [\"io.containerd.internal.v1.opt\"]\n\
             [grpc]\n  address = {socket:?}\n  max_recv_message_size = 16777216\n  max_send_message_size = 16777216\n"
        )
    };
    let mirrors = |plugin: &str| {
        hosts.map(|dir| format!("[plugins.\"{plugin}\".registry]\n  config_path = {dir:?}\n")).unwrap_or_default()
    };
    // Machines without CAP_SYS_RESOURCE cannot lower oom_score_adj, and every sandbox would fail. Pods' network namespaces are
    // pinned below `state`, where they are found and removed, rather than among the machine's own in /run/netns.
    if version.starts_with("1.") {
        return format!(
            "{}[plugins.\"io.containerd.grpc.v1.cri\"]\n  restrict_oom_score_adj = true\n  netns_mounts_under_state_dir = true\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\n  bin_dir = {bin:?}\n  conf_dir = {conf:?}\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n{}",
            common(2),
            mirrors("io.containerd.grpc.v1.cri")
        );
    }
    // Its listener of NRI would be the machine's own, /run/nri, whichever containerd it is.
    format!(
        "{}[plugins.\"io.containerd.nri.v1.nri\"]\n  disable = true\n\
         [plugins.\"io.containerd.cri.v1.runtime\"]\n  restrict_oom_score_adj = true\n  netns_mounts_under_state_dir = true\n\
         [plugins.\"io.containerd.cri.v1.runtime\".cni]\n  bin_dir = {bin:?}\n  conf_dir = {conf:?}\n\
         [plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n{}",
        common(3),
        mirrors("io.containerd.cri.v1.images")
    )
}
