//! Admission as Kubernetes has it on by default, as functions over one object. Runs after decoding and defaulting; the
//! mutating steps before validation, the validating ones after it
//! (<https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/>).
//!
//! A plugin is a file: its name is Kubernetes' name for it. [`Chain::new`] lists them in upstream's order.

// `serde_json::Value` answers Null for a key that is missing; clippy cannot tell it from a slice.
#![allow(clippy::indexing_slicing)]

mod certificates;
mod default_class;
mod default_toleration_seconds;
mod device_admin_access;
mod limit_ranger;
mod namespace_lifecycle;
mod node_declared_feature_validator;
mod node_restriction;
mod persistent_volume_claim_resize;
mod pod_resize_validator;
mod pod_security;
mod pod_topology_labels;
mod pods;
mod priority;
mod rbac_escalation;
mod runtime_class;
mod service_account;
mod storage_object_in_use_protection;
mod taint_nodes_by_condition;

use std::sync::Arc;

use auth::{Authorizer, Rbac, UserInfo};
use rand::Rng as _;
use serde_json::Value;

pub use auth::Refusal;
pub use priority::PriorityClasses;

/// How long the end of a generated name is.
pub const SUFFIX: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    /// As upstream's texts print it.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// One write on its way in.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub user: &'a UserInfo,
    pub operation: Operation,
    pub group: &'a str,
    pub resource: &'a str,
    /// With one, the object is the subresource's body (TokenRequest, Eviction, Binding); of `status` the whole object.
    pub subresource: &'a str,
    pub namespace: &'a str,
    /// Empty while a name is still to be generated.
    pub name: &'a str,
    /// The stored object, of updates and deletes.
    pub old: Option<&'a Value>,
}

/// Read access to what is committed; implemented by the API server over its cache.
pub trait Lookup: Send + Sync {
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Value>;

    /// All objects of a resource in a namespace, or of the whole cluster where that is empty, in the order of names.
    fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<Value>;
}

/// What plugins may ask.
#[derive(Clone)]
pub struct Context {
    pub lookup: Arc<dyn Lookup>,
    pub authorizer: Arc<dyn Authorizer>,
    pub rbac: Arc<Rbac>,
    /// Must be fed as an [`auth::Observer`].
    pub priority_classes: Arc<PriorityClasses>,
}

/// One admission plugin. Both steps let everything pass that is not theirs.
trait Plugin: Send + Sync {
    /// May change the object; runs before validation.
    fn admit(&self, _: &Context, _: &Request<'_>, _: &mut Value) -> Result<(), Refusal> {
        Ok(())
    }

    /// May only refuse; sees the object as it would be stored. `object` is `None` for deletes.
    fn validate(&self, _: &Context, _: &Request<'_>, _: Option<&Value>) -> Result<(), Refusal> {
        Ok(())
    }

    /// What the client is told although the object, as it would be stored, is let in.
    fn warnings(&self, _: &Context, _: &Request<'_>, _: &Value) -> Vec<String> {
        Vec::new()
    }
}

/// The plugins in order.
pub struct Chain {
    context: Context,
    plugins: Vec<Box<dyn Plugin>>,
}

impl Chain {
    pub fn new(context: Context) -> Self {
        let plugins: Vec<Box<dyn Plugin>> = vec![
            Box::new(namespace_lifecycle::NamespaceLifecycle),
            Box::new(limit_ranger::LimitRanger),
            Box::new(service_account::ServiceAccount),
            Box::new(node_restriction::NodeRestriction),
            Box::new(taint_nodes_by_condition::TaintNodesByCondition),
            Box::new(pod_security::PodSecurity),
            Box::new(priority::Priority),
            Box::new(default_toleration_seconds::DefaultTolerationSeconds),
            Box::new(default_class::STORAGE),
            Box::new(storage_object_in_use_protection::StorageObjectInUseProtection),
            Box::new(persistent_volume_claim_resize::PersistentVolumeClaimResize),
            Box::new(runtime_class::RuntimeClass),
            Box::new(certificates::CertificateRequestFormat),
            Box::new(certificates::CertificateApproval),
            Box::new(certificates::CertificateSigning),
            Box::new(certificates::CertificateSubjectRestriction),
            Box::new(default_class::INGRESS),
            Box::new(pod_topology_labels::PodTopologyLabels),
            Box::new(node_declared_feature_validator::NodeDeclaredFeatureValidator),
            Box::new(pod_resize_validator::PodResizeValidator),
            Box::new(rbac_escalation::RbacEscalation),
            Box::new(device_admin_access::DeviceAdminAccess),
        ];
        Chain { context, plugins }
    }

    /// The mutating pass over the body of a create or update (and of creates of subresources): after defaulting, before
    /// validation.
    pub fn admit(&self, request: &Request<'_>, object: &mut Value) -> Result<(), Refusal> {
        self.plugins.iter().try_for_each(|plugin| plugin.admit(&self.context, request, object))
    }

    /// The validating pass: after validation, last before the commit. Deletes have no object.
    pub fn validate(&self, request: &Request<'_>, object: Option<&Value>) -> Result<(), Refusal> {
        self.plugins.iter().try_for_each(|plugin| plugin.validate(&self.context, request, object))
    }

    /// Whether the namespace of a create is still as the passes wanted it.
    pub fn validate_namespace(&self, request: &Request<'_>) -> Result<(), Refusal> {
        namespace_lifecycle::NamespaceLifecycle::check(&self.context, request, None)
    }

    /// What the client is told of an object that [`Chain::validate`] lets in.
    pub fn warnings(&self, request: &Request<'_>, object: &Value) -> Vec<String> {
        self.plugins.iter().flat_map(|plugin| plugin.warnings(&self.context, request, object)).collect()
    }

    /// Whether the request would be refused only because its namespace is so young that the `default` ServiceAccount is not
    /// there yet. The API server then waits a little and asks again (upstream: ten times, 100 to 200 ms apart).
    pub fn is_too_early(&self, request: &Request<'_>, object: &Value) -> bool {
        service_account::is_too_early(&self.context, request, object)
    }
}

impl Request<'_> {
    fn is(&self, group: &str, resource: &str, subresource: &str) -> bool {
        (self.group, self.resource, self.subresource) == (group, resource, subresource)
    }

    /// `admission.NewForbidden`: names the object as well as it is known.
    fn forbidden(&self, object: Option<&Value>, why: &str) -> Refusal {
        Refusal::forbidden(self.group, self.resource, self.object_name(object), why)
    }

    fn object_name<'b>(&'b self, object: Option<&'b Value>) -> &'b str {
        let named = |pointer: &str| {
            let name = object.and_then(|object| object.pointer(pointer)).and_then(Value::as_str);
            name.filter(|name| !name.is_empty())
        };
        if !self.name.is_empty() {
            return self.name;
        }
        named("/metadata/name").or_else(|| named("/metadata/generateName")).unwrap_or("Unknown")
    }
}

/// What a generated name ends with (`storage/names.SimpleNameGenerator`): [`SUFFIX`] letters.
pub fn random_suffix() -> String {
    api::names::letters(rand::rng().random_iter().take(SUFFIX))
}

/// The text at a JSON pointer, empty where there is none: as Go's zero value.
fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The items at a JSON pointer, none where there is no list.
fn items<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    object.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod testing;
