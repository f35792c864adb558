//! Which cgroup hierarchy is mounted.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;

/// Where Linux distributions mount cgroups.
pub const MOUNT: &str = "/sys/fs/cgroup";

/// The hierarchies of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hierarchy {
    /// One tree for all controllers.
    V2 { mount: PathBuf },
    /// A tree for each controller. `others` are trees without one, in which runtimes put containers nevertheless:
    /// `name=systemd`, and the cgroup2 tree of a hybrid machine.
    V1 { controllers: BTreeMap<String, PathBuf>, others: Vec<PathBuf> },
}

impl Hierarchy {
    /// Whether this is cgroup v2.
    #[must_use]
    pub fn is_v2(&self) -> bool {
        matches!(self, Self::V2 { .. })
    }
}

/// Reads this process' mounts.
///
/// # Errors
/// When they cannot be read, or no cgroup hierarchy is among them.
pub fn detect() -> Result<Hierarchy, Error> {
    let path = Path::new("/proc/self/mountinfo");
    // Others' mount points need not be text.
    let text = fs::read(path).map_err(|source| Error::Read { path: path.into(), source })?;
    parse(&String::from_utf8_lossy(&text), Path::new(MOUNT)).ok_or_else(|| Error::NotMounted { path: MOUNT.into() })
}

/// Whether the kernel limits swap by cgroups of version 2: what this process' own has, all have.
#[must_use]
pub fn limits_swap() -> bool {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
    own.is_some_and(|path| Path::new(MOUNT).join(path).join("memory.swap.max").exists())
}

/// Finds the hierarchies below `below` in the text of a mountinfo file.
#[must_use]
pub fn parse(mountinfo: &str, below: &Path) -> Option<Hierarchy> {
    let mut controllers = BTreeMap::new();
    let mut others = Vec::new();
    for mount in mountinfo.lines().filter_map(Mount::parse).filter(|m| m.point.starts_with(below)) {
        match mount.kind {
            "cgroup2" if mount.point == below => return Some(Hierarchy::V2 { mount: mount.point }),
            "cgroup2" => others.push(mount.point),
            "cgroup" if mount.options.contains("name=") => others.push(mount.point),
            "cgroup" => {
                for option in mount.options.split(',').filter(|o| is_controller(o)) {
                    controllers.entry(option.to_owned()).or_insert_with(|| mount.point.clone());
                }
            }
            _ => {}
        }
    }
    (!controllers.is_empty()).then_some(Hierarchy::V1 { controllers, others })
}

fn is_controller(option: &str) -> bool {
    !matches!(option, "rw" | "ro" | "noprefix" | "clone_children" | "xattr") && !option.starts_with("release_agent")
}

struct Mount<'a> {
    point: PathBuf,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    /// proc(5): `id parent major:minor root point options [tags] - type source super-options`.
    fn parse(line: &'a str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let point = PathBuf::from(left.split(' ').nth(4)?);
        let mut right = right.split(' ');
        let kind = right.next()?;
        let options = right.nth(1)?;
        Some(Self { point, kind, options })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "35 24 0:29 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "\
30 24 0:25 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755
31 30 0:26 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
32 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
";
    const HYBRID: &str = "34 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn unified() {
        assert_eq!(parse(V2, Path::new(MOUNT)), Some(Hierarchy::V2 { mount: MOUNT.into() }));
    }

    #[test]
    fn legacy_and_hybrid() {
        let Some(Hierarchy::V1 { controllers, others }) = parse(V1, Path::new(MOUNT)) else { panic!("v1") };
        assert_eq!(controllers.keys().collect::<Vec<_>>(), ["cpu", "cpuacct", "memory"]);
        assert_eq!(controllers["cpuacct"], Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(others, [Path::new("/sys/fs/cgroup/systemd")]);
        let Some(Hierarchy::V1 { others, .. }) = parse(&format!("{V1}{HYBRID}"), Path::new(MOUNT)) else {
            panic!("v1")
        };
        assert_eq!(others, [Path::new("/sys/fs/cgroup/systemd"), Path::new("/sys/fs/cgroup/unified")]);
    }

    #[test]
    fn nothing_mounted() {
        assert_eq!(parse("", Path::new(MOUNT)), None);
        assert_eq!(parse(V2, Path::new("/elsewhere")), None);
    }
}
