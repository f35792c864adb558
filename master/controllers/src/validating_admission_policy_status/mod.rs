//! Says in the status of ValidatingAdmissionPolicies what does not fit in their expressions
//! (`pkg/controller/validatingadmissionpolicystatus`).

mod plan;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use expressions::{Schemas, Ty};
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use machinery::{Change, Outcome, Retry, WorkQueue};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::context::{Caches, Context};
use plan::{Checked, GroupVersionKind};

const NAME: &str = "validatingadmissionpolicy-status-controller";
/// Who owns the status, as upstream names the field manager.
const MANAGER: &str = "validatingadmissionpolicy-status";

struct Controller {
    client: Client,
    caches: Caches,
}

pub(crate) fn start(context: &mut Context) {
    let queue = WorkQueue::new();
    let caches = context.caches.clone();
    let to = queue.clone();
    caches.validating_policies.on_change(move |change| {
        if !matches!(change, Change::Deleted(_)) {
            to.add(change.object().metadata.name.as_deref().unwrap_or_default());
        }
    });
    let controller = Controller { client: context.client(NAME), caches };
    context.spawn_workers(NAME, queue, 1, controller, |it, key| async move { it.reconcile(&key).await });
}

impl Controller {
    async fn reconcile(&self, name: &str) -> Result<Outcome, Retry<kube::Error>> {
        let Some(policy) = self.caches.validating_policies.get(name) else { return Ok(Outcome::Done) };
        if !plan::is_due(&policy) {
            return Ok(Outcome::Done);
        }
        let warnings = plan::warnings(&policy, &self.checked(&policy).await?);
        let status = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "status": {
                "observedGeneration": policy.metadata.generation,
                "typeChecking": if warnings.is_empty() { json!({}) } else { json!({ "expressionWarnings": warnings }) },
            },
        });
        let api: Api<ValidatingAdmissionPolicy> = Api::all(self.client.clone());
        let params = PatchParams::apply(MANAGER).force();
        match api.patch_status(name, &params, &Patch::Apply(status)).await {
            Err(error) if !machinery::is_not_found(&error) => Err(error.into()),
            _ => Ok(Outcome::Done),
        }
    }

    /// The types that the policy's expressions are about. What the API server does not have is left out.
    async fn checked(&self, policy: &ValidatingAdmissionPolicy) -> Result<Checked, kube::Error> {
        let mut kinds = Vec::new();
        let mut lists: HashMap<String, Option<APIResourceList>> = HashMap::new();
        for wanted in plan::resources(policy) {
            let path = wanted.path();
            if !lists.contains_key(&path) {
                let found = self.asked(&path).await?;
                lists.insert(path.clone(), found);
            }
            let list = lists.get(&path).and_then(Option::as_ref);
            kinds.extend(list.and_then(|list| wanted.kind(list)));
        }
        plan::choose(&mut kinds);
        let mut checked = Checked::default();
        for kind in kinds {
            if let Some(ty) = self.described(&kind).await? {
                checked.kinds.push((kind, ty));
            }
        }
        if let Some(params) = plan::param_kind(policy) {
            checked.params = Some(self.described(&params).await?.unwrap_or(Ty::Dyn));
        }
        Ok(checked)
    }

    async fn described(&self, kind: &GroupVersionKind) -> Result<Option<Ty>, kube::Error> {
        let document: Option<Value> = self.asked(&format!("/openapi/v3{}", kind.path())).await?;
        Ok(document.and_then(|document| Schemas(&document).kind(&kind.group, &kind.version, &kind.kind)))
    }

    /// `None` where there is nothing at the path.
    async fn asked<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, kube::Error> {
        let request = http::Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
        match self.client.request(request).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if machinery::is_not_found(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
