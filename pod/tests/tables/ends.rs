//! The ends of pods: deletion, eviction, deadline, rejection, completion. Plans and the statuses that go with them.

use std::sync::Arc;

use api::{ContainerId, SandboxId};
use pod::{Admission, Desired, Eviction, Plan, Source, Step, World, plan};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::fixture::*;

/// Sidecars `s` and `t`, apps `c` and `d`.
fn spec() -> Value {
    let sidecar = |name: &str| json!({"name": name, "image": "x", "restartPolicy": "Always"});
    json!({
        "initContainers": [sidecar("s"), sidecar("t")],
        "containers": [{"name": "c", "image": "x"}, {"name": "d", "image": "x"}]})
}

fn all_running() -> World {
    with(spec(), ["s", "t", "c", "d"].map(|name| running(name, 0)).to_vec())
}

fn app() -> Value {
    json!({"containers": [{"name": "c", "image": "x"}]})
}

fn end(world: &mut World, name: &str, second: i64) {
    let ended = exited(name, 0, 0, second).state;
    let mut containers = world.observed.containers.iter_mut();
    containers.find(|container| container.name == name).unwrap().state = ended;
}

/// Takes a plan's kills as begun.
fn begin(world: &mut World, plan: &Plan) {
    for kill in all_kills(plan) {
        let record = pod::Kill { at: world.now, grace: kill.grace, running: true, restarts: kill.restarts };
        world.observed.kills.insert(kill.id.clone(), record);
    }
}

#[test]
fn sidecars_end_after_the_others_in_reverse_order() {
    let mut world = all_running();
    delete(&mut world, 100, 30);
    let first = plan(&world);
    assert_eq!(kills(&first), [("c-0", 30, "Stopping container c"), ("d-0", 30, "Stopping container d")]);
    assert!(all_kills(&first).all(|kill| kill.pre_stop && kill.reason == "Killing"));
    begin(&mut world, &first);
    assert_eq!(plan(&world).steps, []);
    end(&mut world, "c", 110);
    world.now = at(110);
    assert_eq!(plan(&world).steps, [], "one app container still runs");
    end(&mut world, "d", 120);
    world.now = at(120);
    let second = plan(&world);
    assert_eq!(kills(&second), [("t-0", 10, "Stopping container t")]);
    begin(&mut world, &second);
    end(&mut world, "t", 140);
    world.now = at(140);
    assert_eq!(kills(&plan(&world)), [("s-0", 2, "Stopping container s")], "the grace period is used up");
    end(&mut world, "s", 141);
    assert_eq!(plan(&world).steps, [Step::StopSandbox { id: SandboxId::new("s0") }]);
}

/// The containers whose preStop hooks a plan begins ahead of their kills, and the seconds that these may take.
fn hooks(plan: &Plan) -> Vec<(&str, i64)> {
    let hooks = plan.steps.iter().filter_map(|step| match step {
        Step::PreStop(hook) => Some((hook.id.as_str(), hook.limit)),
        _ => None,
    });
    hooks.collect()
}

/// As [`all_running`], where every container has a preStop hook.
fn all_hooked() -> World {
    let mut spec = spec();
    for list in ["initContainers", "containers"] {
        for container in spec[list].as_array_mut().unwrap() {
            container["lifecycle"] = json!({"preStop": {"sleep": {"seconds": 5}}});
        }
    }
    with(spec, ["s", "t", "c", "d"].map(|name| running(name, 0)).to_vec())
}

fn begin_hooks(world: &mut World, plan: &Plan) {
    for (id, _) in hooks(plan) {
        let record = pod::Begun { at: world.now, running: true };
        world.observed.pre_stops.insert(ContainerId::new(id), record);
    }
}

#[test]
fn all_pre_stop_hooks_begin_at_once_and_sidecars_stop_in_their_turn() {
    let mut world = all_hooked();
    delete(&mut world, 100, 30);
    let first = plan(&world);
    assert_eq!(hooks(&first), [("s-0", 30), ("t-0", 30)]);
    assert_eq!(kills(&first).len(), 2);
    assert_eq!(wakes(&world, &first), Some(30));
    begin(&mut world, &first);
    begin_hooks(&mut world, &first);
    assert_eq!(plan(&world).steps, [], "a hook runs once");
    world.now = at(110);
    end(&mut world, "c", 110);
    end(&mut world, "d", 110);
    assert_eq!(plan(&world).steps, [], "it is the turn of one whose hook still runs");
    for hook in world.observed.pre_stops.values_mut() {
        hook.running = false;
    }
    let second = plan(&world);
    assert_eq!(kills(&second), [("t-0", 20, "Stopping container t")]);
    assert!(all_kills(&second).all(|kill| !kill.pre_stop), "the hook did run");
}

#[test]
fn nobody_waits_for_a_turn_when_the_grace_period_is_over() {
    let mut world = all_hooked();
    for name in ["c", "d"] {
        end(&mut world, name, 90);
    }
    delete(&mut world, 100, 30);
    let first = plan(&world);
    assert_eq!((kills(&first), hooks(&first)), (vec![("t-0", 30, "Stopping container t")], vec![("s-0", 30)]));
    begin(&mut world, &first);
    begin_hooks(&mut world, &first);
    world.now = at(130);
    assert_eq!(kills(&plan(&world)), [("s-0", 2, "Stopping container s")], "whatever its hook does, and the other");
}

#[test]
fn a_kill_long_before_the_completion_of_the_pod_spends_no_grace() {
    let mut world = all_hooked();
    change(&mut world, |pod| pod.spec.as_mut().unwrap().restart_policy = Some("Never".to_owned()));
    killed(&mut world, "c-0", 20, 30, false);
    for name in ["c", "d"] {
        end(&mut world, name, 60);
    }
    let first = plan(&world);
    assert_eq!(kills(&first), [("t-0", 30, "Stopping container t")]);
    assert_eq!(hooks(&first), [("s-0", 30)]);
}

#[test]
fn kills_of_an_earlier_time_shorten_no_grace() {
    let mut world = all_running();
    killed(&mut world, "c-0", 20, 30, false);
    for name in ["c", "d"] {
        end(&mut world, name, 90);
    }
    delete(&mut world, 100, 30);
    assert_eq!(kills(&plan(&world)), [("t-0", 30, "Stopping container t")]);
}

#[test]
fn grace_periods() {
    for (own, asked, expected) in [(None, None, 30), (Some(60), None, 60), (Some(60), Some(5), 5), (None, Some(0), 1)] {
        let mut spec = app();
        spec["terminationGracePeriodSeconds"] = json!(own);
        let mut world = with(spec, vec![running("c", 0)]);
        delete(&mut world, 100, 30);
        change(&mut world, |pod| pod.metadata.deletion_grace_period_seconds = asked);
        assert_eq!(kills(&plan(&world)), [("c-0", expected, "Stopping container c")]);
    }
}

#[test]
fn a_second_delete_may_only_shorten() {
    for (now, grace, expected) in
        [(110, 60, None), (110, 30, None), (110, 5, Some(5)), (110, 0, Some(1)), (128, 5, None)]
    {
        let mut world = with(app(), vec![running("c", 0)]);
        killed(&mut world, "c-0", 100, 30, true);
        delete(&mut world, 100, grace);
        world.now = at(now);
        let found = plan(&world);
        assert_eq!(kills(&found).first().map(|kill| kill.1), expected, "{grace} s, asked at {now}");
    }
}

proptest! {
    #[test]
    fn a_kill_is_not_begun_again_as_time_passes(grace in 0_i64..100, used in 0_i64..120_000, later in 0_i64..200_000) {
        let mut world = all_running();
        delete(&mut world, 100, grace);
        let first = plan(&world);
        begin(&mut world, &first);
        let millis = |from: jiff::Timestamp, millis| from + jiff::SignedDuration::from_millis(millis);
        world.now = millis(at(100), used);
        for name in ["c", "d"] {
            end(&mut world, name, 100);
        }
        let second = plan(&world);
        // When the grace period is over, the sidecar whose turn comes later goes too.
        let over = used >= grace.max(1) * 1000;
        prop_assert_eq!(kills(&second).len(), if over { 2 } else { 1 });
        begin(&mut world, &second);
        world.now = millis(world.now, later);
        let third = plan(&world);
        prop_assert!(all_kills(&third).all(|kill| kill.name == "s" && !over));
        begin(&mut world, &third);
        prop_assert_eq!(plan(&world).steps, []);
    }
}

#[test]
fn a_deleted_pod_goes_down() {
    let mut world = with(app(), vec![running("c", 0)]);
    delete(&mut world, 100, 30);
    let status = remember(&mut world);
    assert_eq!((status.phase.as_deref(), told(&status, "Ready").as_str()), (Some("Running"), "True"));
    world.observed.containers[0].state = exited("c", 0, 143, 101).state;
    world.observed.sandboxes[0].ready = false;
    world.observed.sandboxes[0].stopped = true;
    let untold = plan(&world);
    assert_eq!(untold.steps, [], "the end of its container is told first");
    let status = remember(&mut world);
    assert_eq!((status.phase.as_deref(), state(&status, "c").as_str()), (Some("Failed"), "Terminated(Error 143)"));
    assert_eq!(told(&status, "Ready"), "False PodFailed");
    assert!(matches!(plan(&world).steps[..], [Step::RemoveContainer { .. }]));

    // Its next run was being created when the sandbox went: that is found late, told nowhere, and holds nothing up.
    let mut late = world.clone();
    late.observed.containers.push(exited("c", 1, 128, 101));
    assert_eq!(state(&remember(&mut late), "c"), "Terminated(Error 143)");
    assert!(matches!(plan(&late).steps[..], [Step::RemoveContainer { .. }, Step::RemoveContainer { .. }]));
    world.observed.containers.clear();
    assert!(matches!(plan(&world).steps[..], [Step::RemoveSandbox { .. }]));
    world.observed.sandboxes.clear();
    let mut making = world.clone();
    making.observed.starting.insert("c".into());
    assert_eq!(plan(&making).steps, [], "a start under way may still bind something into the volumes");
    making = world.clone();
    making.observed.making_sandbox = true;
    assert_eq!(plan(&making).steps, [], "a sandbox that is being made is stopped first");
    assert_eq!(plan(&world).steps, [Step::UnmountVolumes]);
    world.observed.prepared.volumes = false;
    world.observed.prepared.volumes_on_disk = false;
    assert_eq!(plan(&world).steps, [Step::RemoveCgroup]);
    world.observed.prepared.cgroup = false;
    assert_eq!(plan(&world).steps, [Step::FinaliseDeletion]);
    world.published = false;
    assert_eq!(plan(&world).steps, [], "not before the API has its status");
    world.desired = Desired::Gone { last: None, grace: None, returns: false };
    assert!(plan(&world).done);
}

#[test]
fn a_pod_that_never_ran_fails_when_it_is_deleted() {
    let init = json!({
        "initContainers": [{"name": "i", "image": "x"}, {"name": "j", "image": "x"}],
        "containers": [{"name": "c", "image": "x"}]});
    let unknown = "Terminated(ContainerStatusUnknown 137)";
    for (spec, expected) in [
        (app(), vec![("c", unknown)]),
        (init, vec![("i", unknown), ("j", "Waiting(PodInitializing)"), ("c", "Waiting(PodInitializing)")]),
    ] {
        let mut world = world(spec);
        delete(&mut world, 100, 30);
        assert_eq!(remember(&mut world).phase.as_deref(), Some("Pending"), "it still has a sandbox");
        world.observed.sandboxes.clear();
        let status = status(&world);
        assert_eq!(status.phase.as_deref(), Some("Failed"));
        let found: Vec<(&str, String)> = expected.iter().map(|(name, _)| (*name, state(&status, name))).collect();
        assert_eq!(found, expected.iter().map(|(name, word)| (*name, (*word).to_owned())).collect::<Vec<_>>());
    }
}

#[test]
fn an_evicted_pod() {
    let mut world = with(app(), vec![running("c", 0)]);
    let message = "The node was low on resource: memory.".to_owned();
    world.eviction = Some(Eviction {
        reason: "Evicted".to_owned(),
        message: message.clone(),
        disruption: Some(message.clone()),
        grace: Some(0),
        annotations: [("starved_resource".to_owned(), "memory".to_owned())].into(),
        event: true,
        clears: true,
    });
    let found = plan(&world);
    assert_eq!(kills(&found), [("c-0", 1, "Stopping container c")]);
    assert_eq!((found.events[0].reason.as_str(), &found.events[0].message), ("Evicted", &message));
    assert_eq!(found.events[0].annotations["starved_resource"], "memory");
    let status = remember(&mut world);
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Running"), None));
    assert_eq!(told(&status, "DisruptionTarget"), "none", "it comes with the end");
    let disrupted = format!("True TerminationByKubelet: {message}");
    world.observed.containers[0].state = exited("c", 0, 137, 101).state;
    let status = remember(&mut world);
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("Evicted")));
    assert_eq!((status.message, told(&crate::fixture::status(&world), "DisruptionTarget")), (Some(message), disrupted));

    // What it wrote goes with it, once its end is told.
    world.observed.sandboxes[0].ready = false;
    world.observed.sandboxes[0].stopped = true;
    world.observed.prepared = pod::Prepared::default();
    world.published = false;
    assert_eq!(plan(&world).steps, []);
    let told = remember(&mut world);
    assert!(matches!(plan(&world).steps[..], [Step::RemoveContainer { .. }]));
    let mut of_shutdown = world.clone();
    of_shutdown.eviction.as_mut().unwrap().clears = false;
    assert_eq!(plan(&of_shutdown).steps, []);
    world.observed.containers.clear();
    assert!(matches!(plan(&world).steps[..], [Step::RemoveSandbox { .. }]));
    world.observed.sandboxes.clear();
    let cleared = remember(&mut world);
    assert_eq!((plan(&world).steps, cleared.container_statuses), (vec![], told.container_statuses));
}

/// Upstream's e2e_node: critical_pod_test.go.
#[test]
fn an_evicted_pod_whose_containers_end_well_has_succeeded() {
    let order = Eviction {
        reason: "Preempting".to_owned(),
        message: "Preempted in order to admit critical pod".to_owned(),
        disruption: Some("d".to_owned()),
        grace: None,
        annotations: std::collections::BTreeMap::new(),
        event: true,
        clears: true,
    };
    let failed = (Some("Failed"), Some("Preempting"));
    for (codes, is_static, policy, expected) in [
        ([0, 0], false, "Always", (Some("Succeeded"), None)),
        ([0, 1], false, "Always", failed),
        ([0, 0], true, "Always", failed),
        ([0, 0], true, "Never", (Some("Succeeded"), None)),
    ] {
        let spec =
            json!({"restartPolicy": policy, "containers": [{"name": "c", "image": "x"}, {"name": "d", "image": "x"}]});
        let mut world = with(spec, vec![running("c", 0), running("d", 0)]);
        if is_static {
            world.source = Source::Static { mirror: None };
        }
        world.eviction = Some(order.clone());
        remember(&mut world);
        for (container, code) in world.observed.containers.iter_mut().zip(codes) {
            container.state = exited("c", 0, code, 101).state;
        }
        let first = remember(&mut world);
        for status in [first, status(&world)] {
            assert_eq!((status.phase.as_deref(), status.reason.as_deref()), expected, "{codes:?} {is_static} {policy}");
            assert_eq!(told(&status, "DisruptionTarget"), "True TerminationByKubelet: d");
        }
    }
    // One that never ran.
    let mut world = world(app());
    world.eviction = Some(order);
    assert_eq!((status(&world).phase.as_deref(), status(&world).reason.as_deref()), failed);
}

#[test]
fn a_pod_that_others_say_has_ended_ends() {
    let mut world = with(app(), vec![running("c", 0)]);
    remember(&mut world);
    let failed = json!({"phase": "Failed", "reason": "Lost", "message": "m"});
    change(&mut world, |pod| pod.status = serde_json::from_value(failed).unwrap());
    assert_eq!(kills(&plan(&world)), [("c-0", 30, "Stopping container c")]);
    let status = remember(&mut world);
    let said = |status: &k8s_openapi::api::core::v1::PodStatus| {
        [&status.phase, &status.reason, &status.message].map(|text| text.clone().unwrap_or_default())
    };
    assert_eq!(
        (said(&status), state(&status, "c")),
        (["Failed", "Lost", "m"].map(str::to_owned), "Running".to_owned())
    );
    assert_eq!(told(&status, "Ready"), "False PodFailed");
    assert_eq!(kills(&plan(&world)).len(), 1);
    world.observed.containers[0].state = exited("c", 0, 0, 101).state;
    for _ in 0..2 {
        let status = remember(&mut world);
        assert_eq!(said(&status), ["Failed", "Lost", "m"].map(str::to_owned));
        assert_eq!(state(&status, "c"), "Terminated(Completed 0)");
    }
    // The mirror of a static pod decides nothing.
    world.source = Source::Static { mirror: None };
    world.previous = None;
    world.now = at(400);
    assert_eq!(starts(&plan(&world)), ["c"]);
}

#[test]
fn a_pod_of_a_machine_that_goes_down() {
    let mut world = with(app(), vec![running("c", 0)]);
    let message = "Pod was terminated in response to imminent node shutdown.".to_owned();
    let order = Eviction {
        reason: "Terminated".to_owned(),
        message: message.clone(),
        disruption: Some(message.clone()),
        grace: Some(5),
        annotations: std::collections::BTreeMap::new(),
        event: false,
        clears: false,
    };
    world.eviction = Some(order.clone());
    let found = plan(&world);
    assert_eq!((kills(&found), found.events.len()), (vec![("c-0", 5, "Stopping container c")], 0));
    world.observed.containers[0].state = exited("c", 0, 143, 101).state;
    let status = remember(&mut world);
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("Terminated")));
    assert_eq!(status.message.as_ref(), Some(&message));
    assert_eq!(told(&status, "DisruptionTarget"), format!("True TerminationByKubelet: {message}"));

    // One that is being deleted gets no more time than the machine has.
    let mut world = with(app(), vec![running("c", 0)]);
    delete(&mut world, 100, 30);
    assert_eq!(kills(&plan(&world)), [("c-0", 30, "Stopping container c")]);
    world.eviction = Some(order);
    assert_eq!(kills(&plan(&world)), [("c-0", 5, "Stopping container c")]);
}

#[test]
fn a_pod_with_a_deadline() {
    let mut spec = app();
    spec["activeDeadlineSeconds"] = 50.into();
    let mut world = with(spec, vec![running("c", 0)]);
    remember(&mut world);
    let found = plan(&world);
    assert_eq!((found.steps.len(), wakes(&world, &found)), (0, Some(50)));
    world.now = at(150);
    let found = plan(&world);
    let message = "Pod was active on the node longer than the specified deadline";
    assert_eq!(kills(&found), [("c-0", 30, "Stopping container c")]);
    assert_eq!((found.events[0].reason.as_str(), found.events[0].message.as_str()), ("DeadlineExceeded", message));
    assert_eq!(status(&world).phase.as_deref(), Some("Running"), "its container still runs");
    world.observed.containers[0].state = exited("c", 0, 0, 151).state;
    let status = status(&world);
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("DeadlineExceeded")));
    assert_eq!(status.message.as_deref(), Some(message));
}

#[test]
fn a_rejected_pod() {
    let mut world = world(app());
    world.observed = pod::Observed::default();
    let (reason, message) = ("OutOfcpu".to_owned(), "Node didn't have enough resource: cpu".to_owned());
    world.admission = Some(Admission::Rejected { reason: reason.clone(), message: message.clone() });
    let found = plan(&world);
    assert_eq!(found.steps, [Step::Reject { reason: reason.clone(), message: message.clone() }]);
    assert_eq!((&found.events[0].reason, &found.events[0].message), (&reason, &message));
    let status = remember(&mut world);
    assert_eq!((status.phase.as_deref(), status.reason.as_ref()), (Some("Failed"), Some(&reason)));
    assert_eq!(status.message, Some(format!("Pod was rejected: {message}")));
    assert_eq!((status.container_statuses, status.host_ip), (None, None));
    let after = plan(&world);
    assert_eq!((after.steps, after.events.len()), (vec![], 0), "it is said once");
    world.admission = None;
    assert_eq!(plan(&world).steps, [], "nor is it admitted anew after a restart");
}

#[test]
fn a_completed_pod_gives_back_what_it_has_but_its_logs() {
    let mut spec = spec();
    spec["restartPolicy"] = "Never".into();
    let mut world = with(spec, ["s", "t", "c", "d"].map(|name| running(name, 0)).to_vec());
    end(&mut world, "c", 60);
    end(&mut world, "d", 60);
    assert_eq!(remember(&mut world).phase.as_deref(), Some("Running"), "its sidecars still run");
    assert_eq!(kills(&plan(&world)), [("t-0", 30, "Stopping container t")]);
    end(&mut world, "t", 61);
    end(&mut world, "s", 62);
    let status = remember(&mut world);
    assert_eq!(status.phase.as_deref(), Some("Succeeded"));
    let conditions = ["Initialized", "Ready", "ContainersReady"].map(|name| told(&status, name));
    assert_eq!(conditions, ["True PodCompleted", "False PodCompleted", "False PodCompleted"]);
    assert_eq!(plan(&world).steps, [Step::StopSandbox { id: SandboxId::new("s0") }]);
    world.observed.sandboxes[0].ready = false;
    world.observed.sandboxes[0].stopped = true;
    assert_eq!(plan(&world).steps, [Step::UnmountVolumes, Step::RemoveCgroup]);
    world.now = at(200);
    let settled = remember(&mut world);
    assert_eq!(told(&settled, "PodReadyToStartContainers"), "False");
    assert_eq!(settled.container_statuses, status.container_statuses);
    world.now = at(300);
    assert_eq!(crate::fixture::status(&world), settled);
}

#[test]
fn a_static_pod_has_nothing_to_finalise() {
    let mut world = world(app());
    world.source = Source::Static { mirror: None };
    let Desired::Present(pod) = &world.desired else { panic!("no pod") };
    world.desired = Desired::Gone { last: Some(Arc::clone(pod)), grace: Some(3), returns: false };
    world.observed.containers = vec![running("c", 0)];
    assert_eq!(kills(&plan(&world)), [("c-0", 3, "Stopping container c")]);
    world.observed = pod::Observed::default();
    let found = plan(&world);
    assert!(found.done && found.steps.is_empty());
}

/// Upstream's e2e_node: "should successfully recreate when file is removed and recreated".
#[test]
fn a_static_pod_whose_manifest_came_back_ends_first_and_is_restarted_then() {
    let mut world = with(app(), vec![running("c", 0)]);
    world.source = Source::Static { mirror: None };
    let wanted = world.desired.clone();
    let Desired::Present(pod) = &wanted else { panic!("no pod") };
    world.desired = Desired::Gone { last: Some(Arc::clone(pod)), grace: None, returns: true };
    assert_eq!(kills(&plan(&world)), [("c-0", 30, "Stopping container c")]);
    world.observed.containers = vec![exited("c", 0, 0, 20)];
    assert!(matches!(plan(&world).steps[..], [Step::StopSandbox { .. }]));
    for sandbox in &mut world.observed.sandboxes {
        (sandbox.ready, sandbox.stopped) = (false, true);
    }
    assert_eq!(plan(&world).steps, [Step::UnmountVolumes, Step::RemoveCgroup]);
    world.observed.prepared = pod::Prepared::default();
    let ended = plan(&world);
    assert!(ended.done && ended.steps.is_empty(), "its dead container stays");
    world.desired = wanted;
    world.observed.prepared = pod::Prepared { volumes: true, volumes_on_disk: true, cgroup: true };
    assert_eq!(plan(&world).steps, [Step::RunSandbox { attempt: 1 }]);
    world.observed.sandboxes.push(sandbox(1));
    assert!(matches!(&plan(&world).steps[..], [Step::StartContainer(start)] if start.attempt == 1));
}

#[test]
fn an_orphan_of_which_nothing_is_known_is_ended() {
    let mut world = with(app(), vec![running("c", 0)]);
    world.desired = Desired::Gone { last: None, grace: None, returns: false };
    assert_eq!(kills(&plan(&world)), [("c-0", 30, "Stopping container c")]);
}
