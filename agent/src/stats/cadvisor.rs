//! `/metrics/cadvisor`: the series of cAdvisor (metrics/prometheus.go) that the kernel's cgroups and `/proc` can tell.

use cgroups::stats::{DeviceIo, Pressure};

use super::Host;
use super::machine;
use super::network::{Interface, Traffic};
use super::sample::{ContainerSample, Sample, Used};
use super::storage::Look;
use crate::exposition::{Text, Type, float};

/// One cgroup with the labels that cAdvisor gives it.
struct Subject<'a> {
    used: &'a Used,
    container: &'a str,
    image: &'a str,
    /// The container's id.
    name: &'a str,
    namespace: &'a str,
    pod: &'a str,
    /// Seconds since 1970.
    started: i64,
    interfaces: &'a [Interface],
    of: Option<&'a ContainerSample>,
}

impl<'a> Subject<'a> {
    fn labels(&self) -> [(&'static str, &'a str); 6] {
        [
            ("container", self.container),
            ("id", &self.used.cgroup),
            ("image", self.image),
            ("name", self.name),
            ("namespace", self.namespace),
            ("pod", self.pod),
        ]
    }

    fn labels_and<'b>(&self, more: &[(&'static str, &'b str)]) -> Vec<(&'static str, &'b str)>
    where
        'a: 'b,
    {
        self.labels().into_iter().chain(more.iter().copied()).collect()
    }
}

/// A family with one value a cgroup: name, type, help, value.
type Family = (&'static str, Type, &'static str, fn(&Used) -> Option<f64>);

const FAMILIES: [Family; 31] = [
    ("container_cpu_user_seconds_total", Type::Counter, "Cumulative user cpu time consumed in seconds.", |u| {
        seconds(u.stats.cpu.user)
    }),
    ("container_cpu_system_seconds_total", Type::Counter, "Cumulative system cpu time consumed in seconds.", |u| {
        seconds(u.stats.cpu.system)
    }),
    ("container_cpu_cfs_periods_total", Type::Counter, "Number of elapsed enforcement period intervals.", |u| {
        limited(u, u.stats.cpu.periods)
    }),
    ("container_cpu_cfs_throttled_periods_total", Type::Counter, "Number of throttled period intervals.", |u| {
        limited(u, u.stats.cpu.throttled_periods)
    }),
    (
        "container_cpu_cfs_throttled_seconds_total",
        Type::Counter,
        "Total time duration the container has been throttled.",
        |u| limited(u, u.stats.cpu.throttled).map(|nanos| nanos / 1e9),
    ),
    ("container_memory_cache", Type::Gauge, "Number of bytes of page cache memory.", |u| some(u.stats.memory.cache)),
    ("container_memory_rss", Type::Gauge, "Size of RSS in bytes.", |u| some(u.stats.memory.rss)),
    ("container_memory_kernel_usage", Type::Gauge, "Size of kernel memory allocated in bytes.", |u| {
        some(u.stats.memory.kernel)
    }),
    ("container_memory_mapped_file", Type::Gauge, "Size of memory mapped files in bytes.", |u| {
        some(u.stats.memory.mapped_file)
    }),
    ("container_memory_swap", Type::Gauge, "Container swap usage in bytes.", |u| some(u.stats.memory.swap)),
    ("container_memory_failcnt", Type::Counter, "Number of memory usage hits limits", |u| {
        some(u.stats.memory.limit_hits)
    }),
    (
        "container_memory_usage_bytes",
        Type::Gauge,
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
        |u| some(u.stats.memory.usage),
    ),
    ("container_memory_max_usage_bytes", Type::Gauge, "Maximum memory usage recorded in bytes", |u| {
        some(u.stats.memory.max_usage)
    }),
    ("container_memory_working_set_bytes", Type::Gauge, "Current working set in bytes.", |u| {
        some(u.stats.memory.working_set)
    }),
    ("container_memory_total_active_file_bytes", Type::Gauge, "Current total active file in bytes.", |u| {
        some(u.stats.memory.active_file)
    }),
    ("container_memory_total_inactive_file_bytes", Type::Gauge, "Current total inactive file in bytes.", |u| {
        some(u.stats.memory.inactive_file)
    }),
    ("container_oom_events_total", Type::Counter, "Count of out of memory events observed for the container", |u| {
        some(u.stats.memory.oom_kills)
    }),
    (
        "container_threads_max",
        Type::Gauge,
        "Maximum number of threads allowed inside the container, infinity if value is zero",
        |u| some(u.stats.tasks.max.unwrap_or(0)),
    ),
    ("container_threads", Type::Gauge, "Number of threads running inside the container", |u| {
        some(u.stats.tasks.current)
    }),
    (
        "container_pressure_cpu_stalled_seconds_total",
        Type::Counter,
        "Total time duration no tasks in the container could make progress due to CPU congestion.",
        |u| full(u.stats.cpu.pressure),
    ),
    (
        "container_pressure_cpu_waiting_seconds_total",
        Type::Counter,
        "Total time duration tasks in the container have waited due to CPU congestion.",
        |u| waiting(u.stats.cpu.pressure),
    ),
    (
        "container_pressure_memory_stalled_seconds_total",
        Type::Counter,
        "Total time duration no tasks in the container could make progress due to memory congestion.",
        |u| full(u.stats.memory.pressure),
    ),
    (
        "container_pressure_memory_waiting_seconds_total",
        Type::Counter,
        "Total time duration tasks in the container have waited due to memory congestion.",
        |u| waiting(u.stats.memory.pressure),
    ),
    (
        "container_pressure_io_stalled_seconds_total",
        Type::Counter,
        "Total time duration no tasks in the container could make progress due to IO congestion.",
        |u| full(u.stats.io.pressure),
    ),
    (
        "container_pressure_io_waiting_seconds_total",
        Type::Counter,
        "Total time duration tasks in the container have waited due to IO congestion.",
        |u| waiting(u.stats.io.pressure),
    ),
    ("container_spec_cpu_period", Type::Gauge, "CPU period of the container.", |u| some(u.stats.cpu.period)),
    ("container_spec_cpu_quota", Type::Gauge, "CPU quota of the container.", |u| u.stats.cpu.quota.map(float)),
    ("container_spec_cpu_shares", Type::Gauge, "CPU share of the container.", |u| some(u.stats.cpu.shares)),
    ("container_spec_memory_limit_bytes", Type::Gauge, "Memory limit for the container.", |u| {
        some(u.stats.memory.limit.unwrap_or(0))
    }),
    (
        "container_spec_memory_reservation_limit_bytes",
        Type::Gauge,
        "Memory reservation limit for the container.",
        |u| some(u.stats.memory.reservation.unwrap_or(0)),
    ),
    ("container_spec_memory_swap_limit_bytes", Type::Gauge, "Memory swap limit for the container.", |u| {
        some(u.stats.memory.swap_limit.unwrap_or(0))
    }),
];

/// A family with one value for each interface: name, help, direction, value.
type NetworkFamily = (&'static str, &'static str, fn(&Interface) -> Traffic, fn(Traffic) -> u64);

const NETWORK: [NetworkFamily; 8] = [
    ("container_network_receive_bytes_total", "Cumulative count of bytes received", |i| i.received, |t| t.bytes),
    ("container_network_receive_packets_total", "Cumulative count of packets received", |i| i.received, |t| t.packets),
    (
        "container_network_receive_packets_dropped_total",
        "Cumulative count of packets dropped while receiving",
        |i| i.received,
        |t| t.dropped,
    ),
    (
        "container_network_receive_errors_total",
        "Cumulative count of errors encountered while receiving",
        |i| i.received,
        |t| t.errors,
    ),
    ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", |i| i.sent, |t| t.bytes),
    ("container_network_transmit_packets_total", "Cumulative count of packets transmitted", |i| i.sent, |t| t.packets),
    (
        "container_network_transmit_packets_dropped_total",
        "Cumulative count of packets dropped while transmitting",
        |i| i.sent,
        |t| t.dropped,
    ),
    (
        "container_network_transmit_errors_total",
        "Cumulative count of errors encountered while transmitting",
        |i| i.sent,
        |t| t.errors,
    ),
];

/// A family with one value for each block device: name, help, value.
type IoFamily = (&'static str, &'static str, fn(&DeviceIo) -> u64);

const IO: [IoFamily; 4] = [
    ("container_fs_reads_bytes_total", "Cumulative count of bytes read", |io| io.read_bytes),
    ("container_fs_reads_total", "Cumulative count of reads completed", |io| io.reads),
    ("container_fs_writes_bytes_total", "Cumulative count of bytes written", |io| io.written_bytes),
    ("container_fs_writes_total", "Cumulative count of writes completed", |io| io.writes),
];

#[allow(clippy::unnecessary_wraps)]
fn some(count: u64) -> Option<f64> {
    Some(float(count))
}

#[allow(clippy::unnecessary_wraps)]
fn seconds(nanos: u64) -> Option<f64> {
    Some(float(nanos) / 1e9)
}

/// Only for cgroups with a quota.
fn limited(used: &Used, count: u64) -> Option<f64> {
    used.stats.cpu.quota.map(|_| float(count))
}

fn full(pressure: Option<Pressure>) -> Option<f64> {
    pressure.map(|pressure| float(pressure.full.total) / 1e6)
}

fn waiting(pressure: Option<Pressure>) -> Option<f64> {
    pressure.map(|pressure| float(pressure.some.total) / 1e6)
}

/// The text; without a sample it only says that there is none.
#[must_use]
pub fn text(host: &Host, sample: Option<&Sample>, look: &Look) -> String {
    let mut text = Text::default();
    of_machine(&mut text, host);
    if let Some(sample) = sample {
        let (subjects, millis) = (subjects(host, sample), sample.at.as_millisecond());
        times(&mut text, &subjects, millis);
        for (name, kind, help, value) in FAMILIES {
            text.family(name, kind, help);
            for subject in &subjects {
                if let Some(value) = value(subject.used) {
                    text.sample_at(&subject.labels(), value, millis);
                }
            }
        }
        faults(&mut text, &subjects, millis);
        network(&mut text, &subjects, millis);
        io(&mut text, &subjects, millis);
        filesystems(&mut text, &subjects, look, millis);
        processes(&mut text, &subjects, millis);
    }
    let failed = f64::from(u8::from(sample.is_none()));
    text.single(
        "container_scrape_error",
        Type::Gauge,
        "1 if there was an error while getting container metrics, 0 otherwise",
        failed,
    );
    text.into_string()
}

fn subjects<'a>(host: &Host, sample: &'a Sample) -> Vec<Subject<'a>> {
    let booted = host.booted.map_or(0, |time| time.as_second());
    let plain = |used, interfaces| Subject {
        used,
        container: "",
        image: "",
        name: "",
        namespace: "",
        pod: "",
        started: booted,
        interfaces,
        of: None,
    };
    let mut all = vec![plain(&sample.node, sample.interfaces.as_slice())];
    all.extend(sample.all_pods.iter().map(|used| plain(used, &[])));
    for pod in &sample.pods {
        let in_pod = |used| Subject { namespace: &pod.namespace, pod: &pod.name, ..plain(used, &[]) };
        let started = pod.start_time.map_or(0, |time| time.as_second());
        all.push(Subject { started, ..in_pod(&pod.used) });
        let of = |container: &'a ContainerSample| Subject {
            container: &container.name,
            image: &container.image,
            name: &container.id,
            started: container.started_at / 1_000_000_000,
            of: Some(container),
            ..in_pod(&container.used)
        };
        // The network is told of once, with the sandbox.
        all.extend(pod.sandbox.iter().map(|sandbox| Subject { interfaces: &pod.interfaces, ..of(sandbox) }));
        all.extend(pod.containers.iter().map(of));
    }
    all
}

fn of_machine(text: &mut Text, host: &Host) {
    let facts = &host.facts;
    let kernel = facts.kernel_version.as_str();
    text.family("cadvisor_version_info", Type::Gauge, "A metric with a constant '1' value labeled by kernel version, OS version, docker version, cadvisor version & cadvisor revision.");
    let labels = [
        ("cadvisorRevision", ""),
        ("cadvisorVersion", ""),
        ("dockerVersion", ""),
        ("kernelVersion", kernel),
        ("osVersion", &facts.os_image),
    ];
    text.sample(&labels, 1.0);
    let labels =
        [("boot_id", facts.boot_id.as_str()), ("machine_id", &facts.machine_id), ("system_uuid", &facts.system_uuid)];
    text.family("machine_cpu_cores", Type::Gauge, "Number of logical CPU cores.");
    text.sample(&labels, float(facts.cpus));
    text.family("machine_memory_bytes", Type::Gauge, "Amount of memory installed on the machine.");
    text.sample(&labels, float(facts.memory));
}

fn times(text: &mut Text, subjects: &[Subject<'_>], millis: i64) {
    #[allow(clippy::cast_precision_loss)]
    let float = |seconds: i64| seconds as f64;
    text.family(
        "container_start_time_seconds",
        Type::Gauge,
        "Start time of the container since unix epoch in seconds.",
    );
    for subject in subjects {
        text.sample(&subject.labels(), float(subject.started));
    }
    text.family("container_last_seen", Type::Gauge, "Last time a container was seen by the exporter");
    for subject in subjects {
        text.sample_at(&subject.labels(), float(millis / 1000), millis);
    }
    text.family("container_cpu_usage_seconds_total", Type::Counter, "Cumulative cpu time consumed in seconds.");
    for subject in subjects {
        let used = self::float(subject.used.stats.cpu.usage) / 1e9;
        text.sample_at(&subject.labels_and(&[("cpu", "total")]), used, millis);
    }
}

fn faults(text: &mut Text, subjects: &[Subject<'_>], millis: i64) {
    text.family("container_memory_failures_total", Type::Counter, "Cumulative count of memory allocation failures.");
    for subject in subjects {
        let memory = &subject.used.stats.memory;
        for (kind, count) in [("pgfault", memory.page_faults), ("pgmajfault", memory.major_page_faults)] {
            for scope in ["container", "hierarchy"] {
                let labels = subject.labels_and(&[("failure_type", kind), ("scope", scope)]);
                text.sample_at(&labels, float(count), millis);
            }
        }
    }
}

fn network(text: &mut Text, subjects: &[Subject<'_>], millis: i64) {
    for (name, help, direction, value) in NETWORK {
        text.family(name, Type::Counter, help);
        for subject in subjects {
            for interface in subject.interfaces {
                let labels = subject.labels_and(&[("interface", &interface.name)]);
                text.sample_at(&labels, float(value(direction(interface))), millis);
            }
        }
    }
}

fn io(text: &mut Text, subjects: &[Subject<'_>], millis: i64) {
    for (name, help, value) in IO {
        text.family(name, Type::Counter, help);
        for subject in subjects {
            for device in &subject.used.stats.io.devices {
                let name = machine::device(device.major, device.minor);
                text.sample_at(&subject.labels_and(&[("device", &name)]), float(value(device)), millis);
            }
        }
    }
    text.family("container_blkio_device_usage_total", Type::Counter, "Blkio Device bytes usage");
    for subject in subjects {
        for device in &subject.used.stats.io.devices {
            let (name, major, minor) =
                (machine::device(device.major, device.minor), device.major.to_string(), device.minor.to_string());
            for (operation, bytes) in [("Read", device.read_bytes), ("Write", device.written_bytes)] {
                let more = [("device", name.as_str()), ("major", &major), ("minor", &minor), ("operation", operation)];
                text.sample_at(&subject.labels_and(&more), float(bytes), millis);
            }
        }
    }
}

/// Writable layers of containers, and the node's filesystem as that of the machine.
fn filesystems(text: &mut Text, subjects: &[Subject<'_>], look: &Look, millis: i64) {
    let device = look.containerfs.as_ref().and_then(|fs| machine::device_of(&fs.mountpoint)).unwrap_or_default();
    let root = look.nodefs.as_ref().zip(subjects.first());
    let node = look.root.as_deref().and_then(machine::device_of).unwrap_or_default();
    text.family(
        "container_fs_usage_bytes",
        Type::Gauge,
        "Number of bytes that are consumed by the container on this filesystem.",
    );
    if let Some((fs, machine)) = root {
        text.sample_at(&machine.labels_and(&[("device", &node)]), float(fs.used), millis);
    }
    for (subject, container) in subjects.iter().filter_map(|subject| Some((subject, subject.of?))) {
        let Some(layer) = look.layers.get(&container.id) else { continue };
        text.sample_at(&subject.labels_and(&[("device", &device)]), float(layer.bytes), millis);
    }
    let Some((fs, machine)) = root else { return };
    for (name, help, value) in [
        (
            "container_fs_limit_bytes",
            "Number of bytes that can be consumed by the container on this filesystem.",
            fs.capacity,
        ),
        ("container_fs_inodes_free", "Number of available Inodes", fs.inodes_free),
        ("container_fs_inodes_total", "Number of Inodes", fs.inodes),
    ] {
        text.family(name, Type::Gauge, help);
        text.sample_at(&machine.labels_and(&[("device", &node)]), float(value), millis);
    }
}

fn processes(text: &mut Text, subjects: &[Subject<'_>], millis: i64) {
    let containers = || subjects.iter().filter_map(|subject| Some((subject, subject.of?.processes)));
    text.family("container_processes", Type::Gauge, "Number of processes running inside the container.");
    for (subject, processes) in containers() {
        text.sample_at(&subject.labels(), float(processes.count), millis);
    }
    text.family("container_file_descriptors", Type::Gauge, "Number of open file descriptors for the container.");
    for (subject, processes) in containers() {
        text.sample_at(&subject.labels(), float(processes.files), millis);
    }
    text.family("container_sockets", Type::Gauge, "Number of open sockets for the container.");
    for (subject, processes) in containers() {
        text.sample_at(&subject.labels(), float(processes.sockets), millis);
    }
    text.family(
        "container_ulimits_soft",
        Type::Gauge,
        "Soft ulimit values for the container root process. Unlimited if -1, except priority and nice",
    );
    for (subject, processes) in containers() {
        let limit = processes.max_files.map_or(-1.0, float);
        text.sample_at(&subject.labels_and(&[("ulimit", "max_open_files")]), limit, millis);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::facts::Filesystem;
    use crate::stats::fixture;

    #[test]
    fn series_are_named_and_labelled_as_cadvisors() {
        let nodefs = Filesystem { capacity: 1000, used: 500, ..Filesystem::default() };
        let layer = crate::stats::disk::Held { bytes: 16, ..Default::default() };
        let look = Look { nodefs: Some(nodefs), layers: [("c1".to_owned(), layer)].into(), ..Look::default() };
        let text = text(&fixture::host(), Some(&fixture::sample()), &look);
        let c = "container=\"c\",id=\"/kubepods/podu/c1\",image=\"docker.io/library/app:1\",name=\"c1\",namespace=\"ns\",pod=\"p\"";
        let s = "container=\"\",id=\"/kubepods/podu/s1\",image=\"docker.io/library/app:1\",name=\"s1\",namespace=\"ns\",pod=\"p\"";
        let root = "container=\"\",id=\"/\",image=\"\",name=\"\",namespace=\"\",pod=\"\"";
        for line in [
            format!("container_cpu_usage_seconds_total{{{c},cpu=\"total\"}} 1.5 1700000000000"),
            format!("container_cpu_cfs_throttled_periods_total{{{c}}} 4 1700000000000"),
            format!("container_memory_working_set_bytes{{{c}}} 60 1700000000000"),
            format!("container_spec_memory_limit_bytes{{{c}}} 100 1700000000000"),
            format!(
                "container_memory_failures_total{{{c},failure_type=\"pgfault\",scope=\"container\"}} 9 1700000000000"
            ),
            format!("container_fs_reads_bytes_total{{{c},device=\"9999:1\"}} 512 1700000000000"),
            format!("container_fs_usage_bytes{{{c},device=\"\"}} 16 1700000000000"),
            format!("container_file_descriptors{{{c}}} 8 1700000000000"),
            format!("container_pressure_cpu_waiting_seconds_total{{{c}}} 2 1700000000000"),
            format!("container_start_time_seconds{{{c}}} 1600000000"),
            format!("container_network_receive_bytes_total{{{s},interface=\"eth0\"}} 10 1700000000000"),
            format!("container_memory_working_set_bytes{{{root}}} 700 1700000000000"),
            format!("container_fs_limit_bytes{{{root},device=\"\"}} 1000 1700000000000"),
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
        }
        assert!(!text.contains(&format!("container_cpu_cfs_periods_total{{{root}")), "there is no quota");
        assert!(text.contains("\nmachine_memory_bytes{") && text.ends_with("\ncontainer_scrape_error 0\n"));
    }
}
