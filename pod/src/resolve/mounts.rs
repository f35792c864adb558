//! Mounts that are read-only with all that is mounted below them (KEP-3857).

use k8s_openapi::api::core::v1::VolumeMount;

/// Why a mount cannot be recursively read-only. The texts are upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecursiveReadOnlyError {
    /// It is not even read-only.
    #[error("volume {0:?} requested recursive read-only mode, but it is not read-only")]
    Writable(String),
    /// It receives mounts.
    #[error(
        "volume {volume:?} requested recursive read-only mode, but it is not compatible with propagation {propagation:?}"
    )]
    Propagation {
        /// The volume's name.
        volume: String,
        /// `mountPropagation`.
        propagation: String,
    },
    /// The runtime cannot.
    #[error("volume {0:?} requested recursive read-only mode, but it is not supported by the runtime")]
    Unsupported(String),
    /// Neither `Disabled`, `IfPossible` nor `Enabled`.
    #[error("unknown recursive read-only mode {0:?}")]
    Mode(String),
}

/// Whether a mount is recursively read-only. `supported`: the pod's runtime handler can do it.
///
/// # Errors
/// When it is to be, and cannot.
pub fn recursive_read_only(mount: &VolumeMount, supported: bool) -> Result<bool, RecursiveReadOnlyError> {
    let Some(mode) = mount.recursive_read_only.as_deref().filter(|mode| *mode != "Disabled") else { return Ok(false) };
    let volume = || mount.name.clone();
    if !mount.read_only.unwrap_or(false) {
        return Err(RecursiveReadOnlyError::Writable(volume()));
    }
    if let Some(propagation) = mount.mount_propagation.as_ref().filter(|propagation| *propagation != "None") {
        let propagation = propagation.clone();
        return Err(RecursiveReadOnlyError::Propagation { volume: volume(), propagation });
    }
    match mode {
        "IfPossible" => Ok(supported),
        "Enabled" if supported => Ok(true),
        "Enabled" => Err(RecursiveReadOnlyError::Unsupported(volume())),
        other => Err(RecursiveReadOnlyError::Mode(other.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        let of = |mode: Option<&str>, read_only: bool, propagation: Option<&str>, supported| {
            let mount = VolumeMount {
                name: "v".to_owned(),
                read_only: Some(read_only),
                recursive_read_only: mode.map(str::to_owned),
                mount_propagation: propagation.map(str::to_owned),
                ..VolumeMount::default()
            };
            recursive_read_only(&mount, supported).map_err(|error| error.to_string())
        };
        assert_eq!(of(None, false, None, true), Ok(false));
        assert_eq!(of(Some("Disabled"), true, None, true), Ok(false));
        assert_eq!([true, false].map(|able| of(Some("IfPossible"), true, Some("None"), able)), [Ok(true), Ok(false)]);
        assert_eq!(of(Some("Enabled"), true, None, true), Ok(true));
        let error = |text: &str| Err(format!("volume \"v\" requested recursive read-only mode, but it is not {text}"));
        assert_eq!(of(Some("Enabled"), true, None, false), error("supported by the runtime"));
        assert_eq!(of(Some("Enabled"), false, None, true), error("read-only"));
        assert_eq!(
            of(Some("IfPossible"), true, Some("HostToContainer"), true),
            error("compatible with propagation \"HostToContainer\"")
        );
    }
}
