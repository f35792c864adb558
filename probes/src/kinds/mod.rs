//! One module a kind of probe.

pub mod exec;
pub mod grpc;
pub mod http;
pub mod tcp;
mod tls;

use crate::probe::{Handler, Outcome, Probe};

/// Bytes of an answer that are read and reported.
const MAX_OUTPUT: usize = 10 * 1024;

/// Asks once.
pub(crate) async fn ask<E: exec::Exec>(probe: &Probe, by: &E) -> Outcome {
    match &probe.handler {
        Handler::Http { scheme, host, port, path, headers } => {
            let target = http::Target { scheme: *scheme, host, port: *port, path, headers };
            http::probe(&target, probe.timeout).await
        }
        Handler::Tcp { host, port } => tcp::probe(host, *port, probe.timeout).await,
        Handler::Grpc { host, port, service } => grpc::probe(*host, *port, service, probe.timeout).await,
        Handler::Exec { command } => exec::probe(by, command, probe.timeout).await,
    }
}

/// A duration as Go prints one of whole seconds or milliseconds.
fn go_duration(duration: std::time::Duration) -> String {
    if duration.subsec_millis() == 0 {
        let seconds = duration.as_secs();
        match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
            (0, 0, s) => format!("{s}s"),
            (0, m, s) => format!("{m}m{s}s"),
            (h, m, s) => format!("{h}h{m}m{s}s"),
        }
    } else {
        format!("{}s", duration.as_secs_f64())
    }
}
