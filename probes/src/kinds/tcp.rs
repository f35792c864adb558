//! tcp: whether a connection can be opened (pkg/probe/tcp).

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::probe::{Outcome, authority};

pub(crate) async fn probe(host: &str, port: u16, timeout: Duration) -> Outcome {
    match tokio::time::timeout(timeout, TcpStream::connect((host, port))).await {
        Ok(Ok(stream)) => {
            // The probed side closes last otherwise, and collects sockets in TIME_WAIT.
            let _ = stream.set_zero_linger();
            Outcome::Success
        }
        Ok(Err(error)) => Outcome::Failure(dial_error(host, port, &error)),
        Err(_) => Outcome::Failure(format!("dial tcp {}: i/o timeout", authority(host, port))),
    }
}

/// A failed connect as Go words it.
pub(super) fn dial_error(host: &str, port: u16, error: &io::Error) -> String {
    let reason = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        io::ErrorKind::TimedOut => "connect: connection timed out".to_owned(),
        _ => error.to_string(),
    };
    format!("dial tcp {}: {reason}", authority(host, port))
}
