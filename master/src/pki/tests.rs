use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;

use super::authorities::Phase;
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
        (&first.authorities.signing, &second.authorities.signing),
        (&first.serving, &second.serving),
        (&first.kubelet_client, &second.kubelet_client),
        (&first.proxy_ca, &second.proxy_ca),
        (&first.proxy_client, &second.proxy_client),
    ] {
        assert_eq!(one.certificate_pem, two.certificate_pem);
        assert_eq!(one.key_pem.reveal(), two.key_pem.reveal());
    }
    let key_id = |pki: &Pki| pki.service_account.signing().unwrap().verifying_key().key_id().to_owned();
    assert_eq!(key_id(&first), key_id(&second));
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
    assert_eq!(first.authorities.bundle_pem(), renewed.authorities.bundle_pem());
    let not_after = pki::validity(&renewed.serving.certificate_pem).unwrap().not_after;
    assert_eq!(not_after.as_second(), days(now, 300 + 365).as_second());
    // The clock was ahead: nobody would take them until it is there again.
    let back = Pki::ensure(&dir, &settings(), now).unwrap();
    assert!(pki::validity(&back.serving.certificate_pem).unwrap().not_before <= now);
    assert_ne!(back.kubelet_client.certificate_pem, renewed.kubelet_client.certificate_pem);
}

#[test]
fn a_leaf_whose_key_is_anothers_is_made_anew() {
    let (_root, dir) = fresh();
    let now = Timestamp::now();
    let first = Pki::ensure(&dir, &settings(), now).unwrap();
    // As `certs rotate` leaves it when the power goes between the key and the certificate.
    data_dir::write_private(&dir.pki("apiserver.key"), &pki::new_key_pem().unwrap()).unwrap();
    let after = Pki::ensure(&dir, &settings(), now).unwrap();
    tls::Tls::new(&after).unwrap();
    assert_ne!(first.serving.certificate_pem, after.serving.certificate_pem);
    assert_eq!(first.kubelet_client.certificate_pem, after.kubelet_client.certificate_pem);
    // Of a CA nobody can make another.
    data_dir::write_private(&dir.pki("ca.key"), &pki::new_key_pem().unwrap()).unwrap();
    let Err(error) = Pki::ensure(&dir, &settings(), now) else { panic!("signed with another key") };
    assert!(format!("{error:#}").contains("ca.key are no CA: "), "{error:#}");
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
fn who_rotates_and_who_renews_do_not_mix_their_keys() {
    let (_root, dir) = fresh();
    let now = Timestamp::now();
    Pki::ensure(&dir, &settings(), now).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..20).for_each(|_| drop(Pki::rotate(&dir, &settings(), now).unwrap())));
        }
        for _ in 0..100 {
            tls::Tls::new(&Pki::ensure(&dir, &settings(), now).unwrap()).unwrap();
        }
    });
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

/// Names of the CAs that are trusted, the signing one first; then of those whose certificates the API server presents.
fn seen(pki: &Pki) -> (Vec<String>, Vec<String>) {
    let names = |pem: &str| {
        let each = pem.split_inclusive("-----END CERTIFICATE-----\n");
        each.map(|pem| pki::validity(pem).unwrap().common_name).collect::<Vec<_>>()
    };
    (names(&pki.authorities.bundle_pem()), names(&pki.serving_chain_pem()))
}

#[test]
fn a_ca_is_replaced_in_steps_that_overlap() {
    let (_root, dir) = fresh();
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let ensure = || Pki::ensure(&dir, &settings(), now).unwrap();
    let first = ensure();
    let (old, new) = ("kubernetes".to_owned(), "kubernetes-1800000000".to_owned());
    assert_eq!(seen(&first), (vec![old.clone()], vec!["kube-apiserver".into(), old.clone()]));

    authorities::announce(&dir, now).unwrap();
    authorities::announce(&dir, now).unwrap_err();
    let announced = ensure();
    assert_eq!(announced.authorities.phase(), Phase::Announced);
    assert_eq!(seen(&announced), (vec![old.clone(), new.clone()], vec!["kube-apiserver".into(), old.clone()]));
    assert_eq!(announced.serving.certificate_pem, first.serving.certificate_pem);

    authorities::replace(&dir, now).unwrap();
    let replaced = ensure();
    assert_eq!(replaced.authorities.phase(), Phase::Replaced);
    // The one in the middle is the new CA's name under the old one's signature.
    let chain = vec!["kube-apiserver".into(), new.clone(), new.clone(), old.clone()];
    assert_eq!(seen(&replaced), (vec![new.clone(), old], chain));
    let signed = |leaf: &CertifiedKey| authorities::is_current(&leaf.certificate_pem, &replaced.authorities.signing);
    assert!(signed(&replaced.serving) && signed(&replaced.kubelet_client) && !signed(&first.serving));

    authorities::finish(&dir).unwrap();
    let finished = ensure();
    assert_eq!(finished.authorities.phase(), Phase::Settled);
    assert_eq!(seen(&finished), (vec![new.clone()], vec!["kube-apiserver".into(), new]));
    let left: Vec<_> = authorities::FILES.iter().filter(|name| dir.pki(name).exists()).collect();
    assert_eq!(left, [&"ca.crt", &"ca.key"]);
}

#[test]
fn an_announcement_is_withdrawn() {
    let (_root, dir) = fresh();
    let now = Timestamp::now();
    let first = Pki::ensure(&dir, &settings(), now).unwrap();
    authorities::announce(&dir, now).unwrap();
    authorities::withdraw(&dir).unwrap();
    let after = Pki::ensure(&dir, &settings(), now).unwrap();
    assert_eq!(seen(&after), seen(&first));
    authorities::replace(&dir, now).unwrap_err();
}

#[test]
fn a_replacement_that_a_crash_interrupted_is_ended() {
    let (_root, dir) = fresh();
    let now = Timestamp::now();
    Pki::ensure(&dir, &settings(), now).unwrap();
    authorities::announce(&dir, now).unwrap();
    let read = |name: &str| data_dir::read(&dir.pki(name)).unwrap().unwrap();
    let (old, next, key) = (read("ca.crt"), read("ca-next.crt"), read("ca-next.key"));
    // As far as the key, and then the power went.
    data_dir::write_public(&dir.pki("ca-previous.crt"), &old).unwrap();
    data_dir::write_private(&dir.pki("ca.key"), &key).unwrap();
    let after = Pki::ensure(&dir, &settings(), now).unwrap();
    assert_eq!(after.authorities.phase(), Phase::Replaced);
    assert_eq!(after.authorities.bundle_pem(), format!("{next}{old}"));
    assert!(authorities::is_current(&after.serving.certificate_pem, &after.authorities.signing));
}

#[test]
fn tokens_of_earlier_keys_are_known_until_they_are_forgotten() {
    let (_root, dir) = fresh();
    let keys = || {
        let keys = Pki::ensure(&dir, &settings(), Timestamp::now()).unwrap().service_account;
        let ids: Vec<String> = keys.previous().unwrap().iter().map(|key| key.key_id().to_owned()).collect();
        (keys.signing().unwrap().verifying_key().key_id().to_owned(), ids)
    };
    let (first, none) = keys();
    assert!(none.is_empty());
    service_account::rotate(&dir).unwrap();
    let (second, earlier) = keys();
    assert_eq!(earlier, std::slice::from_ref(&first));
    service_account::rotate(&dir).unwrap();
    let (third, earlier) = keys();
    assert_eq!(earlier, [second, first]);
    service_account::forget(&dir).unwrap();
    assert_eq!(keys(), (third, Vec::new()));
    service_account::forget(&dir).unwrap_err();
}
