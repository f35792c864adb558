//! Registration and status against a small API server in memory, and the real runtime's absence.

use std::collections::BTreeMap;
use std::sync::Mutex;

use http::Method;

use super::own::OwnNode;
use super::*;
use crate::client::testing::answered;
use crate::config::{KubeletConfiguration, Layout, NodeSettings};

/// Nodes and leases by path, with a log of calls.
#[derive(Clone, Default)]
struct Api {
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    calls: Arc<Mutex<Vec<String>>>,
}

impl Api {
    fn client(&self) -> kube::Client {
        let api = self.clone();
        answered(move |asked| {
            let (code, answer) = api.answer(&asked.method, asked.uri.path(), asked.body);
            Some((code, answer.to_string()))
        })
    }

    fn answer(&self, method: &Method, path: &str, body: Value) -> (u16, Value) {
        self.calls.lock().unwrap().push(format!("{method} {path}"));
        let mut objects = self.objects.lock().unwrap();
        let missing = || (404, json!({"kind": "Status", "code": 404, "reason": "NotFound", "message": "not found"}));
        match *method {
            Method::POST => {
                let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
                if objects.contains_key(&path) {
                    return (
                        409,
                        json!({"kind": "Status", "code": 409, "reason": "AlreadyExists", "message": "exists"}),
                    );
                }
                let mut object = body;
                object["metadata"]["uid"] = json!("uid-1");
                objects.insert(path, object.clone());
                (201, object)
            }
            Method::GET => objects.get(path).map_or_else(missing, |object| (200, object.clone())),
            Method::PUT => {
                objects.insert(path.to_owned(), body.clone());
                (200, body)
            }
            _ => match objects.get_mut(path.trim_end_matches("/status")) {
                Some(object) => {
                    let kind = schema::Registry::builtin().by_kind("v1", "Node").unwrap();
                    *object = kind.strategic_merge(object, &body).unwrap();
                    (200, object.clone())
                }
                None => missing(),
            },
        }
    }

    fn count(&self, call: &str) -> usize {
        self.calls.lock().unwrap().iter().filter(|c| *c == call).count()
    }

    async fn until(&self, call: &str, count: usize) {
        while self.count(call) < count {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn config() -> Config {
    Config {
        layout: Layout::new("/c", "/", "/r"),
        kubelet: KubeletConfiguration::default(),
        node: NodeSettings {
            node_name: "n1".into(),
            server: "https://127.0.0.1:6443".parse().unwrap(),
            node_ip: Some("10.0.0.1".parse().unwrap()),
            node_labels: [("tier".to_owned(), "x".to_owned())].into(),
            data_dir: "/".into(),
            run_dir: "/r".into(),
            cni_conf_dir: Some("/n".into()),
            cni_bin_dir: Some("/b".into()),
        },
    }
}

fn begin(api: &Api) -> NodeHandle {
    begin_with(api, watch::channel(None).1)
}

fn begin_with(api: &Api, own: own::Receiver) -> NodeHandle {
    start(inputs(api, own))
}

fn inputs(api: &Api, own: own::Receiver) -> NodeInputs {
    let (recorder, _) = Recorder::channel();
    NodeInputs {
        config: Arc::new(config()),
        client: api.client(),
        runtime: cri::Client::new("unix:///nonexistent.sock").unwrap(),
        recorder,
        pressures: watch::channel(Pressures::default()).1,
        shutting_down: watch::channel(false).1,
        own,
    }
}

const NODE: &str = "/api/v1/nodes/n1";
const STATUS: &str = "PATCH /api/v1/nodes/n1/status";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1";

#[tokio::test(start_paused = true)]
async fn a_node_registers_and_reports_only_changes() {
    let api = Api::default();
    let node = begin(&api);
    api.until(STATUS, 1).await;
    assert_eq!(*node.addresses.borrow(), ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(node.uid.borrow().as_deref(), Some("uid-1"));
    let stored = api.objects.lock().unwrap()[NODE].clone();
    assert_eq!(stored["metadata"]["labels"]["tier"], "x");
    let ready = stored["status"]["conditions"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(ready["message"], "container runtime is down");
    // Nothing changes: the next report is due after five minutes.
    tokio::time::sleep(Duration::from_secs(240)).await;
    assert_eq!(api.count(STATUS), 1);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(api.count(STATUS), 2);
}

#[tokio::test(start_paused = true)]
async fn a_node_of_two_families_reports_both_addresses_again_and_again() {
    let api = Api::default();
    let mut config = config();
    config.node.node_ip = Some("10.0.0.1,fd00::1".parse().unwrap());
    let _node = start(NodeInputs { config: Arc::new(config), ..inputs(&api, watch::channel(None).1) });
    for reports in 1..=2 {
        api.until(STATUS, reports).await;
        let stored = api.objects.lock().unwrap()[NODE]["status"]["addresses"].clone();
        let addresses: Vec<&str> = stored.as_array().unwrap().iter().filter_map(|a| a["address"].as_str()).collect();
        assert_eq!(addresses, ["10.0.0.1", "fd00::1", "n1"], "{reports}");
    }
}

/// The node lifecycle controller says that nothing is known of a node that it has not heard of for a while.
#[tokio::test(start_paused = true)]
async fn a_node_that_is_doubted_reports_at_once() {
    let api = Api::default();
    let (own, seen) = watch::channel(None);
    let _node = begin_with(&api, seen);
    api.until(STATUS, 1).await;
    let then = "2026-01-01T00:00:00Z";
    let unknown =
        json!([{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown", "lastTransitionTime": then}]);
    api.objects.lock().unwrap().get_mut(NODE).unwrap()["status"]["conditions"] = unknown;
    let asked = Instant::now();
    own.send_replace(Some(Arc::new(OwnNode { doubted: Some("7".to_owned()), ..OwnNode::default() })));
    api.until(STATUS, 2).await;
    assert!(asked.elapsed() < Duration::from_secs(5));
    let stored = api.objects.lock().unwrap()[NODE].clone();
    let ready = stored["status"]["conditions"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(ready["message"], "container runtime is down");
    assert_ne!(ready["lastTransitionTime"], then);
}

/// "Advertise Extended Resources for a Node": an administrator patches the capacity, and the node follows.
#[tokio::test(start_paused = true)]
async fn what_is_advertised_for_the_node_is_allocatable() {
    let api = Api::default();
    let (own, seen) = watch::channel(None);
    let _node = begin_with(&api, seen);
    api.until(STATUS, 1).await;
    api.objects.lock().unwrap().get_mut(NODE).unwrap()["status"]["allocatable"]["example.com/gone"] = json!("1");
    own.send_replace(Some(Arc::new(OwnNode {
        extended: [("example.com/token".to_owned(), "3".parse().unwrap())].into(),
        orphaned: vec!["example.com/gone".to_owned()],
        ..OwnNode::default()
    })));
    api.until(STATUS, 2).await;
    let stored = api.objects.lock().unwrap()[NODE].clone();
    let allocatable = stored["status"]["allocatable"].as_object().unwrap();
    assert_eq!(allocatable["example.com/token"], "3");
    assert_eq!(allocatable.get("example.com/gone"), None);
    assert!(stored["status"]["capacity"].get("example.com/token").is_none(), "it is somebody else's to say");
}

/// What a Node's `OwnNode` is with labels of somebody's.
fn labelled(os: &str) -> OwnNode {
    let mut labels = status::labels(&config());
    labels.insert("kubernetes.io/os".into(), os.into());
    labels.insert("theirs".into(), "1".into());
    OwnNode { uid: Some("uid-1".into()), labels, ..OwnNode::default() }
}

#[tokio::test(start_paused = true)]
async fn labels_that_the_machine_knows_better_are_put_right() {
    let api = Api::default();
    let (own, seen) = watch::channel(Some(Arc::new(labelled("linux"))));
    let _node = begin_with(&api, seen);
    api.until(STATUS, 1).await;
    let wrong = labelled("dummyOS");
    api.objects.lock().unwrap().get_mut(NODE).unwrap()["metadata"]["labels"] = json!(wrong.labels);
    own.send_replace(Some(Arc::new(wrong)));
    api.until(STATUS, 2).await;
    let labels = api.objects.lock().unwrap()[NODE]["metadata"]["labels"].clone();
    assert_eq!(labels, json!(labelled("linux").labels), "others stay");
    own.send_replace(Some(Arc::new(labelled("linux"))));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(api.count(STATUS), 2);
}

#[tokio::test(start_paused = true)]
async fn cordoning_is_an_event_once() {
    let api = Api::default();
    let (recorder, mut events) = Recorder::channel();
    let (own, seen) = watch::channel(Some(Arc::new(labelled("linux"))));
    let _node = start(NodeInputs { recorder, ..inputs(&api, seen) });
    for (unschedulable, reason) in [(true, "NodeNotSchedulable"), (false, "NodeSchedulable")] {
        own.send_replace(Some(Arc::new(OwnNode { unschedulable, ..labelled("linux") })));
        let event = loop {
            let event = events.recv().await.unwrap();
            if event.reason.ends_with("Schedulable") {
                break event;
            }
        };
        assert_eq!((event.reason.as_str(), event.message), (reason, format!("Node n1 status is now: {reason}")));
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    while let Ok(event) = events.try_recv() {
        assert!(!event.reason.ends_with("Schedulable"), "{}", event.reason);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_goes_down_says_so_at_once() {
    let api = Api::default();
    let (going_down, shutting_down) = watch::channel(false);
    let _node = start(NodeInputs { shutting_down, ..inputs(&api, watch::channel(None).1) });
    api.until(STATUS, 1).await;
    let asked = Instant::now();
    going_down.send_replace(true);
    api.until(STATUS, 2).await;
    assert!(asked.elapsed() < Duration::from_secs(5));
    let stored = api.objects.lock().unwrap()[NODE].clone();
    let ready = stored["status"]["conditions"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&ready["status"], &ready["reason"]), (&json!("False"), &json!("KubeletNotReady")));
    assert_eq!(ready["message"], "[container runtime is down, node is shutting down]");
}

#[test]
fn systemd_is_told_why_a_node_is_not_there_yet() {
    let condition = |type_: &str, message: &str| NodeCondition {
        type_: type_.into(),
        message: Some(message.into()),
        ..NodeCondition::default()
    };
    let conditions = [condition("DiskPressure", "fine"), condition("Ready", "no network")];
    let said = |is_registered, passed| summary("n1", is_registered, &passed, &conditions);
    let refused = || {
        let status = kube::core::Status::failure("nodes \"n1\" is forbidden", "Forbidden").with_code(403);
        Err(kube::Error::Api(Box::new(status)))
    };
    assert_eq!(said(true, Ok(true)), "node n1");
    assert_eq!(said(true, Ok(false)), "node n1: not Ready: no network");
    assert!(said(false, refused()).starts_with("node n1: not registered: "), "{}", said(false, refused()));
    assert!(said(true, refused()).contains("status not sent: ") && said(true, refused()).contains("is forbidden"));
}

#[tokio::test(start_paused = true)]
async fn the_lease_is_renewed_every_ten_seconds_and_owned_by_the_node() {
    let api = Api::default();
    let _node = begin(&api);
    let renew = format!("PUT {LEASE}");
    api.until(&renew, 1).await;
    let before = api.count(&renew);
    tokio::time::sleep(Duration::from_secs(100)).await;
    let renewals = api.count(&renew) - before;
    assert!((9..=11).contains(&renewals), "{renewals}");
    let lease = api.objects.lock().unwrap()[LEASE].clone();
    assert_eq!(lease["metadata"]["ownerReferences"][0]["uid"], "uid-1");
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 40);
    assert_eq!(lease["spec"]["holderIdentity"], "n1");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_there_is_taken_over() {
    let api = Api::default();
    let theirs = json!({"metadata": {"name": "n1", "uid": "uid-0", "labels": {"mine": "1"}}});
    api.objects.lock().unwrap().insert(NODE.into(), theirs);
    let node = begin(&api);
    api.until(STATUS, 1).await;
    assert_eq!(api.count(&format!("PATCH {NODE}")), 1);
    assert_eq!(node.uid.borrow().as_deref(), Some("uid-0"));
}

/// `registerNode: false`
#[tokio::test(start_paused = true)]
async fn a_node_that_may_not_register_waits_for_who_does() {
    let api = Api::default();
    let mut config = config();
    config.kubelet.register_node = false;
    let _node = start(NodeInputs { config: Arc::new(config), ..inputs(&api, watch::channel(None).1) });
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((api.count("POST /api/v1/nodes"), api.count(STATUS)), (0, 0));
    api.objects.lock().unwrap().insert(NODE.into(), json!({"metadata": {"name": "n1", "uid": "uid-0"}}));
    api.until(STATUS, 1).await;
    api.until(&format!("PUT {LEASE}"), 1).await;
    assert_eq!((api.count("POST /api/v1/nodes"), api.count(&format!("PATCH {NODE}"))), (0, 0));
    // Nor does it when it is deleted.
    api.objects.lock().unwrap().remove(NODE);
    api.until(STATUS, 2).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(api.count("POST /api/v1/nodes"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_node_registers_again() {
    let api = Api::default();
    let _node = begin(&api);
    api.until(STATUS, 1).await;
    api.objects.lock().unwrap().remove(NODE);
    api.until("POST /api/v1/nodes", 2).await;
    api.until(STATUS, 3).await;
    assert!(api.objects.lock().unwrap().contains_key(NODE));
}
