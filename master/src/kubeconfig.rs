//! Kubeconfig files for people.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use auth::pki::{CertifiedKey, Leaf};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::data_dir::{self, DataDir};
use crate::leaves;
use crate::pki::authorities::Authorities;
use crate::pki::{Pki, is_due};
use crate::settings::Settings;

const CLUSTER: &str = "kubernetes";
const CLIENT_CERTIFICATE: &str = "/users/0/user/client-certificate-data";

/// Writes `admin.conf` and `super-admin.conf` where they are missing, expiring or for another server.
pub fn ensure(dir: &DataDir, settings: &Settings, pki: &Pki, now: Timestamp) -> Result<()> {
    let server = format!("https://{}", settings.endpoint());
    for (path, leaf) in all(dir) {
        if !is_current(&path, &server, &pki.authorities, &leaf, now)? {
            write(&path, &server, &pki.authorities, &leaf, now)?;
        }
    }
    Ok(())
}

/// Writes them in any case, with new certificates.
pub fn rotate(dir: &DataDir, settings: &Settings, pki: &Pki, now: Timestamp) -> Result<()> {
    let server = format!("https://{}", settings.endpoint());
    all(dir).into_iter().try_for_each(|(path, leaf)| write(&path, &server, &pki.authorities, &leaf, now))
}

fn all(dir: &DataDir) -> [(PathBuf, Leaf<'static>); 2] {
    [(dir.admin_conf(), leaves::admin()), (dir.super_admin_conf(), leaves::super_admin())]
}

fn is_current(path: &Path, server: &str, authorities: &Authorities, leaf: &Leaf<'_>, now: Timestamp) -> Result<bool> {
    let Some(text) = data_dir::read(path)? else { return Ok(false) };
    let Ok(config) = serde_saphyr::from_str::<Value>(&text) else { return Ok(false) };
    Ok(config.pointer("/clusters/0/cluster/server").and_then(Value::as_str) == Some(server)
        && pem(&config, "/clusters/0/cluster/certificate-authority-data") == authorities.bundle_pem()
        && !is_due(&pem(&config, CLIENT_CERTIFICATE), leaf, &authorities.signing, now))
}

/// PEM that a kubeconfig has in base64; empty where it has none.
fn pem(config: &Value, pointer: &str) -> String {
    let encoded = config.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}

/// The certificate of a kubeconfig's user; empty where it has none.
pub fn client_certificate(kubeconfig: &str) -> String {
    serde_saphyr::from_str(kubeconfig).map(|config| pem(&config, CLIENT_CERTIFICATE)).unwrap_or_default()
}

fn write(path: &Path, server: &str, authorities: &Authorities, leaf: &Leaf<'_>, now: Timestamp) -> Result<()> {
    let signer = authorities.signer()?;
    let pair =
        signer.issue(leaf, now).with_context(|| format!("cannot issue the certificate of {}", path.display()))?;
    let config = document(server, &authorities.bundle_pem(), leaf.common_name, &pair);
    data_dir::write_private(path, &serde_saphyr::to_string(&config)?)
}

fn document(server: &str, ca_pem: &str, user: &str, pair: &CertifiedKey) -> Value {
    let context = format!("{user}@{CLUSTER}");
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": CLUSTER, "cluster": {
            "certificate-authority-data": STANDARD.encode(ca_pem),
            "server": server,
        } }],
        "contexts": [{ "name": context, "context": { "cluster": CLUSTER, "user": user } }],
        "current-context": context,
        "users": [{ "name": user, "user": {
            "client-certificate-data": STANDARD.encode(&pair.certificate_pem),
            "client-key-data": STANDARD.encode(pair.key_pem.reveal()),
        } }],
    })
}

/// The public half: where the cluster is and what it is recognised by, for ConfigMap `kube-public/cluster-info`.
pub fn cluster_info(server: &str, ca_pem: &str) -> Result<String> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "", "cluster": {
            "certificate-authority-data": STANDARD.encode(ca_pem),
            "server": server,
        } }],
    });
    Ok(serde_saphyr::to_string(&config)?)
}
