//! A PKCS#10 request as its PEM text has it.

use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

/// What of a request decides about approving and signing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) common_name: String,
    pub(super) organizations: Vec<String>,
    pub(super) dns_names: Vec<String>,
    pub(super) addresses: Vec<std::net::IpAddr>,
    /// Email addresses, URIs and anything else that no certificate of a node carries.
    pub(super) other_names: usize,
    /// The request, DER.
    pub(super) der: Vec<u8>,
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
}

impl Request {
    /// Reads and verifies a request.
    pub(super) fn parse(pem: &[u8]) -> Result<Self, Error> {
        let (_, block) = x509_parser::pem::parse_x509_pem(pem).map_err(|_| Error::Pem)?;
        if block.label != "CERTIFICATE REQUEST" && block.label != "NEW CERTIFICATE REQUEST" {
            return Err(Error::Pem);
        }
        let (_, parsed) =
            X509CertificationRequest::from_der(&block.contents).map_err(|error| Error::Der(error.to_string()))?;
        parsed.verify_signature().map_err(|_| Error::Signature)?;
        let subject = &parsed.certification_request_info.subject;
        let text = |value: &x509_parser::x509::AttributeTypeAndValue<'_>| value.as_str().map(str::to_owned).ok();
        let mut request = Self {
            common_name: subject.iter_common_name().filter_map(text).next().unwrap_or_default(),
            organizations: subject.iter_organization().filter_map(text).collect(),
            der: block.contents.clone(),
            ..Self::default()
        };
        for extension in parsed.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                names.general_names.iter().for_each(|name| request.note(name));
            }
        }
        Ok(request)
    }

    fn note(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => match address(bytes) {
                Some(address) => self.addresses.push(address),
                None => self.other_names += 1,
            },
            _ => self.other_names += 1,
        }
    }
}

fn address(bytes: &[u8]) -> Option<std::net::IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(four.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(Into::into)
}

/// A condition of the request that is True.
pub(super) fn condition<'a>(
    csr: &'a CertificateSigningRequest,
    kind: &str,
) -> Option<&'a CertificateSigningRequestCondition> {
    let conditions = csr.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind && condition.status != "False")
}
