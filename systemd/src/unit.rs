//! Unit file texts, as pure functions.

use std::path::{Path, PathBuf};

/// The slice that both services live in, apart from `system.slice` so that its limits are the administrator's.
pub const SLICE: &str = "keelson.slice";

/// Which of the two programs a unit runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The node agent: owns containers that must outlive it.
    Agent,
    /// The control plane.
    Master,
}

impl Role {
    /// The unit's file name.
    #[must_use]
    pub fn unit_name(self) -> &'static str {
        match self {
            Self::Agent => "agent.service",
            Self::Master => "master.service",
        }
    }

    /// The program that may be on the same machine.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Agent => Self::Master,
            Self::Master => Self::Agent,
        }
    }

    fn description(self) -> &'static str {
        match self {
            Self::Agent => "Keelson node agent",
            Self::Master => "Keelson control plane",
        }
    }
}

/// What a unit runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Which program.
    pub role: Role,
    /// Absolute path of the executable.
    pub executable: PathBuf,
    /// Its arguments, unquoted.
    pub args: Vec<String>,
    /// The only folder that it writes to; `None` of an agent, which writes wherever volumes lead.
    pub writes: Option<PathBuf>,
}

impl Service {
    /// The service as a package has it: programs in `/usr/bin`, folders as they are where nobody chose others.
    #[must_use]
    pub fn packaged(role: Role) -> Self {
        let (executable, option, folder) = match role {
            Role::Agent => ("/usr/bin/agent", "--config-dir", "/etc/keelson"),
            Role::Master => ("/usr/bin/master", "--data-dir", "/var/lib/keelson-master"),
        };
        let writes = (role == Role::Master).then(|| folder.into());
        Self { role, executable: executable.into(), args: ["run", option, folder].map(str::to_owned).to_vec(), writes }
    }
}

/// The text of `keelson.slice`.
#[must_use]
pub fn slice_text() -> String {
    "[Unit]\nDescription=Keelson\nBefore=slices.target\n\n[Slice]\nCPUAccounting=yes\nMemoryAccounting=yes\n".to_owned()
}

/// The text of a service unit.
///
/// What hardens the agent takes nothing that it does: it mounts volumes, enters network namespaces and gives files away. So none of the
/// options that need a mount namespace of its own (`ProtectSystem=` and the like): mounts made in one are not seen by containers. A master
/// needs a folder and the network, and has nothing else.
///
/// `Delegate=yes` and `KillMode=process` belong together: the agent makes cgroups of its own, and a restart of the
/// unit must not end what runs in them. `TasksMax=infinity` for the same reason: shims are forked by containerd, but
/// exec probes and log followers count here.
#[must_use]
pub fn service_text(service: &Service) -> String {
    let after = match service.role {
        // Loading is nothing that the service itself may do. Without it bridged packets pass no rules.
        Role::Agent => "network-online.target containerd.service modprobe@br_netfilter.service",
        Role::Master => "network-online.target",
    };
    let extra = match service.role {
        Role::Agent => {
            "Delegate=yes\nKillMode=process\nTasksMax=infinity\nOOMScoreAdjust=-999\n\
             RestrictNamespaces=net mnt\nCapabilityBoundingSet=~CAP_SYS_TIME CAP_SYS_BOOT CAP_SYS_PACCT CAP_SYS_RAWIO \
             CAP_SYS_TTY_CONFIG CAP_WAKE_ALARM CAP_BPF CAP_LEASE\n"
        }
        Role::Master => MASTER,
    };
    let writes = service.writes.as_ref().map_or_else(String::new, |folder| {
        format!("ProtectSystem=strict\nReadWritePaths={}\n", quote(&folder.to_string_lossy()))
    });
    format!(
        "[Unit]\nDescription={description}\nDocumentation=https://kubernetes.io/docs/\nWants={after}\nAfter={after}\n\
         StartLimitIntervalSec=0\n\n\
         [Service]\nType=notify\nNotifyAccess=main\nExecStart={command}\nRestart=always\nRestartSec=1\nSlice={SLICE}\n\
         EnvironmentFile=-/etc/default/keelson-{program}\nWatchdogSec=60\nLimitNOFILE=1048576\n{extra}{writes}{HARDENING}\n\
         [Install]\nWantedBy=multi-user.target\n",
        description = service.role.description(),
        program = service.role.unit_name().trim_end_matches(".service"),
        command = command_line(&service.executable, &service.args),
    )
}

/// What neither program needs.
const HARDENING: &str = "NoNewPrivileges=yes\nLockPersonality=yes\nMemoryDenyWriteExecute=yes\nRestrictRealtime=yes\n\
     SystemCallArchitectures=native\nSystemCallFilter=~@clock @cpu-emulation @debug @module @obsolete @raw-io @reboot @swap\n\
     SystemCallErrorNumber=EPERM\nRestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK\n";

/// What is a master's own: all that it may do beside serving its folder over the network is a port below 1024.
const MASTER: &str = "TimeoutStopSec=30\nOOMScoreAdjust=-900\n\
     CapabilityBoundingSet=CAP_NET_BIND_SERVICE\nRestrictNamespaces=yes\nRestrictSUIDSGID=yes\nUMask=0077\n\
     PrivateTmp=yes\nPrivateDevices=yes\nProtectHome=read-only\nProtectClock=yes\nProtectHostname=yes\nProtectControlGroups=yes\n\
     ProtectKernelLogs=yes\nProtectKernelModules=yes\nProtectKernelTunables=yes\nProtectProc=invisible\n";

fn command_line(executable: &Path, args: &[String]) -> String {
    let mut line = quote(&executable.to_string_lossy());
    for arg in args {
        line.push(' ');
        line.push_str(&quote(arg));
    }
    line
}

/// Quotes one word of `ExecStart=` (systemd.service(5), "Command lines"): specifiers and variables are doubled.
fn quote(word: &str) -> String {
    let escaped = word.replace('%', "%%").replace('$', "$$");
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,%$@+".contains(c);
    if !escaped.is_empty() && escaped.chars().all(plain) {
        return escaped;
    }
    format!("\"{}\"", escaped.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(args: &[&str]) -> Service {
        let args = args.iter().map(|a| (*a).to_owned()).collect();
        Service { role: Role::Agent, executable: "/usr/local/bin/agent".into(), args, writes: None }
    }

    #[test]
    fn agent_unit_keeps_containers_over_restarts() {
        let text = service_text(&agent(&["run", "--config-dir", "/etc/keelson"]));
        for line in [
            "Type=notify",
            "Delegate=yes",
            "KillMode=process",
            "Restart=always",
            "Slice=keelson.slice",
            "NoNewPrivileges=yes",
            "RestrictNamespaces=net mnt",
            "SystemCallFilter=~@clock @cpu-emulation @debug @module @obsolete @raw-io @reboot @swap",
            "ExecStart=/usr/local/bin/agent run --config-dir /etc/keelson",
            "After=network-online.target containerd.service modprobe@br_netfilter.service",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn master_unit_ends_everything_it_started() {
        let writes = Some("/a folder".into());
        let service = Service { role: Role::Master, executable: "/m".into(), args: vec!["run".into()], writes };
        let text = service_text(&service);
        assert!(text.contains("\nProtectSystem=strict\nReadWritePaths=\"/a folder\"\n"), "{text}");
        assert!(!text.contains("KillMode"), "{text}");
        assert!(!text.contains("containerd"), "{text}");
    }

    #[test]
    fn words_with_blanks_and_specifiers_are_quoted() {
        let text = service_text(&agent(&["--x=a b", "100%", "$HOME", "say \"hi\""]));
        assert!(text.contains(r#"agent "--x=a b" 100%% $$HOME "say \"hi\"""#), "{text}");
    }
}
