//! The security context that holds for a container: its own fields before those of the pod.

use k8s_openapi::api::core::v1::{
    AppArmorProfile, Capabilities, Container, PodSecurityContext, PodSpec, SELinuxOptions, SeccompProfile,
    SecurityContext,
};

/// Effective values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Security {
    /// User id; `None` is that of the image.
    pub run_as_user: Option<i64>,
    /// Group id; `None` is that of the image.
    pub run_as_group: Option<i64>,
    /// Whether to refuse user 0.
    pub run_as_non_root: bool,
    /// Groups beside, with `fsGroup`.
    pub supplemental_groups: Vec<i64>,
    /// `Merge` or `Strict` (KEP-3619).
    pub supplemental_groups_policy: Option<String>,
    /// All devices and capabilities.
    pub privileged: bool,
    /// The root file system cannot be written.
    pub read_only_root_filesystem: bool,
    /// `no_new_privs`: only when `allowPrivilegeEscalation` is false.
    pub no_new_privileges: bool,
    /// `procMount` is `Unmasked`: no paths of /proc and /sys are hidden or read-only.
    pub unmasked_proc: bool,
    /// Capabilities to add and drop.
    pub capabilities: Option<Capabilities>,
    /// seccomp.
    pub seccomp_profile: Option<SeccompProfile>,
    /// AppArmor.
    pub app_armor_profile: Option<AppArmorProfile>,
    /// SELinux.
    pub se_linux_options: Option<SELinuxOptions>,
}

/// The values for one container of a pod.
#[must_use]
pub fn security(spec: &PodSpec, container: &Container) -> Security {
    let (no_pod, no_own) = (PodSecurityContext::default(), SecurityContext::default());
    let pod = spec.security_context.as_ref().unwrap_or(&no_pod);
    let own = container.security_context.as_ref().unwrap_or(&no_own);
    let privileged = own.privileged.unwrap_or(false);
    let mut groups: Vec<i64> = pod.supplemental_groups.clone().unwrap_or_default();
    groups.extend(pod.fs_group.filter(|group| !groups.contains(group)));
    Security {
        run_as_user: own.run_as_user.or(pod.run_as_user),
        run_as_group: own.run_as_group.or(pod.run_as_group),
        run_as_non_root: own.run_as_non_root.or(pod.run_as_non_root).unwrap_or(false),
        supplemental_groups: groups,
        supplemental_groups_policy: pod.supplemental_groups_policy.clone(),
        privileged,
        read_only_root_filesystem: own.read_only_root_filesystem.unwrap_or(false),
        no_new_privileges: own.allow_privilege_escalation == Some(false),
        unmasked_proc: privileged || own.proc_mount.as_deref() == Some("Unmasked"),
        capabilities: own.capabilities.clone(),
        seccomp_profile: own.seccomp_profile.clone().or_else(|| pod.seccomp_profile.clone()),
        app_armor_profile: own.app_armor_profile.clone().or_else(|| pod.app_armor_profile.clone()),
        se_linux_options: own.se_linux_options.clone().or_else(|| pod.se_linux_options.clone()),
    }
}

/// A container that must not run as root, but would. The texts are upstream's; the reason is
/// `CreateContainerConfigError`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NonRootError {
    /// `runAsUser: 0`.
    #[error("container's runAsUser breaks non-root policy (pod: {pod:?}, container: {container})")]
    RunAsUser {
        /// `name_namespace(uid)`.
        pod: String,
        /// The container's name.
        container: String,
    },
    /// The image says root, or nothing.
    #[error("container has runAsNonRoot and image will run as root (pod: {pod:?}, container: {container})")]
    Image {
        /// `name_namespace(uid)`.
        pod: String,
        /// The container's name.
        container: String,
    },
    /// The image names a user that only the image can resolve.
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root (pod: {pod:?}, container: {container})"
    )]
    Named {
        /// The user in the image.
        user: String,
        /// `name_namespace(uid)`.
        pod: String,
        /// The container's name.
        container: String,
    },
}

/// Checks `runAsNonRoot` against the user that the image is made for.
///
/// # Errors
/// When the container would run as root, or might.
pub fn verify_non_root(
    security: &Security,
    image_uid: Option<i64>,
    image_user: &str,
    pod: &k8s_openapi::api::core::v1::Pod,
    container: &str,
) -> Result<(), NonRootError> {
    if !security.run_as_non_root {
        return Ok(());
    }
    let (pod, container) = (api::pod::full_name(pod), container.to_owned());
    match (security.run_as_user, image_uid) {
        (Some(0), _) => Err(NonRootError::RunAsUser { pod, container }),
        (Some(_), _) => Ok(()),
        (None, Some(0)) => Err(NonRootError::Image { pod, container }),
        // An image that names no user runs as root.
        (None, None) if image_user.is_empty() => Err(NonRootError::Image { pod, container }),
        (None, None) => Err(NonRootError::Named { user: image_user.to_owned(), pod, container }),
        (None, Some(_)) => Ok(()),
    }
}
