//! StorageObjectInUseProtection: claims and volumes begin with the finalizer that keeps them while they are used
//! (`plugin/pkg/admission/storage/storageobjectinuseprotection`).

use api::volumes::{CLAIM_PROTECTION, VOLUME_PROTECTION};
use serde_json::{Value, json};

use crate::{Context, Operation, Plugin, Refusal, Request, items};

pub struct StorageObjectInUseProtection;

impl Plugin for StorageObjectInUseProtection {
    fn admit(&self, _: &Context, request: &Request<'_>, object: &mut Value) -> Result<(), Refusal> {
        let finalizer = match request.resource {
            "persistentvolumeclaims" if request.is("", "persistentvolumeclaims", "") => CLAIM_PROTECTION,
            "persistentvolumes" if request.is("", "persistentvolumes", "") => VOLUME_PROTECTION,
            _ => return Ok(()),
        };
        if request.operation != Operation::Create {
            return Ok(());
        }
        let mut finalizers: Vec<Value> = items(object, "/metadata/finalizers").cloned().collect();
        if !finalizers.iter().any(|one| one == finalizer) {
            finalizers.push(finalizer.into());
            object["metadata"]["finalizers"] = json!(finalizers);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::Cluster;

    #[test]
    fn claims_and_volumes_are_kept() {
        let cluster = Cluster::new();
        let finalizers = |resource: &str, own: serde_json::Value| {
            let object = json!({ "metadata": { "name": "x", "finalizers": own }, "spec": {} });
            cluster.created(resource, object).unwrap()["metadata"]["finalizers"].clone()
        };
        assert_eq!(
            finalizers("persistentvolumeclaims", json!(["own"])),
            json!(["own", "kubernetes.io/pvc-protection"])
        );
        let once = json!(["kubernetes.io/pv-protection"]);
        assert_eq!(finalizers("persistentvolumes", once.clone()), once);
    }
}
