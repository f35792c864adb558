//! Where the agent's files lie.

use std::io;
use std::path::{Path, PathBuf};

use systemd::write_atomic;

/// Name of the settings file, which has to be found before anything else is known.
pub const NODE_YAML: &str = "node.yaml";

/// The three roots and every path below them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Configuration and keys; survives everything but `agent leave`.
    pub config_dir: PathBuf,
    /// State that survives a reboot: volumes, checkpoints.
    pub data_dir: PathBuf,
    /// State that a reboot ends.
    pub run_dir: PathBuf,
}

impl Layout {
    /// A layout from its roots.
    pub fn new(config_dir: impl Into<PathBuf>, data_dir: impl Into<PathBuf>, run_dir: impl Into<PathBuf>) -> Self {
        Self { config_dir: config_dir.into(), data_dir: data_dir.into(), run_dir: run_dir.into() }
    }

    /// The `KubeletConfiguration`.
    #[must_use]
    pub fn agent_yaml(&self) -> PathBuf {
        self.config_dir.join("agent.yaml")
    }

    /// Files that change it.
    #[must_use]
    pub fn dropin_dir(&self) -> PathBuf {
        self.config_dir.join("agent.conf.d")
    }

    /// What a `KubeletConfiguration` cannot say.
    #[must_use]
    pub fn node_yaml(&self) -> PathBuf {
        self.config_dir.join(NODE_YAML)
    }

    /// A kubeconfig with the node's own credentials, for people and for the agent itself.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.config_dir.join("kubeconfig")
    }

    /// Keys and certificates; 0700.
    #[must_use]
    pub fn pki_dir(&self) -> PathBuf {
        self.config_dir.join("pki")
    }

    /// Where the running agent answers people on this machine.
    #[must_use]
    pub fn agent_socket(&self) -> PathBuf {
        self.run_dir.join("agent.sock")
    }

    /// The cluster's CA.
    #[must_use]
    pub fn ca_cert(&self) -> PathBuf {
        self.pki_dir().join("ca.crt")
    }

    /// The client certificate and its key, in one file so that a reader never sees one without the other.
    #[must_use]
    pub fn client_pem(&self) -> PathBuf {
        self.pki_dir().join("client.pem")
    }

    /// The serving certificate and its key, likewise.
    #[must_use]
    pub fn serving_pem(&self) -> PathBuf {
        self.pki_dir().join("serving.pem")
    }

    /// The key of a client certificate that is asked for, and not there yet.
    #[must_use]
    pub fn asked_client_key(&self) -> PathBuf {
        self.pki_dir().join("client.key.tmp")
    }
}

/// Writes a file with mode 0600 so that readers see the old content or the new, and a power cut leaves either.
///
/// # Errors
/// What the filesystem said.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    write_atomic(path, content, 0o600)
}
