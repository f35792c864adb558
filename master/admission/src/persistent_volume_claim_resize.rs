//! PersistentVolumeClaimResize: only bound claims grow, and only those of a class that says so
//! (`plugin/pkg/admission/storage/persistentvolume/resize`).

use api::quantity::Quantity;
use serde_json::Value;

use crate::{Context, Operation, Plugin, Refusal, Request, text};

const OLD_CLASS: &str = "/metadata/annotations/volume.beta.kubernetes.io~1storage-class";

pub struct PersistentVolumeClaimResize;

impl Plugin for PersistentVolumeClaimResize {
    fn validate(&self, context: &Context, request: &Request<'_>, object: Option<&Value>) -> Result<(), Refusal> {
        let is_ours = request.is("", "persistentvolumeclaims", "") && request.operation == Operation::Update;
        let (true, Some(new), Some(old)) = (is_ours, object, request.old) else { return Ok(()) };
        if size(new) <= size(old) {
            return Ok(());
        }
        if text(old, "/status/phase") != "Bound" {
            return Err(request.forbidden(object, "Only bound persistent volume claims can be expanded"));
        }
        let (class, before) = (class(new), class(old));
        let found = context.lookup.get("storage.k8s.io", "storageclasses", "", class);
        if class.is_empty() || class != before || found.is_none_or(|found| found["allowVolumeExpansion"] != true) {
            let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support \
                       resize";
            return Err(request.forbidden(object, why));
        }
        Ok(())
    }
}

fn size(claim: &Value) -> Option<Quantity> {
    text(claim, "/spec/resources/requests/storage").parse().ok()
}

fn class(claim: &Value) -> &str {
    let old = text(claim, OLD_CLASS);
    if old.is_empty() { text(claim, "/spec/storageClassName") } else { old }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::{Cluster, admin, on};
    use crate::{Operation, Request};

    fn claim(size: &str, phase: &str) -> Value {
        let spec = json!({ "storageClassName": "c", "resources": { "requests": { "storage": size } } });
        json!({ "metadata": { "name": "x" }, "spec": spec, "status": { "phase": phase } })
    }

    fn grown(class: Value, from: (&str, &str), to: &str) -> Result<(), String> {
        let (user, old) = (admin(), claim(from.0, from.1));
        let request = on(&user, Operation::Update, "persistentvolumeclaims", "default", "x");
        let cluster = Cluster::with("storageclasses", "", "c", class);
        let judged = cluster.chain().validate(&Request { old: Some(&old), ..request }, Some(&claim(to, from.1)));
        judged.map_err(|refusal| refusal.message)
    }

    #[test]
    fn claims_grow_where_their_class_allows_it() {
        let allows = json!({ "allowVolumeExpansion": true });
        assert_eq!(grown(allows.clone(), ("1Gi", "Bound"), "2Gi"), Ok(()));
        let wanted = "persistentvolumeclaims \"x\" is forbidden: Only bound persistent volume claims can be expanded";
        assert_eq!(grown(allows, ("1Gi", "Pending"), "2Gi"), Err(wanted.to_owned()));
        let wanted = "persistentvolumeclaims \"x\" is forbidden: only dynamically provisioned pvc can be resized and the \
                      storageclass that provisions the pvc must support resize";
        assert_eq!(grown(json!({}), ("1Gi", "Bound"), "2Gi"), Err(wanted.to_owned()));
        assert_eq!(grown(json!({}), ("1024Mi", "Bound"), "1Gi"), Ok(()));
    }
}
