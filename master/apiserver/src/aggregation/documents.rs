//! What other API servers say of themselves: their resources and their OpenAPI documents, fetched when something changes
//! and every minute (`kube-aggregator/pkg/apiserver/handler_discovery.go`, `pkg/controllers/openapi`).

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::{ApiService, Backend};
use crate::server::Core;

/// How often the documents are fetched anew.
const REFRESH: Duration = Duration::from_secs(60);
/// How soon that is tried again which failed.
const RETRY: Duration = Duration::from_secs(5);
const DISCOVERY: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Of one version.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Documents {
    /// `APIResourceDiscovery` each.
    pub resources: Vec<Value>,
    /// Whether the server said so when it was asked last.
    pub fresh: bool,
    /// Where `/openapi/v3` leads for it, if the server has it.
    pub openapi_v3: Option<String>,
    /// Its paths and what they refer to, of `/openapi/v2`.
    pub openapi_v2: Option<Value>,
}

/// Keeps the documents until the server is gone.
pub(crate) async fn follow(core: Weak<Core>) {
    loop {
        let Some(strong) = core.upgrade() else { return };
        let all_fresh = refresh(&strong).await;
        let aggregation = Arc::clone(&strong.aggregation);
        drop(strong);
        let pause = if all_fresh { REFRESH } else { RETRY };
        // Both may be dropped: a notice that nobody waits for is kept, and the time starts anew.
        let _ = tokio::time::timeout(pause, aggregation.changed.notified()).await;
    }
}

/// Asks all servers; false when one did not answer.
async fn refresh(core: &Core) -> bool {
    let remotes = core.aggregation.remotes();
    let known = core.aggregation.documents.read().unwrap_or_else(PoisonError::into_inner).clone();
    let asked = remotes.iter().map(|(name, service)| fetch(core, service, known.get(name).map(Arc::as_ref)));
    let found: Vec<Documents> = join_all(asked).await;
    let all_fresh = found.iter().all(|documents| documents.fresh);
    let new: BTreeMap<String, Arc<Documents>> =
        remotes.into_iter().map(|(name, _)| name).zip(found.into_iter().map(Arc::new)).collect();
    *core.aggregation.documents.write().unwrap_or_else(PoisonError::into_inner) = new;
    all_fresh
}

/// The documents of a version; the old ones, marked as stale, where its server does not answer.
async fn fetch(core: &Core, service: &ApiService, old: Option<&Documents>) -> Documents {
    let stale = || Documents { fresh: false, ..old.cloned().unwrap_or_default() };
    let Some(backend) = service.backend.as_deref().filter(|backend| backend.available) else { return stale() };
    let resources = match resources(core, backend, service).await {
        Ok(resources) => resources,
        Err(error) => {
            let (group, version) = (&service.group, &service.version);
            tracing::debug!(group, version, error, "the resources of another API server are not known");
            return stale();
        }
    };
    let root = format!("apis/{}/{}", service.group, service.version);
    let openapi_v3 = json_at(core, backend, "/openapi/v3").await.and_then(|index| {
        let url = index["paths"][&root]["serverRelativeURL"].as_str()?;
        Some(url.to_owned())
    });
    let openapi_v2 = json_at(core, backend, "/openapi/v2").await.map(|document| of_version(document, &root));
    Documents { resources, fresh: true, openapi_v3, openapi_v2 }
}

async fn json_at(core: &Core, backend: &Backend, path: &str) -> Option<Value> {
    let response = backend.get(core, path, "application/json").await.ok()?;
    if response.status() != StatusCode::OK { None } else { serde_json::from_slice(response.body()).ok() }
}

/// `APIResourceDiscovery` of each resource: from the one document of newer servers, or from that of the version.
async fn resources(core: &Core, backend: &Backend, service: &ApiService) -> Result<Vec<Value>, String> {
    let (group, version) = (&service.group, &service.version);
    let response = backend.get(core, "/apis", DISCOVERY).await?;
    if is_aggregated(&response) {
        return Ok(of_list(&parsed(&response)?, group, version));
    }
    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
        return Err("service unavailable".to_owned());
    }
    let path = format!("/apis/{group}/{version}");
    let response = backend.get(core, &path, "application/json").await?;
    match response.status() {
        StatusCode::OK => Ok(from_legacy(&parsed(&response)?, group, version)),
        status => Err(format!("failed to download legacy discovery for {path}: {status}")),
    }
}

fn is_aggregated(response: &Response<Bytes>) -> bool {
    let media = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let says = |parameter: &str| media.split(';').any(|part| part.trim() == parameter);
    response.status() == StatusCode::OK && says("g=apidiscovery.k8s.io") && says("v=v2")
}

fn parsed(response: &Response<Bytes>) -> Result<Value, String> {
    serde_json::from_slice(response.body()).map_err(|error| error.to_string())
}

/// The resources of one version in an `APIGroupDiscoveryList`.
fn of_list(list: &Value, group: &str, version: &str) -> Vec<Value> {
    let groups = list["items"].as_array().into_iter().flatten();
    let versions = groups
        .filter(|item| item["metadata"]["name"] == group)
        .flat_map(|item| item["versions"].as_array().into_iter().flatten());
    let found = versions.filter(|item| item["version"] == version);
    found.flat_map(|item| item["resources"].as_array().into_iter().flatten()).cloned().collect()
}

/// An `APIResourceList` in the newer form (`endpoints.ConvertGroupVersionIntoToDiscovery`).
fn from_legacy(list: &Value, group: &str, version: &str) -> Vec<Value> {
    let all: Vec<&Value> = list["resources"].as_array().into_iter().flatten().collect();
    let name = |resource: &Value| resource["name"].as_str().unwrap_or_default().to_owned();
    let kind = |resource: &Value| {
        let or =
            |field: &str, own: &str| resource[field].as_str().filter(|text| !text.is_empty()).unwrap_or(own).to_owned();
        json!({ "group": or("group", group), "version": or("version", version), "kind": resource["kind"] })
    };
    let mains = all.iter().filter(|resource| !name(resource).contains('/'));
    mains
        .map(|resource| {
            let namespaced = resource["namespaced"].as_bool().unwrap_or_default();
            let mut document = json!({
                "resource": resource["name"], "responseKind": kind(resource), "verbs": resource["verbs"],
                "scope": if namespaced { "Namespaced" } else { "Cluster" },
                "singularResource": resource["singularName"],
            });
            for field in ["shortNames", "categories"].into_iter().filter(|field| !resource[*field].is_null()) {
                document[field] = resource[field].clone();
            }
            let prefix = format!("{}/", name(resource));
            let parts: Vec<Value> = all
                .iter()
                .filter_map(|part| Some((name(part).strip_prefix(&prefix)?.to_owned(), *part)))
                .map(|(name, part)| json!({ "subresource": name, "responseKind": kind(part), "verbs": part["verbs"] }))
                .collect();
            if !parts.is_empty() {
                document["subresources"] = parts.into();
            }
            document
        })
        .collect()
}

/// The paths of one version, and the definitions that these refer to.
fn of_version(document: Value, root: &str) -> Value {
    let root = format!("/{root}/");
    let Value::Object(mut document) = document else { return Value::Null };
    let mut part = |field: &str| match document.remove(field) {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let (mut paths, all) = (part("paths"), part("definitions"));
    paths.retain(|path, _| path.starts_with(&root) || *path == root);
    let paths = Value::Object(paths);
    json!({ "paths": paths, "definitions": schema::openapi::v2_closure(&all, &paths) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_servers_are_understood() {
        let list = json!({ "resources": [
            { "name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get"],
              "shortNames": ["fl"] },
            { "name": "flunders/status", "singularName": "", "namespaced": true, "kind": "Flunder", "verbs": ["update"] },
            { "name": "fischers", "singularName": "fischer", "namespaced": false, "kind": "Fischer", "verbs": ["list"] },
        ]});
        let kind = |kind: &str| json!({ "group": "wardle.example.com", "version": "v1alpha1", "kind": kind });
        let wanted = json!([
            { "resource": "flunders", "responseKind": kind("Flunder"), "scope": "Namespaced", "singularResource": "flunder",
              "verbs": ["get"], "shortNames": ["fl"],
              "subresources": [{ "subresource": "status", "responseKind": kind("Flunder"), "verbs": ["update"] }] },
            { "resource": "fischers", "responseKind": kind("Fischer"), "scope": "Cluster", "singularResource": "fischer",
              "verbs": ["list"] },
        ]);
        assert_eq!(Value::from(from_legacy(&list, "wardle.example.com", "v1alpha1")), wanted);
        let aggregated = json!({ "items": [
            { "metadata": { "name": "other" }, "versions": [{ "version": "v1", "resources": [1] }] },
            { "metadata": { "name": "g" }, "versions": [{ "version": "v1", "resources": [2] }, { "version": "v2", "resources": [3] }] },
        ]});
        assert_eq!(of_list(&aggregated, "g", "v2"), [json!(3)]);
        assert!(of_list(&aggregated, "g", "v3").is_empty());
    }

    #[test]
    fn of_a_document_the_version_is_taken() {
        let to = |name: &str| json!({ "schema": { "$ref": format!("#/definitions/{name}") } });
        let document = json!({
            "paths": { "/apis/g/v1/": to("List"), "/apis/g/v1/things": to("Thing"), "/apis/g/v2/things": to("Other"), "/version": to("Info") },
            "definitions": { "List": {}, "Thing": { "properties": { "part": to("Part") } }, "Part": {}, "Other": {}, "Info": {} },
        });
        let part = of_version(document, "apis/g/v1");
        let names = |field: &str| part[field].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(names("paths"), ["/apis/g/v1/", "/apis/g/v1/things"]);
        assert_eq!(names("definitions"), ["List", "Part", "Thing"]);
        assert_eq!(of_version(Value::Null, "x"), Value::Null);
    }
}
