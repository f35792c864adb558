use serde_json::json;

use super::*;
use crate::testing::{Cluster, admin, on};

fn cluster() -> Cluster {
    let cluster = Cluster::new();
    let classes = &cluster.context().priority_classes;
    let observe = |name: &str, class: Value| classes.observe(GROUP, RESOURCE, "", name, Some(&class));
    observe("high", json!({ "value": 1000, "preemptionPolicy": "Never" }));
    observe("usual", json!({ "value": 5, "globalDefault": true }));
    cluster
}

fn admit(cluster: &Cluster, spec: Value) -> Result<Value, Refusal> {
    let user = admin();
    let mut pod = json!({ "metadata": { "name": "p" }, "spec": spec });
    Priority.admit(cluster.context(), &on(&user, Operation::Create, "pods", "default", "p"), &mut pod)?;
    Ok(pod["spec"].clone())
}

#[test]
fn a_class_becomes_numbers() {
    let cluster = cluster();
    for (given, priority, name, policy) in [
        (json!({}), 5, json!("usual"), PREEMPT),
        (json!({ "priorityClassName": "high" }), 1000, json!("high"), "Never"),
        (json!({ "priorityClassName": "high", "priority": 1000 }), 1000, json!("high"), "Never"),
        (json!({ "priorityClassName": "system-node-critical" }), 2_000_001_000, json!("system-node-critical"), PREEMPT),
    ] {
        let wanted = json!({ "priority": priority, "priorityClassName": name, "preemptionPolicy": policy });
        assert_eq!(admit(&cluster, given).unwrap(), wanted);
    }
    let none = json!({ "priority": 0, "preemptionPolicy": PREEMPT });
    assert_eq!(admit(&Cluster::new(), json!({})).unwrap(), none);
}

#[test]
fn a_pod_cannot_choose_its_number() {
    let cluster = cluster();
    let message = |spec| admit(&cluster, spec).unwrap_err().message;
    assert_eq!(
        message(json!({ "priorityClassName": "none" })),
        "pods \"p\" is forbidden: no PriorityClass with name none was found"
    );
    assert_eq!(
        message(json!({ "priority": 7 })),
        "pods \"p\" is forbidden: the integer value of priority (7) must not be provided in pod spec; priority admission controller computed 5 from the given PriorityClass name"
    );
    assert_eq!(
        message(json!({ "preemptionPolicy": "Never" })),
        "pods \"p\" is forbidden: the string value of PreemptionPolicy (Never) must not be provided in pod spec; priority admission controller computed PreemptLowerPriority from the given PriorityClass name"
    );
}

#[test]
fn an_update_keeps_what_the_client_does_not_know() {
    let (cluster, user) = (cluster(), admin());
    let old = json!({ "spec": { "priority": 5, "preemptionPolicy": PREEMPT } });
    let request = crate::Request { old: Some(&old), ..on(&user, Operation::Update, "pods", "default", "p") };
    let mut pod = json!({ "spec": {} });
    Priority.admit(cluster.context(), &request, &mut pod).unwrap();
    assert_eq!(pod, old);
}

#[test]
fn only_one_class_is_the_default() {
    let (cluster, user) = (cluster(), admin());
    let class = json!({ "metadata": { "name": "second" }, "value": 1, "globalDefault": true });
    let judge = |operation, name| {
        let request = crate::Request { group: GROUP, ..on(&user, operation, RESOURCE, "", name) };
        Priority.validate(cluster.context(), &request, Some(&class))
    };
    assert_eq!(
        judge(Operation::Create, "second").unwrap_err().message,
        "priorityclasses.scheduling.k8s.io \"second\" is forbidden: PriorityClass usual is already marked as default. Only one default can exist"
    );
    judge(Operation::Update, "usual").unwrap();
    judge(Operation::Update, "second").unwrap_err();
    cluster.context().priority_classes.observe(GROUP, RESOURCE, "", "usual", None);
    judge(Operation::Create, "second").unwrap();
}
