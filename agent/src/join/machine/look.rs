//! Looks at the machine.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

use procfs::net::TcpState;
use procfs::process::{FDTarget, Process};
use systemd::{Manager, Role};

use super::{MODULES, OtherAgent, Seen};
use crate::config::Config;
use crate::network::{self, CONFLIST, Folders};
use crate::node::facts;
use crate::preflight;
use crate::runtime_info::RuntimeInfo;

/// Units of agents that claim a machine for themselves.
const OTHER_AGENTS: [&str; 8] = [
    "kubelet.service",
    "k3s.service",
    "k3s-agent.service",
    "rke2-server.service",
    "rke2-agent.service",
    "k0scontroller.service",
    "k0sworker.service",
    "snap.microk8s.daemon-kubelite.service",
];
const FIREWALLS: [&str; 2] = ["firewalld.service", "ufw.service"];

/// Asks kernel, systemd and the filesystem. `has_joined`: this machine was made a node before, and may still run as one, whether its certificate
/// is good or not: its agent's ports are no fault.
pub async fn look(config: &Config, runtime: &RuntimeInfo, version: (String, String), has_joined: bool) -> Seen {
    let mut seen = Seen {
        runtime: version,
        absent_modules: MODULES.into_iter().filter(|module| !has_module(Path::new("/"), module)).collect(),
        refusals: preflight::all(Path::new("/"), &config.kubelet),
        earlier_networks: earlier_networks(&Folders::of(&config.node, runtime).conf),
        free: facts::filesystem(&config.layout.data_dir).map(|disk| disk.available),
        hostname: config.node.node_name.clone(),
        closed: [network::closed(false).await, network::closed(true).await],
        ..Seen::default()
    };
    let port = config.kubelet.port;
    if is_taken(port) && !(has_joined && is_our_agents(port)) {
        seen.taken_ports.push(port);
    }
    if systemd::is_running() {
        seen.other_agents = claiming(&show(&OTHER_AGENTS));
        seen.firewalls = claiming(&show(&FIREWALLS)).into_iter().filter(|one| one.runs).map(|one| one.unit).collect();
    }
    seen
}

/// Whether the kernel has the module loaded, built in, or where it loads it from by itself. Where that cannot be told, it has.
fn has_module(root: &Path, module: &str) -> bool {
    if root.join("sys/module").join(module).exists() {
        return true;
    }
    let release = fs::read_to_string(root.join("proc/sys/kernel/osrelease")).unwrap_or_default();
    let modules = root.join("lib/modules").join(release.trim());
    let Ok(builtin) = fs::read_to_string(modules.join("modules.builtin")) else { return true };
    // Lines are `kernel/fs/overlayfs/overlay.ko`, and `kernel/fs/overlayfs/overlay.ko.xz: what it needs`.
    let loadable = fs::read_to_string(modules.join("modules.dep")).unwrap_or_default();
    let file = format!("/{module}.ko");
    let is_it = |path: &str| path.rsplit_once(&file).is_some_and(|(_, end)| end.is_empty() || end.starts_with('.'));
    builtin.lines().any(is_it) || loadable.lines().filter_map(|line| line.split(':').next()).any(is_it)
}

fn is_taken(port: u16) -> bool {
    matches!(streams::listen::open((Ipv4Addr::UNSPECIFIED, port).into()), Err(error) if error.kind() == io::ErrorKind::AddrInUse)
}

/// Whether it is the agent that systemd runs here who listens. Without systemd nobody knows: on a machine that has joined, it is.
fn is_our_agents(port: u16) -> bool {
    !systemd::is_running() || Manager::default().main_pid(Role::Agent).is_some_and(|pid| listens(pid, port))
}

fn listens(pid: u32, port: u16) -> bool {
    let Some(process) = i32::try_from(pid).ok().and_then(|pid| Process::new(pid).ok()) else { return false };
    let sockets: Vec<u64> = process
        .fd()
        .into_iter()
        .flatten()
        .filter_map(|fd| match fd.ok()?.target {
            FDTarget::Socket(inode) => Some(inode),
            _ => None,
        })
        .collect();
    // Those of its whole network namespace.
    let mut tcp = [process.tcp(), process.tcp6()].into_iter().flatten().flatten();
    tcp.any(|entry| {
        entry.state == TcpState::Listen && entry.local_address.port() == port && sockets.contains(&entry.inode)
    })
}

/// Configurations that come before ours: the runtime takes the first by name.
fn earlier_networks(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let is_config = |name: &str| [".conf", ".conflist", ".json"].iter().any(|end| name.ends_with(end));
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_config(name) && name.as_str() < CONFLIST)
        .map(|name| dir.join(name).display().to_string())
        .collect();
    names.sort();
    names
}

/// What systemd says of units, one after the other.
fn show(units: &[&str]) -> String {
    let mut ask = Command::new("systemctl");
    ask.args(["show", "--property", "Id,ActiveState,UnitFileState"]).args(units).stdin(Stdio::null());
    ask.output().map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default()
}

/// Those that run, or will once the machine is started anew. One that cannot start yet is tried again and again: a kubelet without its
/// configuration is hardly ever active, and is with the next one.
fn claiming(said: &str) -> Vec<OtherAgent> {
    let read = |about: &str| {
        let value = |key: &str| about.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let runs = matches!(value("ActiveState")?, "active" | "activating" | "reloading");
        let starts = matches!(value("UnitFileState")?, "enabled" | "enabled-runtime");
        (runs || starts).then_some(OtherAgent { unit: value("Id")?.to_owned(), runs })
    };
    said.split("\n\n").filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn modules_are_loaded_or_built_in_or_absent() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        assert!(has_module(root, "overlay"), "nobody knows");
        for folder in ["proc/sys/kernel", "lib/modules/6.1", "sys/module/overlay"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::write(root.join("proc/sys/kernel/osrelease"), "6.1\n").unwrap();
        fs::write(root.join("lib/modules/6.1/modules.builtin"), "kernel/net/netfilter/nf_tables.ko\n").unwrap();
        assert!(has_module(root, "overlay") && has_module(root, "nf_tables") && !has_module(root, "tables"));
        fs::write(root.join("lib/modules/6.1/modules.dep"), "kernel/drivers/net/vxlan.ko.xz: kernel/net/tables.ko\n")
            .unwrap();
        assert!(has_module(root, "vxlan") && !has_module(root, "tables"));
    }

    #[test]
    fn another_agent_runs_or_is_about_to_or_starts_with_the_machine() {
        let said = "Id=kubelet.service\nActiveState=activating\nUnitFileState=enabled\n\n\
                    Id=k3s.service\nActiveState=inactive\nUnitFileState=\n\n\
                    Id=k0sworker.service\nActiveState=failed\nUnitFileState=enabled\n\n\
                    Id=rke2-agent.service\nActiveState=inactive\nUnitFileState=disabled\n\n\
                    UnitFileState=static\nId=rke2-server.service\nActiveState=active\n";
        let found: Vec<_> = claiming(said).into_iter().map(|one| (one.unit, one.runs)).collect();
        let expected = [("kubelet.service", true), ("k0sworker.service", false), ("rke2-server.service", true)];
        assert_eq!(found, expected.map(|(unit, runs)| (unit.to_owned(), runs)));
        assert_eq!(claiming(""), []);
    }

    #[test]
    fn only_configurations_that_sort_before_ours_count() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["05-a.conflist", "05-b.bak", "99-c.conf", CONFLIST] {
            fs::write(dir.path().join(name), "{}").unwrap();
        }
        let found = earlier_networks(dir.path());
        assert_eq!(found, [dir.path().join("05-a.conflist").display().to_string()]);
        assert_eq!(earlier_networks(Path::new("/nowhere")), Vec::<String>::new());
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_taken() {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let own = std::process::id();
        assert!(is_taken(port) && listens(own, port));
        // Not every process of the same network namespace listens.
        assert!(!listens(nix::unistd::getppid().as_raw().unsigned_abs(), port));
        drop(listener);
        assert!(!is_taken(port) && !listens(own, port));
    }
}
