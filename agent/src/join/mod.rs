//! `agent join`: from a bare machine to a Ready node.
//!
//! The order is the promise: everything that can be wrong with token, hash, address, clock, runtime or name is found out
//! before the first file is written, and a second join finds what the first one made and leaves keys as they are.

mod checks;
mod compose;
mod discovery;
mod error;
pub mod options;
mod pin;
mod ready;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use systemd::{Manager, Role, Service};

pub(crate) use checks::clock;
pub use error::JoinError;
use options::{JoinOptions, node_name};

use crate::client::{self, Credentials, tls};
use crate::config::{Config, NodeSettings};
use crate::identity::csr::{Purpose, node_user, obtain};
use crate::identity::{self, Identity};
use crate::preflight;
use crate::runtime_info::{self, RuntimeInfo};

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
}

/// Says a line to the person who joins.
fn say(line: &str) {
    println!("[join] {line}");
}

/// Makes this machine a node, up to the written configuration; `None` after a dry run, which writes nothing.
///
/// # Errors
/// See [`JoinError`]: each cause has its own words.
pub async fn join(options: &JoinOptions) -> Result<Option<Joined>, JoinError> {
    let name = node_name(options.node_name.as_deref())?;
    if !nix::unistd::geteuid().is_root() {
        return Err(JoinError::NotRoot);
    }
    let runtime = check_runtime(&options.container_runtime_endpoint).await?;
    say(&format!("looking for the API server at {}", options.master));
    let ca = pin::pin(&options.master, options.ca_cert_hash).await?;
    say("its CA is the pinned one");
    let stored = stored(options, &name, &ca)?;

    let roots = std::slice::from_ref(&ca);
    let token = Credentials::Token(options.token.secret().to_owned());
    let (bootstrap, _) = client::new(&options.master, tls::client_config(roots, None)?, &token)
        .map_err(|_| options::FormError::Token)?;
    checks::clock(&bootstrap, &options.master).await?;
    let cluster = checks::kubelet_config(&bootstrap, &options.token).await?;
    let (config, warnings) = compose::configuration(options, &name, cluster.as_deref(), runtime)?;
    for warning in warnings {
        say(&format!("warning: {warning}"));
    }

    preflight::check(Path::new("/"), &config.kubelet)?;
    if options.dry_run {
        if stored.is_none() {
            checks::name_is_free(&bootstrap, &name).await?;
        }
        say(&format!("nothing is in the way of node {name}; a dry run ends here, with nothing changed"));
        return Ok(None);
    }

    let identity = match &stored {
        Some(identity) => {
            say(&format!("this machine already is node {name}: its key and certificate are kept"));
            identity.clone()
        }
        None => certificate(&bootstrap, options, &name).await?,
    };
    let config_tls = tls::client_config(roots, Some(Arc::clone(&identity.certified)))?;
    let (client, _) =
        client::new(&options.master, config_tls, &Credentials::Certificate).map_err(|_| options::FormError::Token)?;
    if stored.is_none() {
        checks::name_is_free(&client, &name).await?;
    }
    compose::write(&config, &ca, &identity)?;
    say(&format!("configuration and keys are in {}", options.config_dir.display()));
    Ok(Some(Joined { config, client, since: identity::now() }))
}

async fn certificate(bootstrap: &kube::Client, options: &JoinOptions, name: &str) -> Result<Identity, JoinError> {
    checks::name_is_free(bootstrap, name).await?;
    say(&format!("asking for a certificate as {}", node_user(name)));
    match obtain(bootstrap, name, &Purpose::Client, CERTIFICATE).await {
        Ok(identity) => Ok(identity),
        Err(identity::Error::Api(error)) => Err(checks::refused(error, &options.token, "ask for a certificate")),
        Err(error) => Err(error.into()),
    }
}

/// The identity of an earlier join, if it is still good for this one.
fn stored(options: &JoinOptions, name: &str, ca: &CertificateDer<'static>) -> Result<Option<Identity>, JoinError> {
    let dir = &options.config_dir;
    let Ok((config, _)) = Config::load(dir) else { return Ok(None) };
    let NodeSettings { node_name, server, .. } = config.node;
    // Unreadable keys are replaced: that is what joining again is for.
    let Ok(Some(identity)) = Identity::load(&config.layout.client_pem()) else { return Ok(None) };
    if !identity.is_issued_by(std::slice::from_ref(ca)) {
        return if identity.is_valid_at(identity::now()) { Err(JoinError::OtherCluster { server }) } else { Ok(None) };
    }
    if node_name != name {
        return Err(JoinError::OtherName { name: node_name, dir: dir.clone() });
    }
    let usable = identity.is_valid_at(identity::now()) && identity.common_name == node_user(name);
    Ok(usable.then_some(identity))
}

/// Whether the runtime answers, and what it says of itself.
async fn check_runtime(endpoint: &str) -> Result<RuntimeInfo, JoinError> {
    let failed = |message: String| JoinError::Runtime { endpoint: endpoint.to_owned(), message };
    let runtime = cri::Client::new(endpoint).map_err(|e| failed(e.to_string()))?;
    let request = cri::v1::VersionRequest { version: "v1".into() };
    let answer = tokio::time::timeout(Duration::from_secs(10), runtime.version(request))
        .await
        .map_err(|_| failed("no answer within 10 s".into()))?
        .map_err(|e| failed(client::watch::describe(&e)))?;
    say(&format!("container runtime: {} {}", answer.runtime_name, answer.runtime_version));
    runtime_info::ask(&runtime).await.map_err(|e| failed(client::watch::describe(&e)))
}

impl Joined {
    /// Installs and starts the unit, then waits until the node is Ready.
    ///
    /// # Errors
    /// systemd refuses, or the node does not become Ready.
    pub async fn start_service(&self, executable: &Path) -> Result<(), JoinError> {
        let args = vec!["run".to_owned(), "--config-dir".into(), self.config.layout.config_dir.display().to_string()];
        let service = Service { role: Role::Agent, executable: executable.to_owned(), args };
        let manager = Manager::default();
        manager.install(&service)?;
        manager.enable_and_start(Role::Agent, true)?;
        say("agent.service is enabled and started");
        self.wait_ready().await
    }

    /// Waits until the node is Ready and says so.
    ///
    /// # Errors
    /// [`JoinError::NotReady`].
    pub async fn wait_ready(&self) -> Result<(), JoinError> {
        let name = &self.config.node.node_name;
        ready::wait(self.client.clone(), name, self.since, READY).await?;
        say(&format!("node {name} is Ready"));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
