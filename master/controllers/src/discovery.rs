//! Which kinds the API server has.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::Request;
use http::header::ACCEPT;
use kube::core::ApiResource;
use kube::{Client, Error, discovery};
use serde_json::Value;

/// `apidiscovery.k8s.io/v2` (KEP-3352).
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// A kind whose objects can be listed and deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownKind {
    pub(crate) resource: ApiResource,
    pub(crate) namespaced: bool,
    pub(crate) watchable: bool,
}

/// What is known of the kinds that there are.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) kinds: Vec<KnownKind>,
    /// Versions of groups whose server does not answer: kinds of theirs may be missing.
    pub(crate) stale: Vec<String>,
}

/// The group of an `apiVersion`; that of the core is empty.
pub(crate) fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// Asks for all kinds that can be listed and deleted, each in its preferred version.
pub(crate) async fn kinds(client: &Client) -> Result<Known, Error> {
    let mut known = Known::default();
    for path in ["/api", "/apis"] {
        let request = Request::get(path).header(ACCEPT, AGGREGATED).body(Vec::new()).map_err(Error::HttpError)?;
        add(&client.request::<Value>(request).await?, &mut known);
    }
    Ok(known)
}

/// The kinds of an `APIGroupDiscoveryList`.
fn add(list: &Value, known: &mut Known) {
    for group in items(list, "items") {
        let name = group.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        let mut seen: Vec<&str> = Vec::new();
        for version in items(group, "versions") {
            let of = text(version, "version");
            let api_version = if name.is_empty() { of.to_owned() } else { format!("{name}/{of}") };
            if text(version, "freshness") == "Stale" {
                known.stale.push(api_version.clone());
            }
            for resource in items(version, "resources") {
                let plural = text(resource, "resource");
                // The preferred version that has it comes first.
                if !seen.contains(&plural) {
                    seen.push(plural);
                    known.kinds.extend(kind(resource, name, of, &api_version));
                }
            }
        }
    }
}

fn kind(resource: &Value, group: &str, version: &str, api_version: &str) -> Option<KnownKind> {
    let can = |verb: &str| items(resource, "verbs").any(|known| known == verb);
    let kind = resource.pointer("/responseKind/kind").and_then(Value::as_str)?;
    (can("list") && can("delete")).then(|| KnownKind {
        resource: ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            plural: text(resource, "resource").to_owned(),
        },
        namespaced: text(resource, "scope") == "Namespaced",
        watchable: can("watch"),
    })
}

fn items<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value.get(field).and_then(Value::as_array).into_iter().flatten()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The resources of kinds, each asked for once.
pub(crate) struct Resources {
    client: Client,
    /// By group and kind.
    known: Mutex<HashMap<(String, String), ApiResource>>,
}

impl Resources {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, known: Mutex::default() }
    }

    /// The resource of a kind, in whatever version of its group it is served; none when there is none.
    pub(crate) async fn find(&self, group: &str, kind: &str) -> Result<Option<ApiResource>, Error> {
        let key = (group.to_owned(), kind.to_owned());
        if let Some(known) = self.known().get(&key) {
            return Ok(Some(known.clone()));
        }
        let found = match discovery::group(&self.client, group).await {
            Ok(found) => found,
            Err(Error::Discovery(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let resource = found.recommended_kind(kind).map(|(resource, _)| resource).or_else(|| {
            let versions = found.versions().map(|version| found.versioned_resources(version));
            versions.flatten().map(|(resource, _)| resource).find(|resource| resource.kind == kind)
        });
        if let Some(resource) = &resource {
            self.known().insert(key, resource.clone());
        }
        Ok(resource)
    }

    /// The kind may be another resource's by now.
    pub(crate) fn forget(&self, group: &str, kind: &str) {
        self.known().remove(&(group.to_owned(), kind.to_owned()));
    }

    /// Whether its objects can be scaled.
    pub(crate) async fn has_scale(&self, resource: &ApiResource) -> Result<bool, Error> {
        let list = match resource.group.as_str() {
            "" => self.client.list_core_api_resources(&resource.version).await?,
            _ => self.client.list_api_group_resources(&resource.api_version).await?,
        };
        let name = format!("{}/scale", resource.plural);
        Ok(list.resources.iter().any(|one| one.name == name && one.kind == "Scale"))
    }

    fn known(&self) -> MutexGuard<'_, HashMap<(String, String), ApiResource>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_resource_is_known_once_and_what_is_stale_is_named() {
        let resource = |name: &str, verbs: &[&str]| json!({ "resource": name, "responseKind": { "kind": "K" }, "scope": "Namespaced", "verbs": verbs });
        let list = json!({ "items": [
            { "metadata": { "name": "g" }, "versions": [
                { "version": "v2", "freshness": "Current", "resources": [resource("as", &["list", "delete", "watch"]), resource("reviews", &["create"])] },
                { "version": "v1", "freshness": "Current", "resources": [resource("as", &["list", "delete"]), resource("bs", &["list", "delete"])] },
            ]},
            { "metadata": { "name": "gone" }, "versions": [{ "version": "v1", "freshness": "Stale", "resources": [] }] },
        ]});
        let mut known = Known::default();
        add(&list, &mut known);
        let shown: Vec<String> = known
            .kinds
            .iter()
            .map(|k| format!("{} {} {}", k.resource.api_version, k.resource.plural, k.watchable))
            .collect();
        assert_eq!(shown, ["g/v2 as true", "g/v1 bs false"]);
        assert_eq!(known.stale, ["gone/v1"]);
    }
}
