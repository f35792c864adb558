//! A PKCS#10 request as its PEM text has it. What is read here is both what is judged and what is signed.

use std::net::IpAddr;

use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use x509_cert::SubjectPublicKeyInfo;
use x509_cert::attr::Attributes;
use x509_cert::der::asn1::{Any, ObjectIdentifier};
use x509_cert::der::{self, Decode as _, Tag, Tagged as _};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::Name;
use x509_cert::request::{CertReq, ExtensionReq};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const ORGANIZATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.10");
const EXTENSION_REQUEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.14");
const ALTERNATIVE_NAMES: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");

/// What of a request decides about approving and signing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) common_name: String,
    pub(super) organizations: Vec<String>,
    pub(super) dns_names: Vec<String>,
    pub(super) addresses: Vec<IpAddr>,
    /// Email addresses, URIs and anything else that no certificate of a node carries.
    pub(super) other_names: usize,
    /// The subject's attributes, in their order.
    pub(super) subject: Vec<(ObjectIdentifier, String)>,
    /// All alternative names that a certificate may carry: DNS names, addresses, email addresses and URIs.
    pub(super) names: Vec<GeneralName>,
    pub(super) public_key: SubjectPublicKeyInfo,
}

/// Why a request cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// spec.request is not PEM.
    #[error("spec.request is not a PEM block of type CERTIFICATE REQUEST")]
    Pem,
    /// The block is not PKCS#10.
    #[error("spec.request is not a certificate request: {0}")]
    Der(String),
    /// The requester does not show that it has the key.
    #[error("the signature of spec.request does not fit its key")]
    Signature,
    /// Others could read it as another name.
    #[error("attribute {0} of the subject of spec.request is not text")]
    Attribute(ObjectIdentifier),
    /// Others could take the other one for the name.
    #[error("the subject of spec.request has more than one common name")]
    CommonNames,
    /// Others could take the other ones for the names.
    #[error("spec.request has alternative names more than once")]
    AlternativeNames,
    /// An address is neither IPv4 nor IPv6.
    #[error("an address in spec.request has {0} bytes")]
    Address(usize),
}

impl From<der::Error> for Error {
    fn from(error: der::Error) -> Self {
        Self::Der(error.to_string())
    }
}

impl Request {
    /// Reads and verifies a request.
    pub(super) fn parse(pem: &[u8]) -> Result<Self, Error> {
        let (_, block) = x509_parser::pem::parse_x509_pem(pem).map_err(|_| Error::Pem)?;
        if block.label != "CERTIFICATE REQUEST" {
            return Err(Error::Pem);
        }
        verify(&block.contents)?;
        let info = CertReq::from_der(&block.contents)?.info;
        let subject = attributes(&info.subject)?;
        let all = |wanted| -> Vec<String> {
            subject.iter().filter(|(oid, _)| *oid == wanted).map(|(_, text)| text.clone()).collect()
        };
        let mut common_names = all(COMMON_NAME);
        let common_name = common_names.pop().unwrap_or_default();
        if !common_names.is_empty() {
            return Err(Error::CommonNames);
        }
        let mut request = Self {
            common_name,
            organizations: all(ORGANIZATION),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            other_names: 0,
            subject,
            names: Vec::new(),
            public_key: info.public_key,
        };
        for name in alternative_names(&info.attributes)? {
            request.note(name)?;
        }
        Ok(request)
    }

    fn note(&mut self, name: GeneralName) -> Result<(), Error> {
        match &name {
            GeneralName::DnsName(name) => self.dns_names.push(name.as_str().to_owned()),
            GeneralName::IpAddress(bytes) => self.addresses.push(address(bytes.as_bytes())?),
            GeneralName::Rfc822Name(_) | GeneralName::UniformResourceIdentifier(_) => self.other_names += 1,
            // No certificate carries it, as upstream's do not.
            _ => {
                self.other_names += 1;
                return Ok(());
            }
        }
        self.names.push(name);
        Ok(())
    }
}

fn verify(der: &[u8]) -> Result<(), Error> {
    let (_, parsed) = X509CertificationRequest::from_der(der).map_err(|error| Error::Der(error.to_string()))?;
    parsed.verify_signature().map_err(|_| Error::Signature)
}

fn attributes(subject: &Name) -> Result<Vec<(ObjectIdentifier, String)>, Error> {
    let all = subject.as_ref().iter().flat_map(|set| set.as_ref().iter());
    all.map(|one| Ok((one.oid, text(&one.value).ok_or(Error::Attribute(one.oid))?))).collect()
}

/// A value in one of the encodings that every reader reads alike.
fn text(value: &Any) -> Option<String> {
    let is_text = matches!(value.tag(), Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString);
    is_text.then(|| std::str::from_utf8(value.value()).ok().map(str::to_owned)).flatten()
}

fn alternative_names(attributes: &Attributes) -> Result<Vec<GeneralName>, Error> {
    let mut found = None;
    for attribute in attributes.iter().filter(|attribute| attribute.oid == EXTENSION_REQUEST) {
        for value in attribute.values.iter() {
            let wanted = value.decode_as::<ExtensionReq>()?;
            for extension in wanted.0.iter().filter(|extension| extension.extn_id == ALTERNATIVE_NAMES) {
                let names = SubjectAltName::from_der(extension.extn_value.as_bytes())?;
                if found.replace(names.0).is_some() {
                    return Err(Error::AlternativeNames);
                }
            }
        }
    }
    Ok(found.unwrap_or_default())
}

fn address(bytes: &[u8]) -> Result<IpAddr, Error> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).map_err(|_| Error::Address(bytes.len()))
}

/// A condition of the request that is True.
pub(super) fn condition<'a>(
    csr: &'a CertificateSigningRequest,
    kind: &str,
) -> Option<&'a CertificateSigningRequestCondition> {
    let conditions = csr.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind && condition.status != "False")
}
