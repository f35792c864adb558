//! A chart's life with the real helm 4 (`scripts/fetch-helm`), which applies server-side. Nothing runs the pods.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by them

mod common;

use std::process::Command;

use common::{Master, said};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/chart");
const HELM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.cache/tools/helm");

fn helm(master: &Master, words: &[&str]) -> String {
    let server = format!("https://127.0.0.1:{}", master.port);
    let mut helm = Command::new(HELM);
    helm.arg("--kubeconfig").arg(master.path("admin.conf")).arg("--kube-apiserver").arg(server);
    said(&helm.args(words).env("HOME", master.dir.path()).output().expect("run scripts/fetch-helm first"))
}

#[test]
fn a_release_is_installed_upgraded_rolled_back_and_uninstalled() {
    let mut master = Master::new();
    said(&master.init(&[]));
    master.start();
    let objects = "configmap,secret,serviceaccount,role,rolebinding,deployment,service,pdb";
    let field = |what: &str, path: &str| master.say(&["get", what, "-o", &format!("jsonpath={{{path}}}")]);

    assert!(helm(&master, &["install", "web", CHART]).contains("STATUS: deployed"));
    assert_eq!(field("cm/web", ".data"), r#"{"extra":"yes","greeting":"hello"}"#);
    assert_eq!(field("deployment/web", ".spec.replicas"), "1");
    assert_eq!(field("deployment/web", ".metadata.managedFields[0].manager"), "helm");

    helm(&master, &["upgrade", "web", CHART, "--set", "extra=false,replicas=2,greeting=hi"]);
    assert_eq!(field("cm/web", ".data"), r#"{"greeting":"hi"}"#);
    assert_eq!(field("deployment/web", ".spec.replicas"), "2");
    assert_eq!(master.say(&["get", "cm", "web-extra", "--ignore-not-found"]), "");

    helm(&master, &["rollback", "web", "1"]);
    assert_eq!(field("cm/web", ".data"), r#"{"extra":"yes","greeting":"hello"}"#);
    assert_eq!(field("deployment/web", ".spec.replicas"), "1");
    assert!(helm(&master, &["history", "web"]).contains("Rollback to 1"));

    helm(&master, &["uninstall", "web"]);
    let rest = master.say(&["get", objects, "-o", "name"]);
    assert!(!rest.contains("web"), "{rest}");
}
