//! What logs show is set by `RUST_LOG`.

use tracing_subscriber::EnvFilter;

/// Shown unless `RUST_LOG` says otherwise. What `kube_client` has to say is said again by whoever called it.
const DEFAULT: &str = "info,kube_client=off,hyper=warn,rustls=warn,tower=warn";

pub fn install() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    systemd::logging::install("master", filter, true);
}
