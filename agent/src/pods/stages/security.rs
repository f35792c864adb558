//! Security contexts of sandboxes and containers (pkg/kubelet/kuberuntime/security_context.go, pkg/securitycontext).
//! Pure.

use cri::v1::security_profile::ProfileType;
use cri::v1::{
    Capability, Int64Value, LinuxContainerSecurityContext, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption,
    SeLinuxOption, SecurityProfile, SupplementalGroupsPolicy, UserNamespace,
};
use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, Pod, PodSecurityContext, PodSpec, SELinuxOptions, SeccompProfile,
};
use pod::resolve::{NonRootError, Security};

/// Paths that a container does not see unless it asks to (`procMount: Default`).
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// Where localhost seccomp profiles lie, below the agent's data folder.
const SECCOMP: &str = "seccomp";

/// The user that an image runs as.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageUser {
    pub uid: Option<i64>,
    pub name: String,
}

/// What the security context depends on beside the spec.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    pub image_user: &'a ImageUser,
    /// `seccompDefault`.
    pub seccomp_default: bool,
    /// The agent's data folder.
    pub data_dir: &'a str,
    /// The pod's user namespace.
    pub users: &'a UserNamespace,
    /// The container whose processes are shared, for ephemeral containers.
    pub target: Option<&'a str>,
}

/// Why a container cannot be confined as its spec wants it: it then does not run. Where upstream has a text, it is that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecurityError {
    #[error(transparent)]
    NonRoot(#[from] NonRootError),
    #[error("localhostProfile must be set if seccompProfile type is Localhost.")]
    SeccompName,
    #[error("unknown seccomp profile type: {0:?}")]
    SeccompType(String),
    #[error("missing localhost apparmor profile name")]
    AppArmorName,
    #[error("unknown apparmor profile type: {0:?}")]
    AppArmorType(String),
    #[error("unsupported supplementalGroupsPolicy: {0}")]
    GroupsPolicy(String),
}

/// A sandbox's context. `seccomp` is the file with the pause container's seccomp profile.
#[must_use]
pub fn sandbox(spec: &PodSpec, seccomp: &str, users: &UserNamespace) -> LinuxSandboxSecurityContext {
    let privileged = containers(spec).any(|c| c.security_context.as_ref().and_then(|s| s.privileged).unwrap_or(false));
    let pod = spec.security_context.as_ref();
    LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(spec, None, users)),
        selinux_options: pod.and_then(|p| p.se_linux_options.as_ref()).map(selinux),
        run_as_user: pod.and_then(|p| p.run_as_user).map(int),
        run_as_group: pod.and_then(|p| p.run_as_group).map(int),
        supplemental_groups: groups(pod),
        // Containers of a policy that nobody knows do not start; their sandbox may.
        supplemental_groups_policy: groups_policy(pod.and_then(|p| p.supplemental_groups_policy.as_deref()))
            .unwrap_or_default()
            .into(),
        privileged,
        // The pause container is always confined, whatever the pod's own containers are.
        seccomp: Some(profile(ProfileType::Localhost, seccomp)),
        ..LinuxSandboxSecurityContext::default()
    }
}

fn containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

/// A container's context.
///
/// # Errors
/// When it must not run as root and would, or might; or is to be confined by what is not known.
pub fn container(
    pod: &Pod,
    spec: &PodSpec,
    container: &Container,
    given: &Given<'_>,
) -> Result<LinuxContainerSecurityContext, SecurityError> {
    let effective = pod::resolve::security(spec, container);
    let image = given.image_user;
    pod::resolve::verify_non_root(&effective, image.uid, &image.name, pod, &container.name)?;
    let hidden = |paths: &[&str]| {
        if effective.unmasked_proc { Vec::new() } else { paths.iter().map(|p| (*p).to_owned()).collect() }
    };
    let (masked_paths, readonly_paths) = (hidden(&MASKED), hidden(&READ_ONLY));
    let seccomp = seccomp(&effective, given)?;
    let app_armor = effective.app_armor_profile.as_ref().map(app_armor).transpose()?;
    let groups_policy = groups_policy(effective.supplemental_groups_policy.as_deref())?;
    let user = effective.run_as_user;
    Ok(LinuxContainerSecurityContext {
        capabilities: effective.capabilities.map(|c| Capability {
            add_capabilities: c.add.unwrap_or_default(),
            drop_capabilities: c.drop.unwrap_or_default(),
            ..Capability::default()
        }),
        privileged: effective.privileged,
        namespace_options: Some(namespaces(spec, given.target, given.users)),
        selinux_options: effective.se_linux_options.as_ref().map(selinux),
        run_as_user: user.or(image.uid).map(int),
        run_as_username: if user.is_none() { image.name.clone() } else { String::new() },
        run_as_group: effective.run_as_group.map(int),
        readonly_rootfs: effective.read_only_root_filesystem,
        supplemental_groups: effective.supplemental_groups,
        supplemental_groups_policy: groups_policy.into(),
        no_new_privs: effective.no_new_privileges,
        masked_paths,
        readonly_paths,
        seccomp: Some(seccomp),
        apparmor: app_armor,
        ..LinuxContainerSecurityContext::default()
    })
}

fn namespaces(spec: &PodSpec, target: Option<&str>, users: &UserNamespace) -> NamespaceOption {
    let node = |shared: Option<bool>, other| if shared.unwrap_or(false) { NamespaceMode::Node } else { other };
    let own_pid = if target.is_some() {
        NamespaceMode::Target
    } else if spec.share_process_namespace.unwrap_or(false) {
        NamespaceMode::Pod
    } else {
        NamespaceMode::Container
    };
    NamespaceOption {
        network: node(spec.host_network, NamespaceMode::Pod).into(),
        pid: node(spec.host_pid, own_pid).into(),
        ipc: node(spec.host_ipc, NamespaceMode::Pod).into(),
        target_id: target.unwrap_or_default().to_owned(),
        userns_options: Some(users.clone()),
    }
}

fn groups(pod: Option<&PodSecurityContext>) -> Vec<i64> {
    let Some(pod) = pod else { return Vec::new() };
    pod.fs_group.into_iter().chain(pod.supplemental_groups.iter().flatten().copied()).collect()
}

fn groups_policy(name: Option<&str>) -> Result<SupplementalGroupsPolicy, SecurityError> {
    match name {
        Some("Strict") => Ok(SupplementalGroupsPolicy::Strict),
        Some("Merge") | None => Ok(SupplementalGroupsPolicy::Merge),
        Some(other) => Err(SecurityError::GroupsPolicy(other.to_owned())),
    }
}

fn selinux(options: &SELinuxOptions) -> SeLinuxOption {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    SeLinuxOption {
        user: text(&options.user),
        role: text(&options.role),
        r#type: text(&options.type_),
        level: text(&options.level),
    }
}

fn profile(kind: ProfileType, localhost: &str) -> SecurityProfile {
    SecurityProfile { profile_type: kind.into(), localhost_ref: localhost.to_owned() }
}

fn seccomp(effective: &Security, given: &Given<'_>) -> Result<SecurityProfile, SecurityError> {
    let own = effective.seccomp_profile.as_ref();
    let found = match own.map(|own: &SeccompProfile| (own.type_.as_str(), named(own.localhost_profile.as_ref()))) {
        Some(("RuntimeDefault", _)) => profile(ProfileType::RuntimeDefault, ""),
        Some(("Localhost", Some(name))) => {
            profile(ProfileType::Localhost, &format!("{}/{SECCOMP}/{name}", given.data_dir))
        }
        Some(("Localhost", None)) => return Err(SecurityError::SeccompName),
        None if given.seccomp_default => profile(ProfileType::RuntimeDefault, ""),
        Some(("Unconfined", _)) | None => profile(ProfileType::Unconfined, ""),
        Some((other, _)) => return Err(SecurityError::SeccompType(other.to_owned())),
    };
    // Nothing confines a privileged container.
    Ok(if effective.privileged { profile(ProfileType::Unconfined, "") } else { found })
}

fn app_armor(own: &AppArmorProfile) -> Result<SecurityProfile, SecurityError> {
    match (own.type_.as_str(), named(own.localhost_profile.as_ref())) {
        ("RuntimeDefault", _) => Ok(profile(ProfileType::RuntimeDefault, "")),
        ("Unconfined", _) => Ok(profile(ProfileType::Unconfined, "")),
        ("Localhost", Some(name)) => Ok(profile(ProfileType::Localhost, name)),
        ("Localhost", None) => Err(SecurityError::AppArmorName),
        (other, _) => Err(SecurityError::AppArmorType(other.to_owned())),
    }
}

/// The name of a profile of this machine; an empty one is none.
fn named(localhost: Option<&String>) -> Option<&str> {
    localhost.map(String::as_str).filter(|name| !name.is_empty())
}

fn int(value: i64) -> Int64Value {
    Int64Value { value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::userns;

    fn spec(json: serde_json::Value) -> PodSpec {
        serde_json::from_value(json).unwrap()
    }

    fn of(spec: &PodSpec, user: &ImageUser) -> Result<LinuxContainerSecurityContext, SecurityError> {
        let users = &userns::of_node();
        let given = Given { image_user: user, seccomp_default: false, data_dir: "/data", users, target: None };
        container(&Pod::default(), spec, &spec.containers[0], &given)
    }

    #[test]
    fn defaults() {
        let spec = spec(serde_json::json!({"containers": [{"name": "c"}]}));
        let context = of(&spec, &ImageUser { uid: Some(7), name: String::new() }).unwrap();
        assert_eq!(context.run_as_user, Some(Int64Value { value: 7 }));
        assert_eq!(context.seccomp, Some(profile(ProfileType::Unconfined, "")));
        assert_eq!((context.masked_paths.len(), context.readonly_paths.len()), (12, 5));
        assert!(!context.privileged && !context.no_new_privs && !context.readonly_rootfs);
        let namespaces = context.namespace_options.unwrap();
        assert_eq!(namespaces.pid(), NamespaceMode::Container);
        assert_eq!(namespaces.network(), NamespaceMode::Pod);
    }

    #[test]
    fn the_containers_word_is_above_the_pods() {
        let spec = spec(serde_json::json!({
            "hostNetwork": true, "shareProcessNamespace": true,
            "securityContext": {"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4],
                "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "c", "securityContext": {"runAsUser": 5, "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true, "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
                "seccompProfile": {"type": "Localhost", "localhostProfile": "x.json"}}}]
        }));
        let context = of(&spec, &ImageUser::default()).unwrap();
        assert_eq!(context.run_as_user.unwrap().value, 5);
        assert_eq!(context.run_as_group.unwrap().value, 2);
        assert_eq!(context.supplemental_groups, [4, 3]);
        assert_eq!(context.seccomp.unwrap(), profile(ProfileType::Localhost, "/data/seccomp/x.json"));
        assert!(context.no_new_privs && context.readonly_rootfs);
        assert_eq!(context.capabilities.unwrap().drop_capabilities, ["ALL"]);
        let sandbox = sandbox(&spec, "/data/pause.json", &userns::of_node());
        assert_eq!(sandbox.seccomp, Some(profile(ProfileType::Localhost, "/data/pause.json")));
        assert_eq!(sandbox.run_as_user.unwrap().value, 1);
        assert_eq!(sandbox.namespace_options.as_ref().unwrap().network(), NamespaceMode::Node);
        assert_eq!(sandbox.namespace_options.as_ref().unwrap().pid(), NamespaceMode::Pod);
    }

    #[test]
    fn what_nobody_could_enforce_does_not_run() {
        let with =
            |own: serde_json::Value| spec(serde_json::json!({"containers": [{"name": "c", "securityContext": own}]}));
        let seccomp =
            |own: serde_json::Value| of(&with(serde_json::json!({"seccompProfile": own})), &ImageUser::default());
        let app_armor =
            |own: serde_json::Value| of(&with(serde_json::json!({"appArmorProfile": own})), &ImageUser::default());
        let unconfined = Some(profile(ProfileType::Unconfined, ""));
        assert_eq!(seccomp(serde_json::json!({"type": "Unconfined"})).unwrap().seccomp, unconfined);
        assert_eq!(app_armor(serde_json::json!({"type": "Unconfined"})).unwrap().apparmor, unconfined);
        let default = Some(profile(ProfileType::RuntimeDefault, ""));
        assert_eq!(app_armor(serde_json::json!({"type": "RuntimeDefault"})).unwrap().apparmor, default);
        let own = serde_json::json!({"type": "Localhost", "localhostProfile": "k8s-own"});
        assert_eq!(app_armor(own).unwrap().apparmor, Some(profile(ProfileType::Localhost, "k8s-own")));

        let (no_seccomp, no_app_armor) = (
            "localhostProfile must be set if seccompProfile type is Localhost.",
            "missing localhost apparmor profile name",
        );
        for own in
            [serde_json::json!({"type": "Localhost"}), serde_json::json!({"type": "Localhost", "localhostProfile": ""})]
        {
            assert_eq!(seccomp(own.clone()).unwrap_err().to_string(), no_seccomp);
            assert_eq!(app_armor(own).unwrap_err().to_string(), no_app_armor);
        }
        let own = serde_json::json!({"type": "Newer"});
        assert_eq!(seccomp(own.clone()).unwrap_err().to_string(), "unknown seccomp profile type: \"Newer\"");
        assert_eq!(app_armor(own).unwrap_err().to_string(), "unknown apparmor profile type: \"Newer\"");
        let groups = serde_json::json!({"securityContext": {"supplementalGroupsPolicy": "Newer"}, "containers": [{"name": "c"}]});
        let told = of(&spec(groups), &ImageUser::default()).unwrap_err().to_string();
        assert_eq!(told, "unsupported supplementalGroupsPolicy: Newer");
    }

    #[test]
    fn root_is_refused_where_it_must_not_be() {
        let spec = spec(serde_json::json!({"securityContext": {"runAsNonRoot": true}, "containers": [{"name": "c"}]}));
        assert!(of(&spec, &ImageUser { uid: Some(0), name: String::new() }).is_err());
        assert!(of(&spec, &ImageUser { uid: Some(10), name: String::new() }).is_ok());
    }

    #[test]
    fn privileged_containers_make_a_privileged_sandbox() {
        let spec = spec(serde_json::json!({"containers": [{"name": "c", "securityContext": {"privileged": true}}]}));
        assert!(sandbox(&spec, "", &userns::of_node()).privileged);
        let context = of(&spec, &ImageUser::default()).unwrap();
        assert!(context.privileged && context.masked_paths.is_empty());
    }
}
