//! Properties of `pod::plan` on a model machine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod simulator;

use std::collections::{BTreeMap, VecDeque};

use k8s_openapi::api::core::v1::Pod;
use pod::ContainerState;
use proptest::prelude::*;
use serde_json::json;
use simulator::{Machine, Trouble};

#[derive(Clone, Debug)]
struct Case {
    /// Whether each is a sidecar, and its exit codes.
    init: Vec<(bool, Vec<i32>)>,
    apps: Vec<Vec<i32>>,
    policy: &'static str,
    /// The apps' resize policy.
    restarts_for_cpu: bool,
}

impl Case {
    fn machine(&self, trouble: Trouble) -> Machine {
        let mut script = BTreeMap::new();
        let mut init = Vec::new();
        for (index, (sidecar, codes)) in self.init.iter().enumerate() {
            let name = format!("i{index}");
            let mut container = json!({"name": name, "image": "x"});
            if *sidecar {
                container["restartPolicy"] = "Always".into();
                container["lifecycle"] = json!({"preStop": {"sleep": {"seconds": 1}}});
            }
            init.push(container);
            script.insert(name, VecDeque::from(codes.clone()));
        }
        let mut apps = Vec::new();
        for (index, codes) in self.apps.iter().enumerate() {
            let name = format!("a{index}");
            let policy = if self.restarts_for_cpu { "RestartContainer" } else { "NotRequired" };
            let policy = json!([{"resourceName": "cpu", "restartPolicy": policy}]);
            apps.push(json!({"name": name, "image": "x", "resizePolicy": policy,
                "resources": {"requests": {"cpu": "1"}}}));
            script.insert(name, VecDeque::from(codes.clone()));
        }
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "uid", "generation": 1},
            "spec": {"initContainers": init, "containers": apps, "restartPolicy": self.policy}
        }))
        .unwrap();
        Machine::new(pod, script, trouble)
    }

    /// What was asked for last holds for all that runs.
    fn assert_resized(&self, machine: &Machine) {
        let Some(pod) = machine.pod.as_ref().filter(|_| machine.phase() == "Running") else { return };
        let wish = pod::Allocation::of(pod);
        let observed = &machine.observed;
        assert!(machine.allocation.as_ref().is_some_and(|given| given.grants_as(&wish)));
        assert!(observed.actuated.cgroup.as_ref().is_some_and(|cgroup| cgroup.grants_as(&wish)));
        for container in observed.containers.iter().filter(|container| container.state == ContainerState::Running) {
            let has = observed.actuated.containers.get(&container.id).or(container.resources.as_ref());
            assert!(pod::allocation::same(has, wish.containers.get(&container.name)), "{} is behind", container.name);
        }
        let conditions = machine.previous.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        assert!(!conditions.iter().any(|condition| condition.type_.starts_with("PodResize")), "{conditions:?}");
    }

    fn settled(&self, trouble: Trouble) -> Machine {
        let mut machine = self.machine(trouble);
        machine.settle();
        machine
    }

    /// The end that every road must lead to.
    fn assert_settled(&self, machine: &Machine) {
        match machine.phase() {
            "Succeeded" | "Failed" => {
                assert!(
                    !machine.observed.containers.iter().any(|container| container.state == ContainerState::Running)
                );
                assert!(!machine.observed.prepared.cgroup && !machine.observed.prepared.volumes_on_disk);
            }
            "Running" => assert!(machine.observed.sandboxes.iter().any(|sandbox| sandbox.ready)),
            phase => panic!("settled as {phase:?}: {:#?}", machine.previous),
        }
        let kept = machine.observed.containers.len();
        assert!(kept <= 2 * (self.init.len() + self.apps.len()), "garbage: {kept} containers");
    }
}

fn codes() -> impl Strategy<Value = Vec<i32>> {
    proptest::collection::vec(prop_oneof![Just(0), Just(1)], 0..4)
}

fn case() -> impl Strategy<Value = Case> {
    let init = proptest::collection::vec((any::<bool>(), codes()), 0..4);
    let apps = proptest::collection::vec(codes(), 1..4);
    let policy = prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")];
    // No validation lets a resize restart what never restarts.
    let restarts = any::<bool>();
    (init, apps, policy, restarts).prop_map(|(init, apps, policy, restarts)| Case {
        init,
        apps,
        policy,
        restarts_for_cpu: restarts && policy != "Never",
    })
}

fn counts(machine: &Machine) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for start in &machine.starts {
        *counts.entry(start.name.clone()).or_default() += 1;
    }
    counts
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn every_pod_settles(case in case(), reverse: bool) {
        let machine = case.settled(Trouble { reverse, ..Trouble::default() });
        case.assert_settled(&machine);
    }

    #[test]
    fn a_failure_of_any_step_does_not_matter(case in case()) {
        let steps = case.settled(Trouble::default()).steps;
        for k in 0..steps {
            let machine = case.settled(Trouble { fail: Some(k), ..Trouble::default() });
            case.assert_settled(&machine);
        }
    }

    #[test]
    fn a_restart_of_the_agent_starts_nothing_again(case in case(), half: bool) {
        let calm = case.settled(Trouble::default());
        for k in 0..calm.steps {
            let machine = case.settled(Trouble { restart: Some(k), half, ..Trouble::default() });
            case.assert_settled(&machine);
            prop_assert_eq!(counts(&machine), counts(&calm), "restart after step {}", k);
            prop_assert_eq!(machine.phase(), calm.phase());
        }
    }

    #[test]
    fn a_dead_sandbox_is_replaced(case in case()) {
        let steps = case.settled(Trouble::default()).steps;
        for k in 0..steps {
            let machine = case.settled(Trouble { sandbox_dies: Some(k), ..Trouble::default() });
            case.assert_settled(&machine);
        }
    }

    #[test]
    fn deletion_at_any_step_ends_empty(case in case(), fail in 0_usize..8, restart in 0_usize..8) {
        let steps = case.settled(Trouble::default()).steps;
        for k in 0..steps {
            for trouble in [
                Trouble { delete: Some(k), ..Trouble::default() },
                Trouble { delete: Some(k), fail: Some(k + 1 + fail), ..Trouble::default() },
                Trouble { delete: Some(k), restart: Some(k + 1 + restart), ..Trouble::default() },
            ] {
                let machine = case.settled(trouble);
                prop_assert!(machine.done && machine.pod.is_none() && machine.is_empty(), "{:?}", trouble);
            }
        }
    }

    #[test]
    fn a_resize_at_any_step_holds(case in case(), at in 0_usize..20, fail in 0_usize..6, restart in 0_usize..6) {
        for trouble in [
            Trouble { resize: Some(at), ..Trouble::default() },
            Trouble { resize: Some(at), fail: Some(at + 1 + fail), ..Trouble::default() },
            Trouble { resize: Some(at), restart: Some(at + 1 + restart), ..Trouble::default() },
        ] {
            let machine = case.settled(trouble);
            case.assert_settled(&machine);
            case.assert_resized(&machine);
        }
    }

    #[test]
    fn what_was_not_there_before_a_removal_is_removed(case in case(), at in 0_usize..20) {
        let mut machine = case.machine(Trouble { delete: Some(at), ..Trouble::default() });
        machine.settle();
        if !machine.done {
            machine.pod = None;
            machine.settle();
        }
        prop_assert!(machine.done && machine.is_empty());
    }
}

#[test]
fn a_deleted_pod_tells_how_its_containers_ended() {
    let case = Case { init: vec![], apps: vec![vec![]], policy: "Always", restarts_for_cpu: false };
    let mut machine = case.settled(Trouble::default());
    machine.delete(30);
    machine.settle();
    let status = machine.previous.unwrap();
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    let state = status.container_statuses.unwrap()[0].state.clone().unwrap();
    assert_eq!(state.terminated.unwrap().exit_code, 137);
}

/// Small pods, with every step of the deletion disturbed after every step of the way up.
#[test]
fn deletion_of_small_pods_ends_empty_whatever_fails() {
    let case = |init: Vec<(bool, Vec<i32>)>, apps: usize, policy| Case {
        init,
        apps: vec![vec![]; apps],
        policy,
        restarts_for_cpu: false,
    };
    for case in [
        case(vec![], 2, "Always"),
        case(vec![(true, vec![])], 1, "OnFailure"),
        case(vec![(false, vec![1])], 1, "Never"),
    ] {
        for delete in (0..case.settled(Trouble::default()).steps).map(Some) {
            let calm = case.settled(Trouble { delete, ..Trouble::default() });
            for then in (0..=calm.steps).map(Some) {
                for trouble in [
                    Trouble { delete, fail: then, ..Trouble::default() },
                    Trouble { delete, restart: then, ..Trouble::default() },
                    Trouble { delete, restart: then, half: true, ..Trouble::default() },
                    Trouble { delete, sandbox_dies: then, ..Trouble::default() },
                ] {
                    let machine = case.settled(trouble);
                    assert!(machine.done && machine.pod.is_none() && machine.is_empty(), "{case:?} {trouble:?}");
                }
            }
        }
    }
}
