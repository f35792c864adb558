//! Logs go to stderr; what they show is set by `RUST_LOG`.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Shown unless `RUST_LOG` says otherwise. What `kube_client` has to say is said again by whoever called it.
const DEFAULT: &str = "info,kube_client=off,hyper=warn,rustls=warn,tower=warn";

pub fn install() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    let is_terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(is_terminal).with_writer(std::io::stderr).init();
}
