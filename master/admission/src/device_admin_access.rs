//! Access to devices for administration, whoever else uses them, is had in namespaces that are labelled for it only (KEP-5018).
//! Upstream does this in the registry of claims (`pkg/registry/resource.AuthorizedForAdmin`); here it is a plugin like others.

use auth::FieldCause;
use serde_json::Value;

use crate::{Context, Operation, Plugin, Refusal, Request, items};

const GROUP: &str = "resource.k8s.io";
/// `DRAAdminNamespaceLabelKey`
const LABEL: &str = "resource.kubernetes.io/admin-access";
const RESULTS: &str = "/status/allocation/devices/results";

pub struct DeviceAdminAccess;

impl Plugin for DeviceAdminAccess {
    fn validate(&self, context: &Context, request: &Request<'_>, object: Option<&Value>) -> Result<(), Refusal> {
        let Some((kind, field)) = object.and_then(|object| asked(request, object)) else { return Ok(()) };
        let namespace = context.lookup.get("", "namespaces", "", request.namespace).unwrap_or_default();
        if namespace["metadata"]["labels"][LABEL] == "true" {
            return Ok(());
        }
        let why = format!("admin access to devices requires the `{LABEL}: true` label on the containing namespace");
        let message = format!("Forbidden: {why}");
        let cause = FieldCause { reason: "FieldValueForbidden", field: &field, message: &message };
        Err(Refusal::invalid(GROUP, kind, request.object_name(object), &[cause]))
    }
}

/// The kind of an object that asks for such access, and the field that does. What was asked for before is not judged again:
/// neither requests nor what was allocated for them can change.
fn asked(request: &Request<'_>, object: &Value) -> Option<(&'static str, String)> {
    if request.group != GROUP {
        return None;
    }
    match (request.operation, request.resource, request.subresource) {
        (Operation::Create, "resourceclaims", "") => requested(object, "/spec").map(|field| ("ResourceClaim", field)),
        (Operation::Create, "resourceclaimtemplates", "") => {
            requested(object, "/spec/spec").map(|field| ("ResourceClaimTemplate", field))
        }
        (Operation::Update, "resourceclaims", "status") => {
            let granted = |claim: &Value| items(claim, RESULTS).position(|result| result["adminAccess"] == true);
            let is_new = request.old.and_then(granted).is_none();
            let index = granted(object).filter(|_| is_new)?;
            Some(("ResourceClaim", format!("status.allocation.devices.results[{index}].adminAccess")))
        }
        _ => None,
    }
}

/// As upstream names it, of templates, too.
fn requested(object: &Value, spec: &str) -> Option<String> {
    let mut requests = items(object, &format!("{spec}/devices/requests"));
    let index = requests.position(|request| request["exactly"]["adminAccess"] == true)?;
    Some(format!("spec.devices.requests[{index}].adminAccess"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::{Cluster, admin, on};
    use crate::{Operation, Request};

    fn judged(request: Request<'_>, object: &Value) -> Result<(), String> {
        let labels = json!({ "metadata": { "labels": { "resource.kubernetes.io/admin-access": "true" } } });
        let cluster = Cluster::with("namespaces", "", "labelled", labels);
        cluster.chain().validate(&Request { group: "resource.k8s.io", ..request }, Some(object)).map_err(|e| e.message)
    }

    fn refusal(kind: &str, field: &str) -> Result<(), String> {
        Err(format!(
            "{kind}.resource.k8s.io \"x\" is invalid: {field}.adminAccess: Forbidden: admin access to devices requires the \
             `resource.kubernetes.io/admin-access: true` label on the containing namespace"
        ))
    }

    #[test]
    fn a_namespace_must_be_labelled_for_it() {
        let user = admin();
        let spec =
            |wish: Value| json!({ "devices": { "requests": [{ "name": "a" }, { "name": "b", "exactly": wish }] } });
        let wishes = spec(json!({ "adminAccess": true }));
        let claim = json!({ "metadata": { "name": "x" }, "spec": wishes });
        let template = json!({ "metadata": { "name": "x" }, "spec": { "spec": wishes } });
        let field = "spec.devices.requests[1]";
        for (resource, kind, object) in
            [("resourceclaims", "ResourceClaim", claim), ("resourceclaimtemplates", "ResourceClaimTemplate", template)]
        {
            let create = |namespace| on(&user, Operation::Create, resource, namespace, "x");
            assert_eq!(judged(create("default"), &object), refusal(kind, field));
            assert_eq!(judged(create("labelled"), &object), Ok(()));
        }
        let modest = json!({ "metadata": { "name": "x" }, "spec": spec(json!({ "adminAccess": false })) });
        assert_eq!(judged(on(&user, Operation::Create, "resourceclaims", "default", "x"), &modest), Ok(()));
    }

    #[test]
    fn so_must_that_of_an_allocation() {
        let user = admin();
        let status = |results: Value| json!({ "status": { "allocation": { "devices": { "results": results } } } });
        let (none, granted) = (status(json!([])), status(json!([{ "adminAccess": true }])));
        let write = |old| Request {
            subresource: "status",
            old: Some(old),
            ..on(&user, Operation::Update, "resourceclaims", "default", "x")
        };
        let field = "status.allocation.devices.results[0]";
        assert_eq!(judged(write(&none), &granted), refusal("ResourceClaim", field));
        assert_eq!(judged(write(&granted), &granted), Ok(()));
    }
}
