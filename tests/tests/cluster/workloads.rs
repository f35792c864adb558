//! Scheduler and controllers.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use keelson_tests::harness::images::{BUSYBOX, HELLO, HELLO_2};

use crate::Test;
use crate::context::{Context, Namespace};

pub const TESTS: &[Test] = &[
    ("workloads::replicas_are_spread_and_replaced", spread),
    ("workloads::an_update_and_an_undo_lose_no_request", lossless_update),
    ("workloads::recreate_ends_the_old_before_the_new", recreate),
    ("workloads::pods_are_adopted_and_released_by_label", adoption),
    ("workloads::a_daemon_set_is_on_every_node", daemon_set),
    ("workloads::pods_go_where_they_may", placement),
    ("workloads::an_autoscaler_keeps_bounds_and_says_what_it_lacks", autoscaler),
];

/// A Deployment of `hello` with a readiness probe, and a Service before it.
fn web(replicas: u8) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: {replicas}
  strategy: {{rollingUpdate: {{maxSurge: 1, maxUnavailable: 0}}}}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      containers:
        - name: web
          image: {HELLO}
          args: [--linger, "3"]
          ports: [{{name: http, containerPort: 8080}}]
          readinessProbe: {{httpGet: {{path: /healthz, port: http}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  selector: {{app: web}}
  ports: [{{port: 80, targetPort: http}}]
"#
    )
}

fn pod_nodes(ns: &Namespace<'_>) -> Result<BTreeSet<String>> {
    let nodes = ns.run(&["get", "pods", "-o", "jsonpath={.items[*].spec.nodeName}"])?;
    Ok(nodes.split_whitespace().map(str::to_owned).collect())
}

fn spread(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.apply(&web(3))?;
    ns.say("rollout status deployment/web --timeout=60s")?;
    ensure!(pod_nodes(&ns)?.len() == 3, "three pods are on {:?}", pod_nodes(&ns)?);
    let first = ns.say("get pods -o name")?;
    let victim = first.lines().next().context("a pod")?;
    ns.say(&format!("delete {victim} --wait=false"))?;
    ns.until("its replacement", || {
        let names = ns.say("get pods -o name --field-selector status.phase=Running")?;
        ensure!(names.lines().count() == 3 && !names.contains(victim), "{names}");
        Ok(())
    })
}

fn lossless_update(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.apply(&web(3))?;
    ns.say("rollout status deployment/web --timeout=60s")?;
    let ip = ns.say("get service web -o jsonpath={.spec.clusterIP}")?;
    // One request after the other from a node, for as long as the file is there.
    let stop = std::env::temp_dir().join(format!("keelson-asking-{}", std::process::id()));
    std::fs::write(&stop, "")?;
    let script = format!(
        "while [ -e {} ]; do curl -s --max-time 5 -o /dev/null -w '%{{http_code}}\\n' http://{ip}/ || echo failed; sleep 0.005; done",
        stop.display()
    );
    let mut asking: Command = context.cluster().inside("n1", "sh");
    let child = asking.args(["-c", &script]).stdout(Stdio::piped()).spawn()?;
    let result = (|| -> Result<()> {
        ns.say(&format!("set image deployment/web web={HELLO_2}"))?;
        ns.say("rollout status deployment/web --timeout=120s")?;
        ns.say("rollout undo deployment/web")?;
        ns.say("rollout status deployment/web --timeout=120s")?;
        Ok(())
    })();
    std::fs::remove_file(&stop)?;
    let said = child.wait_with_output()?;
    result?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let failed: Vec<&str> = said.lines().filter(|l| *l != "200").collect();
    // Twelve pods come and go meanwhile: fewer requests than that would have missed some of them.
    ensure!(said.lines().count() > 12, "only {} requests were made", said.lines().count());
    ensure!(failed.is_empty(), "{} of {} requests failed: {failed:?}", failed.len(), said.lines().count());
    Ok(())
}

fn recreate(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    let manifest = web(2).replace("{rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}", "{type: Recreate}");
    ns.apply(&manifest)?;
    ns.say("rollout status deployment/web --timeout=60s")?;
    ns.say(&format!("set image deployment/web web={HELLO_2}"))?;
    ns.say("rollout status deployment/web --timeout=90s")?;
    let pods = ns.json("get pods")?;
    let images: BTreeSet<&str> = pods["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|p| p["spec"]["containers"][0]["image"].as_str())
        .collect();
    ensure!(images == BTreeSet::from([HELLO_2]), "{images:?}");
    Ok(())
}

fn adoption(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.run(&["run", "stray", "--image", HELLO, "--labels=app=rs"])?;
    ns.apply(&format!(
        "{{apiVersion: apps/v1, kind: ReplicaSet, metadata: {{name: rs}}, spec: {{replicas: 2, selector: {{matchLabels: {{app: rs}}}}, \
         template: {{metadata: {{labels: {{app: rs}}}}, spec: {{containers: [{{name: c, image: {HELLO}}}]}}}}}}}}"
    ))?;
    ns.until("adoption", || {
        let owner = ns.run(&["get", "pod", "stray", "-o", "jsonpath={.metadata.ownerReferences[0].name}"])?;
        ensure!(owner == "rs" && ns.say("get pods -l app=rs -o name")?.lines().count() == 2, "owner {owner:?}");
        Ok(())
    })?;
    ns.say("label pod stray app=free --overwrite")?;
    ns.until("release", || {
        let owner = ns.run(&["get", "pod", "stray", "-o", "jsonpath={.metadata.ownerReferences}"])?;
        ensure!(owner.is_empty() && ns.say("get pods -l app=rs -o name")?.lines().count() == 2, "owner {owner:?}");
        Ok(())
    })
}

fn daemon_set(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.apply(&format!(
        "{{apiVersion: apps/v1, kind: DaemonSet, metadata: {{name: ds}}, spec: {{selector: {{matchLabels: {{app: ds}}}}, \
         template: {{metadata: {{labels: {{app: ds}}}}, spec: {{containers: [{{name: c, image: {HELLO}}}]}}}}}}}}"
    ))?;
    ns.say("rollout status daemonset/ds --timeout=60s")?;
    ensure!(pod_nodes(&ns)? == BTreeSet::from(["n1", "n2", "n3"].map(str::to_owned)));
    ns.say(&format!("set image daemonset/ds c={HELLO_2}"))?;
    ns.say("rollout status daemonset/ds --timeout=90s")?;
    ensure!(ns.say("rollout history daemonset/ds")?.lines().filter(|l| l.starts_with(['1', '2'])).count() == 2);
    Ok(())
}

fn placement(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    let kubectl = context.kubectl();
    kubectl.say("label node n3 disk=fast --overwrite")?;
    kubectl.say("taint node n1 dedicated=x:NoSchedule --overwrite")?;
    let result = (|| -> Result<()> {
        ns.run(&[
            "run",
            "selected",
            "--image",
            BUSYBOX,
            "--overrides",
            r#"{"spec":{"nodeSelector":{"disk":"fast"}}}"#,
            "--",
            "sleep",
            "1000",
        ])?;
        ns.run(&[
            "run",
            "huge",
            "--image",
            BUSYBOX,
            "--overrides",
            r#"{"spec":{"containers":[{"name":"huge","image":"x","resources":{"requests":{"cpu":"900"}}}]}}"#,
        ])?;
        ns.run(&["run", "nowhere", "--image", BUSYBOX, "--overrides", r#"{"spec":{"nodeSelector":{"disk":"none"}}}"#])?;
        ns.run(&["create", "deployment", "d", "--image", HELLO, "--replicas=4"])?;
        ns.wait("pod/selected", "condition=Ready")?;
        ensure!(ns.run(&["get", "pod", "selected", "-o", "jsonpath={.spec.nodeName}"])? == "n3");
        ns.say("rollout status deployment/d --timeout=60s")?;
        let on = ns.run(&["get", "pods", "-l", "app=d", "-o", "jsonpath={.items[*].spec.nodeName}"])?;
        ensure!(!on.contains("n1"), "a taint was not heeded: {on}");
        for (pod, words) in
            [("huge", "2 Insufficient cpu"), ("nowhere", "node(s) didn't match Pod's node affinity/selector")]
        {
            ns.until("the scheduler's explanation", || {
                let message = ns.run(&[
                    "get",
                    "pod",
                    pod,
                    "-o",
                    "jsonpath={.status.conditions[?(@.type==\"PodScheduled\")].message}",
                ])?;
                ensure!(
                    message.starts_with("0/3 nodes are available: ") && message.contains(words),
                    "{pod}: {message:?}"
                );
                Ok(())
            })?;
        }
        Ok(())
    })();
    kubectl.say("taint node n1 dedicated-")?;
    kubectl.say("label node n3 disk-")?;
    result
}

/// Nobody serves metrics here: the bounds count, and the rest is told.
fn autoscaler(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.say("create deployment d --image=x --replicas=1")?;
    ns.say("autoscale deployment d --min=2 --max=4 --cpu-percent=50")?;
    ns.until("the deployment has its least replicas", || {
        let replicas = ns.say("get deployment d -o jsonpath={.spec.replicas}")?;
        ensure!(replicas == "2", "{replicas}");
        Ok(())
    })?;
    ns.until("what is lacking is told", || {
        let said = ns.say("describe hpa d")?;
        for words in
            ["SuccessfulRescale", "Current number of replicas below Spec.MinReplicas", "FailedGetResourceMetric"]
        {
            ensure!(said.contains(words), "{words}: {said}");
        }
        Ok(())
    })?;
    let listed = ns.say("get hpa d --no-headers")?;
    ensure!(listed.contains("Deployment/d") && listed.contains("cpu: <unknown>/50%"), "{listed}");
    let older =
        ns.say("get horizontalpodautoscalers.v1.autoscaling d -o jsonpath={.spec.targetCPUUtilizationPercentage}")?;
    ensure!(older == "50", "{older}");
    ns.say("scale deployment d --replicas=9")?;
    ns.until("the deployment has its most replicas", || {
        let replicas = ns.say("get deployment d -o jsonpath={.spec.replicas}")?;
        ensure!(replicas == "4", "{replicas}");
        Ok(())
    })
}
