//! Which volumes a pod needs, and what its containers mount where. Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, VolumeMount};

use crate::kinds::Kind;

/// All that is set up for a pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub namespace: String,
    pub pod_name: String,
    pub pod_uid: String,
    pub service_account: String,
    /// In the order of the spec; volumes that no container mounts are left out, as upstream does.
    pub volumes: Vec<VolumePlan>,
    /// Owner of what is made.
    pub ownership: Ownership,
}

/// An object of the pod's namespace that a volume is made from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reference {
    ConfigMap(String),
    Secret(String),
}

/// One volume.
#[derive(Debug, Clone, PartialEq)]
pub struct VolumePlan {
    pub name: String,
    pub kind: Kind,
}

/// Who may use the files of a pod's volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ownership {
    /// `securityContext.fsGroup`.
    pub fs_group: Option<u32>,
    /// `fsGroupChangePolicy: OnRootMismatch`.
    pub on_root_mismatch: bool,
    /// The user that all containers run as, when it is the same: owner of tokens.
    pub user: Option<u32>,
}

/// Where a container sees a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPlan {
    pub volume: String,
    /// Position among the container's mounts: names the bind mount of a sub-path.
    pub index: usize,
    pub container_path: String,
    pub sub_path: SubPath,
    pub read_only: bool,
    pub propagation: Propagation,
}

/// Part of a volume that a container sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubPath {
    /// All of it.
    Whole,
    /// `subPath`.
    Fixed(String),
    /// `subPathExpr`: `$(VAR)` is expanded from the container's environment by the caller.
    Expression(String),
}

/// `mountPropagation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Propagation {
    #[default]
    None,
    HostToContainer,
    Bidirectional,
}

impl Plan {
    /// The objects that the volumes are made from.
    #[must_use]
    pub fn references(&self) -> BTreeSet<Reference> {
        self.volumes.iter().flat_map(|volume| volume.kind.references()).collect()
    }
}

/// What to set up for a pod.
#[must_use]
pub fn plan(pod: &Pod) -> Plan {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let used = mounted(spec);
    // What an image volume holds, the runtime mounts itself.
    let own = spec.volumes.iter().flatten().filter(|v| v.image.is_none());
    let volumes = own
        .filter(|v| used.contains(v.name.as_str()))
        .map(|v| VolumePlan { name: v.name.clone(), kind: Kind::of(v, spec) });
    let volumes = volumes.collect();
    Plan {
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        pod_name: pod.metadata.name.clone().unwrap_or_default(),
        pod_uid: pod.metadata.uid.clone().unwrap_or_default(),
        service_account: spec
            .service_account_name
            .clone()
            .filter(|n| !n.is_empty())
            .unwrap_or_else(|| "default".into()),
        volumes,
        ownership: ownership(spec),
    }
}

/// Names of the volumes that containers mount.
fn mounted(spec: &PodSpec) -> BTreeSet<&str> {
    let main = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let devices = main.clone().flat_map(|c| c.volume_devices.iter().flatten()).map(|d| d.name.as_str());
    let of_main = main.flat_map(|c| c.volume_mounts.iter().flatten()).map(|m| m.name.as_str()).chain(devices);
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    of_main.chain(ephemeral.flat_map(|c| c.volume_mounts.iter().flatten()).map(|m| m.name.as_str())).collect()
}

fn ownership(spec: &PodSpec) -> Ownership {
    let context = spec.security_context.as_ref();
    let id = |value: i64| u32::try_from(value).ok();
    Ownership {
        fs_group: context.and_then(|c| c.fs_group).and_then(id),
        on_root_mismatch: context.and_then(|c| c.fs_group_change_policy.as_deref()) == Some("OnRootMismatch"),
        user: common_user(spec).and_then(id),
    }
}

/// The one user of all containers (`FsUserFrom` upstream); none when they differ or leave it to the image.
fn common_user(spec: &PodSpec) -> Option<i64> {
    let of_pod = spec.security_context.as_ref().and_then(|c| c.run_as_user);
    let user = |c: &Container| c.security_context.as_ref().and_then(|s| s.run_as_user).or(of_pod);
    let mut users = spec.init_containers.iter().flatten().chain(&spec.containers).map(user);
    let first = users.next()??;
    users.all(|other| other == Some(first)).then_some(first)
}

/// What a container mounts, in the order of its spec.
#[must_use]
pub fn container_mounts(mounts: &[VolumeMount]) -> Vec<MountPlan> {
    mounts.iter().enumerate().map(|(index, mount)| container_mount(index, mount)).collect()
}

fn container_mount(index: usize, mount: &VolumeMount) -> MountPlan {
    let given = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    let sub_path = match (given(&mount.sub_path), given(&mount.sub_path_expr)) {
        (Some(path), _) => SubPath::Fixed(path),
        (None, Some(expression)) => SubPath::Expression(expression),
        (None, None) => SubPath::Whole,
    };
    MountPlan {
        volume: mount.name.clone(),
        index,
        container_path: absolute(&mount.mount_path),
        sub_path,
        read_only: mount.read_only.unwrap_or(false),
        propagation: match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => Propagation::HostToContainer,
            Some("Bidirectional") => Propagation::Bidirectional,
            _ => Propagation::None,
        },
    }
}

/// A relative mount path is taken from the container's root (`MakeAbsolutePath`).
fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Medium;

    fn pod(json: serde_json::Value) -> Pod {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn only_mounted_volumes_are_planned_in_order() {
        let pod = pod(serde_json::json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {
                "securityContext": {"fsGroup": 1234, "runAsUser": 7, "fsGroupChangePolicy": "OnRootMismatch"},
                "initContainers": [{"name": "i", "volumeMounts": [{"name": "b", "mountPath": "b"}]}],
                "containers": [{"name": "c", "volumeMounts": [{"name": "a", "mountPath": "/a", "subPath": "x", "readOnly": true}]}],
                "volumes": [
                    {"name": "a", "emptyDir": {"medium": "Memory"}},
                    {"name": "unused", "emptyDir": {}},
                    {"name": "b", "nfs": {"server": "s", "path": "/"}}
                ]
            }
        }));
        let plan = plan(&pod);
        assert_eq!(plan.service_account, "default");
        assert_eq!(plan.ownership, Ownership { fs_group: Some(1234), on_root_mismatch: true, user: Some(7) });
        let names: Vec<_> = plan.volumes.iter().map(|v| v.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(plan.volumes[0].kind, Kind::EmptyDir { medium: Medium::Memory, size_limit: None });
        assert_eq!(plan.volumes[1].kind, Kind::Unsupported("nfs"));
    }

    #[test]
    fn objects_of_mounted_volumes_are_referred_to() {
        let pod = pod(serde_json::json!({"spec": {
            "containers": [{"name": "c", "volumeMounts": [
                {"name": "a", "mountPath": "/a"}, {"name": "b", "mountPath": "/b"}, {"name": "c", "mountPath": "/c"}]}],
            "volumes": [
                {"name": "a", "configMap": {"name": "cm"}},
                {"name": "b", "secret": {"secretName": "se"}},
                {"name": "c", "projected": {"sources": [{"configMap": {"name": "ca"}}, {"secret": {"name": "se"}}]}},
                {"name": "unused", "configMap": {"name": "other"}}
            ]
        }}));
        let names =
            [Reference::ConfigMap("ca".into()), Reference::ConfigMap("cm".into()), Reference::Secret("se".into())];
        assert_eq!(plan(&pod).references(), names.into());
    }

    #[test]
    fn mounts_keep_their_place_and_options() {
        let mounts: Vec<VolumeMount> = serde_json::from_value(serde_json::json!([
            {"name": "a", "mountPath": "/a"},
            {"name": "a", "mountPath": "b", "subPathExpr": "$(X)", "readOnly": true, "recursiveReadOnly": "IfPossible",
             "mountPropagation": "Bidirectional"}
        ]))
        .unwrap();
        let planned = container_mounts(&mounts);
        assert_eq!(planned[0].sub_path, SubPath::Whole);
        assert_eq!(
            planned[1],
            MountPlan {
                volume: "a".into(),
                index: 1,
                container_path: "/b".into(),
                sub_path: SubPath::Expression("$(X)".into()),
                read_only: true,
                propagation: Propagation::Bidirectional,
            }
        );
    }

    #[test]
    fn users_that_differ_own_nothing() {
        let with = |first: i64, second: Option<i64>| {
            let spec = serde_json::json!({"containers": [
                {"name": "a", "securityContext": {"runAsUser": first}},
                {"name": "b", "securityContext": {"runAsUser": second}}
            ]});
            common_user(&serde_json::from_value(spec).unwrap())
        };
        assert_eq!(with(5, Some(5)), Some(5));
        assert_eq!(with(5, Some(6)), None);
        assert_eq!(with(5, None), None);
    }
}
