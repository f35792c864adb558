//! Policies in CEL: those that change writes, and those that judge them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{CONFIG_MAPS, PODS, Server, config_map, pod, server, with_service_account};
use serde_json::{Value, json};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";

fn rule(resource: &str) -> Value {
    json!({ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": [resource] })
}

/// A policy about ConfigMaps with a binding of the same name.
async fn put_into_force(server: &Server, sort: &str, name: &str, spec: Value, binding: Value) {
    let lower = sort.to_lowercase();
    let mut policy = json!({ "matchConstraints": { "resourceRules": [rule("configmaps")] } });
    policy.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let mut bound = json!({ "policyName": name });
    bound.as_object_mut().unwrap().extend(binding.as_object().unwrap().clone());
    for (kind, plural, spec) in [("Policy", "policies", policy), ("PolicyBinding", "policybindings", bound)] {
        let object = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{sort}Admission{kind}"),
            "metadata": { "name": name }, "spec": spec,
        });
        server.call("POST", &format!("{GROUP}/{lower}admission{plural}"), &object).await.expect(201);
    }
}

async fn mutating(server: &Server, name: &str, spec: Value) {
    put_into_force(server, "Mutating", name, spec, json!({})).await;
}

fn apply(expression: &str) -> Value {
    json!({ "patchType": "ApplyConfiguration", "applyConfiguration": { "expression": expression } })
}

fn patch(expression: &str) -> Value {
    json!({ "patchType": "JSONPatch", "jsonPatch": { "expression": expression } })
}

fn spec(mutations: &[Value]) -> Value {
    json!({ "mutations": mutations, "reinvocationPolicy": "Never" })
}

#[tokio::test]
async fn a_policy_changes_what_is_stored() {
    let server = server().await;
    let mut policy = spec(&[
        apply("Object{ metadata: Object.metadata{ labels: { 'by': variables.who } } }"),
        apply(
            "Object{ metadata: Object.metadata{ annotations: { \
             'may': authorizer.requestResource.check('delete').allowed() ? 'yes' : 'no', \
             'other': authorizer.serviceAccount('x', 'y').group('').resource('pods').check('get').allowed() ? 'yes' : 'no' } } }",
        ),
        patch(
            "[JSONPatch{ op: 'add', path: '/data/' + jsonpatch.escapeKey('a.b'), value: object.metadata.labels.by }]",
        ),
        patch("[JSONPatch{ op: 'test', path: '/data/key', value: 'other' }, JSONPatch{ op: 'remove', path: '/data' }]"),
    ]);
    policy["variables"] =
        json!([{ "name": "who", "expression": "request.userInfo.username + '-' + request.operation" }]);
    policy["matchConditions"] = json!([{ "name": "not-skipped", "expression": "object.metadata.name != 'skip'" }]);
    mutating(&server, "label", policy).await;
    let made = server.call("POST", CONFIG_MAPS, &config_map("a")).await.expect(201);
    assert_eq!(made["metadata"]["labels"], json!({ "by": "admin-CREATE" }));
    assert_eq!(made["data"], json!({ "key": "value", "a.b": "admin-CREATE" }));
    assert_eq!(made["metadata"]["annotations"], json!({ "may": "yes", "other": "no" }));
    let skipped = server.call("POST", CONFIG_MAPS, &config_map("skip")).await.expect(201);
    assert_eq!(skipped["metadata"]["labels"], Value::Null);
    let path = format!("{CONFIG_MAPS}/skip");
    server.typed("PATCH", &path, "application/merge-patch+json", r#"{"data":{"more":"x"}}"#).await.expect(200);
    server.delete(&format!("{CONFIG_MAPS}/a")).await.expect(200);
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let shown = server.accepting(&format!("{GROUP}/mutatingadmissionpolicies"), table).await.expect(200);
    assert_eq!(shown["rows"][0]["cells"].as_array().unwrap()[..3], [json!("label"), json!(4), json!("<unset>")]);
}

#[tokio::test]
async fn parameters_are_gone_through_and_may_be_missing() {
    let server = server().await;
    let mut policy = spec(&[apply("Object{ metadata: Object.metadata{ labels: params.data } }")]);
    policy["paramKind"] = json!({ "apiVersion": "v1", "kind": "ConfigMap" });
    policy["matchConditions"] = json!([{ "name": "no-params", "expression": "!has(object.metadata.labels) || !('params' in object.metadata.labels)" }]);
    let reference = json!({ "selector": { "matchLabels": { "params": "yes" } }, "parameterNotFoundAction": "Deny" });
    put_into_force(&server, "Mutating", "params", policy, json!({ "paramRef": reference })).await;
    let refused = server.call("POST", CONFIG_MAPS, &config_map("early")).await.expect(403);
    let wanted = "policy 'params' with binding 'params' denied request: failed to configure binding: no params found for policy \
                  binding with `Deny` parameterNotFoundAction";
    assert_eq!((&refused["message"], &refused["reason"]), (&json!(wanted), &json!("Forbidden")));
    let binding = format!("{GROUP}/mutatingadmissionpolicybindings/params");
    let allow = r#"{"spec":{"paramRef":{"parameterNotFoundAction":"Allow"}}}"#;
    server.typed("PATCH", &binding, "application/merge-patch+json", allow).await.expect(200);
    for (name, data) in [("p1", json!({ "one": "1" })), ("p2", json!({ "two": "2" }))] {
        let mut params = config_map(name);
        params["metadata"]["labels"] = json!({ "params": "yes" });
        params["data"] = data;
        server.call("POST", CONFIG_MAPS, &params).await.expect(201);
    }
    let made = server.call("POST", CONFIG_MAPS, &config_map("late")).await.expect(201);
    assert_eq!(made["metadata"]["labels"], json!({ "one": "1", "two": "2" }));
}

#[tokio::test]
async fn what_goes_wrong_refuses_unless_it_is_to_be_ignored() {
    let server = server().await;
    mutating(&server, "wrong", spec(&[apply("Object{ metadata: Object.metadata{ labels: { 'x': object.none } } }")]))
        .await;
    let refused = server.call("POST", CONFIG_MAPS, &config_map("a")).await.expect(403);
    let message = refused["message"].as_str().unwrap();
    assert!(
        message.starts_with("policy 'wrong' with binding 'wrong' denied request: expression 'Object{"),
        "{message}"
    );
    assert!(message.ends_with("resulted in error: no such key: none"), "{message}");
    assert_eq!((&refused["reason"], &refused["details"]["causes"][0]["message"]), (&json!("Invalid"), &json!(message)));
    let path = format!("{GROUP}/mutatingadmissionpolicies/wrong");
    let ignore = r#"[{"op":"replace","path":"/spec/failurePolicy","value":"Ignore"}]"#;
    server.typed("PATCH", &path, "application/json-patch+json", ignore).await.expect(200);
    server.call("POST", CONFIG_MAPS, &config_map("a")).await.expect(201);
}

#[tokio::test]
async fn what_a_policy_adds_is_seen_by_all_once_more() {
    let server = server().await;
    with_service_account(&server).await;
    let limits = json!({ "type": "Container", "default": { "memory": "10Mi" } });
    let range = json!({ "apiVersion": "v1", "kind": "LimitRange", "metadata": { "name": "l" }, "spec": { "limits": [limits] } });
    server.call("POST", "/api/v1/namespaces/default/limitranges", &range).await.expect(201);
    let mut early = spec(&[patch(
        "[JSONPatch{ op: 'add', path: '/metadata/annotations', \
                                   value: {'seen': string(object.spec.containers.size())} }]",
    )]);
    early["matchConstraints"] = json!({ "resourceRules": [rule("pods")] });
    early["reinvocationPolicy"] = "IfNeeded".into();
    mutating(&server, "a-early", early).await;
    let mut side = spec(&[apply(
        "Object{ spec: Object.spec{ containers: [ Object.spec.containers{ name: 'side', image: 'x' } ] } }",
    )]);
    side["matchConstraints"] = json!({ "resourceRules": [rule("pods")] });
    mutating(&server, "b-side", side).await;
    let made = server.call("POST", PODS, &pod("p")).await.expect(201);
    let containers = made["spec"]["containers"].as_array().unwrap();
    let limits: Vec<&Value> = containers.iter().map(|one| &one["resources"]["limits"]["memory"]).collect();
    assert_eq!(limits, [&json!("10Mi"), &json!("10Mi")]);
    assert_eq!(made["metadata"]["annotations"]["seen"], "2");
}

#[tokio::test]
async fn a_policy_judges_what_others_made_of_the_object() {
    let server = server().await;
    mutating(&server, "label", spec(&[apply("Object{ metadata: Object.metadata{ labels: { 'bad': 'yes' } } }")])).await;
    let judged = json!({ "validations": [{ "expression": "!has(object.metadata.labels)", "message": "no labels" }] });
    put_into_force(&server, "Validating", "judge", judged, json!({ "validationActions": ["Deny"] })).await;
    let refused = server.call("POST", CONFIG_MAPS, &config_map("a")).await.expect(422);
    let wanted = "configmaps \"a\" is forbidden: ValidatingAdmissionPolicy 'judge' with binding 'judge' denied request: no labels";
    assert_eq!(refused["message"], wanted);
    // Nobody keeps these from being changed.
    for sort in ["mutatingadmissionpolic", "validatingadmissionpolic"] {
        for plural in ["ies", "ybindings"] {
            let path = format!("{GROUP}/{sort}{plural}");
            let name = server.get(&path).await.expect(200)["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
            server.delete(&format!("{path}/{name}")).await.expect(200);
        }
    }
    server.call("POST", CONFIG_MAPS, &config_map("a")).await.expect(201);
}

#[tokio::test]
async fn policies_are_validated() {
    let server = server().await;
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy", "metadata": { "name": "p" },
        "spec": {
            "matchConstraints": { "resourceRules": [{ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["DELETE"],
                "resources": ["pods"] }] },
            "variables": [{ "name": "1x", "expression": "foo" }],
            "mutations": [
                { "patchType": "ApplyConfiguration", "applyConfiguration": { "expression": "1 + 1" } },
                { "patchType": "JSONPatch", "applyConfiguration": { "expression": "Object{}" } },
                { "patchType": "Strategic" },
                { "patchType": "JSONPatch", "jsonPatch": { "expression": "[JSONPatch{op: 1}]" } },
            ],
        },
    });
    let refused = server.call("POST", &format!("{GROUP}/mutatingadmissionpolicies"), &policy).await.expect(422);
    let message = refused["message"].as_str().unwrap();
    for words in [
        "spec.matchConstraints.resourceRules.operations: Unsupported value: \"DELETE\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"UPDATE\"",
        "spec.variables[0].name: Invalid value: \"1x\": must be a valid CEL identifier",
        "spec.variables[0].expression: Invalid value: \"foo\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'foo' (in container '')",
        "spec.mutations[0].applyConfiguration.expression: Invalid value: \"1 + 1\": must evaluate to Object but got int",
        "spec.mutations[1].jsonPatch: Required value: must be specified when patchType is JSONPatch",
        "spec.mutations[1].applyConfiguration: Invalid value: \"{applyConfiguration}\": must not be specified when patchType is JSONPatch",
        "spec.mutations[2].patchType: Unsupported value: \"Strategic\": supported values: \"ApplyConfiguration\", \"JSONPatch\"",
        "spec.mutations[3].jsonPatch.expression: Invalid value: \"[JSONPatch{op: 1}]\": compilation failed: ERROR: <input>",
        "spec.reinvocationPolicy: Required value",
    ] {
        assert!(message.contains(words), "{words}\n{message}");
    }
}

/// What a user other than the administrator is answered.
async fn as_user(server: &Server, user: &str, path: &str, object: &Value) -> (u16, Value) {
    let request = http::Request::post(path).header("content-type", "application/json");
    let request = request.body(object.to_string().into()).unwrap();
    let user = auth::UserInfo::new(user, &["system:authenticated"]);
    let (head, body) = server.raw(user, request).await.into_parts();
    let bytes = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
    (head.status.as_u16(), serde_json::from_slice(&bytes).unwrap())
}

#[tokio::test]
async fn who_puts_parameters_into_force_can_read_them() {
    let server = server().await;
    let policies = format!("{GROUP}/validatingadmissionpolicies");
    let bindings = format!("{GROUP}/validatingadmissionpolicybindings");
    let mut roles = vec![(
        "writer",
        json!([{ "apiGroups": ["admissionregistration.k8s.io"], "resources": ["*"], "verbs": ["*"] }]),
    )];
    roles.push(("reader", json!([{ "apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"] }])));
    for (name, rules) in roles {
        let role = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": name }, "rules": rules });
        server.call("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", &role).await.expect(201);
    }
    let bind = |role: &str, user: &str| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": format!("{role}-{user}") },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user }],
        })
    };
    for binding in [bind("writer", "jane"), bind("writer", "joe"), bind("reader", "joe")] {
        server.call("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding).await.expect(201);
    }
    let policy = |name: &str| {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": { "name": name },
            "spec": {
                "paramKind": { "apiVersion": "v1", "kind": "ConfigMap" },
                "matchConstraints": { "resourceRules": [rule("pods")] }, "validations": [{ "expression": "true" }],
            },
        })
    };
    let (code, refused) = as_user(&server, "jane", &policies, &policy("a")).await;
    let wanted = "ValidatingAdmissionPolicy.admissionregistration.k8s.io \"a\" is invalid: spec.paramKind: Forbidden: user &{jane  \
                  [system:authenticated] map[]} must have \"get\" permission on all objects of the referenced paramKind \
                  (kind=ConfigMap, apiVersion=v1)";
    assert_eq!((code, &refused["message"]), (422, &json!(wanted)));
    assert_eq!(as_user(&server, "joe", &policies, &policy("b")).await.0, 201);
    let binding = |reference: Value| {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": { "name": "b" },
            "spec": { "policyName": "b", "validationActions": ["Deny"], "paramRef": reference },
        })
    };
    let named = json!({ "name": "p", "namespace": "default", "parameterNotFoundAction": "Deny" });
    let (code, refused) = as_user(&server, "jane", &bindings, &binding(named.clone())).await;
    let wanted = "spec.paramRef: Forbidden: user &{jane  [system:authenticated] map[]} does not have \"get\" permission on the object \
                  referenced by paramRef";
    assert!(code == 422 && refused["message"].as_str().unwrap().ends_with(wanted), "{refused}");
    let selected = json!({ "selector": {}, "parameterNotFoundAction": "Deny" });
    assert_eq!(as_user(&server, "joe", &bindings, &binding(selected)).await.0, 422);
    assert_eq!(as_user(&server, "joe", &bindings, &binding(named)).await.0, 201);
}

#[tokio::test]
async fn a_policy_changes_a_scale() {
    let server = server().await;
    let mut policy = spec(&[patch("[JSONPatch{ op: 'replace', path: '/spec/replicas', value: 3 }]")]);
    policy["matchConstraints"] = json!({ "resourceRules": [{
        "apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["deployments/scale"],
    }] });
    policy["matchConditions"] = json!([{ "name": "many", "expression": "object.kind == 'Scale' && object.spec.replicas > 3 && oldObject.spec.replicas == 1" }]);
    mutating(&server, "cap", policy).await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let labels = json!({ "app": "x" });
    let template =
        json!({ "metadata": { "labels": labels }, "spec": { "containers": [{ "name": "c", "image": "i" }] } });
    let deployment = json!({
        "kind": "Deployment", "apiVersion": "apps/v1", "metadata": { "name": "x" },
        "spec": { "selector": { "matchLabels": labels }, "template": template },
    });
    server.call("POST", deployments, &deployment).await.expect(201);
    let scale = format!("{deployments}/x/scale");
    let to = async |replicas: i64| {
        let patch = json!({ "spec": { "replicas": replicas } }).to_string();
        server.typed("PATCH", &scale, "application/merge-patch+json", &patch).await.expect(200)
    };
    assert_eq!(to(9).await["spec"]["replicas"], 3);
    assert_eq!(server.get(&format!("{deployments}/x")).await.expect(200)["spec"]["replicas"], 3);
    assert_eq!(to(9).await["spec"]["replicas"], 9);
}
