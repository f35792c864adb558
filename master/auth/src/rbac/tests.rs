//! The index against an evaluator that looks at everything, and the texts.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::escalation::{Write, check};
use super::*;

type Objects = BTreeMap<(&'static str, String, String), Value>;

fn fill(rbac: &Rbac, objects: &Objects) {
    for ((resource, namespace, name), object) in objects {
        rbac.observe(GROUP, resource, namespace, name, Some(object));
    }
}

fn request<'a>(user: &'a UserInfo, verb: &'a str, resource: &'a str, namespace: &'a str) -> Attributes<'a> {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    Attributes { version: "v1", resource, subresource, namespace, ..Attributes::of(user, verb) }
}

/// RBAC as its documentation puts it, without any index.
fn naive(objects: &Objects, attributes: &Attributes<'_>) -> bool {
    let list = |value: &Value| -> Vec<String> { serde_json::from_value(value.clone()).unwrap_or_default() };
    let names_user = |subject: &Value, namespace: &str| {
        let text = |key: &str| subject[key].as_str().unwrap_or_default();
        match text("kind") {
            "User" => text("name") == attributes.user.username,
            "Group" => attributes.user.in_group(text("name")),
            "ServiceAccount" => {
                let namespace = if text("namespace").is_empty() { namespace } else { text("namespace") };
                attributes.user.username == format!("system:serviceaccount:{namespace}:{}", text("name"))
            }
            _ => false,
        }
    };
    let rule_allows = |rule: &Value| {
        let has = |key: &str, wanted: &str| list(&rule[key]).iter().any(|v| v == "*" || v == wanted);
        if !has("verbs", attributes.verb) {
            return false;
        }
        if let Some(path) = attributes.path {
            return list(&rule["nonResourceURLs"])
                .iter()
                .any(|url| url == path || url.ends_with('*') && path.starts_with(url.trim_end_matches('*')));
        }
        let combined = attributes.combined_resource();
        let any_of = format!("*/{}", attributes.subresource);
        let resource = list(&rule["resources"])
            .iter()
            .any(|r| r == "*" || *r == combined || !attributes.subresource.is_empty() && *r == any_of);
        let names = list(&rule["resourceNames"]);
        has("apiGroups", attributes.group)
            && resource
            && (names.is_empty() || names.iter().any(|n| n == attributes.name))
    };
    objects.iter().any(|((resource, namespace, _), binding)| {
        let in_scope = match *resource {
            "clusterrolebindings" => true,
            "rolebindings" => !attributes.namespace.is_empty() && namespace == attributes.namespace,
            _ => false,
        };
        let named = binding["subjects"].as_array().into_iter().flatten().any(|s| names_user(s, namespace));
        let role = binding["roleRef"]["name"].as_str().unwrap_or_default().to_owned();
        let role = if binding["roleRef"]["kind"] == "ClusterRole" {
            objects.get(&("clusterroles", String::new(), role))
        } else {
            objects.get(&("roles", namespace.clone(), role))
        };
        let rules = role.and_then(|role| role["rules"].as_array());
        in_scope && named && rules.into_iter().flatten().any(&rule_allows)
    })
}

fn pick(values: &'static [&'static str]) -> impl Strategy<Value = String> {
    proptest::sample::select(values).prop_map(str::to_owned)
}

fn some_of(values: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    proptest::sample::subsequence(values, 0..=values.len().min(2))
        .prop_map(|v| v.into_iter().map(str::to_owned).collect())
}

const VERBS: &[&str] = &["get", "list", "create", "*"];
const GROUPS: &[&str] = &["", "apps", "*"];
const RESOURCES: &[&str] = &["pods", "pods/log", "*/log", "nodes", "*", "pods/*"];
const NAMES: &[&str] = &["a", "b"];
const URLS: &[&str] = &["/healthz", "/apis/*", "*", "/api"];
const NAMESPACES: &[&str] = &["x", "y"];

fn rule() -> impl Strategy<Value = Value> {
    let resources = (some_of(VERBS), some_of(GROUPS), some_of(RESOURCES), some_of(NAMES)).prop_map(
        |(verbs, groups, resources, names)| {
            json!({ "verbs": verbs, "apiGroups": groups, "resources": resources, "resourceNames": names })
        },
    );
    let urls =
        (some_of(VERBS), some_of(URLS)).prop_map(|(verbs, urls)| json!({ "verbs": verbs, "nonResourceURLs": urls }));
    prop_oneof![4 => resources, 1 => urls]
}

fn subject() -> impl Strategy<Value = Value> {
    prop_oneof![
        pick(&["u1", "u2", "system:serviceaccount:x:sa"]).prop_map(|name| json!({ "kind": "User", "name": name })),
        pick(&["g1", "g2"]).prop_map(|name| json!({ "kind": "Group", "name": name })),
        pick(&["x", "y", ""]).prop_map(|ns| json!({ "kind": "ServiceAccount", "name": "sa", "namespace": ns })),
    ]
}

/// An object of one of the four kinds, or the removal of one.
fn change() -> impl Strategy<Value = ((&'static str, String, String), Option<Value>)> {
    let role = (pick(NAMESPACES), pick(&["r1", "r2"]), any::<bool>(), proptest::collection::vec(rule(), 0..3))
        .prop_map(|(namespace, name, cluster, rules)| {
            let (resource, namespace) = if cluster { ("clusterroles", String::new()) } else { ("roles", namespace) };
            ((resource, namespace, name), json!({ "rules": rules }))
        });
    let reference = (any::<bool>(), pick(&["r1", "r2", "missing"]));
    let binding = (
        pick(NAMESPACES),
        pick(&["b1", "b2", "b3"]),
        any::<bool>(),
        reference,
        proptest::collection::vec(subject(), 0..3),
    )
        .prop_map(|(namespace, name, cluster, (cluster_role, role), subjects)| {
            let (resource, namespace) =
                if cluster { ("clusterrolebindings", String::new()) } else { ("rolebindings", namespace) };
            let kind = if cluster || cluster_role { "ClusterRole" } else { "Role" };
            let object = json!({ "subjects": subjects, "roleRef": { "kind": kind, "name": role } });
            ((resource, namespace, name), object)
        });
    (prop_oneof![role, binding], proptest::bool::weighted(0.8))
        .prop_map(|((key, object), stays)| (key, stays.then_some(object)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_index_agrees_with_the_naive_evaluator(
        changes in proptest::collection::vec(change(), 0..30),
        requests in proptest::collection::vec(
            (pick(&["u1", "u2", "system:serviceaccount:x:sa"]), some_of(&["g1", "g2"]), pick(VERBS), pick(&["", "apps"]),
             pick(&["pods", "pods/log", "nodes"]), pick(&["", "x", "y"]), pick(&["", "a", "b"]),
             proptest::option::weighted(0.2, pick(&["/healthz", "/apis/apps", "/api"]))),
            1..20),
    ) {
        let rbac = Rbac::new();
        let mut objects = Objects::new();
        for (key, object) in changes {
            rbac.observe(GROUP, key.0, &key.1, &key.2, object.as_ref());
            match object {
                Some(object) => { objects.insert(key, object); }
                None => { objects.remove(&key); }
            }
        }
        for (user, groups, verb, group, resource, namespace, name, path) in requests {
            let user = UserInfo { username: user, groups, ..UserInfo::default() };
            let mut attributes = request(&user, &verb, &resource, &namespace);
            (attributes.group, attributes.name) = (&group, &name);
            if let Some(path) = &path {
                attributes = Attributes {
                    path: Some(path), group: "", resource: "", subresource: "", namespace: "", name: "", ..attributes
                };
            }
            prop_assert_eq!(rbac.authorize(&attributes).allowed(), naive(&objects, &attributes), "{:?}", attributes);
        }
    }

    /// What `covers` says of two rules agrees with what they allow.
    #[test]
    fn a_covering_rule_allows_whatever_the_covered_one_does(owner in rule(), wanted in rule()) {
        let (owner, wanted): (PolicyRule, PolicyRule) =
            (serde_json::from_value(owner).unwrap(), serde_json::from_value(wanted).unwrap());
        let covered = escalation::breakdown(&wanted).iter().all(|part| owner.covers(part));
        let user = UserInfo::default();
        for verb in ["get", "list", "other"] {
            for (group, resource, name) in
                [("", "pods", "a"), ("apps", "pods", "b"), ("", "pods/log", "c"), ("x", "nodes", "a"), ("", "nodes/log", "b")]
            {
                let attributes = Attributes { group, name, ..request(&user, verb, resource, "") };
                prop_assert!(!covered || !wanted.allows(&attributes) || owner.allows(&attributes));
            }
        }
    }
}

fn small_cluster() -> Rbac {
    let rbac = Rbac::new();
    let mut objects = Objects::new();
    let mut add = |resource: &'static str, namespace: &str, name: &str, object: Value| {
        objects.insert((resource, namespace.to_owned(), name.to_owned()), object);
    };
    let rules = json!([{ "apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"] }]);
    add("clusterroles", "", "reader", json!({ "rules": rules }));
    add("roles", "x", "reader", json!({ "rules": rules }));
    let to = |subject: Value, kind: &str, name: &str| json!({ "subjects": [subject], "roleRef": { "kind": kind, "name": name } });
    add("clusterrolebindings", "", "all", to(json!({ "kind": "Group", "name": "readers" }), "ClusterRole", "reader"));
    add("rolebindings", "x", "one", to(json!({ "kind": "User", "name": "jane" }), "Role", "reader"));
    let account = json!({ "kind": "ServiceAccount", "name": "app", "namespace": "y" });
    add("rolebindings", "x", "app", to(account, "ClusterRole", "reader"));
    add("rolebindings", "x", "broken", to(json!({ "kind": "User", "name": "joe" }), "Role", "gone"));
    let rights = json!([{ "apiGroups": [GROUP], "resources": ["roles", "rolebindings"], "verbs": ["create"] }]);
    add("roles", "x", "role-writer", json!({ "rules": rights }));
    fill(&rbac, &objects);
    rbac
}

#[test]
fn reasons_are_upstreams() {
    let rbac = small_cluster();
    let reason =
        |user: &UserInfo, namespace| rbac.authorize(&request(user, "get", "pods", namespace)).reason().to_owned();
    assert_eq!(
        reason(&UserInfo::new("x", &["readers"]), ""),
        "RBAC: allowed by ClusterRoleBinding \"all\" of ClusterRole \"reader\" to Group \"readers\""
    );
    assert_eq!(
        reason(&UserInfo::new("jane", &[]), "x"),
        "RBAC: allowed by RoleBinding \"one/x\" of Role \"reader\" to User \"jane\""
    );
    assert_eq!(
        reason(&UserInfo::service_account("y", "app", "u"), "x"),
        "RBAC: allowed by RoleBinding \"app/x\" of ClusterRole \"reader\" to ServiceAccount \"app/y\""
    );
    assert_eq!(reason(&UserInfo::new("joe", &[]), "x"), "RBAC: role.rbac.authorization.k8s.io \"gone\" not found");
    assert_eq!(reason(&UserInfo::new("jane", &[]), "y"), "");
}

#[test]
fn a_refusal_reads_as_upstreams() {
    let jane = UserInfo::new("jane", &[]);
    let message = |attributes: Attributes<'_>, reason: &str| attributes.forbidden(reason).message;
    assert_eq!(
        message(request(&jane, "list", "pods", "x"), ""),
        "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"x\""
    );
    let named = Attributes { name: "n1", ..request(&jane, "get", "nodes/log", "") };
    assert_eq!(
        message(named, "because"),
        "nodes \"n1\" is forbidden: User \"jane\" cannot get resource \"nodes/log\" in API group \"\" at the cluster scope: because"
    );
    let path = Attributes { path: Some("/metrics"), resource: "", ..request(&jane, "get", "", "") };
    assert_eq!(message(path, ""), "forbidden: User \"jane\" cannot get path \"/metrics\"");
}

fn write<'a>(user: &'a UserInfo, resource: &'a str, new: &'a Value) -> Write<'a> {
    Write { user, resource, namespace: "x", name: "new", old: None, new }
}

#[test]
fn nobody_grants_more_than_he_has() {
    let rbac = small_cluster();
    let jane = UserInfo::new("jane", &["developers"]);
    let role =
        |verbs: Value| json!({ "rules": [{ "apiGroups": [""], "resources": ["pods", "secrets"], "verbs": verbs }] });
    let refusal = check(&rbac, &rbac, &write(&jane, "roles", &role(json!(["get", "delete"])))).unwrap_err();
    assert_eq!((refusal.code, refusal.reason), (403, "Forbidden"));
    assert_eq!(
        refusal.message,
        "roles.rbac.authorization.k8s.io \"new\" is forbidden: user \"jane\" (groups=[\"developers\"]) is attempting to grant RBAC permissions not currently held:\n\
         {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}\n\
         {APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\" \"delete\"]}"
    );
    let own =
        json!({ "rules": [{ "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"], "verbs": ["get"] }] });
    check(&rbac, &rbac, &write(&jane, "roles", &own)).unwrap();
    let masters = UserInfo::new("root", &[names::PRIVILEGED_GROUP]);
    check(&rbac, &rbac, &write(&masters, "roles", &role(json!(["*"])))).unwrap();
}

#[test]
fn binding_needs_the_roles_rules_or_the_right_to_bind() {
    let rbac = small_cluster();
    let (jane, joe) = (UserInfo::new("jane", &[]), UserInfo::new("joe", &[]));
    let to = |name: &str| json!({ "roleRef": { "kind": "Role", "name": name }, "subjects": [] });
    check(&rbac, &rbac, &write(&jane, "rolebindings", &to("reader"))).unwrap();
    let refusal = check(&rbac, &rbac, &write(&jane, "rolebindings", &to("role-writer"))).unwrap_err();
    assert!(refusal.message.contains("is attempting to grant RBAC permissions not currently held:\n{APIGroups:"));
    let refusal = check(&rbac, &rbac, &write(&jane, "rolebindings", &to("gone"))).unwrap_err();
    assert_eq!((refusal.code, refusal.message.as_str()), (404, "role.rbac.authorization.k8s.io \"gone\" not found"));
    let refusal = check(&rbac, &rbac, &write(&joe, "rolebindings", &to("reader"))).unwrap_err();
    assert!(refusal.message.ends_with("; resolution errors: [role.rbac.authorization.k8s.io \"gone\" not found]"));

    let rules = json!([{ "apiGroups": [GROUP], "resources": ["roles"], "verbs": ["bind", "escalate"], "resourceNames": ["role-writer", "new"] }]);
    rbac.observe(GROUP, "roles", "x", "binder", Some(&json!({ "rules": rules })));
    let binding =
        json!({ "subjects": [{ "kind": "User", "name": "jane" }], "roleRef": { "kind": "Role", "name": "binder" } });
    rbac.observe(GROUP, "rolebindings", "x", "binder", Some(&binding));
    check(&rbac, &rbac, &write(&jane, "rolebindings", &to("role-writer"))).unwrap();
    let all = json!({ "rules": [{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }] });
    check(&rbac, &rbac, &write(&jane, "roles", &all)).unwrap();
}

#[test]
fn the_garbage_collector_may_unlink_what_it_could_not_write() {
    let rbac = small_cluster();
    let collector = UserInfo::new("collector", &[]);
    let rules = json!([{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }]);
    let old = json!({ "metadata": { "finalizers": ["f"], "ownerReferences": [{}] }, "rules": rules });
    let new = json!({ "metadata": {}, "rules": rules });
    check(&rbac, &rbac, &Write { old: Some(&old), ..write(&collector, "roles", &new) }).unwrap();
    let grown = json!({ "metadata": { "labels": { "a": "b" } }, "rules": rules });
    check(&rbac, &rbac, &Write { old: Some(&old), ..write(&collector, "roles", &grown) }).unwrap_err();
}

#[test]
fn a_role_of_too_many_permissions_is_not_taken_apart() {
    let rbac = small_cluster();
    let jane = UserInfo::new("jane", &[]);
    let words: Vec<String> = (0..2_000).map(|n| format!("w{n}")).collect();
    let role = json!({ "rules": [{ "apiGroups": words, "resources": words, "resourceNames": words, "verbs": words }] });
    let refusal = check(&rbac, &rbac, &write(&jane, "roles", &role)).unwrap_err();
    assert!(refusal.message.contains("grant more than 100000 single permissions"), "{}", refusal.message);
}

#[test]
fn gathering_roles_is_for_those_who_have_everything() {
    let rbac = small_cluster();
    let jane = UserInfo::new("jane", &[]);
    let role = json!({ "aggregationRule": { "clusterRoleSelectors": [{ "matchLabels": { "a": "b" } }] } });
    let refusal = check(&rbac, &rbac, &write(&jane, "clusterroles", &role)).unwrap_err();
    assert!(refusal.message.ends_with("must have cluster-admin privileges to use the aggregationRule"));
}
