//! `agent leave`: undoes what join and run made on this machine.
//!
//! In this order: the cluster's pods move away ([`drain`]), the agent stops, what is left of pods ends ([`pods`]), network and files go.
//! The keys go last: while they are there, leaving can be tried again.

mod drain;
mod place;
mod pods;
mod shims;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};
use systemd::{DropIns, Manager, Role};

use crate::client::watch::describe;
use crate::client::{self, Credentials, tls};
use crate::config::{Config, Layout};
use crate::identity::{Identity, certificates};
use crate::{network, own_files, pause_image, shutdown};
use place::Place;

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
    manual::output::line(format_args!("[leave] {line}"));
}

/// Makes this machine what it was before it joined.
///
/// # Errors
/// Pods that cannot move (nothing is removed then), or all that could not be removed, in one error.
pub async fn leave(options: &LeaveOptions) -> anyhow::Result<()> {
    anyhow::ensure!(nix::unistd::geteuid().is_root(), "leaving needs root: try again with sudo");
    let place = place::find(options)?;
    let (config, node) = (&place.config, &place.config.node.node_name);
    let client = match place.is_known {
        true => client(config, options).await,
        false => Err(anyhow::anyhow!("it is not known which node this is")),
    };
    let drained = match &client {
        Ok(client) => drained(client, node, options).await,
        Err(error) => Err(anyhow::anyhow!("no way to the API server: {error:#}")),
    };
    match drained {
        Err(error) if options.force => say(&format!("not drained, leaving all the same: {error:#}")),
        Err(error) => return Err(error.context("nothing was removed; --force leaves all the same")),
        Ok(()) => {}
    }
    let failures = remove(&place, options.force).await;
    anyhow::ensure!(failures.is_empty(), "not everything could be removed: {}", failures.join("; "));
    say("this machine is as it was before it joined");
    match client {
        Ok(client) if options.kubeconfig.is_some() => drain::delete_node(&client, node).await,
        _ if place.is_known => {
            say(&format!("remove the node from the cluster: kubectl delete node {node}"));
            Ok(())
        }
        _ => Ok(()),
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
        return Ok(kube::Client::try_from(without_proxy(kubeconfig).await?)?);
    }
    node_client(config)
}

/// As the kubeconfig says, straight: the client is built without proxies, as the node's own, and would refuse to be made where `HTTPS_PROXY` is set.
async fn without_proxy(kubeconfig: Kubeconfig) -> anyhow::Result<kube::Config> {
    let mut admin = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    admin.proxy_url = None;
    Ok(admin)
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

/// Removes everything, and answers what could not be. By force a runtime that does not do its part is not in the way.
async fn remove(place: &Place, force: bool) -> Vec<String> {
    let config = &place.config;
    let mut failures = Vec::new();
    // First, or it would make anew what is removed.
    if systemd::is_running()
        && let Err(error) = Manager::default().remove(Role::Agent)
    {
        failures.push(describe(&error));
    }
    failures.extend(DropIns::default().remove().err().map(|error| describe(&error)));
    failures.extend(crate::upgrade::tidy().err().map(|error| describe(&error)));
    if place.has_run {
        let still_there = pods::end(config, force).await;
        if !still_there.is_empty() {
            // Only with their network as it is the runtime can end them the next time.
            failures.extend(still_there);
            return failures;
        }
        if let Ok(runtime) = cri::Client::new(&config.kubelet.container_runtime_endpoint)
            && let Err(error) = pause_image::remove(&runtime, &config.layout.data_dir).await
        {
            match force {
                true => say(&format!("the pause image stays: {}", describe(&error))),
                false => failures.push(describe(&error)),
            }
        }
    }
    failures.extend(shutdown::forget().await.err().map(|error| describe(&error)));
    failures.extend(network::remove(config).await);
    if !failures.is_empty() {
        // What another try needs stays.
        return failures;
    }
    let layout = config.layout.clone();
    let removed = tokio::task::spawn_blocking(move || files(&layout)).await;
    removed.unwrap_or_else(|error| vec![error.to_string()])
}

/// Removes the agent's files; last of all those by which leaving can be tried again.
fn files(layout: &Layout) -> Vec<String> {
    let mut failures = own_files::remove_run(&layout.run_dir);
    failures.extend(own_files::remove_data(&layout.data_dir));
    failures.extend(own_files::remove_unfinished(&layout.config_dir, &own_files::CONFIG));
    failures.extend(own_files::remove_entry(&layout.kubeconfig()).err());
    if !failures.is_empty() {
        return failures;
    }
    let last = [layout.pki_dir(), layout.agent_yaml(), layout.node_yaml()];
    if let Err(failure) = last.iter().try_for_each(|path| own_files::remove_entry(path)) {
        return vec![failure];
    }
    // It stays where something of the administrator's is in it.
    let _ = std::fs::remove_dir(&layout.config_dir);
    for folder in [&layout.config_dir, &layout.data_dir, &layout.run_dir].into_iter().filter(|folder| folder.exists()) {
        say(&format!("{} stays: something else is in it, or mounted there", folder.display()));
    }
    Vec::new()
}

impl LeaveOptions {
    fn patience(&self) -> Duration {
        self.drain_timeout.map_or(if self.force { HASTE } else { PATIENCE }, Duration::from_secs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_try_needs_goes_last() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let layout = Layout::new(at("etc"), at("data"), at("run"));
        let files_of_a_node =
            ["etc/node.yaml", "etc/agent.yaml", "etc/kubeconfig", "etc/pki/client.pem", "data/format.json"];
        let make = |names: &[&str]| {
            for name in names {
                std::fs::create_dir_all(at(name).parent().unwrap()).unwrap();
                std::fs::write(at(name), "").unwrap();
            }
        };
        make(&files_of_a_node);
        make(&["etc/.node.yaml.3.tmp", "etc/pki/.client.pem.3.tmp", "run/agent.sock"]);
        std::fs::create_dir_all(at("data/pods/u/mounted")).unwrap();
        let (none, flags) = (None::<&str>, nix::mount::MsFlags::empty());
        nix::mount::mount(Some("tmpfs"), &at("data/pods/u/mounted"), Some("tmpfs"), flags, none).unwrap();
        let failures = files(&layout);
        nix::mount::umount(&at("data/pods/u/mounted")).unwrap();
        assert!(failures.len() == 1 && failures[0].ends_with("it is a mount point"), "{failures:?}");
        assert!(["etc/node.yaml", "etc/agent.yaml", "etc/pki/client.pem"].iter().all(|name| at(name).exists()));
        assert_eq!(files(&layout), Vec::<String>::new());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        // Of a join that was killed.
        make(&["etc/pki/ca.crt", "etc/agent.yaml", "data/sysctls-before.json"]);
        assert_eq!(files(&layout), Vec::<String>::new());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn an_administrators_kubeconfig_is_used_without_a_proxy() {
        // As kube reads HTTPS_PROXY, and refuses both where it is built without proxies.
        let text = "clusters: [{name: k, cluster: {server: 'https://172.30.1.2:6443', proxy-url: 'http://proxy.example:3128'}}]\n\
             contexts: [{name: c, context: {cluster: k, user: u}}]\ncurrent-context: c\nusers: [{name: u, user: {token: t}}]\n";
        let admin = without_proxy(Kubeconfig::from_yaml(text).unwrap()).await.unwrap();
        assert_eq!((admin.proxy_url, admin.cluster_url.port_u16()), (None, Some(6443)));
    }
}
