//! `tlsMinVersion`, `tlsCipherSuites`, `tlsCurvePreferences`: what the node's server offers (k8s.io/component-base/cli/flag). Names and
//! numbers are those of Go's crypto/tls, of which rustls has the newer half.

use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::{ALL_VERSIONS, SupportedCipherSuite, SupportedProtocolVersion};

use super::kubelet::KubeletConfiguration;

/// Suites of Go that rustls leaves out.
const OLD_SUITES: [&str; 16] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_RC4_128_SHA",
];
/// Key exchanges of Go that this TLS leaves out, by number and name.
const OTHER_CURVES: [(i32, &str); 4] =
    [(25, "P-521"), (4587, "SecP256r1MLKEM768"), (4588, "X25519MLKEM768"), (4589, "SecP384r1MLKEM1024")];
const OLD_VERSIONS: [&str; 2] = ["VersionTLS10", "VersionTLS11"];
const NEWEST: &str = "VersionTLS13";
static NEWEST_ONLY: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];

/// What upstream refuses, with the field before its words.
pub(super) fn errors(config: &KubeletConfiguration) -> Vec<String> {
    let provider = crate::client::tls::provider();
    let is_suite = |name: &str| OLD_SUITES.contains(&name) || provider.cipher_suites.iter().any(|own| is(own, name));
    let unknown = config.tls_cipher_suites.iter().filter(|name| !is_suite(name));
    let mut errors: Vec<String> = unknown
        .map(|name| {
            format!("tlsCipherSuites (--tls-cipher-suites): Cipher suite {name} not supported or doesn't exist")
        })
        .collect();
    let version = config.tls_min_version.as_str();
    if !["", "VersionTLS12", NEWEST].contains(&version) && !OLD_VERSIONS.contains(&version) {
        errors.push(format!("tlsMinVersion (--tls-min-version): unknown tls version {version:?}"));
    }
    let curves = &config.tls_curve_preferences;
    for (index, id) in curves.iter().enumerate() {
        let is_known = OTHER_CURVES.iter().any(|(other, _)| other == id) || group(&provider, *id).is_some();
        let wrong = if !(1..=65_535).contains(id) {
            format!("curve preference {id} is out of range (must be 1-65535)")
        } else if curves.iter().take(index).any(|before| before == id) {
            format!("duplicate curve preference {id}")
        } else if !is_known {
            format!("curve preference {id} is not supported by the current Go version")
        } else {
            continue;
        };
        errors.push(format!("tlsCurvePreferences (--tls-curve-preferences): {wrong}"));
    }
    errors
}

/// What upstream would offer and this server does not.
pub(super) fn warnings(suites: &[String], curves: &[i32], version: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    let old = suites.iter().filter(|name| OLD_SUITES.contains(&name.as_str()));
    warnings.extend(old.map(|name| {
        format!("{name} of field \"tlsCipherSuites\" of KubeletConfiguration has no effect here: it is not safe any more, and rustls does not have it")
    }));
    if version == NEWEST && !suites.is_empty() {
        warnings.push("field \"tlsCipherSuites\" of KubeletConfiguration has no effect here: those of TLS 1.3 cannot be chosen, as upstream".to_owned());
    }
    if OLD_VERSIONS.contains(&version) {
        warnings.push(format!(
            "{version} of field \"tlsMinVersion\" of KubeletConfiguration has no effect here: rustls speaks no version before TLS 1.2"
        ));
    }
    let others = OTHER_CURVES.iter().filter(|(id, _)| curves.contains(id));
    warnings.extend(others.map(|(id, name)| {
        format!("{id} ({name}) of field \"tlsCurvePreferences\" of KubeletConfiguration has no effect here: rustls does not have it with ring")
    }));
    let provider = crate::client::tls::provider();
    if !curves.is_empty() && curves.iter().all(|id| group(&provider, *id).is_none()) {
        warnings.push("field \"tlsCurvePreferences\" of KubeletConfiguration has no effect here: none of them is there, so that all others are offered".to_owned());
    }
    warnings
}

/// Suites and key exchanges of the node's server. As upstream, those of TLS 1.3 are not chosen among.
#[must_use]
pub fn provider(config: &KubeletConfiguration) -> CryptoProvider {
    let mut provider = (*crate::client::tls::provider()).clone();
    let names = &config.tls_cipher_suites;
    if !names.is_empty() {
        provider.cipher_suites.retain(|suite| suite.tls13().is_some() || names.iter().any(|name| is(suite, name)));
    }
    let groups: Vec<_> = config.tls_curve_preferences.iter().filter_map(|id| group(&provider, *id)).collect();
    if !groups.is_empty() {
        provider.kx_groups = groups;
    }
    provider
}

/// Versions of the node's server.
#[must_use]
pub fn versions(config: &KubeletConfiguration) -> &'static [&'static SupportedProtocolVersion] {
    if config.tls_min_version == NEWEST { &NEWEST_ONLY } else { ALL_VERSIONS }
}

fn group(provider: &CryptoProvider, id: i32) -> Option<&'static dyn SupportedKxGroup> {
    provider.kx_groups.iter().find(|group| i32::from(u16::from(group.name())) == id).copied()
}

/// Whether a suite has this name, or the one that Go had for it before there was a standard.
fn is(suite: &SupportedCipherSuite, name: &str) -> bool {
    let own = suite.suite().as_str().unwrap_or_default().replace("TLS13_", "TLS_");
    let former = own.strip_suffix("_SHA256").filter(|former| former.contains("_WITH_CHACHA20_"));
    own == name || former == Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(suites: &[&str], curves: &[i32], version: &str) -> KubeletConfiguration {
        KubeletConfiguration {
            tls_cipher_suites: suites.iter().map(|&suite| suite.to_owned()).collect(),
            tls_curve_preferences: curves.to_vec(),
            tls_min_version: version.to_owned(),
            ..KubeletConfiguration::default()
        }
    }

    fn warned(config: &KubeletConfiguration) -> Vec<String> {
        warnings(&config.tls_cipher_suites, &config.tls_curve_preferences, &config.tls_min_version)
    }

    #[test]
    fn what_is_asked_for_is_offered() {
        let asked = config(&["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "TLS_AES_128_GCM_SHA256"], &[24, 29], "");
        assert_eq!((errors(&asked), warned(&asked)), (vec![], vec![]));
        let own = provider(&asked);
        let names: Vec<_> = own.cipher_suites.iter().map(|suite| suite.suite().as_str().unwrap()).collect();
        assert_eq!(names.iter().filter(|name| name.starts_with("TLS13_")).count(), 3);
        assert!(names.contains(&"TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256") && names.len() == 4, "{names:?}");
        assert_eq!(own.kx_groups.iter().map(|group| u16::from(group.name())).collect::<Vec<_>>(), [24, 29]);
        assert_eq!(versions(&asked).len(), 2);
        assert_eq!(versions(&config(&[], &[], NEWEST)), [&rustls::version::TLS13]);
        assert_eq!(provider(&config(&[], &[], "")).kx_groups.len(), 3);
    }

    #[test]
    fn what_upstream_does_not_know_is_refused_in_its_words() {
        for (asked, says) in [
            (config(&["TLS_NONE"], &[], ""), "Cipher suite TLS_NONE not supported or doesn't exist"),
            (config(&["TLS_CHACHA20_POLY1305"], &[], ""), "Cipher suite TLS_CHACHA20_POLY1305 not supported or"),
            (config(&[], &[], "VersionTLS14"), "unknown tls version \"VersionTLS14\""),
            (config(&[], &[0], ""), "curve preference 0 is out of range (must be 1-65535)"),
            (config(&[], &[29, 29], ""), "duplicate curve preference 29"),
            (config(&[], &[30], ""), "curve preference 30 is not supported by the current Go version"),
        ] {
            let errors = errors(&asked);
            assert!(errors.len() == 1 && errors[0].starts_with("tls") && errors[0].contains(says), "{errors:?}");
        }
    }

    #[test]
    fn what_upstream_has_and_rustls_has_not_is_named() {
        let asked = config(&["TLS_RSA_WITH_AES_128_GCM_SHA256"], &[4588, 25], "VersionTLS10");
        assert!(errors(&asked).is_empty());
        let warned = warned(&asked);
        for (warning, begins) in warned.iter().zip([
            "TLS_RSA_WITH_AES_128_GCM_SHA256 of field \"tlsCipherSuites\"",
            "VersionTLS10 of field \"tlsMinVersion\"",
            "25 (P-521) of field",
            "4588 (X25519MLKEM768) of field",
            "field \"tlsCurvePreferences\"",
        ]) {
            assert!(warning.starts_with(begins), "{warning}");
        }
        assert_eq!(warned.len(), 5);
        assert!(provider(&asked).cipher_suites.iter().all(|suite| suite.tls13().is_some()));
    }
}
