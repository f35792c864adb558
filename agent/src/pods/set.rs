//! Which pods have a worker. Hands each its desired pod, and wakes it when the runtime changed.
//!
//! Nothing is ended because the API server is away: only a list that it has given says which pods are gone.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use api::PodUid;
use cri::events::Event;
use k8s_openapi::api::core::v1::Pod;
use pod::Desired;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::observe::{self, Everything};
use super::worker::{self, Inputs};
use super::{Context, gc, source};
use crate::client::watch::Change;

/// Repairs what events have missed.
const RELIST: Duration = Duration::from_secs(60);
/// Everything is looked at once more when no event has come for this long: containerd 1.6 sends an exit before its own
/// CRI service has noticed it, and an event may be about a sandbox that is still being made.
const SETTLE: Duration = Duration::from_millis(400);
const RETRY: Duration = Duration::from_millis(500);

struct Handle {
    desired: watch::Sender<Desired>,
    runtime: watch::Sender<u64>,
}

struct Set {
    context: Arc<Context>,
    workers: HashMap<PodUid, Handle>,
    tasks: JoinSet<PodUid>,
    /// What the runtime had when it was last looked at as a whole.
    known: Everything,
    /// Pods of which something was on the machine when the agent was started.
    found: HashSet<PodUid>,
    /// Whether the API server has said which pods there are.
    listed: bool,
}

/// Runs for as long as the agent does.
pub async fn run(context: Arc<Context>) {
    let mut events = cri::events::follow(context.runtime.clone());
    let mut pods = source::follow(context.client.clone(), &context.config.node_name);
    let mut set = Set {
        workers: HashMap::new(),
        tasks: JoinSet::new(),
        known: Everything::default(),
        found: HashSet::new(),
        listed: false,
        context,
    };
    // Nothing is decided about pods before it is known what runs of them.
    while !set.relist().await {
        tokio::time::sleep(RETRY).await;
    }
    set.find_leftovers().await;
    let mut relist = tokio::time::interval_at(tokio::time::Instant::now() + RELIST, RELIST);
    let mut settle: Option<tokio::time::Instant> = None;
    loop {
        let soon = async {
            match settle {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        // Cancel-safe: channels, intervals and the join set lose nothing; a sleep is begun anew for the same instant.
        tokio::select! {
            Some(change) = pods.recv() => set.apply(change),
            Some(event) = events.recv() => match event {
                Event::Resync => drop(set.relist().await),
                Event::Container { id, pod_uid } => {
                    set.wake(&id, pod_uid.as_deref());
                    settle = Some(tokio::time::Instant::now() + SETTLE);
                }
            },
            Some(ended) = set.tasks.join_next() => set.ended(ended),
            _ = relist.tick() => drop(set.relist().await),
            () = soon => {
                settle = None;
                set.relist().await;
            }
            else => return,
        }
    }
}

impl Set {
    /// Looks at the whole runtime: wakes the workers of pods that changed, and ends what belongs to none.
    async fn relist(&mut self) -> bool {
        let now = match observe::all(&self.context.runtime).await {
            Ok(now) => now,
            Err(error) => {
                tracing::debug!(%error, "runtime cannot be listed, will retry");
                return false;
            }
        };
        for (uid, handle) in &self.workers {
            if self.known.pods.get(uid) != now.pods.get(uid) {
                handle.runtime.send_modify(|count| *count = count.wrapping_add(1));
            }
        }
        self.known = now;
        self.adopt_orphans();
        true
    }

    /// Pods that left something on the disk or in the cgroup tree.
    async fn find_leftovers(&mut self) {
        let context = Arc::clone(&self.context);
        if let Ok(found) = tokio::task::spawn_blocking(move || gc::leftovers(&context)).await {
            self.found = found;
        }
        self.found.extend(self.known.pods.keys().cloned());
    }

    /// Pods without an object, once it is known which have one.
    fn adopt_orphans(&mut self) {
        if !self.listed {
            return;
        }
        let orphans: Vec<_> = self.found.iter().chain(self.known.pods.keys()).cloned().collect();
        for uid in orphans {
            if !self.workers.contains_key(&uid) {
                tracing::info!(pod = %uid, "nobody wants this pod any more, it will be ended");
                self.want(uid, Desired::Gone { last: None, grace: None });
            }
        }
        self.found.clear();
    }

    fn apply(&mut self, change: Change<Arc<Pod>>) {
        match change {
            Change::Replaced(all) => {
                let there: HashSet<PodUid> = all.iter().map(|pod| source::uid(pod)).collect();
                for pod in all {
                    self.want(source::uid(&pod), Desired::Present(pod));
                }
                let gone: Vec<_> = self.workers.keys().filter(|uid| !there.contains(*uid)).cloned().collect();
                for uid in gone {
                    self.gone(&uid);
                }
                self.listed = true;
                self.adopt_orphans();
            }
            Change::Applied(pod) => self.want(source::uid(&pod), Desired::Present(pod)),
            Change::Deleted(pod) => self.gone(&source::uid(&pod)),
        }
    }

    fn want(&mut self, uid: PodUid, desired: Desired) {
        if let Some(handle) = self.workers.get(&uid) {
            handle.desired.send_replace(desired);
            return;
        }
        let (desired, desired_seen) = watch::channel(desired);
        let (runtime, runtime_seen) = watch::channel(0);
        let found = self.found.remove(&uid) || self.known.pods.contains_key(&uid);
        let inputs = Inputs { desired: desired_seen, runtime: runtime_seen, found };
        self.workers.insert(uid.clone(), Handle { desired, runtime });
        self.tasks.spawn(worker::run(Arc::clone(&self.context), uid, inputs));
    }

    fn gone(&mut self, uid: &PodUid) {
        let Some(handle) = self.workers.get(uid) else { return };
        handle.desired.send_if_modified(|desired| {
            let Desired::Present(pod) = desired else { return false };
            let grace = pod.metadata.deletion_grace_period_seconds;
            *desired = Desired::Gone { last: Some(Arc::clone(pod)), grace };
            true
        });
    }

    /// Wakes the worker of a container or sandbox, where its pod is known.
    fn wake(&self, id: &str, pod_uid: Option<&str>) {
        let told = pod_uid.filter(|uid| !uid.is_empty()).map(PodUid::new);
        let uid = told.or_else(|| self.context.registry.owner(id)).or_else(|| self.known.owners.get(id).cloned());
        if let Some(handle) = uid.and_then(|uid| self.workers.get(&uid)) {
            handle.runtime.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    fn ended(&mut self, ended: Result<PodUid, tokio::task::JoinError>) {
        match ended {
            Ok(uid) => drop(self.workers.remove(&uid)),
            // The next relist finds its pod again, and gives it a new worker.
            Err(error) => {
                tracing::error!(%error, "worker of a pod ended badly");
                self.workers.retain(|_, handle| !handle.desired.is_closed());
            }
        }
    }
}
