//! `make up` and `make down`.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use keelson_tests::harness::cluster::Progress;
use keelson_tests::harness::shell::{output, wait_for};
use keelson_tests::harness::{Cluster, Layout, Options, images, kubectl};

use crate::show::Show;

const EXAMPLE: &str = "docs/examples/hello.yaml";
const NODE_PORT: u16 = 30080;

fn layout() -> Layout {
    Layout::new("up", images::checkout().join(".keelson"))
}

/// Starts a cluster, unless one runs, and shows that it works.
pub fn up(nodes: u8) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "`make up` needs root: it makes network namespaces, cgroups and mounts");
    match Cluster::adopt(layout())? {
        Some(cluster) if cluster.healthy() => {
            println!("A cluster of {} node(s) is running already; nothing was changed.", cluster.nodes());
            next_steps();
            return Ok(());
        }
        Some(broken) => {
            println!("The last `make up` was interrupted or its cluster has crashed: removing what is left of it.");
            broken.down(&mut Show::default())?;
        }
        None => {}
    }
    let mut show = Show::default();
    let cluster = Cluster::up(layout(), Options::nodes(nodes), &mut show)
        .context("the cluster did not start; its logs are in .keelson/log, `make down` removes it")?;
    show_service(&cluster, &mut show)
}

fn show_service(cluster: &Cluster, show: &mut Show) -> Result<()> {
    let kubectl = cluster.kubectl();
    show.step(&format!("kubectl apply -f {EXAMPLE}, until it is rolled out"), 0);
    let example = images::checkout().join(EXAMPLE);
    kubectl.run(&["apply", "-f", &example.to_string_lossy()])?;
    kubectl.say("rollout status deployment/hello --timeout=120s")?;
    show.step("ask the Service", 0);
    let cluster_ip = kubectl.say("get service hello -o jsonpath={.spec.clusterIP}")?;
    let inside = wait_for("the Service at its cluster IP", Duration::from_secs(20), || {
        output(cluster.inside("n1", "curl").args(["-sS", "--max-time", "3", &format!("http://{cluster_ip}/")]))
    })?;
    let outside = wait_for("the Service at its node port", Duration::from_secs(20), || {
        let url = format!("http://{}:{NODE_PORT}/", cluster.lan.worker(1));
        output(std::process::Command::new("curl").args(["-sS", "--max-time", "3", "--noproxy", "*", &url]))
    })?;
    show.done();
    println!("\n$ curl http://{cluster_ip}/            (on node n1)\n{inside}");
    println!("$ curl http://{}:{NODE_PORT}/       (on this machine)\n{outside}", cluster.lan.worker(1));
    for line in ["get nodes -o wide", "get pods -o wide", "get services"] {
        println!("$ kubectl {line}\n{}", kubectl.say(line)?);
    }
    next_steps();
    Ok(())
}

fn next_steps() {
    let kubectl = kubectl::program();
    println!("Point kubectl at it:   export KUBECONFIG={}", layout().admin_conf().display());
    println!("The kubectl in use:    {}", kubectl.display());
    println!("Try next:              kubectl scale deployment hello --replicas=10");
    println!("                       kubectl logs -l app=hello -f");
    println!("                       kubectl set image deployment/hello hello={}", images::HELLO_2);
    println!("End it:                make down");
}

/// Ends the cluster; leftovers are listed and fail the command.
pub fn down() -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "`make down` needs root, as `make up` did");
    let Some(cluster) = Cluster::adopt(layout())? else {
        println!("No cluster of `make up` is here.");
        return Ok(());
    };
    let mut show = Show::default();
    let left = cluster.down(&mut show)?;
    show.done();
    if left.is_empty() {
        println!(
            "Nothing is left: processes, namespaces, links, mounts, cgroups, nft tables, sockets and folders are as before."
        );
        return Ok(());
    }
    for line in &left {
        println!("  left behind: {line}");
    }
    bail!("{} thing(s) that were not there before `make up` are still there", left.len());
}
