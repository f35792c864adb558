//! Probers against real sockets on the loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use probes::{Exec, ExecError, ExecOutput, Handler, Kind, Probe, Prober, Report, Scheme, Start, Verdict};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

struct Commands(Result<ExecOutput, ExecError>);

impl Exec for Commands {
    async fn exec(&self, _: &[String], _: Duration) -> Result<ExecOutput, ExecError> {
        self.0.clone()
    }
}

fn no_exec() -> Arc<Commands> {
    Arc::new(Commands(Err(ExecError::Other("no exec here".into()))))
}

fn probe(handler: Handler) -> Probe {
    Probe {
        handler,
        initial_delay: Duration::ZERO,
        period: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        success_threshold: 1,
        failure_threshold: 1,
    }
}

fn http(address: SocketAddr, path: &str) -> Handler {
    let (host, port) = (address.ip().to_string(), address.port());
    Handler::Http { scheme: Scheme::Http, host, port, path: path.into(), headers: vec![] }
}

fn start() -> Start {
    Start { initial: Verdict::Unknown, age: Duration::ZERO, resumed: false, gate: None }
}

/// Runs a probe until its first verdict.
async fn first(kind: Kind, probe: Probe, exec: Arc<Commands>) -> (Verdict, Vec<Report>) {
    let reports = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&reports);
    let prober = Prober::spawn(kind, probe, start(), exec, move |asked| sink.lock().unwrap().extend(asked.report));
    let mut watch = prober.watch();
    let verdict = *watch.wait_for(|verdict| *verdict != Verdict::Unknown).await.unwrap();
    // The report follows the verdict on the same task.
    tokio::task::yield_now().await;
    let reports = reports.lock().unwrap().clone();
    (verdict, reports)
}

/// Answers every connection with the text for the path it asks for.
async fn server(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = vec![0; 4096];
            let read = stream.read(&mut buffer).await.unwrap();
            let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
            let path = text.split(' ').nth(1).unwrap_or_default();
            let _ = stream.write_all(answer(path).as_bytes()).await;
        }
    });
    address
}

fn status(code: u16, extra: &str) -> String {
    format!("HTTP/1.1 {code} X\r\n{extra}Content-Length: 4\r\n\r\nbody")
}

#[tokio::test]
async fn http_statuses_and_redirects() {
    let address = server(|path| match path {
        "/ok" => status(200, ""),
        "/here" => status(302, "Location: /ok\r\n"),
        "/healthz" => status(302, "Location: maintenance\r\n"),
        "/odd" => status(302, "Location: http://[\r\n"),
        "/nowhere" => status(302, ""),
        "/away" => status(302, "Location: http://example.com/\r\n"),
        "/loop" => status(302, "Location: /loop\r\n"),
        _ => status(503, ""),
    })
    .await;
    let ask = |path: &'static str| first(Kind::Readiness, probe(http(address, path)), no_exec());
    assert_eq!(ask("/ok").await, (Verdict::Success, vec![]));
    assert_eq!(ask("/here").await, (Verdict::Success, vec![]));
    let warning = "Readiness probe warning: Probe terminated redirects, Response body: body";
    assert_eq!(ask("/away").await, (Verdict::Success, vec![Report::Warning(warning.into())]));
    let failure = "Readiness probe failed: HTTP probe failed with statuscode: 503";
    assert_eq!(ask("/bad").await, (Verdict::Failure, vec![Report::Unhealthy(failure.into())]));
    // Relative to what was asked for.
    let failure = "Readiness probe failed: HTTP probe failed with statuscode: 503";
    assert_eq!(ask("/healthz").await, (Verdict::Failure, vec![Report::Unhealthy(failure.into())]));
    assert_eq!(ask("/odd").await.0, Verdict::Failure);
    assert_eq!(ask("/nowhere").await, (Verdict::Success, vec![Report::Warning(warning.into())]));
    let (verdict, reports) = ask("/loop").await;
    assert_eq!(verdict, Verdict::Failure);
    assert!(
        matches!(&reports[0], Report::Unhealthy(text) if text.contains("stopped after 10 redirects")),
        "{reports:?}"
    );
}

#[tokio::test]
async fn an_answer_that_breaks_off_counts_neither_way() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        // Each question is asked three times.
        for ends in [true, true, true, false, false, false] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbody").await.unwrap();
            kept.extend((!ends).then_some(stream));
        }
        std::future::pending::<()>().await;
    });
    let (sink, mut answers) = tokio::sync::mpsc::unbounded_channel();
    let prober = Prober::spawn(Kind::Liveness, probe(http(address, "/")), start(), no_exec(), move |asked| {
        sink.send(asked).unwrap();
    });
    for reason in
        ["unexpected EOF", "context deadline exceeded (Client.Timeout or context cancellation while reading body)"]
    {
        let asked = answers.recv().await.unwrap();
        let text = format!("Liveness probe errored and resulted in failure state: {reason}");
        assert_eq!((asked.result, asked.report), (None, Some(Report::Unhealthy(text))));
        assert_eq!(prober.verdict(), Verdict::Unknown);
    }
}

#[tokio::test]
async fn refused_connections_are_worded_as_go_does() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tcp = Handler::Tcp { host: "127.0.0.1".into(), port: address.port() };
    assert_eq!(first(Kind::Readiness, probe(tcp.clone()), no_exec()).await.0, Verdict::Success);
    drop(listener);
    let refused = format!("dial tcp {address}: connect: connection refused");
    let text = format!("Liveness probe failed: {refused}");
    assert_eq!(first(Kind::Liveness, probe(tcp), no_exec()).await, (Verdict::Failure, vec![Report::Unhealthy(text)]));
    let text = format!("Liveness probe failed: Get \"http://{address}/x\": {refused}");
    assert_eq!(
        first(Kind::Liveness, probe(http(address, "/x")), no_exec()).await,
        (Verdict::Failure, vec![Report::Unhealthy(text)])
    );
}

#[tokio::test]
async fn https_certificates_are_not_verified() {
    let certified = rcgen::generate_simple_self_signed(vec!["someone.else".into()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        let mut buffer = [0; 1024];
        let _ = stream.read(&mut buffer).await.unwrap();
        stream.write_all(status(204, "").as_bytes()).await.unwrap();
    });
    let mut handler = http(address, "/");
    if let Handler::Http { scheme, .. } = &mut handler {
        *scheme = Scheme::Https;
    }
    assert_eq!(first(Kind::Readiness, probe(handler), no_exec()).await, (Verdict::Success, vec![]));
}

/// By the end of an error callers know that the server can be asked by http: it answered so, in however small pieces.
#[tokio::test]
async fn a_server_without_tls_is_told_from_others() {
    let http = status(400, "");
    let cases: [(&[&[u8]], &str); 3] = [
        (&[http.as_bytes()], probes::kinds::http::PLAIN_ANSWER),
        (&[&http.as_bytes()[..2], &http.as_bytes()[2..]], probes::kinds::http::PLAIN_ANSWER),
        (&[b"220 mail.example.com ESMTP\r\n"], "tls: first record does not look like a TLS handshake"),
    ];
    for (pieces, expected) in cases {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let ask = async {
            let target =
                probes::kinds::http::Target { scheme: Scheme::Https, host: "127.0.0.1", port, path: "/", headers: &[] };
            probes::kinds::http::get_once(&target).await.unwrap_err()
        };
        let answer = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).await.unwrap();
            for piece in pieces {
                stream.write_all(piece).await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            stream
        };
        let (error, _) = tokio::join!(ask, answer);
        assert_eq!(error, format!("Get \"https://127.0.0.1:{port}/\": {expected}"));
    }
}

async fn health_server(answer: i32) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = hyper::service::service_fn(move |_| async move {
                let message = [0, 0, 0, 0, 2, 8, u8::try_from(answer).unwrap()];
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                let frames = [Frame::data(Bytes::copy_from_slice(&message)), Frame::trailers(trailers)];
                let body = StreamBody::new(futures::stream::iter(frames.map(Ok::<_, Infallible>)));
                let response = Response::builder().header("content-type", "application/grpc");
                Ok::<_, Infallible>(response.body(body).unwrap())
            });
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

#[tokio::test]
async fn grpc_health() {
    for (answer, expected) in [(1, Verdict::Success), (2, Verdict::Failure)] {
        let address = health_server(answer).await;
        let handler = Handler::Grpc { host: address.ip(), port: address.port(), service: String::new() };
        let (verdict, reports) = first(Kind::Readiness, probe(handler), no_exec()).await;
        assert_eq!(verdict, expected);
        if expected == Verdict::Failure {
            let text = "Readiness probe failed: service unhealthy (responded with \"NOT_SERVING\")";
            assert_eq!(reports, [Report::Unhealthy(text.into())]);
        }
    }
}

#[tokio::test]
async fn exec_answers() {
    let handler = || probe(Handler::Exec { command: vec!["cat".into(), "/x".into()] });
    let ask = |answer| first(Kind::Readiness, handler(), Arc::new(Commands(answer)));
    assert_eq!(ask(Ok(ExecOutput::default())).await.0, Verdict::Success);
    let failed = ExecOutput { exit_code: 1, output: b"cat: no such file\n".to_vec() };
    let text = "Readiness probe failed: cat: no such file\n";
    assert_eq!(ask(Ok(failed)).await, (Verdict::Failure, vec![Report::Unhealthy(text.into())]));
    let text = "Readiness probe failed: command timed out: \"cat /x\" timed out after 1s";
    assert_eq!(ask(Err(ExecError::TimedOut)).await, (Verdict::Failure, vec![Report::Unhealthy(text.into())]));
}

#[tokio::test]
async fn a_scout_finds_the_app_between_periods_and_failures_wait_for_them() {
    let up = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicUsize::new(0));
    let (is_up, count) = (Arc::clone(&up), Arc::clone(&asked));
    let address = server(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        status(if is_up.load(Ordering::SeqCst) { 200 } else { 500 }, "")
    })
    .await;
    let slow = Probe { period: Duration::from_secs(3600), failure_threshold: 2, ..probe(http(address, "/")) };
    let reports = Arc::new(AtomicUsize::new(0));
    let sink = Arc::clone(&reports);
    let prober = Prober::spawn(Kind::Readiness, slow, start(), no_exec(), move |asked| {
        assert_eq!(asked.result, Some(if asked.report.is_some() { "failed" } else { "successful" }));
        sink.fetch_add(1, Ordering::SeqCst);
    });
    while asked.load(Ordering::SeqCst) < 4 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Many failures, one of which counted.
    assert_eq!(prober.verdict(), Verdict::Unknown);
    assert_eq!(reports.load(Ordering::SeqCst), 1);
    up.store(true, Ordering::SeqCst);
    prober.watch().wait_for(|verdict| *verdict == Verdict::Success).await.unwrap();
}

#[tokio::test]
async fn a_gate_holds_the_others_back() {
    let address = server(|_| status(200, "")).await;
    let (open, gate) = tokio::sync::watch::channel(Verdict::Unknown);
    let start = Start { gate: Some(gate), ..start() };
    let prober = Prober::spawn(Kind::Liveness, probe(http(address, "/")), start, no_exec(), |_| {});
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(prober.verdict(), Verdict::Unknown);
    open.send(Verdict::Success).unwrap();
    prober.watch().wait_for(|verdict| *verdict == Verdict::Success).await.unwrap();
}
