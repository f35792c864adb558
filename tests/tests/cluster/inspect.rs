//! What a person finds out on a worker machine itself, with the API server there or not.

use anyhow::{Result, ensure};
use keelson_tests::harness::images::{self, HELLO};
use keelson_tests::harness::shell::output;
use serde_json::Value;

use crate::Test;
use crate::context::Context;

pub const TESTS: &[Test] =
    &[("inspect::a_restart_is_explained_on_the_machine", explained), ("inspect::a_node_says_that_it_works", works)];

/// `agent ARGS --config-dir …` on n1.
fn agent(context: &Context, line: &str) -> Result<String> {
    let cluster = context.cluster();
    let mut command = cluster.inside("n1", &images::bin_dir().join("agent").to_string_lossy());
    let folder = cluster.layout.host("n1").dir().join("etc");
    output(command.args(line.split_whitespace()).arg("--config-dir").arg(folder))
}

fn explained(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, spec: {{nodeName: n1, terminationGracePeriodSeconds: 1, containers: \
         [{{name: c, image: {HELLO}, livenessProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 1, \
         failureThreshold: 2}}}}]}}}}"
    ))?;
    ns.wait("pod/p", "condition=Ready")?;
    let ip = ns.run(&["get", "pod", "p", "-o", "jsonpath={.status.podIP}"])?;
    context.on("n1", &format!("curl -sS --max-time 3 -X POST http://{ip}:8080/bad"))?;
    let pod = format!("{}/p", ns.name);
    ns.until("the restart", || {
        let said = agent(context, &format!("explain {pod}"))?;
        ensure!(said.contains("kill container c") && said.contains("restart container c (attempt 1)"), "{said}");
        ensure!(said.contains("liveness"), "no reason: {said}");
        Ok(())
    })?;
    let pods: Value = serde_json::from_str(&agent(context, "pods --output json")?)?;
    let mine = pods.as_array().into_iter().flatten().find(|pod| pod["namespace"] == *ns.name);
    ensure!(mine.is_some_and(|pod| pod["name"] == "p" && pod["podIP"] == *ip), "{pods}");
    for command in ["pods", "top"] {
        let said = agent(context, command)?;
        ensure!(said.lines().any(|line| line.contains(&ns.name) && line.contains(" p ")), "{command}: {said}");
    }
    let unknown = agent(context, "explain nobody").unwrap_err();
    ensure!(format!("{unknown:#}").contains("nobody"), "{unknown:#}");
    Ok(())
}

fn works(context: &Context) -> Result<()> {
    let status: Value = serde_json::from_str(&agent(context, "status --output json")?)?;
    let findings: Vec<&Value> = status.as_array().into_iter().flatten().collect();
    ensure!(findings.iter().all(|finding| finding["severity"] == "ok"), "{status}");
    let subjects = ["client certificate", "serving certificate", "runtime", "API server", "agent"];
    ensure!(subjects.iter().all(|subject| findings.iter().any(|finding| finding["subject"] == *subject)), "{status}");
    let said = agent(context, "config check")?;
    ensure!(!said.contains("invalid"), "{said}");
    Ok(())
}
