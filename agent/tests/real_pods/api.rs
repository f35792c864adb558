//! A small API server in this process: pods with watch, status patches, creation and deletion; ConfigMaps with watch;
//! the Node. Everything else is empty.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

struct State {
    pods: BTreeMap<String, Value>,
    config_maps: BTreeMap<String, Value>,
    version: u64,
    events: Vec<String>,
    away: bool,
    /// Writes until one fails, and whether that one is made all the same.
    fault: Option<(usize, bool)>,
    /// The path on which the next request panics within the caller.
    trap: Option<&'static str>,
}

/// Pods by name, all in the namespace `test`.
#[derive(Clone)]
pub struct Api {
    state: Arc<Mutex<State>>,
    changes: broadcast::Sender<String>,
    config_map_changes: broadcast::Sender<String>,
}

impl Api {
    pub fn new() -> Self {
        let state = State {
            pods: BTreeMap::new(),
            config_maps: BTreeMap::new(),
            version: 1,
            events: Vec::new(),
            away: false,
            fault: None,
            trap: None,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            changes: broadcast::channel(1000).0,
            config_map_changes: broadcast::channel(1000).0,
        }
    }

    pub fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { api.answer(request).await }
        });
        kube::Client::new(service, "test")
    }

    /// Whether every request fails from now on.
    pub fn set_away(&self, away: bool) {
        self.state.lock().unwrap().away = away;
    }

    /// Makes one patch or deletion of a pod fail, counted from 0.
    pub fn fail(&self, write: usize, after: bool) {
        self.state.lock().unwrap().fault = Some((write, after));
    }

    /// The next request to a path that contains this panics in whoever sends it.
    pub fn trap(&self, path: &'static str) {
        self.state.lock().unwrap().trap = Some(path);
    }

    /// Whether a fault is still to come.
    pub fn is_armed(&self) -> bool {
        let state = self.state.lock().unwrap();
        state.fault.is_some() || state.trap.is_some()
    }

    /// Whether this write fails, and if so whether after it was made.
    fn fault(&self) -> Option<bool> {
        let mut state = self.state.lock().unwrap();
        let (left, after) = state.fault?;
        state.fault = left.checked_sub(1).map(|left| (left, after));
        (left == 0).then_some(after)
    }

    pub fn create(&self, name: &str, spec: Value) {
        let uid = format!("{name}-{}", std::process::id());
        let pod = json!({
            "metadata": {"name": name, "namespace": "test", "uid": uid, "creationTimestamp": jiff::Timestamp::now().to_string()},
            "spec": spec, "status": {"phase": "Pending"}
        });
        self.store("ADDED", pod);
    }

    /// Another generation of a pod.
    pub fn update(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut pod = self.pod(name).unwrap();
        change(&mut pod);
        pod["metadata"]["generation"] = json!(pod["metadata"]["generation"].as_i64().unwrap_or(1) + 1);
        self.store("MODIFIED", pod);
    }

    /// Somebody else writes over a pod's status.
    pub fn write_status(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut pod = self.pod(name).unwrap();
        change(&mut pod["status"]);
        self.store("MODIFIED", pod);
    }

    /// Creates or replaces a ConfigMap of the namespace `test`.
    pub fn config_map(&self, name: &str, data: Value, immutable: bool) {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        let meta = json!({"name": name, "namespace": "test", "resourceVersion": state.version.to_string()});
        let object =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data, "immutable": immutable});
        let kind =
            if state.config_maps.insert(name.to_owned(), object.clone()).is_some() { "MODIFIED" } else { "ADDED" };
        drop(self.config_map_changes.send(format!("{}\n", json!({"type": kind, "object": object}))));
    }

    /// Deletes a ConfigMap of the namespace `test`.
    pub fn remove_config_map(&self, name: &str) {
        let object = self.state.lock().unwrap().config_maps.remove(name).unwrap();
        drop(self.config_map_changes.send(format!("{}\n", json!({"type": "DELETED", "object": object}))));
    }

    /// How many watches of ConfigMaps there are.
    pub fn config_map_watches(&self) -> usize {
        self.config_map_changes.receiver_count()
    }

    /// As `kubectl delete --force`.
    pub fn remove(&self, name: &str) {
        let pod = self.pod(name).unwrap();
        self.store("DELETED", pod);
    }

    /// As `kubectl delete`: the node finishes it.
    pub fn delete(&self, name: &str, grace: i64) {
        let mut pod = self.pod(name).unwrap();
        pod["metadata"]["deletionTimestamp"] = json!(jiff::Timestamp::now().to_string());
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        self.store("MODIFIED", pod);
    }

    pub fn pod(&self, name: &str) -> Option<Value> {
        self.state.lock().unwrap().pods.get(name).cloned()
    }

    pub fn events(&self) -> Vec<String> {
        self.state.lock().unwrap().events.clone()
    }

    fn store(&self, kind: &str, mut pod: Value) -> Value {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        pod["metadata"]["resourceVersion"] = json!(state.version.to_string());
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        if kind == "DELETED" {
            state.pods.remove(&name)
        } else {
            state.pods.insert(name, pod.clone())
        };
        drop(self.changes.send(format!("{}\n", json!({"type": kind, "object": pod}))));
        pod
    }

    async fn answer(&self, request: Request<Body>) -> Result<Answer, Infallible> {
        if self.state.lock().unwrap().away {
            return Ok(text(
                503,
                &json!({"kind": "Status", "code": 503, "status": "Failure", "message": "away", "reason": "x"}),
            ));
        }
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let trapped = self.state.lock().unwrap().trap.take_if(|trap| path.contains(*trap)).is_some();
        assert!(!trapped, "a trap of the test's");
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let watch = query.contains("watch=true");
        let body = body.collect().await.unwrap().to_bytes();
        let name = path.split('/').nth(6).unwrap_or_default();
        Ok(match (&parts.method, path.as_str()) {
            (&Method::GET, "/api/v1/pods") if watch => self.watch(&query),
            (&Method::GET, "/api/v1/pods") => self.list(),
            (&Method::GET, "/api/v1/nodes") if !watch => text(
                200,
                &json!({"metadata": {"resourceVersion": "1"}, "items": [{"metadata": {"name": "node", "uid": "node-uid"}}]}),
            ),
            (&Method::GET, "/api/v1/namespaces/test/configmaps") => self.config_maps(&query, watch),
            (&Method::GET, _) if watch => stream(futures::stream::pending()),
            (&Method::GET, _) => text(200, &json!({"metadata": {"resourceVersion": "1"}, "items": []})),
            (&Method::POST, path) if path.ends_with("/events") => {
                let event: Value = serde_json::from_slice(&body).unwrap();
                let line = format!("{} {}", event["reason"].as_str().unwrap(), event["message"].as_str().unwrap());
                self.state.lock().unwrap().events.push(line);
                text(201, &event)
            }
            (&Method::POST, path) if path.ends_with("/pods") => self.post_pod(&body),
            (&Method::PATCH | &Method::DELETE, path) if path.contains("/pods/") => {
                let fault = self.fault();
                let write = || match self.pod(name) {
                    None => missing(),
                    Some(_) if parts.method == Method::PATCH => {
                        self.patch(name, &serde_json::from_slice(&body).unwrap())
                    }
                    Some(pod) => text(200, &self.store("DELETED", pod)),
                };
                match fault {
                    None => write(),
                    Some(after) => {
                        after.then(write);
                        text(500, &json!({"kind": "Status", "code": 500, "status": "Failure", "message": "x"}))
                    }
                }
            }
            _ => text(200, &json!({"metadata": {"name": "x"}})),
        })
    }

    fn post_pod(&self, body: &[u8]) -> Answer {
        let mut pod: Value = serde_json::from_slice(body).unwrap();
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        if self.pod(&name).is_some() {
            return text(409, &json!({"kind": "Status", "code": 409, "status": "Failure", "message": "exists"}));
        }
        let version = self.state.lock().unwrap().version;
        pod["metadata"]["uid"] = json!(format!("{name}-{version}"));
        pod["status"] = json!({"phase": "Pending"});
        text(201, &self.store("ADDED", pod))
    }

    fn list(&self) -> Answer {
        let state = self.state.lock().unwrap();
        let items: Vec<_> = state.pods.values().cloned().collect();
        text(200, &json!({"metadata": {"resourceVersion": state.version.to_string()}, "items": items}))
    }

    /// Those that `fieldSelector=metadata.name%3DNAME` selects.
    fn config_maps(&self, query: &str, watch: bool) -> Answer {
        let selector = query.split('&').find_map(|part| part.strip_prefix("fieldSelector=metadata.name%3D"));
        let name = selector.expect("one ConfigMap at a time").to_owned();
        let state = self.state.lock().unwrap();
        let found = state.config_maps.get(&name).cloned();
        if !watch {
            let items: Vec<_> = found.into_iter().collect();
            return text(200, &json!({"metadata": {"resourceVersion": state.version.to_string()}, "items": items}));
        }
        let marker = format!("\"name\":\"{name}\"");
        let changes = BroadcastStream::new(self.config_map_changes.subscribe());
        stream(changes.filter_map(move |line| {
            let line = line.ok().filter(|line| line.contains(&marker));
            async move { line }
        }))
    }

    fn watch(&self, query: &str) -> Answer {
        let from = query.split('&').find_map(|part| part.strip_prefix("resourceVersion=")).unwrap_or("0");
        let from: u64 = from.parse().unwrap();
        let state = self.state.lock().unwrap();
        let changes = BroadcastStream::new(self.changes.subscribe());
        let version = |pod: &Value| pod["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
        let missed: Vec<_> = state.pods.values().filter(|pod| version(pod) > from).cloned().collect();
        let missed = missed.into_iter().map(|pod| format!("{}\n", json!({"type": "MODIFIED", "object": pod})));
        stream(futures::stream::iter(missed).chain(changes.filter_map(|line| async move { line.ok() })))
    }

    fn patch(&self, name: &str, patch: &Value) -> Answer {
        let Some(mut pod) = self.pod(name) else { return missing() };
        for (field, value) in patch["status"].as_object().unwrap() {
            match (field.as_str(), value) {
                (field, _) if field.starts_with('$') => {}
                ("conditions", Value::Array(changes)) => merge(&mut pod["status"]["conditions"], "type", changes),
                ("podIPs" | "hostIPs", Value::Array(changes)) => merge(&mut pod["status"][field], "ip", changes),
                (field, Value::Null) => drop(pod["status"].as_object_mut().unwrap().remove(field)),
                (field, value) => pod["status"][field] = value.clone(),
            }
        }
        text(200, &self.store("MODIFIED", pod))
    }
}

fn merge(list: &mut Value, key: &str, changes: &[Value]) {
    let mut items = list.as_array().cloned().unwrap_or_default();
    for change in changes {
        items.retain(|item| item[key] != change[key]);
        if change["$patch"] == "delete" {
            continue;
        }
        let mut change = change.clone();
        change.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        items.push(change);
    }
    *list = Value::Array(items);
}

fn missing() -> Answer {
    text(
        404,
        &json!({"kind": "Status", "code": 404, "status": "Failure", "message": "not found", "reason": "NotFound"}),
    )
}

fn text(status: u16, value: &Value) -> Answer {
    Response::builder().status(status).body(Full::new(Bytes::from(value.to_string())).boxed_unsync()).unwrap()
}

fn stream(lines: impl futures::Stream<Item = String> + Send + 'static) -> Answer {
    let frames = lines.map(|line| Ok::<_, Infallible>(Frame::data(Bytes::from(line))));
    Response::new(StreamBody::new(frames).boxed_unsync())
}
