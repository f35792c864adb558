//! How settings of the kernel were before the agent changed them, so that leaving can put them back.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::forwarding::{ACCEPT_RA, FORWARDING_IPV6};
use crate::config::write_atomic;

/// The file, below the agent's data folder: a JSON object, path below /proc/sys -> value.
const FILE: &str = "sysctls-before.json";
/// Where sysctl.d(5) looks, what stands before first.
const FOLDERS: [&str; 4] = ["etc/sysctl.d", "run/sysctl.d", "usr/local/lib/sysctl.d", "usr/lib/sysctl.d"];
/// That of procps, which reads it last.
const LAST: &str = "etc/sysctl.conf";
/// The agent's own.
const OWN: &str = "90-keelson.conf";
/// What routed links may need.
const NETWORK: &str = "net/";
/// Links whose makers route for what is behind them: Docker, libvirt, LXC, LXD and Incus, Podman.
const ROUTED: [&str; 8] = ["docker", "br-", "virbr", "lxcbr", "lxdbr", "incusbr", "podman", "cni-podman"];

/// Why settings were not put back.
#[derive(Debug, thiserror::Error)]
pub(super) enum RestoreError {
    #[error("read {FILE}")]
    Read(#[from] io::Error),
    #[error("set {key}")]
    Set { key: String, source: netns::Error },
}

/// Writes down the values of `keys`, but for those that an earlier run has: what counts is how they were at first.
pub(crate) fn remember(data_dir: &Path, keys: &[impl AsRef<str>]) -> io::Result<()> {
    remember_or(data_dir, keys, None)
}

/// The same, with what stands for the value of one that the kernel does not have yet.
pub(super) fn remember_or(data_dir: &Path, keys: &[impl AsRef<str>], absent: Option<&str>) -> io::Result<()> {
    let path = data_dir.join(FILE);
    let mut values = remembered(data_dir);
    let known = values.len();
    for key in keys.iter().map(AsRef::as_ref) {
        if !values.contains_key(key)
            && let Some(value) = netns::sysctl::read_current(key).ok().or_else(|| absent.map(str::to_owned))
        {
            values.insert(key.to_owned(), value.trim().to_owned());
        }
    }
    if values.len() == known && path.exists() {
        return Ok(());
    }
    write_atomic(&path, &serde_json::to_vec(&values)?, 0o644)
}

/// What was written down; nothing of a file that cannot be read.
pub(super) fn remembered(data_dir: &Path) -> BTreeMap<String, String> {
    let text = fs::read(data_dir.join(FILE)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Puts them back, but for what others have come to need, below `root` (`/` but in tests).
///
/// # Errors
/// The first that could not be, after the others were.
pub(super) fn restore(data_dir: &Path, root: &Path) -> Result<(), RestoreError> {
    let text = match fs::read(data_dir.join(FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let values: BTreeMap<String, String> = match serde_json::from_slice(&text) {
        Ok(values) => values,
        Err(error) => {
            // Nothing better will ever be known of it.
            tracing::warn!(%error, file = FILE, "the kernel's settings stay: how they were is not written down");
            return Ok(());
        }
    };
    let mut failure = None;
    let (listening, switches): (Vec<_>, Vec<_>) = values.into_iter().partition(|(key, _)| key.ends_with(ACCEPT_RA));
    for (key, value) in switches.into_iter().chain(listening) {
        // A machine that goes on forwarding goes on listening to routers, too.
        if key.ends_with(ACCEPT_RA) && netns::sysctl::read_current(FORWARDING_IPV6).is_ok_and(|now| now == "1") {
            continue;
        }
        let needs = if value == "0" { needed_by(root, &key) } else { None };
        if let Some(who) = needs {
            tracing::warn!(key, who, "a setting of the kernel stays: it is needed");
            continue;
        }
        match netns::sysctl::write_current(&key, &value) {
            // A kernel without it, as after an upgrade or with IPv6 turned off.
            Err(source) if !source.is_not_found() => failure = failure.or(Some(RestoreError::Set { key, source })),
            _ => {}
        }
    }
    failure.map_or(Ok(()), Err)
}

/// Who wants a setting to be on: a file that sets it at boot, or a link that is routed.
fn needed_by(root: &Path, key: &str) -> Option<String> {
    let mut settings = files(root).into_iter().filter_map(|path| Some((set(&path, key)?, path)));
    if let Some((_, path)) = settings.next_back().filter(|(value, _)| value != "0") {
        return Some(path.display().to_string());
    }
    if !key.starts_with(NETWORK) {
        return None;
    }
    let mut links: Vec<String> = names(&root.join("sys/class/net")).collect();
    links.sort();
    links.into_iter().find(|link| ROUTED.iter().any(|prefix| link.starts_with(prefix)))
}

/// Files of settings in the order in which they are read.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = BTreeMap::new();
    for folder in FOLDERS.map(|folder| root.join(folder)) {
        for name in names(&folder).filter(|name| name.ends_with(".conf") && name != OWN) {
            let path = folder.join(&name);
            // One of the same name stands for those of later folders.
            found.entry(name).or_insert(path);
        }
    }
    found.into_values().chain([root.join(LAST)]).collect()
}

fn names(folder: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

/// The value that a file sets; keys have dots or slashes (sysctl.d(5)).
fn set(path: &Path, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let mut values = text.lines().filter_map(|line| {
        let (name, value) = line.trim().split_once('=')?;
        (name.trim().trim_start_matches('-').replace('.', "/") == key).then(|| value.trim().to_owned())
    });
    values.next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORWARD: &str = "net/ipv4/ip_forward";

    #[test]
    fn what_a_module_brings_is_as_without_it() {
        let dir = tempfile::tempdir().unwrap();
        let keys = ["net/bridge/no-such-key", FORWARD];
        remember_or(dir.path(), &keys, Some("0")).unwrap();
        assert_eq!(remembered(dir.path())[keys[0]], "0");
        assert_eq!(remembered(dir.path())[FORWARD], netns::sysctl::read_current(FORWARD).unwrap());
        restore(dir.path(), dir.path()).unwrap();
    }

    #[test]
    fn the_first_values_are_kept_and_put_back() {
        let dir = tempfile::tempdir().unwrap();
        let (data, root) = (dir.path(), dir.path());
        // Nothing was changed: nothing is put back.
        restore(data, root).unwrap();
        let keys = [FORWARD, "net/ipv4/ip_default_ttl"];
        fs::write(data.join(FILE), r#"{"net/ipv4/ip_forward":"7"}"#).unwrap();
        remember(data, &keys[..1]).unwrap();
        assert_eq!(fs::read_to_string(data.join(FILE)).unwrap(), r#"{"net/ipv4/ip_forward":"7"}"#);
        // What an agent comes to change later joins it.
        remember(data, &keys).unwrap();
        assert_eq!(remembered(data)[FORWARD], "7");
        fs::remove_file(data.join(FILE)).unwrap();
        remember(data, &keys[1..]).unwrap();
        let kept: BTreeMap<String, String> = serde_json::from_slice(&fs::read(data.join(FILE)).unwrap()).unwrap();
        assert!(kept["net/ipv4/ip_default_ttl"].parse::<u8>().is_ok(), "{kept:?}");
        restore(data, root).unwrap();
    }

    #[test]
    fn what_was_not_kept_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        // A power cut, a hand, another kernel.
        for text in ["", "{\"net/ipv4/ip_forward\":", "[]", "{\"net/none/at_all\":\"0\"}"] {
            fs::write(dir.path().join(FILE), text).unwrap();
            restore(dir.path(), dir.path()).unwrap();
        }
    }

    #[test]
    fn what_others_have_come_to_need_stays() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let who = || needed_by(dir.path(), FORWARD);
        write("etc/sysctl.d/90-keelson.conf", "net.ipv4.ip_forward = 1\n");
        write("usr/lib/sysctl.d/50-default.conf", "#net.ipv4.ip_forward=1\nnet.ipv4.conf.all.rp_filter = 1\n");
        write("sys/class/net/eth0", "");
        assert_eq!(who(), None);
        write("usr/lib/sysctl.d/10-router.conf", "-net/ipv4/ip_forward=1\n");
        assert!(who().unwrap().ends_with("usr/lib/sysctl.d/10-router.conf"));
        write("etc/sysctl.d/60-no.conf", "net.ipv4.ip_forward = 0\n");
        assert_eq!(who(), None, "the later file decides");
        write("etc/sysctl.conf", "net.ipv4.ip_forward=1\n");
        assert!(who().unwrap().ends_with("etc/sysctl.conf"));
        write("etc/sysctl.conf", "");
        write("sys/class/net/virbr0", "");
        assert_eq!(who().as_deref(), Some("virbr0"));
        assert_eq!(needed_by(dir.path(), "kernel/panic"), None, "what is routed needs the network's alone");
        // The namespace that tests run in has it as it is.
        let before = netns::sysctl::read_current(FORWARD).unwrap();
        write(FILE, "{\"net/ipv4/ip_forward\":\"0\"}");
        restore(dir.path(), dir.path()).unwrap();
        assert_eq!(netns::sysctl::read_current(FORWARD).unwrap(), before);
    }
}
