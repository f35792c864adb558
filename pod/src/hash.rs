//! The part of a container's spec whose change restarts it in place.

use k8s_openapi::api::core::v1::Container;

/// Changes when the name or the image changes: of the fields that a running pod may change, only the image needs a new
/// container by itself (API validation of pod updates; resources are resized).
#[must_use]
pub fn container(container: &Container) -> String {
    let image = container.image.as_deref().unwrap_or_default();
    let bytes = container.name.bytes().chain([0]).chain(image.bytes());
    // FNV-1a: the value lies in annotations of containers and must not change with releases of a library.
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}
