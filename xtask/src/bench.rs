//! `make bench`: one table of this run on this machine.

use std::time::Duration;

use anyhow::Result;
use keelson_tests::bench::floor::{self, Floor};
use keelson_tests::bench::pods::{self, Shape};
use keelson_tests::bench::{Times, api, cost};
use keelson_tests::harness::cluster::Progress;
use keelson_tests::harness::{Cluster, Layout, Options, containerd};
use nix::sys::signal::Signal;

use crate::show::Show;

const BURST: u32 = 110;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub rounds: u32,
    pub watch: Duration,
}

struct Pods {
    plain: (Times, Times),
    probed: (Times, Times),
    burst_up: Duration,
    burst_down: Duration,
}

/// Runs all benches in a cluster of one node of their own and prints the table.
pub fn bench(size: Size) -> Result<()> {
    let base = std::env::temp_dir().join(format!("keelson-bench-{}", std::process::id()));
    let mut show = Show::default();
    let cluster = Cluster::up(Layout::new("bench", base), Options::nodes(1), &mut show)?;
    let result = measure(&cluster, size, &mut show);
    let left = cluster.down(&mut show)?;
    show.done();
    for line in &left {
        println!("left behind: {line}");
    }
    result
}

fn measure(cluster: &Cluster, size: Size, show: &mut Show) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let host = cluster.layout.host("n1");
    let (agent, master) = (cluster.process("agent-n1")?.clone(), cluster.process("master")?.clone());
    let pids = [agent.pid, cluster.process("containerd-n1")?.pid, master.pid];

    show.step("floor: bare CRI pods", 0);
    // An agent removes sandboxes that it does not know: it waits meanwhile.
    agent.signal(Signal::SIGSTOP)?;
    let floor =
        containerd::call(&host, async |client| Box::pin(floor::measure(&client, &host, size.rounds, BURST)).await);
    agent.signal(Signal::SIGCONT)?;
    let floor = floor?;

    show.step("idle cost without pods", 0);
    let idle = cost::over(&pids, size.watch)?;
    show.step("pods through the API", 0);
    let client = runtime.block_on(api::client(&cluster.layout.admin_conf()))?;
    let (plain, probed, burst_up) = runtime.block_on(async {
        let plain = pods::one_by_one(&client, "n1", Shape::Plain, size.rounds).await?;
        let probed = pods::one_by_one(&client, "n1", Shape::Probed, size.rounds).await?;
        anyhow::Ok((plain, probed, pods::burst(&client, "n1", BURST).await?))
    })?;
    show.step("idle cost of 110 pods", 0);
    std::thread::sleep(Duration::from_secs(5));
    let full = cost::over(&pids, size.watch)?;
    let burst_down = runtime.block_on(pods::remove_all(&client))?;
    show.step("API writes", 0);
    let conf = cluster.layout.admin_conf();
    let one = runtime.block_on(api::creates_per_second(&conf, 1, Duration::from_secs(8)))?;
    let many = runtime.block_on(api::creates_per_second(&conf, 64, Duration::from_secs(8)))?;
    show.done();
    println!();
    print_pods(&floor, &Pods { plain, probed, burst_up, burst_down });
    for (name, at) in [("agent", 0), ("containerd", 1), ("master", 2)] {
        let (Some(idle), Some(full)) = (idle.get(at), full.get(at)) else { continue };
        println!(
            "{name:<12} PSS {:6.1} MiB and {:5.2} % CPU without pods; {:6.1} MiB and {:5.2} % with {BURST} idle pods",
            idle.pss_mib, idle.cpu_percent, full.pss_mib, full.cpu_percent
        );
    }
    println!(
        "API          {one:.0} creates/s by 1 client, {many:.0} by 64 (JSON, 1 KiB, the clients on the same cores)"
    );
    Ok(())
}

fn print_pods(floor: &Floor, pods: &Pods) {
    let row = |what: &str, times: &Times, against: &Times| {
        println!(
            "{what:<30} p50 {:7.0} ms  p99 {:7.0} ms   {:.2} x the floor",
            times.p50(),
            times.p99(),
            times.p50() / against.p50()
        );
    };
    row("floor: up", &floor.up, &floor.up);
    row("create -> Ready", &pods.plain.0, &floor.up);
    row("create -> Ready, http probe", &pods.probed.0, &floor.up);
    row("floor: down", &floor.down, &floor.down);
    row("delete -> gone", &pods.plain.1, &floor.down);
    row("delete -> gone, http probe", &pods.probed.1, &floor.down);
    let burst = |what: &str, time: Duration, against: Duration| {
        println!(
            "{what:<30} {:11.1} s {:22.2} x the floor",
            time.as_secs_f64(),
            time.as_secs_f64() / against.as_secs_f64()
        );
    };
    burst("floor: 110 up, 8 callers", floor.burst_up, floor.burst_up);
    burst("110 pods at once, all Ready", pods.burst_up, floor.burst_up);
    burst("floor: 110 down", floor.burst_down, floor.burst_down);
    burst("110 pods deleted, all gone", pods.burst_down, floor.burst_down);
}
