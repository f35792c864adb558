//! One look at the cgroups of the node. Blocks.

use std::path::{Path, PathBuf};

use api::PodUid;
use cgroups::{Depth, Driver, Stats, Tree};
use jiff::Timestamp;

use super::network::{self, Interface};
use super::processes::{self, Processes};
use crate::node::facts;
use crate::pods::registry::{Entry, Running};
use crate::pods::stages::limits;

/// How much a sample holds. More costs more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// CPU time and memory.
    Brief,
    /// What `/stats/summary` shows.
    Summary,
    /// What cAdvisor shows.
    Everything,
}

/// What everything on the node used at one moment.
#[derive(Debug, Clone)]
pub struct Sample {
    pub at: Timestamp,
    pub node: Used,
    /// The cgroup above all pods; `None` where it could not be read.
    pub all_pods: Option<Used>,
    /// The node's own network; not in [`Detail::Brief`].
    pub interfaces: Vec<Interface>,
    /// Threads that the machine has and may have.
    pub tasks: Option<(u64, u64)>,
    pub pods: Vec<PodSample>,
}

/// Use of one cgroup.
#[derive(Debug, Clone, Default)]
pub struct Used {
    /// Its path below the mount points, with a leading `/`.
    pub cgroup: String,
    pub stats: Stats,
    /// CPU use of the moment, in billionths of a core; only in [`Detail::Summary`].
    pub nano_cores: Option<u64>,
}

/// Use of one pod.
#[derive(Debug, Clone)]
pub struct PodSample {
    pub uid: PodUid,
    pub namespace: String,
    pub name: String,
    /// `status.startTime`
    pub start_time: Option<Timestamp>,
    pub used: Used,
    /// What keeps its network namespace; its processes are counted with those of the containers.
    pub sandbox: Option<ContainerSample>,
    /// The pod's network; not in [`Detail::Brief`].
    pub interfaces: Vec<Interface>,
    pub containers: Vec<ContainerSample>,
}

/// Use of one container.
#[derive(Debug, Clone)]
pub struct ContainerSample {
    pub name: String,
    pub id: String,
    pub image: String,
    /// Nanoseconds since 1970.
    pub started_at: i64,
    pub used: Used,
    /// Not in [`Detail::Brief`].
    pub processes: Processes,
}

/// Reads everything. Pods and containers that go away meanwhile are left out.
///
/// # Errors
/// The node's own cgroup cannot be read.
pub fn read(
    entries: &[(PodUid, Entry)],
    driver: &dyn Driver,
    tree: &Tree,
    detail: Detail,
) -> Result<Sample, cgroups::Error> {
    let reader = Reader { driver, tree, detail };
    let at = Timestamp::now();
    let node = Used { cgroup: "/".to_owned(), stats: driver.stats("".as_ref(), reader.depth())?, nano_cores: None };
    let all_pods = reader.used(driver.naming().relative(&tree.pods()));
    let interfaces = if detail == Detail::Brief { Vec::new() } else { network::of_process("self") };
    let pods = entries.iter().filter_map(|(uid, entry)| reader.pod(uid, entry)).collect();
    let tasks = facts::pids(Path::new("/"));
    Ok(Sample { at, node, all_pods, interfaces, tasks, pods })
}

struct Reader<'a> {
    driver: &'a dyn Driver,
    tree: &'a Tree,
    detail: Detail,
}

impl Reader<'_> {
    fn depth(&self) -> Depth {
        if self.detail == Detail::Brief { Depth::Brief } else { Depth::Full }
    }

    fn used(&self, path: PathBuf) -> Option<Used> {
        match self.driver.stats(&path, self.depth()) {
            Ok(stats) => Some(Used { cgroup: format!("/{}", path.display()), stats, nano_cores: None }),
            Err(error) => {
                if !error.is_gone() {
                    tracing::debug!(%error, cgroup = %path.display(), "statistics cannot be read");
                }
                None
            }
        }
    }

    fn pod(&self, uid: &PodUid, entry: &Entry) -> Option<PodSample> {
        let sandbox = entry.sandbox.as_ref()?;
        let spec = entry.pod.spec.as_ref()?;
        let name = self.tree.pod(limits::level(api::qos::class(spec)), uid.as_str());
        let path = self.driver.naming().relative(&name);
        let used = self.used(path.clone())?;
        let containers = entry.running.iter().filter_map(|running| self.container(&path, running)).collect();
        let sandbox = (self.detail != Detail::Brief).then(|| self.container(&path, sandbox)).flatten();
        let first = sandbox.as_ref().and_then(|sandbox| sandbox.processes.first);
        let meta = &entry.pod.metadata;
        let status = entry.status.as_deref().or(entry.pod.status.as_ref());
        Some(PodSample {
            uid: uid.clone(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            start_time: status.and_then(|status| status.start_time.as_ref()).map(|time| time.0),
            used,
            interfaces: first.map(|pid| network::of_process(&pid.to_string())).unwrap_or_default(),
            sandbox,
            containers,
        })
    }

    fn container(&self, pod: &Path, running: &Running) -> Option<ContainerSample> {
        let path = pod.join(self.driver.naming().container(running.id.as_str()));
        let used = self.used(path.clone())?;
        let processes = match self.detail {
            Detail::Brief => Processes::default(),
            Detail::Summary => processes::count(&self.pids(&path)),
            Detail::Everything => processes::look(&self.pids(&path)),
        };
        Some(ContainerSample {
            name: running.name.clone(),
            id: running.id.to_string(),
            image: running.image.clone(),
            started_at: running.started_at,
            used,
            processes,
        })
    }

    fn pids(&self, path: &Path) -> Vec<i32> {
        self.driver.pids(path).unwrap_or_default()
    }
}
