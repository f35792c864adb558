use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Value, json};

use super::*;
use crate::testing::{Cluster, on};

const CLIENT: &str = "kubernetes.io/kube-apiserver-client";

/// A CSR for `common_name` in `organization`, as `spec.request` carries it.
fn request_for(common_name: &str, organization: &str) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.distinguished_name.push(DnType::OrganizationName, organization);
    let key = KeyPair::generate().unwrap();
    STANDARD.encode(params.serialize_request(&key).unwrap().pem().unwrap())
}

fn on_csr<'a>(user: &'a UserInfo, operation: Operation, subresource: &'a str, old: Option<&'a Value>) -> Request<'a> {
    Request { group: GROUP, subresource, old, ..on(user, operation, RESOURCE, "", "c") }
}

#[test]
fn approving_needs_the_signer_or_its_domain() {
    let user = UserInfo::new("jane", &[]);
    let old = json!({ "spec": { "signerName": CLIENT } });
    let judge = |rights: &[&str]| {
        let cluster = Cluster::allowing(rights);
        cluster.chain().validate(&on_csr(&user, Operation::Update, "approval", Some(&old)), Some(&old))
    };
    assert_eq!(
        judge(&[]).unwrap_err().message,
        "certificatesigningrequests.certificates.k8s.io \"c\" is forbidden: user not permitted to approve requests with signerName \"kubernetes.io/kube-apiserver-client\""
    );
    judge(&["approve signers/kubernetes.io/kube-apiserver-client"]).unwrap();
    judge(&["approve signers/kubernetes.io/*"]).unwrap();
    judge(&["sign signers/kubernetes.io/*"]).unwrap_err();
    judge(&["approve signers/example.org/*"]).unwrap_err();
}

#[test]
fn signing_needs_the_right_only_when_it_signs() {
    let user = UserInfo::new("jane", &[]);
    let old = json!({ "spec": { "signerName": CLIENT }, "status": {} });
    let signed = json!({ "spec": { "signerName": CLIENT }, "status": { "certificate": "x" } });
    let judge = |rights: &[&str], new: &Value| {
        let cluster = Cluster::allowing(rights);
        cluster.chain().validate(&on_csr(&user, Operation::Update, "status", Some(&old)), Some(new))
    };
    judge(&[], &old).unwrap();
    let message = judge(&[], &signed).unwrap_err().message;
    assert!(
        message
            .ends_with("user not permitted to sign requests with signerName \"kubernetes.io/kube-apiserver-client\"")
    );
    judge(&["sign signers/kubernetes.io/kube-apiserver-client"], &signed).unwrap();
}

#[test]
fn nobody_asks_for_the_privileged_group() {
    let (cluster, user) = (Cluster::new(), UserInfo::new("jane", &[]));
    let judge = |signer: &str, request: &str| {
        let csr = json!({ "spec": { "signerName": signer, "request": request } });
        cluster.chain().validate(&on_csr(&user, Operation::Create, "", None), Some(&csr))
    };
    let masters = request_for("jane", "system:masters");
    assert!(
        judge(CLIENT, &masters)
            .unwrap_err()
            .message
            .ends_with("use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed")
    );
    judge("example.org/own", &masters).unwrap();
    judge(CLIENT, &request_for("jane", "developers")).unwrap();
    judge(CLIENT, "bm8=").unwrap_err();
}

#[test]
fn what_is_no_request_is_refused_whoever_is_to_sign_it() {
    let (cluster, user) = (Cluster::new(), UserInfo::new("jane", &[]));
    let judge = |request: &str| {
        let csr = json!({ "spec": { "signerName": "example.org/own", "request": request } });
        cluster.chain().validate(&on_csr(&user, Operation::Create, "", None), Some(&csr))
    };
    let good = request_for("jane", "developers");
    judge(&good).unwrap();
    let pem = String::from_utf8(STANDARD.decode(&good).unwrap()).unwrap();
    let other = STANDARD.encode(pem.replace("CERTIFICATE REQUEST", "CERTIFICATE"));
    // Another name under the same signature.
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let mut der = STANDARD.decode(base64).unwrap();
    let at = der.windows(4).position(|part| part == b"jane").unwrap();
    der[at + 1] = b'u';
    let body = STANDARD.encode(&der);
    let forged =
        STANDARD.encode(format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n"));
    for bad in ["", "bm8=", &other, &forged] {
        let refused = judge(bad).unwrap_err();
        assert_eq!(
            (refused.code, refused.details["causes"][0]["field"].as_str()),
            (422, Some("spec.request")),
            "{bad}"
        );
    }
}

#[test]
fn a_node_asks_in_its_own_name() {
    let (cluster, user) = (Cluster::new(), crate::testing::node_user("n1"));
    let judge = |name: &str| {
        let mut csr = json!({ "spec": {
            "signerName": "kubernetes.io/kubelet-serving",
            "request": request_for(name, "system:nodes"),
        } });
        cluster.chain().admit(&on_csr(&user, Operation::Create, "", None), &mut csr)
    };
    judge("system:node:n1").unwrap();
    assert!(
        judge("system:node:n2").unwrap_err().message.ends_with("can only create a node CSR with CN=system:node:n1")
    );
}
