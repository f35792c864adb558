//! `persistentVolumeClaim`: what the volume is that the claim is bound to (`desired_state_of_world_populator.go`).

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use super::device::FileSystem;
use crate::Error;
use crate::objects::{ObjectError, Objects};

/// What a bound volume is on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Backing {
    /// A path, checked as its type says.
    Host { path: String, check: String },
    /// A folder, or a block device, of the PersistentVolume `name`. With `block` it is to be a device as it is.
    Local { name: String, path: String, block: bool, file_system: FileSystem },
}

/// Asks for a claim and its volume.
pub(crate) async fn resolve<O: Objects>(namespace: &str, name: &str, objects: &O) -> Result<Backing, Error> {
    let wrong = |why: String| Error::Claim { claim: format!("{namespace}/{name}"), why };
    let unanswered = |what: &str, error: ObjectError| match error {
        ObjectError::Unavailable(_) => Error::Object(error),
        other => wrong(format!("failed to fetch {what} from API server: {other}")),
    };
    let claim = objects.claim(namespace, name).await.map_err(|error| unanswered("PVC", error))?;
    let bound = bound_to(&claim).map_err(|why| wrong(why.to_owned()))?;
    let volume = objects.volume(bound).await.map_err(|error| unanswered(&format!("PV {bound}"), error))?;
    belongs(&volume, &claim).map_err(wrong)?;
    backing(&volume)
}

/// The name of the volume that a claim has.
fn bound_to(claim: &PersistentVolumeClaim) -> Result<&str, &'static str> {
    if claim.metadata.deletion_timestamp.is_some() {
        return Err("PVC is being deleted");
    }
    if claim.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Bound") {
        return Err("PVC is not bound");
    }
    let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
    name.filter(|name| !name.is_empty()).ok_or("PVC has empty pvc.Spec.VolumeName")
}

fn belongs(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<(), String> {
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let Some(of) = api::volumes::claim_ref(volume) else {
        return Err(format!(
            "found PV object {name} but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim"
        ));
    };
    let (of, claim) = (of.uid.as_deref().unwrap_or_default(), claim.metadata.uid.as_deref().unwrap_or_default());
    if of == claim {
        return Ok(());
    }
    Err(format!("found PV object {name} but its pv.Spec.ClaimRef.UID {of} does not point to claim.UID {claim}"))
}

fn backing(volume: &PersistentVolume) -> Result<Backing, Error> {
    let Some(spec) = &volume.spec else { return Err(Error::Unsupported("persistentVolumeClaim")) };
    if let Some(source) = &spec.host_path {
        return Ok(Backing::Host { path: source.path.clone(), check: source.type_.clone().unwrap_or_default() });
    }
    if let Some(source) = &spec.local {
        let block = spec.volume_mode.as_deref() == Some("Block");
        let name = volume.metadata.name.clone().unwrap_or_default();
        let options = spec.mount_options.clone().unwrap_or_default();
        let file_system = FileSystem { kind: source.fs_type.clone(), options };
        return Ok(Backing::Local { name, path: source.path.clone(), block, file_system });
    }
    // CSI and the network file systems have no driver here.
    Err(Error::Unsupported("persistentVolumeClaim"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_a_claim_that_has_its_volume_is_used() {
        let claim = |status: &str, volume: &str| -> PersistentVolumeClaim {
            serde_json::from_value(json!({
                "metadata": {"uid": "u"}, "spec": {"volumeName": volume}, "status": {"phase": status}
            }))
            .unwrap()
        };
        assert_eq!(bound_to(&claim("Bound", "v")), Ok("v"));
        assert_eq!(bound_to(&claim("Pending", "v")), Err("PVC is not bound"));
        assert_eq!(bound_to(&claim("Bound", "")), Err("PVC has empty pvc.Spec.VolumeName"));
        let volume = |uid: &str| -> PersistentVolume {
            serde_json::from_value(json!({
                "metadata": {"name": "v"},
                "spec": {"claimRef": {"uid": uid}, "local": {"path": "/data"}}
            }))
            .unwrap()
        };
        assert_eq!(belongs(&volume("u"), &claim("Bound", "v")), Ok(()));
        let text = "found PV object v but its pv.Spec.ClaimRef.UID w does not point to claim.UID u";
        assert_eq!(belongs(&volume("w"), &claim("Bound", "v")), Err(text.to_owned()));
        let file_system = FileSystem::default();
        let local = Backing::Local { name: "v".into(), path: "/data".into(), block: false, file_system };
        assert_eq!(backing(&volume("u")).unwrap(), local);
    }
}
