//! What is on the machine that a cluster could leave behind. Taken before `up` and after `down`: whatever is new is a leftover,
//! unless it bears the name of another cluster of Keelson's, which may come and go meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::layout::Layout;
use super::shell::run;

/// Folders whose entries are compared.
const FOLDERS: &[&str] = &[
    "/run",
    "/run/netns",
    "/etc",
    "/etc/systemd/system",
    "/etc/sysctl.d",
    "/etc/modules-load.d",
    "/etc/cni/net.d",
    "/opt",
    "/opt/cni/bin",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/var/lib",
    "/var/lib/cni",
    "/var/log",
    "/var/log/pods",
    "/var/log/containers",
    "/var/run",
    "/dev/shm",
];
/// Settings of the machine's own network that a cluster must not change.
const SETTINGS: &[&str] = &[
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/net/ipv4/conf/all/route_localnet",
    "/proc/sys/net/ipv6/conf/all/forwarding",
];
/// Folders that anybody may add to at any time.
const OTHERS: &[&str] = &["/run/user", "/run/systemd", "/run/lock", "/run/containerd", "/run/docker"];

/// Kind of thing -> names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot(BTreeMap<String, BTreeSet<String>>);

impl Snapshot {
    /// Looks at the machine.
    ///
    /// # Errors
    /// When something cannot be looked at: an audit that saw nothing would pass.
    pub fn take(layout: &Layout) -> Result<Self> {
        let mut kinds = BTreeMap::new();
        kinds.insert("network namespace".into(), entries("/run/netns"));
        kinds.insert("link".into(), entries("/sys/class/net"));
        kinds.insert("mount".into(), mounts()?);
        kinds.insert("cgroup".into(), cgroups(layout));
        kinds.insert("nft table".into(), lines(&run("nft", ["list", "tables"]).context("apt-get install nftables")?));
        kinds.insert("route".into(), lines(&run("ip", ["route", "show", "table", "all", "type", "unicast"])?));
        kinds.insert("process".into(), processes(layout));
        kinds.insert("unix socket".into(), sockets(layout)?);
        let files = FOLDERS.iter().flat_map(|dir| entries(dir).into_iter().map(move |e| format!("{dir}/{e}")));
        let files = files.filter(|f| !OTHERS.contains(&f.as_str()));
        kinds.insert("file or folder".into(), files.map(|f| named(&f)).collect());
        let setting = |path: &&str| fs::read_to_string(path).ok().map(|value| format!("{path} = {}", value.trim()));
        kinds.insert("setting".into(), SETTINGS.iter().filter_map(setting).collect());
        kinds
            .values_mut()
            .for_each(|names: &mut BTreeSet<String>| names.retain(|name| !is_of_another(name, &layout.id)));
        Ok(Self(kinds))
    }

    /// What is here that was not in `before`, a line each.
    #[must_use]
    pub fn new_since(&self, before: &Self) -> Vec<String> {
        let none = BTreeSet::new();
        self.0
            .iter()
            .flat_map(|(kind, now)| {
                let then = before.0.get(kind).unwrap_or(&none);
                now.difference(then).map(move |name| format!("{kind}: {name}"))
            })
            .collect()
    }
}

/// Whether a name is that of another cluster than `id`: of its links, namespaces and cgroups (`kl-ID…`), or of what is in its run folder.
fn is_of_another(name: &str, id: &str) -> bool {
    let marked = |mark: &str| name.match_indices(mark).map(|(at, _)| at).collect::<Vec<_>>();
    let begins_word = |at: &usize| !name.get(..*at).is_some_and(|before| before.ends_with(char::is_alphanumeric));
    let other = |at: usize| {
        let rest = name.get(at..).unwrap_or_default();
        rest.split(|c: char| !c.is_alphanumeric()).next() != Some(id)
    };
    let links = marked("kl-").into_iter().filter(begins_word).any(|at| other(at + "kl-".len()));
    links || marked("/run/keelson-").into_iter().any(|at| other(at + "/run/keelson-".len()))
}

fn entries(dir: &str) -> BTreeSet<String> {
    let read = fs::read_dir(dir).into_iter().flatten().flatten();
    read.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

/// A file, and where it leads to if it is a link: another cluster's links to its containers' logs are known by that.
fn named(path: &str) -> String {
    fs::read_link(path).map_or_else(|_| path.to_owned(), |target| format!("{path} -> {}", target.display()))
}

fn lines(text: &str) -> BTreeSet<String> {
    text.lines().map(|l| l.trim().to_owned()).filter(|l| !l.is_empty()).collect()
}

fn mounts() -> Result<BTreeSet<String>> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(text.lines().filter_map(|l| l.split(' ').nth(4)).map(str::to_owned).collect())
}

/// The top of every hierarchy, and everything with the cluster's name below.
fn cgroups(layout: &Layout) -> BTreeSet<String> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies: Vec<_> = if root.join("cgroup.controllers").exists() {
        vec![root.to_owned()]
    } else {
        entries("/sys/fs/cgroup").iter().map(|h| root.join(h)).filter(|p| !p.is_symlink()).collect()
    };
    let ours = layout.prefix();
    let mut found = BTreeSet::new();
    let mut folders: Vec<_> = hierarchies.iter().map(|h| (h.clone(), 0)).collect();
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten().filter(|e| e.path().is_dir()) {
            let path = entry.path();
            if depth == 0 || path.to_string_lossy().contains(&ours) {
                found.insert(path.display().to_string());
            }
            if depth < 2 {
                folders.push((path, depth + 1));
            }
        }
    }
    found
}

/// Processes of the cluster: by what they were started with, or by the cgroup they are in.
fn processes(layout: &Layout) -> BTreeSet<String> {
    let marks =
        [layout.run().display().to_string(), layout.base.display().to_string(), format!("/{}-", layout.prefix())];
    let me = std::process::id().to_string();
    let mut found = BTreeSet::new();
    for pid in entries("/proc").iter().filter(|e| e.bytes().all(|b| b.is_ascii_digit()) && **e != me) {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ");
        let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        if marks.iter().any(|m| line.contains(m.as_str()) || cgroup.contains(m.as_str())) {
            found.insert(format!("{pid} {}", line.trim()));
        }
    }
    found
}

fn sockets(layout: &Layout) -> Result<BTreeSet<String>> {
    let text = fs::read_to_string("/proc/net/unix")?;
    let marks = [layout.run().display().to_string(), layout.base.display().to_string()];
    let path = |line: &str| line.split_whitespace().nth(7).map(str::to_owned);
    Ok(text.lines().filter_map(path).filter(|p| marks.iter().any(|m| p.contains(m.as_str()))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_new_and_nothing_else() {
        let snapshot =
            |links: &[&str]| Snapshot([("link".to_owned(), links.iter().map(|l| (*l).to_owned()).collect())].into());
        let (before, after) = (snapshot(&["lo", "eth0"]), snapshot(&["lo", "kl-x"]));
        assert_eq!(after.new_since(&before), ["link: kl-x"]);
        assert!(before.new_since(&before).is_empty());
    }

    #[test]
    fn other_clusters_come_and_go() {
        for name in [
            "kl-e1-n1",
            "route 10.0.0.0/8 dev kl-e1 proto kernel",
            "/run/keelson-e1/n1/sock",
            "/sys/fs/cgroup/cpu/kl-up2-n1",
            "/var/log/containers/a.log -> /work/.cache/conformance/kl-e1-stock/n1/pod-logs/a/0.log",
        ] {
            assert!(is_of_another(name, "up"), "{name}");
        }
        for name in [
            "kl-up-n1",
            "kl-up",
            "/run/keelson-up/n1/sock",
            "keelson0",
            "/var/lib/keelson-master",
            "/run/netns/x",
            "nkl-e1",
        ] {
            assert!(!is_of_another(name, "up"), "{name}");
        }
    }

    #[test]
    fn sees_a_process_of_the_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(format!("a{}", std::process::id()), dir.path());
        let before = Snapshot::take(&layout).unwrap();
        let script = dir.path().join("sleeper");
        std::fs::write(&script, "sleep 60").unwrap();
        let mut child = std::process::Command::new("sh").arg(&script).spawn().unwrap();
        let fresh = Snapshot::take(&layout).unwrap().new_since(&before);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(fresh.iter().any(|l| l.starts_with("process: ") && l.contains("sleeper")), "{fresh:?}");
    }
}
