//! The node: pods one by one and at once, what the bare runtime needs for them, and what the node's programs take.

use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;

use super::run::Bench;
use super::{Figures, Side, cost};
use crate::harness::cluster::Progress;
use crate::harness::process::Process;

const SHAPES: [&str; 5] = ["plain", "probed", "late", "three", "configmap"];
/// How many callers share a burst of bare pods.
const CALLERS: &str = "8";
/// How long pods that have just become Ready are left alone before "idle" is measured.
const SETTLE: Duration = Duration::from_secs(5);

pub(super) fn measure(bench: &mut Bench<'_>, progress: &mut dyn Progress) -> Result<Figures> {
    let mut figures = Figures::default();
    progress.step("floor: bare CRI pods", 0);
    floor(bench, &mut figures)?;
    progress.step("cost without pods", 0);
    idle(bench, "empty", &mut figures)?;
    let count = bench.sizes.pods.to_string();
    for shape in SHAPES {
        progress.step(&format!("{count} pods one by one: {shape}"), 0);
        figures.take(shape, bench.ask(&["pods", "-shape", shape, "-n", &count])?);
    }
    let burst = bench.sizes.burst.to_string();
    progress.step(&format!("{burst} pods at once"), 0);
    figures.take("burst", bench.ask(&["burst", "-n", &burst])?);
    progress.step(&format!("cost of {burst} idle pods"), 0);
    idle(bench, "full", &mut figures)?;
    progress.step(&format!("{burst} pods deleted at once"), 0);
    figures.take("burst", bench.ask(&["remove"])?);
    progress.step(&format!("cost of {burst} pods with 1 s probes"), 0);
    figures.take("burst_probed", bench.ask(&["burst", "-shape", "probed", "-n", &burst])?);
    idle(bench, "probing", &mut figures)?;
    Ok(figures)
}

/// Bare pods on the node's own containerd. A node agent removes sandboxes that it does not know, so it must not run meanwhile.
/// The stock programs are halted; ours is ended and started again, since it follows the runtime's events, and containerd 2 starts
/// no container while somebody follows them and does not read.
fn floor(bench: &mut Bench<'_>, figures: &mut Figures) -> Result<()> {
    let programs = bench.processes(bench.side.node_parts())?;
    match bench.side {
        Side::Stock => {
            let _halted = Halted::these(programs)?;
            bare_pods(bench, figures)
        }
        Side::Ours => {
            programs.iter().try_for_each(Process::kill)?;
            bare_pods(bench, figures)?;
            bench.cluster.run_agent("n1")?;
            bench.cluster.wait_ready("n1")
        }
    }
}

fn bare_pods(bench: &Bench<'_>, figures: &mut Figures) -> Result<()> {
    let host = bench.cluster.layout.host("n1");
    let (endpoint, cgroup) = (host.endpoint(), format!("{}/floor", host.cgroup_root()));
    let logs = host.dir().join("floor-logs");
    let base = ["-endpoint", &endpoint, "-cgroup", &cgroup, "-logs", &logs.to_string_lossy()].map(str::to_owned);
    let pods = bench.sizes.pods.to_string();
    let burst = bench.sizes.burst.to_string();
    for (part, more) in [
        ("floor", ["-n", &pods, "-containers", "1", "-c", "1"]),
        ("floor3", ["-n", &pods, "-containers", "3", "-c", "1"]),
        ("floor_burst", ["-n", &burst, "-containers", "1", "-c", CALLERS]),
    ] {
        let args = ["floor"].into_iter().chain(base.iter().map(String::as_str)).chain(more);
        figures.take(part, bench.kbench.without_api(&args.collect::<Vec<_>>())?);
    }
    Ok(())
}

/// Processes that stand still until this is dropped.
struct Halted(Vec<Process>);

impl Halted {
    fn these(processes: Vec<Process>) -> Result<Self> {
        let halted = Self(processes);
        halted.0.iter().try_for_each(|process| process.signal(Signal::SIGSTOP))?;
        Ok(halted)
    }
}

impl Drop for Halted {
    fn drop(&mut self) {
        for process in &self.0 {
            // One that has ended is missed by whoever measures next.
            let _ = process.signal(Signal::SIGCONT);
        }
    }
}

fn idle(bench: &Bench<'_>, part: &str, figures: &mut Figures) -> Result<()> {
    std::thread::sleep(SETTLE.min(bench.sizes.watch));
    let (node, runtime) = (bench.processes(bench.side.node_parts())?, bench.processes(&["containerd-n1"])?);
    for (whose, cost) in ["node", "runtime"].into_iter().zip(cost::over(&[&node, &runtime], bench.sizes.watch)?) {
        figures.set(&format!("{part}.{whose}_pss_mib"), cost.pss_mib);
        figures.set(&format!("{part}.{whose}_cpu_percent"), cost.cpu_percent);
    }
    Ok(())
}
