//! Services: one change until a connection follows it, and a full synchronisation after a start, beside many other Services.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use super::kbench::Waiting;
use super::run::Bench;
use super::{Figures, Side, cost};
use crate::harness::cluster::Progress;
use crate::harness::shell::output;

/// Connections to a Service that no rule translates yet are refused on the node itself: they must neither hang nor leave it.
const REFUSE: &str = "add table ip bench
add chain ip bench output { type filter hook output priority 0; }
add rule ip bench output ip daddr 10.96.0.0/16 tcp dport 80 reject with tcp reset";

pub(super) fn measure(bench: &mut Bench<'_>, progress: &mut dyn Progress) -> Result<Figures> {
    let mut figures = Figures::default();
    nft(bench, REFUSE)?;
    let (few, many) = bench.sizes.services;
    for (part, from, to) in [("few", 0, few), ("many", few, many)] {
        progress.step(&format!("{to} Services"), 0);
        let (first, last) = (from.to_string(), to.to_string());
        figures.take(part, bench.ask(&["ballast", "-from", &first, "-to", &last])?);
        progress.step(&format!("changes beside {to} Services"), 0);
        let changes = bench.sizes.changes.to_string();
        figures.take(part, bench.ask_inside(&["change", "-n", &changes])?);
        let proxy = bench.processes(&[bench.side.proxy()])?;
        figures.set(&format!("{part}.proxy_pss_mib"), cost::pss(&proxy)?);
        progress.step(&format!("full sync of {to} Services"), 0);
        figures.set(&format!("{part}.sync_ms"), full_sync(bench)?);
    }
    Ok(figures)
}

/// Milliseconds from the start of the proxy, with nothing in the kernel, until a connection to a Service arrives.
fn full_sync(bench: &mut Bench<'_>) -> Result<f64> {
    let name = bench.side.proxy();
    bench.cluster.process(name)?.stop(Duration::from_secs(20))?;
    nft(bench, "flush ruleset")?;
    nft(bench, REFUSE)?;
    let polling = Waiting::start(&mut bench.inside(&["connect"]), "polling")?;
    let start = SystemTime::now().duration_since(UNIX_EPOCH)?;
    match bench.side {
        Side::Ours => bench.cluster.run_agent("n1")?,
        Side::Stock => bench.cluster.run_kube_proxy("n1")?,
    }
    let answered =
        polling.figures()?.median("answered_unix_ms").context("kbench did not say when a Service answered")?;
    Ok(answered - start.as_secs_f64() * 1000.0)
}

/// Runs nft in the worker machine's network.
fn nft(bench: &Bench<'_>, script: &str) -> Result<()> {
    output(bench.cluster.inside("n1", "nft").arg(script)).map(drop)
}
