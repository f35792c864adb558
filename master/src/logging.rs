//! What logs show is set by `RUST_LOG`.

/// Shown unless `RUST_LOG` says otherwise. What `kube_client` has to say is said again by whoever called it.
const DEFAULT: &str = "info,kube_client=off,hyper=warn,rustls=warn,tower=warn";

pub fn install() {
    systemd::logging::install("master", "RUST_LOG", DEFAULT, true);
}
