use std::collections::VecDeque;
use std::sync::Mutex;

use serde_json::{Value, json};

use super::*;
use crate::client::testing::answered;
use crate::identity::csr::Purpose;
use crate::identity::tests::TestCa;

/// An API server that hands out prepared answers in order and keeps what it was asked.
#[derive(Clone, Default)]
struct Api {
    answers: Arc<Mutex<VecDeque<Value>>>,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Api {
    fn client(&self) -> kube::Client {
        let api = self.clone();
        answered(move |asked| {
            assert!(asked.body.is_object());
            api.asked.lock().unwrap().push((asked.uri.path().to_owned(), asked.body));
            let answer = api.answers.lock().unwrap().pop_front();
            Some(answer.map_or_else(|| (500, "{}".to_owned()), |answer| (201, answer.to_string())))
        })
    }

    fn answer(&self, status: Value) {
        self.answers.lock().unwrap().push_back(json!({"metadata": {}, "spec": {}, "status": status}));
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn gate(api: &Api) -> Gate {
    Gate::new(api.client(), "n1", Authentication::default(), Authorization::default())
}

fn peer() -> Arc<Peer> {
    let identity = TestCa::new("ca").identity("n1", &Purpose::Client);
    Peer::from_certificate(&identity.certified.cert[0]).unwrap()
}

fn token(token: &str) -> HeaderMap {
    HeaderMap::from_iter([(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap())])
}

#[tokio::test]
async fn nobody_known_is_unauthorized_without_asking() {
    let api = Api::default();
    let refusal = gate(&api).pass(None, &Method::GET, "/pods", &HeaderMap::new()).await.unwrap_err();
    assert_eq!((refusal, api.asked()), (Refusal::Unauthorized, 0));
}

#[tokio::test]
async fn certificates_are_users_and_decisions_are_cached() {
    let api = Api::default();
    api.answer(json!({"allowed": true}));
    let gate = gate(&api);
    for _ in 0..2 {
        let user = gate.pass(Some(&peer()), &Method::GET, "/metrics/resource", &HeaderMap::new()).await.unwrap();
        assert_eq!(user.name, "system:node:n1");
        assert_eq!(user.groups, ["system:nodes", "system:authenticated"]);
    }
    assert_eq!(api.asked(), 1);
    let attributes = api.asked.lock().unwrap()[0].1["spec"]["resourceAttributes"].clone();
    assert_eq!(
        attributes,
        json!({"verb": "get", "version": "v1", "resource": "nodes", "subresource": "metrics", "name": "n1"})
    );
}

#[tokio::test]
async fn fine_grained_rights_come_before_proxy() {
    let api = Api::default();
    api.answer(json!({"allowed": false}));
    api.answer(json!({"allowed": true}));
    gate(&api).pass(Some(&peer()), &Method::GET, "/pods", &HeaderMap::new()).await.unwrap();
    let asked = api.asked.lock().unwrap();
    let subresources: Vec<_> = asked.iter().map(|(_, r)| &r["spec"]["resourceAttributes"]["subresource"]).collect();
    assert_eq!(subresources, ["pods", "proxy"]);
}

#[tokio::test(start_paused = true)]
async fn refusals_are_worded_as_upstream_and_kept_for_half_a_minute() {
    let api = Api::default();
    api.answer(json!({"allowed": false}));
    let gate = gate(&api);
    let exec = "/exec/ns/pod/container";
    for _ in 0..2 {
        let refusal = gate.pass(Some(&peer()), &Method::POST, exec, &HeaderMap::new()).await.unwrap_err();
        let text = "Forbidden (user=system:node:n1, verb=create, resource=nodes, subresource(s)=[proxy])\n";
        assert_eq!(refusal, Refusal::Forbidden(text.into()));
    }
    assert_eq!(api.asked(), 1);
    tokio::time::advance(std::time::Duration::from_secs(31)).await;
    api.answer(json!({"allowed": true}));
    gate.pass(Some(&peer()), &Method::POST, exec, &HeaderMap::new()).await.unwrap();
}

#[tokio::test]
async fn tokens_are_reviewed_once() {
    let api = Api::default();
    api.answer(json!({"authenticated": true, "user": {"username": "u", "uid": "1", "groups": ["g"]}}));
    api.answer(json!({"allowed": true}));
    let gate = gate(&api);
    for _ in 0..2 {
        let user = gate.pass(None, &Method::GET, "/stats/summary", &token("t")).await.unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_deref()), ("u", Some("1")));
    }
    assert_eq!(api.asked(), 2);
    api.answer(json!({"authenticated": false}));
    let refusal = gate.pass(None, &Method::GET, "/stats/summary", &token("bad")).await.unwrap_err();
    assert_eq!(refusal, Refusal::Unauthorized);
}

#[tokio::test]
async fn an_api_server_that_is_away_is_no_yes() {
    let api = Api::default();
    let refusal = gate(&api).pass(None, &Method::GET, "/pods", &token("t")).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Undecided(_)));
}

#[test]
fn paths_that_only_look_alike_need_proxy() {
    assert_eq!(subresources("/metricsx"), ["proxy"]);
    assert_eq!(subresources("/metrics"), ["metrics"]);
    assert_eq!(subresources("/logs/syslog"), ["log"]);
    assert_eq!(subresources("/containerLogs/ns/p/c"), ["proxy"]);
    assert_eq!(subresources("/configz"), ["configz", "proxy"]);
}
