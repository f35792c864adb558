//! Clients that mean no good, or do not know better: each gets an answer or is dropped, and nobody else notices.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by them

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use common::Master;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// `curl` as the administrator; the status code is the last line.
fn curl(master: &Master, path: &str, more: &[&str], body: &str) -> String {
    let mut curl = Command::new("curl");
    let url = format!("https://127.0.0.1:{}{path}", master.port);
    curl.args([
        "-sk",
        "--max-time",
        "60",
        "-w",
        "\n%{http_code}",
        "-H",
        &format!("Authorization: Bearer {}", token(master)),
    ]);
    if !body.is_empty() {
        // curl's HTTP/2 drops an answer that comes before it has sent everything.
        curl.args(["--http1.1", "-H", "Content-Type: application/json", "-H", "Expect:", "--data-binary", "@-"]);
    }
    let mut child = curl.args(more).arg(url).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // The server may answer before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(body.as_bytes());
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

fn token(master: &Master) -> String {
    let account = ["create", "serviceaccount", "hostile", "-n", "default"];
    if master.kubectl(&account).status.success() {
        let all = ["--clusterrole=cluster-admin", "--serviceaccount=default:hostile"];
        master.say(&[&["create", "clusterrolebinding", "hostile"], &all[..]].concat());
    }
    master.say(&["create", "token", "hostile"]).trim().to_owned()
}

/// TLS by openssl, which sends what it is given and then keeps the connection.
fn half_a_request(master: &Master, text: &str) -> Child {
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-quiet", "-connect", &format!("127.0.0.1:{}", master.port)]);
    let mut child = openssl.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    child
}

fn is_well(master: &Master) {
    assert_eq!(master.say(&["get", "--raw", "/readyz"]), "ok");
}

#[test]
fn bodies_that_are_too_large_or_too_deep_are_refused() {
    let master = Master::started();
    let large = format!(r#"{{"metadata":{{"name":"x"}},"data":{{"a":"{}"}}}}"#, "x".repeat(4 << 20));
    let said = curl(&master, MAPS, &[], &large);
    assert!(said.contains("Request entity too large: limit is 3145728") && said.ends_with("\n413"), "{said}");
    // A map within the limit of a request, and beyond that of its kind.
    let large = format!(r#"{{"metadata":{{"name":"x"}},"data":{{"a":"{}"}}}}"#, "x".repeat(2 << 20));
    let said = curl(&master, MAPS, &[], &large);
    assert!(said.contains("Too long: may not be more than 1048576 bytes") && said.ends_with("\n422"), "{said}");
    for deep in ["[".repeat(1 << 20), r#"{"a":"#.repeat(200_000)] {
        let said = curl(&master, MAPS, &[], &deep);
        assert!(said.contains(r#""reason":"BadRequest""#) && said.ends_with("\n400"), "{said}");
    }
    is_well(&master);
}

#[test]
fn paths_from_nowhere_get_an_answer() {
    let master = Master::started();
    for (path, code) in [
        ("/api/v1/namespaces/default/configmaps/%00", "404"),
        ("/api/v1/namespaces/%2e%2e/pods/x", "404"),
        ("/api/v1/namespaces/default/pods?labelSelector=%21%21", "400"),
        ("/api/v1/namespaces/default/pods?fieldSelector=spec.nothing%3D1", "400"),
        ("/api/v1/namespaces/default/pods?resourceVersion=later", "400"),
        ("/apis/no/v1/such", "404"),
        ("//api//v1", "404"),
    ] {
        let said = curl(&master, path, &["--path-as-is"], "");
        assert!(said.ends_with(&format!("\n{code}")), "{path}: {said}");
    }
    let long = format!("/api/v1/{}", "x".repeat(100_000));
    let said = curl(&master, &long, &["--http1.1"], "");
    assert!(said.ends_with("\n431") || said.ends_with("\n414"), "{said}");
    is_well(&master);
}

#[test]
fn silent_and_slow_clients_keep_nobody_waiting() {
    let master = Master::started();
    let silent: Vec<TcpStream> = (0..300).map(|_| TcpStream::connect(("127.0.0.1", master.port)).unwrap()).collect();
    let token = token(&master);
    let begun = format!("POST {MAPS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n");
    let mut slow: Vec<Child> = (0..5).map(|_| half_a_request(&master, &begun)).collect();
    let headed = format!("{begun}Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n{{");
    slow.extend((0..5).map(|_| half_a_request(&master, &headed)));
    for number in 0..10 {
        master.say(&["create", "configmap", &format!("meanwhile-{number}")]);
    }
    is_well(&master);
    for mut child in slow {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    drop(silent);
    is_well(&master);
}

#[test]
fn what_is_no_tls_is_hung_up_on() {
    let master = Master::started();
    for noise in [&b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0; 4096], b"\x16\x03\x01\xff\xff\x01"] {
        let mut tcp = TcpStream::connect(("127.0.0.1", master.port)).unwrap();
        tcp.write_all(noise).unwrap();
        tcp.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        // An alert or a reset, but nothing of ours.
        let _ = tcp.read_to_end(&mut answer);
        assert!(!answer.windows(4).any(|part| part == b"HTTP"), "{answer:?}");
    }
    is_well(&master);
}
