//! Whether the runtime's pod network is up. Asked until it is; what breaks later is seen by the sandboxes that fail.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

const RETRY: Duration = Duration::from_millis(500);

/// Follows the runtime's `NetworkReady` condition until it is true.
#[must_use]
pub fn follow(runtime: cri::Client) -> (watch::Receiver<bool>, JoinHandle<()>) {
    let (publish, ready) = watch::channel(false);
    let task = tokio::spawn(async move {
        while !is_ready(&runtime).await {
            tokio::time::sleep(RETRY).await;
        }
        publish.send_replace(true);
        // Keeps the channel open for those who wait on it.
        publish.closed().await;
    });
    (ready, task)
}

async fn is_ready(runtime: &cri::Client) -> bool {
    let Ok(answer) = runtime.status(cri::v1::StatusRequest { verbose: false }).await else { return false };
    let conditions = answer.status.unwrap_or_default().conditions;
    conditions.iter().any(|condition| condition.r#type == "NetworkReady" && condition.status)
}
