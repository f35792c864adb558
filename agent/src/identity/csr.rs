//! Certificates through `CertificateSigningRequest`
//! (<https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/>).

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestSpec, CertificateSigningRequestStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;
use rcgen::{CertificateParams, DnType, KeyPair, PublicKeyData, SanType};
use rustls_pki_types::CertificateDer;
use serde::Deserialize;
use sha2::{Digest, Sha512_256};

use super::{Error, Identity, now};
use crate::client::api_code;
use crate::client::watch::{Change, Collection, follow};
use crate::config::write_private;

const NODES: &str = "system:nodes";

/// What a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// Talking to the API server.
    Client,
    /// Being talked to by it, under these names and addresses.
    Serving {
        /// DNS names.
        dns: Vec<String>,
        /// Addresses.
        ips: Vec<IpAddr>,
    },
}

impl Purpose {
    fn signer(&self) -> &'static str {
        match self {
            Self::Client => "kubernetes.io/kube-apiserver-client-kubelet",
            Self::Serving { .. } => "kubernetes.io/kubelet-serving",
        }
    }

    fn usages(&self) -> Vec<String> {
        // Without "key encipherment", which upstream allows for RSA keys only to be left out since 1.27.
        let auth = match self {
            Self::Client => "client auth",
            Self::Serving { .. } => "server auth",
        };
        vec!["digital signature".into(), auth.into()]
    }

    /// What [`Identity::sans`] of a certificate for this purpose is.
    #[must_use]
    pub fn sans(&self) -> Vec<String> {
        let mut names = match self {
            Self::Client => Vec::new(),
            Self::Serving { dns, ips } => dns.iter().cloned().chain(ips.iter().map(IpAddr::to_string)).collect(),
        };
        names.sort();
        names.dedup();
        names
    }
}

/// The user name of a node.
#[must_use]
pub fn node_user(node_name: &str) -> String {
    format!("system:node:{node_name}")
}

/// Makes a P-256 key and a PKCS#10 request for it: CN `system:node:NAME`, O `system:nodes`.
///
/// # Errors
/// [`Error::Crypto`].
pub fn new_request(node_name: &str, purpose: &Purpose) -> Result<(KeyPair, String), Error> {
    let key = KeyPair::generate().map_err(crypto)?;
    let request = request(&key, node_name, purpose)?;
    Ok((key, request))
}

fn crypto(error: rcgen::Error) -> Error {
    Error::Crypto(error.to_string())
}

fn request(key: &KeyPair, node_name: &str, purpose: &Purpose) -> Result<String, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, NODES);
    params.distinguished_name.push(DnType::CommonName, node_user(node_name));
    if let Purpose::Serving { dns, ips } = purpose {
        for name in dns {
            params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into().map_err(crypto)?));
        }
        params.subject_alt_names.extend(ips.iter().copied().map(SanType::IpAddress));
    }
    params.serialize_request(key).map_err(crypto)?.pem().map_err(crypto)
}

/// Asks for a certificate and waits until it is there, at most `patience`.
///
/// # Errors
/// Refusal, silence, or an API server that cannot be reached.
pub async fn obtain(
    client: &kube::Client,
    node_name: &str,
    purpose: &Purpose,
    patience: Duration,
) -> Result<Identity, Error> {
    let (key, request) = new_request(node_name, purpose)?;
    let metadata = ObjectMeta { generate_name: Some("csr-".into()), ..ObjectMeta::default() };
    let name = create(client, &object(metadata, &request, purpose)).await?;
    issued(client, &name, &key, patience).await
}

/// Asks for a node's first certificate, as kubelets do (`pkg/kubelet/certificate/bootstrap`): the key stays in a file, and the request is named by
/// it, so that who asks again finds the same request, which an administrator may have approved meanwhile. A caller that has saved the
/// certificate deletes the file. A certificate that is not of `roots`, or not valid any more, is one of an earlier try: then all begins anew.
///
/// # Errors
/// As [`obtain`], and a file that cannot be written.
pub async fn obtain_first(
    client: &kube::Client,
    node_name: &str,
    key_file: &Path,
    roots: &[CertificateDer<'static>],
    patience: Duration,
) -> Result<Identity, Error> {
    let is_good = |identity: &Identity| identity.is_valid_at(now()) && identity.is_issued_by(roots);
    match ask_with(client, node_name, &kept_key(key_file)?, patience).await {
        Ok(identity) if is_good(&identity) => Ok(identity),
        Ok(_) => {
            forget(key_file)?;
            ask_with(client, node_name, &kept_key(key_file)?, patience).await
        }
        Err(error) => {
            if matches!(error, Error::Denied { .. }) {
                // The verdict on this request stands; whoever asks again asks with another.
                forget(key_file)?;
            }
            Err(error)
        }
    }
}

/// The key of an earlier try, or a new one.
fn kept_key(path: &Path) -> Result<KeyPair, Error> {
    let kept = fs::read_to_string(path).ok().and_then(|pem| KeyPair::from_pem(&pem).ok());
    if let Some(key) = kept {
        return Ok(key);
    }
    let key = KeyPair::generate().map_err(crypto)?;
    write_private(path, key.serialize_pem().as_bytes()).map_err(|source| at(path, source))?;
    Ok(key)
}

fn forget(path: &Path) -> Result<(), Error> {
    fs::remove_file(path).map_err(|source| at(path, source))
}

fn at(path: &Path, source: io::Error) -> Error {
    Error::File { path: path.to_owned(), source }
}

async fn ask_with(
    client: &kube::Client,
    node_name: &str,
    key: &KeyPair,
    patience: Duration,
) -> Result<Identity, Error> {
    let purpose = Purpose::Client;
    let name = digested_name(key, node_name, &purpose);
    let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
    match create(client, &object(metadata, &request(key, node_name, &purpose)?, &purpose)).await {
        Err(Error::Api(error)) if api_code(&error) == Some(409) => {
            tracing::info!(csr = %name, "certificate was requested before");
        }
        answer => drop(answer?),
    }
    issued(client, &name, key, patience).await
}

/// Upstream's name of a request (`digestedName`): the same key, subject and usages make the same.
fn digested_name(key: &KeyPair, node_name: &str, purpose: &Purpose) -> String {
    let mut hash = Sha512_256::new();
    let mut write = |data: &[u8]| {
        hash.update(URL_SAFE_NO_PAD.encode(data));
        // No letter of that encoding.
        hash.update(b"|");
    };
    write(&key.subject_public_key_info());
    write(node_user(node_name).as_bytes());
    write(NODES.as_bytes());
    purpose.usages().iter().for_each(|usage| write(usage.as_bytes()));
    format!("node-csr-{}", URL_SAFE_NO_PAD.encode(hash.finalize()))
}

/// Makes the request, and answers its name.
async fn create(client: &kube::Client, object: &CertificateSigningRequest) -> Result<String, Error> {
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let name = api.create(&PostParams::default(), object).await?.metadata.name.unwrap_or_default();
    tracing::info!(csr = %name, signer = object.spec.signer_name, "certificate requested");
    Ok(name)
}

/// Waits for the certificate of a request.
async fn issued(client: &kube::Client, name: &str, key: &KeyPair, patience: Duration) -> Result<Identity, Error> {
    let certificate = tokio::time::timeout(patience, wait(client, name))
        .await
        .unwrap_or_else(|_| Err(Error::Pending { name: name.to_owned(), seconds: patience.as_secs() }))?;
    let certificate = String::from_utf8(certificate)
        .map_err(|e| Error::Malformed { origin: name.to_owned(), message: e.to_string() })?;
    Identity::from_pem(&format!("certificate signing request {name}"), &(certificate + &key.serialize_pem()))
}

fn object(metadata: ObjectMeta, request: &str, purpose: &Purpose) -> CertificateSigningRequest {
    CertificateSigningRequest {
        metadata,
        spec: CertificateSigningRequestSpec {
            request: ByteString(request.as_bytes().to_vec()),
            signer_name: purpose.signer().into(),
            usages: Some(purpose.usages()),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    }
}

/// What is looked at while waiting.
#[derive(Debug, Clone, Deserialize)]
struct Progress {
    status: Option<CertificateSigningRequestStatus>,
}

async fn wait(client: &kube::Client, name: &str) -> Result<Vec<u8>, Error> {
    let collection = Collection::of::<CertificateSigningRequest>(None).fields(&format!("metadata.name={name}"));
    let mut changes = follow::<Progress>(client.clone(), collection);
    while let Some(change) = changes.recv().await {
        let seen = match change {
            Change::Replaced(items) => items.into_iter().next(),
            Change::Applied(item) => Some(item),
            Change::Deleted(_) => None,
        };
        if let Some(certificate) = seen.and_then(|p| p.status).map(|s| verdict(name, s)).transpose()?.flatten() {
            return Ok(certificate);
        }
    }
    Err(Error::Pending { name: name.to_owned(), seconds: 0 })
}

/// `Ok(None)` while nobody has decided.
fn verdict(name: &str, status: CertificateSigningRequestStatus) -> Result<Option<Vec<u8>>, Error> {
    for condition in status.conditions.unwrap_or_default() {
        if condition.type_ == "Denied" || condition.type_ == "Failed" {
            let message = condition.message.or(condition.reason).unwrap_or_default();
            return Err(Error::Denied { name: name.to_owned(), message });
        }
    }
    Ok(status.certificate.map(|c| c.0).filter(|c| !c.is_empty()))
}

#[cfg(test)]
mod tests;
