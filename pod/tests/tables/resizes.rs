//! Resources that change while the pod runs.

use api::ContainerId;
use pod::{Allocation, Deferral, Desired, Plan, Resize, Stage, Step, World, events};
use serde_json::{Value, json};

use crate::fixture::*;

fn spec(cpu: &str, policy: &str) -> Value {
    let resources = json!({"requests": {"cpu": cpu}});
    let policy = json!([{"resourceName": "cpu", "restartPolicy": policy}]);
    json!({"restartPolicy": "OnFailure", "containers": [
        {"name": "a", "image": "image:1", "resources": resources, "resizePolicy": policy},
        {"name": "b", "image": "image:1"}]})
}

/// A pod that runs with one cpu and asks for two since.
fn asks(policy: &str) -> World {
    let created_with = serde_json::from_value(json!({"requests": {"cpu": "1"}})).unwrap();
    let a = pod::Container { resources: Some(created_with), ..running("a", 0) };
    let mut world = with(spec("1", policy), vec![a, running("b", 0)]);
    world.allocation = Some(Allocation::of(&pod(spec("1", policy))));
    world.observed.actuated.cgroup.clone_from(&world.allocation);
    remember(&mut world);
    change(&mut world, |pod| {
        pod.metadata.generation = Some(4);
        pod.spec = crate::fixture::pod(spec("2", policy)).spec;
    });
    world
}

/// What the node's yes makes of it.
fn given(policy: &str) -> World {
    let mut world = asks(policy);
    let Desired::Present(pod) = &world.desired else { panic!("no pod") };
    world.allocation = Some(Allocation::of(pod));
    world
}

fn resize(plan: &Plan) -> Option<&Resize> {
    plan.steps.iter().find_map(|step| match step {
        Step::Resize(resize) => Some(&**resize),
        _ => None,
    })
}

#[test]
fn the_node_is_asked_once() {
    let mut world = asks("NotRequired");
    assert_eq!(pod::plan(&world).steps, [Step::Allocate]);
    let status = status(&world);
    assert_eq!(container(&status, "a").allocated_resources.as_ref().unwrap()["cpu"].0, "1");
    world.deferral = Some(Deferral { generation: Some(4), infeasible: false, message: "full".into() });
    assert_eq!(pod::plan(&world).steps, []);
    let told = remember(&mut world);
    let pending = condition(&told, "PodResizePending").unwrap();
    assert_eq!((pending.reason.as_deref(), pending.message.as_deref()), (Some("Deferred"), Some("full")));
    assert_eq!((pending.status.as_str(), pending.observed_generation), ("True", Some(4)));
    world.deferral = Some(Deferral { generation: Some(4), infeasible: true, message: "swaps".into() });
    assert_eq!(crate::fixture::told(&crate::fixture::status(&world), "PodResizePending"), "True Infeasible: swaps");
    // Another wish is another question.
    change(&mut world, |pod| pod.metadata.generation = Some(5));
    assert_eq!(pod::plan(&world).steps, [Step::Allocate]);
    // A wish that was taken back is none.
    change(&mut world, |pod| pod.spec = crate::fixture::pod(spec("1", "NotRequired")).spec);
    assert_eq!(pod::plan(&world).steps, []);
    assert!(condition(&crate::fixture::status(&world), "PodResizePending").is_none());
}

#[test]
fn recorded_then_resized_in_place() {
    let mut world = given("NotRequired");
    world.observed.unrecorded = true;
    assert_eq!(pod::plan(&world).steps, [Step::RecordAllocation]);
    let told = remember(&mut world);
    assert_eq!(condition(&told, "PodResizeInProgress").unwrap().observed_generation, Some(4));
    assert_eq!(container(&told, "a").allocated_resources.as_ref().unwrap()["cpu"].0, "2");
    assert_eq!(container(&told, "a").resources.as_ref().unwrap().requests.as_ref().unwrap()["cpu"].0, "1");
    world.observed.unrecorded = false;
    let plan = pod::plan(&world);
    let due = resize(&plan).unwrap();
    assert_eq!(due.containers.iter().map(|c| c.id.as_str()).collect::<Vec<_>>(), ["a-0"]);
    assert_eq!(due.cgroup.generation, Some(3));
    let in_force = world.allocation.clone().unwrap();
    world.observed.actuated.containers.insert(ContainerId::new("a-0"), in_force.containers["a"].clone());
    world.observed.actuated.cgroup = Some(in_force);
    assert!(pod::plan(&world).steps.is_empty());
    let done = status(&world);
    assert!(condition(&done, "PodResizeInProgress").is_none());
    assert_eq!(container(&done, "a").resources.as_ref().unwrap().requests.as_ref().unwrap()["cpu"].0, "2");
    assert_eq!(done.resources.unwrap().requests.unwrap()["cpu"].0, "2");
}

#[test]
fn a_container_that_restarts_for_it_makes_room_first() {
    let mut world = given("RestartContainer");
    let plan = pod::plan(&world);
    assert_eq!(kills(&plan), [("a-0", 30, "Container a resize requires restart")]);
    assert!(resize(&plan).is_none());
    // Killed, with an exit code that would not restart it: the cgroup grows before it starts again.
    world.observed.containers[0].state = exited("a", 0, 0, 99).state;
    killed(&mut world, "a-0", 98, 30, false);
    let plan = pod::plan(&world);
    assert!(resize(&plan).is_some() && starts(&plan).is_empty());
    world.observed.actuated.cgroup.clone_from(&world.allocation);
    assert_eq!(starts(&pod::plan(&world)), ["a"]);
}

/// A pod with limits of its own, whose container has none and was created with those that the pod had then.
fn inherits(policy: &str, cpu: &str) -> World {
    let of_pod = |cpu: &str| {
        let mut spec = spec("1", policy);
        spec["resources"] = json!({"limits": {"cpu": cpu}});
        spec
    };
    let created_with = serde_json::from_value(json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}})).unwrap();
    let a = pod::Container { resources: Some(created_with), ..running("a", 0) };
    let mut world = with(of_pod(cpu), vec![a, running("b", 0)]);
    world.allocation = Some(Allocation::of(&pod(of_pod(cpu))));
    world.observed.actuated.cgroup = Some(Allocation::of(&pod(of_pod("2"))));
    world
}

#[test]
fn limits_of_the_pod_are_those_of_containers_without() {
    let resized = |world: &World| {
        let plan = pod::plan(world);
        let due = resize(&plan).map(|due| due.containers.iter().map(|c| c.id.to_string()).collect::<Vec<_>>());
        (due, kills(&plan).len())
    };
    assert_eq!(resized(&inherits("NotRequired", "2")), (None, 0));
    assert_eq!(resized(&inherits("NotRequired", "3")), (Some(vec!["a-0".to_owned()]), 0));
    assert_eq!(resized(&inherits("RestartContainer", "3")), (None, 1));
    // They are the pod's, and shown as its own only.
    let told = status(&inherits("NotRequired", "3"));
    assert_eq!(container(&told, "a").resources.as_ref().unwrap().limits, None);
    assert_eq!(told.resources.unwrap().limits.unwrap()["cpu"].0, "2");
    let found = Allocation::found(&pod(spec("1", "NotRequired")), &inherits("NotRequired", "2").observed.containers);
    assert_eq!(found.containers["a"].limits, None);
}

#[test]
fn what_fails_is_told_and_holds_up_no_start() {
    let mut world = given("NotRequired");
    world.observed.containers[1].state = exited("b", 0, 1, 10).state;
    assert!(starts(&pod::plan(&world)).is_empty());
    failed(&mut world, Stage::Resize, "ResizeError", 100, 1);
    let plan = pod::plan(&world);
    assert!(resize(&plan).is_none() && plan.wake_at.is_some());
    assert_eq!(starts(&plan), ["b"]);
    assert_eq!(told(&status(&world), "PodResizeInProgress"), "True Error: why ResizeError");
}

#[test]
fn events_follow_the_conditions() {
    let said = |before: &World, after: &World| {
        let (before, after_status) = (status(before), status(after));
        let asked = pod(spec("2", "NotRequired"));
        let events = events::resize(Some(&before), &after_status, &asked, &asked);
        events.into_iter().map(|event| (event.reason, event.message)).collect::<Vec<_>>()
    };
    let calm = asks("NotRequired");
    let mut deferred = calm.clone();
    deferred.deferral = Some(Deferral { generation: Some(4), infeasible: false, message: "full".into() });
    let text = |prefix: &str, error: &str| {
        format!(
            "{prefix}: {{\"containers\":[{{\"name\":\"a\",\"resources\":{{\"requests\":{{\"cpu\":\"2\"}}}}}},\
             {{\"name\":\"b\",\"resources\":{{}}}}],\"generation\":4{error}}}"
        )
    };
    let full = text("Pod resize Deferred", ",\"error\":\"full\"");
    assert_eq!(said(&calm, &deferred), [("ResizeDeferred".to_owned(), full)]);
    assert_eq!(said(&deferred, &deferred), []);
    let started = given("NotRequired");
    assert_eq!(said(&deferred, &started), [("ResizeStarted".to_owned(), text("Pod resize started", ""))]);
    let mut broken = started.clone();
    failed(&mut broken, Stage::Resize, "ResizeError", 99, 1);
    let error = text("Pod resize error", ",\"error\":\"why ResizeError\"");
    assert_eq!(said(&started, &broken), [("ResizeError".to_owned(), error)]);
    let mut done = started.clone();
    done.observed.actuated.cgroup.clone_from(&done.allocation);
    let in_force = done.allocation.clone().unwrap().containers["a"].clone();
    done.observed.actuated.containers.insert(ContainerId::new("a-0"), in_force);
    assert_eq!(said(&broken, &done), [("ResizeCompleted".to_owned(), text("Pod resize completed", ""))]);
}
