//! What the node, its pods and their containers use.
//!
//! Nothing is polled: figures are read from the cgroups when somebody asks ([`sample`]), and an answer is good for a
//! moment, so that many who ask cost no more than one. What a directory holds is counted beside the asker and kept for
//! longer ([`disk`]). The same samples become `/stats/summary` ([`summary`]), `/metrics/resource` ([`resource`]) and
//! `/metrics/cadvisor` ([`cadvisor`]), and rank pods for eviction.

pub mod cadvisor;
pub mod disk;
pub mod kubelet;
mod machine;
mod network;
mod processes;
mod rates;
pub mod resource;
pub mod sample;
pub mod storage;
pub mod summary;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cgroups::{Depth, Driver, Tree};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::node::facts::Facts;
use crate::pods::registry::Registry;
use crate::shutdown::state::State;
use rates::Rates;
pub use sample::{Detail, Sample};
pub use storage::{Storage, is_ephemeral};

/// How old an answer may be. cAdvisor's are up to some 15 s old.
const FRESH: Duration = Duration::from_secs(1);
/// Two looks this far apart tell the CPU use of the moment, when there was no earlier look.
const FIRST_WINDOW: Duration = Duration::from_millis(200);

/// Where the figures come from.
pub struct Provider {
    registry: Arc<Registry>,
    cgroups: Arc<dyn Driver>,
    tree: Tree,
    host: Host,
    storage: Storage,
    rates: Mutex<Rates>,
    /// The last sample of each detail, and the lock that makes all who ask at the same time wait for one.
    latest: [Slot; 3],
}

/// The last sample of one detail.
type Slot = tokio::sync::Mutex<Option<(Instant, Arc<Sample>)>>;

/// What is known of the machine beforehand.
#[derive(Debug, Clone)]
pub struct Host {
    pub node_name: String,
    pub facts: Facts,
    /// When it was started.
    pub booted: Option<Timestamp>,
}

impl Host {
    /// This machine.
    #[must_use]
    pub fn new(node_name: &str, facts: Facts) -> Self {
        Self { node_name: node_name.to_owned(), facts, booted: machine::boot_time() }
    }
}

/// Memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    pub memory: u64,
    /// What is not in anybody's working set.
    pub memory_available: u64,
    /// What the cgroup of all pods has left, and with what is used; `None` where it has no limit.
    pub pods_memory: Option<(u64, u64)>,
}

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cgroups of the node cannot be read.
    #[error("failed to get root cgroup stats")]
    Cgroups(#[from] cgroups::Error),
    /// The agent is ending.
    #[error("the agent is ending")]
    Ending,
}

impl Provider {
    /// Figures of the pods in `registry`, whose cgroups lie in `tree`.
    #[must_use]
    pub fn new(registry: Arc<Registry>, cgroups: Arc<dyn Driver>, tree: Tree, host: Host, storage: Storage) -> Self {
        Self { registry, cgroups, tree, host, storage, rates: Mutex::default(), latest: Default::default() }
    }

    /// A sample that is not older than a second.
    ///
    /// # Errors
    /// The node's own cgroup cannot be read.
    pub async fn sample(&self, detail: Detail) -> Result<Arc<Sample>, Error> {
        let mut latest = self.slot(detail).lock().await;
        if let Some((at, sample)) = latest.as_ref()
            && at.elapsed() < FRESH
        {
            return Ok(Arc::clone(sample));
        }
        let mut sample = self.read(detail).await?;
        if detail == Detail::Summary && self.rates().is_first() {
            tokio::time::sleep(FIRST_WINDOW).await;
            sample = self.read(detail).await?;
        }
        let sample = Arc::new(sample);
        *latest = Some((Instant::now(), Arc::clone(&sample)));
        Ok(sample)
    }

    /// The whole of `/stats/summary`.
    ///
    /// # Errors
    /// As [`Self::sample`].
    pub async fn summary(&self) -> Result<summary::Summary, Error> {
        let sample = self.sample(Detail::Summary).await?;
        let storage = self.storage.look().await;
        Ok(summary::full(&self.host, &sample, &storage))
    }

    /// `/stats/summary?only_cpu_and_memory=true`.
    ///
    /// # Errors
    /// As [`Self::sample`].
    pub async fn cpu_and_memory(&self) -> Result<summary::Summary, Error> {
        let sample = self.sample(Detail::Summary).await?;
        Ok(summary::cpu_and_memory(&self.host, &sample))
    }

    /// `/metrics/resource`.
    pub async fn resource_metrics(&self) -> String {
        resource::text(self.sample(Detail::Brief).await.inspect_err(failed).ok().as_deref())
    }

    /// `/metrics/cadvisor`.
    pub async fn cadvisor_metrics(&self) -> String {
        let sample = self.sample(Detail::Everything).await.inspect_err(failed).ok();
        let look = self.storage.look().await;
        cadvisor::text(&self.host, sample.as_deref(), &look)
    }

    /// What `/metrics` says of pods and of the volumes of claims.
    pub async fn kubelet_metrics(&self) -> String {
        let entries = self.registry.entries();
        let claiming = kubelet::claiming(&entries);
        let look = if claiming.is_empty() { storage::Look::default() } else { self.storage.of(&claiming).await };
        let shutdown = State::read(self.storage.layout.root());
        kubelet::text(&self.host.node_name, &entries, self.registry.nameless(), &look, &shutdown)
    }

    /// Memory of the machine and of all pods together.
    ///
    /// # Errors
    /// The node's own cgroup cannot be read.
    pub async fn machine(&self) -> Result<Machine, Error> {
        let (cgroups, pods) = (Arc::clone(&self.cgroups), self.cgroups.naming().relative(&self.tree.pods()));
        let memory = self.host.facts.memory;
        let reading = tokio::task::spawn_blocking(move || {
            let machine = cgroups.stats(Path::new(""), Depth::Brief)?.memory;
            let pods = cgroups.stats(&pods, Depth::Brief).ok().map(|stats| stats.memory);
            let pods_memory = pods.and_then(|pods| {
                let available = pods.available()?;
                Some((available, available.saturating_add(pods.working_set)))
            });
            Ok::<_, cgroups::Error>(Machine {
                memory,
                memory_available: memory.saturating_sub(machine.working_set),
                pods_memory,
            })
        });
        Ok(reading.await.map_err(|_| Error::Ending)??)
    }

    /// What containers and volumes take on disks.
    #[must_use]
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    fn slot(&self, detail: Detail) -> &Slot {
        let [brief, summary, everything] = &self.latest;
        match detail {
            Detail::Brief => brief,
            Detail::Summary => summary,
            Detail::Everything => everything,
        }
    }

    fn rates(&self) -> std::sync::MutexGuard<'_, Rates> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self, detail: Detail) -> Result<Sample, Error> {
        let (registry, cgroups, tree) = (Arc::clone(&self.registry), Arc::clone(&self.cgroups), self.tree.clone());
        let reading =
            tokio::task::spawn_blocking(move || sample::read(&registry.entries(), cgroups.as_ref(), &tree, detail));
        let mut sample = reading.await.map_err(|_| Error::Ending)??;
        if detail == Detail::Summary {
            self.rates().apply(&mut sample, std::time::Instant::now());
        }
        Ok(sample)
    }
}

fn failed(error: &Error) {
    tracing::warn!(%error, "statistics cannot be read");
}

#[cfg(test)]
mod fixture;
