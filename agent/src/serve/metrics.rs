//! `/metrics`: what this process is and does.

use crate::exposition::{Text, Type, float};
use crate::node::facts::KUBELET_VERSION;

/// `/metrics`.
pub(super) fn process() -> String {
    let mut text = Text::default();
    text.family("kubernetes_build_info", Type::Gauge, "[ALPHA] Build of this node agent.");
    text.sample(&[("git_version", KUBELET_VERSION), ("platform", "linux")], 1.0);
    if let Ok(stat) = procfs::process::Process::myself().and_then(|me| me.stat()) {
        let seconds = float(stat.utime + stat.stime) / float(procfs::ticks_per_second().max(1));
        text.single(
            "process_cpu_seconds_total",
            Type::Counter,
            "Total user and system CPU time spent in seconds.",
            seconds,
        );
        let resident = float(stat.rss * procfs::page_size());
        text.single("process_resident_memory_bytes", Type::Gauge, "Resident memory size in bytes.", resident);
    }
    text.into_string()
}
