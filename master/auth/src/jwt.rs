//! JSON Web Tokens with ES256 and nothing else: what ServiceAccount tokens need (RFC 7515, 7518).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// DER of a P-256 SubjectPublicKeyInfo up to the 65 bytes of the point.
const P256_SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Bytes of an uncompressed point.
const P256_POINT: usize = 65;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    #[error("no PKCS#8 private key in the PEM")]
    NotPkcs8,
    #[error("no SubjectPublicKeyInfo in the PEM")]
    NotPublic,
    #[error("the key is not an ECDSA P-256 key")]
    NotP256,
    #[error("signing failed")]
    Signing,
}

/// Why a token is not one of ours, or not well-formed. Shown to nobody but the log at debug level.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum TokenError {
    #[error("the token is not a JWT")]
    Malformed,
    #[error("the token's algorithm is not ES256")]
    Algorithm,
    #[error("the token is signed by an unknown key")]
    UnknownKey,
    #[error("the token's signature is wrong")]
    Signature,
}

/// A P-256 key that signs; never printed.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    verifying: VerifyingKey,
    random: SystemRandom,
}

/// The public half, as published in the JWKS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyingKey {
    /// Uncompressed point: 0x04, X, Y.
    point: Vec<u8>,
    key_id: String,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
}

impl SigningKey {
    /// Reads a `BEGIN PRIVATE KEY` (PKCS#8) P-256 key.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError::NotPkcs8)?;
        let random = SystemRandom::new();
        let algorithm = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair =
            EcdsaKeyPair::from_pkcs8(algorithm, der.secret_pkcs8_der(), &random).map_err(|_| KeyError::NotP256)?;
        let verifying = VerifyingKey::from_point(pair.public_key().as_ref());
        Ok(SigningKey { pair, verifying, random })
    }

    pub fn verifying_key(&self) -> &VerifyingKey {
        &self.verifying
    }

    pub(crate) fn sign(&self, claims: &Value) -> Result<String, KeyError> {
        let header = json!({ "alg": "ES256", "kid": self.verifying.key_id });
        let body = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let signature = self.pair.sign(&self.random, body.as_bytes()).map_err(|_| KeyError::Signing)?;
        Ok(format!("{body}.{}", encode(signature)))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("key_id", &self.verifying.key_id).finish_non_exhaustive()
    }
}

impl VerifyingKey {
    fn from_point(point: &[u8]) -> Self {
        // The key id is upstream's: the hash of the SubjectPublicKeyInfo (`serviceaccount.keyIDFromPublicKey`).
        let digest = Sha256::new().chain_update(P256_SPKI_PREFIX).chain_update(point).finalize();
        VerifyingKey { point: point.to_vec(), key_id: encode(digest) }
    }

    /// Reads all `BEGIN PUBLIC KEY` (SubjectPublicKeyInfo) P-256 keys of a text.
    pub fn all_from_pem(pem: &str) -> Result<Vec<Self>, KeyError> {
        let all = SubjectPublicKeyInfoDer::pem_slice_iter(pem.as_bytes());
        all.map(|der| {
            let der = der.map_err(|_| KeyError::NotPublic)?;
            let point = der.strip_prefix(&P256_SPKI_PREFIX).filter(|point| point.len() == P256_POINT);
            point.map(Self::from_point).ok_or(KeyError::NotP256)
        })
        .collect()
    }

    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// This key as a member of a JSON Web Key Set.
    pub fn jwk(&self) -> Value {
        let coordinate = |range| encode(self.point.get(range).unwrap_or_default());
        json!({
            "use": "sig", "kty": "EC", "kid": self.key_id, "crv": "P-256", "alg": "ES256",
            "x": coordinate(1..33), "y": coordinate(33..65),
        })
    }
}

/// The claims of a token whose signature one of `keys` made.
pub(crate) fn verify(token: &str, keys: &[VerifyingKey]) -> Result<Value, TokenError> {
    let (body, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
    let (header, claims) = body.split_once('.').ok_or(TokenError::Malformed)?;
    let header: Header = decode(header)?;
    if header.alg != "ES256" {
        return Err(TokenError::Algorithm);
    }
    let key = keys.iter().find(|key| key.key_id == header.kid).ok_or(TokenError::UnknownKey)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Malformed)?;
    UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, &key.point)
        .verify(body.as_bytes(), &signature)
        .map_err(|_| TokenError::Signature)?;
    decode(claims)
}

/// The claims without any check: only to see whether a token claims to be ours.
pub(crate) fn peek(token: &str) -> Option<Value> {
    let mut parts = token.split('.');
    let claims = parts.nth(1)?;
    (parts.count() == 1).then(|| decode(claims).ok()).flatten()
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode<T: serde::de::DeserializeOwned>(part: &str) -> Result<T, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| TokenError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_pem(&crate::pki::new_key_pem().unwrap()).unwrap()
    }

    #[test]
    fn what_is_signed_verifies_and_nothing_else() {
        let (ours, other) = (key(), key());
        let token = ours.sign(&json!({ "sub": "x" })).unwrap();
        let keys = [ours.verifying_key().clone()];
        assert_eq!(verify(&token, &keys).unwrap(), json!({ "sub": "x" }));
        assert_eq!(verify(&token, &[other.verifying_key().clone()]), Err(TokenError::UnknownKey));
        assert_eq!(verify("a.b", &keys), Err(TokenError::Malformed));
        assert_eq!(verify("", &keys), Err(TokenError::Malformed));
    }

    #[test]
    fn a_changed_payload_or_algorithm_is_refused() {
        let ours = key();
        let keys = [ours.verifying_key().clone()];
        let token = ours.sign(&json!({ "sub": "x" })).unwrap();
        let parts: Vec<&str> = token.split('.').collect();
        let forged = format!("{}.{}.{}", parts[0], encode(br#"{"sub":"y"}"#), parts[2]);
        assert_eq!(verify(&forged, &keys), Err(TokenError::Signature));
        let header = encode(json!({ "alg": "none", "kid": keys[0].key_id }).to_string());
        assert_eq!(verify(&format!("{header}.{}.", parts[1]), &keys), Err(TokenError::Algorithm));
    }

    #[test]
    fn debug_shows_no_key() {
        let shown = format!("{:?}", key());
        assert!(shown.starts_with("SigningKey { key_id: \""), "{shown}");
        assert!(!shown.contains("pair"), "{shown}");
    }
}
