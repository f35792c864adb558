//! `/metrics`: what this process is and does.

use crate::exposition::{Text, Type, float};
use crate::node::facts::KUBELET_VERSION;

/// `/metrics`.
pub(super) fn process() -> String {
    let mut text = Text::default();
    text.family("kubernetes_build_info", Type::Gauge, "[ALPHA] Build of this node agent.");
    text.sample(&[("git_version", KUBELET_VERSION), ("platform", "linux")], 1.0);
    if let Ok(me) = procfs::process::Process::myself() {
        of_process(&mut text, &me);
    }
    text.into_string()
}

/// The families of Prometheus' process collector.
fn of_process(text: &mut Text, me: &procfs::process::Process) {
    let ticks = procfs::ticks_per_second().max(1);
    if let Ok(stat) = me.stat() {
        let seconds = float(stat.utime + stat.stime) / float(ticks);
        text.single(
            "process_cpu_seconds_total",
            Type::Counter,
            "Total user and system CPU time spent in seconds.",
            seconds,
        );
        let resident = float(stat.rss * procfs::page_size());
        text.single("process_resident_memory_bytes", Type::Gauge, "Resident memory size in bytes.", resident);
        text.single("process_virtual_memory_bytes", Type::Gauge, "Virtual memory size in bytes.", float(stat.vsize));
        if let Ok(booted) = procfs::boot_time_secs() {
            let started = float(booted) + float(stat.starttime) / float(ticks);
            let help = "Start time of the process since unix epoch in seconds.";
            text.single("process_start_time_seconds", Type::Gauge, help, started);
        }
    }
    if let Ok(count) = me.fd_count() {
        text.single("process_open_fds", Type::Gauge, "Number of open file descriptors.", float(count as u64));
    }
    if let Ok((soft, _)) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE) {
        text.single("process_max_fds", Type::Gauge, "Maximum number of open file descriptors.", float(soft));
    }
}
