//! What a kubelet's `/metrics` says of the node's pods and claims, under upstream's names. Pure, and made when somebody asks:
//! nothing is counted in between.

use std::collections::{BTreeMap, HashSet};

use api::PodUid;

use super::storage::{Look, VolumeUse};
use crate::exposition::{Text, Type, float};
use crate::pods::registry::Entry;
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

/// The families. `look` has the volumes of at least those pods that [`claiming`] named.
#[must_use]
pub fn text(node_name: &str, entries: &[(PodUid, Entry)], look: &Look, shutdown: &State) -> String {
    let mut text = Text::default();
    text.family("kubelet_node_name", Type::Gauge, "[ALPHA] The node's name. The count is always 1.");
    text.sample(&[("node", node_name)], 1.0);
    pods(&mut text, entries);
    volumes(&mut text, entries, look);
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
            let of = |entry: &Entry| api::pod::is_static(&entry.pod) == is_static && (!active || entry.is_active());
            text.sample(&[("static", label)], count(&of));
        }
    }
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

    #[test]
    fn an_empty_node_has_its_name_and_counts_of_zero() {
        let text = text("n1", &[], &Look::default(), &State::default());
        assert!(text.contains("\nkubelet_node_name{node=\"n1\"} 1\n"), "{text}");
        assert!(text.contains("\nkubelet_running_pods 0\n"), "{text}");
        assert!(text.contains("\nkubelet_running_containers{container_state=\"running\"} 0\n"), "{text}");
        assert!(text.contains("\nkubelet_desired_pods{static=\"true\"} 0\n"), "{text}");
        assert!(!text.contains("kubelet_volume_stats"), "a family without samples is not written");
    }
}
