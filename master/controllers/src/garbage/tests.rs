use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::graph::{Decision, Graph, Object, Owner, Policy};

fn object(uid: &str, owners: &[(&str, bool)]) -> Object {
    let owner = |(uid, blocks): &(&str, bool)| Owner {
        uid: (*uid).to_owned(),
        api_version: "v1".into(),
        kind: "ConfigMap".into(),
        name: (*uid).to_owned(),
        blocks: *blocks,
    };
    Object {
        uid: uid.into(),
        kind: 0,
        namespace: "ns".into(),
        name: uid.into(),
        resource_version: "1".into(),
        owners: owners.iter().map(owner).collect(),
        deleting: false,
        foreground: false,
        orphan: false,
    }
}

fn uids(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|uid| (*uid).to_owned()).collect()
}

#[test]
fn a_dependent_goes_when_its_last_owner_is_gone() {
    let mut graph = Graph::default();
    graph.set(object("a", &[]));
    graph.set(object("b", &[]));
    graph.set(object("c", &[("a", true), ("b", true)]));
    assert_eq!(graph.decide("c"), Decision::Nothing);
    assert!(graph.remove("a").contains(&"c".to_owned()));
    assert_eq!(graph.decide("c"), Decision::DropOwners(uids(&["a"])));
    graph.remove("b");
    assert_eq!(graph.decide("c"), Decision::Delete(Policy::Background));
}

#[test]
fn an_owner_that_was_never_seen_is_asked_for() {
    let mut graph = Graph::default();
    graph.set(object("c", &[("a", false)]));
    let Decision::Ask(owner) = graph.decide("c") else { panic!("{:?}", graph.decide("c")) };
    assert_eq!(owner.uid, "a");
    assert_eq!(graph.answer("a", "ns", false), ["c"]);
    assert_eq!(graph.decide("c"), Decision::Delete(Policy::Background));
    // The same name with another uid is another object.
    let mut other = object("a2", &[]);
    other.name = "a".into();
    graph.set(other);
    assert_eq!(graph.decide("c"), Decision::Delete(Policy::Background));
}

#[test]
fn foreground_deletion_waits_for_those_that_block() {
    let mut graph = Graph::default();
    let mut owner = object("a", &[]);
    graph.set(object("blocking", &[("a", true)]));
    graph.set(object("other", &[("a", false)]));
    graph.answer("a", "ns", true);
    (owner.deleting, owner.foreground) = (true, true);
    let dirty = graph.set(owner);
    assert!(dirty.contains(&"blocking".to_owned()) && dirty.contains(&"other".to_owned()));
    assert_eq!(graph.decide("a"), Decision::Nothing);
    assert_eq!(graph.decide("blocking"), Decision::Delete(Policy::Background));
    assert!(graph.remove("blocking").contains(&"a".to_owned()));
    assert_eq!(graph.decide("a"), Decision::FinishForeground);
}

#[test]
fn a_middle_object_is_deleted_in_the_foreground_and_circles_are_broken() {
    let mut graph = Graph::default();
    let mut owner = object("a", &[("c", true)]);
    graph.set(object("b", &[("a", true)]));
    graph.set(object("c", &[("b", true)]));
    (owner.deleting, owner.foreground) = (true, true);
    graph.set(owner);
    assert_eq!(graph.decide("b"), Decision::Delete(Policy::Foreground));
    for (uid, of) in [("b", "a"), ("c", "b")] {
        let mut waiting = object(uid, &[(of, true)]);
        (waiting.deleting, waiting.foreground) = (uid == "b", uid == "b");
        graph.set(waiting);
    }
    assert_eq!(graph.decide("c"), Decision::Unblock(vec!["a".into()]));
}

#[test]
fn orphaning_names_all_dependents() {
    let mut graph = Graph::default();
    let mut owner = object("a", &[]);
    graph.set(object("b", &[("a", true)]));
    (owner.deleting, owner.orphan) = (true, true);
    graph.set(owner);
    assert_eq!(graph.decide("a"), Decision::Orphan(vec!["b".into()]));
    assert_eq!(graph.decide("b"), Decision::Nothing);
}

/// What should be left after `gone` was deleted: everything that has no owners, or an owner that is left.
fn naive(owners: &BTreeMap<usize, BTreeSet<usize>>, gone: usize) -> BTreeSet<usize> {
    let mut left: BTreeSet<usize> = owners.keys().copied().filter(|one| *one != gone).collect();
    loop {
        let next: BTreeSet<usize> = left
            .iter()
            .copied()
            .filter(|one| owners[one].is_empty() || owners[one].iter().any(|owner| left.contains(owner)))
            .collect();
        if next == left {
            return left;
        }
        left = next;
    }
}

/// Does what the graph decides until nothing is left to do.
fn collect(graph: &mut Graph, mut dirty: Vec<String>) {
    while let Some(uid) = dirty.pop() {
        match graph.decide(&uid) {
            Decision::Nothing => (),
            Decision::Ask(owner) => dirty.extend(graph.answer(&owner.uid, "ns", false)),
            Decision::Delete(_) => dirty.extend(graph.remove(&uid)),
            Decision::DropOwners(uids) => {
                let mut object = graph.get(&uid).unwrap().clone();
                object.owners.retain(|owner| !uids.contains(&owner.uid));
                dirty.extend(graph.set(object));
            }
            other => panic!("not in a background deletion: {other:?}"),
        }
    }
}

proptest! {
    #[test]
    fn background_deletion_equals_the_naive_model(
        edges in proptest::collection::vec((1usize..14, 0usize..13), 0..30),
        gone in 0usize..14,
        order in any::<prop::sample::Index>(),
    ) {
        // Owners have lower numbers, so that there are no circles, which nothing ever collects.
        let mut owners: BTreeMap<usize, BTreeSet<usize>> = (0..14).map(|one| (one, BTreeSet::new())).collect();
        for (dependent, owner) in edges {
            if owner < dependent {
                owners.get_mut(&dependent).unwrap().insert(owner);
            }
        }
        let mut graph = Graph::default();
        let shift = order.index(14);
        for step in 0..14 {
            let one = (step + shift) % 14;
            let names: Vec<String> = owners[&one].iter().map(ToString::to_string).collect();
            let references: Vec<(&str, bool)> = names.iter().map(|name| (name.as_str(), true)).collect();
            graph.set(object(&one.to_string(), &references));
        }
        let dirty = graph.remove(&gone.to_string());
        collect(&mut graph, dirty);
        let left: BTreeSet<usize> = graph.of_kind(0).iter().map(|uid| uid.parse().unwrap()).collect();
        prop_assert_eq!(left, naive(&owners, gone));
    }
}

#[test]
fn what_was_only_taken_to_exist_is_asked_for_again() {
    let mut graph = Graph::default();
    graph.set(object("c", &[("a", false)]));
    graph.answer("a", "ns", true);
    assert_eq!(graph.decide("c"), Decision::Nothing);
    assert_eq!(graph.doubt(), ["c"]);
    assert!(matches!(graph.decide("c"), Decision::Ask(owner) if owner.uid == "a"));
    assert!(graph.doubt().is_empty());
}

fn cluster_scoped(uid: &str, owners: &[(&str, bool)]) -> Object {
    Object { namespace: String::new(), ..object(uid, owners) }
}

#[test]
fn a_cluster_scoped_object_never_goes_with_a_namespaced_owner() {
    let mut graph = Graph::default();
    graph.set(object("a", &[]));
    graph.set(object("b", &[("a", true)]));
    graph.set(cluster_scoped("c", &[("a", true)]));
    assert_eq!(graph.decide("c"), Decision::Nothing);
    // Its absence is a fact for those of its namespace only.
    graph.remove("a");
    assert_eq!(graph.decide("b"), Decision::Delete(Policy::Background));
    assert!(matches!(graph.decide("c"), Decision::Ask(owner) if owner.uid == "a"));
    graph.answer("a", "", true);
    assert_eq!(graph.decide("c"), Decision::Nothing);
    assert_eq!(graph.decide("b"), Decision::Delete(Policy::Background));
}

#[test]
fn objects_of_both_scopes_go_with_a_cluster_scoped_owner() {
    let mut graph = Graph::default();
    graph.set(cluster_scoped("a", &[]));
    graph.set(object("b", &[("a", true)]));
    graph.set(cluster_scoped("c", &[("a", true)]));
    assert_eq!((graph.decide("b"), graph.decide("c")), (Decision::Nothing, Decision::Nothing));
    graph.remove("a");
    let deleted = Decision::Delete(Policy::Background);
    assert_eq!((graph.decide("b"), graph.decide("c")), (deleted.clone(), deleted));
}

#[test]
fn what_is_absent_from_one_namespace_may_be_in_another() {
    let mut graph = Graph::default();
    graph.set(object("c", &[("a", false)]));
    graph.set(Object { namespace: "other".into(), ..object("d", &[("a", false)]) });
    graph.answer("a", "other", false);
    assert_eq!(graph.decide("d"), Decision::Delete(Policy::Background));
    assert!(matches!(graph.decide("c"), Decision::Ask(owner) if owner.uid == "a"));
}
