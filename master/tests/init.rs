//! `master init`: what it writes, and that repeating it is harmless.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by them

mod common;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;

use common::{Master, join_line, said};

/// Every file with its content.
fn files(master: &Master) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for dir in ["", "pki"] {
        for entry in std::fs::read_dir(master.path(dir)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                all.insert(path.display().to_string(), std::fs::read(&path).unwrap());
            }
        }
    }
    all
}

#[test]
fn repeating_changes_nothing_and_says_the_same() {
    let master = Master::new();
    let first = said(&master.init(&[]));
    let before = files(&master);
    let second = said(&master.init(&[]));
    assert_eq!(first, second);
    assert!(before == files(&master));
    let line = join_line(&first);
    assert!(line.starts_with(&format!("agent join {}:{} --token ", common::ADVERTISED, master.port)), "{line}");
    assert!(line.contains(" --ca-cert-hash sha256:"), "{line}");
}

#[test]
fn everything_is_private() {
    let master = Master::new();
    std::fs::set_permissions(master.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    said(&master.init(&[]));
    let mode = |path: &str| std::fs::metadata(master.path(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(""), 0o700);
    for path in
        ["admin.conf", "super-admin.conf", "pending-token.json", "pki/ca.key", "pki/sa.key", "pki/apiserver.key"]
    {
        assert_eq!(mode(path), 0o600, "{path}");
    }
}

#[test]
fn the_hash_is_what_openssl_says() {
    let master = Master::new();
    let text = said(&master.init(&[]));
    let script = "openssl x509 -pubkey -noout -in \"$0\" | openssl pkey -pubin -outform der | sha256sum | cut -c1-64";
    let output = std::process::Command::new("sh").args(["-c", script]).arg(master.path("pki/ca.crt")).output().unwrap();
    let hash = said(&output);
    assert!(join_line(&text).ends_with(&format!("sha256:{}", hash.trim())), "{text}{hash}");
}

#[test]
fn an_expired_token_is_replaced_and_the_ca_stays() {
    let master = Master::new();
    let first = said(&master.init(&["--token-ttl", "1s"]));
    let ca = std::fs::read(master.path("pki/ca.crt")).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let second = said(&master.init(&[]));
    assert_ne!(join_line(&first), join_line(&second));
    assert!(ca == std::fs::read(master.path("pki/ca.crt")).unwrap());
}

#[test]
fn a_new_address_reissues_only_what_names_it() {
    let master = Master::new();
    said(&master.init(&[]));
    let before = files(&master);
    said(&master.init(&["--cert-san", "api.example.org"]));
    let after = files(&master);
    let changed: Vec<&str> = after
        .iter()
        .filter(|(path, content)| before.get(*path) != Some(content))
        .filter_map(|(path, _)| path.rsplit('/').next())
        .collect();
    assert_eq!(changed, ["master.yaml", "apiserver.crt", "apiserver.key"]);
}

#[test]
fn wrong_arguments_write_nothing() {
    let master = Master::new();
    let output = master.call(&["init", "--no-service", "--advertise-address", "10.244.0.1"]);
    assert!(!output.status.success());
    assert_eq!(
        String::from_utf8_lossy(&output.stderr).trim(),
        "master: --cluster-cidr 10.244.0.0/16 contains the advertised address 10.244.0.1"
    );
    assert!(!master.path("pki/ca.crt").exists());
}

#[test]
fn running_without_init_says_what_to_do() {
    let master = Master::new();
    let output = master.call(&["run"]);
    assert!(!output.status.success());
    let wanted = format!("master: there is no cluster in {}: run `master init` first", master.dir.path().display());
    assert_eq!(String::from_utf8_lossy(&output.stderr).trim(), wanted);
}
