//! `agent join`: from a bare machine to a Ready node.
//!
//! The order is the promise: everything that can be wrong with token, hash, address, clock, runtime or name is found out
//! before the first file is written, and a second join finds what the first one made and leaves keys as they are.

mod checks;
mod compose;
mod discovery;
mod error;
mod invitation;
mod machine;
pub mod options;
mod pin;
mod progress;
mod ready;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use rustls_pki_types::CertificateDer;
use systemd::{DropIns, FileError, Manager, Role, Service};

use checks::Claimant;
pub(crate) use checks::clock;
pub use error::JoinError;
use invitation::Invitation;
use options::{JoinOptions, Token, node_name};
pub use progress::Progress;
pub(crate) use ready::{unit as unit_says, wait as wait_ready};

use crate::client::{self, Credentials, Servers, tls};
use crate::commands::CommandError;
use crate::config::{Config, NodeSettings};
use crate::doctor::{self, Finding};
use crate::identity::csr::{node_user, obtain_first};
use crate::identity::{self, Identity};
use crate::node::facts;
use crate::preflight;
use crate::runtime_info::{self, RuntimeInfo};
use crate::{leave, network, own_files};

/// Debian's way. On machines that were just made other programs install, too: that is waited for. Nothing is removed: Docker's package of
/// containerd stands in the way of Debian's, and with it all of Docker would go.
const INSTALL_CONTAINERD: &str =
    "apt-get install --yes --no-remove --no-install-recommends -o DPkg::Lock::Timeout=120 containerd";
const UPDATE_LISTS: &str = "apt-get update";
/// The package starts the service, unless the machine forbids that.
const START_CONTAINERD: &str = "systemctl enable --now containerd";
/// How long a containerd that was just started may take until it answers.
const RUNTIME: Duration = Duration::from_secs(30);
/// How long a certificate may take: controllers answer within a second, an administrator does not.
const CERTIFICATE: Duration = Duration::from_secs(60);
/// How long the node may take until it is Ready.
const READY: Duration = Duration::from_secs(180);

/// A joined machine.
pub struct Joined {
    /// Its configuration, as written.
    pub config: Config,
    client: kube::Client,
    since: i64,
    progress: Progress,
}

/// What is known of cluster and machine before anything is asked for.
struct Checked {
    name: String,
    claimant: Claimant,
    ca: CertificateDer<'static>,
    /// As [`asking`] makes it.
    bootstrap: kube::Client,
    config: Config,
    /// The identity of an earlier join.
    stored: Option<Identity>,
}

/// Makes this machine a node, up to the written configuration; `None` after a dry run, which writes nothing.
///
/// # Errors
/// See [`JoinError`]: each cause has its own words.
pub async fn join(options: &JoinOptions) -> Result<Option<Joined>, JoinError> {
    let earlier = Config::written(&options.config_dir)?;
    let known = earlier.as_ref().map(|config| config.node.node_name.as_str());
    let name = node_name(options.node_name.as_deref().or(known))?;
    if !nix::unistd::geteuid().is_root() {
        return Err(JoinError::NotRoot);
    }
    let progress = Progress(options.output);
    let invitation = match Invitation::of(options) {
        Ok(invitation) => invitation.ok_or(options::FormError::Incomplete)?,
        Err(error) => match earlier.filter(|config| error.is_absence() && is_joined_as(config, &name)) {
            Some(earlier) => return resumed(options, &earlier, progress).await,
            None => return Err(error.into()),
        },
    };
    let checked = check(options, &invitation, name, earlier.as_ref()).await?;
    if options.dry_run {
        return Ok(rehearsed(&checked.name, progress));
    }
    let joined = settle_in(checked, &invitation, progress).await?;
    if let Some(path) = &options.join_file {
        match std::fs::remove_file(path) {
            Ok(()) => progress.say(&format!("{} was used, and is deleted", path.display())),
            Err(error) => {
                progress.say(&format!("warning: {} was used, and cannot be deleted: {error}", path.display()))
            }
        }
    }
    Ok(Some(joined))
}

/// Asks with the token, or as the node where it is one already: the token of its first join has expired since.
fn asking(
    Invitation { masters, token, .. }: &Invitation,
    ca: &CertificateDer<'static>,
    stored: Option<&Identity>,
) -> Result<kube::Client, JoinError> {
    let (own, credentials) = match stored {
        Some(identity) => (Some(Arc::clone(&identity.certified)), Credentials::Certificate),
        None => (None, Credentials::Token(token.secret().to_owned())),
    };
    let config = tls::client_config(std::slice::from_ref(ca), own)?;
    Ok(client::new(masters, config, &credentials).map_err(|_| options::FormError::Token)?.0)
}

fn rehearsed(name: &str, progress: Progress) -> Option<Joined> {
    progress.say(&format!("nothing is in the way of node {name}; a dry run ends here, with nothing changed"));
    None
}

/// Everything that can be wrong, in the order in which people can do something about it.
async fn check(
    options: &JoinOptions,
    invitation: &Invitation,
    name: String,
    earlier: Option<&Config>,
) -> Result<Checked, JoinError> {
    let progress = Progress(options.output);
    let endpoint = compose::runtime_endpoint(options, earlier);
    let (runtime, version) = runtime(&endpoint, options.install_containerd, progress).await?;
    let Invitation { masters, ca_cert_hash, token } = invitation;
    progress.say(&format!("looking for the API server at {masters}"));
    let (ca, server) = pin::pin_any(masters, *ca_cert_hash, |line| progress.say(line)).await?;
    progress.say("its CA is the pinned one");
    let stored = stored(earlier, &name, masters, &ca)?;
    let is_again = earlier.is_some_and(|config| config.node.node_name == name);
    let claimant = Claimant { machine_id: facts::read(Path::new("/")).machine_id, is_again };

    let bootstrap = asking(invitation, &ca, stored.as_ref())?;
    checks::clock(&bootstrap, &server).await?;
    let cluster = checks::kubelet_config(&bootstrap, token).await?;
    let composed = compose::configuration(options, masters, &name, earlier, cluster.as_deref(), &runtime)?;
    let config = announced(composed, earlier.is_some(), progress)?;
    let effective = config.with_dropins()?;
    let seen = machine::look(&effective, &runtime, version, earlier.is_some()).await;
    if stored.is_none() {
        match checks::name_is_free(&bootstrap, &name, &claimant).await {
            // Its own kubelet has to end first, of which is told next.
            Err(JoinError::OwnNode { .. }) if !seen.other_agents.is_empty() => {}
            answer => answer?,
        }
    }
    machine::settle(&seen, options.fix, progress)?;
    preflight::check(Path::new("/"), &effective.kubelet)?;
    Ok(Checked { name, claimant, ca, bootstrap, config, stored })
}

/// Tells what the configuration brings with it; its data folder has to be there for this node alone.
fn announced((config, warnings): (Config, Vec<String>), again: bool, progress: Progress) -> Result<Config, JoinError> {
    if again {
        let dir = config.layout.config_dir.display();
        progress.say(&format!("this machine was joined before: its settings in {dir} stay but for what is said now"));
    }
    for warning in warnings {
        progress.say(&format!("warning: {warning}"));
    }
    nobody_elses(&config.layout.data_dir)?;
    Ok(config)
}

/// Whether the data folder is there for this node alone.
fn nobody_elses(data_dir: &Path) -> Result<(), JoinError> {
    let dir = data_dir.to_owned();
    match own_files::stranger(data_dir) {
        Ok(None) => Ok(()),
        Ok(Some(name)) => Err(JoinError::Shared { dir, name }),
        Err(source) => Err(JoinError::Read { path: dir, source }),
    }
}

/// Gets a certificate where there is none yet, and writes down what `agent run` needs.
async fn settle_in(checked: Checked, invitation: &Invitation, progress: Progress) -> Result<Joined, JoinError> {
    let Checked { name, claimant, ca, bootstrap, config, stored } = checked;
    let is_new = stored.is_none();
    let identity = match stored {
        Some(identity) => {
            progress.say(&format!("this machine already is node {name}: its key and certificate are kept"));
            identity
        }
        None => {
            checks::name_gets_free(&bootstrap, &name, &claimant, progress).await?;
            progress.say(&format!("asking for a certificate as {}", node_user(&name)));
            certificate(&bootstrap, &invitation.token, &config, &ca).await?
        }
    };
    let config_tls = tls::client_config(std::slice::from_ref(&ca), Some(Arc::clone(&identity.certified)))?;
    let (client, _) = client::new(&invitation.masters, config_tls, &Credentials::Certificate)
        .map_err(|_| options::FormError::Token)?;
    if is_new {
        checks::name_gets_free(&client, &name, &claimant, progress).await?;
    }
    compose::write(&config, &ca, &identity)?;
    progress.say(&format!("configuration and keys are in {}", config.layout.config_dir.display()));
    Ok(Joined { config, client, since: identity::now(), progress })
}

/// Whether this machine has all that node `name` needs to run.
fn is_joined_as(config: &Config, name: &str) -> bool {
    let identity = Identity::load(&config.layout.client_pem()).ok().flatten();
    config.node.node_name == name && identity.is_some_and(|identity| identity.is_valid_at(identity::now()))
}

/// A machine whose join file is gone because it was used: the rest needs neither master nor token. `None` after a dry run.
async fn resumed(options: &JoinOptions, earlier: &Config, progress: Progress) -> Result<Option<Joined>, JoinError> {
    let NodeSettings { node_name: name, server, .. } = &earlier.node;
    progress.say(&format!("this machine already is node {name}, and its join file was used"));
    let endpoint = compose::runtime_endpoint(options, Some(earlier));
    let (runtime, version) = runtime(&endpoint, options.install_containerd, progress).await?;
    let composed = compose::configuration(options, server, name, Some(earlier), None, &runtime)?;
    let config = announced(composed, true, progress)?;
    let effective = config.with_dropins()?;
    machine::settle(&machine::look(&effective, &runtime, version, true).await, options.fix, progress)?;
    preflight::check(Path::new("/"), &effective.kubelet)?;
    if options.dry_run {
        return Ok(rehearsed(name, progress));
    }
    compose::write_settings(&config)?;
    let client = leave::node_client(&config).map_err(JoinError::Own)?;
    Ok(Some(Joined { config, client, since: identity::now(), progress }))
}

async fn certificate(
    bootstrap: &kube::Client,
    token: &Token,
    config: &Config,
    ca: &CertificateDer<'static>,
) -> Result<Identity, JoinError> {
    let key_file = compose::key_file(&config.layout)?;
    let roots = std::slice::from_ref(ca);
    match obtain_first(bootstrap, &config.node.node_name, &key_file, roots, CERTIFICATE).await {
        Ok(identity) => Ok(identity),
        Err(identity::Error::Api(error)) => Err(checks::refused(error, token, "ask for a certificate")),
        Err(error) => Err(error.into()),
    }
}

/// The identity of an earlier join, if it is still good for this one. A cluster may have another CA than it had then: it was replaced while
/// this node was away, or its master was made anew. That takes another certificate, and no leaving.
fn stored(
    earlier: Option<&Config>,
    name: &str,
    masters: &Servers,
    ca: &CertificateDer<'static>,
) -> Result<Option<Identity>, JoinError> {
    let Some(config) = earlier else { return Ok(None) };
    let NodeSettings { node_name, server, .. } = &config.node;
    // Unreadable keys are replaced: that is what joining again is for.
    let Ok(Some(identity)) = Identity::load(&config.layout.client_pem()) else { return Ok(None) };
    let is_issued = identity.is_issued_by(std::slice::from_ref(ca));
    let is_same_cluster =
        is_issued || masters.iter().any(|one| server.iter().any(|known| known == one)) || trusts(config, ca);
    let is_valid = identity.is_valid_at(identity::now());
    match (is_same_cluster, is_valid) {
        (true, _) if node_name != name => {
            Err(JoinError::OtherName { name: node_name.clone(), dir: config.layout.config_dir.clone() })
        }
        (false, true) => Err(JoinError::OtherCluster { server: server.urls() }),
        _ => Ok(Some(identity).filter(|own| is_issued && is_valid && own.common_name == node_user(name))),
    }
}

/// Whether the node has been told of the CA as one of its cluster's.
fn trusts(config: &Config, ca: &CertificateDer<'static>) -> bool {
    let path = config.layout.ca_cert();
    let pem = std::fs::read(&path).unwrap_or_default();
    identity::certificates(&path.to_string_lossy(), &pem).is_ok_and(|known| known.contains(ca))
}

/// The runtime, and its name and version; installed where there is none and that was asked for.
async fn runtime(
    endpoint: &str,
    install: bool,
    progress: Progress,
) -> Result<(RuntimeInfo, (String, String)), JoinError> {
    let answer = check_runtime(endpoint).await;
    let (info, version) = match answer {
        Err(JoinError::Runtime { .. }) if install => {
            progress.say("installing containerd");
            install_containerd()?;
            wait_runtime(endpoint).await?
        }
        other => other?,
    };
    progress.say(&format!("container runtime: {} {}", version.0, version.1));
    Ok((info, version))
}

fn install_containerd() -> Result<(), CommandError> {
    let run = |line: &str| machine::run(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
    // New machines have no lists of packages, or old ones.
    if run(INSTALL_CONTAINERD).is_err() {
        run(UPDATE_LISTS)?;
        run(INSTALL_CONTAINERD)?;
    }
    run(START_CONTAINERD)
}

/// Waits for a runtime that was just started.
async fn wait_runtime(endpoint: &str) -> Result<(RuntimeInfo, (String, String)), JoinError> {
    let begun = Instant::now();
    loop {
        match check_runtime(endpoint).await {
            Err(JoinError::Runtime { .. }) if begun.elapsed() < RUNTIME => {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            answer => return answer,
        }
    }
}

/// Whether the runtime answers, and what it says of itself.
async fn check_runtime(endpoint: &str) -> Result<(RuntimeInfo, (String, String)), JoinError> {
    let failed = |message: String| JoinError::Runtime { endpoint: endpoint.to_owned(), message };
    let runtime = cri::Client::new(endpoint).map_err(|e| failed(e.to_string()))?;
    let request = cri::v1::VersionRequest { version: "v1".into() };
    let answer = tokio::time::timeout(Duration::from_secs(10), runtime.version(request))
        .await
        .map_err(|_| failed("no answer within 10 s".into()))?
        .map_err(|e| match e.is_unimplemented() {
            true => JoinError::NoCri { endpoint: endpoint.to_owned(), remedy: machine::containerd::remedy() },
            false => failed(client::watch::describe(&e)),
        })?;
    let info = runtime_info::ask(&runtime).await.map_err(|e| failed(client::watch::describe(&e)))?;
    Ok((info, (answer.runtime_name, answer.runtime_version)))
}

impl Joined {
    /// Installs and starts the unit, then waits until the node is Ready.
    ///
    /// # Errors
    /// systemd refuses, or the node does not become Ready.
    pub async fn start_service(&self, executable: &Path) -> Result<(), JoinError> {
        let args = vec!["run".to_owned(), "--config-dir".into(), self.config.layout.config_dir.display().to_string()];
        let service = Service { role: Role::Agent, executable: executable.to_owned(), args, writes: None };
        // The drop-ins turn it on at the next boot, which may come before the agent's first start.
        network::remember(&self.config.layout.data_dir);
        let dropins = DropIns::default().write(&machine::MODULES, &[network::FORWARDING]);
        dropins.map_err(|FileError { path, source }| JoinError::Write { path, source })?;
        let manager = Manager::default();
        manager.install(&service)?;
        manager.enable_and_start(Role::Agent, true)?;
        self.progress.say("agent.service is enabled and started");
        let is_ready = self.ready(ready::unit).await?;
        // It may have told the API server before it told systemd.
        manager.await_active(Role::Agent)?;
        if is_ready {
            self.progress.done(&self.config.node.node_name);
        }
        Ok(())
    }

    /// Waits until the node is Ready and says so.
    ///
    /// # Errors
    /// [`JoinError::NotReady`].
    pub async fn wait_ready(&self) -> Result<(), JoinError> {
        // What this very program reports.
        if self.ready(|| None).await? {
            self.progress.done(&self.config.node.node_name);
        }
        Ok(())
    }

    /// `false`: nothing is to be waited for.
    async fn ready(&self, said: impl Fn() -> Option<String> + Clone + Send + 'static) -> Result<bool, JoinError> {
        let name = &self.config.node.node_name;
        if !self.config.with_dropins()?.kubelet.register_node {
            self.progress.say(&format!(
                "node {name} does not register itself (registerNode): it works once there is a Node of that name"
            ));
            return Ok(false);
        }
        ready::wait(self.client.clone(), name, self.since, READY, &|line| self.progress.say(line), said).await?;
        if let Some(finding) = still_cordoned(&self.client, name).await {
            self.progress.finding(&finding, false);
        }
        Ok(true)
    }
}

/// A machine that left and joins again finds its Node as leaving has cordoned it. Whether somebody wants it so nobody can tell: it is said.
async fn still_cordoned(client: &kube::Client, name: &str) -> Option<Finding> {
    let node = Api::<Node>::all(client.clone()).get(name).await.ok()?;
    doctor::cordoned(name, node.spec.as_ref())
}

#[cfg(test)]
mod tests;
