//! The APIServices of what this server has itself (`pkg/controlplane/apiserver/aggregator.go`).

use schema::Registry;
use serde_json::{Value, json};

use super::name_of;

/// `groupPriorityMinimum` and `versionPriority` of the built-in groups; versions beside the listed one come behind it.
const PRIORITIES: [(&str, i64, i64); 21] = [
    ("", 18_000, 1),
    ("apps", 17_800, 15),
    ("events.k8s.io", 17_750, 15),
    ("authentication.k8s.io", 17_700, 15),
    ("authorization.k8s.io", 17_600, 15),
    ("autoscaling", 17_500, 15),
    ("batch", 17_400, 15),
    ("certificates.k8s.io", 17_300, 15),
    ("networking.k8s.io", 17_200, 15),
    ("policy", 17_100, 15),
    ("rbac.authorization.k8s.io", 17_000, 15),
    ("storage.k8s.io", 16_800, 15),
    ("admissionregistration.k8s.io", 16_700, 15),
    ("apiextensions.k8s.io", 16_700, 15),
    ("scheduling.k8s.io", 16_600, 15),
    ("coordination.k8s.io", 16_500, 15),
    ("node.k8s.io", 16_300, 15),
    ("discovery.k8s.io", 16_200, 15),
    ("resource.k8s.io", 16_200, 21),
    ("flowcontrol.apiserver.k8s.io", 16_100, 21),
    // It has no APIService: what it describes cannot be described by itself.
    (super::GROUP, 20_000, 15),
];
/// Those of groups that definitions make.
const CUSTOM: (i64, i64) = (1_000, 100);

/// The priorities of a version that no APIService names.
pub(super) fn priority(group: &str, version: &str) -> (i64, i64) {
    let known = PRIORITIES.iter().find(|(name, ..)| *name == group);
    match (known, version) {
        // The newer version of this group is preferred.
        (Some((_, group, _)), "v2") => (*group, 30),
        (Some((_, group, first)), _) => (*group, *first),
        (None, _) => CUSTOM,
    }
}

/// An APIService for each version that this server has from the start. One that is deleted stays so until the next start
/// (`AddAPIServiceToSyncOnStart`).
pub(crate) fn registrations() -> impl Iterator<Item = Value> {
    let versions = Registry::builtin().group_versions().into_iter().filter(|(group, _)| *group != super::GROUP);
    versions.map(|(group, version)| {
        let (group_priority, version_priority) = priority(group, version);
        let mut spec = json!({
            "version": version, "groupPriorityMinimum": group_priority, "versionPriority": version_priority,
        });
        if !group.is_empty() {
            spec["group"] = group.into();
        }
        let labels = json!({ "kube-aggregator.kubernetes.io/automanaged": "onstart" });
        json!({
            "kind": "APIService", "apiVersion": "apiregistration.k8s.io/v1",
            "metadata": { "name": name_of(group, version), "labels": labels }, "spec": spec,
        })
    })
}
