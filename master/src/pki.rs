//! The certificates and keys below `pki/`: made once, renewed before they expire, never replaced without need.

pub mod authorities;
pub mod service_account;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use auth::SecretText;
use auth::pki::{self, Ca, CertifiedKey, LEAF_LIFETIME_SECONDS, Leaf};
use controllers::ApiServerNames;
use jiff::Timestamp;

use crate::data_dir::{self, DataDir};
use crate::settings::Settings;
use crate::{bootstrap, leaves, tls};
use authorities::Authorities;
use service_account::ServiceAccountKeys;

/// A leaf is renewed when less than a third of its life is left.
const RENEW_BEFORE_SECONDS: i64 = LEAF_LIFETIME_SECONDS / 3;

const SERVING: &str = "apiserver";
const KUBELET_CLIENT: &str = "apiserver-kubelet-client";
const PROXY_CLIENT: &str = "front-proxy-client";
/// The two CAs, by their files and names, as kubeadm has them: who has a certificate of the second may say whom he speaks for.
const CA: (&str, &str) = ("ca", pki::CA_NAME);
const PROXY_CA: (&str, &str) = ("front-proxy-ca", "front-proxy-ca");

/// Everything that serving needs.
pub struct Pki {
    pub authorities: Authorities,
    pub serving: CertifiedKey,
    pub kubelet_client: CertifiedKey,
    /// Of the front proxy that stands before aggregated API servers: this server.
    pub proxy_ca: CertifiedKey,
    pub proxy_client: CertifiedKey,
    pub service_account: ServiceAccountKeys,
}

impl Pki {
    /// Reads what is there and makes what is missing, expiring, of another CA or no longer fitting the settings. A CA is only ever
    /// made where there is none.
    pub fn ensure(dir: &DataDir, settings: &Settings, now: Timestamp) -> Result<Self> {
        let _lock = dir.lock_pki()?;
        Self::made(dir, settings, now)
    }

    /// The same for who has the lock.
    fn made(dir: &DataDir, settings: &Settings, now: Timestamp) -> Result<Self> {
        let authorities = Authorities::made(dir, now)?;
        let proxy_ca = ensure_ca(dir, PROXY_CA, now)?;
        let signing = &authorities.signing;
        let serving = leaves::serving(settings, &hostname())?;
        Ok(Pki {
            serving: ensure_leaf(dir, signing, SERVING, &serving, now)?,
            kubelet_client: ensure_leaf(dir, signing, KUBELET_CLIENT, &leaves::kubelet_client(), now)?,
            proxy_client: ensure_leaf(dir, &proxy_ca, PROXY_CLIENT, &leaves::proxy_client(), now)?,
            proxy_ca,
            service_account: ServiceAccountKeys::made(dir)?,
            authorities,
        })
    }

    /// The same with new leaves, whatever is left of the old ones.
    pub fn rotate(dir: &DataDir, settings: &Settings, now: Timestamp) -> Result<Self> {
        let _lock = dir.lock_pki()?;
        let ca = Authorities::made(dir, now)?.signer()?;
        let proxy_ca = signer(&ensure_ca(dir, PROXY_CA, now)?)?;
        issue(dir, &ca, SERVING, &leaves::serving(settings, &hostname())?, now)?;
        issue(dir, &ca, KUBELET_CLIENT, &leaves::kubelet_client(), now)?;
        issue(dir, &proxy_ca, PROXY_CLIENT, &leaves::proxy_client(), now)?;
        Self::made(dir, settings, now)
    }

    /// What the API server presents: its own certificate and the CA's, so that a joining machine can pin the CA.
    pub fn serving_chain_pem(&self) -> String {
        format!("{}{}", self.serving.certificate_pem, self.authorities.chain_pem())
    }
}

/// What is the API server's own, and no node's to be certified as.
pub fn api_server_names(settings: &Settings) -> Result<ApiServerNames> {
    let Leaf { dns_names, addresses, .. } = leaves::serving(settings, &hostname())?;
    let (domain, boot_id) = (bootstrap::DOMAIN.to_owned(), kernel_text("random/boot_id"));
    Ok(ApiServerNames { dns_names, addresses, domain, boot_id })
}

/// Whether a certificate should be made anew: it does not last, does not fit, is not of the CA that signs, or was made by a clock that was ahead.
pub fn is_due(certificate_pem: &str, leaf: &Leaf<'_>, signing: &CertifiedKey, now: Timestamp) -> bool {
    let Ok(validity) = pki::validity(certificate_pem) else { return true };
    let names_all = leaf.dns_names.iter().all(|name| validity.dns_names.contains(name))
        && leaf.addresses.iter().all(|address| validity.addresses.contains(address));
    !names_all
        || !authorities::is_current(certificate_pem, signing)
        || validity.not_before > now
        || validity.not_after.as_second() - now.as_second() < RENEW_BEFORE_SECONDS
}

fn ensure_ca(dir: &DataDir, (file, name): (&str, &str), now: Timestamp) -> Result<CertifiedKey> {
    let (certificate, key) = files(dir, file);
    if let Some(pair) = read_pair(&certificate, &key)? {
        let (certificate, key) = (certificate.display(), key.display());
        tls::read(&pair.certificate_pem, &pair).with_context(|| format!("{certificate} and {key} are no CA"))?;
        return Ok(pair);
    }
    let (_, pair) = Ca::generate(name, now)?;
    write_pair(&certificate, &key, &pair)?;
    Ok(pair)
}

/// A CA's pair, able to sign.
fn signer(ca: &CertifiedKey) -> Result<Ca> {
    Ca::load(&ca.certificate_pem, &ca.key_pem).context("a certificate and its key below pki/ are not a CA")
}

fn ensure_leaf(dir: &DataDir, ca: &CertifiedKey, name: &str, leaf: &Leaf<'_>, now: Timestamp) -> Result<CertifiedKey> {
    let (certificate, key) = files(dir, name);
    match read_pair(&certificate, &key)? {
        // A crash between the two writes leaves a key beside the certificate of the one before.
        Some(pair)
            if tls::read(&pair.certificate_pem, &pair).is_ok() && !is_due(&pair.certificate_pem, leaf, ca, now) =>
        {
            Ok(pair)
        }
        _ => issue(dir, &signer(ca)?, name, leaf, now),
    }
}

fn files(dir: &DataDir, name: &str) -> (PathBuf, PathBuf) {
    (dir.pki(&format!("{name}.crt")), dir.pki(&format!("{name}.key")))
}

fn issue(dir: &DataDir, ca: &Ca, name: &str, leaf: &Leaf<'_>, now: Timestamp) -> Result<CertifiedKey> {
    let (certificate, key) = files(dir, name);
    let pair = ca.issue(leaf, now).with_context(|| format!("cannot issue {}", certificate.display()))?;
    write_pair(&certificate, &key, &pair)?;
    Ok(pair)
}

fn read_pair(certificate: &Path, key: &Path) -> Result<Option<CertifiedKey>> {
    match (data_dir::read(certificate)?, data_dir::read(key)?) {
        (Some(certificate_pem), Some(key_pem)) => {
            Ok(Some(CertifiedKey { certificate_pem, key_pem: SecretText::new(key_pem) }))
        }
        (None, None) => Ok(None),
        // A crash between the two writes leaves a key: nothing was signed with it yet.
        (None, Some(_)) => Ok(None),
        (Some(_), None) => bail!("{} is there, but {} is missing", certificate.display(), key.display()),
    }
}

/// The key first: a certificate without its key would be of no use.
fn write_pair(certificate: &Path, key: &Path, pair: &CertifiedKey) -> Result<()> {
    data_dir::write_private(key, pair.key_pem.reveal())?;
    data_dir::write_public(certificate, &pair.certificate_pem)
}

fn hostname() -> String {
    kernel_text("hostname")
}

/// What the kernel says of this machine, in lower case; empty where it says nothing.
fn kernel_text(name: &str) -> String {
    let text = std::fs::read_to_string(Path::new("/proc/sys/kernel").join(name));
    text.map(|text| text.trim().to_lowercase()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
