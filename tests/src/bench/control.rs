//! The control plane: reads and writes of objects, watches, scheduling, memory. No worker machine takes part.

use std::time::Duration;

use anyhow::Result;

use super::run::Bench;
use super::{Figures, cost};
use crate::harness::cluster::Progress;

/// How long a control plane that has just started, or has just been written to, is left alone before its memory is read.
const SETTLE: Duration = Duration::from_secs(5);

pub(super) fn measure(bench: &mut Bench<'_>, progress: &mut dyn Progress) -> Result<Figures> {
    let mut figures = Figures::default();
    let sizes = bench.sizes.clone();
    progress.step("cost when idle", 0);
    let wait = SETTLE.min(sizes.watch);
    std::thread::sleep(wait);
    let control = bench.processes(bench.side.control_parts())?;
    for cost in cost::over(&[&control], sizes.watch)? {
        figures.set("idle.control_pss_mib", cost.pss_mib);
        figures.set("idle.control_cpu_percent", cost.cpu_percent);
    }

    let clients = sizes.clients.to_string();
    for encoding in ["json", "protobuf"] {
        for (part, count, clients) in [("one", sizes.objects.0, "1"), ("many", sizes.objects.1, &clients)] {
            progress.step(&format!("creates, gets, updates, deletes by {clients}: {encoding}"), 0);
            let count = count.to_string();
            let args = ["objects", "-encoding", encoding, "-n", &count, "-c", clients];
            figures.take(&format!("{encoding}_{part}"), bench.ask(&args)?);
        }
    }
    let ((few, many), events) = (sizes.watchers, sizes.events);
    for (part, watchers, events) in [("fan_few", few, events.0), ("fan_many", many, events.1)] {
        progress.step(&format!("watched by {watchers}"), 0);
        figures.take(part, bench.ask(&["fan", "-c", &watchers.to_string(), "-n", &events.to_string()])?);
    }
    progress.step(&format!("{} objects", sizes.listed), 0);
    figures.take("fill", bench.ask(&["fill", "-n", &sizes.listed.to_string(), "-c", "16"])?);
    std::thread::sleep(wait);
    figures.set("filled.control_pss_mib", cost::pss(&control)?);
    for encoding in ["json", "protobuf"] {
        figures.take(&format!("list_{encoding}"), bench.ask(&["list", "-encoding", encoding])?);
    }
    progress.step(&format!("{} pods scheduled on {} nodes", sizes.scheduled, sizes.hollow_nodes), 0);
    let (nodes, pods) = (sizes.hollow_nodes.to_string(), sizes.scheduled.to_string());
    figures.take("schedule", bench.ask(&["schedule", "-nodes", &nodes, "-n", &pods])?);
    Ok(figures)
}
