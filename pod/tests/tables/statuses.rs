//! `pod::status` while a pod is wanted, in the words of a kubelet 1.36.

use api::ContainerId;
use k8s_openapi::api::core::v1::PodCondition;
use pod::{ContainerState, HookState, ProbeResults, Stage, UserFacts, Verdict};
use serde_json::{Value, json};

use crate::fixture::*;

fn app() -> Value {
    json!({"containers": [{"name": "c", "image": "image:1"}]})
}

fn with_init() -> Value {
    json!({
        "initContainers": [
            {"name": "i", "image": "x"},
            {"name": "s", "image": "x", "restartPolicy": "Always", "startupProbe": {"exec": {"command": ["x"]}}}],
        "containers": [{"name": "c", "image": "x"}]})
}

fn probe(kind: &str) -> Value {
    json!({"containers": [{"name": "c", "image": "x", kind: {"exec": {"command": ["x"]}}}]})
}

#[test]
fn a_pod_that_was_just_seen() {
    let mut world = world(app());
    world.observed.sandboxes.clear();
    let status = status(&world);
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(state(&status, "c"), "Waiting(ContainerCreating)");
    assert_eq!(container(&status, "c").started, Some(false));
    assert_eq!(told(&status, "PodReadyToStartContainers"), "False");
    assert_eq!(told(&status, "Initialized"), "True");
    let unready = "False ContainersNotReady: containers with unready status: [c]";
    assert_eq!(told(&status, "Ready"), unready);
    assert_eq!(told(&status, "ContainersReady"), unready);
    assert_eq!(told(&status, "PodScheduled"), "True");
    assert_eq!(status.observed_generation, Some(3));
    assert!(status.conditions.unwrap().iter().all(|condition| condition.observed_generation == Some(3)));
    assert_eq!(status.start_time.unwrap().0, at(100));
    assert_eq!((status.host_ip.as_deref(), status.pod_ip), (Some("192.0.2.1"), None));
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
}

#[test]
fn a_pod_with_init_containers_goes_up() {
    let mut world = world(with_init());
    let first = remember(&mut world);
    assert_eq!(["i", "s", "c"].map(|name| state(&first, name)), ["Waiting(PodInitializing)"; 3]);
    let message = "False ContainersNotInitialized: containers with incomplete status: [i s]";
    assert_eq!(told(&first, "Initialized"), message);
    assert_eq!(told(&first, "PodReadyToStartContainers"), "True");

    let world = with(with_init(), vec![exited("i", 0, 0, 20), running("s", 0)]);
    let second = status(&world);
    assert_eq!(second.phase.as_deref(), Some("Pending"));
    assert_eq!(["i", "s"].map(|name| state(&second, name)), ["Terminated(Completed 0)", "Running"]);
    assert_eq!(["i", "s"].map(|name| container(&second, name).ready), [true, false]);
    let message = "False ContainersNotInitialized: containers with incomplete status: [s]";
    assert_eq!(told(&second, "Initialized"), message);
    assert_eq!(told(&second, "Ready"), "False ContainersNotReady: containers with unready status: [s c]");

    let mut world = with(with_init(), vec![exited("i", 0, 0, 20), running("s", 0), running("c", 0)]);
    probed(&mut world, "s-0", ProbeResults { startup: Some(Verdict::Success), ..ProbeResults::default() });
    let third = status(&world);
    assert_eq!(third.phase.as_deref(), Some("Running"));
    assert_eq!(["Initialized", "Ready"].map(|name| told(&third, name)), ["True", "True"]);
}

#[test]
fn an_init_container_fails() {
    for (policy, second, phase, expected) in [
        (json!({"restartPolicy": "Always"}), 95, "Pending", "Waiting(CrashLoopBackOff)"),
        (json!({"restartPolicy": "OnFailure"}), 95, "Pending", "Waiting(CrashLoopBackOff)"),
        (json!({"restartPolicy": "Never"}), 95, "Failed", "Terminated(Error 4)"),
        (json!({"restartPolicy": "Always"}), 50, "Pending", "Terminated(Error 4)"),
    ] {
        let mut spec = with_init();
        spec["restartPolicy"] = policy["restartPolicy"].clone();
        let status = status(&with(spec, vec![exited("i", 1, 4, second)]));
        assert_eq!((status.phase.as_deref(), state(&status, "i").as_str()), (Some(phase), expected), "{policy}");
    }
}

#[test]
fn a_container_may_forbid_its_restart() {
    let mut spec = with_init();
    spec["initContainers"][0]["restartPolicy"] = "Never".into();
    let failed = status(&with(spec.clone(), vec![exited("i", 0, 4, 99)]));
    assert_eq!(failed.phase.as_deref(), Some("Failed"));
    spec["initContainers"][0]["restartPolicyRules"] =
        json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [4]}}]);
    let saved = status(&with(spec, vec![exited("i", 1, 4, 99)]));
    assert_eq!((saved.phase.as_deref(), state(&saved, "i").as_str()), (Some("Pending"), "Waiting(CrashLoopBackOff)"));
}

#[test]
fn phases_by_exit_codes_and_policies() {
    let two = |policy: &str| {
        let containers = json!([{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]);
        json!({"restartPolicy": policy, "containers": containers})
    };
    for (policy, a, b, phase) in [
        ("Always", Some(0), Some(0), "Running"),
        ("Always", None, Some(1), "Running"),
        ("OnFailure", Some(0), Some(0), "Succeeded"),
        ("OnFailure", Some(0), Some(1), "Running"),
        ("OnFailure", None, Some(0), "Running"),
        ("Never", Some(0), Some(0), "Succeeded"),
        ("Never", Some(0), Some(1), "Failed"),
        ("Never", None, Some(1), "Running"),
    ] {
        let make = |name, code: Option<i32>| match code {
            Some(code) => exited(name, 0, code, 20),
            None => running(name, 0),
        };
        let status = status(&with(two(policy), vec![make("a", a), make("b", b)]));
        assert_eq!(status.phase.as_deref(), Some(phase), "{policy} {a:?} {b:?}");
    }
    let one = status(&with(two("Always"), vec![running("a", 0)]));
    assert_eq!(one.phase.as_deref(), Some("Pending"));
}

#[test]
fn ready_follows_startup_and_readiness() {
    for (kind, results, started, ready) in [
        ("startupProbe", None, false, false),
        ("startupProbe", Some(Verdict::Failure), false, false),
        ("startupProbe", Some(Verdict::Success), true, true),
        ("readinessProbe", None, true, false),
        ("readinessProbe", Some(Verdict::Failure), true, false),
        ("readinessProbe", Some(Verdict::Success), true, true),
        ("livenessProbe", None, true, true),
    ] {
        let mut world = with(probe(kind), vec![running("c", 0)]);
        let both = ProbeResults { startup: results, readiness: results, liveness: None };
        probed(&mut world, "c-0", both);
        let status = status(&world);
        let found = container(&status, "c");
        assert_eq!((found.started, found.ready), (Some(started), ready), "{kind} {results:?}");
        assert_eq!(told(&status, "Ready").starts_with("True"), ready);
        assert_eq!(status.phase.as_deref(), Some("Running"));
    }
    let mut world = with(app(), vec![running("c", 0)]);
    hook(&mut world, "c-0", HookState::Running);
    assert!(!container(&status(&world), "c").ready);
}

#[test]
fn a_restart_of_the_agent_keeps_what_probes_said() {
    let mut world = with(probe("readinessProbe"), vec![exited("c", 0, 1, 12), running("c", 1)]);
    probed(&mut world, "c-1", ProbeResults { readiness: Some(Verdict::Success), ..ProbeResults::default() });
    let before = remember(&mut world);
    assert_eq!(last_state(&before, "c"), "Terminated(Error 1)");
    world.observed.probes.clear();
    world.admission = None;
    world.now = at(200);
    assert_eq!(status(&world), before);
    world.observed.containers.remove(0);
    let after = status(&world);
    assert_eq!(after, before, "the end of the run before is known from the status");
}

#[test]
fn readiness_gates_ask_the_api_object() {
    let mut spec = app();
    spec["readinessGates"] = json!([{"conditionType": "g/a"}, {"conditionType": "g/b"}]);
    let mut world = with(spec, vec![running("c", 0)]);
    let missing = |gate| format!("corresponding condition of pod readiness gate \"{gate}\" does not exist.");
    let status = remember(&mut world);
    let message = format!("False ReadinessGatesNotReady: {}, {}", missing("g/a"), missing("g/b"));
    assert_eq!(told(&status, "Ready"), message);
    assert_eq!(told(&status, "ContainersReady"), "True");

    let gate = |name: &str, status: &str| PodCondition {
        type_: name.to_owned(),
        status: status.to_owned(),
        ..PodCondition::default()
    };
    let mut from_api = status;
    from_api.conditions.as_mut().unwrap().extend([gate("g/a", "True"), gate("g/b", "False")]);
    change(&mut world, |pod| pod.status = Some(from_api.clone()));
    let status = remember(&mut world);
    let message =
        "False ReadinessGatesNotReady: the status of pod readiness gate \"g/b\" is not \"True\", but False".to_owned();
    assert_eq!((told(&status, "Ready"), told(&status, "g/a")), (message, "True".to_owned()));

    from_api.conditions.as_mut().unwrap().last_mut().unwrap().status = "True".to_owned();
    change(&mut world, |pod| pod.status = Some(from_api));
    assert_eq!(told(&remember(&mut world), "Ready"), "True");
    change(&mut world, |pod| pod.status.as_mut().unwrap().conditions.as_mut().unwrap().truncate(5));
    assert_eq!(told(&crate::fixture::status(&world), "g/a"), "none", "what others took away is not put back");
}

#[test]
fn a_transition_time_moves_with_the_status_only() {
    let mut world = with(app(), vec![running("c", 0)]);
    let ready_since = |status: &k8s_openapi::api::core::v1::PodStatus| {
        condition(status, "Ready").unwrap().last_transition_time.clone().unwrap().0
    };
    remember(&mut world);
    world.now = at(150);
    change(&mut world, |pod| pod.metadata.generation = Some(4));
    let same = remember(&mut world);
    assert_eq!((ready_since(&same), same.observed_generation), (at(100), Some(4)));
    world.observed.containers[0] = exited("c", 0, 1, 149);
    assert_eq!(ready_since(&status(&world)), at(150));
}

#[test]
fn a_container_that_crashes_again_and_again() {
    for (attempt, delay, seconds) in
        [(1, "10s", 10), (2, "20s", 20), (4, "1m20s", 80), (5, "2m40s", 160), (9, "5m0s", 300)]
    {
        let mut world = with(app(), vec![exited("c", attempt, 3, 99)]);
        let status = remember(&mut world);
        assert_eq!(state(&status, "c"), "Waiting(CrashLoopBackOff)");
        let message = format!("back-off {delay} restarting failed container=c pod=p_ns(uid)");
        assert_eq!(waiting_message(&status, "c"), message);
        assert_eq!(last_state(&status, "c"), "Terminated(Error 3)");
        assert_eq!(container(&status, "c").restart_count, i32::try_from(attempt).unwrap());
        assert_eq!(status.phase.as_deref(), Some("Running"));
        world.now = at(99 + seconds);
        assert_eq!(state(&crate::fixture::status(&world), "c"), "Terminated(Error 3)", "its wait is over");
    }
    let first = status(&with(app(), vec![exited("c", 0, 3, 100)]));
    assert_eq!(state(&first, "c"), "Terminated(Error 3)", "the first restart comes at once");
}

#[test]
fn how_a_container_ended() {
    for (reason, code, expected) in [
        ("", 0, "Terminated(Completed 0)"),
        ("", 2, "Terminated(Error 2)"),
        ("OOMKilled", 137, "Terminated(OOMKilled 137)"),
        ("StartError", 128, "Terminated(StartError 128)"),
    ] {
        let mut spec = app();
        spec["restartPolicy"] = "Never".into();
        let mut world = with(spec, vec![exited("c", 0, code, 50)]);
        world.observed.containers[0].state = ContainerState::Exited {
            exit_code: code,
            reason: reason.to_owned(),
            message: "last words".to_owned(),
            finished_at: i64::try_from(at(50).as_nanosecond()).unwrap(),
        };
        let status = status(&world);
        assert_eq!(state(&status, "c"), expected);
        let ended = container(&status, "c").state.clone().unwrap().terminated.unwrap();
        assert_eq!(ended.message.as_deref(), Some("last words"));
        assert_eq!(ended.container_id.as_deref(), Some("containerd://c-0"));
        assert_eq!((ended.started_at.unwrap().0, ended.finished_at.unwrap().0), (at(10), at(50)));
    }
}

/// `normalizeStatus`: 12 KiB for all containers of a pod.
#[test]
fn what_containers_say_at_their_end_is_bounded_for_the_whole_pod() {
    let names = ["a", "b", "c", "d", "e", "f"];
    let containers: Vec<_> = names.iter().map(|name| json!({"name": name, "image": "x"})).collect();
    let said = |name: &str| {
        let mut container = exited(name, 1, 1, 50);
        if let pod::ContainerState::Exited { message, .. } = &mut container.state {
            *message = "ä".repeat(2000);
        }
        container
    };
    let world = with(json!({"containers": containers}), names.iter().map(|name| said(name)).collect());
    let status = status(&world);
    let states =
        status.container_statuses.iter().flatten().flat_map(|one| [one.state.as_ref(), one.last_state.as_ref()]);
    let messages = states.flatten().filter_map(|state| state.terminated.as_ref()?.message.as_ref());
    let lengths: Vec<usize> = messages.map(String::len).collect();
    assert_eq!(lengths, [2048; 6]);
}

#[test]
fn a_failure_of_another_image_holds_nothing_up() {
    let mut world = world(app());
    failed(&mut world, Stage::Container("c".into()), "ErrImagePull", 99, 9);
    let starts =
        |world: &pod::World| pod::plan(world).steps.iter().any(|step| matches!(step, pod::Step::StartContainer(_)));
    assert!(!starts(&world));
    world.failures.values_mut().for_each(|failure| failure.spec_hash = Some("of another".to_owned()));
    assert!(starts(&world));
    assert_eq!(state(&status(&world), "c"), "Waiting(ContainerCreating)");
}

#[test]
fn a_start_that_fails() {
    let pull = "Back-off pulling image \"image:1\": ErrImagePull: why ErrImagePull";
    for (reason, age, expected, message) in [
        ("ErrImagePull", 0, "Waiting(ErrImagePull)", "why ErrImagePull"),
        ("ErrImagePull", 5, "Waiting(ImagePullBackOff)", pull),
        ("ErrImageNeverPull", 9, "Waiting(ErrImageNeverPull)", "why ErrImageNeverPull"),
        ("InvalidImageName", 9, "Waiting(InvalidImageName)", "why InvalidImageName"),
        ("CreateContainerConfigError", 9, "Waiting(CreateContainerConfigError)", "why CreateContainerConfigError"),
    ] {
        let mut world = world(app());
        failed(&mut world, Stage::Container("c".into()), reason, 100 - age, 1);
        let status = status(&world);
        assert_eq!((state(&status, "c").as_str(), waiting_message(&status, "c").as_str()), (expected, message));
        assert_eq!(status.phase.as_deref(), Some("Pending"));
    }
    let mut world = with(app(), vec![exited("c", 0, 3, 50)]);
    failed(&mut world, Stage::Container("c".into()), "CreateContainerError", 99, 1);
    let status = status(&world);
    assert_eq!(
        (state(&status, "c").as_str(), status.phase.as_deref()),
        ("Waiting(CreateContainerError)", Some("Running"))
    );
    assert_eq!(last_state(&status, "c"), "Terminated(Error 3)");
}

#[test]
fn fields_of_a_running_container() {
    let mut spec = app();
    spec["containers"][0]["resources"] = json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}});
    spec["containers"][0]["volumeMounts"] = json!([
        {"name": "v", "mountPath": "/v", "readOnly": true, "recursiveReadOnly": "IfPossible"},
        {"name": "w", "mountPath": "/w"}]);
    let mut world = with(spec, vec![running("c", 2)]);
    world.observed.containers[0].user = Some(UserFacts { uid: 1, gid: 2, supplemental_groups: vec![2, 3] });
    world.node.recursive_read_only = [String::new()].into();
    let status = status(&world);
    let found = serde_json::to_value(container(&status, "c")).unwrap();
    let expected = json!({
        "name": "c", "image": "image:1", "imageID": "sha256:1", "containerID": "containerd://c-2",
        "restartCount": 2, "ready": true, "started": true, "lastState": {},
        "state": {"running": {"startedAt": at(12).to_string()}},
        "allocatedResources": {"cpu": "1"}, "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}},
        "user": {"linux": {"uid": 1, "gid": 2, "supplementalGroups": [2, 3]}},
        "volumeMounts": [
            {"name": "v", "mountPath": "/v", "readOnly": true, "recursiveReadOnly": "Enabled"},
            {"name": "w", "mountPath": "/w"}]});
    assert_eq!(found, expected);
    assert_eq!((status.pod_ip.as_deref(), status.qos_class.as_deref()), (Some("10.0.0.7"), Some("Burstable")));
}

#[test]
fn containers_are_listed_by_name_and_init_containers_in_order() {
    let container = |name: &str| json!({"name": name, "image": "x"});
    let spec = json!({
        "initContainers": [container("z"), container("y")], "containers": [container("d"), container("b")],
        "ephemeralContainers": [container("f"), container("e")]});
    let status = status(&world(spec));
    let names = |list: Option<Vec<k8s_openapi::api::core::v1::ContainerStatus>>| -> Vec<String> {
        list.unwrap().into_iter().map(|status| status.name).collect()
    };
    assert_eq!(names(status.init_container_statuses), ["z", "y"]);
    assert_eq!(names(status.container_statuses), ["b", "d"]);
    assert_eq!(names(status.ephemeral_container_statuses), ["e", "f"]);
}

#[test]
fn ephemeral_containers_change_nothing_else() {
    let mut spec = app();
    spec["ephemeralContainers"] = json!([{"name": "e", "image": "x"}]);
    let waiting = status(&with(spec.clone(), vec![running("c", 0)]));
    assert_eq!(state(&waiting, "e"), "Waiting(ContainerCreating)");
    assert_eq!(told(&waiting, "Ready"), "True");
    let ended = status(&with(spec, vec![running("c", 0), exited("e", 0, 1, 50)]));
    assert_eq!((state(&ended, "e").as_str(), container(&ended, "e").started), ("Terminated(Error 1)", None));
    assert_eq!(ended.phase.as_deref(), Some("Running"));
}

#[test]
fn containers_that_the_runtime_lost() {
    let mut world = with(with_init(), vec![exited("i", 0, 0, 20), running("s", 0), running("c", 1)]);
    probed(&mut world, "s-0", ProbeResults { startup: Some(Verdict::Success), ..ProbeResults::default() });
    remember(&mut world);
    let lost = ContainerId::new("c-1");
    world.observed.containers.retain(|container| container.id != lost);
    let status = status(&world);
    assert_eq!((state(&status, "c").as_str(), status.phase.as_deref()), ("Waiting(PodInitializing)", Some("Running")));
    assert_eq!(last_state(&status, "c"), "Terminated(ContainerStatusUnknown 137)");

    let world = with(with_init(), vec![running("s", 0), running("c", 0)]);
    let status = crate::fixture::status(&world);
    assert_eq!(
        (state(&status, "i").as_str(), told(&status, "Initialized")),
        ("Terminated(Completed 0)", "True".into())
    );
}

#[test]
fn host_networking_gives_the_addresses_of_the_node() {
    let mut spec = app();
    spec["hostNetwork"] = true.into();
    let mut world = with(spec, vec![running("c", 0)]);
    world.observed.sandboxes[0].ips.clear();
    let status = status(&world);
    assert_eq!(status.pod_ip.as_deref(), Some("192.0.2.1"));
    assert_eq!(told(&status, "PodReadyToStartContainers"), "True");
}

#[test]
fn mounts_are_told_as_the_runtime_makes_them() {
    let mounts = json!([
        {"name": "a", "mountPath": "/a", "readOnly": true, "recursiveReadOnly": "IfPossible"},
        {"name": "b", "mountPath": "/b", "readOnly": true},
        {"name": "c", "mountPath": "/c"}
    ]);
    let spec = json!({"containers": [{"name": "c", "image": "x", "volumeMounts": mounts}]});
    let told = |handlers: &[&str]| {
        let mut world = with(spec.clone(), vec![running("c", 0)]);
        world.node.recursive_read_only = handlers.iter().map(ToString::to_string).collect();
        let status = status(&world);
        let mounts = container(&status, "c").volume_mounts.clone().unwrap();
        mounts.iter().map(|mount| mount.recursive_read_only.clone().unwrap_or_default()).collect::<Vec<_>>()
    };
    assert_eq!(told(&[""]), ["Enabled", "Disabled", ""]);
    assert_eq!(told(&["other"]), ["Disabled", "Disabled", ""]);
}

#[test]
fn a_pod_is_pending_again_while_a_machine_that_was_started_anew_initializes_it() {
    let ended = || vec![exited("i", 0, 0, 20), exited("s", 0, 137, 50), exited("c", 0, 137, 50)];
    let in_new = |container: pod::Container| pod::Container { sandbox: api::SandboxId::new("s1"), ..container };
    let mut world = with(with_init(), ended());
    remember(&mut world);
    world.observed.sandboxes[0].ready = false;
    world.observed.sandboxes.push(sandbox(1));
    world.observed.containers.push(in_new(running("i", 1)));
    assert_eq!(remember(&mut world).phase.as_deref(), Some("Pending"));

    world.observed.containers.pop();
    world.observed.containers.push(in_new(exited("i", 1, 0, 60)));
    world.observed.containers.push(in_new(running("s", 1)));
    let status = remember(&mut world);
    assert_eq!((status.phase.as_deref(), container(&status, "i").restart_count), (Some("Pending"), 1));

    world.observed.containers.push(in_new(running("c", 1)));
    probed(&mut world, "s-1", ProbeResults { startup: Some(Verdict::Success), ..ProbeResults::default() });
    assert_eq!(remember(&mut world).phase.as_deref(), Some("Running"));
}

#[test]
fn what_others_wrote_over_is_noticed_and_what_is_theirs_is_not() {
    let mut world = with(app(), vec![running("c", 0)]);
    world.observed.containers[0].attempt = 1;
    let ours = remember(&mut world);
    let changed = |pointer: &str, value: Value| {
        let mut theirs = serde_json::to_value(&ours).unwrap();
        *theirs.pointer_mut(pointer).unwrap() = value;
        pod::overwritten(&ours, &serde_json::from_value(theirs).unwrap())
    };
    assert!(!changed("/phase", "Running".into()));
    for (pointer, value) in [
        ("/phase", "Failed".into()),
        ("/podIP", "10.9.9.9".into()),
        ("/podIPs", json!([])),
        ("/startTime", "2020-01-01T00:00:00Z".into()),
        ("/conditions", json!([])),
        ("/conditions/2/status", "False".into()),
        ("/containerStatuses", json!([])),
        ("/containerStatuses/0/ready", false.into()),
        ("/containerStatuses/0/restartCount", 7.into()),
        ("/containerStatuses/0/state", json!({"waiting": {"reason": "x"}})),
        ("/containerStatuses/0/lastState", json!({"terminated": {"exitCode": 1}})),
    ] {
        assert!(changed(pointer, value), "{pointer}");
    }
    let mut theirs = ours.clone();
    theirs.reason = Some(String::new());
    theirs.conditions.as_mut().unwrap().push(serde_json::from_value(json!({"type": "x", "status": "True"})).unwrap());
    theirs.resize = Some("Proposed".into());
    assert!(!pod::overwritten(&ours, &theirs));
}
