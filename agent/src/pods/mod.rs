//! The pods of this node: one worker task for each pod UID (see [`worker`] for its loop).
//!
//! ```text
//! source (API watch) ----> set ----> worker ----> stages ----> CRI, volumes, cgroups
//! runtime events --------> set ----> worker <---- observe <--- CRI
//!                                    worker ----> status  ---> API
//! ```
//!
//! * [`set`]: which workers there are; hands each its desired pod and wakes it when the runtime changes.
//! * [`manifests`], [`statics`]: static pods, and their mirrors at the API server.
//! * [`workers`]: their tasks, started again after a panic.
//! * [`worker`]: reads the world, asks [`pod::plan()`], runs the steps, publishes [`pod::status()`].
//! * [`observe`]: what the runtime has of a pod.
//! * [`stages`]: the only I/O: sandbox, containers, kills, teardown.
//! * [`probing`], [`status`], [`hooks`], [`objects`], [`services`]: what stages and workers use.
//! * [`resolv_conf`]: the node's DNS, as pods see it.
//! * [`admission`], [`sysctls`]: whether the node takes a pod; [`orders`]: that it ends one.
//! * [`userns`]: which ids pods have that do not share the node's users.
//! * [`checkpoint`], [`record`]: pods, and what they were given, for an agent that is started again.
//! * [`journal`], [`questions`]: what was decided and what is about to be, for people who ask.
//! * [`allocatable`]: what all pods may use, and what the system has.
//! * [`sandbox_seccomp`]: what pause containers may ask of the kernel.
//! * [`source`], [`gc`], [`qos`], [`logs`], [`log_links`], [`runtime`]: what runs beside the workers.
//!
//! The rest of the agent gives [`Deps`] to [`start`] and keeps the [`PodsHandle`].

pub mod admission;
pub mod allocatable;
pub mod checkpoint;
pub mod gc;
pub mod hooks;
pub mod journal;
pub mod labels;
pub mod log_links;
pub mod logs;
pub mod manifests;
pub mod memory;
pub mod objects;
pub mod observe;
pub mod orders;
pub mod probing;
pub mod publication;
pub mod qos;
pub mod questions;
pub mod record;
pub mod registry;
pub mod resolv_conf;
pub mod runtime;
pub mod sandbox_seccomp;
pub mod services;
pub mod set;
pub mod source;
pub mod stages;
pub mod statics;
pub mod status;
pub mod sysctls;
mod turns;
pub mod userns;
pub mod worker;
pub mod workers;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::resources::ResourceList;
use cgroups::values::{Allocatable, ClassPolicy, MemoryReserve, Policy, Requests};
use cgroups::{Driver, Naming, Tree};
use tokio::sync::{Notify, watch};

use crate::config::kubelet::{MEMORY_QOS, ShutdownGracePeriodByPodPriority};
use crate::config::{Config, KubeletConfiguration};
use crate::events::{Recorder, node_reference};
use crate::eviction;
use crate::images;
use crate::metrics::TimedCgroups;
use crate::node::facts::Facts;
use crate::node::own;
use crate::shutdown;
use crate::stats::{self, disk::DiskUsage};
use crate::tasks::Tasks;
use journal::Journal;
use manifests::Manifests;
use objects::ApiObjects;
use orders::Orders;
use questions::Questions;
use registry::Registry;
use stages::limits::{Machine, MemoryQos};

/// What the pods need of the rest of the agent.
pub struct Deps {
    pub config: PodsConfig,
    pub client: kube::Client,
    pub runtime: cri::Client,
    pub recorder: Recorder,
    /// The node's addresses, primary first.
    pub addresses: watch::Receiver<Vec<IpAddr>>,
    /// The Node as the API server has it.
    pub node: own::Receiver,
    /// What this machine is.
    pub facts: Facts,
    /// This machine's cgroups, from [`open_cgroups`].
    pub cgroups: Arc<dyn Driver>,
    /// Is told when the runtime has come back: it may be another one.
    pub runtime_back: Arc<Notify>,
    /// Is told what the node is short of.
    pub pressures: watch::Sender<eviction::Pressures>,
    /// Is told whether the machine shuts down.
    pub shutting_down: watch::Sender<bool>,
}

/// What pods need to know of the node's configuration.
#[derive(Debug, Clone)]
pub struct PodsConfig {
    pub node_name: String,
    /// Labels that the node registers with.
    pub node_labels: BTreeMap<String, String>,
    pub data_dir: PathBuf,
    /// `podLogsDir`.
    pub logs_dir: PathBuf,
    /// `cgroupRoot`.
    pub cgroup_root: String,
    pub machine: Machine,
    /// What the cgroup above all pods is limited to.
    pub enforced: Allocatable,
    /// What decides on the memory of QoS classes.
    pub classes: ClassPolicy,
    /// The node's `status.allocatable`.
    pub allocatable: ResourceList,
    pub dns: resolv_conf::Settings,
    /// `allowedUnsafeSysctls`.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// The kernel has AppArmor.
    pub app_armor: bool,
    /// The kernel has SELinux.
    pub selinux: bool,
    /// `seccompDefault`.
    pub seccomp_default: bool,
    /// How images are got.
    pub images: images::Settings,
    /// `crashLoopBackOff.maxContainerRestartPeriod`.
    pub backoff_max: Duration,
    /// Where static pods are described.
    pub manifests: Manifests,
    /// When logs are rotated.
    pub logs: logs::Settings,
    /// `volumeStatsAggPeriod`.
    pub volume_stats_period: Duration,
    /// When pods are evicted.
    pub eviction: eviction::Settings,
    /// How many ids pods with user namespaces get.
    pub user_namespaces: userns::Settings,
    /// How long a shutdown of the machine waits for them.
    pub shutdown: Vec<ShutdownGracePeriodByPodPriority>,
}

/// Why pods cannot be run here.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cgroups")]
    Cgroups(#[from] cgroups::Error),
    #[error("write the sandboxes' seccomp profile below {0}")]
    Seccomp(PathBuf, #[source] std::io::Error),
}

impl PodsConfig {
    /// From the agent's configuration. `allocatable` is the node's, `facts` are the machine's.
    #[must_use]
    pub fn new(config: &Config, allocatable: ResourceList, facts: &Facts) -> Self {
        let kubelet = &config.kubelet;
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let policy = Policy {
            enforce_cpu_limits: kubelet.cpu_cfs_quota,
            cpu_period: micros(kubelet.cpu_cfs_quota_period.0),
            pids_limit: u64::try_from(kubelet.pod_pids_limit).ok(),
            protects_memory: kubelet.protects_memory(),
        };
        let pids = crate::node::facts::pids(Path::new("/")).map(|(_, most)| most);
        Self {
            node_name: config.node.node_name.clone(),
            node_labels: crate::node::labels(config),
            data_dir: config.layout.data_dir.clone(),
            logs_dir: kubelet.pod_logs_dir.clone().into(),
            cgroup_root: kubelet.cgroup_root.clone(),
            machine: machine(kubelet, policy, facts),
            enforced: allocatable::of_pods(kubelet, facts, pids),
            classes: classes(kubelet, facts),
            allocatable,
            dns: kubelet.into(),
            allowed_unsafe_sysctls: kubelet.allowed_unsafe_sysctls.clone(),
            app_armor: has_app_armor(),
            selinux: std::path::Path::new("/sys/fs/selinux/enforce").exists(),
            seccomp_default: kubelet.seccomp_default,
            images: images::Settings::new(kubelet, config.layout.data_dir.clone()),
            backoff_max: kubelet
                .crash_loop_back_off
                .max_container_restart_period
                .map_or(Duration::from_secs(300), |d| d.0),
            manifests: manifests(config),
            logs: logs::Settings::new(kubelet),
            volume_stats_period: kubelet.volume_stats_agg_period.0,
            eviction: eviction::Settings::new(kubelet),
            user_namespaces: userns::Settings {
                ids_per_pod: kubelet.user_namespaces.ids_per_pod(),
                max_pods: u32::try_from(kubelet.max_pods).unwrap_or(0),
            },
            shutdown: shutdown::plan::periods(kubelet),
        }
    }
}

/// What of the machine decides on limits; which version its cgroups have is known when pods start.
fn machine(kubelet: &KubeletConfiguration, policy: Policy, facts: &Facts) -> Machine {
    let swap = if kubelet.memory_swap.swap_behavior == "LimitedSwap" { facts.swap } else { 0 };
    let huge_pages = facts.hugepages.iter().map(|(kib, _)| kib.saturating_mul(1024));
    Machine {
        policy,
        memory: facts.memory,
        cgroup_v2: false,
        swap: cgroups::detect::limits_swap().then_some(swap),
        huge_pages: huge_pages
            .filter(|size| size.is_power_of_two())
            .fold(0, |all, size| all | (1 << size.trailing_zeros())),
        kills_one: kubelet.single_process_oom_kill.unwrap_or(false),
        memory_qos: kubelet.gate(MEMORY_QOS).then(|| MemoryQos {
            factor: kubelet.memory_throttling_factor,
            protects: kubelet.protects_memory(),
            allocatable: memory_of_pods(kubelet, facts),
            page: procfs::page_size(),
        }),
    }
}

/// What decides on the memory of classes.
fn classes(kubelet: &KubeletConfiguration, facts: &Facts) -> ClassPolicy {
    let allocatable = memory_of_pods(kubelet, facts);
    ClassPolicy {
        protects_memory: kubelet.gate(MEMORY_QOS).then(|| kubelet.protects_memory()),
        reserves: kubelet.memory_reserve().map(|percent| MemoryReserve { percent, allocatable }),
    }
}

/// Bytes that are not reserved, whether that is enforced or not.
fn memory_of_pods(kubelet: &KubeletConfiguration, facts: &Facts) -> u64 {
    facts.memory.saturating_sub(u64::try_from(kubelet.reserved("memory").value()).unwrap_or(0))
}

fn has_app_armor() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

fn manifests(config: &Config) -> Manifests {
    let kubelet = &config.kubelet;
    let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    Manifests {
        path: given(&kubelet.static_pod_path).map(|path| (path.into(), kubelet.file_check_frequency.0)),
        url: given(&kubelet.static_pod_url).map(|url| (url, kubelet.http_check_frequency.0)),
        header: kubelet.static_pod_url_header.clone(),
    }
}

/// What all workers share. Everything in it is cheap to use from many tasks.
pub struct Context {
    pub config: PodsConfig,
    pub client: kube::Client,
    pub runtime: cri::Client,
    pub recorder: Recorder,
    pub addresses: watch::Receiver<Vec<IpAddr>>,
    /// Is told when the runtime has come back.
    pub runtime_back: Arc<Notify>,
    pub runtime_facts: watch::Receiver<runtime::RuntimeFacts>,
    pub node: own::Receiver,
    pub cgroups: Arc<dyn Driver>,
    pub tree: Tree,
    pub layout: volumes::Layout,
    /// The file with the pause containers' seccomp profile.
    pub sandbox_seccomp: String,
    pub objects: Arc<ApiObjects>,
    pub images: images::Puller,
    pub users: userns::UserNamespaces,
    pub services: services::Services,
    pub registry: Arc<Registry>,
    pub orders: Orders,
    pub journal: Arc<Journal>,
    pub questions: Arc<Questions>,
    pub classes: qos::Classes,
    /// Sandboxes are made in turns, and stopped.
    pub sandboxes: turns::Turns,
    pub stops: turns::Turns,
    /// Room for jobs that change cgroups.
    pub cgroup_jobs: Arc<tokio::sync::Semaphore>,
    /// What the node is short of.
    pub pressures: watch::Receiver<eviction::Pressures>,
    pub shutting_down: shutdown::Receiver,
    /// Held while a pod is admitted; who waits for room to be.
    pub admitting: Mutex<admission::Waiting>,
}

/// The running pods; dropping it ends the workers, never the containers.
pub struct PodsHandle {
    registry: Arc<Registry>,
    stats: Arc<stats::Provider>,
    journal: Arc<Journal>,
    questions: Arc<Questions>,
    pub(crate) tasks: Tasks,
}

impl PodsHandle {
    /// The pods of this node as they are now.
    #[must_use]
    pub fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.registry)
    }

    /// What they use.
    #[must_use]
    pub fn stats(&self) -> Arc<stats::Provider> {
        Arc::clone(&self.stats)
    }

    /// What was decided about them.
    #[must_use]
    pub fn journal(&self) -> Arc<Journal> {
        Arc::clone(&self.journal)
    }

    /// What is about to be.
    #[must_use]
    pub fn questions(&self) -> Arc<Questions> {
        Arc::clone(&self.questions)
    }
}

/// Starts to run pods.
///
/// # Errors
/// When this machine's cgroups cannot be used.
pub fn start(deps: Deps) -> Result<PodsHandle, StartError> {
    let mut config = deps.config;
    config.machine.cgroup_v2 = cgroups::detect::detect()?.is_v2();
    if !config.machine.cgroup_v2 {
        config.classes.protects_memory = None;
    }
    let seccomp = sandbox_seccomp::write(&config.data_dir);
    let seccomp = seccomp.map_err(|error| StartError::Seccomp(config.data_dir.clone(), error))?;
    let layout = volumes::Layout::new(&config.data_dir);
    let registry = Arc::new(Registry::default());
    let (journal, questions) = (Arc::<Journal>::default(), Arc::<Questions>::default());
    let (runtime_facts, runtime_followed) = runtime::follow(deps.runtime.clone());
    let (services, following) = services::follow(deps.client.clone(), &config.data_dir);
    let context = Arc::new(Context {
        objects: Arc::new(ApiObjects::new(deps.client.clone())),
        images: images::Puller::new(deps.runtime.clone(), &config.images),
        users: userns::UserNamespaces::open(layout.clone(), Path::new("/"), config.user_namespaces),
        layout,
        sandbox_seccomp: seccomp.to_string_lossy().into_owned(),
        client: deps.client,
        runtime: deps.runtime,
        recorder: deps.recorder,
        addresses: deps.addresses,
        runtime_back: deps.runtime_back,
        runtime_facts,
        node: deps.node,
        cgroups: deps.cgroups,
        tree: Tree::new(&config.cgroup_root),
        services,
        registry: Arc::clone(&registry),
        orders: Orders::default(),
        journal: Arc::clone(&journal),
        questions: Arc::clone(&questions),
        classes: qos::Classes::default(),
        sandboxes: turns::Turns::of_this_machine(),
        stops: turns::Turns::of_this_machine(),
        cgroup_jobs: Arc::new(tokio::sync::Semaphore::new(stages::CGROUP_JOBS)),
        pressures: deps.pressures.subscribe(),
        shutting_down: deps.shutting_down.subscribe(),
        admitting: Mutex::default(),
        config,
    });
    let stats = Arc::new(provider(&context, deps.facts));
    let images = Arc::new(collector(&context));
    let collection = tokio::spawn(Arc::clone(&images).run());
    let rotation = tokio::spawn(logs::tend(Arc::clone(&context)));
    let manager = eviction::Manager::new(Arc::clone(&context), Arc::clone(&stats), images, deps.pressures);
    let eviction = tokio::spawn(manager.run());
    let shutdown = tokio::spawn(shutdown::Manager::new(Arc::clone(&context), deps.shutting_down).run());
    let limited = tokio::spawn(allocatable::keep(Arc::clone(&context)));
    let set = tokio::spawn(set::run(context));
    Ok(PodsHandle {
        registry,
        stats,
        journal,
        questions,
        tasks: [set, eviction, shutdown, rotation, collection, limited, runtime_followed, following].into(),
    })
}

fn provider(context: &Context, facts: Facts) -> stats::Provider {
    let storage = stats::Storage {
        registry: Arc::clone(&context.registry),
        runtime: context.runtime.clone(),
        layout: context.layout.clone(),
        logs_dir: context.config.logs_dir.clone(),
        disk: DiskUsage::new(context.config.volume_stats_period),
    };
    let host = stats::Host::new(&context.config.node_name, facts);
    let (registry, cgroups) = (Arc::clone(&context.registry), Arc::clone(&context.cgroups));
    stats::Provider::new(registry, cgroups, context.tree.clone(), host, storage)
}

fn collector(context: &Context) -> images::gc::Collector {
    images::gc::Collector::new(images::gc::Parts {
        runtime: context.runtime.clone(),
        registry: Arc::clone(&context.registry),
        records: context.images.records(),
        policy: context.config.images.collection,
        recorder: context.recorder.clone(),
        node: node_reference(&context.config.node_name),
    })
}

/// Opens this machine's cgroups and makes those above the pods. Blocks, and with the driver systemd on a thread that may.
///
/// # Errors
/// When they cannot be used.
pub fn open_cgroups(driver: Naming, config: &PodsConfig) -> Result<Arc<dyn Driver>, cgroups::Error> {
    let driver = open_cgroups_of(driver)?;
    prepare_tree(driver.as_ref(), &Tree::new(&config.cgroup_root), &config.enforced)?;
    Ok(Arc::new(TimedCgroups(driver)))
}

/// Opens this machine's cgroups as they are.
///
/// # Errors
/// When they cannot be used.
pub fn open_cgroups_of(driver: Naming) -> Result<Box<dyn Driver>, cgroups::Error> {
    let hierarchy = cgroups::detect::detect()?;
    match driver {
        Naming::Cgroupfs => cgroups::open(hierarchy),
        Naming::Systemd => {
            let slices = systemd::slices::Slices::new(tokio::runtime::Handle::current());
            cgroups::open_systemd(hierarchy, slices)
        }
    }
}

fn prepare_tree(driver: &dyn Driver, tree: &Tree, enforced: &Allocatable) -> Result<(), cgroups::Error> {
    use cgroups::QosLevel::{BestEffort, Burstable};
    let class = |level| cgroups::values::class(level, &Requests::default(), &ClassPolicy::default());
    // A limit that pods of an earlier agent exceed is no reason not to start ([`allocatable::keep`]).
    let limited = driver.ensure(&tree.pods(), &cgroups::values::node(enforced));
    if !driver.exists(&tree.pods()) {
        limited?;
    }
    // That of an earlier agent keeps its shares: its pods run, and what they ask for is known only when they are all listed.
    if !driver.exists(&tree.qos(Burstable)) {
        driver.ensure(&tree.qos(Burstable), &class(Burstable))?;
    }
    driver.ensure(&tree.qos(BestEffort), &class(BestEffort))
}
