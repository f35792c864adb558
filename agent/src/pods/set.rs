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

use super::observe::{self, Everything};
use super::workers::Workers;
use super::{Context, gc, source, worker};
use crate::client::watch::Change;

/// Repairs what events have missed.
const RELIST: Duration = Duration::from_secs(60);
/// Everything is looked at once more when no event has come for this long: containerd 1.6 sends an exit before its own
/// CRI service has noticed it, and an event may be about a sandbox that is still being made.
const SETTLE: Duration = Duration::from_millis(400);
const RETRY: Duration = Duration::from_millis(500);

struct Set {
    context: Arc<Context>,
    workers: Workers,
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
    let shared = Arc::clone(&context);
    let mut set = Set {
        workers: Workers::new(move |uid, inputs| Box::pin(worker::run(Arc::clone(&shared), uid, inputs))),
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
            Some(()) = set.workers.supervise() => {}
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
        for uid in self.workers.uids().filter(|uid| self.known.pods.get(*uid) != now.pods.get(*uid)) {
            self.workers.wake(uid);
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
            if !self.workers.has(&uid) {
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
                self.workers.retain(&there);
                self.listed = true;
                self.adopt_orphans();
            }
            Change::Applied(pod) => self.want(source::uid(&pod), Desired::Present(pod)),
            Change::Deleted(pod) => self.workers.gone(&source::uid(&pod)),
        }
    }

    fn want(&mut self, uid: PodUid, desired: Desired) {
        let found = self.found.remove(&uid) || self.known.pods.contains_key(&uid);
        self.workers.want(uid, desired, found);
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
