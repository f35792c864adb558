//! What the server can do: versions, groups and resources, one document each or all in one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::ACCEPT;
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use schema::{Kind, Registry, Storage, Subresource};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::aggregation::{Group, Version};
use crate::body::{self, Body};
use crate::server::Core;

const AGGREGATED: HeaderValue =
    HeaderValue::from_static("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");

/// The release whose API this is; clients compare the first part.
pub const GIT_VERSION: &str = "v1.36.3+keelson";

/// How many bytes of a digest are shown.
const HASHED: usize = 8;

/// Answers paths of discovery; `None` for others.
pub(crate) fn answer(core: &Core, head: &Parts) -> Option<Response<Body>> {
    let path = head.uri.path().trim_end_matches('/');
    let registry = core.kinds.registry();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let document = match parts.as_slice() {
        ["api"] | ["apis"] if wants_aggregated(head) => {
            let document = aggregated(core, &registry, path == "/api");
            return Some(body::respond(StatusCode::OK, AGGREGATED, document.to_string()));
        }
        ["api"] => versions(core),
        ["apis"] => groups(core, &registry),
        ["apis", group] => group_named(core, &registry, group)?,
        ["api", "v1"] => resources(&registry, "", "v1")?,
        ["apis", group, version] if !group.is_empty() => resources(&registry, group, version)?,
        ["version"] => version(),
        ["openid", "v1", "jwks"] => core.authenticator.tokens().jwks(),
        [".well-known", "openid-configuration"] => core.authenticator.tokens().openid_configuration(),
        [""] => index(core, &registry),
        _ => return None,
    };
    Some(body::json(StatusCode::OK, &document))
}

fn wants_aggregated(head: &Parts) -> bool {
    let accept = head.headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accept.split(',').any(|clause| {
        let mut parts = clause.split(';').map(str::trim);
        parts.next() == Some("application/json")
            && clause.contains("g=apidiscovery.k8s.io")
            && clause.contains("as=APIGroupDiscoveryList")
            && clause.split(';').any(|p| p.trim() == "v=v2")
    })
}

fn version() -> Value {
    json!({
        "major": "1", "minor": "36", "gitVersion": GIT_VERSION, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
        "platform": format!("linux/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }),
        "emulationMajor": "1", "emulationMinor": "36", "minCompatibilityMajor": "1", "minCompatibilityMinor": "35",
    })
}

fn index(core: &Core, registry: &Registry) -> Value {
    let mut paths = vec!["/api".to_owned(), "/api/v1".into(), "/apis".into()];
    for group in core.aggregation.groups(registry).iter().filter(|group| !group.name.is_empty()) {
        paths.push(format!("/apis/{}", group.name));
        paths.extend(group.versions.iter().map(|version| format!("/apis/{}/{}", group.name, version.name)));
    }
    paths.extend(
        ["/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"].map(Into::into),
    );
    json!({ "paths": paths })
}

fn versions(core: &Core) -> Value {
    json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [
            { "clientCIDR": "0.0.0.0/0", "serverAddress": core.network.advertise.to_string() },
        ],
    })
}

fn groups(core: &Core, registry: &Registry) -> Value {
    let groups = core.aggregation.groups(registry);
    let groups: Vec<Value> = groups.iter().filter(|group| !group.name.is_empty()).map(group_document).collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

fn group_document(group: &Group) -> Value {
    let version =
        |Version { name, .. }: &Version| json!({ "groupVersion": format!("{}/{name}", group.name), "version": name });
    let versions: Vec<Value> = group.versions.iter().map(version).collect();
    json!({ "name": group.name, "preferredVersion": versions.first(), "versions": versions })
}

fn group_named(core: &Core, registry: &Registry, name: &str) -> Option<Value> {
    let groups = core.aggregation.groups(registry);
    let mut document = group_document(groups.iter().find(|group| group.name == name && !name.is_empty())?);
    document["kind"] = "APIGroup".into();
    document["apiVersion"] = "v1".into();
    Some(document)
}

fn resources(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let mut list = Vec::new();
    for kind in registry.resources(group, version) {
        list.push(resource(registry, kind));
        list.extend(kind.subresources.iter().map(|subresource| subresource_document(kind, subresource)));
    }
    if list.is_empty() {
        return None;
    }
    list.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Some(json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list }))
}

/// Tells clients when objects are stored in another version than before (`discovery.StorageVersionHash`).
fn storage_version_hash(registry: &Registry, kind: &Kind) -> Option<String> {
    let Storage { group, version, plural } = kind.storage;
    let is_stored = kind.verbs.contains(&"get") && registry.kind(group, version, plural).is_some();
    let digest = Sha256::digest(format!("{group}/{version}/{}", kind.kind));
    is_stored.then(|| STANDARD.encode(digest.iter().take(HASHED).copied().collect::<Vec<u8>>()))
}

fn resource(registry: &Registry, kind: &Kind) -> Value {
    let mut document = json!({
        "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced, "kind": kind.kind,
        "verbs": kind.verbs,
    });
    if !kind.short_names.is_empty() {
        document["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        document["categories"] = json!(kind.categories);
    }
    if let Some(hash) = storage_version_hash(registry, kind) {
        document["storageVersionHash"] = hash.into();
    }
    document
}

fn subresource_document(kind: &Kind, subresource: &Subresource) -> Value {
    let mut document = json!({
        "name": format!("{}/{}", kind.plural, subresource.name), "singularName": "",
        "namespaced": kind.namespaced, "kind": subresource.kind, "verbs": subresource.verbs,
    });
    if (subresource.group, subresource.version) != (kind.group, kind.version) {
        document["group"] = subresource.group.into();
        document["version"] = subresource.version.into();
    }
    document
}

/// `apidiscovery.k8s.io/v2` (KEP-3352): everything in one answer.
fn aggregated(server: &Core, registry: &Registry, core: bool) -> Value {
    let groups = server.aggregation.groups(registry);
    let items: Vec<Value> = groups
        .iter()
        .filter(|group| group.name.is_empty() == core)
        .map(|group| {
            let versions: Vec<Value> = group
                .versions
                .iter()
                .map(|version| aggregated_version(server, registry, &group.name, version))
                .collect();
            let metadata = if core {
                json!({ "creationTimestamp": null })
            } else {
                json!({ "name": group.name, "creationTimestamp": null })
            };
            json!({ "metadata": metadata, "versions": versions })
        })
        .collect();
    json!({ "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items })
}

/// Of a version of another server what it said last; it is stale when it does not answer now.
fn aggregated_version(core: &Core, registry: &Registry, group: &str, version: &Version) -> Value {
    let name = &version.name;
    if version.remote {
        let known = core.aggregation.documents(group, name);
        let resources = known.as_ref().map(|documents| documents.resources.as_slice()).unwrap_or_default();
        let freshness = if known.as_ref().is_some_and(|documents| documents.fresh) { "Current" } else { "Stale" };
        return json!({ "version": name, "resources": resources, "freshness": freshness });
    }
    let resources: Vec<Value> = registry.resources(group, name).map(aggregated_resource).collect();
    json!({ "version": name, "resources": resources, "freshness": "Current" })
}

fn aggregated_resource(kind: &Kind) -> Value {
    let response_kind =
        |group: &str, version: &str, kind: &str| json!({ "group": group, "version": version, "kind": kind });
    let subresources: Vec<Value> = kind
        .subresources
        .iter()
        .map(|s| {
            json!({
                "subresource": s.name, "responseKind": response_kind(s.group, s.version, s.kind), "verbs": s.verbs,
            })
        })
        .collect();
    let mut document = json!({
        "resource": kind.plural,
        "responseKind": response_kind(kind.group, kind.version, kind.kind),
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": kind.verbs,
    });
    if !kind.short_names.is_empty() {
        document["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        document["categories"] = json!(kind.categories);
    }
    if !subresources.is_empty() {
        document["subresources"] = subresources.into();
    }
    document
}
