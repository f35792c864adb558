use std::sync::{Arc, Mutex};

use http::Method;

use super::*;
use crate::client::testing::answered;

fn pod(value: Value) -> Pod {
    serde_json::from_value(value).unwrap()
}

fn owned(kind: &str) -> Value {
    json!([{"apiVersion": "v1", "kind": kind, "name": "o", "uid": "u", "controller": true}])
}

#[test]
fn only_pods_with_a_controller_elsewhere_move() {
    let owned = |kind: &str| json!({"metadata": {"ownerReferences": owned(kind)}});
    assert_eq!(fate(&pod(owned("ReplicaSet"))), Fate::Moves);
    assert_eq!(fate(&pod(owned("DaemonSet"))), Fate::Stays);
    assert_eq!(fate(&pod(json!({}))), Fate::Lost);
    assert_eq!(fate(&pod(json!({"status": {"phase": "Succeeded"}}))), Fate::Stays);
    assert_eq!(fate(&pod(json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}}))), Fate::Stays);
}

/// What the API server answers to an eviction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Ends,
    /// 429.
    Held,
    /// 500.
    Fails,
    /// The pod was deleted before, and a namesake is on another node: 403 by NodeRestriction.
    Gone,
}

struct Entry {
    pod: Value,
    answer: Answer,
}

/// An API server that lets a node do what the Node authorizer lets it do: list its pods and evict them, and get none that is not its own.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    unschedulable: bool,
    pods: BTreeMap<String, Entry>,
    calls: Vec<String>,
}

impl Server {
    fn with(self, name: &str, owner: Option<&str>, answer: Answer) -> Self {
        let pod = json!({"metadata": {
            "name": name, "namespace": "n", "uid": format!("uid-{name}"), "ownerReferences": owner.map(owned),
        }});
        self.0.lock().unwrap().pods.insert(name.to_owned(), Entry { pod, answer });
        self
    }

    fn client(&self) -> kube::Client {
        let server = self.clone();
        answered(move |asked| {
            let (code, answer) = server.0.lock().unwrap().answer(&asked.method, &asked.uri, &asked.body);
            Some((code, answer.to_string()))
        })
    }

    fn evicted(&self) -> Vec<String> {
        self.0.lock().unwrap().calls.iter().filter_map(|call| call.strip_prefix("evict ").map(str::to_owned)).collect()
    }

    fn is_cordoned(&self) -> bool {
        self.0.lock().unwrap().unschedulable
    }

    fn marks(&self) -> usize {
        self.0.lock().unwrap().calls.iter().filter(|call| call.ends_with("cordon")).count()
    }
}

impl State {
    fn answer(&mut self, method: &Method, uri: &http::Uri, body: &Value) -> (u16, Value) {
        let status = |code: u16| (code, json!({"kind": "Status", "code": code, "reason": "", "message": "refused"}));
        if *method == Method::PATCH && uri.path() == "/api/v1/nodes/n1" {
            self.unschedulable = body["spec"]["unschedulable"].as_bool().unwrap();
            self.calls.push(if self.unschedulable { "cordon".into() } else { "uncordon".into() });
            return (200, json!({"metadata": {"name": "n1"}}));
        }
        if *method == Method::GET && uri.path() == "/api/v1/nodes/n1" {
            return (200, json!({"metadata": {"name": "n1"}, "spec": {"unschedulable": self.unschedulable}}));
        }
        if *method == Method::GET && uri.path() == "/api/v1/pods" {
            assert!(uri.query().unwrap().contains("fieldSelector=spec.nodeName%3Dn1"), "{uri}");
            let items: Vec<_> = self.pods.values().map(|entry| entry.pod.clone()).collect();
            // Whoever ends is gone at the next look.
            self.pods.retain(|_, entry| entry.pod["metadata"]["deletionTimestamp"].is_null());
            return (200, json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}));
        }
        let path = uri.path().strip_prefix("/api/v1/namespaces/n/pods/").unwrap();
        let Some(name) = path.strip_suffix("/eviction") else {
            return if self.pods.contains_key(path) { status(500) } else { status(403) };
        };
        self.calls.push(format!("evict {name}"));
        let Some(entry) = self.pods.get_mut(name) else { return status(404) };
        assert_eq!(body["deleteOptions"]["preconditions"]["uid"], entry.pod["metadata"]["uid"], "{body}");
        match entry.answer {
            Answer::Ends => {
                entry.pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
                (201, json!({"kind": "Status", "code": 201, "status": "Success"}))
            }
            Answer::Held => status(429),
            Answer::Fails => status(500),
            Answer::Gone => {
                self.pods.remove(name);
                status(403)
            }
        }
    }
}

fn options(force: bool) -> LeaveOptions {
    LeaveOptions { config_dir: "/none".into(), kubeconfig: None, drain_timeout: None, force }
}

#[tokio::test(start_paused = true)]
async fn with_a_nodes_own_rights_a_pod_that_moved_away_is_gone() {
    let server =
        Server::default().with("d", Some("ReplicaSet"), Answer::Ends).with("s", Some("DaemonSet"), Answer::Fails);
    drain(&server.client(), "n1", &options(false)).await.unwrap();
    assert!(server.is_cordoned());
    assert_eq!(server.evicted(), ["d"]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_namesake_is_elsewhere_is_gone() {
    let server = Server::default().with("d-0", Some("StatefulSet"), Answer::Gone);
    drain(&server.client(), "n1", &options(false)).await.unwrap();
    assert_eq!(server.evicted(), ["d-0"]);
}

#[tokio::test(start_paused = true)]
async fn what_nothing_brings_back_stops_leaving_before_anything_is_done() {
    let server = Server::default().with("bare", None, Answer::Ends).with("d", Some("ReplicaSet"), Answer::Ends);
    let error = drain(&server.client(), "n1", &options(false)).await.unwrap_err().to_string();
    assert!(error.ends_with("anew: n/bare"), "{error}");
    assert!(!server.is_cordoned() && server.evicted().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_budget_is_waited_for_and_a_failure_ends_the_drain() {
    let begun = Instant::now();
    let server = Server::default().with("d", Some("ReplicaSet"), Answer::Held);
    let error = drain(&server.client(), "n1", &options(false)).await.unwrap_err().to_string();
    assert_eq!(error, "these pods did not go within 600 s: n/d");
    assert!(begun.elapsed() >= Duration::from_secs(600));
    let server = Server::default().with("d", Some("ReplicaSet"), Answer::Fails);
    let error = drain(&server.client(), "n1", &options(false)).await.unwrap_err().to_string();
    assert_eq!(error, "evict n/d");
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_fails_takes_back_its_own_cordon_alone() {
    for (is_cordoned, marks) in [(false, 2), (true, 0)] {
        let server = Server::default().with("d", Some("ReplicaSet"), Answer::Fails);
        server.0.lock().unwrap().unschedulable = is_cordoned;
        drain(&server.client(), "n1", &options(false)).await.unwrap_err();
        assert_eq!((server.is_cordoned(), server.marks()), (is_cordoned, marks));
    }
    let server = Server::default().with("d", Some("ReplicaSet"), Answer::Fails);
    drain(&server.client(), "n1", &options(true)).await.unwrap();
    assert!(server.is_cordoned(), "it leaves all the same");
}

#[tokio::test(start_paused = true)]
async fn by_force_everything_goes_that_can_and_nothing_is_waited_for_that_cannot() {
    let begun = Instant::now();
    let server = Server::default()
        .with("a-fails", Some("ReplicaSet"), Answer::Fails)
        .with("b-held", Some("ReplicaSet"), Answer::Held)
        .with("bare", None, Answer::Ends)
        .with("d", Some("ReplicaSet"), Answer::Ends)
        .with("s", Some("DaemonSet"), Answer::Ends);
    drain(&server.client(), "n1", &options(true)).await.unwrap();
    assert_eq!(server.evicted(), ["a-fails", "b-held", "bare", "d"]);
    assert!(begun.elapsed() < Duration::from_secs(30));
}
