//! `/metrics/resource`: the stable series that metrics-server reads (pkg/kubelet/metrics/collectors/resource_metrics.go).

use super::sample::{ContainerSample, PodSample, Sample, Used};
use crate::exposition::{Text, Type, float};

/// A family: name, type, help, and its value of something's use.
type Family = (&'static str, Type, &'static str, fn(&Used) -> Option<f64>);

const NODE: [Family; 3] = [
    (
        "node_cpu_usage_seconds_total",
        Type::Counter,
        "[STABLE] Cumulative cpu time consumed by the node in core-seconds",
        cpu,
    ),
    ("node_memory_working_set_bytes", Type::Gauge, "[STABLE] Current working set of the node in bytes", working_set),
    (
        "node_swap_usage_bytes",
        Type::Gauge,
        "[ALPHA] Current swap usage of the node in bytes. Reported only on non-windows systems",
        swap,
    ),
];

const CONTAINER: [Family; 4] = [
    (
        "container_cpu_usage_seconds_total",
        Type::Counter,
        "[STABLE] Cumulative cpu time consumed by the container in core-seconds",
        cpu,
    ),
    (
        "container_memory_working_set_bytes",
        Type::Gauge,
        "[STABLE] Current working set of the container in bytes",
        working_set,
    ),
    (
        "container_swap_usage_bytes",
        Type::Gauge,
        "[ALPHA] Current amount of the container swap usage in bytes. Reported only on non-windows systems",
        swap,
    ),
    (
        "container_swap_limit_bytes",
        Type::Gauge,
        "[ALPHA] Current amount of the container swap limit in bytes. Reported only on non-windows systems",
        |used| used.stats.memory.swap_limit.map(float),
    ),
];

const POD: [Family; 3] = [
    (
        "pod_cpu_usage_seconds_total",
        Type::Counter,
        "[STABLE] Cumulative cpu time consumed by the pod in core-seconds",
        cpu,
    ),
    ("pod_memory_working_set_bytes", Type::Gauge, "[STABLE] Current working set of the pod in bytes", working_set),
    (
        "pod_swap_usage_bytes",
        Type::Gauge,
        "[ALPHA] Current amount of the pod swap usage in bytes. Reported only on non-windows systems",
        swap,
    ),
];

fn cpu(used: &Used) -> Option<f64> {
    Some(float(used.stats.cpu.usage) / 1e9)
}

fn working_set(used: &Used) -> Option<f64> {
    Some(float(used.stats.memory.working_set))
}

fn swap(used: &Used) -> Option<f64> {
    Some(float(used.stats.memory.swap))
}

/// The text; without a sample it only says that there is none.
#[must_use]
pub fn text(sample: Option<&Sample>) -> String {
    let mut text = Text::default();
    if let Some(sample) = sample {
        let millis = sample.at.as_millisecond();
        node(&mut text, sample, millis);
        containers(&mut text, sample, millis);
        pods(&mut text, sample, millis);
    }
    text.single(
        "resource_scrape_error",
        Type::Gauge,
        "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise",
        f64::from(u8::from(sample.is_none())),
    );
    text.into_string()
}

fn node(text: &mut Text, sample: &Sample, millis: i64) {
    for (name, kind, help, value) in NODE {
        text.family(name, kind, help);
        if let Some(value) = value(&sample.node) {
            text.sample_at(&[], value, millis);
        }
    }
}

fn containers(text: &mut Text, sample: &Sample, millis: i64) {
    let all = || sample.pods.iter().flat_map(|pod| pod.containers.iter().map(move |container| (pod, container)));
    text.family(
        "container_start_time_seconds",
        Type::Gauge,
        "[STABLE] Start time of the container since unix epoch in seconds",
    );
    for (pod, container) in all().filter(|(_, container)| container.started_at > 0) {
        #[allow(clippy::cast_precision_loss)]
        let started = container.started_at as f64 / 1e9;
        text.sample(&labels(pod, container), started);
    }
    for (name, kind, help, value) in CONTAINER {
        text.family(name, kind, help);
        for (pod, container) in all() {
            let Some(value) = value(&container.used) else { continue };
            text.sample_at(&labels(pod, container), value, millis);
        }
    }
}

fn labels<'a>(pod: &'a PodSample, container: &'a ContainerSample) -> [(&'static str, &'a str); 3] {
    [("container", &container.name), ("namespace", &pod.namespace), ("pod", &pod.name)]
}

fn pods(text: &mut Text, sample: &Sample, millis: i64) {
    for (name, kind, help, value) in POD {
        text.family(name, kind, help);
        for pod in &sample.pods {
            if let Some(value) = value(&pod.used) {
                text.sample_at(&[("namespace", &pod.namespace), ("pod", &pod.name)], value, millis);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::fixture;

    #[test]
    fn series_are_named_and_labelled_as_upstream() {
        let text = text(Some(&fixture::sample()));
        for line in [
            "node_cpu_usage_seconds_total 5 1700000000000",
            "node_memory_working_set_bytes 700 1700000000000",
            "container_start_time_seconds{container=\"c\",namespace=\"ns\",pod=\"p\"} 1600000000.5",
            "container_cpu_usage_seconds_total{container=\"c\",namespace=\"ns\",pod=\"p\"} 1.5 1700000000000",
            "container_memory_working_set_bytes{container=\"c\",namespace=\"ns\",pod=\"p\"} 60 1700000000000",
            "container_swap_limit_bytes{container=\"c\",namespace=\"ns\",pod=\"p\"} 4096 1700000000000",
            "pod_cpu_usage_seconds_total{namespace=\"ns\",pod=\"p\"} 2 1700000000000",
            "resource_scrape_error 0",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
        }
        assert!(super::text(None).ends_with("\nresource_scrape_error 1\n"));
    }
}
