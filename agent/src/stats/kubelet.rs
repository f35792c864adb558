//! What a kubelet's `/metrics` says of the node's pods and claims, under upstream's names. Pure, and made when somebody asks:
//! nothing is counted in between.

use std::collections::{BTreeMap, HashSet};

use api::PodUid;

use super::storage::{Look, VolumeUse};
use crate::exposition::{Text, Type, float};
use crate::pods::registry::{Entry, Lifecycle};
use crate::shutdown::state::State;

/// Pods of which a volume is a claim's.
#[must_use]
pub fn claiming(entries: &[(PodUid, Entry)]) -> HashSet<PodUid> {
    let claims = |entry: &Entry| {
        let volumes = entry.pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
        volumes.into_iter().flatten().any(|volume| volume.persistent_volume_claim.is_some())
    };
    entries.iter().filter(|(_, entry)| claims(entry)).map(|(uid, _)| uid.clone()).collect()
}

/// The families. `nameless` pods are known to the runtime only; `look` has the volumes of at least those pods that [`claiming`] named.
#[must_use]
pub fn text(node_name: &str, entries: &[(PodUid, Entry)], nameless: usize, look: &Look, shutdown: &State) -> String {
    let mut text = Text::default();
    text.family("kubelet_node_name", Type::Gauge, "[ALPHA] The node's name. The count is always 1.");
    text.sample(&[("node", node_name)], 1.0);
    pods(&mut text, entries);
    working_pods(&mut text, entries, nameless);
    resizes(&mut text, entries);
    volumes(&mut text, entries, look);
    managed(&mut text, entries);
    graceful_shutdown(&mut text, shutdown);
    text.into_string()
}

fn pods(text: &mut Text, entries: &[(PodUid, Entry)]) {
    let count = |holds: &dyn Fn(&Entry) -> bool| float(entries.iter().filter(|(_, entry)| holds(entry)).count() as u64);
    let sandboxes = count(&|entry| entry.sandbox.is_some());
    text.single(
        "kubelet_running_pods",
        Type::Gauge,
        "[ALPHA] Number of pods that have a running pod sandbox",
        sandboxes,
    );
    let running: usize = entries.iter().map(|(_, entry)| entry.running.len()).sum();
    text.family("kubelet_running_containers", Type::Gauge, "[ALPHA] Number of containers currently running");
    text.sample(&[("container_state", "running")], float(running as u64));
    let families = [
        ("kubelet_desired_pods", "[ALPHA] The number of pods the kubelet is being instructed to run.", false),
        (
            "kubelet_active_pods",
            "[ALPHA] The number of pods the kubelet considers active and which are being considered when admitting new pods.",
            true,
        ),
    ];
    for (name, help, active) in families {
        text.family(name, Type::Gauge, help);
        for (label, is_static) in [("", false), ("true", true)] {
            let of = |entry: &Entry| {
                api::pod::is_static(&entry.pod) == is_static && entry.wanted && (!active || entry.is_active())
            };
            text.sample(&[("static", label)], count(&of));
        }
    }
}

const WORKING: &str = "[ALPHA] Number of pods the kubelet is actually running, broken down by lifecycle phase, whether the pod is desired, orphaned, or runtime only (also orphaned), and whether the pod is static. An orphaned pod has been removed from local configuration or force deleted in the API and consumes resources that are not otherwise visible.";
const MIRRORS: &str = "[ALPHA] The number of mirror pods the kubelet will try to create (one per admitted static pod)";

fn working_pods(text: &mut Text, entries: &[(PodUid, Entry)], nameless: usize) {
    let mirrors = entries.iter().filter(|(_, entry)| entry.mirrored).count();
    text.single("kubelet_mirror_pods", Type::Gauge, MIRRORS, float(mirrors as u64));
    text.family("kubelet_working_pods", Type::Gauge, WORKING);
    let stages =
        [("sync", Lifecycle::Sync), ("terminating", Lifecycle::Terminating), ("terminated", Lifecycle::Terminated)];
    for (name, lifecycle) in stages {
        let mut sample = |config: &str, label: &str, count: usize| {
            text.sample(&[("config", config), ("lifecycle", name), ("static", label)], float(count as u64));
        };
        for (config, wanted) in [("desired", true), ("orphan", false)] {
            for (label, is_static) in [("", false), ("true", true)] {
                let of = |entry: &Entry| {
                    (entry.wanted, api::pod::is_static(&entry.pod)) == (wanted, is_static)
                        && entry.lifecycle() == lifecycle
                };
                sample(config, label, entries.iter().filter(|(_, entry)| of(entry)).count());
            }
        }
        // They have nothing but what runs of them, and end.
        let unknown = if lifecycle == Lifecycle::Terminating { nameless } else { 0 };
        sample("runtime_only", "unknown", unknown);
    }
}

/// What else there is in pods that the node has taken.
fn managed(text: &mut Text, entries: &[(PodUid, Entry)]) {
    let active = || entries.iter().map(|(_, entry)| entry).filter(|entry| entry.is_active());
    let specs = active().filter_map(|entry| entry.pod.spec.as_ref());
    let ephemeral: usize = specs.map(|spec| spec.ephemeral_containers.as_ref().map_or(0, Vec::len)).sum();
    let help = "[ALPHA] Current number of ephemeral containers in pods managed by this kubelet.";
    text.single("kubelet_managed_ephemeral_containers", Type::Gauge, help, float(ephemeral as u64));
    text.family("volume_manager_total_volumes", Type::Gauge, "[ALPHA] Number of volumes in Volume Manager");
    let is_there = entries.iter().map(|(_, entry)| entry).filter(|entry| entry.volumes);
    for (state, counts) in
        [("actual_state_of_world", by_plugin(is_there)), ("desired_state_of_world", by_plugin(active()))]
    {
        for (plugin, count) in counts {
            text.sample(&[("plugin_name", &format!("kubernetes.io/{plugin}")), ("state", state)], float(count));
        }
    }
}

/// Volumes of pods, by what makes them.
fn by_plugin<'a>(entries: impl Iterator<Item = &'a Entry>) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    for volume in entries.flat_map(|entry| volumes::plan(&entry.pod).volumes) {
        *counts.entry(volume.kind.plugin()).or_default() += 1;
    }
    counts
}

fn resizes(text: &mut Text, entries: &[(PodUid, Entry)]) {
    let conditions = |name: &'static str| {
        entries.iter().filter_map(move |(_, entry)| {
            let conditions = entry.status.as_ref()?.conditions.as_deref()?;
            api::conditions::get(conditions, name)
        })
    };
    let mut pending: BTreeMap<&str, u64> = BTreeMap::new();
    for condition in conditions("PodResizePending") {
        *pending.entry(condition.reason.as_deref().unwrap_or_default()).or_default() += 1;
    }
    text.family("kubelet_pod_pending_resizes", Type::Gauge, "[ALPHA] Number of pending resizes for pods.");
    for (reason, count) in pending {
        text.sample(&[("reason", reason)], float(count));
    }
    let help = "[ALPHA] Number of in-progress resizes for pods.";
    let in_progress = conditions("PodResizeInProgress").count() as u64;
    text.single("kubelet_pod_in_progress_resizes", Type::Gauge, help, float(in_progress));
}

fn graceful_shutdown(text: &mut Text, state: &State) {
    let at = |time: Option<jiff::Timestamp>| time.map_or(0.0, |at| float(at.as_second().unsigned_abs()));
    let (begun, ended) = (at(state.start_time), at(state.end_time));
    let help = "[ALPHA] Last graceful shutdown start time since unix epoch in seconds";
    text.single("kubelet_graceful_shutdown_start_time_seconds", Type::Gauge, help, begun);
    let help = "[ALPHA] Last graceful shutdown end time since unix epoch in seconds";
    text.single("kubelet_graceful_shutdown_end_time_seconds", Type::Gauge, help, ended);
}

type Figure = fn(&VolumeUse) -> u64;

const FIGURES: [(&str, &str, Figure); 6] = [
    ("kubelet_volume_stats_capacity_bytes", "[ALPHA] Capacity in bytes of the volume", |volume| {
        volume.filesystem.capacity
    }),
    ("kubelet_volume_stats_available_bytes", "[ALPHA] Number of available bytes in the volume", |volume| {
        volume.filesystem.available
    }),
    ("kubelet_volume_stats_used_bytes", "[ALPHA] Number of used bytes in the volume", |volume| volume.held.bytes),
    ("kubelet_volume_stats_inodes", "[ALPHA] Maximum number of inodes in the volume", |volume| {
        volume.filesystem.inodes
    }),
    ("kubelet_volume_stats_inodes_free", "[ALPHA] Number of free inodes in the volume", |volume| {
        volume.filesystem.inodes_free
    }),
    ("kubelet_volume_stats_inodes_used", "[ALPHA] Number of used inodes in the volume", |volume| volume.held.inodes),
];

/// A claim that several pods use is told once.
fn volumes(text: &mut Text, entries: &[(PodUid, Entry)], look: &Look) {
    let mut claims: BTreeMap<(&str, &str), &VolumeUse> = BTreeMap::new();
    for (uid, entry) in entries {
        let namespace = entry.pod.metadata.namespace.as_deref().unwrap_or_default();
        let volumes = look.pods.get(uid).into_iter().flat_map(|pod| &pod.volumes);
        claims.extend(volumes.filter_map(|volume| Some(((namespace, volume.claim.as_deref()?), volume))));
    }
    for (name, help, figure) in FIGURES {
        text.family(name, Type::Gauge, help);
        for ((namespace, claim), volume) in &claims {
            text.sample(&[("namespace", namespace), ("persistentvolumeclaim", claim)], float(figure(volume)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::Pod;

    use crate::pods::registry::{Registry, Running};

    #[test]
    fn an_empty_node_has_its_name_and_counts_of_zero() {
        let text = text("n1", &[], 0, &Look::default(), &State::default());
        assert!(text.contains("\nkubelet_node_name{node=\"n1\"} 1\n"), "{text}");
        assert!(text.contains("\nkubelet_running_pods 0\n"), "{text}");
        assert!(text.contains("\nkubelet_running_containers{container_state=\"running\"} 0\n"), "{text}");
        assert!(text.contains("\nkubelet_desired_pods{static=\"true\"} 0\n"), "{text}");
        assert!(!text.contains("kubelet_volume_stats"), "a family without samples is not written");
        assert!(text.contains("\nkubelet_mirror_pods 0\n"), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("kubelet_working_pods{")).count(), 15);
    }

    #[test]
    fn a_static_pod_whose_manifest_is_gone_is_an_orphan_that_ends() {
        let registry = Registry::default();
        let spec = serde_json::json!({
            "containers": [{"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
            "ephemeralContainers": [{"name": "e"}], "volumes": [{"name": "v", "emptyDir": {}}]
        });
        let (uid, mut pod): (_, Pod) =
            (PodUid::new("u"), serde_json::from_value(serde_json::json!({"spec": spec})).unwrap());
        let source = ("kubernetes.io/config.source".to_owned(), "file".to_owned());
        pod.metadata.annotations = Some([source].into());
        registry.found_nameless(&PodUid::new("found"));
        registry.update(&uid, &Arc::new(pod), |entry| {
            (entry.admitted, entry.mirrored, entry.volumes) = (true, true, true);
            let (name, image, log) = Default::default();
            entry.sandbox = Some(Running { id: api::ContainerId::new("s"), name, image, started_at: 0, log });
        });
        let says = |line: &str| {
            let text = text("n1", &registry.entries(), registry.nameless(), &Look::default(), &State::default());
            assert!(text.contains(&format!("\n{line}\n")), "{line} is not in {text}");
        };
        says("kubelet_working_pods{config=\"desired\",lifecycle=\"sync\",static=\"true\"} 1");
        says("kubelet_active_pods{static=\"true\"} 1");
        says("kubelet_mirror_pods 1");
        says("kubelet_managed_ephemeral_containers 1");
        says("volume_manager_total_volumes{plugin_name=\"kubernetes.io/empty-dir\",state=\"actual_state_of_world\"} 1");
        says(
            "volume_manager_total_volumes{plugin_name=\"kubernetes.io/empty-dir\",state=\"desired_state_of_world\"} 1",
        );
        says("kubelet_working_pods{config=\"runtime_only\",lifecycle=\"terminating\",static=\"unknown\"} 1");
        registry.update(&uid, &registry.entry(&uid).unwrap().pod, |entry| entry.wanted = false);
        says("kubelet_working_pods{config=\"desired\",lifecycle=\"sync\",static=\"true\"} 0");
        says("kubelet_working_pods{config=\"orphan\",lifecycle=\"terminating\",static=\"true\"} 1");
        says("kubelet_active_pods{static=\"true\"} 0");
        says("kubelet_desired_pods{static=\"true\"} 0");
        registry.update(&uid, &registry.entry(&uid).unwrap().pod, |entry| entry.sandbox = None);
        says("kubelet_working_pods{config=\"orphan\",lifecycle=\"terminated\",static=\"true\"} 1");
    }
}
