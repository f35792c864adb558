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

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DynamicObject;
use kube::{Client, Resource as _};
use machinery::{Outcome, Retry, WorkQueue, run_workers};
use reflector::{Collection, Metadata, Reflector, Told};
use tokio::sync::{oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::context::Context;
use crate::discovery::{self, KnownKind};
use graph::{Decision, FOREGROUND, Graph, ORPHAN, Object, Owner};
use write::Writer;

const NAME: &str = "generic-garbage-collector";
const WORKERS: usize = 8;
/// How long all kinds are waited for at first (`initialSyncTimeout`).
const LISTED: Duration = Duration::from_secs(30);
/// How long to wait before asking for the kinds again, when the API server could not tell.
const REDISCOVER: Duration = Duration::from_secs(5);
/// A change of these may bring new kinds.
const BRINGING_KINDS: [&str; 2] = ["customresourcedefinitions", "apiservices"];

/// Shared by the watches and the workers.
struct Collector {
    graph: Mutex<Graph>,
    /// By number; `None` where the API server has it no longer.
    kinds: Mutex<Vec<Option<KnownKind>>>,
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

/// The watches, by resource and group.
#[derive(Default)]
struct Watches {
    tasks: JoinSet<()>,
    known: HashMap<String, Watch>,
}

struct Watch {
    number: usize,
    /// What is watched; `None` when the API server has it no longer.
    kind: Option<KnownKind>,
    task: AbortHandle,
}

impl Collector {
    /// Keeps one watch a kind, and starts the workers when all of the first ones have listed.
    async fn run(self: Arc<Self>, client: Client) {
        let mut watches = Watches::default();
        let mut changed = self.definitions.subscribe();
        let mut workers = false;
        loop {
            let found = match discovery::kinds(&client).await {
                Ok(found) => found,
                Err(error) => {
                    tracing::debug!(%error, "kinds could not be discovered");
                    tokio::time::sleep(REDISCOVER).await;
                    continue;
                }
            };
            // Where a group cannot be asked what the others own is collected nevertheless, and what was known of it stays.
            if found.stale.is_empty() {
                self.end_all_but(&found.kinds, &mut watches);
            }
            let listing = self.follow_all(found.kinds, &client, &mut watches);
            if !workers {
                // With a whole picture little has to be asked. One kind that cannot be listed does not hold up all others: owners that are
                // not known are asked for. A sender that is dropped has failed for good.
                let _ = tokio::time::timeout(LISTED, futures::future::join_all(listing)).await;
                workers = true;
                watches.tasks.spawn(self.clone().work());
            }
            if changed.changed().await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            changed.mark_unchanged();
        }
    }

    /// Watches each kind that is new, or served in another version than it was watched in.
    fn follow_all(
        self: &Arc<Self>,
        found: Vec<KnownKind>,
        client: &Client,
        watches: &mut Watches,
    ) -> Vec<oneshot::Receiver<()>> {
        let mut listing = Vec::new();
        for kind in found.into_iter().filter(is_collected) {
            let before = watches.known.get(&name_of(&kind));
            if before.is_some_and(|before| before.kind.as_ref() == Some(&kind)) {
                continue;
            }
            let number = self.set_kind(before.map(|before| before.number), kind.clone());
            if let Some(before) = before {
                before.task.abort();
            }
            let (done, listed) = oneshot::channel();
            listing.push(listed);
            let task = watches.tasks.spawn(self.clone().follow(number, kind.clone(), client.clone(), done));
            watches.known.insert(name_of(&kind), Watch { number, kind: Some(kind), task });
        }
        // What ended was aborted.
        while watches.tasks.try_join_next().is_some() {}
        listing
    }

    /// Ends the watches of kinds that there are no longer.
    fn end_all_but(&self, found: &[KnownKind], watches: &mut Watches) {
        let found: HashSet<String> = found.iter().map(name_of).collect();
        for (_, watch) in watches.known.iter_mut().filter(|(name, _)| !found.contains(*name)) {
            watch.task.abort();
            if watch.kind.take().is_some()
                && let Some(known) = self.kinds().get_mut(watch.number)
            {
                *known = None;
            }
        }
    }

    fn set_kind(&self, number: Option<usize>, kind: KnownKind) -> usize {
        let mut kinds = self.kinds();
        match number.and_then(|number| Some((number, kinds.get_mut(number)?))) {
            Some((number, known)) => {
                *known = Some(kind);
                number
            }
            None => {
                kinds.push(Some(kind));
                kinds.len() - 1
            }
        }
    }

    fn kinds(&self) -> MutexGuard<'_, Vec<Option<KnownKind>>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
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
        let collection = Collection::all(&DynamicObject::url_path(&kind.resource, None));
        let brings_kinds = BRINGING_KINDS.contains(&kind.resource.plural.as_str());
        let mut done = Some(done);
        let mut listed = HashSet::new();
        let mut reflector = Reflector::of_metadata(client, collection);
        loop {
            let told = reflector.next::<Metadata>().await;
            let is_change = done.is_none();
            match told {
                Told::Page { items, is_first, is_last } => {
                    if is_first {
                        listed.clear();
                    }
                    for object in items {
                        listed.extend(object.metadata.uid.clone());
                        self.set(number, object.metadata);
                    }
                    if is_last {
                        self.end_list(number, &std::mem::take(&mut listed), &mut done);
                    }
                }
                Told::Applied(object) => self.set(number, object.metadata),
                Told::Deleted(object) => self.remove(object.metadata.uid.as_deref().unwrap_or_default()),
            }
            if brings_kinds && is_change {
                self.definitions.send_modify(|changes| *changes += 1);
            }
        }
    }

    /// What was not listed is gone; and `done` is told of the first list.
    fn end_list(&self, number: usize, listed: &HashSet<String>, done: &mut Option<oneshot::Sender<()>>) {
        let known = self.graph().of_kind(number);
        known.iter().filter(|uid| !listed.contains(*uid)).for_each(|uid| self.remove(uid));
        if let Some(done) = done.take() {
            // Nobody waits any more when the receiver is gone.
            let _ = done.send(());
            let dirty = self.graph().doubt();
            self.wake(dirty);
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
            if self.graph().is_due(&uid) {
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
                let dirty = self.graph().answer(&owner.uid, &object.namespace, exists);
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
        let known = self.kinds().iter().flatten().find(|kind| is_kind(kind, owner)).cloned();
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
        self.kinds().get(number).cloned().flatten()
    }

    fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name_of(kind: &KnownKind) -> String {
    format!("{}.{}", kind.resource.plural, kind.resource.group)
}

/// Events have no dependents and are many (upstream ignores them too).
fn is_collected(kind: &KnownKind) -> bool {
    kind.watchable && kind.resource.kind != "Event"
}

/// Whether the reference names this kind; its version may be another one that is served.
fn is_kind(kind: &KnownKind, owner: &Owner) -> bool {
    kind.resource.kind == owner.kind && kind.resource.group == discovery::group_of(&owner.api_version)
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
