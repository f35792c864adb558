//! What happens to containers, as a stream of hints. An event says "look again" and nothing more: readers always re-read
//! the runtime, so that a lost or doubled event costs time and never correctness.
//!
//! containerd 1.7 and later answer CRI's `GetContainerEvents`; 1.6 does not, and there its own event service is followed.

use std::time::Duration;

use tokio::sync::mpsc;
use tonic::Code;

use crate::Client;
use crate::containerd::events::events_client::EventsClient;
use crate::containerd::events::{SubscribeRequest, TaskEvent};
use crate::v1;

/// A hint that something changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The stream was (re)opened: whatever happened before is unknown, so look at everything.
    Resync,
    /// A container or sandbox changed. `pod_uid` is known only where the runtime says it.
    Container { id: String, pod_uid: Option<String> },
}

/// containerd's CRI plugin learns of an exit from the same stream as we do; a second look this much later sees its result.
const SETTLE: Duration = Duration::from_millis(30);
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Bounded: when the reader is this far behind, the stream waits and the runtime's own buffer decides.
const QUEUE: usize = 256;

/// Follows the runtime for as long as the receiver lives, through restarts of the runtime.
#[must_use]
pub fn follow(client: Client) -> mpsc::Receiver<Event> {
    let (tx, rx) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let mut retry = RETRY_MIN;
        while !tx.is_closed() {
            let opened = tokio::time::Instant::now();
            let end = tokio::select! {
                // Cancel-safe: dropping a stream only closes it.
                end = once(&client, &tx) => end,
                () = tx.closed() => return,
            };
            if opened.elapsed() > RETRY_MAX {
                retry = RETRY_MIN;
            }
            tracing::debug!(error = ?end.err(), "runtime event stream ended");
            tokio::time::sleep(retry).await;
            retry = (retry * 2).min(RETRY_MAX);
        }
    });
    rx
}

async fn once(client: &Client, tx: &mpsc::Sender<Event>) -> Result<(), tonic::Status> {
    match client.runtime().get_container_events(v1::GetEventsRequest {}).await {
        Ok(stream) => match from_cri(stream.into_inner(), tx).await {
            // An old containerd may also open the stream and refuse in its trailers.
            Err(status) if status.code() == Code::Unimplemented => from_containerd(client, tx).await,
            end => end,
        },
        Err(status) if status.code() == Code::Unimplemented => from_containerd(client, tx).await,
        Err(status) => Err(status),
    }
}

async fn from_cri(
    mut stream: tonic::Streaming<v1::ContainerEventResponse>,
    tx: &mpsc::Sender<Event>,
) -> Result<(), tonic::Status> {
    if tx.send(Event::Resync).await.is_err() {
        return Ok(());
    }
    loop {
        let Some(message) = stream.message().await? else { return Ok(()) };
        let pod_uid = message.pod_sandbox_status.and_then(|s| s.metadata).map(|m| m.uid);
        if tx.send(Event::Container { id: message.container_id, pod_uid }).await.is_err() {
            return Ok(());
        }
    }
}

async fn from_containerd(client: &Client, tx: &mpsc::Sender<Event>) -> Result<(), tonic::Status> {
    let filters = ["/tasks/start", "/tasks/exit", "/tasks/oom", "/tasks/delete"]
        .map(|topic| format!("namespace==\"k8s.io\",topic==\"{topic}\""))
        .to_vec();
    let mut events = EventsClient::new(client.channel());
    let mut stream = events.subscribe(SubscribeRequest { filters }).await?.into_inner();
    if tx.send(Event::Resync).await.is_err() {
        return Ok(());
    }
    while let Some(envelope) = stream.message().await? {
        let Some(any) = envelope.event else { continue };
        let Ok(TaskEvent { container_id }) = prost::Message::decode(any.value.as_slice()) else { continue };
        let event = Event::Container { id: container_id, pod_uid: None };
        if tx.send(event.clone()).await.is_err() {
            return Ok(());
        }
        let later = tx.clone();
        tokio::spawn(async move {
            tokio::time::sleep(SETTLE).await;
            // The reader is gone: nothing is left to tell.
            let _ = later.send(event).await;
        });
    }
    Ok(())
}
