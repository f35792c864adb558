//! The state machine against a server that follows a script, with time paused.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::Response;
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Item {
    metadata: ItemMeta,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct ItemMeta {
    name: String,
}

/// What the server answers, in order, and what it was asked: queries and what is accepted.
#[derive(Clone)]
struct Script {
    answers: Arc<Mutex<VecDeque<(u16, String)>>>,
    asked: Arc<Mutex<Vec<[String; 2]>>>,
}

impl Script {
    fn new(answers: &[(u16, String)]) -> Self {
        Self { answers: Arc::new(Mutex::new(answers.iter().cloned().collect())), asked: Arc::default() }
    }

    /// Where the script is at its end there is no answer, as of a watch in which nothing happens.
    fn client(&self) -> kube::Client {
        let script = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let accepted = request.headers().get(header::ACCEPT).map(|accepted| accepted.to_str().unwrap().to_owned());
            let query = request.uri().query().unwrap_or_default().to_owned();
            script.asked.lock().unwrap().push([query, accepted.unwrap_or_default()]);
            let answer = script.answers.lock().unwrap().pop_front();
            async move {
                let Some((code, text)) = answer else { return std::future::pending().await };
                Ok::<_, Infallible>(Response::builder().status(code).body(Body::from(text.into_bytes())).unwrap())
            }
        });
        kube::Client::new(service, "default")
    }

    fn reflector(&self) -> Reflector {
        Reflector::new(self.client(), Collection::all("/api/v1/things").fields("a=b"))
    }

    fn asked(&self, index: usize) -> String {
        self.asked.lock().unwrap()[index][0].clone()
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

/// What is told next, in short: `[a b]` is a list, `[a` its beginning.
async fn next(reflector: &mut Reflector) -> String {
    let name = |item: Item| item.metadata.name;
    match reflector.next().await {
        Told::Applied(item) => format!("+{}", name(item)),
        Told::Deleted(item) => format!("-{}", name(item)),
        Told::Page { items, is_first, is_last } => {
            let names: Vec<String> = items.into_iter().map(name).collect();
            let ends = [if is_first { "[" } else { "" }, if is_last { "]" } else { "" }];
            format!("{}{}{}", ends[0], names.join(" "), ends[1])
        }
    }
}

/// Nothing is told any more; what is asked meanwhile is.
async fn silence(reflector: &mut Reflector, lasts: Duration) {
    assert!(timeout(lasts, reflector.next::<Item>()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn pages_become_one_list_and_the_watch_goes_on_from_it() {
    let bookmark = json!({"kind": "Thing", "apiVersion": "v1", "metadata": {"resourceVersion": "20"}});
    let script = Script::new(&[
        list(7, "token/1", &[item("a", 1)]),
        list(7, "", &[item("b", 2)]),
        events(&[("ADDED", item("c", 8)), ("DELETED", item("a", 9)), ("BOOKMARK", bookmark)]),
    ]);
    let mut reflector = script.reflector();
    for told in ["[a", "b]", "+c", "-a"] {
        assert_eq!(next(&mut reflector).await, told);
    }
    silence(&mut reflector, Duration::from_secs(5)).await;
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
    let mut reflector = script.reflector();
    for told in ["[]", "+a", "[b]"] {
        assert_eq!(next(&mut reflector).await, told);
    }
    assert!(script.asked(2).ends_with("resourceVersion=7"));
    assert!(!script.asked(3).contains("watch") && !script.asked(4).contains("watch"));
}

#[tokio::test(start_paused = true)]
async fn a_list_that_breaks_goes_on_at_its_page_or_begins_again() {
    let script = Script::new(&[
        list(7, "t", &[item("a", 1)]),
        (500, status(500).to_string()),
        (410, status(410).to_string()),
        list(9, "", &[item("b", 2)]),
    ]);
    let mut reflector = script.reflector();
    assert_eq!(next(&mut reflector).await, "[a");
    assert_eq!(next(&mut reflector).await, "[b]");
    assert!(script.asked(2).ends_with("continue=t") && script.asked(3).ends_with("limit=500"));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_listed_again_and_taken_for_nothing() {
    let nameless = json!({"metadata": {"resourceVersion": "3"}});
    let script = Script::new(&[
        list(7, "", &[item("a", 1), nameless.clone()]),
        list(8, "", &[item("a", 1)]),
        events(&[("MODIFIED", nameless), ("ADDED", item("never", 9))]),
        list(10, "", &[item("b", 9)]),
        events(&[("RENAMED", item("b", 11)), ("ADDED", item("never", 12))]),
        list(13, "", &[item("c", 12)]),
        (200, format!("\n{}\n", status(410))),
        list(14, "", &[]),
    ]);
    let mut reflector = script.reflector();
    for told in ["[a]", "[b]", "[c]", "[]"] {
        assert_eq!(next(&mut reflector).await, told);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_version_nothing_is_gone_on_from() {
    let of_no_version = |version: Value| json!({"metadata": {"name": "a", "resourceVersion": version}});
    let script = Script::new(&[
        (200, json!({"items": []}).to_string()),
        (200, json!({"metadata": {"resourceVersion": "", "continue": null}, "items": null}).to_string()),
        list(7, "", &[]),
        events(&[("ADDED", of_no_version("".into())), ("ADDED", item("never", 8))]),
        list(9, "", &[item("b", 9)]),
        events(&[("BOOKMARK", of_no_version(Value::Null))]),
        list(10, "", &[item("c", 10)]),
    ]);
    let mut reflector = script.reflector();
    for told in ["[]", "[b]", "[c]"] {
        assert_eq!(next(&mut reflector).await, told);
    }
    let asked = script.asked.lock().unwrap();
    assert!(asked.iter().all(|[query, _]| !query.ends_with("resourceVersion=")), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn half_a_line_is_no_line() {
    let (code, mut text) = events(&[("ADDED", item("a", 8)), ("ADDED", item("b", 9))]);
    text.truncate(text.len() - 4);
    let script = Script::new(&[list(7, "", &[]), (code, text), events(&[("ADDED", item("b", 9))])]);
    let mut reflector = script.reflector();
    for told in ["[]", "+a", "+b"] {
        assert_eq!(next(&mut reflector).await, told);
    }
    assert!(script.asked(2).ends_with("resourceVersion=8"));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_every_watch_is_not_asked_in_a_loop() {
    let empty = vec![events(&[]); 50];
    let script = Script::new(&[&[list(7, "", &[])], empty.as_slice()].concat());
    let mut reflector = script.reflector();
    assert_eq!(next(&mut reflector).await, "[]");
    silence(&mut reflector, Duration::from_secs(60)).await;
    let asked = script.asked.lock().unwrap().len();
    assert!(asked < 12, "{asked} requests in a minute");
}

#[tokio::test(start_paused = true)]
async fn metadata_is_asked_for_where_that_is_all() {
    let script = Script::new(&[list(7, "", &[])]);
    let mut reflector = Reflector::of_metadata(script.client(), Collection::all("/api/v1/things"));
    assert_eq!(next(&mut reflector).await, "[]");
    silence(&mut reflector, Duration::from_secs(5)).await;
    let asked = script.asked.lock().unwrap().clone();
    assert!(asked[0][1].starts_with("application/json;as=PartialObjectMetadataList;"), "{asked:?}");
    assert!(asked[1][1].starts_with("application/json;as=PartialObjectMetadata;"), "{asked:?}");
}
