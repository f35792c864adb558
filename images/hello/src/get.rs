//! `hello get URL`: a small web client, for pods that ask each other.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(3);

/// Asks `http://HOST[:PORT][/PATH]` and answers the body; anything but 200 is an error.
pub fn get(url: &str) -> Result<String, String> {
    let rest = url.strip_prefix("http://").ok_or_else(|| format!("{url:?} is no http:// URL"))?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
    let failed = |error: std::io::Error| format!("{url}: {error}");
    let target = address.to_socket_addrs().map_err(failed)?.next().ok_or_else(|| format!("{url}: no address"))?;
    let mut stream = TcpStream::connect_timeout(&target, PATIENCE).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n").map_err(failed)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(failed)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("{url}: no HTTP answer"))?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => Err(format!("{url}: {}", head.lines().next().unwrap_or_default())),
    }
}
