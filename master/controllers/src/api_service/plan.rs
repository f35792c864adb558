//! Which APIServices definitions make, and whether the server of one can be asked
//! (`pkg/controlplane/controller/crdregistration`, `kube-aggregator/pkg/controllers/{autoregister,status}`). Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{
    APIService, APIServiceCondition, APIServiceSpec, APIServiceStatus, ServiceReference,
};

/// Who keeps an APIService: `true` is this controller.
const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
/// `groupPriorityMinimum` and `versionPriority` of what definitions make.
const PRIORITY: i32 = 1000;
const VERSION_PRIORITY: i32 = 100;
const AVAILABLE: &str = "Available";

/// What becomes of an APIService.
#[derive(Debug, PartialEq)]
pub(super) enum Registration {
    Keep,
    Create(Box<APIService>),
    Replace(Box<APIService>),
    Delete,
}

/// What the definitions say of the APIService called `name`.
pub(super) fn registration<'a>(
    name: &str,
    found: Option<&APIService>,
    mut definitions: impl Iterator<Item = &'a CustomResourceDefinition>,
) -> Registration {
    let (version, group) = name.split_once('.').unwrap_or((name, ""));
    let is_wanted = definitions.any(|definition| {
        definition.spec.group == group && definition.spec.versions.iter().any(|v| v.served && v.name == version)
    });
    let wanted = APIServiceSpec {
        group: Some(group.to_owned()),
        version: Some(version.to_owned()),
        group_priority_minimum: PRIORITY,
        version_priority: VERSION_PRIORITY,
        ..APIServiceSpec::default()
    };
    let Some(found) = found else {
        let labels = Some([(MANAGED.to_owned(), "true".to_owned())].into());
        let metadata = ObjectMeta { name: Some(name.to_owned()), labels, ..ObjectMeta::default() };
        let new = APIService { metadata, spec: Some(wanted), status: None };
        return if is_wanted { Registration::Create(Box::new(new)) } else { Registration::Keep };
    };
    // What somebody else made, or took over by removing the label, is his.
    let is_ours = found.metadata.labels.iter().flatten().any(|(key, value)| key == MANAGED && value == "true");
    match (is_ours, is_wanted) {
        (true, false) => Registration::Delete,
        (true, true) if found.spec.as_ref() != Some(&wanted) => {
            Registration::Replace(Box::new(APIService { spec: Some(wanted), ..found.clone() }))
        }
        _ => Registration::Keep,
    }
}

/// The condition `Available` without its time.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub status: &'static str,
    pub reason: &'static str,
    pub message: String,
}

impl Verdict {
    fn no(reason: &'static str, message: String) -> Self {
        Verdict { status: "False", reason, message }
    }

    /// Of a version that the API server has itself.
    pub fn local() -> Self {
        let message = "Local APIServices are always available".to_owned();
        Verdict { status: "True", reason: "Local", message }
    }

    /// After the server was asked.
    pub fn of_check(answered: Result<(), String>) -> Self {
        match answered {
            Ok(()) => Verdict { status: "True", reason: "Passed", message: "all checks passed".to_owned() },
            Err(why) => Self::no("FailedDiscoveryCheck", why),
        }
    }
}

/// Why a server need not even be asked.
pub(super) fn unreachable<'a>(
    reference: &ServiceReference,
    service: Option<&Service>,
    mut slices: impl Iterator<Item = &'a EndpointSlice>,
) -> Option<Verdict> {
    let (namespace, name) =
        (reference.namespace.as_deref().unwrap_or_default(), reference.name.as_deref().unwrap_or_default());
    let Some(service) = service else {
        return Some(Verdict::no("ServiceNotFound", format!("service/{name} in {namespace:?} is not present")));
    };
    let spec = service.spec.as_ref();
    // Nothing is known of what others lead to.
    if spec.and_then(|spec| spec.type_.as_deref()) != Some("ClusterIP") {
        return None;
    }
    let port = reference.port.unwrap_or(443);
    let Some(port) = spec.and_then(|spec| spec.ports.iter().flatten().find(|one| one.port == port)) else {
        let message = format!("service/{name} in {namespace:?} is not listening on port {port}");
        return Some(Verdict::no("ServicePortError", message));
    };
    let port = port.name.as_deref().unwrap_or_default();
    let mut slices = slices.by_ref().peekable();
    if slices.peek().is_none() {
        let message = format!("cannot find endpointslices for service/{name} in {namespace:?}");
        return Some(Verdict::no("EndpointsNotFound", message));
    }
    if !slices.any(|slice| is_ready(slice, port)) {
        let message =
            format!("endpointslices for service/{name} in {namespace:?} have no addresses with port name {port:?}");
        return Some(Verdict::no("MissingEndpoints", message));
    }
    None
}

fn is_ready(slice: &EndpointSlice, port: &str) -> bool {
    let ready = |conditions: Option<bool>| conditions.unwrap_or(true);
    let has_ready = slice
        .endpoints
        .iter()
        .flatten()
        .any(|one| ready(one.conditions.as_ref().and_then(|conditions| conditions.ready)));
    has_ready && slice.ports.iter().flatten().any(|one| one.name.as_deref() == Some(port) && one.port.is_some())
}

/// The APIService with a verdict; `None` where it says so already. The condition's time stays while its status does.
pub(super) fn judged(service: &APIService, verdict: Verdict, now: Timestamp) -> Option<APIService> {
    let mut new = APIServiceCondition {
        type_: AVAILABLE.to_owned(),
        status: verdict.status.to_owned(),
        reason: Some(verdict.reason.to_owned()),
        message: Some(verdict.message),
        last_transition_time: Some(Time(now)),
    };
    let status = service.status.clone().unwrap_or_default();
    let mut conditions = status.conditions.unwrap_or_default();
    match conditions.iter_mut().find(|old| old.type_ == AVAILABLE) {
        Some(old) => {
            if old.status == new.status {
                new.last_transition_time.clone_from(&old.last_transition_time);
            }
            if *old == new {
                return None;
            }
            *old = new;
        }
        None => conditions.push(new),
    }
    Some(APIService { status: Some(APIServiceStatus { conditions: Some(conditions) }), ..service.clone() })
}
