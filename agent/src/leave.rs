//! `agent leave`: undoes what join and run made on this machine.

use std::io;
use std::path::Path;

use anyhow::Context;
use systemd::{Manager, Role};

use crate::client::watch::describe;
use crate::config::Config;
use crate::network;

/// Removes unit, routes, nft table, conflist, configuration and keys. Pods that run are left alone: they are the
/// cluster's, and the cluster moves them once the node is deleted.
///
/// # Errors
/// All that could not be removed, in one error.
pub async fn leave(config_dir: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(nix::unistd::geteuid().is_root(), "leaving needs root: try again with sudo");
    let (config, _) = Config::load(config_dir).context("this machine has not joined a cluster")?;
    let mut failures = Vec::new();
    // First, or it would make anew what is removed.
    if systemd::is_running()
        && let Err(error) = Manager::default().remove(Role::Agent)
    {
        failures.push(describe(&error));
    }
    failures.extend(network::remove(&config).await);
    let layout = &config.layout;
    // The keys go last: while they are there, leaving can be tried again.
    let run_dir = layout.run_dir.clone();
    for path in [run_dir, layout.kubeconfig(), layout.agent_yaml(), layout.pki_dir(), layout.node_yaml()] {
        if let Err(error) = remove(&path) {
            failures.push(format!("{}: {error}", path.display()));
        }
    }
    anyhow::ensure!(failures.is_empty(), "not everything could be removed: {}", failures.join("; "));
    let name = &config.node.node_name;
    println!("[leave] this machine is no node any more; remove it from the cluster: kubectl delete node {name}");
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
