//! APIServices against the real kubectl: which there are, and what is said of one whose server is not there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by them

mod common;

use std::process::Command;

use common::{Master, said};

/// A custom kind: its APIService makes itself.
const DEFINITION: &str = "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: foos.example.com}, \
                          spec: {group: example.com, scope: Namespaced, names: {plural: foos, kind: Foo}, versions: [{name: v1, \
                          served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]}}";

const NOBODY: &str = r#"
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.metrics.k8s.io}
spec:
  group: metrics.k8s.io
  version: v1beta1
  groupPriorityMinimum: 100
  versionPriority: 100
  insecureSkipTLSVerify: true
  service: {namespace: default, name: nobody}
"#;

/// What kubectl shows of an APIService.
fn shown(master: &Master, name: &str) -> String {
    let row = master.say(&["get", "apiservice", name, "--no-headers"]);
    row.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn what_is_served_here_is_local_and_who_is_missing_is_named() {
    let master = Master::started();
    assert!(shown(&master, "v1.apps").starts_with("v1.apps Local True"));
    said(&master.kubectl_reading(DEFINITION, &["apply", "-f", "-"]));
    master.wait(&["get", "apiservice", "v1.example.com", "-o", "jsonpath={.status.conditions[0].reason}"], "Local");
    said(&master.kubectl_reading(NOBODY, &["apply", "-f", "-"]));
    let name = "v1beta1.metrics.k8s.io";
    let message = ["get", "apiservice", name, "-o", "jsonpath={.status.conditions[0].message}"];
    master.wait(&message, "service/nobody in \"default\" is not present");
    assert!(shown(&master, name).starts_with("v1beta1.metrics.k8s.io default/nobody False (ServiceNotFound)"));
    let refused = master.kubectl(&["get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("the server is currently unable to handle the request"));
    // Everything else is found nevertheless.
    master.say(&["get", "deployments,services"]);
    // What may still be in a namespace is not known while its server does not answer.
    master.say(&["create", "namespace", "going"]);
    master.say(&["delete", "namespace", "going", "--wait=false"]);
    let condition = "jsonpath={.status.conditions[?(@.type==\"NamespaceDeletionDiscoveryFailure\")].status}";
    master.wait(&["get", "namespace", "going", "-o", condition], "True");
    master.say(&["delete", "apiservice", name]);
    master.say(&["wait", "--for=delete", "namespace/going", "--timeout=60s"]);
    master.say(&["delete", "crd", "foos.example.com", "--timeout=60s"]);
    master.say(&["wait", "--for=delete", "apiservice/v1.example.com", "--timeout=60s"]);
}

/// Who somebody with this certificate and these headers is, as the server says.
fn user(master: &Master, certificate: &str, headers: &[&str]) -> String {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--cacert"]).arg(master.path("pki/ca.crt"));
    curl.arg("--cert").arg(master.path(&format!("pki/{certificate}.crt")));
    curl.arg("--key").arg(master.path(&format!("pki/{certificate}.key")));
    for header in headers.iter().chain(&["Content-Type: application/json"]) {
        curl.args(["-H", header]);
    }
    let review = r#"{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#;
    curl.args(["-d", review]);
    curl.arg(format!("https://127.0.0.1:{}/apis/authentication.k8s.io/v1/selfsubjectreviews", master.port));
    let said: serde_json::Value = serde_json::from_str(&said(&curl.output().unwrap())).unwrap();
    let user = &said["status"]["userInfo"];
    if user.is_null() { said["reason"].to_string() } else { format!("{} {}", user["username"], user["groups"]) }
}

#[test]
fn front_proxies_say_whom_they_speak_for() {
    let master = Master::started();
    let jane = ["X-Remote-User: jane", "X-Remote-Group: staff"];
    let wanted = "\"jane\" [\"staff\",\"system:authenticated\"]";
    assert_eq!(user(&master, "front-proxy-client", &jane), wanted);
    // It is nobody itself, and nobody else is believed.
    assert_eq!(user(&master, "front-proxy-client", &[]), "\"Unauthorized\"");
    let other = user(&master, "apiserver-kubelet-client", &jane);
    assert!(other.starts_with("\"kube-apiserver-kubelet-client\""), "{other}");
}

#[test]
fn requests_are_classified() {
    let master = Master::started();
    let uid = |sort: &str, name: &str| master.say(&["get", sort, name, "-o", "jsonpath={.metadata.uid}"]);
    let (schema, level) = (uid("flowschema", "global-default"), uid("prioritylevelconfiguration", "global-default"));
    let asked = master.kubectl(&["get", "namespace", "default", "-v=8"]);
    let headers = String::from_utf8_lossy(&asked.stderr).to_lowercase();
    for header in
        [format!("x-kubernetes-pf-flowschema-uid: {schema}"), format!("x-kubernetes-pf-prioritylevel-uid: {level}")]
    {
        assert!(headers.contains(&header), "{header}: {headers}");
    }
    let dangling = ["get", "flowschema", "exempt", "-o", "jsonpath={.status.conditions[?(@.type=='Dangling')].status}"];
    master.wait(&dangling, "False");
}
