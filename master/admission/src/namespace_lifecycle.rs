//! NamespaceLifecycle: nothing is made in a namespace that does not exist or is being deleted, and the namespaces that a
//! cluster cannot do without stay.

use serde_json::{Value, json};

use crate::{Context, Operation, Plugin, Refusal, Request, text};

const IMMORTAL: [&str; 3] = ["default", "kube-public", "kube-system"];

pub struct NamespaceLifecycle;

impl NamespaceLifecycle {
    pub fn check(context: &Context, request: &Request<'_>, object: Option<&Value>) -> Result<(), Refusal> {
        let is_namespace = request.group.is_empty() && request.resource == "namespaces";
        if is_namespace {
            let immortal = request.operation == Operation::Delete && IMMORTAL.contains(&request.name);
            return if immortal {
                Err(Refusal::forbidden("", "namespaces", request.name, "this namespace may not be deleted"))
            } else {
                Ok(())
            };
        }
        // An access review must not tell whether a namespace exists.
        let is_review = (request.group, request.resource) == ("authorization.k8s.io", "localsubjectaccessreviews");
        if request.namespace.is_empty() || request.operation == Operation::Delete || is_review {
            return Ok(());
        }
        let Some(namespace) = context.lookup.get("", "namespaces", "", request.namespace) else {
            return Err(Refusal::not_found("", "namespaces", request.namespace));
        };
        if request.operation == Operation::Create && text(&namespace, "/status/phase") == "Terminating" {
            return Err(terminating(request, object));
        }
        Ok(())
    }
}

impl Plugin for NamespaceLifecycle {
    fn admit(&self, context: &Context, request: &Request<'_>, object: &mut Value) -> Result<(), Refusal> {
        Self::check(context, request, Some(object))
    }

    fn validate(&self, context: &Context, request: &Request<'_>, object: Option<&Value>) -> Result<(), Refusal> {
        Self::check(context, request, object)
    }
}

fn terminating(request: &Request<'_>, object: Option<&Value>) -> Refusal {
    let namespace = request.namespace;
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let mut refusal = request.forbidden(object, &why);
    refusal.details["causes"] = json!([{
        "reason": "NamespaceTerminating",
        "message": format!("namespace {namespace} is being terminated"),
        "field": "metadata.namespace",
    }]);
    refusal
}

#[cfg(test)]
mod tests;
