//! A whole cluster: up, down, and what lies between.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::audit::Snapshot;
use super::host::{self, Lan, inside};
use super::kubectl::Kubectl;
use super::layout::{HostPaths, Layout};
use super::process::{Process, spawn};
use super::shell::{output, wait_for};
use super::sweep::{remove_pods, sweep};
use super::upstream::Upstream;
use super::{containerd, images, registry};

/// What nodes on this machine are told beside what the cluster tells them: all of them share its disk, and a disk that is
/// full in percent, as a developer's often is, still has room for them.
#[must_use]
pub fn kubelet_config(more: &BTreeMap<String, Value>) -> Value {
    let mut config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "evictionHard": {
            "memory.available": "100Mi", "nodefs.available": "1Gi", "imagefs.available": "1Gi", "nodefs.inodesFree": "1%",
        },
        "imageGCHighThresholdPercent": 100,
    });
    if let Some(fields) = config.as_object_mut() {
        fields.extend(more.clone());
    }
    config
}

/// Whose a part of a cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// `master` or `agent`.
    Ours,
    /// The components of Kubernetes.
    Stock,
}

/// What kind of cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Options {
    pub nodes: u8,
    pub control_plane: Part,
    pub workers: Part,
    /// For upstream's suites: worker machines get the stand-ins for upstream's test images instead of ours, and the cluster gets CoreDNS.
    pub suite: bool,
    /// Where the stock components are.
    pub upstream: Option<Upstream>,
    /// The folder of containerd and its shim; the one in PATH otherwise.
    pub containerd: Option<PathBuf>,
    /// The same of single worker machines, by number.
    #[serde(default)]
    pub containerd_of: BTreeMap<u8, PathBuf>,
    /// More arguments of `master init`, e.g. a shorter `--node-monitor-grace-period`.
    pub master_args: Vec<String>,
    /// More arguments of `agent join`.
    pub agent_args: Vec<String>,
    /// More fields of the nodes' KubeletConfiguration.
    #[serde(default)]
    pub kubelet: BTreeMap<String, Value>,
}

impl Options {
    #[must_use]
    pub fn nodes(nodes: u8) -> Self {
        Self {
            nodes,
            control_plane: Part::Ours,
            workers: Part::Ours,
            suite: false,
            upstream: None,
            containerd: std::env::var_os("KEELSON_CONTAINERD").map(PathBuf::from),
            containerd_of: BTreeMap::new(),
            master_args: Vec::new(),
            agent_args: Vec::new(),
            kubelet: BTreeMap::new(),
        }
    }
}

/// What a cluster is made of, as written to disk while it is made, so that another process can end it.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    lan: u8,
    options: Options,
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
}

/// What is done, for whoever shows progress.
pub trait Progress {
    /// A step begins; `total` is how many [`Progress::tick`]s it has, 0 where it is one thing.
    fn step(&mut self, what: &str, total: u64);
    fn tick(&mut self);
    /// A line that stays.
    fn note(&mut self, line: &str);
}

/// Shows nothing.
pub struct Silent;

impl Progress for Silent {
    fn step(&mut self, _: &str, _: u64) {}
    fn tick(&mut self) {}
    fn note(&mut self, _: &str) {}
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
        let state = State { lan: lan.0, options, complete: false, processes: Vec::new() };
        let mut cluster = Self { layout, lan, state };
        cluster.save()?;

        progress.step("network: a bridge and a namespace for each host", 0);
        host::make_bridge(&cluster.layout, lan)?;
        host::make_host(&cluster.layout, &cluster.layout.host("m"), lan, lan.master())?;
        cluster.start_control_plane(progress)?;

        if cluster.state.options.suite {
            progress.step("registry", 0);
            for process in registry::start(&cluster.layout, lan.master(), cluster.upstream()?)? {
                cluster.remember(process)?;
            }
        }
        progress.step("images: reading their archives", 0);
        let images = cluster.images()?;
        let nodes = cluster.nodes();
        progress.step("worker machines: containerd and images", u64::from(nodes) * images.len() as u64);
        for number in 1..=nodes {
            cluster.make_worker(number, &images, progress)?;
        }
        progress.step("nodes join", u64::from(nodes));
        for number in 1..=nodes {
            match cluster.state.options.workers {
                Part::Ours => cluster.join(number)?,
                Part::Stock => cluster.join_stock_node(number)?,
            }
        }
        if (cluster.control_plane(), cluster.workers()) == (Part::Stock, Part::Ours) {
            cluster.admit_our_nodes()?;
        }
        for number in 1..=nodes {
            cluster.wait_ready(&format!("n{number}"))?;
            progress.tick();
        }
        cluster.route_pods()?;
        if cluster.state.options.suite && nodes > 0 {
            progress.step("CoreDNS", 0);
            cluster.start_dns()?;
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
        Ok(Some(Self { lan: Lan(state.lan), layout, state }))
    }

    /// All was made and all processes live.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.state.complete && self.state.processes.iter().all(Process::alive)
    }

    #[must_use]
    pub fn nodes(&self) -> u8 {
        self.state.options.nodes
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

    /// More fields of the nodes' KubeletConfiguration than the harness has.
    pub(super) fn kubelet_fields(&self) -> &BTreeMap<String, Value> {
        &self.state.options.kubelet
    }

    /// Whose control plane it is.
    #[must_use]
    pub fn control_plane(&self) -> Part {
        self.state.options.control_plane
    }

    /// Whose worker machines they are.
    #[must_use]
    pub fn workers(&self) -> Part {
        self.state.options.workers
    }

    /// Where the stock components are.
    ///
    /// # Errors
    /// When the cluster was made without them.
    pub fn upstream(&self) -> Result<&Upstream> {
        self.state.options.upstream.as_ref().context("this cluster was made without the stock components")
    }

    fn start_control_plane(&mut self, progress: &mut dyn Progress) -> Result<()> {
        match self.state.options.control_plane {
            Part::Ours => {
                progress.step("master: certificates, store, API server, scheduler, controllers", 0);
                self.start_master()
            }
            Part::Stock => {
                progress.step("kubeadm's certificates, etcd, kube-apiserver, -controller-manager, -scheduler", 0);
                self.start_stock_control_plane()
            }
        }
    }

    fn images(&self) -> Result<Vec<cri::import::Image>> {
        let options = &self.state.options;
        if options.nodes == 0 {
            return Ok(Vec::new());
        }
        if options.suite {
            return images::archives(&self.upstream()?.archives()?);
        }
        let mut images = images::all()?;
        if options.workers == Part::Stock {
            // Our agent brings its own.
            images.extend(images::archives(&[self.upstream()?.images.join("pause.tar")])?);
        }
        Ok(images)
    }

    fn start_master(&mut self) -> Result<()> {
        let host = self.layout.host("m");
        let mut init = inside(&host, &images::bin_dir().join("master"));
        init.args(["init", "--no-service", "--data-dir"]).arg(self.layout.master_dir());
        init.args(["--advertise-address", &self.lan.master().to_string()]).args(&self.state.options.master_args);
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
        let options = &self.state.options;
        let own = node.strip_prefix('n').and_then(|number| options.containerd_of.get(&number.parse().ok()?));
        let tools = own.or(options.containerd.as_ref()).map(PathBuf::as_path);
        let process = containerd::start(&self.layout, &self.layout.host(node), tools)?;
        self.remember(process)
    }

    /// Has a worker machine join, for the first time or again; its agent goes on as the node's.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn join(&mut self, number: u8) -> Result<()> {
        let words = self.join_command()?;
        self.join_by(number, &words)
    }

    /// The same by a command of the test's own, such as one with several masters.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn join_by(&mut self, number: u8, words: &str) -> Result<()> {
        let host = self.layout.host(&format!("n{number}"));
        let mut join = inside(&host, &images::bin_dir().join("agent"));
        join.args(words.split_whitespace().skip(1)).arg("--foreground");
        self.agent_args(&mut join, &host);
        join.args(["--node-name", &host.name, "--node-ip", &self.lan.worker(number).to_string()]);
        join.args(["--container-runtime-endpoint", &host.endpoint(), "--cgroup-root", &host.cgroup_root()]);
        join.arg("--data-dir").arg(host.dir().join("data")).arg("--run-dir").arg(host.run());
        join.arg("--pod-log-dir").arg(host.dir().join("pod-logs"));
        join.arg("--cni-conf-dir").arg(host.cni_conf()).arg("--cni-bin-dir").arg(host.cni_bin());
        let config = host.dir().join("kubelet-config.yaml");
        // Every JSON is a YAML.
        let text = kubelet_config(&self.state.options.kubelet).to_string();
        fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        join.arg("--kubelet-config").arg(&config);
        join.args(&self.state.options.agent_args);
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
        if self.control_plane() == Part::Stock {
            return self.stock_join_command();
        }
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
            let program = if self.workers() == Part::Ours { "agent" } else { "kubelet" };
            self.process(&format!("{program}-{node}")).and_then(|p| {
                ensure!(p.alive(), "its {program} ended; see {}", self.layout.log(&p.name).display());
                Ok(())
            })?;
            let said = kubectl.run(&["get", "node", node, "-o", path])?;
            ensure!(said == "True", "Ready is {said:?}");
            Ok(())
        })
    }

    /// Routes to the pods of each worker machine: from the master, which asks webhooks and aggregated API servers there, and between stock
    /// nodes, where this is the work of a pod network. Our agents make their own.
    fn route_pods(&self) -> Result<()> {
        let ranges: Vec<_> =
            (1..=self.nodes()).map(|n| Ok((n, self.pod_range(&format!("n{n}"))?))).collect::<Result<_>>()?;
        for (number, range) in &ranges {
            let via = self.lan.worker(*number).to_string();
            let others = (1..=self.nodes()).filter(|n| n != number && self.workers() == Part::Stock);
            for host in others.map(|n| format!("n{n}")).chain(["m".to_owned()]) {
                output(self.inside(&host, "ip").args(["route", "replace", range, "via", &via]))?;
            }
        }
        Ok(())
    }

    fn start_dns(&self) -> Result<()> {
        let kubectl = self.kubectl();
        let manifest = images::checkout().join("tests/upstream/coredns.yaml");
        kubectl.run(&["apply", "-f", &manifest.to_string_lossy()])?;
        kubectl.say("rollout status deployment/coredns -n kube-system --timeout=120s").map(drop)
    }

    /// The logs of its processes.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn logs(&self) -> Result<Vec<PathBuf>> {
        let dir = self.layout.base.join("log");
        let read = fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))?;
        Ok(read.flatten().map(|e| e.path()).collect())
    }

    /// A command in a host's network: `m`, `n1`, ….
    #[must_use]
    pub fn inside(&self, host: &str, program: &str) -> std::process::Command {
        inside(&self.layout.host(host), Path::new(program))
    }

    pub(super) fn start(&mut self, name: &str, command: &mut std::process::Command) -> Result<()> {
        let process = spawn(name, command, &self.layout.log(name))?;
        self.remember(process)
    }

    /// Has a process end with the cluster.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub fn remember(&mut self, process: Process) -> Result<()> {
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
        progress.step("agents and pods end", u64::from(self.nodes()));
        for process in self.state.processes.iter().filter(|p| p.is_node()) {
            process.stop(Duration::from_secs(20))?;
        }
        for number in 1..=self.nodes() {
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

/// Ends the cluster that a suite shared, and says whether all is well: the tests passed and nothing is left.
#[must_use]
pub fn end(layout: Layout, passed: bool) -> ExitCode {
    let left = Cluster::adopt(layout).and_then(|c| c.map_or(Ok(Vec::new()), |c| c.down(&mut Silent)));
    match left {
        Ok(left) if left.is_empty() && passed => ExitCode::SUCCESS,
        Ok(left) => {
            left.iter().for_each(|l| eprintln!("left behind: {l}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("the cluster did not go: {error:#}");
            ExitCode::FAILURE
        }
    }
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
