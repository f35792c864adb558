//! From what was seen to problems. Pure.

use super::{OtherAgent, Seen};
use crate::doctor::{self, Finding};
use crate::network::ASIDE;
use crate::preflight::Refusal;

/// The oldest containerd that speaks CRI v1 as the agent does.
const OLDEST_CONTAINERD: (u32, u32) = (1, 6);
/// Images of a few pods and the agent's own files.
const LEAST_DISK: u64 = 1 << 30;

/// What a firewall is to let through.
const ALLOW: &str = "allow 10250/tcp from the master, 10256/tcp from load balancers, and traffic between the pod network and other nodes";

/// Something in the way, and the command that mends it where one does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What it is, and what to do.
    pub finding: Finding,
    /// The remedy as a command.
    pub fix: Option<Vec<String>>,
}

/// Every problem, worst first within a subject.
pub fn judge(seen: &Seen) -> Vec<Problem> {
    let mut problems = Vec::new();
    problems.extend(runtime(&seen.runtime));
    problems.extend(seen.absent_modules.iter().map(|module| {
        let remedy = "boot a kernel that has it (after an upgrade of the kernel: reboot)";
        plain(Finding::fault("kernel", format!("this kernel has no module {module}"), remedy))
    }));
    problems.extend(seen.refusals.iter().map(refused));
    problems.extend(seen.other_agents.iter().map(|OtherAgent { unit, runs }| {
        let how = if *runs { "runs here, and" } else { "starts with this machine, and then" };
        let message = format!("{unit} {how} would fight for the same pods");
        mendable("other agents", message, &["systemctl", "disable", "--now", unit])
    }));
    // Where another agent holds them, ending it frees them.
    if !seen.other_agents.iter().any(|agent| agent.runs) {
        problems.extend(seen.taken_ports.iter().map(|port| {
            let remedy = format!("ss -lntp sport = :{port} says who it is: stop it");
            plain(Finding::fault("ports", format!("somebody else listens on {port}"), remedy))
        }));
    }
    problems.extend(seen.earlier_networks.iter().map(|path| {
        let message = format!("{path} comes before our network configuration, so that pods would get its network");
        mendable("CNI", message, &["mv", path, &format!("{path}{ASIDE}")])
    }));
    problems
        .extend(seen.firewalls.iter().map(|name| plain(Finding::warning("firewall", format!("{name} runs"), ALLOW))));
    let [forward, input] = &seen.closed;
    problems.extend(forward.iter().map(|chain| plain(doctor::closed(chain))));
    problems.extend(
        input
            .iter()
            .map(|chain| plain(Finding::warning("firewall", format!("{chain} drops what it does not accept"), ALLOW))),
    );
    if let Some(free) = seen.free.filter(|free| *free < LEAST_DISK) {
        let message = format!("{} MiB are free where pods live", free >> 20);
        problems.push(plain(Finding::fault("disk", message, "free some, or choose another --data-dir")));
    }
    if seen.hostname == "localhost" || seen.hostname.starts_with("localhost.") {
        let remedy = "hostnamectl set-hostname NAME, or --node-name NAME";
        problems.push(plain(Finding::fault("host name", "every machine is called localhost", remedy)));
    }
    problems
}

fn refused(refusal: &Refusal) -> Problem {
    match refusal {
        Refusal::Swap => {
            let message = "swap is on, and failSwapOn forbids it; /etc/fstab would turn it on again at the next boot";
            mendable("swap", message, &["swapoff", "--all"])
        }
        Refusal::CgroupV1 | Refusal::KillsOne => {
            let remedy =
                "boot with systemd.unified_cgroup_hierarchy=1, or have a kubelet configuration without the field";
            plain(Finding::fault("cgroups", refusal.to_string(), remedy))
        }
        Refusal::KernelFlag(flag) => {
            let message = format!("{refusal}; a file of /etc/sysctl.d keeps it over the next boot");
            mendable("kernel", message, &["sysctl", "-w", &format!("{}={}", flag.key, flag.expected)])
        }
        Refusal::ReservedCpus { .. } => {
            let remedy = "have a kubelet configuration with other reservedSystemCPUs";
            plain(Finding::fault("CPUs", refusal.to_string(), remedy))
        }
    }
}

fn runtime((name, version): &(String, String)) -> Option<Problem> {
    let mut numbers = version.trim_start_matches('v').split('.').map_while(|part| part.parse::<u32>().ok());
    let found = (numbers.next()?, numbers.next()?);
    if name != "containerd" || found >= OLDEST_CONTAINERD {
        return None;
    }
    let (major, minor) = OLDEST_CONTAINERD;
    let message = format!("containerd {version} is too old");
    Some(plain(Finding::fault("container runtime", message, format!("install {major}.{minor} or later"))))
}

fn plain(finding: Finding) -> Problem {
    Problem { finding, fix: None }
}

fn mendable(subject: &'static str, message: impl Into<String>, command: &[&str]) -> Problem {
    let finding = Finding::fault(subject, message, command.join(" "));
    Problem { finding, fix: Some(command.iter().map(|&word| word.to_owned()).collect()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel_flags::Flag;

    fn well() -> Seen {
        Seen {
            runtime: ("containerd".into(), "1.7.24~ds1".into()),
            free: Some(LEAST_DISK),
            hostname: "n1".into(),
            ..Seen::default()
        }
    }

    fn messages(seen: &Seen) -> Vec<String> {
        judge(seen)
            .into_iter()
            .map(|problem| format!("{}: {}", problem.finding.subject, problem.finding.message))
            .collect()
    }

    #[test]
    fn a_plain_debian_has_no_problem() {
        assert_eq!(judge(&well()), []);
    }

    #[test]
    fn each_problem_has_its_remedy_and_some_a_command() {
        let seen = Seen {
            runtime: ("containerd".into(), "1.5.9".into()),
            absent_modules: vec!["overlay"],
            refusals: vec![
                Refusal::Swap,
                Refusal::CgroupV1,
                Refusal::KernelFlag(Flag { key: "kernel/panic", expected: 10, actual: 0 }),
                Refusal::ReservedCpus { reserved: "9".into(), online: "0-1".into() },
            ],
            other_agents: vec![OtherAgent { unit: "kubelet.service".into(), runs: true }],
            taken_ports: vec![10250],
            earlier_networks: vec!["/etc/cni/net.d/05-x.conflist".into()],
            firewalls: vec!["ufw.service".into()],
            closed: [vec!["inet filter forward".into()], vec!["inet filter input".into()]],
            free: Some(5 << 20),
            hostname: "localhost.localdomain".into(),
        };
        let problems = judge(&seen);
        assert!(problems.iter().all(|problem| problem.finding.remedy.is_some()));
        let fixes: Vec<String> = problems.iter().filter_map(|problem| Some(problem.fix.as_ref()?.join(" "))).collect();
        assert_eq!(
            fixes,
            [
                "swapoff --all",
                "sysctl -w kernel/panic=10",
                "systemctl disable --now kubelet.service",
                "mv /etc/cni/net.d/05-x.conflist /etc/cni/net.d/05-x.conflist.before-keelson",
            ]
        );
        // The port is the kubelet's.
        assert_eq!(problems.len(), 13);
        assert!(messages(&seen).contains(&"kernel: this kernel has no module overlay".to_owned()));
        assert!(messages(&seen).contains(&"disk: 5 MiB are free where pods live".to_owned()));
    }

    #[test]
    fn a_port_is_somebodys_where_no_other_agent_runs() {
        let mut seen = Seen { taken_ports: vec![10250], ..well() };
        assert_eq!(messages(&seen), ["ports: somebody else listens on 10250"]);
        seen.other_agents = vec![OtherAgent { unit: "k3s.service".into(), runs: false }];
        let starts = "other agents: k3s.service starts with this machine, and then would fight for the same pods";
        assert_eq!(messages(&seen), [starts, "ports: somebody else listens on 10250"]);
    }

    #[test]
    fn only_containerds_versions_are_known() {
        let version = |name: &str, version: &str| Seen { runtime: (name.into(), version.into()), ..well() };
        assert_eq!(messages(&version("containerd", "v1.5.11")), ["container runtime: containerd v1.5.11 is too old"]);
        for (name, number) in
            [("containerd", "v2.1.0"), ("containerd", "1.6.20"), ("cri-o", "1.3.0"), ("containerd", "dev")]
        {
            assert_eq!(judge(&version(name, number)), [], "{name} {number}");
        }
    }
}
