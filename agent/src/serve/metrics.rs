//! Prometheus text: `/metrics` with what the process is, `/metrics/resource` with what containers use
//! (the stable names of pkg/kubelet/metrics/collectors/resource_metrics.go).

use std::fmt::Write;

use cri::v1;

use crate::node::facts::KUBELET_VERSION;

/// `/metrics`.
pub(super) fn process() -> String {
    let mut text = String::new();
    let version = KUBELET_VERSION;
    metric(&mut text, "kubernetes_build_info", "gauge", "Build of this node agent.");
    line(&mut text, "kubernetes_build_info", &[("git_version", version)], 1.0, None);
    if let Ok(stat) = procfs::process::Process::myself().and_then(|me| me.stat()) {
        let ticks = procfs::ticks_per_second();
        #[allow(clippy::cast_precision_loss)]
        let seconds = (stat.utime + stat.stime) as f64 / ticks.max(1) as f64;
        metric(&mut text, "process_cpu_seconds_total", "counter", "CPU time used.");
        line(&mut text, "process_cpu_seconds_total", &[], seconds, None);
        #[allow(clippy::cast_precision_loss)]
        let resident = (stat.rss * procfs::page_size()) as f64;
        metric(&mut text, "process_resident_memory_bytes", "gauge", "Resident memory.");
        line(&mut text, "process_resident_memory_bytes", &[], resident, None);
    }
    text
}

/// `/metrics/resource`.
pub(super) async fn resource(runtime: &cri::Client) -> Result<String, cri::CallError> {
    let stats = runtime.list_container_stats(v1::ListContainerStatsRequest { filter: None }).await?.stats;
    Ok(containers(&stats))
}

#[allow(clippy::cast_precision_loss)]
fn containers(stats: &[v1::ContainerStats]) -> String {
    let mut text = String::new();
    metric(
        &mut text,
        "container_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the container in core-seconds",
    );
    for (labels, one) in stats.iter().filter_map(labelled) {
        let Some(cpu) = &one.cpu else { continue };
        let Some(used) = &cpu.usage_core_nano_seconds else { continue };
        line(&mut text, "container_cpu_usage_seconds_total", &labels, used.value as f64 / 1e9, Some(cpu.timestamp));
    }
    metric(&mut text, "container_memory_working_set_bytes", "gauge", "Current working set of the container in bytes");
    for (labels, one) in stats.iter().filter_map(labelled) {
        let Some(memory) = &one.memory else { continue };
        let Some(used) = &memory.working_set_bytes else { continue };
        line(&mut text, "container_memory_working_set_bytes", &labels, used.value as f64, Some(memory.timestamp));
    }
    metric(
        &mut text,
        "resource_scrape_error",
        "gauge",
        "1 if there was an error while getting container metrics, 0 otherwise",
    );
    line(&mut text, "resource_scrape_error", &[], 0.0, None);
    text
}

fn labelled(stats: &v1::ContainerStats) -> Option<([(&'static str, &str); 3], &v1::ContainerStats)> {
    let labels = &stats.attributes.as_ref()?.labels;
    let label = |key: &str| labels.get(key).map(String::as_str);
    let all = [
        ("container", label("io.kubernetes.container.name")?),
        ("namespace", label("io.kubernetes.pod.namespace")?),
        ("pod", label("io.kubernetes.pod.name")?),
    ];
    Some((all, stats))
}

fn metric(text: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# HELP {name} [STABLE] {help}\n# TYPE {name} {kind}");
}

fn line(text: &mut String, name: &str, labels: &[(&str, &str)], value: f64, nanos: Option<i64>) {
    text.push_str(name);
    for (index, (key, value)) in labels.iter().enumerate() {
        // Names of Kubernetes objects need no escapes.
        let _ = write!(text, "{}{key}=\"{value}\"", if index == 0 { '{' } else { ',' });
    }
    if !labels.is_empty() {
        text.push('}');
    }
    let _ = match nanos {
        Some(nanos) => writeln!(text, " {value} {}", nanos / 1_000_000),
        None => writeln!(text, " {value}"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_labelled_as_upstream() {
        let labels = [
            ("io.kubernetes.container.name", "c"),
            ("io.kubernetes.pod.namespace", "ns"),
            ("io.kubernetes.pod.name", "p"),
        ];
        let stats = v1::ContainerStats {
            attributes: Some(v1::ContainerAttributes {
                labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
                ..v1::ContainerAttributes::default()
            }),
            cpu: Some(v1::CpuUsage {
                timestamp: 5_000_000,
                usage_core_nano_seconds: Some(v1::UInt64Value { value: 1_500_000_000 }),
                ..v1::CpuUsage::default()
            }),
            ..v1::ContainerStats::default()
        };
        let text = containers(&[stats]);
        let expected = "container_cpu_usage_seconds_total{container=\"c\",namespace=\"ns\",pod=\"p\"} 1.5 5\n";
        assert!(text.contains(expected), "{text}");
        assert!(process().contains("process_resident_memory_bytes "));
    }
}
