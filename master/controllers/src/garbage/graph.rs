//! Who owns whom. Pure.
//!
//! The graph holds metadata of all objects that were watched, by uid. [`Graph::decide`] says what to do about one of
//! them; it asks nobody, so that owners that are not in the graph come out as questions for the API server.

use std::collections::{BTreeSet, HashMap, HashSet};

/// Finalizer of objects that wait for their dependents.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of objects that leave their dependents behind.
pub(crate) const ORPHAN: &str = "orphan";

/// An ownerReference.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Owner {
    pub(crate) uid: String,
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) name: String,
    /// blockOwnerDeletion
    pub(crate) blocks: bool,
}

/// What the collector keeps of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) uid: String,
    /// Position in the list of known kinds.
    pub(crate) kind: usize,
    /// Empty for cluster-scoped objects.
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) resource_version: String,
    pub(crate) owners: Vec<Owner>,
    /// metadata.deletionTimestamp is set.
    pub(crate) deleting: bool,
    /// Has finalizer `foregroundDeletion`.
    pub(crate) foreground: bool,
    /// Has finalizer `orphan`.
    pub(crate) orphan: bool,
}

impl Object {
    fn waits_for_dependents(&self) -> bool {
        self.deleting && self.foreground
    }
}

/// How an object is to be deleted: by the finalizers that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    Background,
    Foreground,
    Orphan,
}

/// What to do about an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    Nothing,
    /// Whether this owner still exists has to be asked first.
    Ask(Owner),
    /// No owner is left.
    Delete(Policy),
    /// Some owners are left: take these references off.
    DropOwners(BTreeSet<String>),
    /// It is deleted in the foreground after its owner, and these dependents block it in a circle: they stop blocking first.
    Unblock(Vec<String>),
    /// All dependents that block are gone: take the finalizer off.
    FinishForeground,
    /// Take its reference off these dependents, then its finalizer.
    Orphan(Vec<String>),
}

/// What is known of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Existence {
    Solid,
    /// It is deleted in the foreground.
    Waiting,
    Gone,
    Unknown,
}

/// All objects and their dependents.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    objects: HashMap<String, Object>,
    dependents: HashMap<String, HashSet<String>>,
    /// Whether owners outside of the graph exist, as it was found for the dependents of each namespace: a reference means an
    /// object of the dependent's own namespace, or a cluster-scoped one. Uids are never used again.
    answers: HashMap<String, HashMap<String, bool>>,
}

impl Graph {
    /// An object as it is now. The uids to decide on.
    pub(crate) fn set(&mut self, object: Object) -> Vec<String> {
        let uid = object.uid.clone();
        self.answers.remove(&uid);
        let old = self.objects.get(&uid).cloned();
        for owner in old.iter().flat_map(|old| &old.owners) {
            self.unlink(&owner.uid, &uid);
        }
        for owner in &object.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
        }
        let mut dirty = vec![uid.clone()];
        // Owners that wait for their dependents look again when one of those stops blocking.
        dirty.extend(old.iter().flat_map(|old| &old.owners).map(|owner| owner.uid.clone()));
        let starts_waiting = object.waits_for_dependents() && !old.is_some_and(|old| old.waits_for_dependents());
        if starts_waiting {
            dirty.extend(self.dependents_of(&uid));
        }
        self.objects.insert(uid, object);
        dirty
    }

    /// An object is gone. The uids to decide on.
    pub(crate) fn remove(&mut self, uid: &str) -> Vec<String> {
        let Some(old) = self.objects.remove(uid) else { return Vec::new() };
        for owner in &old.owners {
            self.unlink(&owner.uid, uid);
        }
        let mut dirty = self.dependents_of(uid);
        for dependent in dirty.iter().filter_map(|dependent| self.objects.get(dependent)) {
            // Elsewhere the reference never meant this object.
            if old.namespace.is_empty() || old.namespace == dependent.namespace {
                self.answers.entry(uid.to_owned()).or_default().insert(dependent.namespace.clone(), false);
            }
        }
        dirty.extend(old.owners.into_iter().map(|owner| owner.uid));
        dirty
    }

    /// What the API server said about the owner of a dependent in this namespace. The uids to decide on.
    pub(crate) fn answer(&mut self, owner: &str, namespace: &str, exists: bool) -> Vec<String> {
        self.answers.entry(owner.to_owned()).or_default().insert(namespace.to_owned(), exists);
        self.dependents_of(owner)
    }

    /// More can be asked for than before: what was only taken to exist is to be asked for again. The uids to decide on.
    pub(crate) fn doubt(&mut self) -> Vec<String> {
        let mut doubted = Vec::new();
        for (owner, answers) in &mut self.answers {
            let before = answers.len();
            answers.retain(|_, exists| !*exists);
            if answers.len() < before {
                doubted.push(owner.clone());
            }
        }
        doubted.iter().flat_map(|owner| self.dependents_of(owner)).collect()
    }

    pub(crate) fn get(&self, uid: &str) -> Option<&Object> {
        self.objects.get(uid)
    }

    /// The uids of all objects of a kind.
    pub(crate) fn of_kind(&self, kind: usize) -> Vec<String> {
        self.objects.values().filter(|object| object.kind == kind).map(|object| object.uid.clone()).collect()
    }

    /// Whether there is something to do about this object. Of an owner it is asked with each of its dependents: it does not look
    /// at all of them.
    pub(crate) fn is_due(&self, uid: &str) -> bool {
        let is_orphaning = |object: &Object| object.deleting && object.orphan;
        self.objects.get(uid).is_some_and(is_orphaning) || self.decide(uid) != Decision::Nothing
    }

    /// What to do about this object.
    pub(crate) fn decide(&self, uid: &str) -> Decision {
        let Some(object) = self.objects.get(uid) else { return Decision::Nothing };
        if object.deleting && object.orphan {
            return Decision::Orphan(self.dependents_of(uid));
        }
        if object.waits_for_dependents() {
            let blocked = self.dependents.get(uid).into_iter().flatten().any(|dependent| self.blocks(dependent, uid));
            return if blocked { Decision::Nothing } else { Decision::FinishForeground };
        }
        if object.deleting || object.owners.is_empty() {
            return Decision::Nothing;
        }
        self.by_owners(object)
    }

    fn by_owners(&self, object: &Object) -> Decision {
        let mut gone = BTreeSet::new();
        let mut waiting = BTreeSet::new();
        let mut solid = 0;
        for owner in &object.owners {
            match self.existence(owner, object) {
                Existence::Solid => solid += 1,
                Existence::Waiting => {
                    waiting.insert(owner.uid.clone());
                }
                Existence::Gone => {
                    gone.insert(owner.uid.clone());
                }
                Existence::Unknown => return Decision::Ask(owner.clone()),
            }
        }
        if solid > 0 {
            gone.extend(waiting);
            return if gone.is_empty() { Decision::Nothing } else { Decision::DropOwners(gone) };
        }
        if !waiting.is_empty() {
            let own = self.dependents_of(&object.uid);
            let circle = own.into_iter().filter(|uid| {
                self.objects.get(uid).is_some_and(Object::waits_for_dependents) && self.blocks(uid, &object.uid)
            });
            let circle: Vec<String> = circle.collect();
            if !circle.is_empty() {
                return Decision::Unblock(circle);
            }
            let has_dependents = self.dependents.contains_key(&object.uid);
            return Decision::Delete(if has_dependents { Policy::Foreground } else { policy(object) });
        }
        Decision::Delete(policy(object))
    }

    /// What is known of an owner (`isDangling`).
    fn existence(&self, owner: &Owner, dependent: &Object) -> Existence {
        let Some(known) = self.objects.get(&owner.uid) else {
            let answer = self.answers.get(&owner.uid).and_then(|answers| answers.get(&dependent.namespace));
            return match answer {
                Some(true) => Existence::Solid,
                Some(false) => Existence::Gone,
                None => Existence::Unknown,
            };
        };
        // Such a reference is a mistake, and nothing is deleted by mistake (`namespacedOwnerOfClusterScopedObjectErr`).
        if dependent.namespace.is_empty() && !known.namespace.is_empty() {
            return Existence::Solid;
        }
        match known {
            known if !is_same(known, owner, dependent) => Existence::Gone,
            known if known.waits_for_dependents() => Existence::Waiting,
            _ => Existence::Solid,
        }
    }

    fn blocks(&self, dependent: &str, owner: &str) -> bool {
        let owners = self.objects.get(dependent).map(|object| object.owners.as_slice()).unwrap_or_default();
        owners.iter().any(|reference| reference.uid == owner && reference.blocks)
    }

    fn dependents_of(&self, uid: &str) -> Vec<String> {
        let mut all: Vec<String> = self.dependents.get(uid).into_iter().flatten().cloned().collect();
        all.sort();
        all
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(all) = self.dependents.get_mut(owner) {
            all.remove(dependent);
            if all.is_empty() {
                self.dependents.remove(owner);
                self.answers.remove(owner);
            }
        }
    }
}

/// A reference counts only when it names an object of its own namespace or a cluster-scoped one, by its right name.
fn is_same(known: &Object, reference: &Owner, dependent: &Object) -> bool {
    let reachable = known.namespace.is_empty() || known.namespace == dependent.namespace;
    known.name == reference.name && reachable
}

fn policy(object: &Object) -> Policy {
    match (object.orphan, object.foreground) {
        (true, _) => Policy::Orphan,
        (_, true) => Policy::Foreground,
        _ => Policy::Background,
    }
}
