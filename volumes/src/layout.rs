use std::path::{Path, PathBuf};

/// Where a pod's files lie, as under a kubelet's root folder: `<root>/pods/<uid>/volumes/kubernetes.io~<type>/<name>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Below the agent's data folder.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder of all pods.
    #[must_use]
    pub fn pods(&self) -> PathBuf {
        self.root.join("pods")
    }

    /// A pod's folder.
    #[must_use]
    pub fn pod(&self, uid: &str) -> PathBuf {
        self.pods().join(uid)
    }

    /// A volume's folder. `kind` is the plugin's name after `kubernetes.io/`.
    #[must_use]
    pub fn volume(&self, uid: &str, kind: &str, name: &str) -> PathBuf {
        self.pod(uid).join("volumes").join(format!("kubernetes.io~{kind}")).join(name)
    }

    /// What is kept of a volume beside its files.
    #[must_use]
    pub fn plugin(&self, uid: &str, kind: &str, name: &str) -> PathBuf {
        self.pod(uid).join("plugins").join(format!("kubernetes.io~{kind}")).join(name)
    }

    /// Where a container's sub-path mounts are bound.
    #[must_use]
    pub fn subpath(&self, uid: &str, volume: &str, container: &str, index: usize) -> PathBuf {
        self.pod(uid).join("volume-subpaths").join(volume).join(container).join(index.to_string())
    }

    /// What Keelson keeps for a container: its termination message.
    #[must_use]
    pub fn container(&self, uid: &str, container: &str) -> PathBuf {
        self.pod(uid).join("containers").join(container)
    }

    /// The pod's /etc/hosts.
    #[must_use]
    pub fn hosts_file(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("etc-hosts")
    }

    /// The folder that all else lies in.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }
}
