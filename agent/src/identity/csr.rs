//! Certificates through `CertificateSigningRequest`
//! (<https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/>).

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestSpec, CertificateSigningRequestStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use serde::Deserialize;

use super::{Error, Identity};
use crate::client::watch::{Change, Collection, Trimmed, encode, follow};

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
    let crypto = |e: rcgen::Error| Error::Crypto(e.to_string());
    let key = KeyPair::generate().map_err(crypto)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(DnType::CommonName, node_user(node_name));
    if let Purpose::Serving { dns, ips } = purpose {
        for name in dns {
            params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into().map_err(crypto)?));
        }
        params.subject_alt_names.extend(ips.iter().copied().map(SanType::IpAddress));
    }
    let request = params.serialize_request(&key).map_err(crypto)?.pem().map_err(crypto)?;
    Ok((key, request))
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
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let created = api.create(&PostParams::default(), &object(&request, purpose)).await?;
    let name = created.metadata.name.unwrap_or_default();
    tracing::info!(csr = %name, signer = purpose.signer(), "certificate requested");
    let certificate = tokio::time::timeout(patience, wait(client, &name))
        .await
        .unwrap_or_else(|_| Err(Error::Pending { name: name.clone(), seconds: patience.as_secs() }))?;
    let certificate = String::from_utf8(certificate)
        .map_err(|e| Error::Malformed { origin: name.clone(), message: e.to_string() })?;
    Identity::from_pem(&format!("certificate signing request {name}"), &(certificate + &key.serialize_pem()))
}

fn object(request: &str, purpose: &Purpose) -> CertificateSigningRequest {
    CertificateSigningRequest {
        metadata: ObjectMeta { generate_name: Some("csr-".into()), ..ObjectMeta::default() },
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
    metadata: ProgressMeta,
    status: Option<CertificateSigningRequestStatus>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProgressMeta {
    #[serde(default)]
    resource_version: String,
}

impl Trimmed for Progress {
    fn resource_version(&self) -> &str {
        &self.metadata.resource_version
    }
}

async fn wait(client: &kube::Client, name: &str) -> Result<Vec<u8>, Error> {
    let collection = Collection {
        path: "/apis/certificates.k8s.io/v1/certificatesigningrequests".into(),
        query: format!("fieldSelector=metadata.name%3D{}", encode(name)),
    };
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
