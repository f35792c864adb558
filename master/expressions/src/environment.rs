//! What expressions of admission know (`apiserver/pkg/admission/plugin/cel`).

use crate::check::Scope;
use crate::objects::REQUEST_RESOURCE;
use crate::types::Ty;

/// What of it depends on where an expression stands.
#[derive(Debug, Clone, Default)]
pub struct Declared {
    /// Of `object` and `oldObject`; any, where it is not known.
    pub object: Option<Ty>,
    /// Of `params`, where there are any.
    pub params: Option<Ty>,
    /// Whether `Object{…}` and `JSONPatch{…}` can be made.
    pub patches: bool,
}

/// The names of an expression of a policy or a match condition.
pub fn admission(declared: Declared) -> Scope {
    let object = declared.object.unwrap_or(Ty::Dyn);
    let mut scope = Scope::default();
    scope.patches = declared.patches;
    scope.declare("object", object.clone());
    scope.declare("oldObject", object);
    scope.declare("namespaceObject", namespace());
    scope.declare("request", request());
    scope.declare("authorizer", Ty::named("kubernetes.authorization.Authorizer"));
    scope.declare(REQUEST_RESOURCE, Ty::named("kubernetes.authorization.ResourceCheck"));
    if let Some(params) = declared.params {
        scope.declare("params", params);
    }
    scope
}

/// The names of a selector of devices (`dynamic-resource-allocation/cel`).
pub fn device() -> Scope {
    let by_domain = |ty: Ty| Ty::map(Ty::map(ty));
    let fields = [
        ("driver", Ty::Text),
        ("attributes", by_domain(Ty::Dyn)),
        ("capacity", by_domain(Ty::named("kubernetes.Quantity"))),
        ("allowMultipleAllocations", Ty::Bool),
    ];
    let mut scope = Scope::default();
    scope.bindings = true;
    scope.declare("device", Ty::object("kubernetes.DRADevice", &fields));
    scope
}

fn request() -> Ty {
    let of = |last: &str, name: &str| Ty::object(name, &[("group", Ty::Text), ("version", Ty::Text), (last, Ty::Text)]);
    let kind = of("kind", "kubernetes.GroupVersionKind");
    let resource = of("resource", "kubernetes.GroupVersionResource");
    let user = [
        ("username", Ty::Text),
        ("uid", Ty::Text),
        ("groups", Ty::list(Ty::Text)),
        ("extra", Ty::map(Ty::list(Ty::Text))),
    ];
    let fields = [
        ("kind", kind.clone()),
        ("resource", resource.clone()),
        ("subResource", Ty::Text),
        ("requestKind", kind),
        ("requestResource", resource),
        ("requestSubResource", Ty::Text),
        ("name", Ty::Text),
        ("namespace", Ty::Text),
        ("operation", Ty::Text),
        ("userInfo", Ty::object("kubernetes.UserInfo", &user)),
        ("dryRun", Ty::Bool),
        ("options", Ty::Dyn),
    ];
    Ty::object("kubernetes.AdmissionRequest", &fields)
}

fn namespace() -> Ty {
    let condition = [
        ("status", Ty::Text),
        ("type", Ty::Text),
        ("lastTransitionTime", Ty::Timestamp),
        ("message", Ty::Text),
        ("reason", Ty::Text),
    ];
    let conditions = Ty::list(Ty::object("kubernetes.NamespaceCondition", &condition));
    let metadata = [
        ("name", Ty::Text),
        ("generateName", Ty::Text),
        ("namespace", Ty::Text),
        ("labels", Ty::map(Ty::Text)),
        ("annotations", Ty::map(Ty::Text)),
        ("UID", Ty::Text),
        ("creationTimestamp", Ty::Timestamp),
        ("deletionGracePeriodSeconds", Ty::Int),
        ("deletionTimestamp", Ty::Timestamp),
        ("generation", Ty::Int),
        ("resourceVersion", Ty::Text),
        ("finalizers", Ty::list(Ty::Text)),
    ];
    let fields = [
        ("metadata", Ty::object("kubernetes.NamespaceMetadata", &metadata)),
        ("spec", Ty::object("kubernetes.NamespaceSpec", &[("finalizers", Ty::list(Ty::Text))])),
        ("status", Ty::object("kubernetes.NamespaceStatus", &[("conditions", conditions), ("phase", Ty::Text)])),
    ];
    Ty::object("kubernetes.Namespace", &fields)
}
