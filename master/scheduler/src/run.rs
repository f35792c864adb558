//! The task that owns the scheduler's state, and the writes around it.

use std::sync::Arc;

use kube::Client;
use machinery::Recorder;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::cache::Cache;
use crate::decide::{Unfit, decide};
use crate::feed::{self, Input, Unlisted};
use crate::node::NodeFacts;
use crate::pod::PodInfo;
use crate::preemption::Preemption;
use crate::queue::{Event, Queue};
use crate::write::Writer;

/// How many inputs may wait; when the channel is full the watches wait.
const INPUTS: usize = 1024;
/// How many bindings and reports may be under way; then no further pod is decided.
const WRITES: usize = 128;

/// What the scheduler can be told.
#[derive(Debug, Clone)]
pub struct Config {
    /// Pods with this spec.schedulerName are scheduled. Also the component of its events.
    pub scheduler_name: &'static str,
}

impl Default for Config {
    fn default() -> Self {
        Self { scheduler_name: "default-scheduler" }
    }
}

/// Schedules pods for ever, with the identity of `client`. Dropping the future ends it, writes under way included.
pub async fn run(client: Client, config: Config) {
    let (recorder, events) = Recorder::new(client.clone(), config.scheduler_name);
    let (sender, inputs) = mpsc::channel(INPUTS);
    let feed = feed::run(client.clone(), config.scheduler_name, sender.clone());
    let scheduler = Scheduler {
        cache: Cache::default(),
        queue: Queue::default(),
        writer: Writer::new(client, recorder, config.scheduler_name),
        writes: JoinSet::new(),
        sender,
        start: 0,
        unlisted: Unlisted::default(),
    };
    futures::join!(feed, events, scheduler.run(inputs));
}

struct Scheduler {
    cache: Cache,
    queue: Queue,
    writer: Writer,
    writes: JoinSet<()>,
    sender: mpsc::Sender<Input>,
    /// Where the next search for a node starts.
    start: usize,
    unlisted: Unlisted,
}

impl Scheduler {
    async fn run(mut self, mut inputs: mpsc::Receiver<Input>) {
        loop {
            while let Ok(input) = inputs.try_recv() {
                self.absorb(input);
            }
            while self.writes.try_join_next().is_some() {}
            self.queue.flush(Instant::now());
            let may_decide = self.unlisted.is_empty() && self.queue.is_ready();
            if may_decide && self.writes.len() < WRITES {
                self.decide_next();
                // Lets the writes and watches that share this thread run.
                tokio::task::yield_now().await;
                continue;
            }
            let due = self.queue.due().unwrap_or_else(|| Instant::now() + std::time::Duration::from_secs(3600));
            // Each arm is cancel-safe: recv and join_next lose nothing, the sleep is made anew.
            tokio::select! {
                input = inputs.recv() => match input {
                    Some(input) => self.absorb(input),
                    None => return,
                },
                Some(_) = self.writes.join_next() => (),
                () = tokio::time::sleep_until(due) => (),
            }
        }
    }

    fn decide_next(&mut self) {
        let Some(pod) = self.queue.pop() else { return };
        if pod.deleting {
            return;
        }
        match decide(&self.cache, &pod, self.start) {
            Ok(decision) => {
                self.start = self.start.wrapping_add(decision.looked_at) % self.cache.node_count().max(1);
                self.cache.nominated_mut().remove(&pod.uid);
                self.cache.set_pod(pod.placed_on(&decision.node));
                self.cache.volumes_mut().assume(&pod.uid, &decision.volumes);
                let (writer, sender) = (self.writer.clone(), self.sender.clone());
                self.writes.spawn(async move {
                    let error = writer.place(&pod, &decision).await.err();
                    // When the receiver is gone the scheduler has ended: there is nobody to tell.
                    let _ = sender.send(Input::Bound(pod, error)).await;
                });
            }
            Err(unfit) => self.give_up(pod, unfit),
        }
    }

    fn give_up(&mut self, pod: Arc<PodInfo>, unfit: Unfit) {
        let message = unfit.message();
        tracing::debug!(pod = pod.name, namespace = pod.namespace, message, "no node fits");
        let futile = match unfit.preemption {
            Ok(preemption) => return self.preempt(pod, preemption, message),
            Err(futile) => futile,
        };
        let mut lost = false;
        if !futile.keeps_nomination {
            lost = self.cache.nominated_mut().remove(&pod.uid) || !pod.nominated.is_empty();
        }
        self.queue.unschedulable(&pod.uid, unfit.reasons.into_keys().collect(), Instant::now());
        let writer = self.writer.clone();
        self.writes.spawn(async move {
            writer.report_failure(&pod, "Unschedulable", message).await;
            if lost {
                writer.nominate(&pod, None).await;
            }
        });
    }

    /// Keeps the room for the pod that its victims leave. It is tried again when they were told, so that it misses no leaving.
    fn preempt(&mut self, pod: Arc<PodInfo>, preemption: Preemption, message: String) {
        let now = Instant::now();
        let displaced = self.cache.nominated().below(pod.priority, &preemption.node);
        for other in &displaced {
            self.cache.nominated_mut().remove(&other.uid);
            self.queue.retry(&other.uid, now);
        }
        self.cache.nominated_mut().set(&pod, &preemption.node);
        let (writer, sender) = (self.writer.clone(), self.sender.clone());
        self.writes.spawn(async move {
            writer.report_failure(&pod, "Unschedulable", message).await;
            writer.nominate(&pod, Some(&preemption.node)).await;
            let error = writer.preempt(&pod, &preemption).await.err();
            for other in &displaced {
                writer.nominate(other, None).await;
            }
            // When the receiver is gone the scheduler has ended: there is nobody to tell.
            let _ = sender.send(Input::Preempted(pod, error)).await;
        });
    }

    fn absorb(&mut self, input: Input) {
        let now = Instant::now();
        self.unlisted.see(&input);
        match input {
            Input::Pod(pod, ours) => self.absorb_pod(pod, ours, now),
            Input::PodGone(uid) => self.forget_pod(&uid, now),
            Input::PodsListed(present) => {
                let known = self.cache.pod_uids().into_iter().chain(self.queue.uids());
                let gone: Vec<String> = known.filter(|uid| !present.contains(uid)).collect();
                gone.iter().for_each(|uid| self.forget_pod(uid, now));
            }
            Input::Node(facts) => self.absorb_node(*facts, now),
            Input::NodeGone(name) => self.forget_node(&name, now),
            Input::NodesListed(present) => {
                let known = self.cache.nodes().map(|(facts, _)| facts.name.clone());
                let gone: Vec<String> = known.filter(|name| !present.contains(name)).collect();
                gone.iter().for_each(|name| self.forget_node(name, now));
            }
            Input::Namespace(name, labels) => {
                let changed = self.cache.namespaces().get(&name) != Some(&labels);
                self.cache.set_namespace(name, labels);
                if changed {
                    self.queue.wake(Event::Namespace, now);
                }
            }
            Input::NamespaceGone(name) => self.cache.remove_namespace(&name),
            Input::NamespacesListed(present) => self.cache.keep_namespaces(&present),
            Input::Volumes(change) => {
                self.cache.volumes_mut().apply(change);
                self.queue.wake(Event::Volume, now);
            }
            Input::Budget(key, budget) => self.cache.budgets_mut().set(key, &budget),
            Input::BudgetGone(key) => self.cache.budgets_mut().remove(&key),
            Input::BudgetsListed(present) => self.cache.budgets_mut().keep(&present),
            Input::Preempted(pod, error) => {
                if let Some(error) = error {
                    tracing::warn!(pod = pod.name, namespace = pod.namespace, error, "preemption failed");
                }
                self.queue.failed(&pod.uid, now);
            }
            Input::Bound(pod, error) => self.absorb_binding(pod, error, now),
        }
    }

    fn absorb_pod(&mut self, pod: Arc<PodInfo>, ours: bool, now: Instant) {
        if !pod.node_name.is_empty() {
            let uid = pod.uid.clone();
            // What was only assumed has helped nobody yet.
            let is_assumed = self.queue.contains(&uid);
            let before = self.cache.pod(&uid).filter(|known| !is_assumed && known.node_name == pod.node_name);
            let events = Event::of_placed(before.map(AsRef::as_ref), &pod);
            self.queue.remove(&uid);
            self.cache.nominated_mut().remove(&uid);
            self.cache.set_pod(pod);
            for event in events {
                self.queue.wake(event, now);
            }
        } else if !ours || pod.deleting {
            self.queue.remove(&pod.uid);
            self.release(&pod.uid, now);
        } else if self.cache.node_of(&pod.uid).is_none() || self.queue.contains(&pod.uid) {
            // Pods that are assumed on a node stay in the queue, out of turn, until their binding is confirmed.
            self.absorb_nomination(&pod, now);
            self.queue.set(pod, now);
        }
    }

    /// Takes over which node a pod is nominated to when that was changed by somebody; what is decided here comes back late.
    fn absorb_nomination(&mut self, pod: &PodInfo, now: Instant) {
        let before = self.queue.get(&pod.uid).map(|known| known.nominated.clone()).unwrap_or_default();
        if before == pod.nominated {
            return;
        }
        if pod.nominated.is_empty() {
            self.release(&pod.uid, now);
        } else {
            self.cache.nominated_mut().set(pod, &pod.nominated);
        }
    }

    /// Room that was kept for the pod is there for others.
    fn release(&mut self, uid: &str, now: Instant) {
        if self.cache.nominated_mut().remove(uid) {
            self.queue.wake(Event::PodGone, now);
        }
    }

    fn absorb_node(&mut self, facts: NodeFacts, now: Instant) {
        let (labels, taints, unschedulable, allocatable) =
            (facts.labels.clone(), facts.taints.clone(), facts.unschedulable, facts.allocatable.clone());
        let features = facts.features.clone();
        let before = self.cache.set_node(facts);
        let old = before.as_ref();
        if old.is_none_or(|old| old.features != features) {
            self.queue.wake(Event::NodeFeatures, now);
        }
        if old.is_none_or(|old| old.labels != labels) {
            self.queue.wake(Event::NodeLabels, now);
        }
        if old.is_none_or(|old| old.taints != taints || old.unschedulable != unschedulable) {
            self.queue.wake(Event::NodeTaints, now);
        }
        if old.is_none_or(|old| old.allocatable != allocatable) {
            self.queue.wake(Event::NodeAllocatable, now);
        }
    }

    fn forget_node(&mut self, name: &str, now: Instant) {
        self.cache.remove_node(name);
        self.queue.wake(Event::NodeGone, now);
    }

    fn forget_pod(&mut self, uid: &str, now: Instant) {
        self.queue.remove(uid);
        self.release(uid, now);
        if self.cache.remove_pod(uid) {
            self.queue.wake(Event::PodGone, now);
        }
    }

    fn absorb_binding(&mut self, pod: Arc<PodInfo>, error: Option<String>, now: Instant) {
        self.cache.volumes_mut().settle(&pod.uid);
        let Some(error) = error else {
            // Where the pod was not seen with its node yet.
            if self.queue.contains(&pod.uid) {
                self.queue.remove(&pod.uid);
                self.queue.wake(Event::PodPlaced, now);
            }
            return;
        };
        tracing::warn!(pod = pod.name, namespace = pod.namespace, error, "binding failed");
        if !self.queue.contains(&pod.uid) {
            // Deleted, or seen with a node meanwhile: what was watched is right.
            return;
        }
        self.cache.remove_pod(&pod.uid);
        self.queue.failed(&pod.uid, now);
        self.queue.wake(Event::PodGone, now);
        let writer = self.writer.clone();
        self.writes.spawn(async move { writer.report_failure(&pod, "SchedulerError", error).await });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::tests::{node, pod};

    fn scheduler() -> Scheduler {
        let client = Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
        let (recorder, _) = Recorder::new(client.clone(), "default-scheduler");
        Scheduler {
            cache: Cache::default(),
            queue: Queue::default(),
            writer: Writer::new(client, recorder, "default-scheduler"),
            writes: JoinSet::new(),
            sender: mpsc::channel(1).0,
            start: 0,
            unlisted: Unlisted::default(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_pod_is_tried_again_when_that_has_a_node() {
        let cache = |more| pod("cache", json!({"metadata": {"labels": {"app": "cache"}}, "spec": more}));
        let term = json!({"labelSelector": {"matchLabels": {"app": "cache"}}, "topologyKey": "kubernetes.io/hostname"});
        let near = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
        let web = pod("web", json!({"spec": {"affinity": near}}));
        let seen = || Input::Pod(cache(json!({"nodeName": "a"})), true);
        let bound = || Input::Bound(cache(json!({})), None);
        for inputs in [vec![seen(), bound()], vec![bound(), seen()], vec![bound()]] {
            let mut scheduler = scheduler();
            scheduler.absorb(Input::Node(Box::new(node("a", json!({})))));
            scheduler.absorb(Input::Pod(Arc::clone(&web), true));
            scheduler.decide_next();
            scheduler.absorb(Input::Pod(cache(json!({})), true));
            scheduler.decide_next();
            assert_eq!(scheduler.cache.node_of("cache"), Some("a"));
            assert!(!scheduler.queue.is_ready());
            inputs.into_iter().for_each(|input| scheduler.absorb(input));
            // The pause of the first failure.
            scheduler.queue.flush(Instant::now() + Duration::from_secs(2));
            assert_eq!(scheduler.queue.pop().unwrap().name, "web");
        }
    }
}
