//! Nobody grants what he does not have. Upstream does this in the registry of the RBAC kinds; here it is a plugin like others.

use auth::escalation::{self, Write};
use serde_json::Value;

use crate::{Context, Operation, Plugin, Refusal, Request};

const GROUP: &str = "rbac.authorization.k8s.io";

pub struct RbacEscalation;

impl Plugin for RbacEscalation {
    fn validate(&self, context: &Context, request: &Request<'_>, object: Option<&Value>) -> Result<(), Refusal> {
        let is_write = matches!(request.operation, Operation::Create | Operation::Update);
        let Some(new) = object.filter(|_| is_write && request.group == GROUP) else { return Ok(()) };
        let write = Write {
            user: request.user,
            resource: request.resource,
            namespace: request.namespace,
            name: request.object_name(object),
            old: request.old,
            new,
        };
        escalation::check(&context.rbac, context.authorizer.as_ref(), &write)
    }
}
