use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;
use rcgen::{CertificateParams, DnType, DnValue, IsCa, KeyPair, SanType};
use serde_json::json;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::approve::{Approval, KUBELET_CLIENT, KUBELET_SERVING, Refusal, Reserved, recognise, serving_names_match};
use super::request::Request;
use super::{left, sign};
use crate::context::{ApiServerNames, SigningCa};

fn ca() -> (SigningCa, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "kubernetes");
    let certificate = params.self_signed(&key).unwrap();
    (SigningCa { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() }, certificate.der().to_vec())
}

fn request(name: &str, organization: &str, names: &[&str], addresses: &[&str]) -> Vec<u8> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.distinguished_name.push(DnType::OrganizationName, organization);
    for name in names {
        params.subject_alt_names.push(SanType::DnsName((*name).try_into().unwrap()));
    }
    for address in addresses {
        params.subject_alt_names.push(SanType::IpAddress(address.parse().unwrap()));
    }
    let key = KeyPair::generate().unwrap();
    params.serialize_request(&key).unwrap().pem().unwrap().into_bytes()
}

fn csr(signer: &str, user: &str, usages: &[&str], pem: Vec<u8>) -> CertificateSigningRequest {
    let mut csr: CertificateSigningRequest = serde_json::from_value(json!({
        "metadata": {"name": "csr", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"signerName": signer, "username": user, "usages": usages, "request": ""},
    }))
    .unwrap();
    csr.spec.request = ByteString(pem);
    csr
}

const CLIENT: [&str; 2] = ["digital signature", "client auth"];
const SERVER: [&str; 3] = ["digital signature", "key encipherment", "server auth"];

#[test]
fn only_requests_of_nodes_are_recognised() {
    let node = "system:node:n1";
    let client = || request(node, "system:nodes", &[], &[]);
    let review = |subresource: &str, approval: Approval<'_>| matches!(approval, Approval::Review { subresource: got, .. } if got == subresource);
    let check = |csr: &CertificateSigningRequest, test: &dyn Fn(Approval<'_>) -> bool| {
        let parsed = Request::parse(&csr.spec.request.0).unwrap();
        assert!(test(recognise(csr, &parsed)), "{:?} {parsed:?}", csr.spec.usages);
    };
    let none = |approval: Approval<'_>| approval == Approval::None;
    check(&csr(KUBELET_CLIENT, "system:bootstrap:abc", &CLIENT, client()), &|got| review("nodeclient", got));
    check(&csr(KUBELET_CLIENT, node, &CLIENT, client()), &|got| review("selfnodeclient", got));
    check(&csr(KUBELET_CLIENT, node, &["client auth"], client()), &none);
    check(&csr(KUBELET_CLIENT, node, &SERVER, client()), &none);
    check(&csr(KUBELET_CLIENT, node, &CLIENT, request(node, "system:masters", &[], &[])), &none);
    check(&csr(KUBELET_CLIENT, node, &CLIENT, request("admin", "system:nodes", &[], &[])), &none);
    check(&csr(KUBELET_CLIENT, node, &CLIENT, request(node, "system:nodes", &["n1"], &[])), &none);
    check(&csr("example.com/other", node, &CLIENT, client()), &none);
    let serving = || request(node, "system:nodes", &["n1"], &["10.0.0.1"]);
    check(&csr(KUBELET_SERVING, node, &SERVER, serving()), &|got| got == Approval::Serving { node: "n1" });
    check(&csr(KUBELET_SERVING, "system:node:n2", &SERVER, serving()), &none);
    check(&csr(KUBELET_SERVING, node, &SERVER, client()), &none);
}

fn node(name: &str, boot_id: &str, addresses: &[(&str, &str)]) -> Arc<Node> {
    let addresses: Vec<_> = addresses.iter().map(|(kind, address)| json!({"type": kind, "address": address})).collect();
    let node = json!({"metadata": {"name": name}, "status": {"addresses": addresses, "nodeInfo": {
        "architecture": "", "bootID": boot_id, "containerRuntimeVersion": "", "kernelVersion": "", "kubeProxyVersion": "",
        "kubeletVersion": "", "machineID": "", "operatingSystem": "", "osImage": "", "systemUUID": "",
    }}});
    Arc::new(serde_json::from_value(node).unwrap())
}

/// What is decided of a request of the first node, for these names and addresses.
fn serving(nodes: &[Arc<Node>], names: &[&str], addresses: &[&str]) -> Result<(), Refusal> {
    let api_server = ApiServerNames {
        dns_names: ["kubernetes", "kubernetes.default.svc.cluster.local", "localhost", "master-1", "k8s.example.org"]
            .map(str::to_owned)
            .into(),
        addresses: ["10.96.0.1", "10.0.0.100", "127.0.0.1"].map(|one| one.parse().unwrap()).into(),
        domain: "cluster.local".into(),
        boot_id: "boot-of-master".into(),
    };
    let services = ["10.96.0.0/12".parse().unwrap()];
    let reserved = Reserved { api_server: &api_server, services: &services, nodes };
    let parsed = Request::parse(&request("system:node:n1", "system:nodes", names, addresses)).unwrap();
    serving_names_match(&parsed, &nodes[0], &reserved)
}

#[test]
fn serving_names_must_be_the_nodes_own() {
    let own = [("InternalIP", "10.0.0.1"), ("Hostname", "host-1"), ("InternalDNS", "n1.example.org")];
    let nodes = [node("n1", "b1", &own), node("n2", "b2", &[("InternalIP", "10.0.0.2")])];
    assert_eq!(serving(&nodes, &["n1", "host-1", "n1.example.org"], &["10.0.0.1"]), Ok(()));
    for (names, addresses) in
        [(["kubernetes.default"], ["10.0.0.1"]), (["n1"], ["10.0.0.2"]), (["10.0.0.1"], ["10.0.0.1"])]
    {
        assert!(matches!(serving(&nodes, &names, &addresses), Err(Refusal::Foreign(_))), "{names:?} {addresses:?}");
    }
}

#[test]
fn a_node_that_claims_what_is_the_api_servers_or_anothers_is_refused() {
    for name in [
        "kubernetes",
        "kubernetes.default",
        "Kubernetes.Default.",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "webhook.kube-system.svc",
        "x.cluster.local",
        "*.default.svc",
        "*",
        "localhost",
        "master-1",
        "K8S.example.org",
    ] {
        let nodes = [node("n1", "b1", &[("Hostname", name), ("InternalIP", "10.0.0.1")])];
        assert!(serving(&nodes, &[name], &["10.0.0.1"]).is_err(), "{name}");
        // Nor does it help to be called so.
        assert!(serving(&[node(name, "b1", &[])], &[name], &[]).is_err(), "{name}");
    }
    let other = node("n2", "b2", &[("InternalIP", "10.0.0.2"), ("ExternalIP", "192.0.2.2")]);
    for address in ["10.96.0.1", "10.100.0.10", "10.0.0.100", "127.0.0.1", "::ffff:10.96.0.1", "10.0.0.2", "192.0.2.2"]
    {
        let nodes = [node("n1", "b1", &[("InternalIP", address), ("InternalIP", "10.0.0.1")]), other.clone()];
        assert!(serving(&nodes, &["n1"], &[address]).is_err(), "{address}");
        assert_eq!(serving(&nodes, &["n1"], &["10.0.0.1"]), Ok(()), "{address}");
    }
}

#[test]
fn a_node_on_the_api_servers_machine_has_its_name_and_address() {
    let own = [("InternalIP", "10.0.0.100"), ("Hostname", "master-1"), ("InternalIP", "10.96.0.1")];
    let home = node("master-1", "boot-of-master", &own);
    let nodes = [home.clone(), node("n2", "b2", &[("InternalIP", "10.0.0.2")])];
    assert_eq!(serving(&nodes, &["master-1"], &["10.0.0.100"]), Ok(()));
    // Services are elsewhere.
    assert_eq!(
        serving(&nodes, &["master-1"], &["10.96.0.1"]),
        Err(Refusal::ServiceAddress("10.96.0.1".parse().unwrap()))
    );
    // One that has heard of the boot id is not believed, and no name is enough.
    let liar = node("n2", "boot-of-master", &[("InternalIP", "10.0.0.100")]);
    assert!(serving(&[liar, home], &["n2"], &["10.0.0.100"]).is_err());
    assert!(serving(&[node("master-1", "b1", &own)], &["master-1"], &["10.0.0.100"]).is_err());
}

#[test]
fn a_signed_certificate_verifies_and_says_what_was_asked() {
    let (ca, ca_der) = ca();
    let day = std::time::Duration::from_secs(24 * 3600);
    let signer = sign::Signer::new(&ca, day).unwrap();
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let pem = request("system:node:n1", "system:nodes", &["n1"], &["10.0.0.1"]);
    let mut csr = csr(KUBELET_SERVING, "system:node:n1", &SERVER, pem);
    csr.spec.expiration_seconds = Some(3600);
    let signed = signer.sign(&csr, now).unwrap();
    let (_, block) = x509_parser::pem::parse_x509_pem(signed.as_bytes()).unwrap();
    let (_, certificate) = X509Certificate::from_der(&block.contents).unwrap();
    let (_, issuer) = X509Certificate::from_der(&ca_der).unwrap();
    certificate.verify_signature(Some(issuer.public_key())).unwrap();
    assert_eq!(certificate.issuer(), issuer.subject());
    assert_eq!(certificate.subject().to_string(), "CN=system:node:n1, O=system:nodes");
    assert_eq!(certificate.validity().not_before.timestamp(), now.as_second() - 300);
    assert_eq!(certificate.validity().not_after.timestamp(), now.as_second() + 3600);
    let usage = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && !usage.client_auth);
    let keys = certificate.key_usage().unwrap().unwrap().value;
    assert!(keys.digital_signature() && keys.key_encipherment() && !keys.key_cert_sign());
    assert!(!certificate.basic_constraints().unwrap().unwrap().value.ca);
    assert_eq!(certificate.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 2);
}

#[test]
fn a_repeated_organization_survives_and_wrong_usages_do_not() {
    let (ca, _) = ca();
    let signer = sign::Signer::new(&ca, std::time::Duration::from_secs(3600)).unwrap();
    let pem = include_str!("testdata/two-organizations.csr").as_bytes().to_vec();
    let good = csr("kubernetes.io/kube-apiserver-client", "me", &["client auth"], pem.clone());
    let signed = signer.sign(&good, Timestamp::now()).unwrap();
    let (_, block) = x509_parser::pem::parse_x509_pem(signed.as_bytes()).unwrap();
    let (_, certificate) = X509Certificate::from_der(&block.contents).unwrap();
    let organizations: Vec<_> = certificate.subject().iter_organization().map(|one| one.as_str().unwrap()).collect();
    assert_eq!(organizations, ["one", "two"]);
    let bad = csr("kubernetes.io/kube-apiserver-client", "me", &["client auth", "server auth"], pem);
    assert!(matches!(signer.sign(&bad, Timestamp::now()), Err(sign::Error::Refused { .. })));
}

#[test]
fn a_subject_that_others_read_as_another_is_no_request() {
    let asked = |subject: &[(DnType, DnValue)]| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), value.clone());
        }
        params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap().into_bytes()
    };
    let node = (DnType::CommonName, DnValue::from("system:node:n1"));
    let second = (DnType::CustomDnType(vec![2, 5, 4, 3]), DnValue::from("kube-apiserver-kubelet-client"));
    let two = asked(&[node.clone(), second]);
    assert!(matches!(Request::parse(&two), Err(super::request::Error::CommonNames)));
    let nodes = (DnType::OrganizationName, DnValue::from("system:nodes"));
    let masters = DnValue::TeletexString("system:masters".try_into().unwrap());
    let hidden = (DnType::CustomDnType(vec![2, 5, 4, 10]), masters);
    let unread = asked(&[node, nodes, hidden]);
    assert!(matches!(Request::parse(&unread), Err(super::request::Error::Attribute(_))));
    // What cannot be read is not signed, whoever approves it.
    let (ca, _) = ca();
    let signer = sign::Signer::new(&ca, std::time::Duration::from_secs(3600)).unwrap();
    for pem in [two, unread] {
        let csr = csr("kubernetes.io/kube-apiserver-client", "me", &["client auth"], pem);
        assert!(matches!(signer.sign(&csr, Timestamp::now()), Err(sign::Error::Request(_))));
    }
}

#[test]
fn requests_that_are_not_pkcs10_or_not_theirs_are_refused() {
    assert!(Request::parse(b"hello").is_err());
    assert!(Request::parse(b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n").is_err());
    let mut pem = request("a", "b", &[], &[]);
    let (_, mut block) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
    let last = block.contents.len() - 1;
    block.contents[last] ^= 1;
    pem = to_pem(&block.contents);
    assert!(matches!(Request::parse(&pem), Err(super::request::Error::Signature | super::request::Error::Der(_))));
}

fn to_pem(der: &[u8]) -> Vec<u8> {
    use x509_cert::der::pem::{LineEnding, encode_string};
    encode_string("CERTIFICATE REQUEST", LineEnding::LF, der).unwrap().into_bytes()
}

#[test]
fn requests_are_kept_for_a_day_and_an_hour_after_the_decision() {
    let hour =
        |hours: i64| "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + jiff::SignedDuration::from_hours(hours);
    let mut csr = csr(KUBELET_CLIENT, "u", &CLIENT, Vec::new());
    assert_eq!(left(&csr, hour(23)).unwrap().as_secs(), 3600);
    assert!(left(&csr, hour(24)).unwrap().is_zero());
    let said = |kind: &str| json!({"conditions": [{"type": kind, "status": "True", "lastUpdateTime": "2026-01-01T02:00:00Z"}]});
    for kind in ["Denied", "Failed"] {
        csr.status = serde_json::from_value(said(kind)).unwrap();
        assert_eq!(left(&csr, hour(2)).unwrap().as_secs(), 3600);
        assert!(left(&csr, hour(3)).unwrap().is_zero());
    }
    csr.status = serde_json::from_value(said("Other")).unwrap();
    assert_eq!(left(&csr, hour(100)), None);
}

#[test]
fn approved_requests_are_kept_for_a_day_without_certificate_and_never_longer_than_it() {
    let approved: Timestamp = "2026-01-01T02:00:00Z".parse().unwrap();
    let later = |minutes: i64| approved + jiff::SignedDuration::from_mins(minutes);
    let conditions =
        json!({"conditions": [{"type": "Approved", "status": "True", "lastUpdateTime": "2026-01-01T02:00:00Z"}]});
    let pem = request("system:node:n1", "system:nodes", &["n1"], &["10.0.0.1"]);
    let mut csr = csr(KUBELET_SERVING, "system:node:n1", &SERVER, pem);
    csr.status = serde_json::from_value(conditions).unwrap();
    assert_eq!(left(&csr, later(23 * 60)).unwrap().as_secs(), 3600);
    let signer = sign::Signer::new(&ca().0, std::time::Duration::from_secs(24 * 3600)).unwrap();
    for (lifetime, minutes) in [(24 * 3600, 60), (1800, 30)] {
        csr.spec.expiration_seconds = Some(lifetime);
        let certificate = signer.sign(&csr, approved).unwrap().into_bytes();
        csr.status.as_mut().unwrap().certificate = Some(ByteString(certificate));
        assert_eq!(left(&csr, later(minutes - 1)).unwrap().as_secs(), 60);
        assert!(left(&csr, later(minutes)).unwrap().is_zero());
        csr.status.as_mut().unwrap().certificate = None;
    }
}
