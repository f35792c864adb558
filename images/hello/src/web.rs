//! What `hello` answers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::Incoming;

use crate::{grpc, load};

const HELP: &str = "\
GET  /                      who answers and what was asked
GET  /hostname              the pod's name alone
GET  /healthz               200, or 503 after /bad
POST /bad, /good            make health checks fail, pass again
POST /memory?mib=N          take N MiB more; /memory?mib=0 gives all back
POST /cpu?seconds=S&threads=N
GET  /slow?seconds=S        answers late
POST /exit?code=N           ends the process
POST /echo                  the request's body
GET  /env                   the environment
";
const MOST_ECHOED: usize = 1 << 20;

type Answer = Either<Full<Bytes>, grpc::Answer>;

/// The server's state; clones share it.
#[derive(Clone)]
pub struct Web {
    bad: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    name: Arc<str>,
}

impl Web {
    pub fn new(bad: bool) -> Self {
        let name = std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME")).unwrap_or_else(|_| "hello".into());
        Self { bad: Arc::new(AtomicBool::new(bad)), served: Arc::default(), name: name.into() }
    }

    pub async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Answer> {
        if request.uri().path() == "/grpc.health.v1.Health/Check" {
            return grpc::health(!self.bad.load(Ordering::Relaxed)).map(Either::Right);
        }
        let (status, text) = self.text(request, peer).await;
        let mut response = Response::new(Either::Left(Full::from(text)));
        *response.status_mut() = status;
        response
    }

    async fn text(&self, request: Request<Incoming>, peer: SocketAddr) -> (StatusCode, Vec<u8>) {
        let query = Query::of(&request);
        let ok = |text: String| (StatusCode::OK, text.into_bytes());
        match (request.method().as_str(), request.uri().path()) {
            ("GET", "/") => ok(self.who(&request, peer)),
            ("GET", "/hostname") => ok(format!("{}\n", self.name)),
            ("GET", "/healthz") if self.bad.load(Ordering::Relaxed) => {
                (StatusCode::SERVICE_UNAVAILABLE, b"bad, as asked\n".to_vec())
            }
            ("GET", "/healthz") => ok("ok\n".into()),
            ("POST", path @ ("/bad" | "/good")) => {
                self.bad.store(path == "/bad", Ordering::Relaxed);
                ok(format!("{} is {} now\n", self.name, path.trim_start_matches('/')))
            }
            ("POST", "/memory") => ok(memory(query.number("mib", 64.0))),
            ("POST", "/cpu") => {
                let (seconds, threads) = (query.number("seconds", 1.0), query.number("threads", 1.0));
                // Ends by itself; whoever asked need not wait.
                std::thread::spawn(move || load::burn(threads as usize, Duration::from_secs_f64(seconds)));
                ok(format!("burning {threads} threads for {seconds} s\n"))
            }
            ("GET", "/slow") => {
                tokio::time::sleep(Duration::from_secs_f64(query.number("seconds", 1.0))).await;
                ok("done\n".into())
            }
            ("POST", "/exit") => std::process::exit(query.number("code", 0.0) as i32),
            ("POST", "/echo") => match Limited::new(request.into_body(), MOST_ECHOED).collect().await {
                Ok(body) => (StatusCode::OK, body.to_bytes().to_vec()),
                Err(error) => (StatusCode::PAYLOAD_TOO_LARGE, format!("{error}\n").into_bytes()),
            },
            ("GET", "/env") => ok(std::env::vars().map(|(k, v)| format!("{k}={v}\n")).collect()),
            ("GET", "/help") => ok(HELP.into()),
            (method, path) => (StatusCode::NOT_FOUND, format!("no {method} {path} here\n{HELP}").into_bytes()),
        }
    }

    fn who(&self, request: &Request<Incoming>, peer: SocketAddr) -> String {
        let served = self.served.fetch_add(1, Ordering::Relaxed) + 1;
        let node = std::env::var("NODE_NAME").map(|n| format!(" on {n}")).unwrap_or_default();
        let headers: String = request
            .headers()
            .iter()
            .map(|(k, v)| format!("  {k}: {}\n", String::from_utf8_lossy(v.as_bytes())))
            .collect();
        format!(
            "hello from {}{node}, request {served}\n  {} {} from {}\n{headers}",
            self.name,
            request.method(),
            request.uri(),
            peer.ip()
        )
    }
}

fn memory(mib: f64) -> String {
    if mib == 0.0 {
        load::release();
        return "holding nothing\n".into();
    }
    format!("holding {} MiB\n", load::take(mib as usize))
}

struct Query(BTreeMap<String, String>);

impl Query {
    fn of(request: &Request<Incoming>) -> Self {
        let query = request.uri().query().unwrap_or("");
        Self(query.split('&').filter_map(|p| p.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect())
    }

    /// A value that is missing, negative or no number counts as the default.
    fn number(&self, key: &str, default: f64) -> f64 {
        self.0.get(key).and_then(|v| v.parse().ok()).filter(|v: &f64| v.is_finite() && *v >= 0.0).unwrap_or(default)
    }
}
