//! The state machine against a server that follows a script, with time paused.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::*;
use crate::client::testing::answered;

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Item {
    metadata: ItemMeta,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ItemMeta {
    name: String,
    resource_version: String,
}

impl Trimmed for Item {
    fn resource_version(&self) -> &str {
        &self.metadata.resource_version
    }
}

/// What the server answers, in order, and what it was asked.
#[derive(Clone)]
struct Script {
    answers: Arc<Mutex<VecDeque<(u16, String)>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Script {
    fn new(answers: &[(u16, String)]) -> Self {
        Self { answers: Arc::new(Mutex::new(answers.iter().cloned().collect())), asked: Arc::default() }
    }

    fn client(&self) -> kube::Client {
        let script = self.clone();
        answered(move |asked| {
            script.asked.lock().unwrap().push(asked.uri.query().unwrap_or_default().to_owned());
            script.answers.lock().unwrap().pop_front()
        })
    }

    fn asked(&self, index: usize) -> String {
        self.asked.lock().unwrap()[index].clone()
    }
}

fn item(name: &str, version: u32) -> Value {
    json!({"metadata": {"name": name, "resourceVersion": version.to_string()}})
}

fn list(version: u32, next: &str, items: &[Value]) -> (u16, String) {
    (200, json!({"metadata": {"resourceVersion": version.to_string(), "continue": next}, "items": items}).to_string())
}

fn events(events: &[(&str, Value)]) -> (u16, String) {
    let lines: Vec<String> = events.iter().map(|(t, o)| json!({"type": t, "object": o}).to_string() + "\n").collect();
    (200, lines.concat())
}

fn status(code: u16) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "m", "code": code})
}

fn names(change: Change<Item>) -> (&'static str, Vec<String>) {
    let name = |item: Item| item.metadata.name;
    match change {
        Change::Replaced(items) => ("replaced", items.into_iter().map(name).collect()),
        Change::Applied(item) => ("applied", vec![name(item)]),
        Change::Deleted(item) => ("deleted", vec![name(item)]),
    }
}

async fn next(changes: &mut mpsc::Receiver<Change<Item>>) -> (&'static str, Vec<String>) {
    names(changes.recv().await.unwrap())
}

fn start(script: &Script) -> mpsc::Receiver<Change<Item>> {
    follow(script.client(), Collection { path: "/api/v1/things".into(), query: "fieldSelector=a%3Db".into() })
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn pages_become_one_list_and_the_watch_goes_on_from_it() {
    let script = Script::new(&[
        list(7, "token/1", &[item("a", 1)]),
        list(7, "", &[item("b", 2)]),
        events(&[
            ("ADDED", item("c", 8)),
            ("DELETED", item("a", 9)),
            (
                "BOOKMARK",
                json!({"kind": "Thing",
            "apiVersion": "v1", "metadata": {"resourceVersion": "20"}}),
            ),
        ]),
    ]);
    let mut changes = start(&script);
    assert_eq!(next(&mut changes).await, ("replaced", strings(&["a", "b"])));
    assert_eq!(next(&mut changes).await, ("applied", strings(&["c"])));
    assert_eq!(next(&mut changes).await, ("deleted", strings(&["a"])));
    while script.asked.lock().unwrap().len() < 4 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(script.asked(0), "fieldSelector=a%3Db&limit=500");
    assert_eq!(script.asked(1), "fieldSelector=a%3Db&limit=500&continue=token%2F1");
    assert!(script.asked(2).contains("watch=true") && script.asked(2).ends_with("resourceVersion=7"));
    // The watch that ended is resumed from its last bookmark.
    assert!(script.asked(3).ends_with("resourceVersion=20"), "{}", script.asked(3));
}

#[tokio::test(start_paused = true)]
async fn gone_starts_over_and_other_errors_resume() {
    let script = Script::new(&[
        list(7, "", &[]),
        (500, status(500).to_string()),
        events(&[("ADDED", item("a", 8)), ("ERROR", status(410))]),
        (503, "not json".into()),
        list(30, "", &[item("b", 30)]),
    ]);
    let mut changes = start(&script);
    assert_eq!(next(&mut changes).await, ("replaced", strings(&[])));
    assert_eq!(next(&mut changes).await, ("applied", strings(&["a"])));
    assert_eq!(next(&mut changes).await, ("replaced", strings(&["b"])));
    assert!(script.asked(2).ends_with("resourceVersion=7"));
    assert!(!script.asked(3).contains("watch") && !script.asked(4).contains("watch"));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_every_watch_is_not_asked_in_a_loop() {
    let empty = vec![events(&[]); 50];
    let script = Script::new(&[&[list(7, "", &[])], empty.as_slice()].concat());
    let mut changes = start(&script);
    next(&mut changes).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let asked = script.asked.lock().unwrap().len();
    assert!(asked < 12, "{asked} requests in a minute");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_receiver_ends_the_task() {
    let script = Script::new(&[list(7, "", &[])]);
    let mut changes = start(&script);
    next(&mut changes).await;
    drop(changes);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(Arc::strong_count(&script.asked), 1, "the client, and its copy of the script, are gone");
}
