//! Who this node is: its two certificates (client and serving), how they are asked for, and how they are renewed.

pub mod csr;
pub mod files;
pub mod rotate;
pub mod trust;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::client::tls;
use crate::config::write_private;

/// What can be wrong with a certificate or key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that cannot be read or written.
    #[error("{path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// PEM that does not hold what it should.
    #[error("{origin}: {message}")]
    Malformed {
        /// File or other origin.
        origin: String,
        /// What is wrong.
        message: String,
    },
    /// The API server did not take or answer a request.
    #[error("certificate signing request")]
    Api(#[from] kube::Error),
    /// The request was refused.
    #[error("certificate signing request {name} was denied: {message}")]
    Denied {
        /// The request's name.
        name: String,
        /// The approver's words.
        message: String,
    },
    /// Nobody answered.
    #[error(
        "certificate signing request {name} is not approved after {seconds} s (kubectl certificate approve {name})"
    )]
    Pending {
        /// The request's name.
        name: String,
        /// How long was waited.
        seconds: u64,
    },
    /// Keys could not be made or used.
    #[error("cannot make a key or request: {0}")]
    Crypto(String),
}

/// A certificate chain with its key.
#[derive(Clone)]
pub struct Identity {
    /// What TLS presents.
    pub certified: Arc<CertifiedKey>,
    pem: Arc<str>,
    /// Start of validity, seconds since 1970.
    pub not_before: i64,
    /// End of validity, seconds since 1970.
    pub not_after: i64,
    /// The subject's common name.
    pub common_name: String,
    /// Names and addresses that the certificate is for, sorted.
    pub sans: Vec<String>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key must not reach a log.
        f.debug_struct("Identity")
            .field("common_name", &self.common_name)
            .field("sans", &self.sans)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads a chain and its key, in any order, from one PEM text; checks that they belong together.
    ///
    /// # Errors
    /// [`Error::Malformed`], naming `origin`.
    pub fn from_pem(origin: &str, pem: &str) -> Result<Self, Error> {
        let malformed = |message: String| Error::Malformed { origin: origin.to_owned(), message };
        let chain = certificates(origin, pem.as_bytes())?;
        let leaf = chain.first().ok_or_else(|| malformed("no certificate".into()))?.clone();
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|e| malformed(format!("no key: {e}")))?;
        let certified = CertifiedKey::from_der(chain, key, &tls::provider())
            .map_err(|e| malformed(format!("certificate and key: {e}")))?;
        let (_, parsed) = X509Certificate::from_der(&leaf).map_err(|e| malformed(e.to_string()))?;
        let common_name =
            parsed.subject().iter_common_name().filter_map(|n| n.as_str().ok()).collect::<Vec<_>>().concat();
        Ok(Self {
            certified: Arc::new(certified),
            pem: pem.into(),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            common_name,
            sans: subject_alternative_names(&parsed),
        })
    }

    /// Reads a file that [`Identity::save`] wrote; `None` where there is none.
    ///
    /// # Errors
    /// A file that is there and cannot be used.
    pub fn load(path: &Path) -> Result<Option<Self>, Error> {
        match fs::read_to_string(path) {
            Ok(pem) => Self::from_pem(&path.to_string_lossy(), &pem).map(Some),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::File { path: path.to_owned(), source }),
        }
    }

    /// Writes chain and key into one file, atomically, with mode 0600.
    ///
    /// # Errors
    /// What the filesystem said.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        write_private(path, self.pem.as_bytes()).map_err(|source| Error::File { path: path.to_owned(), source })
    }

    /// Whether the certificate holds at `now` (seconds since 1970).
    #[must_use]
    pub fn is_valid_at(&self, now: i64) -> bool {
        self.not_before <= now && now < self.not_after
    }

    /// Whether a client that trusts `roots` would accept the chain: the leaf's issuer is one of them and signed it.
    #[must_use]
    pub fn is_issued_by(&self, roots: &[CertificateDer<'static>]) -> bool {
        let Some(leaf) = self.certified.cert.first() else { return false };
        let Ok((_, leaf)) = X509Certificate::from_der(leaf) else { return false };
        roots.iter().any(|root| {
            X509Certificate::from_der(root)
                .is_ok_and(|(_, root)| leaf.verify_signature(Some(root.public_key())).is_ok())
        })
    }
}

/// Seconds since 1970.
#[must_use]
pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// The certificates in a PEM text.
///
/// # Errors
/// [`Error::Malformed`], naming `origin`.
pub fn certificates(origin: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| Error::Malformed { origin: origin.to_owned(), message: e.to_string() })
}

/// A certificate as PEM.
#[must_use]
pub fn to_pem(der: &CertificateDer<'_>) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = tail;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

fn subject_alternative_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    use x509_parser::extensions::GeneralName;
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let mut names: Vec<String> = extension
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(dns) => Some((*dns).to_owned()),
            GeneralName::IPAddress(bytes) => match bytes.len() {
                4 => <[u8; 4]>::try_from(*bytes).ok().map(|b| std::net::IpAddr::from(b).to_string()),
                _ => <[u8; 16]>::try_from(*bytes).ok().map(|b| std::net::IpAddr::from(b).to_string()),
            },
            _ => None,
        })
        .collect();
    names.sort();
    names
}

#[cfg(test)]
pub(crate) mod tests;
