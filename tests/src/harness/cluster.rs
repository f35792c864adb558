//! A whole cluster: up, down, and what lies between.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MntFlags, umount2};
use serde::{Deserialize, Serialize};

use super::audit::Snapshot;
use super::host::{self, Lan, inside};
use super::kubectl::Kubectl;
use super::layout::{HostPaths, Layout};
use super::process::{Process, spawn};
use super::shell::{output, wait_for};
use super::{containerd, images};

/// What nodes on this machine are told beside what the cluster tells them: all of them share its disk, and a disk that is
/// full in percent, as a developer's often is, still has room for them.
const KUBELET_CONFIG: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n\
    evictionHard: {memory.available: 100Mi, nodefs.available: 1Gi, imagefs.available: 1Gi, nodefs.inodesFree: 1%}\n";

/// What kind of cluster.
#[derive(Debug, Clone)]
pub struct Options {
    pub nodes: u8,
    /// More arguments of `master init`, e.g. a shorter `--node-monitor-grace-period`.
    pub master_args: Vec<String>,
    /// More arguments of `agent join`.
    pub agent_args: Vec<String>,
}

impl Options {
    #[must_use]
    pub fn nodes(nodes: u8) -> Self {
        Self { nodes, master_args: Vec::new(), agent_args: Vec::new() }
    }
}

/// What a cluster is made of, as written to disk while it is made, so that another process can end it.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    lan: u8,
    nodes: u8,
    /// All steps were done.
    complete: bool,
    processes: Vec<Process>,
}

/// A cluster on this machine. Dropping it does nothing: see [`Cluster::down`] and [`Guard`].
#[derive(Debug)]
pub struct Cluster {
    pub layout: Layout,
    pub lan: Lan,
    state: State,
    options: Options,
}

/// What is done, for whoever shows progress.
pub trait Progress {
    /// A step begins; `total` is how many [`Progress::tick`]s it has, 0 where it is one thing.
    fn step(&mut self, what: &str, total: u64);
    fn tick(&mut self);
}

/// Shows nothing.
pub struct Silent;

impl Progress for Silent {
    fn step(&mut self, _: &str, _: u64) {}
    fn tick(&mut self) {}
}

impl Cluster {
    /// Makes a cluster and waits until its nodes are Ready. On failure everything stays for a look; [`Cluster::down`] removes it.
    ///
    /// # Errors
    /// When a step fails.
    pub fn up(layout: Layout, options: Options, progress: &mut dyn Progress) -> Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "a cluster needs namespaces, cgroups and mounts: run it as root");
        fs::create_dir_all(&layout.base)?;
        fs::write(layout.before(), serde_json::to_vec(&Snapshot::take(&layout)?)?)?;
        let lan = Lan::free()?;
        let state = State { lan: lan.0, nodes: options.nodes, complete: false, processes: Vec::new() };
        let mut cluster = Self { layout, lan, state, options };
        cluster.save()?;

        progress.step("network: a bridge and a namespace for each host", 0);
        host::make_bridge(&cluster.layout, lan)?;
        host::make_host(&cluster.layout, &cluster.layout.host("m"), lan, lan.master())?;
        progress.step("master: certificates, store, API server, scheduler, controllers", 0);
        cluster.start_master()?;

        let images = images::all()?;
        progress.step("worker machines: containerd and images", u64::from(cluster.state.nodes) * images.len() as u64);
        for number in 1..=cluster.state.nodes {
            cluster.make_worker(number, &images, progress)?;
        }
        progress.step("agents join", u64::from(cluster.state.nodes));
        for number in 1..=cluster.state.nodes {
            cluster.join(number)?;
        }
        for number in 1..=cluster.state.nodes {
            cluster.wait_ready(&format!("n{number}"))?;
            progress.tick();
        }
        cluster.state.complete = true;
        cluster.save()?;
        Ok(cluster)
    }

    /// A cluster that another process made; `None` where there is none.
    ///
    /// # Errors
    /// When what is written there cannot be read.
    pub fn adopt(layout: Layout) -> Result<Option<Self>> {
        let path = layout.state();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        let state: State = serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))?;
        let options = Options::nodes(state.nodes);
        Ok(Some(Self { lan: Lan(state.lan), layout, state, options }))
    }

    /// All was made and all processes live.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.state.complete && self.state.processes.iter().all(Process::alive)
    }

    #[must_use]
    pub fn nodes(&self) -> u8 {
        self.state.nodes
    }

    #[must_use]
    pub fn kubectl(&self) -> Kubectl {
        Kubectl { kubeconfig: self.layout.admin_conf() }
    }

    /// One of the cluster's processes: `master`, `agent-n1`, `containerd-n1`, ….
    ///
    /// # Errors
    /// When it was not started.
    pub fn process(&self, name: &str) -> Result<&Process> {
        self.state.processes.iter().rfind(|p| p.name == name).with_context(|| format!("{name} was not started"))
    }

    fn start_master(&mut self) -> Result<()> {
        let host = self.layout.host("m");
        let mut init = inside(&host, &images::bin_dir().join("master"));
        init.args(["init", "--no-service", "--data-dir"]).arg(self.layout.master_dir());
        init.args(["--advertise-address", &self.lan.master().to_string()]).args(&self.options.master_args);
        output(&mut init).context("master init")?;
        self.run_master()?;
        fs::copy(self.layout.master_dir().join("admin.conf"), self.layout.admin_conf()).context("admin.conf")?;
        let kubectl = self.kubectl();
        wait_for("the API server", Duration::from_secs(30), || kubectl.say("get --raw /readyz").map(drop))
    }

    /// Starts the master's process, at first and after a test ended it.
    ///
    /// # Errors
    /// When it does not start.
    pub fn run_master(&mut self) -> Result<()> {
        let mut run = inside(&self.layout.host("m"), &images::bin_dir().join("master"));
        run.args(["run", "--data-dir"]).arg(self.layout.master_dir());
        self.start("master", &mut run)
    }

    fn make_worker(&mut self, number: u8, images: &[cri::import::Image], progress: &mut dyn Progress) -> Result<()> {
        let host = self.layout.host(&format!("n{number}"));
        host::make_host(&self.layout, &host, self.lan, self.lan.worker(number))?;
        self.run_containerd(&host.name)?;
        images::import(&host, images, |_| progress.tick())
    }

    /// Starts a worker machine's containerd, at first and after a test ended it.
    ///
    /// # Errors
    /// When it does not start.
    pub fn run_containerd(&mut self, node: &str) -> Result<()> {
        let process = containerd::start(&self.layout, &self.layout.host(node))?;
        self.remember(process)
    }

    fn join(&mut self, number: u8) -> Result<()> {
        let host = self.layout.host(&format!("n{number}"));
        let words = self.join_command()?;
        let mut join = inside(&host, &images::bin_dir().join("agent"));
        join.args(words.split_whitespace().skip(1)).arg("--foreground");
        self.agent_args(&mut join, &host);
        join.args(["--node-name", &host.name, "--node-ip", &self.lan.worker(number).to_string()]);
        join.args(["--container-runtime-endpoint", &host.endpoint(), "--cgroup-root", &host.cgroup_root()]);
        join.arg("--data-dir").arg(host.dir().join("data")).arg("--run-dir").arg(host.run());
        join.arg("--pod-log-dir").arg(host.dir().join("pod-logs"));
        join.arg("--cni-conf-dir").arg(host.cni_conf()).arg("--cni-bin-dir").arg(host.cni_bin());
        let config = host.dir().join("kubelet-config.yaml");
        fs::write(&config, KUBELET_CONFIG).with_context(|| format!("write {}", config.display()))?;
        join.arg("--kubelet-config").arg(&config);
        join.args(&self.options.agent_args);
        self.start(&format!("agent-{}", host.name), &mut join)
    }

    /// Starts the agent of a machine that has joined, after a test ended it.
    ///
    /// # Errors
    /// When it does not start.
    pub fn run_agent(&mut self, node: &str) -> Result<()> {
        let host = self.layout.host(node);
        let mut run = inside(&host, &images::bin_dir().join("agent"));
        run.arg("run");
        self.agent_args(&mut run, &host);
        self.start(&format!("agent-{node}"), &mut run)
    }

    fn agent_args(&self, command: &mut std::process::Command, host: &HostPaths) {
        command.arg("--config-dir").arg(host.dir().join("etc"));
    }

    /// `agent join IP:6443 --token … --ca-cert-hash …`, with a token of its own.
    ///
    /// # Errors
    /// When the master makes none.
    pub fn join_command(&self) -> Result<String> {
        let mut create = inside(&self.layout.host("m"), &images::bin_dir().join("master"));
        create.args(["token", "create", "--print-join-command", "--data-dir"]).arg(self.layout.master_dir());
        let said = output(&mut create)?;
        said.lines().find(|l| l.starts_with("agent join")).map(str::to_owned).context("no join command was printed")
    }

    /// Waits until a node is Ready.
    ///
    /// # Errors
    /// When it is not after a minute and a half.
    pub fn wait_ready(&self, node: &str) -> Result<()> {
        let kubectl = self.kubectl();
        let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
        wait_for(&format!("node {node} to be Ready"), Duration::from_secs(90), || {
            self.process(&format!("agent-{node}")).and_then(|p| {
                if p.alive() { Ok(()) } else { bail!("its agent ended; see {}", self.layout.log(&p.name).display()) }
            })?;
            let said = kubectl.run(&["get", "node", node, "-o", path])?;
            ensure!(said == "True", "Ready is {said:?}");
            Ok(())
        })
    }

    /// A command in a host's network: `m`, `n1`, ….
    #[must_use]
    pub fn inside(&self, host: &str, program: &str) -> std::process::Command {
        inside(&self.layout.host(host), Path::new(program))
    }

    fn start(&mut self, name: &str, command: &mut std::process::Command) -> Result<()> {
        let process = spawn(name, command, &self.layout.log(name))?;
        self.remember(process)
    }

    fn remember(&mut self, process: Process) -> Result<()> {
        self.state.processes.retain(|p| p.name != process.name || p.alive());
        self.state.processes.push(process);
        self.save()
    }

    fn save(&self) -> Result<()> {
        let path = self.layout.state();
        let fresh = path.with_extension("new");
        fs::write(&fresh, serde_json::to_vec_pretty(&self.state)?)?;
        fs::rename(&fresh, &path).with_context(|| format!("write {}", path.display()))
    }

    /// Ends the cluster and removes all of it; answers what is left although it should not be.
    ///
    /// # Errors
    /// When something refuses to go.
    pub fn down(self, progress: &mut dyn Progress) -> Result<Vec<String>> {
        let before: Option<Snapshot> =
            fs::read(self.layout.before()).ok().and_then(|b| serde_json::from_slice(&b).ok());
        progress.step("agents and pods end", u64::from(self.state.nodes));
        for process in self.state.processes.iter().filter(|p| p.name.starts_with("agent-")) {
            process.stop(Duration::from_secs(20))?;
        }
        for number in 1..=self.state.nodes {
            // A containerd that does not answer has no pods that it could end; its processes are ended below.
            if let Err(error) = remove_pods(&self.layout.host(&format!("n{number}"))) {
                eprintln!("n{number}: {error:#}");
            }
            progress.tick();
        }
        progress.step("containerd and master end", 0);
        for process in &self.state.processes {
            process.stop(Duration::from_secs(20))?;
        }
        sweep(&self.layout)?;
        fs::remove_dir_all(&self.layout.base).with_context(|| format!("remove {}", self.layout.base.display()))?;
        let after = Snapshot::take(&self.layout)?;
        Ok(before.map(|b| after.new_since(&b)).unwrap_or_default())
    }
}

fn remove_pods(host: &HostPaths) -> Result<()> {
    containerd::call(host, async |client| {
        for pod in client.list_pod_sandbox(cri::v1::ListPodSandboxRequest::default()).await?.items {
            let id = || pod.id.clone();
            client.stop_pod_sandbox(cri::v1::StopPodSandboxRequest { pod_sandbox_id: id() }).await?;
            client.remove_pod_sandbox(cri::v1::RemovePodSandboxRequest { pod_sandbox_id: id() }).await?;
        }
        Ok(())
    })
}

/// Removes what processes leave when they are killed rather than stopped: shims, mounts, cgroups, namespaces, sockets.
///
/// # Errors
/// When something refuses to go.
pub fn sweep(layout: &Layout) -> Result<()> {
    let run = layout.run();
    kill_shims(layout)?;
    for mount in mounts_below(&[&run, &layout.base])? {
        umount2(mount.as_str(), MntFlags::MNT_DETACH).with_context(|| format!("unmount {mount}"))?;
    }
    host::remove(layout)?;
    remove_cgroups(&layout.prefix())?;
    if run.exists() {
        fs::remove_dir_all(&run).with_context(|| format!("remove {}", run.display()))?;
    }
    Ok(())
}

fn kill_shims(layout: &Layout) -> Result<()> {
    let mark = format!("{}/", layout.run().display());
    let cgroup = format!("/{}-", layout.prefix());
    let ours = |pid: &i32| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        (line.contains("containerd-shim") && line.contains(&mark)) || groups.contains(&cgroup)
    };
    wait_for("the pods' processes to end", Duration::from_secs(20), || {
        let pids = fs::read_dir("/proc")?.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
        let left: Vec<i32> =
            pids.filter(|pid| *pid != i32::try_from(std::process::id()).unwrap_or(0)).filter(ours).collect();
        for pid in &left {
            // It may have ended since it was listed.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), nix::sys::signal::Signal::SIGKILL);
        }
        ensure!(left.is_empty(), "processes {left:?} live");
        Ok(())
    })
}

fn mounts_below(dirs: &[&Path]) -> Result<Vec<String>> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let points = text.lines().filter_map(|l| l.split(' ').nth(4));
    let mut found: Vec<String> =
        points.filter(|p| dirs.iter().any(|d| Path::new(p).starts_with(d))).map(str::to_owned).collect();
    // The deepest first: a mount below another goes before it.
    found.reverse();
    Ok(found)
}

fn remove_cgroups(prefix: &str) -> Result<()> {
    let tops = fs::read_dir("/sys/fs/cgroup")?.flatten().map(|e| e.path()).filter(|p| p.is_dir() && !p.is_symlink());
    for top in tops.chain([Path::new("/sys/fs/cgroup").to_owned()]) {
        let ours = fs::read_dir(&top).into_iter().flatten().flatten();
        for folder in ours.filter(|e| e.file_name().to_string_lossy().starts_with(&format!("{prefix}-"))) {
            remove_tree(&folder.path()).with_context(|| format!("remove cgroup {}", folder.path().display()))?;
        }
    }
    Ok(())
}

/// Cgroups are removed from the leaves up; the files in them are the kernel's.
fn remove_tree(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)?.flatten().filter(|e| e.path().is_dir()) {
        remove_tree(&entry.path())?;
    }
    fs::remove_dir(dir)
}

/// Ends the cluster when a test ends, however it ends, and fails the test if anything is left.
pub struct Guard(Option<Cluster>);

impl Guard {
    #[must_use]
    pub fn new(cluster: Cluster) -> Self {
        Self(Some(cluster))
    }
}

impl std::ops::Deref for Guard {
    type Target = Cluster;

    #[allow(clippy::expect_used)] // taken in drop only
    fn deref(&self) -> &Cluster {
        self.0.as_ref().expect("a guard holds its cluster until it is dropped")
    }
}

impl std::ops::DerefMut for Guard {
    #[allow(clippy::expect_used)] // taken in drop only
    fn deref_mut(&mut self) -> &mut Cluster {
        self.0.as_mut().expect("a guard holds its cluster until it is dropped")
    }
}

impl Drop for Guard {
    #[allow(clippy::panic)] // a test's clean-up has no other way to fail it
    fn drop(&mut self) {
        let Some(cluster) = self.0.take() else { return };
        if std::thread::panicking() && std::env::var_os("KEELSON_KEEP").is_some() {
            eprintln!("KEELSON_KEEP is set: the cluster stays, see {}", cluster.layout.base.display());
            return;
        }
        match cluster.down(&mut Silent) {
            Ok(left) if left.is_empty() => {}
            problem if std::thread::panicking() => eprintln!("clean-up after a failure: {problem:?}"),
            problem => panic!("the cluster did not go: {problem:?}"),
        }
    }
}
