//! Names and paths of everything that belongs to one cluster. All of it can be found again from the id alone.

use std::path::{Path, PathBuf};

/// One cluster's names. The id is short: interface names have 15 characters.
#[derive(Debug, Clone)]
pub struct Layout {
    /// e.g. `up` for `make up`, `t1234` for a test's.
    pub id: String,
    /// Everything on disk, e.g. `.keelson`.
    pub base: PathBuf,
}

impl Layout {
    #[must_use]
    pub fn new(id: impl Into<String>, base: impl Into<PathBuf>) -> Self {
        Self { id: id.into(), base: base.into() }
    }

    /// What the names of namespaces, links, cgroups and run folders start with.
    #[must_use]
    pub fn prefix(&self) -> String {
        format!("kl-{}", self.id)
    }

    /// Sockets: short paths, gone with a reboot.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        PathBuf::from(format!("/run/keelson-{}", self.id))
    }

    #[must_use]
    pub fn admin_conf(&self) -> PathBuf {
        self.base.join("admin.conf")
    }

    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.base.join("state.json")
    }

    #[must_use]
    pub fn before(&self) -> PathBuf {
        self.base.join("before.json")
    }

    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        self.base.join("log").join(format!("{name}.log"))
    }

    #[must_use]
    pub fn master_dir(&self) -> PathBuf {
        self.base.join("master")
    }

    #[must_use]
    pub fn bridge(&self) -> String {
        self.prefix()
    }

    /// A host: `m` is the master, `n1`, `n2`, … are worker machines.
    #[must_use]
    pub fn host(&self, name: &str) -> HostPaths {
        HostPaths { name: name.to_owned(), layout: self.clone() }
    }
}

/// The paths of one host.
#[derive(Debug, Clone)]
pub struct HostPaths {
    pub name: String,
    layout: Layout,
}

impl HostPaths {
    #[must_use]
    pub fn netns(&self) -> String {
        format!("{}-{}", self.layout.prefix(), self.name)
    }

    #[must_use]
    pub fn netns_path(&self) -> PathBuf {
        Path::new("/run/netns").join(self.netns())
    }

    /// The end of its cable that sits on the bridge.
    #[must_use]
    pub fn port(&self) -> String {
        format!("{}-{}", self.layout.prefix(), self.name)
    }

    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.layout.base.join(&self.name)
    }

    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.layout.run().join(&self.name)
    }

    #[must_use]
    pub fn containerd_socket(&self) -> PathBuf {
        self.run().join("containerd.sock")
    }

    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.containerd_socket().display())
    }

    #[must_use]
    pub fn cni_conf(&self) -> PathBuf {
        self.dir().join("cni/net.d")
    }

    #[must_use]
    pub fn cni_bin(&self) -> PathBuf {
        self.dir().join("cni/bin")
    }

    /// Root of the node's pods in every cgroup hierarchy.
    #[must_use]
    pub fn cgroup_root(&self) -> String {
        format!("/{}-{}", self.layout.prefix(), self.name)
    }
}
