//! `pod::plan` of pods that go on: what is killed, what starts again, and when.

use std::sync::Arc;

use api::{ContainerId, SandboxId};
use pod::{ContainerState, EventKind, HookState, Plan, ProbeResults, Source, Stage, Step, Verdict, World, plan};
use serde_json::{Value, json};

use crate::fixture::*;

/// An app container `c` and a sidecar `s`, both with all probes.
fn probed_pod(policy: &str) -> Value {
    let probe = json!({"exec": {"command": ["x"]}});
    let slow = json!({"exec": {"command": ["x"]}, "terminationGracePeriodSeconds": 7});
    let container = |name: &str| json!({"name": name, "image": "x", "livenessProbe": probe, "startupProbe": slow, "readinessProbe": probe});
    let mut sidecar = container("s");
    sidecar["restartPolicy"] = "Always".into();
    json!({"restartPolicy": policy, "initContainers": [sidecar], "containers": [container("c")]})
}

fn app(policy: &str) -> Value {
    json!({"restartPolicy": policy, "containers": [{"name": "c", "image": "x"}]})
}

const STARTED: ProbeResults = ProbeResults { startup: Some(Verdict::Success), liveness: None, readiness: None };
const STARTUP: ProbeResults = ProbeResults { startup: Some(Verdict::Failure), liveness: None, readiness: None };
const LIVENESS: ProbeResults =
    ProbeResults { startup: Some(Verdict::Success), liveness: Some(Verdict::Failure), readiness: None };

fn running_pod(policy: &str) -> World {
    let mut world = with(probed_pod(policy), vec![running("s", 0), running("c", 0)]);
    for id in ["s-0", "c-0"] {
        probed(&mut world, id, STARTED);
    }
    world
}

fn idle() -> Plan {
    Plan::default()
}

#[test]
fn probes_that_fail_kill_their_container() {
    for (policy, id, results, grace, message) in [
        ("Always", "c-0", LIVENESS, 30, "Container c failed liveness probe, will be restarted"),
        ("OnFailure", "c-0", LIVENESS, 30, "Container c failed liveness probe, will be restarted"),
        ("Never", "c-0", LIVENESS, 30, "Container c failed liveness probe"),
        ("Always", "c-0", STARTUP, 7, "Container c failed startup probe, will be restarted"),
        ("Always", "s-0", LIVENESS, 30, "Init container s failed liveness probe"),
        ("Always", "s-0", STARTUP, 7, "Init container s failed startup probe"),
    ] {
        let mut world = running_pod(policy);
        probed(&mut world, id, results);
        let found = plan(&world);
        assert_eq!(kills(&found), [(id, grace, message)]);
        assert!(found.steps.len() == 1 && all_kills(&found).all(|kill| kill.pre_stop && kill.reason == "Unhealthy"));

        killed(&mut world, id, 99, grace, true);
        assert_eq!(plan(&world).steps, [], "a kill that is under way is not begun again");
        killed(&mut world, id, 99, grace, false);
        let stage = Stage::Kill(id[..1].to_owned());
        failed(&mut world, stage.clone(), "KillContainerError", 100, 1);
        let waits = plan(&world);
        assert_eq!((waits.steps.len(), wakes(&world, &waits)), (0, Some(1)));
        failed(&mut world, stage, "KillContainerError", 99, 1);
        assert_eq!(kills(&plan(&world)).len(), 1, "one that failed is");
    }
    let mut world = running_pod("Always");
    probed(&mut world, "c-0", ProbeResults { readiness: Some(Verdict::Failure), ..STARTED });
    assert_eq!(plan(&world).steps, []);
}

#[test]
fn who_fails_its_probes_starts_again_even_if_it_then_ends_well() {
    for (policy, results, expected) in
        [("OnFailure", LIVENESS, "Running"), ("OnFailure", STARTUP, "Running"), ("Never", LIVENESS, "Succeeded")]
    {
        let mut pod = app(policy);
        pod["containers"][0] = probed_pod(policy)["containers"][0].clone();
        let mut world = with(pod, vec![running("c", 0)]);
        probed(&mut world, "c-0", results);
        remember(&mut world);
        let kill = all_kills(&plan(&world)).next().unwrap().clone();
        let record = pod::Kill { at: at(60), grace: kill.grace, running: false, restarts: kill.restarts };
        world.observed.kills.insert(kill.id, record);
        world.observed.containers = vec![exited("c", 0, 0, 60)];
        let status = remember(&mut world);
        assert_eq!(status.phase.as_deref(), Some(expected), "{policy}");
        let told = container(&status, "c").state.clone().unwrap();
        assert_eq!(told.terminated.is_some(), expected == "Succeeded", "an end that is told is final");
        assert_eq!(starts(&plan(&world)).len(), usize::from(expected == "Running"), "{policy}");
    }
}

#[test]
fn sidecars_stay_as_they_are_while_the_last_app_container_is_killed_for_good() {
    for (policy, starts_again) in [("Never", false), ("OnFailure", true), ("Always", true)] {
        let containers = vec![exited("s", 0, 1, 50), running("c", 0)];
        let mut world = with(probed_pod(policy), containers);
        probed(&mut world, "c-0", LIVENESS);
        killed(&mut world, "c-0", 99, 30, true);
        let expected: &[&str] = if starts_again { &["s"] } else { &[] };
        assert_eq!(starts(&plan(&world)), expected, "{policy}");
        killed(&mut world, "c-0", 99, 30, false);
        assert_eq!(starts(&plan(&world)), ["s"], "{policy}: the kill failed");
        let mut world = running_pod(policy);
        probed(&mut world, "s-0", LIVENESS);
        killed(&mut world, "c-0", 99, 30, true);
        assert_eq!(kills(&plan(&world)).is_empty(), !starts_again, "{policy}");
    }
}

#[test]
fn a_post_start_hook_that_fails_kills_its_container() {
    let mut world = with(app("Always"), vec![running("c", 0)]);
    hook(&mut world, "c-0", HookState::Running);
    assert_eq!(plan(&world), idle());
    hook(&mut world, "c-0", HookState::Failed { message: "why".to_owned() });
    assert_eq!(kills(&plan(&world)), [("c-0", 30, "FailedPostStartHook")]);
}

#[test]
fn which_probes_run() {
    let targets = |world: &World| -> Vec<(String, [bool; 3])> {
        let probes = plan(world).probes.into_iter();
        probes.map(|probe| (probe.name, [probe.startup, probe.liveness, probe.readiness])).collect()
    };
    let mut world = with(probed_pod("Always"), vec![running("s", 0)]);
    assert_eq!(targets(&world), [("s".to_owned(), [true, false, false])]);
    probed(&mut world, "s-0", STARTED);
    assert_eq!(targets(&world), [("s".to_owned(), [false, true, true])]);
    delete(&mut world, 100, 30);
    assert_eq!(targets(&world), [("s".to_owned(), [false, false, true])]);
    let mut world = running_pod("Always");
    hook(&mut world, "c-0", HookState::Running);
    assert_eq!(targets(&world)[1], ("c".to_owned(), [true, false, false]));
}

#[test]
fn restart_policies() {
    let rule = |operator: &str| json!([{"action": "Restart", "exitCodes": {"operator": operator, "values": [42]}}]);
    for (pod_policy, own, rules, code, restarts) in [
        ("Always", None, None, 0, true),
        ("OnFailure", None, None, 0, false),
        ("OnFailure", None, None, 1, true),
        ("Never", None, None, 1, false),
        ("Never", Some("Always"), None, 0, true),
        ("Never", Some("OnFailure"), None, 1, true),
        ("Always", Some("Never"), None, 1, false),
        ("Always", Some("Never"), Some(rule("In")), 42, true),
        ("Always", Some("Never"), Some(rule("In")), 1, false),
        ("Always", Some("Never"), Some(rule("NotIn")), 1, true),
        ("Always", Some("Never"), Some(rule("NotIn")), 42, false),
    ] {
        let containers = json!([
            {"name": "c", "image": "x", "restartPolicy": own, "restartPolicyRules": rules}, {"name": "d", "image": "x"}]);
        let spec = json!({"restartPolicy": pod_policy, "containers": containers});
        let world = with(spec, vec![exited("c", 0, code, 99), running("d", 0)]);
        let expected: &[&str] = if restarts { &["c"] } else { &[] };
        assert_eq!(starts(&plan(&world)), expected, "{pod_policy} {own:?} {code}");
    }
}

#[test]
fn back_off_between_restarts() {
    for (attempt, wait) in [(0, 0), (1, 10), (2, 20), (3, 40), (4, 80), (5, 160), (6, 300), (20, 300)] {
        let mut world = with(app("Always"), vec![exited("c", attempt, 1, 100)]);
        if wait > 0 {
            let found = plan(&world);
            assert_eq!((starts(&found).len(), wakes(&world, &found)), (0, Some(wait)));
            let event = &found.events[0];
            assert_eq!(event.message, "Back-off restarting failed container c in pod p_ns(uid)");
            assert_eq!((event.kind, event.reason.as_str()), (EventKind::Warning, "BackOff"));
            assert_eq!(event.field_path.as_deref(), Some("spec.containers{c}"));
        }
        world.now = at(100 + wait);
        let found = plan(&world);
        let start = all_starts(&found).next().unwrap();
        assert_eq!((start.attempt, start.backoff), (attempt + 1, attempt + 1));
    }
    for (second, backoff) in [(615, Some(1)), (614, None)] {
        let mut world = with(app("Always"), vec![exited("c", 4, 1, second)]);
        world.now = at(second);
        let found = plan(&world);
        assert_eq!(all_starts(&found).next().map(|start| start.backoff), backoff, "a run of {} s", second - 14);
    }
}

#[test]
fn a_new_image_restarts_only_its_container() {
    let containers = json!([{"name": "c", "image": "x"}, {"name": "d", "image": "x"}]);
    let spec = json!({"restartPolicy": "Never", "containers": containers});
    let mut world = with(spec, vec![running("c", 0), running("d", 0)]);
    let image = |pod: &mut k8s_openapi::api::core::v1::Pod| {
        pod.spec.as_mut().unwrap().containers[0].image = Some("y".to_owned());
    };
    change(&mut world, image);
    assert_eq!(kills(&plan(&world)), [("c-0", 30, "Container c definition changed, will be restarted")]);
    remember(&mut world);
    killed(&mut world, "c-0", 99, 30, false);
    world.observed.containers[0].state = exited("c", 0, 137, 100).state;
    let found = plan(&world);
    assert_eq!((starts(&found), found.steps.len()), (vec!["c"], 1));
    let status = status(&world);
    assert_eq!((status.phase.as_deref(), state(&status, "c").as_str()), (Some("Running"), "Running"), "no end is told");

    let mut world = with(app("Always"), vec![exited("c", 5, 1, 100)]);
    change(&mut world, image);
    assert_eq!(starts(&plan(&world)), ["c"], "a new image does not wait for the old one's back-off");
}

#[test]
fn a_post_start_hook_comes_before_the_first_start_of_the_next_container() {
    let hooked = json!({"name": "c", "image": "x", "lifecycle": {"postStart": {"exec": {"command": ["x"]}}}});
    let spec = json!({"containers": [hooked, {"name": "d", "image": "x"}]});
    let mut world = with(spec.clone(), vec![]);
    assert_eq!(starts(&plan(&world)), ["c"]);
    failed(&mut world, Stage::Container("c".to_owned()), "ErrImagePull", 99, 1);
    assert_eq!(starts(&plan(&world)), ["d"], "what does not start holds nobody up");

    let mut world = with(spec.clone(), vec![running("c", 0)]);
    hook(&mut world, "c-0", HookState::Running);
    assert_eq!(plan(&world), idle());
    for done in [HookState::Succeeded, HookState::Failed { message: "why".to_owned() }] {
        hook(&mut world, "c-0", done);
        assert_eq!(starts(&plan(&world)), ["d"]);
    }
}

#[test]
fn a_running_init_container_keeps_its_image() {
    let spec = json!({"initContainers": [{"name": "i", "image": "x"}], "containers": [{"name": "c", "image": "x"}]});
    let mut world = with(spec, vec![running("i", 0)]);
    world.observed.containers[0].spec_hash = Some("other".to_owned());
    assert_eq!(plan(&world), idle());
}

#[test]
fn init_containers_run_one_after_the_other() {
    let container = |name: &str| json!({"name": name, "image": "x"});
    let mut sidecar = container("s");
    sidecar["restartPolicy"] = "Always".into();
    let spec = json!({
        "initContainers": [container("i"), sidecar, container("j")], "containers": [container("c"), container("d")]});
    for (containers, expected) in [
        (vec![], vec!["i"]),
        (vec![running("i", 0)], vec![]),
        (vec![exited("i", 0, 0, 20)], vec!["s"]),
        (vec![exited("i", 0, 0, 20), running("s", 0)], vec!["j"]),
        (vec![exited("i", 0, 0, 20), running("s", 0), running("j", 0)], vec![]),
        (vec![exited("i", 0, 0, 20), exited("s", 0, 0, 30), running("j", 0)], vec!["s"]),
        (vec![exited("i", 0, 0, 20), running("s", 0), exited("j", 0, 0, 30)], vec!["c", "d"]),
        (vec![running("s", 0), running("c", 0)], vec!["d"]),
    ] {
        let names: Vec<String> = containers.iter().map(|container| container.id.to_string()).collect();
        assert_eq!(starts(&plan(&with(spec.clone(), containers))), expected, "{names:?}");
    }
}

#[test]
fn a_dead_sandbox_is_replaced_step_by_step() {
    let mut world = with(app("Always"), vec![running("c", 0)]);
    world.observed.sandboxes[0].ready = false;
    assert_eq!(kills(&plan(&world)), [("c-0", 30, "Stopping container c")]);
    world.observed.containers[0].state = exited("c", 0, 137, 99).state;
    assert_eq!(plan(&world).steps, [Step::StopSandbox { id: SandboxId::new("s0") }]);
    world.observed.sandboxes[0].stopped = true;
    let anew = plan(&world);
    assert_eq!(anew.steps, [Step::RunSandbox { attempt: 1 }]);
    assert_eq!((anew.events.len(), anew.events[0].reason.as_str()), (1, "SandboxChanged"));
    assert_eq!(told(&status(&world), "PodReadyToStartContainers"), "False");
    world.node.network_ready = false;
    let offline = plan(&world);
    assert_eq!((offline.steps.len(), offline.events[0].reason.as_str()), (0, "NetworkNotReady"));
    world.node.network_ready = true;
    world.observed.sandboxes.push(sandbox(1));
    let found = plan(&world);
    let start = all_starts(&found).next().unwrap();
    assert_eq!((start.sandbox.as_str(), start.attempt), ("s1", 1));

    let mut done = with(app("Never"), vec![exited("c", 0, 0, 50)]);
    done.observed.sandboxes[0].ready = false;
    assert_eq!(plan(&done).steps, [Step::StopSandbox { id: SandboxId::new("s0") }], "a pod that is done gets none");
}

#[test]
fn a_sandbox_without_an_address_is_replaced() {
    let mut world = with(app("Always"), vec![running("c", 0)]);
    assert_eq!(remember(&mut world).pod_ip.as_deref(), Some("10.0.0.7"));
    world.observed.sandboxes[0].ips.clear();
    world.observed.sandboxes[0].unaddressed = true;
    assert_eq!(status(&world).pod_ip, None);
    let mut making = world.clone();
    making.observed.making_sandbox = true;
    assert!(!plan(&making).steps.iter().any(|step| matches!(step, Step::KillContainer(_) | Step::StopSandbox { .. })));
    assert_eq!(kills(&plan(&world)).len(), 1);
    world.observed.containers[0].state = exited("c", 0, 137, 100).state;
    assert!(matches!(plan(&world).steps[..], [Step::StopSandbox { .. }]));
    world.observed.sandboxes[0].ready = false;
    world.observed.sandboxes[0].stopped = true;
    assert_eq!(plan(&world).steps, [Step::RunSandbox { attempt: 1 }]);

    let mut world = with(app("Always"), vec![running("c", 0)]);
    world.observed.sandboxes[0].unaddressed = true;
    change(&mut world, |pod| pod.spec.as_mut().unwrap().host_network = Some(true));
    assert_eq!(plan(&world).steps, []);
}

#[test]
fn what_the_runtime_lost_track_of_is_killed() {
    let mut world = with(app("Always"), vec![running("c", 0)]);
    world.observed.containers[0].state = ContainerState::Unknown;
    let found = plan(&world);
    let message = "Container is in \"unknown\" state, try killing it before restart";
    assert_eq!(kills(&found), [("c-0", 30, message)]);
    assert!(all_kills(&found).all(|kill| !kill.pre_stop));
}

#[test]
fn a_start_that_did_not_end_is_done_again() {
    let mut world = with(app("Always"), vec![running("c", 3)]);
    world.observed.containers[0].state = ContainerState::Created;
    let id = ContainerId::new("c-3");
    assert_eq!(plan(&world).steps, [Step::RemoveContainer { id, name: "c".to_owned() }]);
    world.observed.starting.insert("c".to_owned());
    assert_eq!(plan(&world).steps, [], "but not while it is under way");
}

#[test]
fn attempts_go_on_from_the_status() {
    let mut world = with(app("Always"), vec![running("c", 4)]);
    remember(&mut world);
    world.observed.containers.clear();
    remember(&mut world);
    let found = plan(&world);
    assert_eq!(all_starts(&found).next().map(|start| start.attempt), Some(5));
}

#[test]
fn failed_starts_wait() {
    for (reason, count, wait, events) in [
        ("ErrImagePull", 1, 10, 0),
        ("ErrImagePull", 3, 40, 0),
        ("ErrImageNeverPull", 3, 10, 0),
        ("CreateContainerError", 3, 10, 0),
    ] {
        let mut world = world(app("Always"));
        failed(&mut world, Stage::Container("c".into()), reason, 100, count);
        let found = plan(&world);
        let soon = if reason == "ErrImagePull" { 5 } else { wait };
        assert_eq!((starts(&found).len(), wakes(&world, &found), found.events.len()), (0, Some(soon), events));
        world.now = at(105);
        let shown = plan(&world);
        if reason == "ErrImagePull" {
            let texts: Vec<_> = shown.events.iter().map(|event| (event.kind, event.message.as_str())).collect();
            let waits = (EventKind::Normal, "Back-off pulling image \"x\"");
            assert_eq!(texts, [waits, (EventKind::Warning, "Error: ImagePullBackOff")]);
        }
        assert_eq!(wakes(&world, &shown), Some(wait - 5));
        world.now = at(100 + wait);
        assert_eq!(starts(&plan(&world)), ["c"]);
    }
}

#[test]
fn a_static_pod_is_shown_by_its_mirror_and_no_other() {
    let mirror = |hash: Option<&str>, deleted: bool| {
        let mut meta = json!({"uid": "m", "annotations": {"kubernetes.io/config.mirror": hash}});
        if hash.is_none() {
            meta["annotations"] = json!({"other": "x"});
        }
        if deleted {
            meta["deletionTimestamp"] = json!("2026-11-21T07:00:00Z");
        }
        Some(Arc::new(serde_json::from_value(json!({ "metadata": meta })).unwrap()))
    };
    let create = Step::CreateMirror { node_uid: "n".to_owned() };
    let delete = Step::DeleteMirror { uid: "m".to_owned() };
    for (mirror, node_uid, expected) in [
        (None, Some("n"), vec![create]),
        (None, None, vec![]),
        (mirror(Some("h"), false), Some("n"), vec![]),
        (mirror(Some("h"), true), Some("n"), vec![delete.clone()]),
        (mirror(Some("other"), false), None, vec![delete.clone()]),
        (mirror(None, false), Some("n"), vec![delete]),
    ] {
        let mut world = with(app("Always"), vec![running("c", 0)]);
        change(&mut world, |pod| {
            let annotations = pod.metadata.annotations.get_or_insert_default();
            annotations.insert(api::pod::HASH_ANNOTATION.to_owned(), "h".to_owned());
        });
        world.source = Source::Static { mirror };
        world.node.uid = node_uid.map(str::to_owned);
        assert_eq!(plan(&world).steps, expected);
        failed(&mut world, Stage::Mirror, "FailedCreateMirror", 100, 1);
        assert_eq!(plan(&world).steps, []);
        world.source = Source::Api;
        assert_eq!(plan(&world).steps, [], "only static pods have mirrors");
    }
}
