use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::json;

use super::*;
use crate::{Observer as _, SigningKey, TokenIssuerConfig, names, pki};

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn authenticator() -> Authenticator {
    let facts = Arc::new(Facts::new());
    let config = TokenIssuerConfig {
        issuer: "https://issuer.test".to_owned(),
        audiences: Vec::new(),
        signing_key: SigningKey::from_pem(&pki::new_key_pem().unwrap()).unwrap(),
        verifying_keys: Vec::new(),
    };
    facts.observe("", "serviceaccounts", "default", "app", Some(&json!({ "metadata": { "uid": "u" } })));
    let tokens = Arc::new(ServiceAccountTokens::new(config, Arc::clone(&facts)));
    Authenticator { facts, tokens }
}

fn certificate(common_name: Option<&str>, organization: Option<&str>) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for (kind, value) in [(DnType::CommonName, common_name), (DnType::OrganizationName, organization)] {
        if let Some(value) = value {
            params.distinguished_name.push(kind, value);
        }
    }
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
}

#[test]
fn a_certificate_names_user_and_group() {
    let certificate = certificate(Some("system:node:n1"), Some("system:nodes"));
    let credentials = Credentials { client_certificate: Some(&certificate), authorization: Some("Bearer ignored") };
    let user = authenticator().authenticate(credentials, "/api", now()).unwrap();
    assert_eq!(user.username, "system:node:n1");
    assert_eq!(user.groups, ["system:nodes", names::ALL_AUTHENTICATED]);
    let id = user.extra["authentication.kubernetes.io/credential-id"].concat();
    assert!(id.starts_with("X509SHA256=") && id.len() == 11 + 64, "{id}");
}

#[test]
fn a_nameless_certificate_is_nobody() {
    let certificate = certificate(None, Some("system:masters"));
    let credentials = Credentials { client_certificate: Some(&certificate), ..Credentials::default() };
    assert_eq!(authenticator().authenticate(credentials, "/api", now()), Err(AuthenticationError::NamelessCertificate));
}

#[test]
fn without_credentials_health_version_and_what_is_signed_are_open() {
    let authenticator = authenticator();
    let info = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
    for path in ["/healthz", "/livez", "/readyz", "/version", info] {
        let user = authenticator.authenticate(Credentials::default(), path, now()).unwrap();
        assert_eq!(user, UserInfo::anonymous());
    }
    for path in [
        "/",
        "/api",
        "/livez/etcd",
        "/metrics",
        "/openid/v1/jwks",
        "/version/../api",
        "/api/v1/namespaces/kube-public/configmaps",
    ] {
        let answer = authenticator.authenticate(Credentials::default(), path, now());
        assert_eq!(answer, Err(AuthenticationError::Missing), "{path}");
    }
}

#[test]
fn bearer_tokens_of_both_kinds() {
    let authenticator = authenticator();
    let token = crate::BootstrapToken::generate(None);
    let name = format!("bootstrap-token-{}", token.id());
    authenticator.facts.observe("", "secrets", "kube-system", &name, Some(&token.to_secret()));
    let user = |header: &str| {
        let credentials = Credentials { authorization: Some(header), ..Credentials::default() };
        authenticator.authenticate(credentials, "/api", now())
    };
    assert_eq!(
        user(&format!("Bearer {}", token.reveal())).unwrap().username,
        format!("system:bootstrap:{}", token.id())
    );
    assert!(user(&format!("bearer {}", token.reveal())).is_ok());
    let issued = authenticator.tokens().token_request("default", "app", json!({}), now()).unwrap();
    let issued = issued["status"]["token"].as_str().unwrap();
    assert_eq!(user(&format!("Bearer {issued}")).unwrap().username, "system:serviceaccount:default:app");

    for wrong in ["", "Bearer", "Bearer ", "Basic YTpi", "Token x"] {
        assert_eq!(user(wrong), Err(AuthenticationError::NotBearer), "{wrong}");
    }
    for wrong in ["Bearer x", "Bearer a.b.c", "Bearer abcdef.0123456789abcdef"] {
        assert!(matches!(user(wrong), Err(AuthenticationError::InvalidToken(_))), "{wrong}");
    }
    // A wrong token on an open path is refused all the same, as upstream does.
    let credentials = Credentials { authorization: Some("Bearer x"), ..Credentials::default() };
    authenticator.authenticate(credentials, "/livez", now()).unwrap_err();

    authenticator.facts.observe("", "secrets", "kube-system", &name, None);
    user(&format!("Bearer {}", token.reveal())).unwrap_err();
}

#[test]
fn a_bootstrap_token_is_for_the_api_server_only() {
    let authenticator = authenticator();
    let token = crate::BootstrapToken::generate(None);
    let name = format!("bootstrap-token-{}", token.id());
    authenticator.facts.observe("", "secrets", "kube-system", &name, Some(&token.to_secret()));
    let own = authenticator.tokens().audiences().to_vec();
    let ask = |audiences: &[String]| authenticator.authenticate_token(&token.reveal(), audiences, now());
    assert_eq!(ask(&[]).unwrap().audiences, own);
    assert_eq!(ask(&["vault".to_owned(), own[0].clone()]).unwrap().audiences, own);
    assert!(matches!(ask(&["vault".to_owned()]), Err(AuthenticationError::InvalidToken(_))));
}

#[test]
fn an_error_shows_no_token() {
    let authenticator = authenticator();
    let credentials = Credentials { authorization: Some("Bearer abcdef.0123456789abcdef"), ..Credentials::default() };
    let error = authenticator.authenticate(credentials, "/api", now()).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("0123456789"));
}
