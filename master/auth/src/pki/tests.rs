use rcgen::string::{BmpString, TeletexString};
use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};

use super::*;

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn leaf() -> Leaf<'static> {
    Leaf {
        common_name: "kube-apiserver",
        organization: Some("group"),
        dns_names: vec!["kubernetes.default.svc".into()],
        addresses: vec!["10.96.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        usage: Usage::Server,
    }
}

#[test]
fn a_ca_signs_what_verifies() {
    let (ca, pair) = Ca::generate(CA_NAME, now()).unwrap();
    let loaded = Ca::load(&pair.certificate_pem, &pair.key_pem).unwrap();
    for signer in [&ca, &loaded] {
        let leaf = signer.issue(&leaf(), now()).unwrap();
        let der = CertificateDer::from_pem_slice(leaf.certificate_pem.as_bytes()).unwrap();
        let (_, parsed) = X509Certificate::from_der(&der).unwrap();
        let ca_der = CertificateDer::from_pem_slice(pair.certificate_pem.as_bytes()).unwrap();
        let (_, ca_parsed) = X509Certificate::from_der(&ca_der).unwrap();
        parsed.verify_signature(Some(ca_parsed.public_key())).unwrap();
        assert_eq!(parsed.issuer(), ca_parsed.subject());
        assert!(ca_parsed.is_ca() && !parsed.is_ca());
        assert_eq!(parsed.subject().to_string(), "O=group, CN=kube-apiserver");
    }
}

#[test]
fn lifetimes_are_a_year_and_ten() {
    let (ca, pair) = Ca::generate(CA_NAME, now()).unwrap();
    let year = 365 * DAY_SECONDS;
    let until = |pem: &str| validity(pem).unwrap().not_after.as_second() - now().as_second();
    assert_eq!(until(&pair.certificate_pem), 10 * year);
    let leaf = ca.issue(&leaf(), now()).unwrap();
    assert_eq!(until(&leaf.certificate_pem), year);
    let names = validity(&leaf.certificate_pem).unwrap();
    assert_eq!(names.dns_names, ["kubernetes.default.svc"]);
    assert_eq!(names.addresses, ["10.96.0.1", "fd00::1"].map(|a| a.parse::<IpAddr>().unwrap()));
}

#[test]
fn the_hash_is_of_the_key_not_of_the_certificate() {
    let (_, pair) = Ca::generate(CA_NAME, now()).unwrap();
    let hash = public_key_hash(&pair.certificate_pem).unwrap();
    assert_eq!(hash.len(), "sha256:".len() + 64);
    let key = KeyPair::from_pem(pair.key_pem.reveal()).unwrap();
    let renewed = CertificateParams::default().self_signed(&key).unwrap().pem();
    assert_eq!(public_key_hash(&renewed).unwrap(), hash);
    public_key_hash("nothing").unwrap_err();
}

fn request(subject: impl IntoIterator<Item = (DnType, DnValue)>) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for (kind, value) in subject {
        params.distinguished_name.push(kind, value);
    }
    let key = KeyPair::generate().unwrap();
    STANDARD.encode(params.serialize_request(&key).unwrap().pem().unwrap())
}

#[test]
fn a_request_that_can_be_read_as_two_names_is_refused() {
    let node = || (DnType::CommonName, DnValue::from("system:node:n1"));
    let another = (DnType::CustomDnType(vec![2, 5, 4, 3]), DnValue::from("kube-apiserver"));
    assert!(csr_subject(&request([node(), another])).is_err());
    let masters = TeletexString::try_from("system:masters").unwrap();
    assert!(csr_subject(&request([node(), (DnType::OrganizationName, DnValue::TeletexString(masters))])).is_err());
    let masters = BmpString::try_from("system:masters").unwrap();
    assert!(csr_subject(&request([node(), (DnType::OrganizationName, DnValue::BmpString(masters))])).is_err());
    // Another reader could take another block.
    let pem = STANDARD.decode(request([node()])).unwrap();
    let newer = String::from_utf8(pem.clone()).unwrap().replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST");
    assert!(csr_subject(&STANDARD.encode([newer.into_bytes(), pem].concat())).is_err());
}

#[test]
fn a_request_names_its_subject() {
    let name = DnValue::Utf8String("system:node:n1".into());
    let subject =
        csr_subject(&request([(DnType::CommonName, name), (DnType::OrganizationName, "system:nodes".into())])).unwrap();
    assert_eq!(subject.common_name.as_deref(), Some("system:node:n1"));
    assert_eq!(subject.organizations, ["system:nodes"]);
    for wrong in ["", "?", "bm8=", &STANDARD.encode("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n")] {
        csr_subject(wrong).unwrap_err();
    }
}

#[test]
fn no_key_is_printed() {
    let (_, pair) = Ca::generate(CA_NAME, now()).unwrap();
    assert!(!format!("{pair:?}").contains("PRIVATE KEY"));
}

#[test]
fn who_trusts_one_ca_verifies_what_another_signs_through_its_word() {
    let (old, old_pair) = Ca::generate(CA_NAME, now()).unwrap();
    let (new, new_pair) = Ca::generate("kubernetes-2", now()).unwrap();
    let bridge = old.vouch_for(&new_pair, now()).unwrap();
    let leaf = new.issue(&leaf(), now()).unwrap().certificate_pem;
    let issued = |one: &str, by: &str| is_issued_by(one, by).unwrap();
    assert!(issued(&leaf, &bridge) && issued(&bridge, &old_pair.certificate_pem));
    assert!(issued(&leaf, &new_pair.certificate_pem) && !issued(&leaf, &old_pair.certificate_pem));
    let der = CertificateDer::from_pem_slice(bridge.as_bytes()).unwrap();
    let (_, parsed) = X509Certificate::from_der(&der).unwrap();
    assert_eq!(
        (parsed.subject().to_string(), parsed.issuer().to_string(), parsed.is_ca()),
        ("CN=kubernetes-2".into(), "CN=kubernetes".into(), true)
    );
    // Joining machines pin the key, and find it in either.
    assert_eq!(public_key_hash(&bridge).unwrap(), public_key_hash(&new_pair.certificate_pem).unwrap());
}
