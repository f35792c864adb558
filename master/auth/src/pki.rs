//! The cluster's certificates: its CA, and what the CA signs for the master itself
//! (<https://kubernetes.io/docs/setup/best-practices/certificates/>).

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::error::X509Error;
use x509_parser::pem::{Pem, parse_x509_pem};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use crate::SecretText;

/// What kubeadm calls a cluster's CA.
pub const CA_NAME: &str = "kubernetes";
const DAY_SECONDS: i64 = 24 * 3600;
const CA_LIFETIME_SECONDS: i64 = 10 * 365 * DAY_SECONDS;
/// How long a leaf lives; it is renewed well before.
pub const LEAF_LIFETIME_SECONDS: i64 = 365 * DAY_SECONDS;
/// Clocks of joining machines may be a little behind.
const BACKDATE_SECONDS: i64 = 5 * 60;

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("generating a certificate")]
    Generate(#[from] rcgen::Error),
    #[error("the certificate cannot be read")]
    Certificate,
    #[error("the certificate signing request cannot be read: {0}")]
    Request(&'static str),
    #[error("the moment {0} is out of range")]
    Time(Timestamp),
}

/// A certificate in PEM with the key that belongs to it.
#[derive(Debug, Clone)]
pub struct CertifiedKey {
    pub certificate_pem: String,
    pub key_pem: SecretText,
}

/// The cluster CA, able to sign.
pub struct Ca {
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What a leaf is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    Client,
    Server,
}

/// A leaf certificate to be made.
#[derive(Debug, Clone)]
pub struct Leaf<'a> {
    pub common_name: &'a str,
    pub organization: Option<&'a str>,
    pub dns_names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    pub usage: Usage,
}

impl Ca {
    /// A new self-signed CA. The first one of a cluster is called [`CA_NAME`].
    pub fn generate(name: &str, now: Timestamp) -> Result<(Self, CertifiedKey), PkiError> {
        let key = KeyPair::generate()?;
        let params = ca_params(name, now)?;
        let certificate_pem = params.self_signed(&key)?.pem();
        let key_pem = SecretText::new(key.serialize_pem());
        let certified = CertifiedKey { certificate_pem: certificate_pem.clone(), key_pem };
        let issuer = Issuer::new(params, key);
        Ok((Ca { certificate_pem, issuer }, certified))
    }

    pub fn load(certificate_pem: &str, key_pem: &SecretText) -> Result<Self, PkiError> {
        let key = KeyPair::from_pem(key_pem.reveal())?;
        let issuer = Issuer::from_ca_cert_pem(certificate_pem, key)?;
        Ok(Ca { certificate_pem: certificate_pem.to_owned(), issuer })
    }

    /// A certificate for another CA's name and key, signed by this one: who only trusts this CA verifies through it what the other
    /// one signs (a cross-signed certificate, RFC 4158).
    pub fn vouch_for(&self, other: &CertifiedKey, now: Timestamp) -> Result<String, PkiError> {
        let name = validity(&other.certificate_pem)?.common_name;
        let key = KeyPair::from_pem(other.key_pem.reveal())?;
        let mut params = ca_params(&name, now)?;
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(&key, &self.issuer)?.pem())
    }

    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Signs a fresh key for `leaf`.
    pub fn issue(&self, leaf: &Leaf<'_>, now: Timestamp) -> Result<CertifiedKey, PkiError> {
        let key = KeyPair::generate()?;
        let mut params = params(leaf.common_name, leaf.organization, now, LEAF_LIFETIME_SECONDS)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match leaf.usage {
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
        }];
        for name in &leaf.dns_names {
            params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
        }
        params.subject_alt_names.extend(leaf.addresses.iter().copied().map(SanType::IpAddress));
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(CertifiedKey { certificate_pem: certificate.pem(), key_pem: SecretText::new(key.serialize_pem()) })
    }
}

/// A new P-256 private key in PEM (PKCS#8).
pub fn new_key_pem() -> Result<String, PkiError> {
    Ok(KeyPair::generate()?.serialize_pem())
}

/// The public half of a private key, in PEM (SubjectPublicKeyInfo).
pub fn public_key_pem(key: &SecretText) -> Result<String, PkiError> {
    Ok(KeyPair::from_pem(key.reveal())?.public_key_pem())
}

/// `sha256:HEX` over the certificate's SubjectPublicKeyInfo: what `--ca-cert-hash` pins, as kubeadm has it.
pub fn public_key_hash(certificate_pem: &str) -> Result<String, PkiError> {
    let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(|_| PkiError::Certificate)?;
    let (_, certificate) = X509Certificate::from_der(&der).map_err(|_| PkiError::Certificate)?;
    Ok(format!("sha256:{}", base16ct::lower::encode_string(&Sha256::digest(certificate.public_key().raw))))
}

/// Whether a certificate is signed with the key of a CA.
pub fn is_issued_by(certificate_pem: &str, ca_pem: &str) -> Result<bool, PkiError> {
    let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| PkiError::Certificate);
    let (leaf, ca) = (der(certificate_pem)?, der(ca_pem)?);
    let (_, leaf) = X509Certificate::from_der(&leaf).map_err(|_| PkiError::Certificate)?;
    let (_, ca) = X509Certificate::from_der(&ca).map_err(|_| PkiError::Certificate)?;
    Ok(leaf.verify_signature(Some(ca.public_key())).is_ok())
}

/// When a certificate is good, and whom it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validity {
    pub common_name: String,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub dns_names: Vec<String>,
    pub addresses: Vec<IpAddr>,
}

pub fn validity(certificate_pem: &str) -> Result<Validity, PkiError> {
    use x509_parser::extensions::GeneralName;
    let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(|_| PkiError::Certificate)?;
    let (_, certificate) = X509Certificate::from_der(&der).map_err(|_| PkiError::Certificate)?;
    let time = |seconds| Timestamp::from_second(seconds).map_err(|_| PkiError::Certificate);
    let not_before = time(certificate.validity().not_before.timestamp())?;
    let not_after = time(certificate.validity().not_after.timestamp())?;
    let (mut dns_names, mut addresses) = (Vec::new(), Vec::new());
    let names = certificate.subject_alternative_name().map_err(|_| PkiError::Certificate)?;
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::DNSName(name) => dns_names.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => addresses.extend(address(bytes)),
            _ => {}
        }
    }
    let common_name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    Ok(Validity {
        common_name: common_name.unwrap_or_default().to_owned(),
        not_before,
        not_after,
        dns_names,
        addresses,
    })
}

/// Whom a certificate signing request asks a certificate for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsrSubject {
    pub common_name: Option<String>,
    pub organizations: Vec<String>,
}

/// Reads the subject of a CertificateSigningRequest's `spec.request`: base64 of PEM, as the API carries it. One that others
/// could read as somebody else's is an error: several common names, or an attribute that is no text.
pub fn csr_subject(request: &str) -> Result<CsrSubject, PkiError> {
    let block = csr_block(request)?;
    let csr = parsed_csr(&block)?;
    let subject = &csr.certification_request_info.subject;
    if !is_text(subject) {
        return Err(PkiError::Request("an attribute of the subject is not text"));
    }
    let mut common_names = subject.iter_common_name().filter_map(text);
    let common_name = common_names.next();
    if common_names.next().is_some() {
        return Err(PkiError::Request("the subject has more than one common name"));
    }
    Ok(CsrSubject { common_name, organizations: subject.iter_organization().filter_map(text).collect() })
}

/// Whether a CertificateSigningRequest's `spec.request` is one, signed with the key that it is about
/// (`certificates/validation.validateCSR`).
///
/// # Errors
/// What is wrong with it.
pub fn check_csr(request: &str) -> Result<(), PkiError> {
    let block = csr_block(request)?;
    match parsed_csr(&block)?.verify_signature() {
        // Of a sort that only its signer may know.
        Ok(()) | Err(X509Error::SignatureUnsupportedAlgorithm) => Ok(()),
        Err(_) => Err(PkiError::Request("the signature is not valid")),
    }
}

/// The first block, as the signer takes it.
fn csr_block(request: &str) -> Result<Pem, PkiError> {
    let pem = STANDARD.decode(request).map_err(|_| PkiError::Request("not base64"))?;
    let (_, block) = parse_x509_pem(&pem).map_err(|_| PkiError::Request("not PEM"))?;
    match block.label.as_str() {
        "CERTIFICATE REQUEST" => Ok(block),
        _ => Err(PkiError::Request("PEM block type must be CERTIFICATE REQUEST")),
    }
}

fn parsed_csr(block: &Pem) -> Result<X509CertificationRequest<'_>, PkiError> {
    let parsed = X509CertificationRequest::from_der(&block.contents);
    parsed.map(|(_, csr)| csr).map_err(|_| PkiError::Request("not PKCS#10"))
}

/// Whether all attributes of a name are texts in one of the encodings that every reader reads alike.
pub(crate) fn is_text(name: &X509Name<'_>) -> bool {
    name.iter_attributes().all(|attribute| attribute.as_str().is_ok())
}

fn text(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    attribute.as_str().ok().map(str::to_owned)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

fn ca_params(name: &str, now: Timestamp) -> Result<CertificateParams, PkiError> {
    let mut params = params(name, None, now, CA_LIFETIME_SECONDS)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn params(
    common_name: &str,
    organization: Option<&str>,
    now: Timestamp,
    lifetime_seconds: i64,
) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    params.not_before = time(now, -BACKDATE_SECONDS)?;
    params.not_after = time(now, lifetime_seconds)?;
    // Positive and of at most 20 octets (RFC 5280).
    params.serial_number = Some(SerialNumber::from(rand::random::<u64>() >> 1));
    Ok(params)
}

fn time(now: Timestamp, seconds: i64) -> Result<time::OffsetDateTime, PkiError> {
    let seconds = now.as_second().saturating_add(seconds);
    time::OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| PkiError::Time(now))
}

#[cfg(test)]
mod tests;
