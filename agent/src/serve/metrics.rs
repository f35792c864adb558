//! `/metrics`: what this process is and does, and what it is asked.

use std::borrow::Cow;
use std::time::Instant;

use http::Method;

use crate::exposition::{Text, Type, float};
use crate::metrics::Values;
use crate::metrics::families::{self, HTTP_DURATION, HTTP_REQUESTS};
use crate::node::facts::KUBELET_VERSION;
use crate::stats;

/// `/metrics`.
pub(crate) async fn of_node(stats: &stats::Provider) -> String {
    process() + &stats.kubelet_metrics().await + &families::text()
}

/// What this process is, and uses.
pub(crate) fn process() -> String {
    let mut text = Text::default();
    text.family("kubernetes_build_info", Type::Gauge, "[ALPHA] Build of this node agent.");
    let mut numbers = KUBELET_VERSION.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let labels = [("git_version", KUBELET_VERSION), ("major", major), ("minor", minor), ("platform", "linux")];
    text.sample(&labels, 1.0);
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

/// First parts of paths that are told apart (upstream's buckets).
const PATHS: [&str; 13] = [
    "healthz",
    "pods",
    "stats",
    "metrics",
    "configz",
    "logs",
    "run",
    "exec",
    "attach",
    "portForward",
    "containerLogs",
    "runningpods",
    "debug",
];

/// A request that is being answered.
pub(super) struct Counted {
    labels: Values<4>,
    begun: Instant,
}

impl Counted {
    /// Counts a request.
    pub(super) fn begin(method: &Method, path: &str, read_only: bool) -> Self {
        let labels = labels(method, path, read_only).map(Cow::Borrowed);
        HTTP_REQUESTS.count(labels.clone());
        Self { labels, begun: Instant::now() }
    }

    /// It is answered; streams go on.
    pub(super) fn end(self) {
        HTTP_DURATION.observe(self.labels, self.begun.elapsed());
    }
}

fn labels(method: &Method, path: &str, read_only: bool) -> [&'static str; 4] {
    let root = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    let path = PATHS.into_iter().find(|known| *known == root).unwrap_or("other");
    let method = match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        _ => "other",
    };
    let is_long = matches!(path, "exec" | "attach" | "portForward" | "debug");
    [method, path, if read_only { "readonly" } else { "readwrite" }, if is_long { "true" } else { "false" }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart_by_the_first_part_of_their_path() {
        assert_eq!(labels(&Method::GET, "/metrics/cadvisor", true), ["GET", "metrics", "readonly", "false"]);
        assert_eq!(labels(&Method::POST, "/exec/default/web/c", false), ["POST", "exec", "readwrite", "true"]);
        assert_eq!(labels(&Method::PATCH, "/whatever", false), ["other", "other", "readwrite", "false"]);
    }
}
