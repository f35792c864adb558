//! Whether a certificate and a key belong together, in the words of Go's `tls.X509KeyPair`.

use x509_parser::asn1_rs::{Any, FromDer as _, Tag};
use x509_parser::oid_registry::{OID_KEY_TYPE_EC_PUBLIC_KEY, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519};
use x509_parser::pem::Pem;
use x509_parser::prelude::X509Certificate;
use x509_parser::public_key::PublicKey;

const NO_MATCH: &str = "tls: private key does not match public key";
const OTHER_TYPE: &str = "tls: private key type does not match public key type";
const NO_KEY: &str = "tls: failed to parse private key";

/// What is wrong with them, if anything.
pub(super) fn problem(certificate: &[u8], key: &[u8]) -> Option<String> {
    check(certificate, key).err()
}

fn check(certificate: &[u8], key: &[u8]) -> Result<(), String> {
    let certificate = certificate_block(certificate)?;
    let key = key_block(key)?;
    let (_, certificate) =
        X509Certificate::from_der(&certificate).map_err(|_| "x509: malformed certificate".to_owned())?;
    let key = private_key(&key)?;
    let public = certificate.public_key();
    let matches = match (public.parsed(), &key) {
        (Ok(PublicKey::RSA(public)), Key::Rsa(modulus)) => unpadded(public.modulus) == unpadded(modulus),
        (Ok(PublicKey::EC(public)), Key::Ec(point)) => point.is_none_or(|point| point == public.data()),
        (Ok(PublicKey::RSA(_) | PublicKey::EC(_)), _) => return Err(OTHER_TYPE.to_owned()),
        _ if public.algorithm.algorithm != OID_SIG_ED25519 => {
            return Err("tls: unknown public key algorithm".to_owned());
        }
        // The public key of such a key is nowhere but in the certificate.
        (_, Key::Ed25519) => true,
        _ => return Err(OTHER_TYPE.to_owned()),
    };
    if matches { Ok(()) } else { Err(NO_MATCH.to_owned()) }
}

/// The first certificate of a text.
fn certificate_block(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut others = Vec::new();
    for block in blocks(text) {
        if block.label == "CERTIFICATE" {
            return Ok(block.contents);
        }
        others.push(block.label);
    }
    Err(match others.as_slice() {
        [] => "tls: failed to find any PEM data in certificate input".to_owned(),
        [one] if one.ends_with("PRIVATE KEY") => {
            "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may \
             have been switched"
                .to_owned()
        }
        all => format!(
            "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the following \
             types: [{}]",
            all.join(" ")
        ),
    })
}

/// The first key of a text.
fn key_block(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut others = Vec::new();
    for block in blocks(text) {
        if block.label == "PRIVATE KEY" || block.label.ends_with(" PRIVATE KEY") {
            return Ok(block.contents);
        }
        others.push(block.label);
    }
    Err(match others.as_slice() {
        [] => "tls: failed to find any PEM data in key input".to_owned(),
        [one] if one == "CERTIFICATE" => {
            "tls: found a certificate rather than a key in the PEM for the private key".to_owned()
        }
        all => format!(
            "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks of \
             the following types: [{}]",
            all.join(" ")
        ),
    })
}

fn blocks(text: &[u8]) -> impl Iterator<Item = Pem> {
    Pem::iter_from_buffer(text).filter_map(Result::ok)
}

/// What there is of a private key to compare with a public one.
enum Key<'a> {
    /// The modulus.
    Rsa(&'a [u8]),
    /// The public point, where the key has it beside the secret.
    Ec(Option<&'a [u8]>),
    Ed25519,
}

/// A key as PKCS #1, PKCS #8 or SEC 1 writes it.
fn private_key(der: &[u8]) -> Result<Key<'_>, String> {
    let failed = || NO_KEY.to_owned();
    let fields = sequence(der).ok_or_else(failed)?;
    let tags: Vec<Tag> = fields.iter().take(3).map(|field| field.header.tag()).collect();
    match (tags.as_slice(), fields.as_slice()) {
        ([Tag::Integer, Tag::Integer, ..], [_, modulus, ..]) => Ok(Key::Rsa(modulus.data)),
        ([Tag::Integer, Tag::Sequence, Tag::OctetString], [_, algorithm, inner, ..]) => {
            let (_, algorithm) = Any::from_der(algorithm.data).map_err(|_| failed())?;
            let algorithm = algorithm.oid().map_err(|_| failed())?;
            if algorithm == OID_SIG_ED25519 {
                return Ok(Key::Ed25519);
            }
            if algorithm != OID_PKCS1_RSAENCRYPTION && algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY {
                return Err("tls: found unknown private key type in PKCS#8 wrapping".to_owned());
            }
            // It nests no deeper: what is in a PKCS #8 is none.
            match private_key_inside(inner.data) {
                Some(key) => Ok(key),
                None => Err(failed()),
            }
        }
        ([Tag::Integer, Tag::OctetString, ..], _) => Ok(Key::Ec(point(&fields))),
        _ => Err(failed()),
    }
}

fn private_key_inside(der: &[u8]) -> Option<Key<'_>> {
    let fields = sequence(der)?;
    let second = fields.get(1)?;
    match second.header.tag() {
        Tag::Integer => Some(Key::Rsa(second.data)),
        Tag::OctetString => Some(Key::Ec(point(&fields))),
        _ => None,
    }
}

/// `publicKey [1]` of SEC 1's ECPrivateKey.
fn point<'a>(fields: &[Any<'a>]) -> Option<&'a [u8]> {
    let tagged = fields.iter().skip(2).find(|field| field.header.tag() == Tag(1))?;
    let (_, bits) = Any::from_der(tagged.data).ok()?;
    // The first octet counts unused bits.
    bits.data.get(1..)
}

/// The fields of a DER sequence.
fn sequence(der: &[u8]) -> Option<Vec<Any<'_>>> {
    let (_, whole) = Any::from_der(der).ok().filter(|(_, whole)| whole.header.tag() == Tag::Sequence)?;
    let (mut rest, mut fields) = (whole.data, Vec::new());
    while !rest.is_empty() {
        let (after, field) = Any::from_der(rest).ok()?;
        fields.push(field);
        rest = after;
    }
    Some(fields)
}

fn unpadded(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}
