//! Whether a node's programs keep what pods leave: memory before, during and after many pods that come and go. Only on request: it takes
//! long, and stock is slow at it.

use std::time::Duration;

use anyhow::Result;

use super::run::Bench;
use super::{Figures, cost};
use crate::harness::cluster::Progress;

/// Caches and allocators have grown to their size after so many pods, out of all.
const WARM: f64 = 0.2;
const SETTLE: Duration = Duration::from_secs(4);

pub(super) fn measure(bench: &mut Bench<'_>, progress: &mut dyn Progress) -> Result<Figures> {
    let mut figures = Figures::default();
    let (burst, all) = (bench.sizes.burst, bench.sizes.flat);
    let mut gone = 0;
    let mut warm = None;
    std::thread::sleep(SETTLE);
    figures.set("before.node_pss_mib", memory(bench)?);
    while gone < all {
        let count = burst.min(all - gone);
        progress.step(&format!("pods {} to {} of {all}", gone + 1, gone + count), 0);
        bench.ask(&["burst", "-n", &count.to_string()])?;
        bench.ask(&["remove"])?;
        gone += count;
        std::thread::sleep(SETTLE);
        let now = memory(bench)?;
        figures.add("during.node_pss_mib", now);
        if warm.is_none() && f64::from(gone) >= f64::from(all) * WARM {
            warm = Some(now);
        }
        figures.set("after.node_pss_mib", now);
        figures.set("growth.node_pss_mib", now - warm.unwrap_or(now));
    }
    Ok(figures)
}

fn memory(bench: &Bench<'_>) -> Result<f64> {
    cost::pss(&bench.processes(bench.side.node_parts())?)
}
