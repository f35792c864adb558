//! What the kernel has to be told before it forwards packets of pods.
//!
//! IPv4 has a switch for that alone. With that of IPv6 the machine becomes a router, which does not listen to other routers: the kernel drops the
//! default routes that it was advertised, and takes no more of them, but on interfaces with `accept_ra=2`
//! (Documentation/networking/ip-sysctl.rst). So only a node with pods of IPv6 gets it, and its interfaces go on listening.

use std::fs;
use std::path::Path;

use ipnet::IpNet;
use netns::sysctl::{read_current, write_current};
use systemd::DropIns;

use super::{BRIDGE, sysctls};
use crate::client::watch::describe;

/// What every node needs, and its value.
pub(crate) const FORWARDING: (&str, &str) = ("net/ipv4/ip_forward", "1");
pub(super) const FORWARDING_IPV6: &str = "net/ipv6/conf/all/forwarding";
const INTERFACES: &str = "net/ipv6/conf";
pub(super) const ACCEPT_RA: &str = "/accept_ra";
/// Also from a machine that forwards.
const ALWAYS: &str = "2";

/// Writes down how forwarding was set before anything of ours set it, the service included: it loads the module that has bridged packets
/// filtered, and that begins with filtering them. Without it they are not.
pub(crate) fn remember(data_dir: &Path) {
    note(data_dir, &[FORWARDING.0], None);
    note(data_dir, &proxy::BRIDGE_SYSCTLS, Some("0"));
}

/// Turns forwarding of IPv4 on in the namespace the agent runs in, and remembers how it was.
pub(super) fn start(data_dir: &Path) {
    let (key, value) = FORWARDING;
    remember(data_dir);
    if let Err(error) = write_current(key, value) {
        tracing::warn!(key, error = %describe(&error), "cannot turn forwarding on: pods will not reach other nodes");
    }
}

/// Does what pods of these networks need beside that, now and at boot.
pub(super) fn suit(data_dir: &Path, dropins: &DropIns, pod_cidrs: &[IpNet]) {
    let of_ipv6 = pod_cidrs.iter().any(|cidr| matches!(cidr, IpNet::V6(_)));
    if of_ipv6 && let Err(error) = forward_ipv6(data_dir) {
        tracing::warn!(error = %describe(&error), "cannot turn forwarding of IPv6 on: pods will not reach other nodes by it");
    }
    let settings = at_boot(sysctls::remembered(data_dir).into_keys(), of_ipv6);
    // Where `join` made no service there is no file, and nothing happens at boot.
    match dropins.renew_settings(&settings) {
        Ok(true) => tracing::info!(of_ipv6, "forwarding at boot changed"),
        Ok(false) => {}
        Err(error) => tracing::warn!(error = %describe(&error), "cannot write what is set at boot"),
    }
}

/// The interfaces come first: what they were advertised is gone a moment after the switch.
fn forward_ipv6(data_dir: &Path) -> netns::Result<()> {
    if read_current(FORWARDING_IPV6)? == "1" {
        return Ok(());
    }
    let listening: Vec<String> = interfaces().into_iter().filter(|name| is_listening(name)).map(accept_ra).collect();
    let keys: Vec<String> = listening.iter().cloned().chain([FORWARDING_IPV6.to_owned()]).collect();
    note(data_dir, &keys, None);
    for key in &listening {
        match write_current(key, ALWAYS) {
            // An interface may be gone by now.
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
    }
    write_current(FORWARDING_IPV6, "1")
}

fn note(data_dir: &Path, keys: &[impl AsRef<str>], absent: Option<&str>) {
    if let Err(error) = sysctls::remember_or(data_dir, keys, absent) {
        tracing::warn!(%error, "cannot write down how forwarding was set: leaving will not reset it");
    }
}

/// Those that may be on somebody else's network: not our bridge and what is plugged into one. What `default` says is for those to come, and
/// among them are pods', who are no routers.
fn interfaces() -> Vec<String> {
    let entries = fs::read_dir(Path::new("/proc/sys").join(INTERFACES)).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let is_port = |name: &str| Path::new("/sys/class/net").join(name).join("brport").exists();
    names.filter(|name| !["all", "default", "lo", BRIDGE].contains(&name.as_str()) && !is_port(name)).collect()
}

/// Whether it takes routes from advertisements, and would stop with the switch.
fn is_listening(interface: &str) -> bool {
    let is = |key: String, value: &str| read_current(&key).is_ok_and(|text| text == value);
    is(accept_ra(interface.to_owned()), "1") && is(format!("{INTERFACES}/{interface}/forwarding"), "0")
}

fn accept_ra(interface: String) -> String {
    format!("{INTERFACES}/{interface}{ACCEPT_RA}")
}

/// What is set at boot, in this order, by what was changed here once. Pure.
fn at_boot(changed: impl Iterator<Item = String>, of_ipv6: bool) -> Vec<(String, String)> {
    let (key, value) = FORWARDING;
    let mut settings = vec![(key.to_owned(), value.to_owned())];
    if of_ipv6 {
        settings.extend(changed.filter(|key| key.ends_with(ACCEPT_RA)).map(|key| (key, ALWAYS.to_owned())));
        settings.push((FORWARDING_IPV6.to_owned(), "1".to_owned()));
    }
    settings
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn at_boot_interfaces_are_set_before_the_switch() {
        let changed = || {
            ["net/ipv4/ip_forward", FORWARDING_IPV6, "net/ipv6/conf/eth0.7/accept_ra"].map(str::to_owned).into_iter()
        };
        let lines = |settings: Vec<(String, String)>| -> Vec<String> {
            settings.into_iter().map(|(key, value)| format!("{key}={value}")).collect()
        };
        assert_eq!(lines(at_boot(changed(), false)), ["net/ipv4/ip_forward=1"]);
        assert_eq!(
            lines(at_boot(changed(), true)),
            ["net/ipv4/ip_forward=1", "net/ipv6/conf/eth0.7/accept_ra=2", "net/ipv6/conf/all/forwarding=1"]
        );
    }

    /// In a network of the thread's own, as root.
    #[test]
    fn a_machine_goes_on_listening_to_routers_and_is_as_before_when_it_leaves() {
        std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let pair = "link add up0 type veth peer name mute0".split(' ');
            assert!(Command::new("ip").args(pair).status().unwrap().success());
            write_current("net/ipv6/conf/mute0/accept_ra", "0").unwrap();
            let root = tempfile::tempdir().unwrap();
            let (data, dropins) = (root.path().join("data"), DropIns::new(root.path()));
            fs::create_dir(&data).unwrap();
            dropins.write(&[], &[FORWARDING, (FORWARDING_IPV6, "1")]).unwrap();
            let boot = || fs::read_to_string(root.path().join("etc/sysctl.d/90-keelson.conf")).unwrap();
            let now = || {
                [FORWARDING_IPV6, "net/ipv6/conf/up0/accept_ra", "net/ipv6/conf/mute0/accept_ra"]
                    .map(|key| read_current(key).unwrap())
            };
            let nets = |texts: &[&str]| -> Vec<IpNet> { texts.iter().map(|net| net.parse().unwrap()).collect() };
            let before = now();
            assert_eq!(before, ["0", "1", "0"]);

            // Pods of IPv4 change nothing of IPv6, and what an agent of before wrote for the next boot is gone.
            start(&data);
            suit(&data, &dropins, &nets(&["10.244.0.0/24"]));
            assert_eq!((now(), read_current(FORWARDING.0).unwrap().as_str()), (before.clone(), "1"));
            assert!(!boot().contains("ipv6"), "{}", boot());

            for _ in 0..2 {
                suit(&data, &dropins, &nets(&["10.244.0.0/24", "fd00:1::/64"]));
                assert_eq!(now(), ["1", "2", "0"]);
                let expected =
                    "-net/ipv4/ip_forward = 1\n-net/ipv6/conf/up0/accept_ra = 2\n-net/ipv6/conf/all/forwarding = 1\n";
                assert!(boot().ends_with(expected), "{}", boot());
            }
            // Who has come to need the switch keeps what goes with it.
            let other = root.path().join("sys/class/net/docker0");
            fs::create_dir_all(&other).unwrap();
            sysctls::restore(&data, root.path()).unwrap();
            assert_eq!(now(), ["1", "2", "0"]);
            fs::remove_dir(&other).unwrap();
            sysctls::restore(&data, root.path()).unwrap();
            assert_eq!(now(), before);
        })
        .join()
        .unwrap();
    }
}
