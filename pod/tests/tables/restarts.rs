//! All containers start anew because one ended as its rules say (KEP-5532).

use pod::world::Kill;
use pod::{Container, Step, World, plan};
use serde_json::{Value, json};

use crate::fixture::{
    all_starts, at, condition, container, exited, kills, last_state, remember, running, starts, state, told, with,
};

/// An init container, a sidecar, the container that is the cause and another one, of a pod that never restarts.
fn spec() -> Value {
    let rules = json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]);
    json!({
        "restartPolicy": "Never",
        "initContainers": [{"name": "init", "image": "x"}, {"name": "side", "image": "x", "restartPolicy": "Always"}],
        "containers": [
            {"name": "cause", "image": "x", "restartPolicy": "Never", "restartPolicyRules": rules},
            {"name": "other", "image": "x"}
        ]
    })
}

fn caused(code: i32) -> World {
    let containers = vec![exited("init", 0, 0, 5), running("side", 0), running("cause", 0), running("other", 0)];
    let mut world = with(spec(), containers);
    remember(&mut world);
    let ended = exited("cause", 0, code, 30);
    find(&mut world, "cause-0").state = ended.state;
    world
}

fn find<'w>(world: &'w mut World, id: &str) -> &'w mut Container {
    world.observed.containers.iter_mut().find(|container| container.id.as_str() == id).unwrap()
}

fn removals(world: &World) -> Vec<String> {
    let removed = |step: &Step| match step {
        Step::RemoveContainer { id, .. } => Some(id.to_string()),
        _ => None,
    };
    plan(world).steps.iter().filter_map(removed).collect()
}

#[test]
fn all_are_killed_then_removed_the_cause_last_and_then_start_as_at_first() {
    let mut world = caused(42);
    let found = plan(&world);
    assert_eq!(kills(&found), [("side-0", 0, "killing"), ("other-0", 0, "killing")]);
    assert!(starts(&found).is_empty() && removals(&world).is_empty());
    let status = remember(&mut world);
    let expected = "True RestartAllContainersStarted: container exited with restart policy rule";
    assert_eq!(told(&status, "AllContainersRestarting"), expected);
    assert_eq!(status.phase.as_deref(), Some("Running"));

    for name in ["side", "other"] {
        let id = format!("{name}-0");
        world.observed.kills.insert(id.as_str().into(), Kill { at: at(30), grace: 0, running: true, restarts: false });
        assert!(!kills(&plan(&world)).iter().any(|(killed, ..)| *killed == id), "once");
        find(&mut world, &id).state = exited(name, 0, 137, 31).state;
    }
    assert_eq!(remember(&mut world).phase.as_deref(), Some("Running"), "nothing has ended for good");
    assert_eq!(removals(&world), ["init-0", "side-0", "other-0"]);

    world.observed.containers.retain(|container| container.name == "cause");
    let status = remember(&mut world);
    assert_eq!(
        (status.phase.as_deref(), told(&status, "AllContainersRestarting").as_str()),
        (Some("Running"), expected)
    );
    assert_eq!(state(&status, "other"), "Waiting(RestartingAllContainers)");
    assert_eq!(removals(&world), ["cause-0"]);

    world.observed.containers.clear();
    world.observed.kills.clear();
    let status = remember(&mut world);
    assert_eq!(condition(&status, "AllContainersRestarting").unwrap().status, "False");
    assert_eq!(condition(&status, "Initialized").unwrap().status, "True", "it stays so");
    assert_eq!(status.phase.as_deref(), Some("Running"));
    let found = plan(&world);
    assert_eq!(starts(&found), ["init"]);
    assert_eq!(all_starts(&found).map(|start| (start.attempt, start.backoff)).collect::<Vec<_>>(), [(1, 0)]);
    // As often as it is looked at: one restart is one.
    let status = remember(&mut world);
    assert_eq!(container(&status, "cause").restart_count, 1);
    assert_eq!(last_state(&status, "cause"), "Terminated(RestartingAllContainers 137)");
}

#[test]
fn after_it_each_tells_that_it_was_restarted() {
    let mut world = caused(42);
    remember(&mut world);
    world.observed.containers.retain(|container| container.name == "cause");
    remember(&mut world);
    world.observed.containers.clear();
    remember(&mut world);
    let again = vec![exited("init", 1, 0, 40), running("side", 1), running("cause", 1), running("other", 1)];
    world.observed.containers = with(spec(), again).observed.containers;
    let status = remember(&mut world);
    assert_eq!(status.phase.as_deref(), Some("Running"));
    for name in ["side", "cause", "other"] {
        let told = container(&status, name);
        assert_eq!((told.restart_count, state(&status, name).as_str()), (1, "Running"));
        assert_eq!(last_state(&status, name), "Terminated(RestartingAllContainers 137)");
    }
    assert!(plan(&world).steps.is_empty());
}

#[test]
fn another_exit_code_and_a_pod_without_such_rules_are_as_ever() {
    let mut world = caused(1);
    assert!(kills(&plan(&world)).is_empty() && removals(&world).is_empty());
    let status = remember(&mut world);
    assert_eq!(told(&status, "AllContainersRestarting"), "False");
    let mut plain = with(json!({"containers": [{"name": "c", "image": "x"}]}), vec![running("c", 0)]);
    assert!(condition(&remember(&mut plain), "AllContainersRestarting").is_none());
}
