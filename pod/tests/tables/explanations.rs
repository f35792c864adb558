//! `pod::explain`: that the words tell what the plan was made from.

use pod::{ContainerState, ProbeResults, Stage, Verdict, World, explain, plan};
use serde_json::{Value, json};

use crate::fixture::*;

fn app() -> Value {
    json!({"restartPolicy": "Always", "containers": [{"name": "c", "image": "x", "livenessProbe": {"exec": {"command": ["x"]}}}]})
}

/// Steps with their reasons, and what is waited for.
fn told(world: &World) -> (Vec<String>, Vec<String>) {
    let explanation = explain(world, &plan(world));
    let steps = explanation.steps.iter().map(|reason| format!("{} <- {}", reason.step, reason.because));
    (steps.collect(), explanation.waits)
}

#[test]
fn a_first_start_and_one_after_an_exit() {
    let (steps, _) = told(&world(app()));
    assert_eq!(steps, ["start container c <- it did not run yet"]);
    let mut world = with(app(), vec![exited("c", 1, 1, 50)]);
    let (steps, _) = told(&world);
    assert_eq!(
        steps,
        ["restart container c (attempt 2) <- c-1 exited with code 1 (Error) at 2027-01-15T08:00:50.000Z; \
          restartPolicy Always, back-off of 10 s ends at 2027-01-15T08:01:00.000Z"]
    );
    killed(&mut world, "c-1", 40, 30, false);
    assert!(told(&world).0[0].contains("killed by this agent at 2027-01-15T08:00:40.000Z"));
}

#[test]
fn a_back_off_says_until_when() {
    let (steps, waits) = told(&with(app(), vec![exited("c", 1, 1, 95)]));
    assert!(steps.is_empty());
    assert_eq!(waits, ["container c starts again at 2027-01-15T08:01:45.000Z, after a back-off of 10 s"]);
}

#[test]
fn a_kill_says_which_probe_failed_and_facts_say_so_too() {
    let mut world = with(app(), vec![running("c", 0)]);
    let failed = ProbeResults { startup: None, liveness: Some(Verdict::Failure), readiness: None };
    probed(&mut world, "c-0", failed);
    let (steps, _) = told(&world);
    assert_eq!(steps, ["kill container c (c-0, grace 30 s) <- Container c failed liveness probe, will be restarted"]);
    let facts = explain(&world, &plan(&world)).facts;
    let says = |about: &str| facts.iter().find(|fact| fact.about == about).map(|fact| fact.says.as_str());
    assert_eq!(says("probes c"), Some("liveness failed failureThreshold times"));
    assert_eq!(says("admission"), Some("admitted"));
    assert_eq!(says("container c"), Some("c-0, attempt 0, running since 2027-01-15T08:00:10.000Z"));
}

#[test]
fn a_deletion_is_the_reason_of_all_that_follows() {
    let mut world = with(app(), vec![running("c", 0)]);
    delete(&mut world, 99, 5);
    let (steps, _) = told(&world);
    assert_eq!(steps, ["kill container c (c-0, grace 5 s) <- the pod was deleted"]);
    killed(&mut world, "c-0", 100, 5, true);
    let (steps, waits) = told(&world);
    assert!(steps.is_empty());
    assert_eq!(waits, ["container c is being killed since 2027-01-15T08:01:40.000Z, with 5 s to end"]);
}

#[test]
fn failures_are_facts_and_say_when_it_is_tried_again() {
    let mut world = world(app());
    failed(&mut world, Stage::Container("c".into()), "ErrImagePull", 98, 2);
    let (steps, waits) = told(&world);
    assert!(steps.is_empty());
    assert_eq!(waits, ["start of c is tried again at 2027-01-15T08:01:58.000Z: ErrImagePull"]);
    world.now = at(118);
    let (steps, _) = told(&world);
    assert_eq!(
        steps,
        ["start container c <- it did not run yet; try 3 after it failed at 2027-01-15T08:01:38.000Z: ErrImagePull: \
          why ErrImagePull"]
    );
}

#[test]
fn app_containers_wait_for_init_containers() {
    let spec = json!({"initContainers": [{"name": "i", "image": "x"}], "containers": [{"name": "c", "image": "x"}]});
    let (steps, waits) = told(&with(spec, vec![running("i", 0)]));
    assert!(steps.is_empty());
    assert_eq!(waits, ["container c waits for init container i"]);
}

#[test]
fn what_the_runtime_lost_is_said() {
    let mut world = with(app(), vec![running("c", 0)]);
    world.observed.containers[0].state = ContainerState::Unknown;
    let (steps, _) = told(&world);
    assert_eq!(steps.len(), 1);
    assert!(steps[0].contains("in \"unknown\" state"), "{steps:?}");
    world.observed.sandboxes.clear();
    world.observed.containers.clear();
    assert_eq!(told(&world).0, ["run a sandbox (attempt 0) <- there is none"]);
}
