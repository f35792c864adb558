use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use auth::{Attributes, Observer as _, UserInfo};
use futures::FutureExt as _;
use serde_json::{Value, json};

use super::{Class, FlowControl, LEVELS, SCHEMAS, objects};

/// What every cluster begins with, and more.
fn control(more: &[(&str, Value)]) -> FlowControl {
    let control = FlowControl::new();
    let initial = objects().into_iter().map(|(path, object)| {
        let resource = if path.ends_with(SCHEMAS) { SCHEMAS } else { LEVELS };
        (resource, object)
    });
    for (resource, mut object) in initial.chain(more.iter().cloned()) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        object["metadata"]["uid"] = format!("uid-{name}").into();
        control.observe("", resource, "", &name, Some(&object));
    }
    control
}

fn asked<'a>(user: &'a UserInfo, verb: &'a str, resource: &'a str, namespace: &'a str) -> Attributes<'a> {
    Attributes { version: "v1", resource, namespace, ..Attributes::of(user, verb) }
}

fn schema_of(control: &FlowControl, attributes: &Attributes<'_>) -> String {
    let class = control.classify(attributes).unwrap();
    class.schema.uid.to_str().unwrap().to_owned()
}

fn user(name: &str, groups: &[&str]) -> UserInfo {
    UserInfo::new(name, groups)
}

#[test]
fn requests_belong_where_upstream_has_them() {
    let control = control(&[]);
    let everybody = "system:authenticated";
    let admin = user("a", &["system:masters", everybody]);
    assert_eq!(schema_of(&control, &asked(&admin, "list", "pods", "")), "uid-exempt");
    let node = user("system:node:n", &["system:nodes", everybody]);
    assert_eq!(schema_of(&control, &asked(&node, "update", "nodes", "")), "uid-system-node-high");
    assert_eq!(schema_of(&control, &asked(&node, "list", "pods", "")), "uid-system-nodes");
    let account = user("system:serviceaccount:kube-system:x", &["system:serviceaccounts", everybody]);
    assert_eq!(schema_of(&control, &asked(&account, "list", "pods", "")), "uid-kube-system-service-accounts");
    let other = user("system:serviceaccount:default:x", &["system:serviceaccounts", everybody]);
    assert_eq!(schema_of(&control, &asked(&other, "list", "pods", "default")), "uid-service-accounts");
    let anybody = user("u", &[everybody]);
    assert_eq!(schema_of(&control, &asked(&anybody, "list", "pods", "default")), "uid-global-default");
    let path = |path| Attributes { path: Some(path), resource: "", ..asked(&anybody, "get", "", "") };
    assert_eq!(schema_of(&control, &path("/healthz")), "uid-probes");
    assert_eq!(schema_of(&control, &path("/healthz/ping")), "uid-probes");
    assert_eq!(schema_of(&control, &path("/healthzz")), "uid-global-default");
}

/// A level of `shares` shares for the user `u`, and what becomes of his requests beyond.
fn narrow(response: &Value) -> [(&'static str, Value); 2] {
    let limited = json!({ "nominalConcurrencyShares": 1, "borrowingLimitPercent": 0, "limitResponse": response });
    let rules = json!([{
        "subjects": [{ "kind": "User", "user": { "name": "u" } }],
        "resourceRules": [{ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"] }],
    }]);
    let schema = json!({
        "matchingPrecedence": 10, "priorityLevelConfiguration": { "name": "narrow" }, "rules": rules,
        "distinguisherMethod": { "type": "ByNamespace" },
    });
    [
        (LEVELS, json!({ "metadata": { "name": "narrow" }, "spec": { "type": "Limited", "limited": limited } })),
        (SCHEMAS, json!({ "metadata": { "name": "narrow" }, "spec": schema })),
    ]
}

fn class(control: &FlowControl, namespace: &str) -> Class {
    control.classify(&asked(&user("u", &["system:authenticated"]), "list", "pods", namespace)).unwrap()
}

#[tokio::test]
async fn what_is_beyond_a_level_is_refused() {
    let control = control(&narrow(&json!({ "type": "Reject" })));
    let class = class(&control, "a");
    assert_eq!(class.schema.uid, "uid-narrow");
    let mut seats = Vec::new();
    while let Some(seat) = control.seat(&class, 1).await {
        seats.push(seat);
    }
    // One of 246 shares, rounded up.
    assert_eq!(seats.len(), 3);
    seats.pop();
    assert!(control.seat(&class, 1).await.is_some());
    // The others are not touched by it.
    let anybody = user("x", &["system:authenticated"]);
    let other = control.classify(&asked(&anybody, "list", "pods", "")).unwrap();
    assert!(control.seat(&other, 1).await.is_some());
}

#[tokio::test]
async fn who_waits_is_served_in_turn() {
    let queuing = json!({ "queues": 8, "handSize": 1, "queueLengthLimit": 5 });
    let control = Arc::new(control(&narrow(&json!({ "type": "Queue", "queuing": queuing }))));
    let greedy = class(&control, "greedy");
    let queue = |class: &Class| {
        let mut hasher = DefaultHasher::new();
        (class.flow, 0_u64).hash(&mut hasher);
        hasher.finish() % 8
    };
    let others = (0..100).map(|n| class(&control, &format!("modest-{n}")));
    let modest = { others }.find(|other| queue(other) != queue(&greedy)).unwrap();
    let mut seats = Vec::new();
    for _ in 0..3 {
        seats.push(control.seat(&greedy, 1).await.unwrap());
    }
    let mut waiting: Vec<_> = (0..5).map(|_| Box::pin(control.seat(&greedy, 1))).collect();
    waiting.iter_mut().for_each(|one| assert!(one.now_or_never().is_none()));
    assert!(control.seat(&greedy, 1).await.is_none(), "his queue is full");
    let mut his = Box::pin(control.seat(&modest, 1));
    assert!((&mut his).now_or_never().is_none());
    // After one of the many it is the turn of the other flow at the latest.
    seats.truncate(1);
    assert!(his.await.is_some());
    // Those who go away make room for others.
    drop(waiting);
    drop(seats);
    assert!(control.seat(&greedy, 1).await.is_some());
}

#[tokio::test]
async fn levels_take_what_nobody_needs() {
    let control = control(&[]);
    let anybody = user("x", &["system:authenticated"]);
    let default = control.classify(&asked(&anybody, "list", "pods", "")).unwrap();
    let mut seats = Vec::new();
    while let Some(Some(seat)) = control.seat(&default, 1).now_or_never() {
        seats.push(seat);
    }
    // More than its nominal 49, but not what others are sure of.
    assert!(seats.len() > 100 && seats.len() < 400, "{}", seats.len());
    let node = user("system:node:n", &["system:nodes", "system:authenticated"]);
    let nodes = control.classify(&asked(&node, "update", "nodes", "")).unwrap();
    assert!(control.seat(&nodes, 1).now_or_never().flatten().is_some());
}

#[tokio::test]
async fn what_is_wide_takes_more_seats_and_never_waits_for_ever() {
    let queuing = json!({ "queues": 1, "handSize": 1, "queueLengthLimit": 5 });
    let mut level = narrow(&json!({ "type": "Queue", "queuing": queuing }));
    // 24 of some 270 shares: 54 seats, of which one request takes no more than 15 percent.
    level[0].1["spec"]["limited"]["nominalConcurrencyShares"] = 24.into();
    let control = control(&level);
    let class = class(&control, "a");
    let mut seats = Vec::new();
    while let Some(Some(seat)) = control.seat(&class, 50).now_or_never() {
        seats.push(seat);
    }
    assert_eq!(seats.len(), 6, "nine each");
    // The narrow one waits behind the wide one, for which there is no room.
    let (mut wide, mut narrow) = (Box::pin(control.seat(&class, 50)), Box::pin(control.seat(&class, 1)));
    assert!((&mut wide).now_or_never().is_none() && (&mut narrow).now_or_never().is_none());
    seats.pop();
    let wide = wide.await;
    assert!(wide.is_some() && (&mut narrow).now_or_never().is_none());
    drop(wide);
    assert!(narrow.await.is_some());
}
