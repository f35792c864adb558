//! Which static pods there are, whose turn it is, and what the API server has under their names. Data; the set of
//! workers acts on it.
//!
//! A manifest that changes is another pod of the same name: it waits until nothing is left of the one before.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use api::PodUid;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;

use super::manifests::Place;
use super::source::uid;
use super::worker::{Mirrors, Origin};

/// Namespace and name.
pub type Name = (String, String);

/// The name of a pod.
#[must_use]
pub fn name(pod: &Pod) -> Name {
    (pod.metadata.namespace.clone().unwrap_or_default(), pod.metadata.name.clone().unwrap_or_default())
}

/// A pod that is to have a worker.
pub struct Wanted {
    pub uid: PodUid,
    pub pod: Arc<Pod>,
    pub origin: Origin,
}

/// What follows from a change of manifests.
#[derive(Default)]
pub struct Changes {
    /// Pods to start, or to hand to their worker.
    pub wanted: Vec<Wanted>,
    /// Pods whose manifest is gone.
    pub gone: Vec<PodUid>,
    /// Pods that end, whose manifest is there again.
    pub returning: Vec<PodUid>,
}

/// Static pods and mirrors of this node.
#[derive(Default)]
pub struct Statics {
    places: BTreeMap<Place, BTreeMap<PodUid, Arc<Pod>>>,
    /// The pod of each name that has a worker, and whether it is to end.
    running: HashMap<Name, (PodUid, bool)>,
    mirrors: HashMap<Name, watch::Sender<Option<Arc<Pod>>>>,
}

impl Statics {
    /// A place has these pods and no others.
    pub fn apply(&mut self, place: Place, pods: Vec<Arc<Pod>>) -> Changes {
        let now: BTreeMap<PodUid, Arc<Pod>> = pods.into_iter().map(|pod| (uid(&pod), pod)).collect();
        let before = self.places.insert(place, now.clone()).unwrap_or_default();
        let mut changes = Changes::default();
        for (uid, pod) in before.iter().filter(|(uid, _)| !now.contains_key(*uid)) {
            if let Some((running, ending)) = self.running.get_mut(&name(pod)).filter(|(running, _)| running == uid) {
                *ending = true;
                changes.gone.push(running.clone());
            }
        }
        for (uid, pod) in now {
            if self.running.get(&name(&pod)) == Some(&(uid.clone(), true)) {
                changes.returning.push(uid.clone());
            }
            let same = before.get(&uid).is_some_and(|before| Arc::ptr_eq(before, &pod));
            changes.wanted.extend(self.start(uid, pod).filter(|_| !same));
        }
        changes
    }

    /// Nothing is left of a pod. Answers the one that waited for its name.
    pub fn ended(&mut self, uid: &PodUid) -> Option<Wanted> {
        let name = self.running.iter().find(|(_, (running, _))| running == uid).map(|(name, _)| name.clone())?;
        self.running.remove(&name);
        let of_name = |pod: &&Arc<Pod>| self::name(pod) == name;
        let next = self.places.values().flat_map(BTreeMap::values).find(of_name).cloned();
        let next = next.and_then(|pod| self.start(self::uid(&pod), pod));
        if next.is_none() {
            self.tidy(&name);
        }
        next
    }

    /// Unless another pod has its name.
    fn start(&mut self, uid: PodUid, pod: Arc<Pod>) -> Option<Wanted> {
        let name = name(&pod);
        let running = self.running.entry(name.clone()).or_insert_with(|| (uid.clone(), false));
        (*running == (uid.clone(), false)).then(|| Wanted { uid, pod, origin: Origin::manifest(self.mirror_of(name)) })
    }

    fn mirror_of(&mut self, name: Name) -> Mirrors {
        self.mirrors.entry(name).or_insert_with(|| watch::channel(None).0).subscribe()
    }

    /// The API server has this pod under its name.
    pub fn mirror(&mut self, pod: Arc<Pod>) {
        self.mirrors.entry(name(&pod)).or_insert_with(|| watch::channel(None).0).send_replace(Some(pod));
    }

    /// The API server does not have a mirror any more.
    pub fn mirror_gone(&mut self, pod: &Pod) {
        let name = name(pod);
        if let Some(mirror) = self.mirrors.get(&name) {
            let is =
                |known: &Option<Arc<Pod>>| known.as_ref().is_some_and(|known| known.metadata.uid == pod.metadata.uid);
            mirror.send_if_modified(|known| is(known) && known.take().is_some());
        }
        self.tidy(&name);
    }

    /// The API server has these mirrors and no others.
    pub fn mirrors(&mut self, pods: Vec<Arc<Pod>>) {
        let there: HashSet<Name> = pods.iter().map(|pod| name(pod)).collect();
        let gone: Vec<Name> = self.mirrors.keys().filter(|name| !there.contains(*name)).cloned().collect();
        for name in gone {
            if let Some(mirror) = self.mirrors.get(&name) {
                mirror.send_if_modified(|known| known.take().is_some());
            }
            self.tidy(&name);
        }
        for pod in pods {
            self.mirror(pod);
        }
    }

    /// Mirrors of pods that this node has no manifest for, and of which nothing runs any more.
    pub fn orphans(&self) -> Vec<Arc<Pod>> {
        let without_pod = self.mirrors.iter().filter(|(name, _)| !self.running.contains_key(*name));
        without_pod.filter_map(|(_, mirror)| mirror.borrow().clone()).collect()
    }

    /// Forgets a name that nothing has.
    fn tidy(&mut self, name: &Name) {
        let unused = !self.running.contains_key(name);
        if unused && self.mirrors.get(name).is_some_and(|mirror| mirror.borrow().is_none()) {
            self.mirrors.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, uid: &str) -> Arc<Pod> {
        let meta = serde_json::json!({"namespace": "ns", "name": name, "uid": uid});
        Arc::new(serde_json::from_value(serde_json::json!({ "metadata": meta })).unwrap())
    }

    fn seen(changes: &Changes) -> (Vec<&str>, Vec<&str>) {
        let wanted = changes.wanted.iter().map(|wanted| wanted.uid.as_str()).collect();
        (wanted, changes.gone.iter().map(PodUid::as_str).collect())
    }

    #[test]
    fn a_changed_manifest_waits_for_the_one_before() {
        let mut statics = Statics::default();
        let a = pod("a", "1");
        assert_eq!(seen(&statics.apply(Place::Path, vec![Arc::clone(&a)])), (vec!["1"], vec![]));
        assert_eq!(seen(&statics.apply(Place::Path, vec![a])), (vec![], vec![]));
        assert_eq!(seen(&statics.apply(Place::Path, vec![pod("a", "2"), pod("b", "3")])), (vec!["3"], vec!["1"]));
        assert_eq!(seen(&statics.apply(Place::Path, vec![pod("a", "4")])), (vec![], vec!["3"]));
        assert_eq!(statics.ended(&PodUid::new("1")).unwrap().uid.as_str(), "4");
        assert!(statics.ended(&PodUid::new("3")).is_none());
        assert!(statics.ended(&PodUid::new("9")).is_none());
    }

    #[test]
    fn a_manifest_that_comes_back_starts_anew() {
        let mut statics = Statics::default();
        statics.apply(Place::Url, vec![pod("a", "1")]);
        assert_eq!(seen(&statics.apply(Place::Url, vec![])), (vec![], vec!["1"]));
        let changes = statics.apply(Place::Url, vec![pod("a", "1")]);
        assert_eq!(seen(&changes), (vec![], vec![]));
        assert_eq!(changes.returning, [PodUid::new("1")]);
        assert_eq!(seen(&statics.apply(Place::Url, vec![])), (vec![], vec!["1"]));
        assert_eq!(statics.apply(Place::Url, vec![pod("a", "1")]).returning, [PodUid::new("1")]);
        assert_eq!(statics.ended(&PodUid::new("1")).unwrap().uid.as_str(), "1");
    }

    #[test]
    fn a_pod_that_changes_under_its_own_uid_is_handed_on() {
        let mut statics = Statics::default();
        statics.apply(Place::Path, vec![pod("a", "1")]);
        assert_eq!(seen(&statics.apply(Place::Path, vec![pod("a", "1")])), (vec!["1"], vec![]));
    }

    #[test]
    fn mirrors_without_a_pod_are_orphans() {
        let mut statics = Statics::default();
        statics.apply(Place::Path, vec![pod("a", "1")]);
        statics.mirrors(vec![pod("a", "m1"), pod("b", "m2")]);
        let orphans = |statics: &Statics| -> Vec<String> {
            statics.orphans().iter().map(|pod| pod.metadata.uid.clone().unwrap()).collect()
        };
        assert_eq!(orphans(&statics), ["m2"]);
        statics.apply(Place::Path, vec![]);
        assert_eq!(orphans(&statics), ["m2"], "the pod still ends");
        statics.ended(&PodUid::new("1"));
        assert_eq!(orphans(&statics).len(), 2);
        // Another pod of the name came meanwhile: the deletion of the one before says nothing of it.
        statics.mirror(pod("a", "m3"));
        statics.mirror_gone(&pod("a", "m1"));
        statics.mirror_gone(&pod("b", "m2"));
        assert_eq!(orphans(&statics), ["m3"]);
        statics.mirrors(vec![]);
        assert!(statics.orphans().is_empty() && statics.mirrors.is_empty());
    }
}
