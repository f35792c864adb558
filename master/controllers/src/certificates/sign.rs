//! Signing: the subject, key and alternative names as they were read and judged, with our issuer, usages and times. Pure but
//! for the random serial number.

use std::time::{Duration, UNIX_EPOCH};

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use p256::ecdsa::signature::Keypair;
use p256::ecdsa::{DerSignature, SigningKey, VerifyingKey};
use p256::pkcs8::DecodePrivateKey;
use x509_cert::TbsCertificate;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{Builder, CertificateBuilder};
use x509_cert::certificate::Certificate;
use x509_cert::der::asn1::{Any, ObjectIdentifier, OctetString};
use x509_cert::der::flagset::FlagSet;
use x509_cert::der::pem::LineEnding;
use x509_cert::der::{Decode, DecodePem, Encode, EncodePem, Tag};
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName,
    SubjectKeyIdentifier,
};
use x509_cert::ext::{Extension, ToExtension};
use x509_cert::name::{Name, RdnSequence, RelativeDistinguishedName};
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, DynSignatureAlgorithmIdentifier, SubjectPublicKeyInfoRef};
use x509_cert::time::{Time, Validity};

use super::approve::{self, API_CLIENT, KUBELET_CLIENT, KUBELET_SERVING, Refusal};
use super::request::{self, Request};
use crate::context::SigningCa;

/// The signers that we are. `kubernetes.io/legacy-unknown` is not one of them.
pub(super) const KNOWN_SIGNERS: [&str; 3] = [API_CLIENT, KUBELET_CLIENT, KUBELET_SERVING];
/// Certificates are valid a little earlier than now, for clocks that are behind.
const BACKDATE: Duration = Duration::from_secs(300);
/// Certificates of at least this long end by that much earlier, too; those of less are good for all of their time from now on.
const SHORT: Duration = Duration::from_secs(8 * 3600);
const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");

/// Why a certificate cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The CA's certificate or key cannot be read.
    #[error("signing CA: {0}")]
    Ca(String),
    /// The request cannot be read.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The signer does not accept it.
    #[error("invalid request for signer {signer}: {refusal}")]
    Refused {
        /// spec.signerName
        signer: String,
        /// What is wrong, in words.
        refusal: String,
    },
    /// Building the certificate failed.
    #[error("building the certificate: {0}")]
    Build(String),
}

/// Why a request cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RequestError(String);

impl From<request::Error> for Error {
    fn from(error: request::Error) -> Self {
        Self::Request(RequestError(error.to_string()))
    }
}

/// The certificate authority, ready to sign.
pub(super) struct Signer {
    issuer: Name,
    /// Subject key identifier of the CA, which certificates name.
    identifier: Option<OctetString>,
    /// Seconds since the epoch at which the CA ends; nothing that it signs lasts longer.
    ends: Duration,
    key: CaKey,
    duration: Duration,
}

impl Signer {
    /// Reads the CA.
    pub(super) fn new(ca: &SigningCa, duration: Duration) -> Result<Self, Error> {
        let certificate =
            Certificate::from_pem(&ca.certificate_pem).map_err(|error| Error::Ca(format!("certificate: {error}")))?;
        let key = SigningKey::from_pkcs8_pem(&ca.key_pem).map_err(|error| Error::Ca(format!("key: {error}")))?;
        let key = CaKey(key);
        let tbs = certificate.tbs_certificate();
        let identifier = tbs.get_extension::<SubjectKeyIdentifier>().ok().flatten().map(|(_, id)| id.0);
        Ok(Self {
            issuer: tbs.subject().clone(),
            identifier,
            ends: tbs.validity().not_after.to_unix_duration(),
            key,
            duration,
        })
    }

    /// The certificate for an approved request, PEM.
    pub(super) fn sign(&self, csr: &CertificateSigningRequest, now: Timestamp) -> Result<String, Error> {
        let request = Request::parse(&csr.spec.request.0)?;
        let signer = csr.spec.signer_name.as_str();
        let checked = match signer {
            API_CLIENT => approve::api_client(csr),
            KUBELET_CLIENT => approve::kubelet_client(csr, &request),
            _ => approve::kubelet_serving(csr, &request),
        };
        checked
            .map_err(|refusal: Refusal| Error::Refused { signer: signer.to_owned(), refusal: refusal.to_string() })?;
        let build = |error: &dyn std::fmt::Display| Error::Build(error.to_string());
        let profile = Leaf {
            issuer: self.issuer.clone(),
            identifier: self.identifier.clone(),
            subject: subject(&request).map_err(|error| build(&error))?,
            usages: csr.spec.usages.clone().unwrap_or_default(),
            names: (!request.names.is_empty()).then(|| SubjectAltName(request.names.clone())),
        };
        // Positive, and without leading zero octets.
        let serial = rand::random::<u128>() >> 1 | 1 << 126;
        let serial = SerialNumber::new(&serial.to_be_bytes()).map_err(|error| build(&error))?;
        let validity = self.validity(csr, now).map_err(|error| build(&error))?;
        let builder =
            CertificateBuilder::new(profile, serial, validity, request.public_key).map_err(|error| build(&error))?;
        let certificate = builder.build::<_, DerSignature>(&self.key).map_err(|error| build(&error))?;
        certificate.to_pem(LineEnding::LF).map_err(|error| build(&error))
    }

    /// spec.expirationSeconds shortens the signer's duration, never below ten minutes and never beyond the CA's end.
    fn validity(&self, csr: &CertificateSigningRequest, now: Timestamp) -> Result<Validity, x509_cert::der::Error> {
        let asked = csr.spec.expiration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let duration = asked.map_or(self.duration, |seconds| Duration::from_secs(seconds.max(600)).min(self.duration));
        let now = Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0));
        let not_after = now + if duration < SHORT { duration } else { duration.saturating_sub(BACKDATE) };
        let not_after = not_after.min(self.ends);
        let time = |at: Duration| Time::try_from(UNIX_EPOCH + at);
        Ok(Validity::new(time(now.saturating_sub(BACKDATE))?, time(not_after)?))
    }
}

/// The CA's key. It names its signature algorithm itself: p256 can only do so with a second version of `sha2`'s features.
struct CaKey(SigningKey);

impl Keypair for CaKey {
    type VerifyingKey = VerifyingKey;

    fn verifying_key(&self) -> VerifyingKey {
        *self.0.verifying_key()
    }
}

impl p256::ecdsa::signature::Signer<DerSignature> for CaKey {
    fn try_sign(&self, message: &[u8]) -> Result<DerSignature, p256::ecdsa::Error> {
        self.0.try_sign(message)
    }
}

impl DynSignatureAlgorithmIdentifier for CaKey {
    fn signature_algorithm_identifier(&self) -> x509_cert::spki::Result<AlgorithmIdentifierOwned> {
        Ok(AlgorithmIdentifierOwned { oid: ECDSA_WITH_SHA256, parameters: None })
    }
}

/// A leaf certificate as Kubernetes' signers make it.
struct Leaf {
    issuer: Name,
    identifier: Option<OctetString>,
    subject: Name,
    usages: Vec<String>,
    names: Option<SubjectAltName>,
}

impl BuilderProfile for Leaf {
    fn get_issuer(&self, _subject: &Name) -> Name {
        self.issuer.clone()
    }

    fn get_subject(&self) -> Name {
        self.subject.clone()
    }

    fn build_extensions(
        &self,
        _own: SubjectPublicKeyInfoRef<'_>,
        _issuer: SubjectPublicKeyInfoRef<'_>,
        tbs: &TbsCertificate,
    ) -> x509_cert::builder::Result<Vec<Extension>> {
        let mut extensions: Vec<Extension> = Vec::new();
        let (keys, purposes) = key_usages(&self.usages);
        extensions.push(KeyUsage(keys).to_extension(tbs.subject(), &extensions)?);
        extensions.push(ExtendedKeyUsage(purposes).to_extension(tbs.subject(), &extensions)?);
        let basic = BasicConstraints { ca: false, path_len_constraint: None };
        extensions.push(basic.to_extension(tbs.subject(), &extensions)?);
        if let Some(identifier) = &self.identifier {
            let authority = AuthorityKeyIdentifier {
                key_identifier: Some(identifier.clone()),
                authority_cert_issuer: None,
                authority_cert_serial_number: None,
            };
            extensions.push(authority.to_extension(tbs.subject(), &extensions)?);
        }
        if let Some(names) = &self.names {
            extensions.push(names.to_extension(tbs.subject(), &extensions)?);
        }
        Ok(extensions)
    }
}

/// spec.usages as X.509 has them; the rules of the signers leave no others.
fn key_usages(usages: &[String]) -> (FlagSet<KeyUsages>, Vec<ObjectIdentifier>) {
    let mut keys = FlagSet::default();
    let mut purposes = Vec::new();
    for usage in usages {
        match usage.as_str() {
            "digital signature" => keys |= KeyUsages::DigitalSignature,
            "key encipherment" => keys |= KeyUsages::KeyEncipherment,
            "client auth" => purposes.push(CLIENT_AUTH),
            "server auth" => purposes.push(SERVER_AUTH),
            _ => (),
        }
    }
    (keys, purposes)
}

/// The subject as it was read, each attribute encoded as Go does it: a PrintableString where it can be one.
fn subject(request: &Request) -> Result<Name, x509_cert::der::Error> {
    let parts = request.subject.iter().map(|(oid, text)| {
        let is_printable = |b: u8| b.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&b);
        let tag = if text.bytes().all(is_printable) { Tag::PrintableString } else { Tag::Utf8String };
        RelativeDistinguishedName::try_from(vec![AttributeTypeAndValue {
            oid: *oid,
            value: Any::new(tag, text.as_bytes())?,
        }])
    });
    let parts: Vec<RelativeDistinguishedName> = parts.collect::<Result<_, _>>()?;
    Name::from_der(&RdnSequence::from(parts).to_der()?)
}
