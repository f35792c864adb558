//! Pods that make room for more important ones, with a node that nobody runs: the test is its kubelet.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by them

mod common;

use common::{Master, said};

/// Waits for what `template` says of a pod.
fn wait(master: &Master, pod: &str, template: &str, wanted: &str) {
    master.wait(&["get", "pod", pod, "-o", &format!("jsonpath={template}")], wanted);
}

fn condition(type_: &str, field: &str) -> String {
    format!("{{.status.conditions[?(@.type==\"{type_}\")].{field}}}")
}

/// A pod that asks for the whole node and stays wherever it is.
fn greedy(master: &Master, name: &str, class: &str) {
    let pod = format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}"}},"spec":{{
            "priorityClassName":"{class}","tolerations":[{{"operator":"Exists"}}],
            "containers":[{{"name":"c","image":"hello","resources":{{"requests":{{"cpu":"1"}}}}}}]}}}}"#
    );
    said(&master.create(&pod, &[]));
}

#[test]
fn a_more_important_pod_gets_the_room_of_a_lesser_one() {
    let master = Master::started();
    said(&master.create(r#"{"apiVersion":"v1","kind":"Node","metadata":{"name":"n1"}}"#, &[]));
    let room = r#"{"status":{"allocatable":{"cpu":"1","pods":"10"},"capacity":{"cpu":"1","pods":"10"}}}"#;
    master.say(&["patch", "node", "n1", "--subresource=status", "--type=merge", "-p", room]);
    for (name, value) in [("low", "1"), ("high", "1000")] {
        master.say(&["create", "priorityclass", name, "--value", value]);
    }
    // Pods are refused until their account is there.
    master.wait(&["get", "serviceaccount", "default", "-o", "name"], "serviceaccount/default");
    greedy(&master, "lesser", "low");
    wait(&master, "lesser", "{.spec.nodeName}", "n1");
    greedy(&master, "greater", "high");
    wait(&master, "greater", "{.status.nominatedNodeName}", "n1");
    wait(&master, "lesser", &condition("DisruptionTarget", "reason"), "PreemptionByScheduler");
    let message = "default-scheduler: preempting to accommodate a higher priority pod";
    wait(&master, "lesser", &condition("DisruptionTarget", "message"), message);
    let uid = master.say(&["get", "pod", "greater", "-o", "jsonpath={.metadata.uid}"]);
    let told = ["get", "events", "--field-selector=reason=Preempted", "-o", "jsonpath={.items[*].message}"];
    master.wait(&told, &format!("Preempted by pod {uid} on node n1"));
    // It waits for the victim to end, and takes no other's room meanwhile.
    let waits = "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to a terminating pod on the nominated node.";
    wait(&master, "greater", &condition("PodScheduled", "message"), waits);
    greedy(&master, "late", "low");
    wait(&master, "late", &condition("PodScheduled", "reason"), "Unschedulable");
    master.say(&["delete", "pod", "lesser", "--grace-period=0", "--force"]);
    wait(&master, "greater", "{.spec.nodeName}", "n1");
    wait(&master, "greater", "{.status.nominatedNodeName}", "");
    wait(&master, "late", "{.spec.nodeName}", "");
}
