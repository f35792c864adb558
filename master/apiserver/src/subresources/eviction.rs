//! `pods/NAME/eviction`: a deletion that asks first (`pkg/registry/core/pod/storage/eviction.go`).

use std::sync::Arc;

use admission::{Operation, Request};
use http::Response;

use super::{body_of, budget, created};
use crate::body::Body;
use crate::objects::{self, DeleteOptions, Deletion};
use crate::problem::{Problem, Result};
use crate::road::Call;
use crate::server::Core;
use crate::webhooks::{self, Attributes};

pub(super) async fn answer(core: &Arc<Core>, call: &mut Call, body: Body) -> Result<Response<Body>> {
    let dry_run = call.query.dry_run("CreateOptions")?;
    let mut eviction = body_of(call, "policy/v1", "Eviction", body).await?;
    let said = eviction["metadata"]["name"].as_str().unwrap_or_default();
    if !said.is_empty() && said != call.path.name {
        return Err(Problem::bad_request("name in URL does not match name in Eviction object"));
    }
    let request = Request {
        user: &call.user,
        operation: Operation::Create,
        group: "",
        resource: "pods",
        subresource: "eviction",
        namespace: &call.path.namespace,
        name: &call.path.name,
        old: None,
    };
    let asked = Attributes {
        user: &call.user,
        operation: Operation::Create,
        kind: call.kind,
        subresource: "eviction",
        body: Some(("policy", "v1", "Eviction")),
        namespace: &call.path.namespace,
        name: &call.path.name,
        old: None,
        dry_run,
    };
    call.tell(webhooks::mutate(core, &request, &asked, &mut eviction).await?);
    core.admission.validate(&request, Some(&eviction))?;
    call.tell(webhooks::validate(core, &asked, Some(&eviction)).await?);
    let options = DeleteOptions::from_value(&eviction["deleteOptions"])?.with_dry_run(dry_run);
    let pod = objects::stored(call.kind, objects::find(core, call)?.json())?;
    budget::spend(core, &call.path.namespace, &pod, dry_run).await?;
    let place = (call.path.namespace.as_str(), call.path.name.as_str());
    match objects::delete_one(core, call, place, &options).await? {
        Deletion::Gone(_) | Deletion::Marked(_) => created(call),
    }
}
