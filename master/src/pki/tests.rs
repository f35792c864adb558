use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn settings() -> Settings {
    serde_json::from_value(serde_json::json!({
        "advertiseAddress": "172.30.1.2",
        "bind": "0.0.0.0:6443",
        "serviceCidr": "10.96.0.0/16",
        "clusterCidr": "10.244.0.0/16",
        "certSans": ["api.example.org", "192.0.2.7"],
        "nodeMonitorGraceSeconds": 40,
    }))
    .unwrap()
}

fn days(now: Timestamp, days: i64) -> Timestamp {
    Timestamp::from_second(now.as_second() + days * 24 * 3600).unwrap()
}

fn fresh() -> (tempfile::TempDir, DataDir) {
    let root = tempfile::tempdir().unwrap();
    let dir = DataDir::new(root.path());
    dir.create().unwrap();
    (root, dir)
}

#[test]
fn a_second_time_changes_nothing() {
    let (_root, dir) = fresh();
    let now = Timestamp::now();
    let first = Pki::ensure(&dir, &settings(), now).unwrap();
    let second = Pki::ensure(&dir, &settings(), now).unwrap();
    for (one, two) in [
        (&first.ca, &second.ca),
        (&first.serving, &second.serving),
        (&first.kubelet_client, &second.kubelet_client),
        (&first.proxy_ca, &second.proxy_ca),
        (&first.proxy_client, &second.proxy_client),
    ] {
        assert_eq!(one.certificate_pem, two.certificate_pem);
        assert_eq!(one.key_pem.reveal(), two.key_pem.reveal());
    }
    assert_eq!(first.service_account_key.reveal(), second.service_account_key.reveal());
}

#[test]
fn keys_are_private() {
    let (_root, dir) = fresh();
    Pki::ensure(&dir, &settings(), Timestamp::now()).unwrap();
    let mode = |name: &str| std::fs::metadata(dir.pki(name)).unwrap().permissions().mode() & 0o777;
    for key in [
        "ca.key",
        "apiserver.key",
        "apiserver-kubelet-client.key",
        "front-proxy-ca.key",
        "front-proxy-client.key",
        "sa.key",
    ] {
        assert_eq!(mode(key), 0o600, "{key}");
    }
    assert_eq!(mode(""), 0o700);
    assert!(data_dir::read(&dir.pki("sa.pub")).unwrap().unwrap().starts_with("-----BEGIN PUBLIC KEY-----"));
}

#[test]
fn the_serving_certificate_has_every_name() {
    let (_root, dir) = fresh();
    let pki = Pki::ensure(&dir, &settings(), Timestamp::now()).unwrap();
    let validity = pki::validity(&pki.serving.certificate_pem).unwrap();
    for name in [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        "api.example.org",
    ] {
        assert!(validity.dns_names.iter().any(|known| known == name), "{name}");
    }
    let addresses: Vec<IpAddr> =
        ["10.96.0.1", "172.30.1.2", "127.0.0.1", "192.0.2.7"].map(|a| a.parse().unwrap()).into();
    assert_eq!(validity.addresses, addresses);
    assert_eq!(pki.serving_chain_pem().matches("BEGIN CERTIFICATE").count(), 2);
}

#[test]
fn leaves_are_renewed_in_time_and_the_ca_stays() {
    let (_root, dir) = fresh();
    let now = Timestamp::now();
    let first = Pki::ensure(&dir, &settings(), now).unwrap();
    let later = Pki::ensure(&dir, &settings(), days(now, 200)).unwrap();
    assert_eq!(first.serving.certificate_pem, later.serving.certificate_pem);
    let renewed = Pki::ensure(&dir, &settings(), days(now, 300)).unwrap();
    assert_ne!(first.serving.certificate_pem, renewed.serving.certificate_pem);
    assert_ne!(first.kubelet_client.certificate_pem, renewed.kubelet_client.certificate_pem);
    assert_eq!(first.ca.certificate_pem, renewed.ca.certificate_pem);
    let not_after = pki::validity(&renewed.serving.certificate_pem).unwrap().not_after;
    assert_eq!(not_after.as_second(), days(now, 300 + 365).as_second());
}

#[test]
fn a_new_name_needs_a_new_certificate() {
    let (_root, dir) = fresh();
    let now = Timestamp::now();
    let first = Pki::ensure(&dir, &settings(), now).unwrap();
    let moved = Settings { advertise_address: "172.30.1.9".parse().unwrap(), ..settings() };
    let second = Pki::ensure(&dir, &moved, now).unwrap();
    assert_ne!(first.serving.certificate_pem, second.serving.certificate_pem);
    assert_eq!(first.kubelet_client.certificate_pem, second.kubelet_client.certificate_pem);
}

#[test]
fn a_ca_without_its_key_is_an_error_that_names_the_file() {
    let (_root, dir) = fresh();
    Pki::ensure(&dir, &settings(), Timestamp::now()).unwrap();
    std::fs::remove_file(dir.pki("ca.key")).unwrap();
    let Err(error) = Pki::ensure(&dir, &settings(), Timestamp::now()) else { panic!("made a second CA") };
    let missing = format!("{} is missing", dir.pki("ca.key").display());
    assert!(error.to_string().ends_with(&missing), "{error}");
}
