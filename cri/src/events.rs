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
use crate::v1::{self, ContainerEventType};

/// A hint that something changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The stream was (re)opened: whatever happened before is unknown, so look at everything.
    Resync,
    /// A container or sandbox ended or was deleted. `pod_uid` is known only where the runtime says it.
    Ended { id: String, pod_uid: Option<String> },
    /// Something began, which whoever began it knows already, or is about to end: worth a look at everything later on.
    Unsettled,
}

/// When to look after containerd has deleted a task. Its CRI plugin, which asked for that, then writes down what came of
/// it: mostly the first look sees that, else the second one does.
const LOOKS: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(30)];
const START: &str = "/tasks/start";
const DELETE: &str = "/tasks/delete";
/// How long a stream may take to open before the runtime is looked at without.
const SILENCE: Duration = Duration::from_secs(1);
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
    let mut runtime = client.runtime();
    match opened(client, tx, runtime.get_container_events(v1::GetEventsRequest {})).await {
        Ok(stream) => match from_cri(stream, tx).await {
            // An old containerd may also open the stream and refuse in its trailers.
            Err(status) if status.code() == Code::Unimplemented => from_containerd(client, tx).await,
            end => end,
        },
        Err(status) if status.code() == Code::Unimplemented => from_containerd(client, tx).await,
        Err(status) => Err(status),
    }
}

/// Waits for a stream. A server in Go opens it with the first message, which may be long in coming: until then it is enough that the runtime
/// answers, be it the one of before or another.
async fn opened<T>(
    client: &Client,
    tx: &mpsc::Sender<Event>,
    opening: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, tonic::Status> {
    let mut opening = std::pin::pin!(opening);
    let answer = async {
        tokio::time::sleep(SILENCE).await;
        client.version(v1::VersionRequest { version: "v1".into() }).await
    };
    // Cancel-safe: the stream is still being opened afterwards, and a version is only asked for.
    tokio::select! {
        stream = &mut opening => return stream.map(tonic::Response::into_inner),
        Ok(_) = answer => {}
    }
    // Without a reader nothing is opened, either: the follower sees that.
    let _ = tx.send(Event::Resync).await;
    opening.await.map(tonic::Response::into_inner)
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
        let event = match message.container_event_type() {
            ContainerEventType::ContainerCreatedEvent | ContainerEventType::ContainerStartedEvent => Event::Unsettled,
            ContainerEventType::ContainerStoppedEvent | ContainerEventType::ContainerDeletedEvent => {
                let pod_uid = message.pod_sandbox_status.and_then(|s| s.metadata).map(|m| m.uid);
                Event::Ended { id: message.container_id, pod_uid }
            }
        };
        if tx.send(event).await.is_err() {
            return Ok(());
        }
    }
}

async fn from_containerd(client: &Client, tx: &mpsc::Sender<Event>) -> Result<(), tonic::Status> {
    // Exits are not asked for: those of commands (exec probes) are among them, and a container's is followed by a delete.
    let filters = [START, DELETE].map(|topic| format!("namespace==\"k8s.io\",topic==\"{topic}\"")).to_vec();
    let mut events = EventsClient::new(client.channel());
    let mut stream = opened(client, tx, events.subscribe(SubscribeRequest { filters })).await?;
    if tx.send(Event::Resync).await.is_err() {
        return Ok(());
    }
    while let Some(envelope) = stream.message().await? {
        // Told at once, so that a lost look below is repaired by the look at everything.
        if tx.send(Event::Unsettled).await.is_err() {
            return Ok(());
        }
        let Some(any) = envelope.event.filter(|_| envelope.topic == DELETE) else { continue };
        let Ok(TaskEvent { container_id }) = prost::Message::decode(any.value.as_slice()) else { continue };
        let deleted = tokio::time::Instant::now();
        let later = tx.clone();
        tokio::spawn(async move {
            for look in LOOKS {
                tokio::time::sleep_until(deleted + look).await;
                // The reader is gone: nothing is left to tell.
                let _ = later.send(Event::Ended { id: container_id.clone(), pod_uid: None }).await;
            }
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_nothing_opens_holds_up_no_look() {
        let (fake, (tx, mut events)) = (crate::fake::Fake::default(), mpsc::channel(QUEUE));
        let client = fake.client();
        let silent = tokio::spawn(async move { opened::<()>(&client, &tx, std::future::pending()).await });
        assert_eq!(events.recv().await, Some(Event::Resync));
        silent.abort();
    }
}
