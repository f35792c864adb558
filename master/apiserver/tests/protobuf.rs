//! Protobuf on the wire: bodies, answers, refusals and watches.
// Helpers of tests: clippy.toml excepts only the test functions themselves.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use apiserver::Body;
use bytes::Bytes;
use common::{CONFIG_MAPS, PODS, Server, admin, config_map, pod, server, with_service_account};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use schema::protobuf::{self, MEDIA_TYPE, WATCH_MEDIA_TYPE};
use serde_json::{Value, json};

async fn ask(server: &Server, method: &str, path: &str, accept: &str, body: Vec<u8>) -> Response<Body> {
    let request = Request::builder().method(method).uri(path).header(ACCEPT, accept).header(CONTENT_TYPE, MEDIA_TYPE);
    server.raw(admin(), request.body(Full::new(Bytes::from(body))).unwrap()).await
}

/// Sends protobuf and reads protobuf.
async fn call(server: &Server, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
    let body = body.map(|body| protobuf::encode(body).unwrap()).unwrap_or_default();
    let response = ask(server, method, path, &format!("{MEDIA_TYPE},application/json"), body).await;
    read(response).await
}

async fn read(response: Response<Body>) -> (u16, Value) {
    let (head, body) = response.into_parts();
    assert_eq!(head.headers[CONTENT_TYPE], MEDIA_TYPE);
    let bytes = body.collect().await.unwrap().to_bytes();
    (head.status.as_u16(), protobuf::decode(&bytes, "", "").unwrap())
}

#[tokio::test]
async fn objects_are_the_same_in_both_encodings() {
    let server = server().await;
    let (code, made) = call(&server, "POST", CONFIG_MAPS, Some(&config_map("a"))).await;
    assert_eq!((code, &made["kind"], &made["data"]["key"]), (201, &json!("ConfigMap"), &json!("value")));
    let path = format!("{CONFIG_MAPS}/a");
    let plain = server.get(&path).await.expect(200);
    assert_eq!(call(&server, "GET", &path, None).await, (200, plain.clone()));
    assert_eq!(made, plain);
    let mut changed = plain;
    changed["data"]["key"] = "other".into();
    let (code, changed) = call(&server, "PUT", &path, Some(&changed)).await;
    assert_eq!((code, &changed["data"]["key"]), (200, &json!("other")));
    let (code, list) = call(&server, "GET", CONFIG_MAPS, None).await;
    assert_eq!((code, &list["kind"], &list["items"][0]["data"]), (200, &json!("ConfigMapList"), &changed["data"]));
}

#[tokio::test]
async fn zero_values_of_go_are_not_stored() {
    let server = server().await;
    with_service_account(&server).await;
    // As Go writes it: what JSON leaves out is there and empty.
    let mut body = pod("a");
    for (name, zero) in [("nodeName", json!("")), ("hostNetwork", json!(false)), ("hostname", json!(""))] {
        body["spec"][name] = zero;
    }
    body["metadata"]["generation"] = json!(0);
    let (code, _) = call(&server, "POST", PODS, Some(&body)).await;
    assert_eq!(code, 201);
    server.call("POST", PODS, &pod("b")).await.expect(201);
    let spec = async |name: &str| server.get(&format!("{PODS}/{name}")).await.expect(200)["spec"].take();
    assert_eq!(spec("a").await, spec("b").await);
}

#[tokio::test]
async fn refusals_are_protobuf_too() {
    let server = server().await;
    let (code, status) = call(&server, "GET", &format!("{CONFIG_MAPS}/none"), None).await;
    assert_eq!((code, &status["kind"], &status["reason"]), (404, &json!("Status"), &json!("NotFound")));
    for damaged in [&b"{}"[..], b"k8s\0\x12\x7f", b"k8s\0\x12\x02\x08\x01", b"k8s\0\x0a\x03\x12\x01X"] {
        let (code, status) = read(ask(&server, "POST", CONFIG_MAPS, MEDIA_TYPE, damaged.to_vec()).await).await;
        assert_eq!((code, &status["reason"]), (400, &json!("BadRequest")), "{status}");
    }
    let secret = json!({ "kind": "Secret", "apiVersion": "v1", "metadata": { "name": "a" } });
    let (code, status) = call(&server, "POST", CONFIG_MAPS, Some(&secret)).await;
    assert_eq!(code, 400, "{status}");
    let table = format!("{MEDIA_TYPE};as=Table;v=v1;g=meta.k8s.io");
    let response = ask(&server, "GET", CONFIG_MAPS, &table, Vec::new()).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()[CONTENT_TYPE]),
        (406, &"application/json".parse().unwrap())
    );
}

#[tokio::test]
async fn options_and_other_kinds_are_read() {
    let server = server().await;
    with_service_account(&server).await;
    call(&server, "POST", CONFIG_MAPS, Some(&config_map("a"))).await;
    let path = format!("{CONFIG_MAPS}/a");
    let mut options =
        json!({ "kind": "DeleteOptions", "apiVersion": "v1", "preconditions": { "resourceVersion": "1" } });
    let (code, status) = call(&server, "DELETE", &path, Some(&options)).await;
    assert_eq!((code, &status["reason"]), (409, &json!("Conflict")));
    options["preconditions"] = json!({});
    let (code, status) = call(&server, "DELETE", &path, Some(&options)).await;
    assert_eq!((code, &status["status"], &status["details"]["name"]), (200, &json!("Success"), &json!("a")));

    let review = json!({ "kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1" });
    let (code, answer) =
        call(&server, "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", Some(&review)).await;
    assert_eq!((code, &answer["status"]["userInfo"]["username"]), (201, &json!("admin")));
    let request = json!({ "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": { "expirationSeconds": 600 } });
    let token = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let (code, answer) = call(&server, "POST", token, Some(&request)).await;
    assert!(code == 201 && answer["status"]["token"].as_str().is_some_and(|token| token.len() > 20), "{answer}");
    call(&server, "POST", PODS, Some(&pod("p"))).await;
    let binding = json!({
        "kind": "Binding", "apiVersion": "v1", "metadata": { "name": "p" }, "target": { "kind": "Node", "name": "n" },
    });
    let (code, answer) = call(&server, "POST", &format!("{PODS}/p/binding"), Some(&binding)).await;
    assert_eq!((code, &answer["status"]), (201, &json!("Success")));
}

/// The events of a watch: type, and the object in its own envelope.
struct Frames {
    body: Body,
    rest: Vec<u8>,
}

impl Frames {
    async fn open(server: &Server, query: &str, accept: &str) -> Self {
        let response = ask(server, "GET", &format!("{CONFIG_MAPS}?watch=1{query}"), accept, Vec::new()).await;
        assert_eq!(response.headers()[CONTENT_TYPE], WATCH_MEDIA_TYPE);
        Frames { body: response.into_body(), rest: Vec::new() }
    }

    async fn next(&mut self) -> (String, Value) {
        loop {
            if let Some((head, rest)) = self.rest.split_at_checked(4) {
                let length = u32::from_be_bytes(head.try_into().unwrap()) as usize;
                if rest.len() >= length {
                    let event = event(&rest[..length]);
                    self.rest.drain(..4 + length);
                    return event;
                }
            }
            let frame = self.body.frame().await.unwrap().unwrap();
            self.rest.extend_from_slice(frame.data_ref().unwrap());
        }
    }
}

/// Type is the first field, and the object the end of it all.
fn event(bytes: &[u8]) -> (String, Value) {
    let kind = &bytes[2..2 + usize::from(bytes[1])];
    let start = bytes.windows(4).position(|window| window == b"k8s\0").unwrap();
    (String::from_utf8(kind.to_vec()).unwrap(), protobuf::decode(&bytes[start..], "", "").unwrap())
}

#[tokio::test]
async fn watches_are_frames() {
    let server = server().await;
    call(&server, "POST", CONFIG_MAPS, Some(&config_map("a"))).await;
    let metadata = format!("{MEDIA_TYPE};as=PartialObjectMetadata;v=v1;g=meta.k8s.io");
    let mut whole = Frames::open(&server, "", MEDIA_TYPE).await;
    let mut again = Frames::open(&server, "", MEDIA_TYPE).await;
    let mut part = Frames::open(&server, "", &metadata).await;
    let (change, first) = whole.next().await;
    assert_eq!((change.as_str(), &first), ("ADDED", &server.get(&format!("{CONFIG_MAPS}/a")).await.expect(200)));
    let (change, object) = part.next().await;
    assert_eq!((change.as_str(), &object["kind"]), ("ADDED", &json!("PartialObjectMetadata")));
    assert_eq!(object["metadata"], first["metadata"]);
    again.next().await;
    call(&server, "POST", CONFIG_MAPS, Some(&config_map("b"))).await;
    server.delete(&format!("{CONFIG_MAPS}/b")).await.expect(200);
    for wanted in ["ADDED", "DELETED"] {
        let (change, object) = whole.next().await;
        assert_eq!((change.as_str(), &object["metadata"]["name"]), (wanted, &json!("b")));
        assert_eq!(again.next().await, (change, object));
    }
    let query = "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut initial = Frames::open(&server, query, MEDIA_TYPE).await;
    assert_eq!(initial.next().await.0, "ADDED");
    let (change, object) = initial.next().await;
    assert_eq!(change, "BOOKMARK");
    assert_eq!(object["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
}
