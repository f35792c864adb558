//! The aggregation layer: versions of groups that another API server has, which stands behind a Service
//! (`kube-aggregator`). Requests for them are authenticated and authorized here and passed on.
//!
//! An APIService says who has a version; [`Aggregation`] follows them in the order of their commits. Whether a server can
//! be asked is its condition `Available`, which a controller keeps (`controllers::api_service`).

mod backend;
mod documents;
mod local;
mod proxy;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use auth::Observer;
use schema::Registry;
use serde_json::Value;
use tokio::sync::Notify;

use crate::https::Identity;
use crate::server::Core;

pub(crate) use backend::Backend;
pub(crate) use documents::{Documents, follow};
pub(crate) use local::registrations;
pub(crate) use proxy::answer;

const GROUP: &str = "apiregistration.k8s.io";
const RESOURCE: &str = "apiservices";

/// What an APIService says.
pub(crate) struct ApiService {
    pub group: String,
    pub version: String,
    /// `groupPriorityMinimum`, `versionPriority`
    pub priority: (i64, i64),
    /// Who has it; `None` is this server.
    pub backend: Option<Arc<Backend>>,
}

/// A group as clients are shown it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub name: String,
    /// Preferred first.
    pub versions: Vec<Version>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub name: String,
    /// Whether another server has it.
    pub remote: bool,
}

/// All APIServices.
pub(crate) struct Aggregation {
    services: RwLock<BTreeMap<String, Arc<ApiService>>>,
    /// Whether any of them has another server.
    has_remotes: AtomicBool,
    documents: RwLock<BTreeMap<String, Arc<Documents>>>,
    /// Told when a server may answer otherwise than before.
    changed: Notify,
    identity: Identity,
}

impl Aggregation {
    pub(crate) fn new(identity: Identity) -> Self {
        Aggregation {
            services: RwLock::default(),
            has_remotes: AtomicBool::new(false),
            documents: RwLock::default(),
            changed: Notify::new(),
            identity,
        }
    }

    fn named(&self, name: &str) -> Option<Arc<ApiService>> {
        self.services.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The server that has a version, where that is not this one.
    pub(crate) fn backend(&self, group: &str, version: &str) -> Option<Arc<Backend>> {
        // Mostly there is none, and every request asks.
        if !self.has_remotes.load(Ordering::Acquire) {
            return None;
        }
        let services = self.services.read().unwrap_or_else(PoisonError::into_inner);
        services.get(&name_of(group, version))?.backend.clone()
    }

    /// Whether the server of an APIService answers; otherwise why not.
    pub(crate) async fn check(&self, core: &Core, name: &str) -> Result<(), String> {
        let Some(service) = self.named(name) else { return Ok(()) };
        let Some(backend) = &service.backend else { return Ok(()) };
        backend.check(core, &root(&service.group, &service.version)).await
    }

    /// Every version that another server has, by the name of its APIService.
    pub(crate) fn remotes(&self) -> Vec<(String, Arc<ApiService>)> {
        let services = self.services.read().unwrap_or_else(PoisonError::into_inner);
        let remote = services.iter().filter(|(_, service)| service.backend.is_some());
        remote.map(|(name, service)| (name.clone(), Arc::clone(service))).collect()
    }

    /// What the server of a version says of it, as far as it is known.
    pub(crate) fn documents(&self, group: &str, version: &str) -> Option<Arc<Documents>> {
        self.documents.read().unwrap_or_else(PoisonError::into_inner).get(&name_of(group, version)).cloned()
    }

    /// All groups, of this server and of others, by their priorities (`SortedByGroupAndVersion`).
    pub(crate) fn groups(&self, registry: &Registry) -> Vec<Group> {
        let services = self.services.read().unwrap_or_else(PoisonError::into_inner);
        let priority = |group: &str, version: &str| {
            let service = services.get(&name_of(group, version));
            service.map_or_else(|| local::priority(group, version), |service| service.priority)
        };
        let mut all: BTreeMap<(String, String), bool> = BTreeMap::new();
        for (group, version) in registry.group_versions() {
            all.insert((group.to_owned(), version.to_owned()), false);
        }
        for service in services.values().filter(|service| service.backend.is_some()) {
            all.insert((service.group.clone(), service.version.clone()), true);
        }
        let mut ordered: Vec<((String, String), bool)> = all.into_iter().collect();
        // By name second: the group whose first APIService comes first.
        ordered
            .sort_by_cached_key(|((group, version), _)| (Reverse(priority(group, version).0), name_of(group, version)));
        let mut groups: Vec<Group> = Vec::new();
        for ((group, name), remote) in ordered {
            let version = Version { name, remote };
            match groups.iter_mut().find(|known| known.name == group) {
                Some(known) => known.versions.push(version),
                None => groups.push(Group { name: group, versions: vec![version] }),
            }
        }
        for group in &mut groups {
            let name = &group.name;
            group.versions.sort_by(|a, b| {
                let by_priority = priority(name, &b.name).1.cmp(&priority(name, &a.name).1);
                by_priority.then_with(|| schema::newest_first(&a.name, &b.name))
            });
        }
        groups
    }
}

/// The server that has what a path leads to which names no resource: a version's discovery and OpenAPI documents.
pub(crate) fn backend_of_path(core: &Core, path: &str) -> Option<Arc<Backend>> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        ["apis", group, version] | ["openapi", "v3", "apis", group, version] => {
            core.aggregation.backend(group, version)
        }
        _ => None,
    }
}

/// Where a version is.
fn root(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

/// The name of an APIService.
fn name_of(group: &str, version: &str) -> String {
    format!("{version}.{group}")
}

impl Observer for Aggregation {
    fn interests(&self) -> &'static [(&'static str, &'static str)] {
        &[(GROUP, RESOURCE)]
    }

    fn observe(&self, _: &str, _: &str, _: &str, name: &str, object: Option<&Value>) {
        let old = self.named(name);
        let new = object.map(|object| Arc::new(self.read(object, old.as_deref())));
        let mut services = self.services.write().unwrap_or_else(PoisonError::into_inner);
        match new {
            Some(service) => services.insert(name.to_owned(), service),
            None => services.remove(name),
        };
        self.has_remotes.store(services.values().any(|service| service.backend.is_some()), Ordering::Release);
        drop(services);
        self.changed.notify_one();
    }
}

impl Aggregation {
    fn read(&self, object: &Value, old: Option<&ApiService>) -> ApiService {
        let spec = &object["spec"];
        let text = |field: &str| spec[field].as_str().unwrap_or_default().to_owned();
        let number = |field: &str| spec[field].as_i64().unwrap_or_default();
        let before = old.and_then(|service| service.backend.as_deref());
        ApiService {
            group: text("group"),
            version: text("version"),
            priority: (number("groupPriorityMinimum"), number("versionPriority")),
            backend: Backend::of(object, before, &self.identity).map(Arc::new),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(group: &str, version: &str, priorities: (i64, i64), remote: bool) -> (String, Value) {
        let mut spec = json!({ "group": group, "version": version, "groupPriorityMinimum": priorities.0, "versionPriority": priorities.1 });
        if remote {
            spec["service"] = json!({ "namespace": "ns", "name": "s", "port": 443 });
            spec["insecureSkipTLSVerify"] = true.into();
        }
        (name_of(group, version), json!({ "spec": spec }))
    }

    #[tokio::test]
    async fn groups_of_all_servers_stand_by_priority() {
        let aggregation = Aggregation::new(None);
        let add = |(name, object): (String, Value)| aggregation.observe("", "", "", &name, Some(&object));
        add(service("late.io", "v1", (10, 10), true));
        add(service("first.io", "v1beta1", (19_000, 10), true));
        add(service("first.io", "v1", (19_000, 10), true));
        add(service("apps", "v2", (1, 100), true));
        let groups = aggregation.groups(Registry::builtin());
        let names: Vec<&str> = groups.iter().map(|group| group.name.as_str()).collect();
        assert_eq!(&names[..5], ["apiregistration.k8s.io", "first.io", "", "apps", "events.k8s.io"]);
        assert_eq!(names.last(), Some(&"late.io"));
        let versions = |index: usize| -> Vec<(&str, bool)> {
            groups[index].versions.iter().map(|version| (version.name.as_str(), version.remote)).collect()
        };
        assert_eq!(versions(1), [("v1", true), ("v1beta1", true)]);
        assert_eq!(versions(3), [("v2", true), ("v1", false)]);
        aggregation.observe("", "", "", "v1.late.io", None);
        assert!(aggregation.backend("late.io", "v1").is_none() && aggregation.backend("apps", "v2").is_some());
    }
}
