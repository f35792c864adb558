use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer, KeyPair};

use super::csr::{Purpose, new_request, node_user};
use super::*;

/// A CA for tests.
pub(crate) struct TestCa {
    pub(crate) issuer: Issuer<'static, KeyPair>,
    pub(crate) der: CertificateDer<'static>,
}

impl TestCa {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), der }
    }

    pub(crate) fn sign(&self, request: &str) -> String {
        let csr = CertificateSigningRequestParams::from_pem(request).unwrap();
        csr.signed_by(&self.issuer).unwrap().pem()
    }

    pub(crate) fn identity(&self, node: &str, purpose: &Purpose) -> Identity {
        let (key, request) = new_request(node, purpose).unwrap();
        Identity::from_pem("test", &(self.sign(&request) + &key.serialize_pem())).unwrap()
    }
}

#[test]
fn a_serving_request_names_node_and_addresses() {
    let ca = TestCa::new("ca");
    let purpose =
        Purpose::Serving { dns: vec!["n1".into()], ips: vec!["10.0.0.1".parse().unwrap(), "::1".parse().unwrap()] };
    let identity = ca.identity("n1", &purpose);
    assert_eq!(identity.common_name, node_user("n1"));
    assert_eq!(identity.sans, purpose.sans());
    assert_eq!(identity.sans, ["10.0.0.1", "::1", "n1"]);
}

#[test]
fn issuer_is_told_from_a_namesake() {
    let (ca, other) = (TestCa::new("kubernetes"), TestCa::new("kubernetes"));
    let identity = ca.identity("n1", &Purpose::Client);
    assert!(identity.is_issued_by(&[other.der.clone(), ca.der.clone()]));
    assert!(!identity.is_issued_by(&[other.der]));
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let ca = TestCa::new("ca");
    let (_, request) = new_request("n1", &Purpose::Client).unwrap();
    let (other, _) = new_request("n1", &Purpose::Client).unwrap();
    let error = Identity::from_pem("x.pem", &(ca.sign(&request) + &other.serialize_pem())).err().unwrap();
    assert!(error.to_string().starts_with("x.pem: certificate and key"), "{error}");
}

#[test]
fn pem_of_a_certificate_reads_back() {
    let ca = TestCa::new("ca");
    assert_eq!(certificates("x", to_pem(&ca.der).as_bytes()).unwrap(), [ca.der]);
}

#[test]
fn saved_identities_are_private_and_load_again() {
    use std::os::unix::fs::PermissionsExt;
    let path = std::env::temp_dir().join(format!("keelson-identity-{}.pem", std::process::id()));
    let identity = TestCa::new("ca").identity("n1", &Purpose::Client);
    identity.save(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let loaded = Identity::load(&path).unwrap().unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(loaded.not_after, identity.not_after);
    assert!(Identity::load(&path).unwrap().is_none());
}

#[test]
fn renewal_is_due_between_70_and_90_percent() {
    assert_eq!(rotate::renewal_time(1000, 2000, 0.0), 1700);
    assert_eq!(rotate::renewal_time(1000, 2000, 1.0), 1900);
    // Two minutes, backdated by five: counted from when it came, it is due once within them, not at once and for ever.
    assert!(rotate::renewal_time(-300, 120, 0.0) < 0);
    assert_eq!(rotate::renewal_time(0, 120, 0.0), 84);
}
