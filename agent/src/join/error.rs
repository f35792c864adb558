//! Everything that can stop a join, in words that say what to do. All but the last group happen before anything is
//! written.

use std::io;
use std::path::PathBuf;

use super::options::{CaHash, FormError};
use crate::client::{ConnectError, Server};
use crate::commands::CommandError;
use crate::{config, identity};

/// Why a join failed.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// A value of the wrong form.
    #[error(transparent)]
    Form(#[from] FormError),
    /// A join file that cannot be used.
    #[error(transparent)]
    File(#[from] super::invitation::FileError),
    /// Not root.
    #[error("joining needs root: try again with sudo")]
    NotRoot,
    /// No containerd where it was said to be.
    #[error(
        "no container runtime answers at {endpoint}: {message}; is containerd running, or is --container-runtime-endpoint wrong?"
    )]
    Runtime {
        /// The socket.
        endpoint: String,
        /// What happened there.
        message: String,
    },
    /// A containerd without CRI, as Docker's packages configure it.
    #[error(
        "the runtime at {endpoint} does not speak CRI: {remedy}; then join again. Containers that run go on, Docker's too"
    )]
    NoCri {
        /// The socket.
        endpoint: String,
        /// What to do.
        remedy: String,
    },
    /// No server at the address.
    #[error("no API server answers at {server}: {message}; check the address and that port {} is reachable", server.port())]
    Unreachable {
        /// The address.
        server: Server,
        /// What happened there.
        message: String,
    },
    /// Several addresses, and no server at any.
    #[error("none of the API servers answers: {}", failures.join("; "))]
    NoMaster {
        /// What happened at each.
        failures: Vec<String>,
    },
    /// A server that does not speak TLS, or not to us.
    #[error("{server} answers, but not as a Kubernetes API server does: {message}")]
    NotTls {
        /// The address.
        server: Server,
        /// What happened.
        message: String,
    },
    /// Another CA than the pinned one.
    #[error(
        "the CA of {server} is not the one that --ca-cert-hash names: expected {expected}, it presents {}; \
         either the hash is of another cluster, or somebody is in between",
        list(found)
    )]
    WrongCa {
        /// The address.
        server: Server,
        /// The given hash.
        expected: CaHash,
        /// Hashes of what was presented.
        found: Vec<CaHash>,
    },
    /// A stock API server that does not say which CA it has.
    #[error(
        "the CA of {server} is not to be found out: it presents none, and its ConfigMap kube-public/cluster-info cannot be read ({message}); \
         let everybody get that, as kubeadm does (not with --anonymous-auth=false), or append the CA to the API server's --tls-cert-file"
    )]
    HiddenCa {
        /// The address.
        server: Server,
        /// What happened to the question.
        message: String,
    },
    /// The server's certificate is for other names.
    #[error("the certificate of {server} is not valid for this address: {message}")]
    WrongName {
        /// The address.
        server: Server,
        /// rustls' words, with the names there are.
        message: String,
    },
    /// The server's certificate is not valid yet, or not any more, by this machine's clock.
    #[error(
        "by this machine's clock ({now}) a certificate of {server} is {problem}; set the clock (timedatectl, chrony) and join again"
    )]
    Clock {
        /// The address.
        server: Server,
        /// Our time.
        now: String,
        /// "not valid before …" or "expired since …", or by how much the clocks differ.
        problem: String,
    },
    /// The two clocks differ too much.
    #[error(
        "this machine's clock is {seconds} s {direction} that of {server}; certificates would not be valid here, so set \
         the clock (timedatectl, chrony) and join again"
    )]
    Skew {
        /// The address.
        server: Server,
        /// By how much.
        seconds: u64,
        /// "behind" or "ahead of".
        direction: &'static str,
    },
    /// The token is not (or no longer) known.
    #[error(
        "the API server does not accept the token {id}: it is wrong or has expired; make a new one on the master \
         (master token create)"
    )]
    Token {
        /// The token's public part.
        id: String,
    },
    /// The token is known and may not do what a join needs.
    #[error("the token {id} is accepted, but may not {action}: {message}")]
    Forbidden {
        /// The token's public part.
        id: String,
        /// What was tried.
        action: &'static str,
        /// The API server's words.
        message: String,
    },
    /// Another machine lives under the name.
    #[error(
        "node {name} is already in the cluster and alive (machine {machine}); choose another --node-name, or remove it: \
         kubectl delete node {name}"
    )]
    Occupied {
        /// The name.
        name: String,
        /// The machine's id.
        machine: String,
    },
    /// This machine lives under the name by another agent.
    #[error(
        "node {name} is this machine's own, as another agent made it, and still Ready: end that agent (--fix does), and join again when the \
         cluster has noticed, 50 s later. Where it is another machine, of which this one is a copy: choose another --node-name, and give \
         this one an id of its own (/etc/machine-id)"
    )]
    OwnNode {
        /// The name.
        name: String,
    },
    /// This machine is a node of another cluster.
    #[error("this machine is already a node of another cluster ({server}); run `agent leave` first")]
    OtherCluster {
        /// That cluster.
        server: String,
    },
    /// This machine is another node of this cluster.
    #[error("this machine is already the node {name} (configuration in {dir}); run `agent leave` first")]
    OtherName {
        /// Its name.
        name: String,
        /// Where that is written.
        dir: PathBuf,
    },
    /// The machine does not fit the cluster's node configuration.
    #[error(transparent)]
    Machine(#[from] crate::preflight::Refusal),
    /// Something is in the way on this machine.
    #[error("this machine is not ready to be a node: {}", problems.join("; "))]
    Unfit {
        /// Each with its remedy.
        problems: Vec<String>,
    },
    /// A command that was to mend something.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The API server failed otherwise.
    #[error("the API server failed to {action}")]
    Api {
        /// What was tried.
        action: &'static str,
        /// Its answer.
        #[source]
        source: kube::Error,
    },
    /// TLS could not be set up.
    #[error("cannot set up tls")]
    Tls(#[from] rustls::Error),
    /// No certificate.
    #[error("no client certificate")]
    Identity(#[from] identity::Error),
    /// Keys of an earlier join.
    #[error("this node's keys cannot be used: {0:#}")]
    Own(anyhow::Error),
    /// The configuration is invalid or cannot be written.
    #[error("configuration")]
    Config(#[from] config::Error),
    /// A folder cannot be looked into.
    #[error("cannot read {path}")]
    Read {
        /// The folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A folder of something else.
    #[error("{dir} has something else in it ({name}), and no agent's state: choose an empty --data-dir")]
    Shared {
        /// The data folder.
        dir: PathBuf,
        /// What is in it.
        name: String,
    },
    /// A folder or file could not be made.
    #[error("cannot write {path}")]
    Write {
        /// The path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// systemd refused.
    #[error("cannot start the service")]
    Systemd(#[from] systemd::Error),
    /// The node runs, but is not ready.
    #[error("node {name} is not Ready after {seconds} s: {message}; it goes on trying, see journalctl -u agent")]
    NotReady {
        /// The node.
        name: String,
        /// How long was waited.
        seconds: u64,
        /// The last condition.
        message: String,
    },
}

fn list(hashes: &[CaHash]) -> String {
    if hashes.is_empty() {
        return "none".to_owned();
    }
    hashes.iter().map(CaHash::to_string).collect::<Vec<_>>().join(", ")
}

impl JoinError {
    /// The words for a connection that did not come about.
    pub(super) fn from_connect(error: ConnectError) -> Self {
        match error {
            ConnectError::Tcp { server, source } => Self::Unreachable { server, message: source.to_string() },
            ConnectError::Timeout(server) => Self::Unreachable { server, message: "no answer within 10 s".to_owned() },
            ConnectError::Tls { server, source } => from_tls(server, &source),
        }
    }
}

/// The words for a failed handshake; rustls' error sits inside the I/O error.
fn from_tls(server: Server, source: &io::Error) -> JoinError {
    use rustls::CertificateError as Bad;
    let inner = source.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    let message = inner.map_or_else(|| source.to_string(), ToString::to_string);
    let Some(rustls::Error::InvalidCertificate(bad)) = inner else {
        return JoinError::NotTls { server, message };
    };
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    match bad {
        Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
            JoinError::Clock { server, now, problem: "not valid yet".into() }
        }
        Bad::Expired | Bad::ExpiredContext { .. } => JoinError::Clock { server, now, problem: "expired".into() },
        Bad::NotValidForName | Bad::NotValidForNameContext { .. } => JoinError::WrongName { server, message },
        _ => JoinError::NotTls { server, message },
    }
}
