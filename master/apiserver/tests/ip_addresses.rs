//! The IPAddresses of Services, with the server's own loops running.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::https::certified;
use common::{Server, server};
use serde_json::{Value, json};
use tokio::net::TcpListener;

const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
const CIDRS: &str = "/apis/networking.k8s.io/v1/servicecidrs";
const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, ip: &str) -> Value {
    let spec = json!({ "ports": [{ "port": 80 }], "clusterIP": if ip.is_empty() { Value::Null } else { ip.into() } });
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name }, "spec": spec })
}

/// Starts what the server does on its own.
async fn serve(server: &Server) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (api, tls) = (server.api.clone(), Arc::new(certified("localhost").0));
    tokio::spawn(async move { api.serve(listener, tls, std::future::pending()).await });
}

/// Asks again until the answer has this code.
async fn until(server: &Server, path: &str, code: u16) -> Value {
    let asked = async {
        loop {
            let answer = server.get(path).await;
            if answer.code == code {
                return answer.json();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asked).await.unwrap_or_else(|_| panic!("{path} is never {code}"))
}

#[tokio::test]
async fn each_address_of_a_service_is_an_object() {
    let server = server().await;
    serve(&server).await;
    until(&server, &format!("{ADDRESSES}/10.96.0.1"), 200).await;
    let made = server.call("POST", SERVICES, &service("a", "")).await.expect(201);
    let ip = made["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let path = format!("{ADDRESSES}/{ip}");
    let address = server.get(&path).await.expect(200);
    assert_eq!(
        address["spec"],
        json!({ "parentRef": { "resource": "services", "namespace": "default", "name": "a" } })
    );
    let labels = json!({
        "ipaddress.kubernetes.io/ip-family": "IPv4", "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
    });
    assert_eq!(address["metadata"]["labels"], labels);
    // Who asks what would happen leaves nothing behind.
    let before = server.get(ADDRESSES).await.expect(200)["items"].as_array().unwrap().len();
    server.call("POST", &format!("{SERVICES}?dryRun=All"), &service("b", "")).await.expect(201);
    assert_eq!(server.get(ADDRESSES).await.expect(200)["items"].as_array().unwrap().len(), before);
    // Nor does what is refused.
    let refused = server.call("POST", SERVICES, &service("a", "10.96.0.77")).await;
    assert_eq!(refused.code, 409);
    until(&server, &format!("{ADDRESSES}/10.96.0.77"), 404).await;
    // Whose label was taken off is made anew: else it would stay for good.
    let mut changed = address.clone();
    changed["metadata"]["labels"] = json!({});
    server.call("PUT", &path, &changed).await.expect(200);
    while server.get(&path).await.expect(200)["metadata"]["labels"] != labels {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // An address can be had again as soon as it is free, as another object.
    let mut watch = server.watch(&format!("{ADDRESSES}?watch=1&fieldSelector=metadata.name%3D{ip}")).await;
    assert_eq!(watch.seen().await, format!("ADDED {ip}"));
    server.delete(&format!("{SERVICES}/a")).await.expect(200);
    server.call("POST", SERVICES, &service("b", &ip)).await.expect(201);
    assert_eq!(server.get(&path).await.expect(200)["spec"]["parentRef"]["name"], "b");
    assert_eq!(watch.seen().await, format!("DELETED {ip}"));
    assert_eq!(watch.seen().await, format!("ADDED {ip}"));
    server.delete(&format!("{SERVICES}/b")).await.expect(200);
    until(&server, &path, 404).await;
}

#[tokio::test]
async fn addresses_of_others_are_not_given_out() {
    let server = server().await;
    serve(&server).await;
    let parent = json!({ "group": "example.com", "resource": "gateways", "name": "g" });
    let address = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress", "metadata": { "name": "10.96.0.9" },
        "spec": { "parentRef": parent },
    });
    server.call("POST", ADDRESSES, &address).await.expect(201);
    let refused = server.call("POST", SERVICES, &service("a", "10.96.0.9")).await.expect(422);
    assert!(refused["message"].as_str().unwrap().ends_with("provided IP is already allocated"), "{refused}");
    server.delete(&format!("{ADDRESSES}/10.96.0.9")).await.expect(200);
    server.call("POST", SERVICES, &service("a", "10.96.0.9")).await.expect(201);
}

#[tokio::test]
async fn services_older_than_these_objects_get_theirs_and_keep_their_network() {
    let server = server().await;
    let path = format!("{ADDRESSES}/10.96.0.5");
    server.call("POST", SERVICES, &service("a", "10.96.0.5")).await.expect(201);
    server.delete(&path).await.expect(200);
    serve(&server).await;
    let repaired = until(&server, &path, 200).await;
    assert_eq!(repaired["spec"]["parentRef"]["name"], "a");
    // Whoever deletes it by hand finds it again.
    server.delete(&path).await.expect(200);
    let again = until(&server, &path, 200).await;
    assert_ne!(again["metadata"]["uid"], repaired["metadata"]["uid"]);
    let more = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": { "name": "more" },
        "spec": { "cidrs": ["10.97.0.0/24"] },
    });
    server.call("POST", CIDRS, &more).await.expect(201);
    let network = format!("{CIDRS}/more");
    let is_ready = async || server.get(&network).await.json()["status"]["conditions"][0]["status"] == "True";
    while !is_ready().await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.call("POST", SERVICES, &service("b", "10.97.0.7")).await.expect(201);
    server.delete(&network).await.expect(200);
    while is_ready().await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let conditions = &server.get(&network).await.expect(200)["status"]["conditions"][0];
    assert_eq!(conditions["reason"], "Terminating");
    server.delete(&format!("{SERVICES}/b")).await.expect(200);
    until(&server, &network, 404).await;
}
