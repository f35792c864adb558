//! `agent leave`: undoes what join and run made on this machine.
//!
//! In this order: the cluster's pods move away ([`drain`]), the agent stops, what is left of pods ends ([`pods`]), network and files go.
//! The keys go last: while they are there, leaving can be tried again.

mod drain;
mod pods;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};
use systemd::{DropIns, Manager, Role};

use crate::client::watch::describe;
use crate::client::{self, Credentials, tls};
use crate::config::Config;
use crate::identity::{Identity, certificates};
use crate::{network, pause_image, shutdown};

/// How long pods may take to go where nothing else is said.
const PATIENCE: Duration = Duration::from_secs(600);
/// The same by force: a pod that can go at all does so within its grace period.
const HASTE: Duration = Duration::from_secs(60);
/// What the drain itself may take beside the pods, by force.
const MARGIN: Duration = Duration::from_secs(10);

/// Command line of `agent leave`.
#[derive(Debug, Clone, Args)]
pub struct LeaveOptions {
    /// Folder of configuration and keys
    #[arg(long, default_value = "/etc/keelson")]
    pub config_dir: PathBuf,
    /// A kubeconfig that may delete the Node; a node's own rights do not go so far
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// How long pods may take to move to other nodes, in seconds [default: 600, 60 with --force]
    #[arg(long, value_name = "SECONDS")]
    pub drain_timeout: Option<u64>,
    /// Leave even if pods cannot move: those without a controller are lost, and disruption budgets are not waited for
    #[arg(long)]
    pub force: bool,
}

/// Says a line to the person who leaves.
fn say(line: &str) {
    println!("[leave] {line}");
}

/// Makes this machine what it was before it joined.
///
/// # Errors
/// Pods that cannot move (nothing is removed then), or all that could not be removed, in one error.
pub async fn leave(options: &LeaveOptions) -> anyhow::Result<()> {
    anyhow::ensure!(nix::unistd::geteuid().is_root(), "leaving needs root: try again with sudo");
    let (config, _) = Config::load(&options.config_dir).context("this machine has not joined a cluster")?;
    let client = client(&config, options).await;
    let drained = match &client {
        Ok(client) => drained(client, &config.node.node_name, options).await,
        Err(error) => Err(anyhow::anyhow!("no way to the API server: {error:#}")),
    };
    match drained {
        Err(error) if options.force => say(&format!("not drained, leaving all the same: {error:#}")),
        Err(error) => return Err(error.context("nothing was removed; --force leaves all the same")),
        Ok(()) => {}
    }
    let failures = remove(&config).await;
    anyhow::ensure!(failures.is_empty(), "not everything could be removed: {}", failures.join("; "));
    say("this machine is as it was before it joined");
    match client {
        Ok(client) if options.kubeconfig.is_some() => drain::delete_node(&client, &config.node.node_name).await,
        _ => {
            say(&format!("remove the node from the cluster: kubectl delete node {}", config.node.node_name));
            Ok(())
        }
    }
}

/// Drains the node. By force an API server that does not answer holds up nothing, either.
async fn drained(client: &kube::Client, node: &str, options: &LeaveOptions) -> anyhow::Result<()> {
    let draining = drain::drain(client, node, options);
    if !options.force {
        return draining.await;
    }
    tokio::time::timeout(options.patience() + MARGIN, draining).await.context("the API server is too slow")?
}

/// The administrator's identity where one is given, else the node's.
async fn client(config: &Config, options: &LeaveOptions) -> anyhow::Result<kube::Client> {
    if let Some(path) = &options.kubeconfig {
        let kubeconfig = Kubeconfig::read_from(path).with_context(|| path.display().to_string())?;
        let admin = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        return Ok(kube::Client::try_from(admin)?);
    }
    node_client(config)
}

/// A client with the node's own identity.
///
/// # Errors
/// Keys that are missing or cannot be used.
pub(crate) fn node_client(config: &Config) -> anyhow::Result<kube::Client> {
    let layout = &config.layout;
    let pem = std::fs::read(layout.ca_cert()).with_context(|| layout.ca_cert().display().to_string())?;
    let roots = certificates(&layout.ca_cert().to_string_lossy(), &pem)?;
    let Some(identity) = Identity::load(&layout.client_pem())? else { bail!("there is no client certificate") };
    let tls = tls::client_config(&roots, Some(identity.certified))?;
    Ok(client::new(&config.node.server, tls, &Credentials::Certificate)?.0)
}

/// Removes everything, and answers what could not be.
async fn remove(config: &Config) -> Vec<String> {
    let mut failures = Vec::new();
    // First, or it would make anew what is removed.
    if systemd::is_running()
        && let Err(error) = Manager::default().remove(Role::Agent)
    {
        failures.push(describe(&error));
    }
    failures.extend(DropIns::default().remove().err().map(|error| describe(&error)));
    failures.extend(pods::end(config).await);
    failures.extend(shutdown::forget().await.err().map(|error| describe(&error)));
    if let Ok(runtime) = cri::Client::new(&config.kubelet.container_runtime_endpoint)
        && let Err(error) = pause_image::remove(&runtime).await
    {
        failures.push(describe(&error));
    }
    failures.extend(network::remove(config).await);
    if !failures.is_empty() {
        // What another try needs stays.
        return failures;
    }
    let layout = &config.layout;
    let paths = [
        layout.run_dir.clone(),
        layout.data_dir.clone(),
        layout.kubeconfig(),
        layout.agent_yaml(),
        layout.pki_dir(),
        layout.node_yaml(),
    ];
    failures.extend(paths.iter().filter_map(|path| Some(format!("{}: {}", path.display(), delete(path).err()?))));
    // It stays where something of the administrator's is in it.
    let _ = std::fs::remove_dir(&layout.config_dir);
    failures
}

fn delete(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

impl LeaveOptions {
    fn patience(&self) -> Duration {
        self.drain_timeout.map_or(if self.force { HASTE } else { PATIENCE }, Duration::from_secs)
    }
}
