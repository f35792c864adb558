use super::*;
use crate::{Observer as _, SecretText, pki};

const ISSUER: &str = "https://issuer.test";
const NOW: &str = "2026-01-01T00:00:00Z";

struct Cluster {
    facts: Arc<Facts>,
    tokens: ServiceAccountTokens,
}

fn at(seconds: i64) -> Timestamp {
    let now: Timestamp = NOW.parse().unwrap();
    Timestamp::from_second(now.as_second() + seconds).unwrap()
}

impl Cluster {
    /// ServiceAccount default/app, pod default/web of it on n1, pod default/alien of another, Secret default/s, node n1.
    fn new() -> Self {
        let facts = Arc::new(Facts::new());
        let key = SigningKey::from_pem(&pki::new_key_pem().unwrap()).unwrap();
        let config = TokenIssuerConfig {
            issuer: ISSUER.to_owned(),
            audiences: Vec::new(),
            signing_key: key,
            verifying_keys: Vec::new(),
        };
        let cluster = Cluster { tokens: ServiceAccountTokens::new(config, Arc::clone(&facts)), facts };
        cluster.put("serviceaccounts", "default", "app", json!({}));
        let pod = |account: &str| json!({ "spec": { "serviceAccountName": account, "nodeName": "n1" } });
        cluster.put("pods", "default", "web", pod("app"));
        cluster.put("pods", "default", "alien", pod("other"));
        cluster.put("secrets", "default", "s", json!({}));
        cluster.put("nodes", "", "n1", json!({}));
        cluster
    }

    fn put(&self, resource: &str, namespace: &str, name: &str, mut object: Value) {
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-{name}"));
        }
        self.facts.observe("", resource, namespace, name, Some(&object));
    }

    fn request(&self, spec: Value) -> Result<Value, Refusal> {
        self.tokens.token_request("default", "app", json!({ "spec": spec }), at(0))
    }

    fn token(&self, spec: Value) -> String {
        self.request(spec).unwrap()["status"]["token"].as_str().unwrap().to_owned()
    }

    fn user(&self, token: &str, seconds: i64) -> Result<UserInfo, String> {
        self.tokens.authenticate(token, &[], at(seconds)).map(|(user, _)| user).map_err(|error| error.to_string())
    }
}

fn bound(kind: &str, name: &str) -> Value {
    json!({ "boundObjectRef": { "apiVersion": "v1", "kind": kind, "name": name } })
}

#[test]
fn tokens_of_the_key_before_stay_good() {
    let cluster = Cluster::new();
    let earlier = cluster.token(json!({}));
    let old = cluster.tokens.keys().signing.verifying_key().clone();
    let pem = pki::new_key_pem().unwrap();
    let signing = || SigningKey::from_pem(&pem).unwrap();
    cluster.tokens.set_keys(signing(), vec![old.clone()]);
    let later = cluster.token(json!({}));
    for token in [&earlier, &later] {
        assert_eq!(cluster.user(token, 0).unwrap().username, "system:serviceaccount:default:app");
    }
    let ids = || -> Vec<Value> {
        cluster.tokens.jwks()["keys"].as_array().unwrap().iter().map(|key| key["kid"].clone()).collect()
    };
    assert_eq!(ids(), [signing().verifying_key().key_id(), old.key_id()]);
    cluster.tokens.set_keys(signing(), Vec::new());
    assert_eq!(cluster.user(&earlier, 0), Err("the token is signed by an unknown key".to_owned()));
    assert!(cluster.user(&later, 0).is_ok() && ids().len() == 1);
}

#[test]
fn public_keys_are_read_from_pem() {
    let keys: Vec<SecretText> = (0..2).map(|_| SecretText::new(pki::new_key_pem().unwrap())).collect();
    let text: String = keys.iter().map(|key| pki::public_key_pem(key).unwrap()).collect();
    let read = VerifyingKey::all_from_pem(&text).unwrap();
    let wanted: Vec<VerifyingKey> =
        keys.iter().map(|key| SigningKey::from_pem(key.reveal()).unwrap().verifying_key().clone()).collect();
    assert_eq!(read, wanted);
    assert_eq!(VerifyingKey::all_from_pem("").unwrap(), []);
    let broken = text.replace("BEGIN PUBLIC KEY-----\n", "BEGIN PUBLIC KEY-----\nAAAA");
    assert!(VerifyingKey::all_from_pem(&broken).is_err());
}

#[test]
fn a_request_is_answered_with_its_defaults() {
    let cluster = Cluster::new();
    let answer = cluster.request(json!({})).unwrap();
    assert_eq!(answer["metadata"]["name"], "app");
    assert_eq!(answer["metadata"]["namespace"], "default");
    assert_eq!(answer["metadata"]["creationTimestamp"], NOW);
    assert_eq!(answer["spec"], json!({ "audiences": [ISSUER], "expirationSeconds": 3600 }));
    assert_eq!(answer["status"]["expirationTimestamp"], "2026-01-01T01:00:00Z");
    let claims = jwt::peek(answer["status"]["token"].as_str().unwrap()).unwrap();
    assert_eq!(claims["sub"], "system:serviceaccount:default:app");
    assert_eq!(claims["aud"], json!([ISSUER]));
    assert_eq!(claims["exp"].as_i64(), Some(at(3600).as_second()));
    assert_eq!(
        claims["kubernetes.io"],
        json!({ "namespace": "default", "serviceaccount": { "name": "app", "uid": "uid-app" } })
    );
}

#[test]
fn a_token_gives_the_accounts_user() {
    let cluster = Cluster::new();
    let token = cluster.token(bound("Pod", "web"));
    let user = cluster.user(&token, 0).unwrap();
    assert_eq!(user.username, "system:serviceaccount:default:app");
    assert_eq!(user.uid, "uid-app");
    assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]);
    let extra = |key: &str| user.extra.get(&format!("authentication.kubernetes.io/{key}")).map(|v| v.concat());
    assert_eq!(extra("pod-name").as_deref(), Some("web"));
    assert_eq!(extra("pod-uid").as_deref(), Some("uid-web"));
    assert_eq!(extra("node-name").as_deref(), Some("n1"));
    assert_eq!(extra("node-uid").as_deref(), Some("uid-n1"));
    assert!(extra("credential-id").unwrap().starts_with("JTI="));
}

#[test]
fn a_token_ends_with_its_time() {
    let cluster = Cluster::new();
    let token = cluster.token(json!({ "expirationSeconds": 600 }));
    cluster.user(&token, 600).unwrap();
    assert_eq!(cluster.user(&token, 700), Err("service account token has expired".to_owned()));
    assert_eq!(cluster.user(&token, -100), Err("service account token is not valid yet".to_owned()));
}

#[test]
fn a_token_ends_with_what_it_is_bound_to() {
    for (kind, resource, namespace, name) in [
        ("Pod", "pods", "default", "web"),
        ("Secret", "secrets", "default", "s"),
        ("Node", "nodes", "", "n1"),
        ("", "serviceaccounts", "default", "app"),
    ] {
        let cluster = Cluster::new();
        let token = cluster.token(if kind.is_empty() { json!({}) } else { bound(kind, name) });
        cluster.user(&token, 0).unwrap();
        let invalid = Err("service account token has been invalidated".to_owned());

        let mut going = json!({ "metadata": { "uid": format!("uid-{name}"), "deletionTimestamp": NOW } });
        going["spec"]["serviceAccountName"] = json!("app");
        cluster.put(resource, namespace, name, going);
        cluster.user(&token, 60).unwrap();
        assert_eq!(cluster.user(&token, 61), invalid, "{kind}: deleted for a while");

        cluster.put(resource, namespace, name, json!({ "metadata": { "uid": "another" } }));
        assert_eq!(cluster.user(&token, 0), invalid, "{kind}: recreated");
        cluster.facts.observe("", resource, namespace, name, None);
        assert_eq!(cluster.user(&token, 0), invalid, "{kind}: gone");
    }
}

#[test]
fn a_pods_token_does_not_end_with_the_node() {
    let cluster = Cluster::new();
    let token = cluster.token(bound("Pod", "web"));
    cluster.facts.observe("", "nodes", "", "n1", None);
    cluster.user(&token, 0).unwrap();
}

#[test]
fn an_audience_is_kept() {
    let cluster = Cluster::new();
    let token = cluster.token(json!({ "audiences": ["vault"] }));
    assert_eq!(
        cluster.user(&token, 0),
        Err("token audiences [\"vault\"] is invalid for the target audiences [\"https://issuer.test\"]".to_owned())
    );
    let wanted = ["other".to_owned(), "vault".to_owned()];
    let (_, audiences) = cluster.tokens.authenticate(&token, &wanted, at(0)).unwrap();
    assert_eq!(audiences, ["vault"]);
}

#[test]
fn the_injected_volumes_token_lives_longer_than_it_says() {
    let cluster = Cluster::new();
    let mut spec = bound("Pod", "web");
    spec["expirationSeconds"] = json!(3607);
    let answer = cluster.request(spec.clone()).unwrap();
    assert_eq!(answer["status"]["expirationTimestamp"], "2026-01-01T01:00:07Z");
    let claims = jwt::peek(answer["status"]["token"].as_str().unwrap()).unwrap();
    assert_eq!(claims["exp"].as_i64(), Some(at(365 * 24 * 3600).as_second()));
    assert_eq!(claims["kubernetes.io"]["warnafter"].as_i64(), Some(at(3607).as_second()));
    spec["audiences"] = json!(["vault"]);
    let claims = jwt::peek(&cluster.token(spec)).unwrap();
    assert_eq!(claims["exp"].as_i64(), Some(at(3607).as_second()));
}

#[test]
fn what_is_asked_wrongly_is_refused_as_upstream_does() {
    let cluster = Cluster::new();
    let mut stale = bound("Pod", "web");
    stale["boundObjectRef"]["uid"] = json!("old");
    for (spec, code, message) in [
        (
            json!({ "expirationSeconds": 599 }),
            422,
            "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes",
        ),
        (
            json!({ "expirationSeconds": 4294967297_i64 }),
            422,
            "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 4294967297: may not specify a duration larger than 2^32 seconds",
        ),
        (bound("Pod", "none"), 404, "pods \"none\" not found"),
        (
            bound("Pod", "alien"),
            400,
            "cannot bind token for serviceaccount \"app\" to pod running with different serviceaccount name.",
        ),
        (bound("ConfigMap", "c"), 400, "cannot bind token to object of type /v1, Kind=ConfigMap"),
        (
            stale,
            409,
            "Operation cannot be fulfilled on Pod \"web\": the UID in the bound object reference (old) does not match the UID in record. The object might have been deleted and then recreated",
        ),
    ] {
        let refusal = cluster.request(spec).unwrap_err();
        assert_eq!((refusal.code, refusal.message.as_str()), (code, message));
    }
    let none = cluster.tokens.token_request("default", "none", json!({}), at(0)).unwrap_err();
    assert_eq!((none.code, none.message.as_str()), (404, "serviceaccounts \"none\" not found"));
    let other = json!({ "metadata": { "name": "b" } });
    let refusal = cluster.tokens.token_request("default", "app", other, at(0)).unwrap_err();
    assert_eq!(
        refusal.message,
        "TokenRequest.authentication.k8s.io \"app\" is invalid: metadata.name: Invalid value: \"b\": must match the service account name if specified"
    );
}

#[test]
fn another_clusters_token_is_not_ours() {
    let (one, two) = (Cluster::new(), Cluster::new());
    let token = one.token(json!({}));
    assert!(two.tokens.claims_to_be_ours(&token));
    assert_eq!(two.user(&token, 0), Err("the token is signed by an unknown key".to_owned()));
}

#[test]
fn the_published_key_is_the_one_that_signs() {
    let cluster = Cluster::new();
    let jwks = cluster.tokens.jwks();
    let header = cluster.token(json!({})).split('.').next().unwrap().to_owned();
    let header = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, header).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    assert_eq!(jwks["keys"][0]["kid"], header["kid"]);
    assert_eq!(cluster.tokens.openid_configuration()["issuer"], ISSUER);
}

#[test]
fn ids_are_random_uuids() {
    let id = random_uuid();
    let lengths: Vec<usize> = id.split('-').map(str::len).collect();
    assert_eq!(lengths, [8, 4, 4, 4, 12]);
    assert_eq!(id.as_bytes()[14], b'4');
    assert!(b"89ab".contains(&id.as_bytes()[19]));
    assert_ne!(id, random_uuid());
}

/// A cluster whose Secret default/kept holds a token of the account.
fn with_secret_token() -> (Cluster, String) {
    let cluster = Cluster::new();
    let token = cluster.tokens.secret_token("default", "app", "uid-app", "kept").unwrap();
    cluster.put("secrets", "default", "kept", kept(&token));
    (cluster, token)
}

fn kept(token: &str) -> Value {
    let data = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, token);
    json!({ "type": "kubernetes.io/service-account-token", "data": { "token": data } })
}

#[test]
fn a_token_in_a_secret_is_good_for_years() {
    let (cluster, token) = with_secret_token();
    assert!(cluster.tokens.claims_to_be_ours(&token));
    let user = cluster.user(&token, 10 * 365 * 24 * 3600).unwrap();
    assert_eq!(user, UserInfo::service_account("default", "app", "uid-app"));
    let audiences =
        |wanted: &[String]| cluster.tokens.authenticate(&token, wanted, at(0)).map(|(_, audiences)| audiences);
    assert_eq!(audiences(&[]).unwrap(), [ISSUER]);
    assert_eq!(audiences(&["vault".to_owned(), ISSUER.to_owned()]).unwrap(), [ISSUER]);
    assert!(matches!(audiences(&["vault".to_owned()]), Err(ServiceAccountError::Audience(..))));
    let claims = jwt::peek(&token).unwrap();
    assert_eq!(
        claims,
        json!({
            "iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:default:app",
            "kubernetes.io/serviceaccount/namespace": "default",
            "kubernetes.io/serviceaccount/secret.name": "kept",
            "kubernetes.io/serviceaccount/service-account.name": "app",
            "kubernetes.io/serviceaccount/service-account.uid": "uid-app",
        })
    );
}

#[test]
fn a_token_in_a_secret_ends_with_the_secret_and_the_account() {
    let invalidated = "service account token has been invalidated";
    let not_in_secret = "service account token is not the one that its secret holds";
    type Change = fn(&Cluster, &str);
    let changes: [(Change, &str); 7] = [
        (|cluster, _| cluster.facts.observe("", "secrets", "default", "kept", None), invalidated),
        (|cluster, _| cluster.facts.observe("", "serviceaccounts", "default", "app", None), invalidated),
        (
            |cluster, _| cluster.put("serviceaccounts", "default", "app", json!({ "metadata": { "uid": "another" } })),
            invalidated,
        ),
        (
            |cluster, token| {
                let mut going = kept(token);
                going["metadata"] = json!({ "deletionTimestamp": NOW });
                cluster.put("secrets", "default", "kept", going);
            },
            invalidated,
        ),
        (|cluster, _| cluster.put("secrets", "default", "kept", kept("another")), not_in_secret),
        (
            |cluster, token| {
                let mut opaque = kept(token);
                opaque["type"] = "Opaque".into();
                cluster.put("secrets", "default", "kept", opaque);
            },
            not_in_secret,
        ),
        (
            |cluster, token| {
                let mut marked = kept(token);
                marked["metadata"] = json!({ "labels": { "kubernetes.io/legacy-token-invalid-since": "2026-01-01" } });
                cluster.put("secrets", "default", "kept", marked);
            },
            "service account token's secret is labelled kubernetes.io/legacy-token-invalid-since",
        ),
    ];
    for (number, (change, why)) in changes.into_iter().enumerate() {
        let (cluster, token) = with_secret_token();
        cluster.user(&token, 0).unwrap();
        change(&cluster, &token);
        assert_eq!(cluster.user(&token, 0), Err(why.to_owned()), "change {number}");
    }
    // One of another cluster has the right form.
    let (cluster, _) = with_secret_token();
    let (_, foreign) = with_secret_token();
    cluster.put("secrets", "default", "kept", kept(&foreign));
    assert_eq!(cluster.user(&foreign, 0), Err("the token is signed by an unknown key".to_owned()));
}
