//! Certificates that live for minutes, and the replacement of the cluster's CA: nodes go on through both, and so do their containers.
//! Clusters of its own, and minutes of waiting: `cargo test -p keelson-tests --test certificates -- --ignored`, as `make test` does it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by them

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use keelson_tests::harness::cluster::{Guard, Silent};
use keelson_tests::harness::images::{self, BUSYBOX};
use keelson_tests::harness::shell::{output, wait_for};
use keelson_tests::harness::{Cluster, Layout, Options};
use nix::sys::signal::Signal;

/// How long certificates live that nodes ask for.
const LIFE: &str = "120s";
/// Longer than that.
const RENEWED: Duration = Duration::from_secs(240);
/// How long anything else may take where others use the processors, too.
const PATIENCE: Duration = Duration::from_secs(120);

fn cluster(id: &str, nodes: u8, master_args: &[&str]) -> Result<Guard> {
    let number = std::process::id() % 10_000;
    let layout = Layout::new(format!("{id}{number}"), std::env::temp_dir().join(format!("keelson-{id}-{number}")));
    let mut options = Options::nodes(nodes);
    options.master_args = master_args.iter().map(|arg| (*arg).to_owned()).collect();
    Ok(Guard::new(Cluster::up(layout, options, &mut Silent)?))
}

/// A pod for each node that has the cluster's CA and runs for as long as the test does.
fn pods(cluster: &Cluster) -> Result<()> {
    for number in 1..=cluster.nodes() {
        cluster.kubectl().apply(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: p{number}}}, spec: {{nodeName: n{number}, terminationGracePeriodSeconds: 0, \
             containers: [{{name: c, image: {BUSYBOX}, command: [sleep, 1d]}}]}}}}"
        ))?;
    }
    cluster.kubectl().say("wait pods --all --for=condition=Ready --timeout=120s").map(drop)
}

/// What must stay as it is: which containers run since when, and since when nodes are Ready.
fn unmoved(cluster: &Cluster) -> Result<String> {
    let containers = "jsonpath={range .items[*].status.containerStatuses[*]}{.containerID} {.restartCount} {.state.running.startedAt}\n{end}";
    cluster.kubectl().run(&["get", "pods", "-o", containers])
}

fn ready_since(cluster: &Cluster) -> Result<String> {
    let ready =
        "jsonpath={range .items[*].status.conditions[?(@.type==\"Ready\")]}{.status} {.lastTransitionTime}\n{end}";
    cluster.kubectl().run(&["get", "nodes", "-o", ready])
}

/// The API server reaches each node, and is believed there.
fn exec(cluster: &Cluster) -> Result<()> {
    for number in 1..=cluster.nodes() {
        let said = cluster.kubectl().say(&format!("exec p{number} -- echo here"))?;
        ensure!(said == "here\n", "{said:?}");
    }
    Ok(())
}

fn etc(cluster: &Cluster, node: &str) -> PathBuf {
    cluster.layout.host(node).dir().join("etc")
}

/// Serial, issuer and end of a certificate of a node: `client` or `serving`.
fn certificate(cluster: &Cluster, node: &str, which: &str) -> Result<String> {
    let file = etc(cluster, node).join(format!("pki/{which}.pem"));
    let mut openssl = std::process::Command::new("openssl");
    output(openssl.args(["x509", "-noout", "-serial", "-issuer", "-enddate", "-in"]).arg(file))
}

fn both(cluster: &Cluster, node: &str) -> Result<[String; 2]> {
    Ok([certificate(cluster, node, "client")?, certificate(cluster, node, "serving")?])
}

/// Waits until both certificates are others.
fn renewed(cluster: &Cluster, node: &str, before: &[String; 2]) -> Result<[String; 2]> {
    wait_for(&format!("other certificates on {node}"), RENEWED, || {
        let now = both(cluster, node)?;
        ensure!(now[0] != before[0] && now[1] != before[1], "still {now:?}");
        Ok(now)
    })
}

/// Waits until none of these certificates is good for more than so many seconds.
fn wait_end(cluster: &Cluster, node: &str, which: &[&str], seconds: u8) -> Result<()> {
    wait_for("the end of the certificates", RENEWED, || {
        for which in which {
            let file = etc(cluster, node).join(format!("pki/{which}.pem"));
            let mut openssl = std::process::Command::new("openssl");
            let lasts =
                openssl.args(["x509", "-noout", "-checkend", &seconds.to_string(), "-in"]).arg(file).output()?;
            ensure!(!lasts.status.success(), "{which} still holds");
        }
        Ok(())
    })
}

fn agent_status(cluster: &Cluster, node: &str) -> Result<String> {
    let program = images::bin_dir().join("agent");
    let mut status = cluster.inside(node, &program.to_string_lossy());
    let out = status.args(["status", "--config-dir"]).arg(etc(cluster, node)).output()?;
    Ok(format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)))
}

#[test]
#[ignore = "takes minutes, and a cluster of its own: see above"]
fn certificates_of_minutes_are_renewed_and_a_token_repairs_what_has_expired() {
    let mut cluster =
        cluster("c", 1, &["--cluster-signing-duration", LIFE, "--node-monitor-grace-period", "20s"]).unwrap();
    pods(&cluster).unwrap();
    let containers = unmoved(&cluster).unwrap();

    // While it runs, twice, so that the first certificate's end has passed.
    let since = ready_since(&cluster).unwrap();
    let first = wait_for("both certificates", PATIENCE, || both(&cluster, "n1")).unwrap();
    let second = renewed(&cluster, "n1", &first).unwrap();
    renewed(&cluster, "n1", &second).unwrap();
    exec(&cluster).unwrap();
    assert_eq!(ready_since(&cluster).unwrap(), since, "the node was not Ready for a while");

    // Offline beyond the time of renewal, but not beyond the end.
    let before = both(&cluster, "n1").unwrap();
    cluster.process("agent-n1").unwrap().kill().unwrap();
    wait_end(&cluster, "n1", &["client"], 40).unwrap();
    cluster.run_agent("n1").unwrap();
    renewed(&cluster, "n1", &before).unwrap();
    cluster.wait_ready("n1").unwrap();

    // Beyond the end.
    cluster.process("agent-n1").unwrap().kill().unwrap();
    wait_end(&cluster, "n1", &["client", "serving"], 0).unwrap();
    // They hold through the second of their end, which is long enough for an agent to renew them.
    std::thread::sleep(Duration::from_secs(2));
    cluster.run_agent("n1").unwrap();
    let said = wait_for("the running agent to answer", PATIENCE, || {
        let said = agent_status(&cluster, "n1")?;
        ensure!(said.contains("agent: runs: 1 pods"), "{said}");
        Ok(said)
    })
    .unwrap();
    for expected in
        ["FAULT   client certificate: expired", "master token create --print-join-command", "pods go on running"]
    {
        assert!(said.contains(expected), "{expected} is not in\n{said}");
    }
    cluster.process("agent-n1").unwrap().stop(PATIENCE).unwrap();
    cluster.join(1).unwrap();
    cluster.wait_ready("n1").unwrap();
    wait_for("the node's server", PATIENCE, || exec(&cluster)).unwrap();
    assert_eq!(unmoved(&cluster).unwrap(), containers, "joining again touched containers");
}

fn master(cluster: &Cluster, line: &str) -> Result<String> {
    let program = images::bin_dir().join("master");
    let mut command = cluster.inside("m", &program.to_string_lossy());
    output(command.args(line.split_whitespace()).arg("--data-dir").arg(cluster.layout.master_dir()))
}

/// Takes the next step, as soon as nodes are ready for it.
fn rotate(cluster: &Cluster, expected: &str) -> Result<()> {
    let said = wait_for(expected, PATIENCE, || master(cluster, "certs rotate-ca"))?;
    ensure!(said.contains(expected), "{said}");
    exec(cluster)
}

#[test]
#[ignore = "takes a cluster of its own: see above"]
fn the_ca_is_replaced_under_running_nodes() {
    let mut cluster = cluster("a", 2, &[]).unwrap();
    pods(&cluster).unwrap();
    let (containers, since) = (unmoved(&cluster).unwrap(), ready_since(&cluster).unwrap());
    let old_ca = fs::read_to_string(cluster.layout.master_dir().join("pki/ca.crt")).unwrap();
    let old = wait_for("certificates", PATIENCE, || Ok([both(&cluster, "n1")?, both(&cluster, "n2")?])).unwrap();
    let agents = ["agent-n1", "agent-n2", "master"].map(|name| cluster.process(name).unwrap().clone());
    // What a client knows that was set up before.
    let old_admin = cluster.layout.base.join("old-admin.conf");
    fs::copy(cluster.layout.admin_conf(), &old_admin).unwrap();

    rotate(&cluster, "A new CA is trusted from now on").unwrap();
    let withdrawn = master(&cluster, "certs rotate-ca --withdraw").unwrap();
    assert!(withdrawn.contains("The CA stays"), "{withdrawn}");
    rotate(&cluster, "A new CA is trusted from now on").unwrap();
    rotate(&cluster, "The new CA signs").unwrap();
    // Who knows the old CA only, and has a certificate of it, is still served.
    cluster.kubectl().say("get --raw /readyz").unwrap();
    let new_ca = fs::read_to_string(cluster.layout.master_dir().join("pki/ca.crt")).unwrap();
    assert_ne!(new_ca, old_ca);
    for (node, before) in ["n1", "n2"].into_iter().zip(&old) {
        let now = renewed(&cluster, node, before).unwrap();
        assert!(now.iter().all(|one| one.contains("CN = kubernetes-") || one.contains("CN=kubernetes-")), "{now:?}");
    }
    rotate_admin(&cluster);
    rotate(&cluster, "The old CA is trusted no longer").unwrap();

    let refused =
        keelson_tests::harness::kubectl::Kubectl { kubeconfig: old_admin }.say("get --raw /readyz").unwrap_err();
    assert!(format!("{refused:#}").contains("certificate"), "{refused:#}");
    for node in ["n1", "n2"] {
        wait_for(&format!("{node} to forget the old CA"), PATIENCE, || {
            let trusted = fs::read_to_string(etc(&cluster, node).join("pki/ca.crt"))?;
            ensure!(trusted.trim() == new_ca.trim(), "{trusted}");
            Ok(())
        })
        .unwrap();
    }
    // Pods have it, too, in the volume that they had from the start.
    for number in 1..=2 {
        wait_for("the CA in the pod", PATIENCE, || {
            let path = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
            let seen = cluster.kubectl().say(&format!("exec p{number} -- cat {path}"))?;
            ensure!(seen.trim() == new_ca.trim(), "{seen}");
            Ok(())
        })
        .unwrap();
    }
    exec(&cluster).unwrap();
    assert_eq!((unmoved(&cluster).unwrap(), ready_since(&cluster).unwrap()), (containers, since));
    assert!(agents.iter().all(|process| process.alive()), "a program was started anew");

    // The hash of the new CA joins, and a node that is started anew finds its way.
    cluster.process("agent-n2").unwrap().signal(Signal::SIGKILL).unwrap();
    cluster.run_agent("n2").unwrap();
    cluster.wait_ready("n2").unwrap();
    let command = cluster.join_command().unwrap();
    assert!(command.contains("sha256:"), "{command}");
    away(&mut cluster).unwrap();
}

/// A node that was away while the CA was replaced joins again with its pods: its certificate is still good, but for a CA that is no more.
fn away(cluster: &mut Cluster) -> Result<()> {
    let before = unmoved(cluster)?;
    cluster.process("agent-n2")?.stop(PATIENCE)?;
    for expected in ["A new CA is trusted from now on", "The new CA signs", "The old CA is trusted no longer"] {
        let said = wait_for(expected, PATIENCE, || master(cluster, "certs rotate-ca --force"))?;
        ensure!(said.contains(expected), "{said}");
        rotate_admin(cluster);
        wait_for("the API server", PATIENCE, || cluster.kubectl().say("get --raw /readyz"))?;
    }
    cluster.join(2)?;
    cluster.wait_ready("n2")?;
    wait_for("the node's server", PATIENCE, || cluster.kubectl().say("exec p2 -- true"))?;
    let after = unmoved(cluster)?;
    ensure!(before == after, "joining again touched containers: {before}\n{after}");
    Ok(())
}

/// What an administrator does between the second and the third step.
fn rotate_admin(cluster: &Cluster) {
    fs::copy(cluster.layout.master_dir().join("admin.conf"), cluster.layout.admin_conf())
        .context("admin.conf")
        .unwrap();
}
