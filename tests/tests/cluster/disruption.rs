//! What ends without asking: master, agent, containerd, a whole node. Runs after all other tests.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use keelson_tests::harness::images::{BUSYBOX, HELLO};
use keelson_tests::harness::shell::wait_for;
use nix::sys::signal::Signal;
use rand::Rng;

use crate::Test;
use crate::context::{Context, Namespace};
use crate::load::Load;
use crate::runtime;

pub const TESTS: &[Test] = &[
    ("disruption::killing_agent_and_containerd_restarts_no_container", kill_node_programs),
    ("disruption::users_of_pods_stay_when_the_agent_starts_anew", runtime::users_stay),
    ("disruption::pods_live_on_without_the_api", api_away),
    ("disruption::a_node_of_which_nothing_was_known_is_ready_again_at_once", doubted_node),
    ("disruption::killing_the_master_loses_nothing", kill_master),
    ("disruption::a_lost_node_is_tainted_and_evicted", lost_node),
    ("disruption::when_all_nodes_are_lost_nothing_is_evicted", all_nodes_lost),
];

fn rounds(quick: u32) -> u32 {
    std::env::var("KEELSON_ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(quick)
}

/// Container name -> id, of all pods of a namespace.
fn container_ids(ns: &Namespace<'_>) -> Result<BTreeMap<String, String>> {
    let pods = ns.json("get pods")?;
    let mut ids = BTreeMap::new();
    for pod in pods["items"].as_array().into_iter().flatten() {
        let name = pod["metadata"]["name"].as_str().context("name")?;
        for container in pod["status"]["containerStatuses"].as_array().into_iter().flatten() {
            let key = format!("{name}/{}", container["name"]);
            ids.insert(key, format!("{} {}", container["containerID"], container["restartCount"]));
        }
    }
    Ok(ids)
}

fn kill_node_programs(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.apply(&format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: d}}
spec:
  replicas: 4
  selector: {{matchLabels: {{app: d}}}}
  template:
    metadata: {{labels: {{app: d}}}}
    spec:
      nodeSelector: {{kubernetes.io/hostname: n1}}
      containers:
        - {{name: web, image: {HELLO}, livenessProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 1}}, readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}}}
        - {{name: sh, image: {BUSYBOX}, command: [sh, -c, "while true; do date; sleep 1; done"]}}
"#
    ))?;
    ns.say("rollout status deployment/d --timeout=90s")?;
    let before = container_ids(&ns)?;
    ensure!(before.len() == 8, "{before:?}");
    for round in 0..rounds(4) {
        std::thread::sleep(Duration::from_millis(rand::rng().random_range(0..2500)));
        let mut cluster = context.cluster();
        let (agent, containerd) = (round % 3 != 1, round % 3 != 0);
        if agent {
            cluster.process("agent-n1")?.kill()?;
        }
        if containerd {
            cluster.process("containerd-n1")?.kill()?;
            cluster.run_containerd("n1")?;
        }
        if agent {
            cluster.run_agent("n1")?;
        }
        cluster.wait_ready("n1")?;
    }
    // A pod made now runs, and the others are as they were.
    ns.run(&["run", "after", "--image", HELLO, "--overrides", r#"{"spec":{"nodeName":"n1"}}"#])?;
    ns.wait("pod/after", "condition=Ready")?;
    ns.say("delete pod after --grace-period=1")?;
    ns.wait("deployment/d", "condition=Available")?;
    let after = container_ids(&ns)?;
    ensure!(after == before, "containers were restarted:\n{before:#?}\n{after:#?}");
    ensure!(!ns.say("logs deployment/d -c sh --since=3s")?.is_empty(), "logs have stopped");
    Ok(())
}

fn api_away(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.run(&[
        "run",
        "p",
        "--image",
        BUSYBOX,
        "--overrides",
        r#"{"spec":{"nodeName":"n2"}}"#,
        "--",
        "sh",
        "-c",
        "sleep 5; exit 1",
    ])?;
    ns.wait("pod/p", "condition=Ready")?;
    let before = ns.json("get pod p")?["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or(0);
    context.cluster().process("master")?.kill()?;
    std::thread::sleep(Duration::from_secs(20));
    context.cluster().run_master()?;
    wait_for("the API server", Duration::from_secs(30), || context.kubectl().say("get --raw /readyz").map(drop))?;
    ns.until("the restarts that nobody saw", || {
        let now = ns.json("get pod p")?["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or(0);
        ensure!(now > before, "{now} restarts, as before");
        Ok(())
    })?;
    for node in ["n1", "n2", "n3"] {
        context.cluster().wait_ready(node)?;
    }
    Ok(())
}

/// What the node lifecycle controller writes after an outage, while the node has nothing new to report by itself.
fn doubted_node(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    let unknown = r#"{"status":{"conditions":[{"type":"Ready","status":"Unknown","reason":"NodeStatusUnknown"}]}}"#;
    let status = |wanted: &str| {
        let now = ns.say("get node n3 -o jsonpath={.status.conditions[?(@.type=='Ready')].reason}")?;
        ensure!(now == wanted, "{now}");
        Ok(())
    };
    ns.run(&["patch", "node", "n3", "--subresource=status", "-p", unknown])?;
    wait_for("the node to be Ready", Duration::from_secs(20), || status("KubeletReady"))
}

fn kill_master(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    let load = Load::start(&context.kubectl().kubeconfig, &ns.name);
    let rounds = rounds(8);
    for _ in 0..rounds {
        std::thread::sleep(Duration::from_millis(rand::rng().random_range(50..1200)));
        let mut cluster = context.cluster();
        cluster.process("master")?.kill()?;
        cluster.run_master()?;
        drop(cluster);
        wait_for("the API server", Duration::from_secs(30), || context.kubectl().say("get --raw /readyz").map(drop))?;
    }
    let acknowledged = load.end()?;
    ensure!(acknowledged > u64::from(rounds) * 10, "only {acknowledged} writes were acknowledged");
    Ok(())
}

/// A Deployment `d` of three pods that leave a lost node after two seconds.
fn impatient(ns: &Namespace<'_>) -> Result<()> {
    ns.apply(&format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: d}}
spec:
  replicas: 3
  selector: {{matchLabels: {{app: d}}}}
  template:
    metadata: {{labels: {{app: d}}}}
    spec:
      tolerations:
        - {{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 2}}
        - {{key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 2}}
      terminationGracePeriodSeconds: 1
      containers: [{{name: c, image: {HELLO}}}]
"#
    ))?;
    ns.say("rollout status deployment/d --timeout=60s")?;
    Ok(())
}

fn lost_node(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    impatient(&ns)?;
    context.cluster().process("agent-n3")?.kill()?;
    ns.until("NotReady and the taint", || {
        let node = context.kubectl().json("get node n3")?;
        let ready = node["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|c| c["type"] == "Ready")
            .context("Ready")?;
        ensure!(ready["status"] == "Unknown" && ready["reason"] == "NodeStatusUnknown", "{ready}");
        ensure!(node["spec"]["taints"].to_string().contains("node.kubernetes.io/unreachable"), "{}", node["spec"]);
        Ok(())
    })?;
    ns.until("replacements elsewhere", || {
        let pods = ns.json("get pods --field-selector status.phase=Running")?;
        let elsewhere = pods["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|p| p["spec"]["nodeName"] != "n3" && p["metadata"]["deletionTimestamp"].is_null());
        let count = elsewhere.count();
        ensure!(count == 3, "{count} pods elsewhere");
        Ok(())
    })?;
    let mut cluster = context.cluster();
    cluster.run_agent("n3")?;
    cluster.wait_ready("n3")?;
    drop(cluster);
    ns.until("the lost pods to be gone", || {
        ensure!(ns.say("get pods -o name")?.lines().count() == 3);
        Ok(())
    })
}

/// The agents are all there, only nobody hears of them any more: more likely the master is cut off.
fn all_nodes_lost(context: &Context) -> Result<()> {
    const NODES: [&str; 3] = ["n1", "n2", "n3"];
    let ns = context.namespace()?;
    impatient(&ns)?;
    let uids = || ns.say("get pods -l app=d -o jsonpath={.items[*].metadata.uid}");
    let nodes = |path: &str| context.kubectl().say(&format!("get nodes -o jsonpath={{.items[*]{path}}}"));
    let tell = |signal: Signal| {
        let cluster = context.cluster();
        NODES.iter().try_for_each(|node| cluster.process(&format!("agent-{node}"))?.signal(signal))
    };
    let before = uids()?;
    let silent = tell(Signal::SIGSTOP).and_then(|()| {
        ns.until("all nodes to be lost", || {
            let ready = nodes(".status.conditions[?(@.type=='Ready')].status")?;
            ensure!(ready == "Unknown Unknown Unknown", "{ready}");
            Ok(())
        })
    });
    let judged = silent.and_then(|()| {
        ns.until("no taint that empties a node", || {
            let effects = nodes(".spec.taints[*].effect")?;
            ensure!(effects.contains("NoSchedule") && !effects.contains("NoExecute"), "{effects}");
            Ok(())
        })
    });
    tell(Signal::SIGCONT)?;
    for node in NODES {
        context.cluster().wait_ready(node)?;
    }
    judged?;
    let evictions = ns.say("get events --field-selector reason=TaintManagerEviction -o name")?;
    ensure!(evictions.is_empty(), "{evictions}");
    ensure!(uids()? == before, "other pods than before: {before}");
    Ok(())
}
