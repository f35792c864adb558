//! Which pods have a worker. Hands each its desired pod, and wakes it when the runtime changed.
//!
//! Nothing is ended because the API server is away: only a list that it has given says which pods are gone.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use api::PodUid;
use cri::events::Event;
use k8s_openapi::api::core::v1::Pod;
use pod::Desired;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::manifests::{Found, Place};
use super::observe::{self, Everything};
use super::stages::teardown::delete_now;
use super::statics::{Changes, Statics, Wanted, name};
use super::worker::Origin;
use super::workers::{Ended, Workers};
use super::{Context, checkpoint, gc, qos, source, worker};
use crate::client::backoff::until;
use crate::client::watch::{Change, describe};
use crate::exposition::float;
use crate::metrics::families::{PLEG_INTERVAL, PLEG_LAST_SEEN, PLEG_RELIST};

/// Repairs what events have missed.
const RELIST: Duration = Duration::from_secs(60);
/// Everything is looked at once more when no event has come for this long: containerd 1.6 sends an exit before its own
/// CRI service has noticed it, and an event may be about a sandbox that is still being made.
const SETTLE: Duration = Duration::from_millis(400);
const RETRY: Duration = Duration::from_millis(500);
/// How long the API server may take for its first list, before the agent goes on with the pods that it knew.
const PATIENCE: Duration = Duration::from_secs(3);

/// Seconds that the containers of a pod get which only the runtime knows: it was deleted by force meanwhile (`SyncTerminatingRuntimePod`).
const ORPHAN_GRACE: i64 = 1;

/// Who must have said which pods there are, before a pod is nobody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Speaker {
    Api,
    Manifests(Place),
}

struct Set {
    context: Arc<Context>,
    workers: Workers,
    statics: Statics,
    /// What the runtime had when it was last looked at as a whole.
    known: Everything,
    /// When that was.
    listed: Option<Instant>,
    /// Pods of which something was on the machine when the agent was started.
    found: HashSet<PodUid>,
    silent: HashSet<Speaker>,
    /// It is decided whether the agent goes on with the pods that it knew.
    recalled: bool,
    /// Deletions of mirrors that are nobody's.
    deletions: JoinSet<String>,
    /// Their uids.
    deleting: HashSet<String>,
}

/// Runs for as long as the agent does.
pub async fn run(context: Arc<Context>) {
    let mut events = cri::events::follow(context.runtime.clone());
    let mut pods = source::follow(context.client.clone(), &context.config.node_name);
    let mut manifests = context.config.manifests.follow(&context.config.node_name);
    let mut set = Set::new(context);
    // Nothing is decided about pods before it is known what runs of them.
    while !set.relist().await {
        tokio::time::sleep(RETRY).await;
    }
    set.find_leftovers().await;
    let mut relist = tokio::time::interval_at(Instant::now() + RELIST, RELIST);
    let mut settle: Option<Instant> = None;
    let patience = tokio::time::sleep(PATIENCE);
    tokio::pin!(patience);
    loop {
        // Cancel-safe: channels, intervals and join sets lose nothing; a sleep is begun anew for the same instant.
        tokio::select! {
            Some(change) = pods.recv() => set.apply(change),
            Some(found) = manifests.recv() => set.apply_manifests(found),
            Some(event) = events.recv() => {
                match event {
                    Event::Resync => {
                        set.context.runtime_back.notify_one();
                        set.relist().await;
                    }
                    Event::Ended { id, pod_uid } => set.wake(&id, pod_uid.as_deref()),
                    Event::Unsettled => {}
                }
                settle = Some(Instant::now() + SETTLE);
            }
            Some(ended) = set.workers.supervise() => set.worker_ended(&ended),
            Some(deleted) = set.deletions.join_next() => drop(deleted.map(|uid| set.deleting.remove(&uid))),
            () = &mut patience, if !set.recalled => set.recall().await,
            _ = relist.tick() => drop(set.relist().await),
            () = until(settle) => {
                settle = None;
                set.relist().await;
            }
            else => return,
        }
    }
}

impl Set {
    fn new(context: Arc<Context>) -> Self {
        let shared = Arc::clone(&context);
        let places = context.config.manifests.places().map(Speaker::Manifests);
        Self {
            workers: Workers::new(move |uid, inputs| Box::pin(worker::run(Arc::clone(&shared), uid, inputs))),
            statics: Statics::default(),
            known: Everything::default(),
            listed: None,
            found: HashSet::new(),
            silent: places.chain([Speaker::Api]).collect(),
            recalled: false,
            deletions: JoinSet::new(),
            deleting: HashSet::new(),
            context,
        }
    }

    /// Looks at the whole runtime: wakes the workers that saw their pods otherwise, and ends what belongs to none.
    async fn relist(&mut self) -> bool {
        let begun = Instant::now();
        if let Some(before) = self.listed.replace(begun) {
            PLEG_INTERVAL.observe([], begun.duration_since(before));
        }
        let now = match observe::all(&self.context.runtime).await {
            Ok(now) => now,
            Err(error) => {
                tracing::debug!(%error, "runtime cannot be listed, will retry");
                return false;
            }
        };
        PLEG_RELIST.observe([], begun.elapsed());
        PLEG_LAST_SEEN.set(float(jiff::Timestamp::now().as_second().unsigned_abs()));
        let seen = self.context.registry.seen();
        for uid in self.workers.uids().filter(|uid| seen.get(*uid) != now.pods.get(*uid)) {
            self.workers.wake(uid);
        }
        self.known = now;
        self.adopt_orphans();
        if self.silent.is_empty() {
            let context = Arc::clone(&self.context);
            tokio::task::spawn_blocking(move || qos::update(&context, qos::Change::Some));
        }
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

    /// Pods and mirrors that nobody wants, once everybody who could has spoken.
    fn adopt_orphans(&mut self) {
        if !self.silent.is_empty() {
            return;
        }
        let orphans: Vec<_> = self.found.iter().chain(self.known.pods.keys()).cloned().collect();
        for uid in orphans {
            if !self.workers.has(&uid) {
                tracing::info!(%uid, "nobody wants this pod any more, it will be ended");
                let grace = Some(ORPHAN_GRACE);
                self.want(uid, Origin::Api, Desired::Gone { last: None, grace, returns: false });
            }
        }
        self.found.clear();
        self.delete_orphaned_mirrors();
    }

    /// What fails is tried again with the next look at everything.
    fn delete_orphaned_mirrors(&mut self) {
        for mirror in self.statics.orphans() {
            let uid = mirror.metadata.uid.clone().unwrap_or_default();
            if !self.deleting.insert(uid.clone()) {
                continue;
            }
            let client = self.context.client.clone();
            self.deletions.spawn(async move {
                let (namespace, name) = name(&mirror);
                if let Err(error) = delete_now(&client, &namespace, &name, Some(&uid)).await {
                    tracing::warn!(namespace, name, error = %describe(&error), "mirror pod without a pod not deleted");
                }
                uid
            });
        }
    }

    fn apply(&mut self, change: Change<Arc<Pod>>) {
        match change {
            Change::Replaced(all) => {
                let (mirrors, pods): (Vec<_>, Vec<_>) = all.into_iter().partition(|pod| api::pod::is_mirror(pod));
                self.statics.mirrors(mirrors);
                let there: HashSet<PodUid> = pods.iter().map(|pod| source::uid(pod)).collect();
                self.keep_places(&pods);
                for pod in pods {
                    self.want(source::uid(&pod), Origin::Api, Desired::Present(pod));
                }
                self.workers.retain(&there);
                self.silent.remove(&Speaker::Api);
                self.recalled = true;
                self.adopt_orphans();
            }
            Change::Applied(pod) if api::pod::is_mirror(&pod) => {
                self.statics.mirror(pod);
                self.adopt_orphans();
            }
            Change::Deleted(pod) if api::pod::is_mirror(&pod) => self.statics.mirror_gone(&pod),
            Change::Applied(pod) => self.want(source::uid(&pod), Origin::Api, Desired::Present(pod)),
            Change::Deleted(pod) => self.workers.gone(&source::uid(&pod)),
        }
    }

    /// Goes on with the pods that an earlier agent knew: the API server does not say which there are. Once it does, what it
    /// says counts.
    async fn recall(&mut self) {
        self.recalled = true;
        let context = Arc::clone(&self.context);
        let read = tokio::task::spawn_blocking(move || checkpoint::read_all(&context.layout));
        let pods = read.await.unwrap_or_default();
        if !pods.is_empty() {
            tracing::warn!(count = pods.len(), "the API server is away; going on with the pods that were known");
        }
        self.keep_places(&pods);
        for pod in pods {
            self.want(source::uid(&pod), Origin::Api, Desired::Present(pod));
        }
    }

    /// Pods that ran before this agent have their places, before any other is asked whether it fits.
    fn keep_places(&self, pods: &[Arc<Pod>]) {
        for pod in pods {
            let uid = source::uid(pod);
            if self.known.pods.contains_key(&uid) {
                self.context.registry.update(&uid, pod, |entry| entry.admitted = true);
            }
        }
    }

    fn apply_manifests(&mut self, (place, pods): Found) {
        let Changes { wanted, gone, returning } = self.statics.apply(place, pods);
        for uid in gone {
            self.workers.gone(&uid);
        }
        for uid in returning {
            self.workers.returns(&uid);
        }
        for pod in wanted {
            self.want_static(pod);
        }
        self.silent.remove(&Speaker::Manifests(place));
        self.adopt_orphans();
    }

    fn worker_ended(&mut self, ended: &Ended) {
        let Ended::Done(uid) = ended else { return };
        // The last look at the runtime may still have it, and would make it an orphan until the next one.
        self.known.pods.remove(uid);
        if let Some(next) = self.statics.ended(uid) {
            if next.uid == *uid {
                // Its manifest came back: what it left says how often it was started.
                self.found.insert(uid.clone());
            }
            self.want_static(next);
        }
        self.adopt_orphans();
    }

    fn want_static(&mut self, Wanted { uid, pod, origin }: Wanted) {
        self.want(uid, origin, Desired::Present(pod));
    }

    fn want(&mut self, uid: PodUid, origin: Origin, desired: Desired) {
        let found = self.found.remove(&uid) || self.known.pods.contains_key(&uid);
        self.workers.want(uid, origin, desired, found);
    }

    /// Wakes the worker of a container or sandbox, where its pod is known.
    fn wake(&self, id: &str, pod_uid: Option<&str>) {
        let told = pod_uid.filter(|uid| !uid.is_empty()).map(PodUid::new);
        let uid = told.or_else(|| self.context.registry.owner(id)).or_else(|| self.known.owners.get(id).cloned());
        if let Some(uid) = uid {
            self.workers.wake(&uid);
        }
    }
}
