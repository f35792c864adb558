//! `agent leave`: undoes what join and run made on this machine.

use std::io;
use std::path::Path;

use anyhow::Context;
use systemd::{Manager, Role};

use crate::config::Config;

/// Removes unit, configuration and keys. Pods that run are left alone: they are the cluster's, and the cluster moves
/// them once the node is deleted.
///
/// # Errors
/// All that could not be removed, in one error.
pub async fn leave(config_dir: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(nix::unistd::geteuid().is_root(), "leaving needs root: try again with sudo");
    let (config, _) = Config::load(config_dir).context("this machine has not joined a cluster")?;
    let mut failures = Vec::new();
    if systemd::is_running()
        && let Err(error) = Manager::default().remove(Role::Agent)
    {
        failures.push(error.to_string());
    }
    let layout = &config.layout;
    for path in [layout.pki_dir(), layout.kubeconfig(), layout.agent_yaml(), layout.node_yaml(), layout.run_dir.clone()] {
        if let Err(error) = remove(&path) {
            failures.push(format!("{}: {error}", path.display()));
        }
    }
    anyhow::ensure!(failures.is_empty(), "not everything could be removed: {}", failures.join("; "));
    println!("[leave] this machine is no node any more; remove it from the cluster: kubectl delete node {}", config.node.node_name);
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
