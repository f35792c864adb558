//! What the node does when something runs short (<https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/>).
//!
//! ```text
//! machine --> observe --> decide --+--> pressures: conditions of the Node, admission of pods
//!                                  +--> reclaim: dead containers, unused images
//!                                  +--> rank --> one order to evict --> the pod's worker
//! ```
//!
//! A look costs some ten small files. Only when something is short are pods looked at. [`threshold`], [`decide`],
//! [`rank`] and [`local`] are pure; [`Manager`] does.

pub mod decide;
pub mod local;
mod observe;
pub mod rank;
pub mod threshold;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::PodUid;
use k8s_openapi::api::core::v1::Pod;
use pod::Eviction;
use tokio::sync::watch;

use crate::client::watch::describe;
use crate::config::KubeletConfiguration;
use crate::events::{Kind, node_reference};
use crate::images::gc::Collector;
use crate::metrics::families::EVICTIONS;
use crate::pods::registry::Entry;
use crate::pods::{Context, gc};
use crate::stats;
use decide::{Observations, State, shortages};
use rank::{Candidate, Reclaim, Used};
use threshold::{Disks, Pressure, Signal, Threshold, with_container_fs};

/// How often the machine is looked at (`evictionMonitoringPeriod`).
const PERIOD: Duration = Duration::from_secs(10);
/// The same while memory is nearly short.
const NEAR: Duration = Duration::from_secs(1);
/// How long an evicted pod is waited for (`podCleanupTimeout`), and how often it is looked for.
const CLEANUP: (Duration, Duration) = (Duration::from_secs(30), Duration::from_millis(500));
/// Seconds that a pod gets which must go now (`immediateEvictionGracePeriodSeconds`).
const IMMEDIATE: i64 = 1;
/// `status.reason` of an evicted pod.
pub const REASON: &str = "Evicted";

/// How the node is configured.
#[derive(Debug, Clone)]
pub struct Settings {
    pub thresholds: Vec<Threshold>,
    /// `evictionPressureTransitionPeriod`
    pub transition: Duration,
    /// `evictionMaxPodGracePeriod`
    pub max_grace: i64,
    /// `localStorageCapacityIsolation`
    pub isolation: bool,
}

impl Settings {
    /// From the agent's configuration, which was validated.
    #[must_use]
    pub fn new(kubelet: &KubeletConfiguration) -> Self {
        Self {
            thresholds: threshold::parse(kubelet).unwrap_or_default(),
            transition: kubelet.eviction_pressure_transition_period.0,
            max_grace: i64::from(kubelet.eviction_max_pod_grace_period),
            isolation: kubelet.local_storage_capacity_isolation,
        }
    }
}

/// What runs short on the node, as it says itself.
pub type Pressures = BTreeSet<Pressure>;

/// Watches the machine.
pub struct Manager {
    context: Arc<Context>,
    stats: Arc<stats::Provider>,
    images: Arc<Collector>,
    settings: Settings,
    pressures: watch::Sender<Pressures>,
    state: State,
    observer: observe::Observer,
}

impl Manager {
    /// Nothing is short at first. `pressures` is told what is.
    #[must_use]
    pub fn new(
        context: Arc<Context>,
        stats: Arc<stats::Provider>,
        images: Arc<Collector>,
        pressures: watch::Sender<Pressures>,
    ) -> Self {
        let observer = observe::Observer::new(Arc::clone(&stats), context.layout.root().to_owned());
        let settings = context.config.eviction.clone();
        Self { context, stats, images, settings, pressures, state: State::default(), observer }
    }

    /// Runs for as long as the agent does.
    pub async fn run(mut self) {
        if self.settings.thresholds.is_empty() && !self.settings.isolation {
            return;
        }
        loop {
            let (observations, disks) = self.observer.look().await;
            let thresholds = with_container_fs(&self.settings.thresholds, disks);
            let evicted = self.pass(&thresholds, &observations, disks).await;
            if evicted.is_empty() {
                tokio::time::sleep(decide::next_look(&thresholds, &observations, PERIOD, NEAR)).await;
                continue;
            }
            self.await_end(&evicted).await;
            self.await_blocks(&thresholds).await;
        }
    }

    /// One look and what follows. Answers with the pods that were evicted.
    async fn pass(&mut self, thresholds: &[Threshold], observations: &Observations, disks: Disks) -> Vec<PodUid> {
        let verdict = self.state.look(thresholds, observations, self.settings.transition, Instant::now());
        self.pressures.send_if_modified(|known| {
            let changed = *known != verdict.pressures;
            known.clone_from(&verdict.pressures);
            changed
        });
        if self.settings.isolation {
            let evicted = self.keep_local_limits(disks).await;
            if !evicted.is_empty() {
                return evicted;
            }
        }
        let met: Vec<&Threshold> = verdict.act.iter().filter_map(|index| thresholds.get(*index)).collect();
        let Some(first) = met.first() else { return Vec::new() };
        let resource = first.signal.resource();
        tracing::warn!(signal = first.signal.name(), resource, "node runs short of a resource");
        let node = node_reference(&self.context.config.node_name);
        let text = format!("Attempting to reclaim {resource}");
        self.context.recorder.event(&node, Kind::Warning, "EvictionThresholdMet", &text);
        if self.reclaim(first.signal, thresholds, disks).await {
            tracing::info!(resource, "enough was reclaimed without evicting pods");
            return Vec::new();
        }
        let mut candidates = self.candidates(first.signal).await;
        rank::rank(&mut candidates, first.signal, disks);
        let Some(victim) = candidates.iter().find(|candidate| !api::pod::is_critical(&candidate.pod)) else {
            tracing::warn!(resource, "no pod can be evicted");
            return Vec::new();
        };
        let (message, annotations) = rank::message(victim, first, &met, observations);
        let grace = if first.is_hard() { IMMEDIATE } else { self.soft_grace(&victim.pod) };
        let eviction = Eviction {
            reason: REASON.to_owned(),
            disruption: Some(message.clone()),
            message,
            grace: Some(grace),
            annotations,
            event: true,
            clears: true,
        };
        vec![self.evict(&victim.pod, eviction, first.signal.name())]
    }

    fn soft_grace(&self, pod: &Pod) -> i64 {
        let own = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
        own.map_or(self.settings.max_grace, |own| own.min(self.settings.max_grace))
    }

    /// Evicts the pods that exceed limits of their own.
    async fn keep_local_limits(&self, disks: Disks) -> Vec<PodUid> {
        let limited: BTreeMap<PodUid, Arc<Pod>> = self
            .active()
            .into_iter()
            .filter(|(_, entry)| local::is_limited(&entry.pod) && !api::pod::is_critical(&entry.pod))
            .map(|(uid, entry)| (uid, entry.pod))
            .collect();
        if limited.is_empty() {
            return Vec::new();
        }
        let look = self.stats.storage().of(&limited.keys().cloned().collect()).await;
        let mut evicted = Vec::new();
        for (uid, pod) in &limited {
            let Some(entry) = self.context.registry.entry(uid) else { continue };
            let used = observe::on_disks(uid, &entry, &look);
            if let Some((limit, message)) = local::exceeded(pod, &used, disks != Disks::One) {
                let eviction = Eviction {
                    reason: REASON.to_owned(),
                    message,
                    disruption: None,
                    grace: Some(IMMEDIATE),
                    annotations: BTreeMap::new(),
                    event: true,
                    clears: true,
                };
                evicted.push(self.evict(pod, eviction, limit));
            }
        }
        evicted
    }

    /// Pods of which something runs, and that nobody ends yet.
    fn active(&self) -> Vec<(PodUid, Entry)> {
        let entries = self.context.registry.entries().into_iter();
        let active = entries.filter(|(uid, entry)| {
            let phase = entry.status.as_ref().and_then(|status| status.phase.as_deref());
            let runs = entry.sandbox.is_some() || !entry.running.is_empty();
            runs && !api::pod::is_terminal_phase(phase) && !self.context.orders.ends(uid)
        });
        active.collect()
    }

    /// Removes what nobody needs. Whether that was enough.
    async fn reclaim(&mut self, signal: Signal, thresholds: &[Threshold], disks: Disks) -> bool {
        let reclaims = rank::reclaims(signal, disks);
        for reclaim in reclaims {
            match reclaim {
                Reclaim::Containers => gc::remove_dead(&self.context).await,
                Reclaim::Images => {
                    if let Err(error) = self.images.remove_unused().await {
                        tracing::warn!(error = %describe(&error), "unused images cannot be removed");
                    }
                }
            }
        }
        if reclaims.is_empty() {
            return false;
        }
        let (observations, _) = self.observer.look().await;
        shortages(thresholds, &observations, true).is_empty()
    }

    /// The pods that may go, with what they use of what is short.
    async fn candidates(&self, signal: Signal) -> Vec<Candidate> {
        let active = self.active();
        let used = observe::used(&self.stats, signal, &active).await;
        let candidate = |(uid, entry): (PodUid, Entry)| Candidate { used: used.get(&uid).cloned(), pod: entry.pod };
        active.into_iter().map(candidate).collect()
    }

    /// The pod's worker does it, and says so.
    fn evict(&self, pod: &Pod, eviction: Eviction, signal: &'static str) -> PodUid {
        EVICTIONS.count([signal.into()]);
        let uid = PodUid::new(pod.metadata.uid.as_deref().unwrap_or_default());
        tracing::warn!(pod = %api::pod::full_name(pod), %uid, message = %eviction.message, "pod is evicted");
        self.context.orders.give(&uid, eviction);
        uid
    }

    /// Waits until evicted pods have given back what they had, so that not two go where one is enough.
    async fn await_end(&self, evicted: &[PodUid]) {
        let given_up = Instant::now() + CLEANUP.0;
        let holds = |uid: &PodUid| self.context.registry.entry(uid).is_some_and(|entry| entry.holds_resources());
        while evicted.iter().any(holds) && Instant::now() < given_up {
            tokio::time::sleep(CLEANUP.1).await;
        }
    }

    /// Gives the kernel time to free a disk's blocks, where nothing else is short: those of a removed file stay while somebody
    /// writes it out, as an unmount of a container's layers does with all that is unwritten.
    async fn await_blocks(&mut self, thresholds: &[Threshold]) {
        let given_up = Instant::now() + PERIOD;
        while decide::only_disks_are_short(thresholds, &self.observer.look().await.0) && Instant::now() < given_up {
            tokio::time::sleep(NEAR).await;
        }
    }
}

/// Whether the node takes a pod while something runs short (upstream's `Admit`); else what is said of that.
#[must_use]
pub fn refuses(pressures: &Pressures, pod: &Pod) -> Option<String> {
    if pressures.is_empty() || api::pod::is_critical(pod) {
        return None;
    }
    let spec = pod.spec.as_ref()?;
    let only_memory = pressures.len() == 1 && pressures.contains(&Pressure::Memory);
    if only_memory {
        let taint = k8s_openapi::api::core::v1::Taint {
            key: "node.kubernetes.io/memory-pressure".to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Default::default()
        };
        let tolerates = spec.tolerations.iter().flatten().any(|toleration| api::taints::tolerates(toleration, &taint));
        if api::qos::class(spec) != api::qos::QosClass::BestEffort || tolerates {
            return None;
        }
    }
    let conditions: Vec<_> = pressures.iter().map(|pressure| pressure.condition()).collect();
    Some(format!("The node had condition: [{}]. ", conditions.join(" ")))
}

/// What pods use of the kinds that are looked at together.
type UsedByPod = BTreeMap<PodUid, Used>;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn under_pressure_only_some_pods_are_taken() {
        let pod = |spec: serde_json::Value| serde_json::from_value::<Pod>(json!({ "spec": spec })).unwrap();
        let best_effort = pod(json!({"containers": [{"name": "c"}]}));
        let burstable = pod(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}));
        let tolerant = pod(json!({"containers": [{"name": "c"}], "tolerations": [{"operator": "Exists"}]}));
        let critical = pod(json!({"containers": [{"name": "c"}], "priority": 2_000_000_000}));
        let refused = |pressures: &[Pressure], pod: &Pod| refuses(&pressures.iter().copied().collect(), pod);
        let memory = [Pressure::Memory];
        assert_eq!(refused(&[], &best_effort), None);
        assert_eq!(refused(&memory, &best_effort).unwrap(), "The node had condition: [MemoryPressure]. ");
        for taken in [&burstable, &tolerant, &critical] {
            assert_eq!(refused(&memory, taken), None);
        }
        let both = [Pressure::Memory, Pressure::Disk];
        assert_eq!(refused(&both, &burstable).unwrap(), "The node had condition: [MemoryPressure DiskPressure]. ");
        assert!(refused(&[Pressure::Disk], &tolerant).is_some());
        assert_eq!(refused(&both, &critical), None);
    }
}
