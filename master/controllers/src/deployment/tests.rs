use std::sync::Arc;

use jiff::{Timestamp, ToSpan};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::plan::{Action, Facts, plan};
use super::sets::{Limits, scaled};
use super::{Caches, Controller, Recorder, Retry};
use crate::fake_api::FakeApi;

fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn deployment(replicas: i32, strategy: Value) -> Deployment {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "ns", "uid": "uid-web", "generation": 1, "annotations": {"note": "x"}},
        "spec": {
            "replicas": replicas,
            "strategy": strategy,
            "progressDeadlineSeconds": 600,
            "revisionHistoryLimit": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "one"}]}},
        },
    }))
    .unwrap()
}

fn rolling(surge: Value, unavailable: Value) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}

/// A cluster as far as Deployments see it: ReplicaSets, and for each how many pods are ready and how many are not.
struct World {
    deployment: Deployment,
    sets: Vec<(ReplicaSet, i32, i32)>,
    now: Timestamp,
    version: u32,
    log: Vec<String>,
}

impl World {
    fn new(deployment: Deployment) -> Self {
        Self { deployment, sets: Vec::new(), now: start(), version: 0, log: Vec::new() }
    }

    /// One pass of the Deployment controller; true when it wrote something.
    fn pass(&mut self) -> bool {
        let with_pods = self.sets.iter().filter(|(_, ready, pending)| ready + pending > 0);
        let facts = Facts {
            deployment: &self.deployment,
            sets: self.sets.iter().map(|(set, _, _)| Arc::new(set.clone())).collect(),
            with_pods: with_pods.filter_map(|(set, _, _)| set.metadata.uid.clone()).collect(),
            now: self.now,
        };
        let plan = plan(facts).unwrap();
        let mut wrote = self.deployment.status.as_ref() != Some(&plan.status);
        for action in plan.actions {
            wrote = true;
            self.apply(action);
        }
        self.deployment.status = Some(plan.status);
        wrote
    }

    fn apply(&mut self, action: Action) {
        self.version += 1;
        match action {
            Action::Create(set) => {
                let mut set = *set;
                set.metadata.uid = Some(format!("uid-{}", self.version));
                set.metadata.generation = Some(1);
                set.metadata.creation_timestamp = Some(Time(self.now + i64::from(self.version).seconds()));
                self.log.push(format!("create {}", set.spec.as_ref().unwrap().replicas.unwrap()));
                self.sets.push((set, 0, 0));
            }
            Action::Update { set, replicas, annotations, .. } => {
                let entry = self.sets.iter_mut().find(|(own, _, _)| own.metadata.uid == set.metadata.uid).unwrap();
                let spec = entry.0.spec.as_mut().unwrap();
                if spec.replicas != Some(replicas) {
                    self.log.push(format!("{}->{replicas}", spec.replicas.unwrap()));
                }
                spec.replicas = Some(replicas);
                entry.0.metadata.annotations.get_or_insert_default().extend(annotations);
            }
            Action::Delete(set) => self.sets.retain(|(own, _, _)| own.metadata.uid != set.metadata.uid),
            Action::Revision(revision) => {
                let annotations = self.deployment.metadata.annotations.get_or_insert_default();
                annotations.insert(super::revision::REVISION.into(), revision.to_string());
            }
        }
    }

    /// The ReplicaSet controller: as many pods as asked for; those that are not ready go first.
    fn replicate(&mut self) {
        for (set, ready, pending) in &mut self.sets {
            let wanted = set.spec.as_ref().unwrap().replicas.unwrap();
            let surplus = (*ready + *pending - wanted).max(0);
            let dropped = surplus.min(*pending);
            *pending -= dropped;
            *ready -= surplus - dropped;
            *pending += wanted - *ready - *pending;
            set.status = Some(ReplicaSetStatus {
                replicas: *ready + *pending,
                ready_replicas: Some(*ready),
                available_replicas: Some(*ready),
                observed_generation: set.metadata.generation,
                ..ReplicaSetStatus::default()
            });
        }
    }

    /// The nodes: a pod of one of the sets becomes ready.
    fn start_one(&mut self, choice: usize) -> bool {
        let mut waiting: Vec<_> = self.sets.iter_mut().filter(|(_, _, pending)| *pending > 0).collect();
        if waiting.is_empty() {
            return false;
        }
        let index = choice % waiting.len();
        let (_, ready, pending) = &mut *waiting[index];
        *ready += 1;
        *pending -= 1;
        true
    }

    fn settle(&mut self) {
        for step in 0..500 {
            let wrote = self.pass();
            let before = self.total();
            self.replicate();
            let started = self.start_one(step) || self.total() != before;
            self.replicate();
            self.now += 1.second();
            if !wrote && !started {
                return;
            }
        }
        panic!("does not settle: {:?}", self.log);
    }

    fn set_image(&mut self, image: &str) {
        let spec = self.deployment.spec.as_mut().unwrap();
        spec.template.spec.as_mut().unwrap().containers[0].image = Some(image.into());
        self.deployment.metadata.generation = self.deployment.metadata.generation.map(|one| one + 1);
    }

    fn ready(&self) -> i32 {
        self.sets.iter().map(|(_, ready, _)| ready).sum()
    }

    fn total(&self) -> i32 {
        self.sets.iter().map(|(_, ready, pending)| ready + pending).sum()
    }

    fn progressing(&self) -> (String, String) {
        let conditions = self.deployment.status.as_ref().unwrap().conditions.clone().unwrap();
        let one = conditions.into_iter().find(|one| one.type_ == "Progressing").unwrap();
        (one.status, one.reason.unwrap())
    }

    fn annotation(&self, index: usize, key: &str) -> Option<&str> {
        self.sets[index].0.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }
}

#[test]
fn percentages_are_rounded_as_upstream_does() {
    let percent = |text: &str| IntOrString::String(text.into());
    assert_eq!((scaled(&percent("25%"), 3, true), scaled(&percent("25%"), 3, false)), (1, 0));
    assert_eq!((scaled(&percent("100%"), 7, true), scaled(&IntOrString::Int(4), 7, true)), (7, 4));
    let limits = |strategy| Limits::of(deployment(3, strategy).spec.as_ref().unwrap());
    let defaults = limits(json!({"type": "RollingUpdate"}));
    assert_eq!((defaults.max_surge, defaults.max_unavailable), (1, 0));
    let zero = limits(rolling(json!(0), json!("10%")));
    assert_eq!((zero.max_surge, zero.max_unavailable), (0, 1));
}

#[test]
fn a_rollout_creates_numbers_and_completes() {
    let mut world = World::new(deployment(3, rolling(json!(1), json!(0))));
    world.pass();
    assert_eq!(world.progressing(), ("True".into(), "NewReplicaSetCreated".into()));
    world.settle();
    assert_eq!(world.progressing(), ("True".into(), "NewReplicaSetAvailable".into()));
    assert_eq!(world.log, ["create 3"]);
    assert_eq!(world.annotation(0, "deployment.kubernetes.io/revision"), Some("1"));
    assert_eq!(world.annotation(0, "note"), Some("x"));
    let hash = world.sets[0].0.metadata.labels.as_ref().unwrap()["pod-template-hash"].clone();
    assert_eq!(world.sets[0].0.metadata.name, Some(format!("web-{hash}")));

    world.set_image("two");
    world.settle();
    assert_eq!(world.sets.len(), 2);
    assert_eq!(world.log[1..], ["create 1", "3->2", "1->2", "2->1", "2->3", "1->0"]);
    assert_eq!(world.annotation(1, "deployment.kubernetes.io/revision"), Some("2"));

    // Undo: the first template again is its ReplicaSet again, under the next number.
    world.set_image("one");
    world.settle();
    assert_eq!(world.sets.len(), 2);
    assert_eq!(world.annotation(0, "deployment.kubernetes.io/revision"), Some("3"));
    assert_eq!(world.annotation(0, "deployment.kubernetes.io/revision-history"), Some("1"));
    let annotations = world.deployment.metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["deployment.kubernetes.io/revision"], "3");
    assert_eq!(world.progressing(), ("True".into(), "NewReplicaSetAvailable".into()));
}

#[test]
fn old_revisions_beyond_the_limit_are_removed_lowest_first() {
    let mut world = World::new(deployment(1, rolling(json!(1), json!(0))));
    for image in ["one", "two", "three", "four", "five"] {
        world.set_image(image);
        world.settle();
    }
    let revisions: Vec<_> = (0..world.sets.len()).map(|one| world.annotation(one, super::revision::REVISION)).collect();
    assert_eq!(revisions, [Some("3"), Some("4"), Some("5")]);
}

#[test]
fn recreate_ends_all_old_pods_before_the_first_new_one() {
    let mut world = World::new(deployment(3, json!({"type": "Recreate"})));
    world.settle();
    world.set_image("two");
    world.pass();
    assert_eq!(world.log, ["create 3", "3->0"]);
    // The pods are still there: nothing new yet.
    world.pass();
    assert_eq!(world.sets.len(), 1);
    world.settle();
    assert_eq!(world.log, ["create 3", "3->0", "create 3"]);
    assert_eq!(world.ready(), 3);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut world = World::new(deployment(3, rolling(json!(1), json!(1))));
    world.settle();
    world.deployment.spec.as_mut().unwrap().paused = Some(true);
    world.set_image("two");
    world.deployment.spec.as_mut().unwrap().replicas = Some(5);
    world.settle();
    assert_eq!(world.log, ["create 3", "3->5"]);
    assert_eq!(world.progressing(), ("Unknown".into(), "DeploymentPaused".into()));
    world.deployment.spec.as_mut().unwrap().paused = Some(false);
    world.settle();
    assert_eq!(world.ready(), 5);
    assert_eq!(world.sets.len(), 2);
    assert_eq!(world.progressing(), ("True".into(), "NewReplicaSetAvailable".into()));
}

#[test]
fn scaling_in_the_middle_of_a_rollout_is_proportional() {
    let mut world = World::new(deployment(10, rolling(json!(3), json!(2))));
    world.settle();
    world.set_image("broken");
    for _ in 0..10 {
        world.pass();
        world.replicate();
    }
    let sizes = |world: &World| -> Vec<i32> {
        world.sets.iter().map(|(set, _, _)| set.spec.as_ref().unwrap().replicas.unwrap()).collect()
    };
    // The example of the Deployment documentation.
    assert_eq!(sizes(&world), [8, 5]);
    world.deployment.spec.as_mut().unwrap().replicas = Some(15);
    world.pass();
    assert_eq!(sizes(&world), [11, 7]);
}

#[test]
fn a_rollout_that_does_not_progress_is_reported_after_the_deadline() {
    let mut world = World::new(deployment(2, rolling(json!(1), json!(0))));
    world.settle();
    world.set_image("broken");
    for _ in 0..5 {
        world.pass();
        world.replicate();
    }
    assert_eq!(world.progressing().0, "True");
    world.now += 601.seconds();
    world.pass();
    assert_eq!(world.progressing(), ("False".into(), "ProgressDeadlineExceeded".into()));
    assert_eq!(world.ready(), 2);
    // The next good revision still gets through.
    world.set_image("two");
    world.settle();
    assert_eq!(world.progressing(), ("True".into(), "NewReplicaSetAvailable".into()));
}

proptest! {
    #[test]
    fn a_rolling_update_keeps_its_limits_and_converges(
        replicas in 1i32..12,
        surge in 0i32..5,
        unavailable in 0i32..5,
        choices in proptest::collection::vec(0usize..7, 10..60),
    ) {
        let mut world = World::new(deployment(replicas, rolling(json!(surge), json!(unavailable))));
        world.settle();
        let limits = Limits::of(world.deployment.spec.as_ref().unwrap());
        world.set_image("two");
        for choice in choices {
            // Passes, pod starts and a further change of the image in any order.
            match choice {
                0 => { world.start_one(0); }
                1 => world.set_image("three"),
                2 => { world.start_one(1); }
                _ => { world.pass(); }
            }
            prop_assert!(world.ready() >= replicas - limits.max_unavailable, "{:?}", world.log);
            world.replicate();
            prop_assert!(world.total() <= replicas + limits.max_surge, "{:?}", world.log);
            prop_assert!(world.ready() >= replicas - limits.max_unavailable, "{:?}", world.log);
        }
        world.settle();
        prop_assert_eq!(world.ready(), replicas);
        prop_assert_eq!(world.total(), replicas);
        let used = world.sets.iter().filter(|(_, ready, _)| *ready > 0).count();
        prop_assert_eq!(used, 1);
    }
}

#[tokio::test]
async fn a_status_that_is_late_is_not_written() {
    for (version, is_late) in [("1", false), ("2", true)] {
        let api = FakeApi::new(version);
        let caches = Caches::default();
        let mut known = deployment(1, rolling(json!(1), json!(0)));
        known.metadata.resource_version = Some("1".into());
        caches.deployments.apply(known);
        let (recorder, _events) = Recorder::new(api.client(), "test");
        let outcome = Controller { client: api.client(), caches, recorder }.reconcile("ns/web").await;
        assert_eq!(matches!(outcome, Err(Retry::Stale)), is_late, "{outcome:?}");
        let status = "PATCH /apis/apps/v1/namespaces/ns/deployments/web/status";
        assert_eq!(api.taken().iter().any(|taken| taken == status), !is_late, "{:?}", api.taken());
        if !is_late {
            assert_eq!(api.body(status)["metadata"]["resourceVersion"], "1");
        }
    }
}
