use super::*;
use crate::{Facts, Observer as _, ServiceAccountTokens, SigningKey, TokenIssuerConfig, pki};

fn reviews() -> (Reviews, Arc<Authenticator>) {
    let facts = Arc::new(Facts::new());
    facts.observe("", "serviceaccounts", "default", "app", Some(&json!({ "metadata": { "uid": "u" } })));
    let config = TokenIssuerConfig {
        issuer: "https://issuer.test".to_owned(),
        audiences: Vec::new(),
        signing_key: SigningKey::from_pem(&pki::new_key_pem().unwrap()).unwrap(),
        verifying_keys: Vec::new(),
    };
    let tokens = Arc::new(ServiceAccountTokens::new(config, Arc::clone(&facts)));
    let authenticator = Arc::new(Authenticator::new(facts, tokens));
    let rbac = Arc::new(Rbac::new());
    let group = "rbac.authorization.k8s.io";
    let rules = json!([
        { "apiGroups": [""], "resources": ["pods"], "verbs": ["get"] },
        { "nonResourceURLs": ["/metrics"], "verbs": ["get"] },
    ]);
    rbac.observe(group, "clusterroles", "", "r", Some(&json!({ "rules": rules })));
    let binding =
        json!({ "subjects": [{ "kind": "User", "name": "jane" }], "roleRef": { "kind": "ClusterRole", "name": "r" } });
    rbac.observe(group, "clusterrolebindings", "", "b", Some(&binding));
    let authorizer = Arc::clone(&rbac) as Arc<dyn Authorizer>;
    (Reviews::new(Arc::clone(&authenticator), authorizer, rbac), authenticator)
}

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn ask(resource: &str, user: &UserInfo, spec: Value) -> Result<Value, Refusal> {
    let (reviews, _) = reviews();
    let answer = reviews.review(resource, "default", user, json!({ "kind": "K", "spec": spec }), now()).unwrap();
    answer.map(|answer| {
        assert_eq!(answer["kind"], "K");
        answer["status"].clone()
    })
}

fn pods(verb: &str) -> Value {
    json!({ "resourceAttributes": { "verb": verb, "resource": "pods", "namespace": "default" } })
}

#[test]
fn access_of_oneself_and_of_others() {
    let (jane, joe) = (UserInfo::new("jane", &[]), UserInfo::new("joe", &[]));
    let reason = "RBAC: allowed by ClusterRoleBinding \"b\" of ClusterRole \"r\" to User \"jane\"";
    let yes = json!({ "allowed": true, "reason": reason });
    assert_eq!(ask("selfsubjectaccessreviews", &jane, pods("get")).unwrap(), yes);
    assert_eq!(ask("selfsubjectaccessreviews", &joe, pods("get")).unwrap(), json!({ "allowed": false }));
    let mut spec = pods("get");
    spec["user"] = json!("jane");
    assert_eq!(ask("subjectaccessreviews", &joe, spec.clone()).unwrap(), yes);
    assert_eq!(ask("localsubjectaccessreviews", &joe, spec.clone()).unwrap(), yes);
    spec["resourceAttributes"]["namespace"] = json!("other");
    assert_eq!(ask("localsubjectaccessreviews", &joe, spec).unwrap_err().code, 400);
    let path = json!({ "nonResourceAttributes": { "path": "/metrics", "verb": "get" } });
    assert_eq!(ask("selfsubjectaccessreviews", &jane, path).unwrap()["allowed"], true);
}

#[test]
fn questions_that_cannot_be_answered() {
    let jane = UserInfo::new("jane", &[]);
    let refusal = ask("subjectaccessreviews", &jane, pods("get")).unwrap_err();
    assert_eq!(
        refusal.message,
        "SubjectAccessReview.authorization.k8s.io \"\" is invalid: spec.user: Invalid value: \"\": at least one of user or group must be specified"
    );
    let refusal = ask("selfsubjectaccessreviews", &jane, json!({})).unwrap_err();
    assert!(refusal.message.ends_with("exactly one of nonResourceAttributes or resourceAttributes must be specified"));
    assert_eq!(ask("tokenreviews", &jane, json!({})).unwrap_err().code, 400);
    assert_eq!(ask("selfsubjectrulesreviews", &jane, json!({})).unwrap_err().message, "no namespace on request");
    assert!(reviews().0.review("pods", "", &jane, json!({}), now()).is_none());
}

#[test]
fn a_token_is_reviewed() {
    let (reviews, authenticator) = reviews();
    let token = authenticator.tokens().token_request("default", "app", json!({}), now()).unwrap();
    let review = |token: &Value| {
        let body = json!({ "spec": { "token": token } });
        reviews.review("tokenreviews", "", &UserInfo::default(), body, now()).unwrap().unwrap()["status"].clone()
    };
    let status = review(&token["status"]["token"]);
    assert_eq!(status["authenticated"], true);
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:app");
    assert_eq!(status["audiences"], json!(["https://issuer.test"]));
    let status = review(&json!("nonsense"));
    assert_eq!(status, json!({ "user": {}, "error": "invalid bearer token: of no known kind" }));
}

#[test]
fn rules_of_oneself() {
    let status =
        ask("selfsubjectrulesreviews", &UserInfo::new("jane", &[]), json!({ "namespace": "default" })).unwrap();
    assert_eq!(
        status,
        json!({
            "incomplete": false,
            "resourceRules": [{ "apiGroups": [""], "resources": ["pods"], "verbs": ["get"] }],
            "nonResourceRules": [{ "nonResourceURLs": ["/metrics"], "verbs": ["get"] }],
        })
    );
    let root = UserInfo::new("root", &[names::PRIVILEGED_GROUP]);
    let status = ask("selfsubjectrulesreviews", &root, json!({ "namespace": "default" })).unwrap();
    assert_eq!(status["resourceRules"], json!([{ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] }]));
    let node = UserInfo::new("system:node:n1", &[names::NODES_GROUP]);
    let status = ask("selfsubjectrulesreviews", &node, json!({ "namespace": "default" })).unwrap();
    assert_eq!(status["incomplete"], true);
    assert_eq!(status["evaluationError"], "node authorizer does not support user rule resolution");
}

#[test]
fn who_am_i() {
    let jane = UserInfo::new("jane", &["developers"]);
    let status = ask("selfsubjectreviews", &jane, json!({})).unwrap();
    assert_eq!(status, json!({ "userInfo": { "username": "jane", "groups": ["developers"] } }));
}
