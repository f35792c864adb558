//! Masters that are reached elsewhere than before: nodes find them, and their containers go on.
//! Clusters of its own: `cargo test -p keelson-tests --test masters -- --ignored`, as `make test` does it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by them

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, ensure};
use keelson_tests::harness::cluster::{Guard, Silent};
use keelson_tests::harness::images::{self, BUSYBOX};
use keelson_tests::harness::shell::{output, run, wait_for};
use keelson_tests::harness::{Cluster, Layout, Options};

/// How long anything may take where others use the processors, too; a connection to nobody is given up after 45 s.
const PATIENCE: Duration = Duration::from_secs(180);

/// A cluster with one node and a pod on it.
fn cluster(id: &str) -> Result<Guard> {
    let number = std::process::id() % 10_000;
    let layout = Layout::new(format!("{id}{number}"), std::env::temp_dir().join(format!("keelson-{id}-{number}")));
    let cluster = Guard::new(Cluster::up(layout, Options::nodes(1), &mut Silent)?);
    cluster.kubectl().apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, spec: {{terminationGracePeriodSeconds: 0, \
         containers: [{{name: c, image: {BUSYBOX}, command: [sleep, 1d]}}]}}}}"
    ))?;
    cluster.kubectl().say("wait pod/p --for=condition=Ready --timeout=120s")?;
    Ok(cluster)
}

fn master(cluster: &Cluster, line: &str) -> Result<String> {
    let program = images::bin_dir().join("master");
    let mut command = cluster.inside("m", &program.to_string_lossy());
    output(command.args(line.split_whitespace()).arg("--data-dir").arg(cluster.layout.master_dir()))
}

/// Which container runs since when.
fn started(cluster: &Cluster) -> Result<String> {
    let path = "{.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].state.running.startedAt}";
    cluster.kubectl().run(&["get", "pod", "p", "-o", &format!("jsonpath={path}")])
}

/// The node shows signs of life, the API server reaches it, and its container is the same.
fn goes_on(cluster: &Cluster, before: &str) -> Result<()> {
    let renewed = || {
        let path = "jsonpath={.spec.renewTime}";
        cluster.kubectl().run(&["get", "lease", "n1", "-n", "kube-node-lease", "-o", path])
    };
    // A master that was told another name of its own has a certificate of it seconds later.
    let last = wait_for("the API server", PATIENCE, &renewed)?;
    wait_for("the node's next sign of life", PATIENCE, || {
        ensure!(renewed()? != last, "still {last}");
        Ok(())
    })?;
    cluster.wait_ready("n1")?;
    let said = cluster.kubectl().say("exec p -- echo here")?;
    ensure!(said == "here\n", "{said:?}");
    let after = started(cluster)?;
    ensure!(before == after, "before {before}\nafter {after}");
    Ok(())
}

/// Gives the master's machine another address instead of its own, and tells kubectl.
fn move_to(cluster: &Cluster, from: Ipv4Addr, to: Ipv4Addr) -> Result<()> {
    let netns = cluster.layout.host("m").netns();
    let address = |verb: &str, address: Ipv4Addr| {
        run("ip", ["-n", &netns, "addr", verb, &format!("{address}/24"), "dev", "eth0"]).map(drop)
    };
    // Without the first, a second address of the same network goes, too.
    address("del", from)?;
    address("add", to)?;
    run("ip", ["-n", &netns, "route", "replace", "default", "via", &cluster.lan.address(1).to_string()])?;
    let file = cluster.layout.admin_conf();
    fs::write(&file, fs::read_to_string(&file)?.replace(&from.to_string(), &to.to_string()))?;
    Ok(())
}

/// One master stands for several: it answers at one of their addresses at a time.
#[test]
#[ignore = "takes a cluster of its own: see above"]
fn a_node_that_knows_several_goes_on_with_another() {
    let mut cluster = cluster("s").unwrap();
    let before = started(&cluster).unwrap();
    let (first, second) = (cluster.lan.master(), cluster.lan.address(3));
    master(&cluster, &format!("init --no-service --cert-san {second}")).unwrap();
    let command = cluster.join_command().unwrap();
    let both = command.replace(&format!("{first}:6443"), &format!("{second}:6443,{first}:6443"));
    assert_ne!(both, command);
    cluster.process("agent-n1").unwrap().stop(PATIENCE).unwrap();
    cluster.join_by(1, &both).unwrap();
    goes_on(&cluster, &before).unwrap();
    let log = fs::read_to_string(cluster.layout.log("agent-n1")).unwrap();
    assert!(log.contains(&format!("no API server answers at {second}:6443")), "{log}");

    for (from, to) in [(first, second), (second, first)] {
        move_to(&cluster, from, to).unwrap();
        goes_on(&cluster, &before).unwrap();
    }
}

/// The old master is gone for good, with its address; its backup lives on elsewhere.
#[test]
#[ignore = "takes a cluster of its own: see above"]
fn one_at_another_address_is_followed_by_joining_again() {
    let mut cluster = cluster("o").unwrap();
    let before = started(&cluster).unwrap();
    let (from, to) = (cluster.lan.master(), cluster.lan.address(3));
    let backup = cluster.layout.base.join("backup");
    master(&cluster, &format!("backup {} --with-pki", backup.display())).unwrap();
    cluster.process("master").unwrap().kill().unwrap();
    fs::remove_dir_all(cluster.layout.master_dir()).unwrap();
    move_to(&cluster, from, to).unwrap();
    master(&cluster, &format!("restore {}", backup.display())).unwrap();
    master(&cluster, &format!("init --no-service --advertise-address {to}")).unwrap();
    cluster.run_master().unwrap();
    fs::copy(cluster.layout.master_dir().join("admin.conf"), cluster.layout.admin_conf()).unwrap();
    wait_for("the API server", PATIENCE, || cluster.kubectl().say("get --raw /readyz")).unwrap();

    let command = cluster.join_command().unwrap();
    assert!(command.contains(&to.to_string()), "{command}");
    cluster.process("agent-n1").unwrap().stop(PATIENCE).unwrap();
    cluster.join_by(1, &command).unwrap();
    goes_on(&cluster, &before).unwrap();
    let log = fs::read_to_string(cluster.layout.log("agent-n1")).unwrap();
    assert!(log.contains("its key and certificate are kept"), "{log}");
}
