//! What goes into a bundle. Each part stands alone: what cannot be had says why, and the rest is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cri::CallError;
use cri::v1::{ListContainersRequest, ListPodSandboxRequest, VersionRequest};
use serde_json::Value;
use tokio::process::Command;

use super::Part;
use crate::client::watch::describe;
use crate::config::Config;
use crate::doctor;
use crate::identity::{Identity, certificates};
use crate::inspect::ask;
use crate::network::{CONFLIST, Folders};
use crate::state_format::Stamp;
use crate::upgrade::About;

/// How long any one part may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Programs that are asked, and what their answers are called.
const COMMANDS: [(&str, &str); 18] = [
    ("logs/agent.log", "journalctl --no-pager -o short-iso-precise -n 5000 -u agent"),
    ("logs/containerd.log", "journalctl --no-pager -o short-iso-precise -n 1000 -u containerd"),
    ("logs/kernel.log", "journalctl --no-pager -o short-iso-precise -n 1000 -k"),
    ("machine/services.txt", "systemctl status --no-pager --full -n 0 agent containerd"),
    // Without its variables, a proxy's password among them.
    (
        "machine/agent-service.txt",
        "systemctl show --no-pager --property=Id,LoadState,ActiveState,SubState,Result,StatusText,UnitFileState,FragmentPath,DropInPaths,\
         NeedDaemonReload,ActiveEnterTimestamp,InactiveEnterTimestamp,MainPID,ExecMainCode,ExecMainStatus,NRestarts,Slice,ControlGroup,\
         MemoryCurrent,MemoryPeak,CPUUsageNSec,TasksCurrent,LimitNOFILE,WatchdogUSec agent",
    ),
    ("machine/uname.txt", "uname -a"),
    ("machine/disks.txt", "df -h"),
    ("machine/inodes.txt", "df -i"),
    // Without arguments: those may be secrets.
    ("machine/processes.txt", "ps -eo pid,ppid,user,stat,etime,rss,comm"),
    ("machine/clock.txt", "timedatectl status"),
    ("network/links.txt", "ip -d link show"),
    ("network/addresses.txt", "ip address show"),
    ("network/routes.txt", "ip route show table all"),
    ("network/rules.txt", "ip rule show"),
    ("network/neighbours.txt", "ip neighbour show"),
    ("network/nft.txt", "nft list ruleset"),
    ("network/listeners.txt", "ss -lntu"),
    ("network/conntrack.txt", "sysctl net.netfilter.nf_conntrack_count net.netfilter.nf_conntrack_max"),
];

/// Files as they are.
const FILES: [(&str, &str); 9] = [
    ("machine/os-release.txt", "/etc/os-release"),
    ("machine/memory.txt", "/proc/meminfo"),
    ("machine/load.txt", "/proc/loadavg"),
    ("machine/mounts.txt", "/proc/self/mountinfo"),
    ("machine/pressure-cpu.txt", "/proc/pressure/cpu"),
    ("machine/pressure-memory.txt", "/proc/pressure/memory"),
    ("machine/pressure-io.txt", "/proc/pressure/io"),
    ("network/forwarding.txt", "/proc/sys/net/ipv4/ip_forward"),
    ("network/resolv.conf", "/etc/resolv.conf"),
];

/// Everything, as far as it can be had.
pub(super) async fn gather(config_dir: &Path) -> Vec<Part> {
    let mut parts = vec![about()];
    let findings = serde_json::to_string_pretty(&doctor::node(config_dir).await);
    parts.push(Part::new("doctor.json", findings.map_err(|error| error.to_string())));
    match Config::load(config_dir) {
        Ok((config, warnings)) => {
            parts.push(Part::new("config/warnings.txt", Ok(warnings.join("\n"))));
            parts.extend(node(&config).await);
        }
        Err(error) => parts.push(Part::new("config/error.txt", Ok(describe(&error)))),
    }
    for (name, line) in COMMANDS {
        parts.push(Part::new(name, command(line).await));
    }
    parts.extend(FILES.map(|(name, path)| file(name, Path::new(path))));
    parts
}

fn about() -> Part {
    let text = serde_json::to_string_pretty(&serde_json::json!({
        "agent": About::own(),
        "at": jiff::Timestamp::now().to_string(),
    }));
    Part::new("about.json", text.map_err(|error| error.to_string()))
}

/// What is known of a node.
async fn node(config: &Config) -> Vec<Part> {
    let layout = &config.layout;
    let mut files = vec![layout.agent_yaml(), layout.node_yaml()];
    files.extend(Folders::known(config).map(|folders| folders.conf.join(CONFLIST)));
    let dropins = fs::read_dir(layout.dropin_dir()).into_iter().flatten().flatten();
    files.extend(dropins.map(|entry| entry.path()));
    let mut parts: Vec<Part> = files.iter().map(|path| file(&format!("config/{}", name(path)), path)).collect();
    let stamp = Stamp::read(&layout.data_dir).map_err(|error| describe(&error));
    parts.push(Part::new("state.json", stamp.and_then(|stamp| json(&stamp))));
    parts.push(Part::new("certificates.txt", Ok(certificates_of(config))));
    parts.extend(runtime(&config.kubelet.container_runtime_endpoint).await);
    parts.extend(agent(&layout.agent_socket()).await);
    parts
}

/// What the running agent says.
async fn agent(socket: &Path) -> Vec<Part> {
    let text = ask::text(socket, "/metrics").await.map_err(|error| describe(&error));
    let mut parts = vec![Part::new("metrics.txt", text)];
    for what in ["top", "pods"] {
        let answer = ask::ask::<Value>(socket, &format!("/{what}")).await.map_err(|error| describe(&error));
        if what == "pods" {
            for pod in answer.iter().filter_map(Value::as_array).flatten() {
                let field = |field: &str| pod.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
                let (namespace, name) = (field("namespace"), field("name"));
                let why = ask::ask::<Value>(socket, &format!("/explain/{namespace}/{name}")).await;
                let why = why.map_err(|error| describe(&error)).and_then(|why| json(&why));
                parts.push(Part::new(format!("explain/{namespace}_{name}.json"), why));
            }
        }
        parts.push(Part::new(format!("{what}.json"), answer.and_then(|answer| json(&answer))));
    }
    parts
}

/// What the runtime says. Annotations stay out: what was applied last is among them, and with it variables.
async fn runtime(endpoint: &str) -> Vec<Part> {
    let asking = async {
        let runtime = cri::Client::new(endpoint).map_err(|error| error.to_string())?;
        let failed = |error: CallError| describe(&error);
        let version = runtime.version(VersionRequest { version: "v1".into() }).await.map_err(failed)?;
        let status = runtime.status(cri::v1::StatusRequest { verbose: false }).await.map_err(failed)?;
        let mut text =
            format!("{} {} (CRI {})\n", version.runtime_name, version.runtime_version, version.runtime_api_version);
        for condition in status.status.unwrap_or_default().conditions {
            text.push_str(&format!(
                "{}={} {} {}\n",
                condition.r#type, condition.status, condition.reason, condition.message
            ));
        }
        let sandboxes = runtime.list_pod_sandbox(ListPodSandboxRequest { filter: None }).await.map_err(failed)?;
        text.push_str("\nsandboxes: id, state, pod, attempt\n");
        for sandbox in sandboxes.items {
            let (state, metadata) = (sandbox.state(), sandbox.metadata.clone().unwrap_or_default());
            let line =
                format!("{} {state:?} {}/{} {}\n", sandbox.id, metadata.namespace, metadata.name, metadata.attempt);
            text.push_str(&line);
        }
        let containers = runtime.list_containers(ListContainersRequest { filter: None }).await.map_err(failed)?;
        text.push_str("\ncontainers: id, state, sandbox, name, attempt, image\n");
        for container in containers.containers {
            let (state, metadata) = (container.state(), container.metadata.clone().unwrap_or_default());
            let (id, sandbox, image) = (&container.id, &container.pod_sandbox_id, &container.image_ref);
            text.push_str(&format!("{id} {state:?} {sandbox} {} {} {image}\n", metadata.name, metadata.attempt));
        }
        Ok::<_, String>(text)
    };
    let answer = tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| Err("no answer".to_owned()));
    vec![Part::new("runtime.txt", answer)]
}

/// Whose certificates there are, and until when; never the keys beside them.
fn certificates_of(config: &Config) -> String {
    let layout = &config.layout;
    let mut text = String::new();
    for path in [layout.client_pem(), layout.serving_pem()] {
        let line = match Identity::load(&path) {
            Ok(Some(identity)) => format!(
                "{}: {} {:?} from {} until {}\n",
                path.display(),
                identity.common_name,
                identity.sans,
                time(identity.not_before),
                time(identity.not_after)
            ),
            Ok(None) => format!("{}: none\n", path.display()),
            Err(error) => format!("{}: {}\n", path.display(), describe(&error)),
        };
        text.push_str(&line);
    }
    let path = layout.ca_cert();
    let roots = fs::read(&path).map_err(|error| error.to_string());
    match roots.and_then(|pem| certificates(&path.to_string_lossy(), &pem).map_err(|error| describe(&error))) {
        Ok(roots) => text.push_str(&format!("{}: {} certificate(s)\n", path.display(), roots.len())),
        Err(error) => text.push_str(&format!("{}: {error}\n", path.display())),
    }
    text
}

fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |at| at.to_string())
}

async fn command(line: &str) -> Result<String, String> {
    let mut words = line.split(' ');
    let program = words.next().unwrap_or_default();
    let mut command = Command::new(program);
    command.args(words).env("LC_ALL", "C.UTF-8").kill_on_drop(true);
    let running = tokio::time::timeout(PATIENCE, command.output());
    let out = running.await.map_err(|_| "no answer".to_owned())?.map_err(|error| format!("{program}: {error}"))?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(format!("# {line}\n{}{}", said(&out.stdout), said(&out.stderr)))
}

fn file(name: &str, path: &Path) -> Part {
    let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Part::new(name, text.map_err(|error| format!("{}: {error}", path.display())))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn json(value: &impl serde::Serialize) -> Result<String, String> {
    serde_json::to_string_pretty(value).map_err(|error| error.to_string())
}

/// Where it goes if nobody says so.
pub(super) fn default_output(node: &str) -> PathBuf {
    let at = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    PathBuf::from(format!("keelson-support-{node}-{at}.tar.gz"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_services_are_not_asked_for() {
        let shows: Vec<&str> =
            COMMANDS.map(|(_, line)| line).into_iter().filter(|line| line.contains(" show")).collect();
        let systemctl: Vec<&&str> = shows.iter().filter(|line| line.starts_with("systemctl")).collect();
        assert!(!systemctl.is_empty());
        for line in systemctl {
            assert!(line.contains("--property=") && !line.contains("Environment") && !line.contains(",  "), "{line}");
        }
    }
}
