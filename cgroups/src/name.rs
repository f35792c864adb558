//! Names of cgroups: `<root>/kubepods/{burstable,besteffort}/pod<uid>`, as the kubelet has them
//! (pkg/kubelet/cm/cgroup_manager_linux.go, qos_container_manager_linux.go).

use std::fmt;
use std::path::PathBuf;

/// The cgroup under which all pods lie.
const KUBEPODS: &str = "kubepods";

/// One cgroup, as the names from the hierarchy's top down to it. Spelled out only by a [`Naming`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CgroupName(Vec<String>);

impl CgroupName {
    fn child(&self, name: &str) -> Self {
        let mut parts = self.0.clone();
        parts.push(name.to_owned());
        Self(parts)
    }

    /// The names from the top down.
    #[must_use]
    pub fn parts(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for CgroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Naming::Cgroupfs.spell(self))
    }
}

/// How the driver of the runtime spells cgroup names. Both spellings are pure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Naming {
    /// `/kubepods/burstable/pod<uid>`.
    #[default]
    Cgroupfs,
    /// `/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice`, with `-` in names as `_`.
    Systemd,
}

/// As `KubeletConfiguration.cgroupDriver` has it.
impl fmt::Display for Naming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cgroupfs => "cgroupfs",
            Self::Systemd => "systemd",
        })
    }
}

impl Naming {
    /// The name that a configuration spells: [`Self::spell`] the other way round, of which systemd's needs the last part only.
    #[must_use]
    pub fn parse(self, text: &str) -> CgroupName {
        let parts: Vec<String> = match self {
            Self::Cgroupfs => return Tree::new(text).root,
            Self::Systemd => {
                let last = text.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
                let unit = last.strip_suffix(".slice").unwrap_or(last);
                unit.split('-').filter(|part| !part.is_empty()).map(|part| part.replace('_', "-")).collect()
            }
        };
        CgroupName(parts)
    }

    /// The folder that containerd makes for a container or a sandbox in the cgroup of its pod.
    #[must_use]
    pub fn container(self, id: &str) -> String {
        match self {
            Self::Cgroupfs => id.to_owned(),
            Self::Systemd => format!("cri-containerd-{id}.scope"),
        }
    }

    /// The path below a hierarchy's mount point; also what CRI's `cgroup_parent` takes.
    #[must_use]
    pub fn spell(self, name: &CgroupName) -> String {
        match self {
            Self::Cgroupfs => format!("/{}", name.0.join("/")),
            Self::Systemd => {
                let mut path = String::new();
                let mut prefix = String::new();
                for part in &name.0 {
                    if !prefix.is_empty() {
                        prefix.push('-');
                    }
                    // systemd reads `-` as a level, so that a name's own must be escaped.
                    prefix.push_str(&part.replace('-', "_"));
                    path.push('/');
                    path.push_str(&prefix);
                    path.push_str(".slice");
                }
                if path.is_empty() { "/".to_owned() } else { path }
            }
        }
    }

    /// [`Self::spell`] as a path that can be joined to a mount point.
    #[must_use]
    pub fn relative(self, name: &CgroupName) -> PathBuf {
        PathBuf::from(self.spell(name).trim_start_matches('/'))
    }

    /// The pod UID in the last name of a spelled path; `None` where it is no pod's cgroup.
    #[must_use]
    pub fn pod_uid(self, directory: &str) -> Option<String> {
        match self {
            Self::Cgroupfs => directory.strip_prefix("pod").map(str::to_owned),
            Self::Systemd => {
                let slice = directory.strip_suffix(".slice")?;
                let last = slice.rsplit('-').next()?;
                last.strip_prefix("pod").map(|uid| uid.replace('_', "-"))
            }
        }
        .filter(|uid| !uid.is_empty())
    }
}

/// The level of the tree that a pod's QoS class puts it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QosLevel {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl QosLevel {
    /// All, the one without a cgroup of its own first.
    pub const ALL: [Self; 3] = [Self::Guaranteed, Self::Burstable, Self::BestEffort];
}

/// The tree of one node. Two agents on a machine have different roots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    root: CgroupName,
}

impl Tree {
    /// The tree under `root` (`KubeletConfiguration.cgroupRoot`): empty or `/` for the hierarchy's top.
    #[must_use]
    pub fn new(root: &str) -> Self {
        let parts = root.split('/').filter(|part| !matches!(*part, "" | "." | "..")).map(str::to_owned);
        Self { root: CgroupName(parts.collect()) }
    }

    /// The configured root.
    #[must_use]
    pub fn root(&self) -> &CgroupName {
        &self.root
    }

    /// The cgroup that node allocatable is enforced on.
    #[must_use]
    pub fn pods(&self) -> CgroupName {
        self.root.child(KUBEPODS)
    }

    /// The cgroup of a QoS class; Guaranteed pods lie directly below [`Self::pods`].
    #[must_use]
    pub fn qos(&self, level: QosLevel) -> CgroupName {
        match level {
            QosLevel::Guaranteed => self.pods(),
            QosLevel::Burstable => self.pods().child("burstable"),
            QosLevel::BestEffort => self.pods().child("besteffort"),
        }
    }

    /// The cgroup of a pod.
    #[must_use]
    pub fn pod(&self, level: QosLevel, uid: &str) -> CgroupName {
        self.qos(level).child(&format!("pod{uid}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "1c6bb0e7-2d53-4b0b-a9d1-0a6f3e4a5b6c";

    #[test]
    fn cgroupfs_paths() {
        let tree = Tree::new("");
        let spell = |name: &CgroupName| Naming::Cgroupfs.spell(name);
        assert_eq!(spell(&tree.pods()), "/kubepods");
        assert_eq!(spell(&tree.pod(QosLevel::Guaranteed, UID)), format!("/kubepods/pod{UID}"));
        assert_eq!(spell(&tree.pod(QosLevel::Burstable, UID)), format!("/kubepods/burstable/pod{UID}"));
        assert_eq!(spell(&tree.pod(QosLevel::BestEffort, UID)), format!("/kubepods/besteffort/pod{UID}"));
    }

    #[test]
    fn containers_have_a_folder_or_a_scope() {
        assert_eq!(Naming::Cgroupfs.container("5c1d"), "5c1d");
        assert_eq!(Naming::Systemd.container("5c1d"), "cri-containerd-5c1d.scope");
    }

    #[test]
    fn systemd_paths_escape_and_nest() {
        let tree = Tree::new("");
        assert_eq!(
            Naming::Systemd.spell(&tree.pod(QosLevel::Burstable, "a-b")),
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-poda_b.slice"
        );
        assert_eq!(Naming::Systemd.spell(Tree::new("/").root()), "/");
        assert_eq!(Naming::Systemd.spell(&Tree::new("/agent-1").pods()), "/agent_1.slice/agent_1-kubepods.slice");
    }

    #[test]
    fn names_of_configurations_are_read_as_the_driver_spells_them() {
        let spelled = |naming: Naming, text: &str| naming.spell(&naming.parse(text));
        assert_eq!(spelled(Naming::Cgroupfs, "/system.slice"), "/system.slice");
        assert_eq!(spelled(Naming::Cgroupfs, "podruntime/kube-reserved"), "/podruntime/kube-reserved");
        for text in ["/system.slice", "system.slice", "system"] {
            assert_eq!(spelled(Naming::Systemd, text), "/system.slice");
        }
        assert_eq!(spelled(Naming::Systemd, "/a.slice/a-b_c.slice"), "/a.slice/a-b_c.slice");
        assert_eq!(spelled(Naming::Systemd, "/"), "/");
    }

    #[test]
    fn roots_are_normalized() {
        assert_eq!(Tree::new("/a//b/"), Tree::new("a/b"));
        assert_eq!(Tree::new("/../../a"), Tree::new("a"));
        assert_eq!(Naming::Cgroupfs.spell(&Tree::new("a/b").pods()), "/a/b/kubepods");
    }

    #[test]
    fn uids_are_found_again() {
        for naming in [Naming::Cgroupfs, Naming::Systemd] {
            for level in QosLevel::ALL {
                let path = naming.spell(&Tree::new("x-y").pod(level, UID));
                let last = path.rsplit('/').next().unwrap();
                assert_eq!(naming.pod_uid(last).as_deref(), Some(UID), "{path}");
            }
            assert_eq!(naming.pod_uid("burstable"), None);
            assert_eq!(naming.pod_uid("kubepods-besteffort.slice"), None);
        }
    }
}
