//! Garbage collection: what is owned goes with its owners (background, foreground, orphan).
//!
//! One metadata watch for each kind that the API server has feeds the [`graph`]; what changes there is decided on by a
//! few workers. Before anything is deleted, the object is read again, so that an old picture cannot do harm.

mod graph;
#[cfg(test)]
mod tests;
mod write;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use machinery::{Outcome, Retry, WorkQueue, run_workers};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::context::Context;
use crate::discovery::{self, KnownKind};
use graph::{Decision, FOREGROUND, Graph, ORPHAN, Object, Owner};
use write::Writer;

const NAME: &str = "generic-garbage-collector";
const WORKERS: usize = 8;
/// How long to wait before asking for the kinds again, when the API server could not tell.
const REDISCOVER: Duration = Duration::from_secs(5);
/// A change of these may bring new kinds.
const BRINGING_KINDS: [&str; 2] = ["customresourcedefinitions", "apiservices"];

/// Shared by the watches and the workers.
struct Collector {
    graph: Mutex<Graph>,
    kinds: Mutex<Vec<KnownKind>>,
    queue: Arc<WorkQueue>,
    /// Changes when the kinds of the API server may have.
    definitions: watch::Sender<u64>,
    writer: Writer,
}

pub(crate) fn start(context: &mut Context) {
    let client = context.client(NAME);
    let collector = Arc::new(Collector {
        graph: Mutex::default(),
        kinds: Mutex::default(),
        queue: WorkQueue::new(),
        definitions: watch::Sender::new(0),
        writer: Writer::new(client.clone()),
    });
    context.tasks.spawn(collector.run(client));
}

impl Collector {
    /// Keeps one watch a kind, and starts the workers when all of the first ones have listed.
    async fn run(self: Arc<Self>, client: Client) {
        let mut watches: JoinSet<()> = JoinSet::new();
        let mut watched: HashMap<String, usize> = HashMap::new();
        let mut changed = self.definitions.subscribe();
        let mut workers = false;
        loop {
            let found = match discovery::kinds(&client).await {
                // What the others own is collected nevertheless.
                Ok(found) => found.kinds,
                Err(error) => {
                    tracing::debug!(%error, "kinds could not be discovered");
                    tokio::time::sleep(REDISCOVER).await;
                    continue;
                }
            };
            let mut listing = Vec::new();
            for kind in found.into_iter().filter(is_collected) {
                let name = format!("{}.{}", kind.resource.plural, kind.resource.group);
                if watched.contains_key(&name) {
                    continue;
                }
                let number = self.add_kind(kind.clone());
                watched.insert(name, number);
                let (done, listed) = oneshot::channel();
                listing.push(listed);
                watches.spawn(self.clone().follow(number, kind, client.clone(), done));
            }
            if !workers {
                // Without a whole picture everything would look like an orphan. A sender that is dropped has failed for good.
                futures::future::join_all(listing).await;
                workers = true;
                watches.spawn(self.clone().work());
            }
            if changed.changed().await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            changed.mark_unchanged();
        }
    }

    fn add_kind(&self, kind: KnownKind) -> usize {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        kinds.push(kind);
        kinds.len() - 1
    }

    async fn work(self: Arc<Self>) {
        let queue = self.queue.clone();
        run_workers(NAME, queue, WORKERS, move |uid| {
            let collector = self.clone();
            async move { collector.reconcile(&uid).await }
        })
        .await;
    }

    async fn follow(self: Arc<Self>, number: usize, kind: KnownKind, client: Client, done: oneshot::Sender<()>) {
        let api = Api::<PartialObjectMeta<DynamicObject>>::all_with(client, &kind.resource);
        let brings_kinds = BRINGING_KINDS.contains(&kind.resource.plural.as_str());
        let mut done = Some(done);
        let mut listed = HashSet::new();
        let mut stream = Box::pin(watcher(api, watcher::Config::default()).default_backoff());
        while let Some(event) = stream.next().await {
            match event {
                Ok(watcher::Event::Init) => listed.clear(),
                Ok(watcher::Event::InitApply(object)) => {
                    listed.extend(object.metadata.uid.clone());
                    self.set(number, object.metadata);
                }
                Ok(watcher::Event::Apply(object)) => self.set(number, object.metadata),
                Ok(watcher::Event::Delete(object)) => self.remove(object.metadata.uid.as_deref().unwrap_or_default()),
                Ok(watcher::Event::InitDone) => {
                    let known = self.graph().of_kind(number);
                    known.iter().filter(|uid| !listed.contains(*uid)).for_each(|uid| self.remove(uid));
                    listed = HashSet::new();
                    // Nobody waits any more when the receiver is gone.
                    let _ = done.take().map(|done| done.send(()));
                    continue;
                }
                Err(error) => {
                    tracing::debug!(kind = kind.resource.plural, %error, "watch interrupted");
                    continue;
                }
            }
            if brings_kinds && done.is_none() {
                self.definitions.send_modify(|changes| *changes += 1);
            }
        }
    }

    fn set(&self, kind: usize, meta: ObjectMeta) {
        let dirty = self.graph().set(object(kind, meta));
        self.wake(dirty);
    }

    fn remove(&self, uid: &str) {
        let dirty = self.graph().remove(uid);
        self.wake(dirty);
    }

    /// Queues only what has something to decide: most objects have no owners.
    fn wake(&self, dirty: Vec<String>) {
        for uid in dirty {
            if self.graph().decide(&uid) != Decision::Nothing {
                self.queue.add(uid);
            }
        }
    }

    async fn reconcile(&self, uid: &str) -> Result<Outcome, Retry<kube::Error>> {
        let (object, decision) = {
            let graph = self.graph();
            let Some(object) = graph.get(uid).cloned() else { return Ok(Outcome::Done) };
            (object, graph.decide(uid))
        };
        let Some(kind) = self.kind(object.kind) else { return Ok(Outcome::Done) };
        match decision {
            Decision::Nothing => {}
            Decision::Ask(owner) => {
                let exists = self.exists(&owner, &object).await?;
                let dirty = self.graph().answer(&owner.uid, exists);
                self.wake(dirty);
            }
            Decision::Delete(policy) => self.writer.delete(&kind, &object, policy).await?,
            Decision::DropOwners(uids) => self.writer.drop_owners(&kind, &object, &uids).await?,
            Decision::Unblock(uids) => {
                for (kind, dependent) in self.all(&uids) {
                    self.writer.unblock(&kind, &dependent, uid).await?;
                }
            }
            Decision::FinishForeground => self.writer.drop_finalizer(&kind, &object, FOREGROUND).await?,
            Decision::Orphan(uids) => {
                let own: std::collections::BTreeSet<String> = [uid.to_owned()].into();
                for (kind, dependent) in self.all(&uids) {
                    self.writer.drop_owners(&kind, &dependent, &own).await?;
                }
                self.writer.drop_finalizer(&kind, &object, ORPHAN).await?;
            }
        }
        Ok(Outcome::Done)
    }

    /// Whether the owner exists, by the API server's word. One of an unknown kind is taken to exist.
    async fn exists(&self, owner: &Owner, dependent: &Object) -> Result<bool, kube::Error> {
        let known =
            self.kinds.lock().unwrap_or_else(PoisonError::into_inner).iter().find(|kind| is_kind(kind, owner)).cloned();
        let Some(kind) = known else { return Ok(true) };
        if kind.namespaced && dependent.namespace.is_empty() {
            tracing::warn!(
                owner = owner.name,
                dependent = dependent.name,
                "a cluster-scoped object cannot have this owner"
            );
            return Ok(true);
        }
        self.writer.exists(&kind, &dependent.namespace, &owner.name, &owner.uid).await
    }

    fn all(&self, uids: &[String]) -> Vec<(KnownKind, Object)> {
        let objects: Vec<Object> = {
            let graph = self.graph();
            uids.iter().filter_map(|uid| graph.get(uid).cloned()).collect()
        };
        objects.into_iter().filter_map(|object| Some((self.kind(object.kind)?, object))).collect()
    }

    fn kind(&self, number: usize) -> Option<KnownKind> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner).get(number).cloned()
    }

    fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Events have no dependents and are many (upstream ignores them too).
fn is_collected(kind: &KnownKind) -> bool {
    kind.watchable && kind.resource.kind != "Event"
}

/// Whether the reference names this kind; its version may be another one that is served.
fn is_kind(kind: &KnownKind, owner: &Owner) -> bool {
    let group = owner.api_version.rsplit_once('/').map_or("", |(group, _)| group);
    kind.resource.kind == owner.kind && kind.resource.group == group
}

fn object(kind: usize, meta: ObjectMeta) -> Object {
    let has = |finalizer: &str| meta.finalizers.iter().flatten().any(|one| one == finalizer);
    let (foreground, orphan) = (has(FOREGROUND), has(ORPHAN));
    let owners = meta.owner_references.into_iter().flatten().map(|owner| Owner {
        uid: owner.uid,
        api_version: owner.api_version,
        kind: owner.kind,
        name: owner.name,
        blocks: owner.block_owner_deletion == Some(true),
    });
    Object {
        kind,
        owners: owners.collect(),
        uid: meta.uid.unwrap_or_default(),
        namespace: meta.namespace.unwrap_or_default(),
        name: meta.name.unwrap_or_default(),
        resource_version: meta.resource_version.unwrap_or_default(),
        deleting: meta.deletion_timestamp.is_some(),
        foreground,
        orphan,
    }
}
